//! Searches, as `search.proto` has them.

use clipmesh_proto::code::{FieldViolation, Reason};
use clipmesh_proto::search::v1;

use super::value::{self, within};
use crate::query::{Fields, Found, Ranked, Request, Way};
use crate::words;

const DEFAULT_LIMIT: u32 = 10;
const MAX_LIMIT: u32 = 1_000;
const MAX_OFFSET: u32 = 10_000;
const MAX_EFFORT: u32 = 4_096;
const MAX_GROUPS: u32 = 100;
const DEFAULT_GROUP_SIZE: u32 = 3;
const MAX_GROUP_SIZE: u32 = 100;
const DEFAULT_DIVERSITY: f32 = 0.5;
/// Candidates for each hit that is asked for.
const DEFAULT_CANDIDATES: u32 = 10;
const MAX_CANDIDATES: u32 = 1_000;
const DEFAULT_RANKING_WEIGHT: f32 = 1.0;
const MAX_RANKING_WEIGHT: f32 = 10.0;
const MAX_WORD_QUERY_BYTES: usize = 4_096;
const MAX_SEARCHES: usize = 64;

/// Checks a search. What depends on its collection is checked later.
pub(crate) fn read(mut request: v1::SearchRequest) -> Result<Request, FieldViolation> {
    let query = request.query.take();
    let is_by_words_alone = query.is_none() && request.words.is_some();
    check_threshold(request.score_threshold)?;
    let effort = request.effort.map(|effort| within("effort", effort, 1..=MAX_EFFORT));
    let read = Request {
        limit: within("limit", request.limit.unwrap_or(DEFAULT_LIMIT), 1..=MAX_LIMIT)? as usize,
        offset: within("offset", request.offset, 0..=MAX_OFFSET)? as usize,
        way: read_way(&mut request)?,
        collection: super::collection_name("collection", request.collection)?,
        query: if is_by_words_alone { Vec::new() } else { super::query::read(query)? },
        filter: super::filter::read(request.filter)?,
        threshold: request.score_threshold,
        exact: request.exact,
        effort: effort.transpose()?.map(|effort| effort as usize),
        fields: read_fields(request.fields)?,
        vectors: request.include_vectors,
    };
    if is_by_words_alone && read.threshold.is_some() {
        let message = "is for the similarity to a `query`, and there is none";
        return Err(FieldViolation::new("score_threshold", Reason::Conflict, message));
    }
    Ok(read)
}

/// Checks several searches, each by itself.
pub(crate) fn read_batch(
    request: v1::SearchBatchRequest,
) -> Result<Vec<Result<Request, FieldViolation>>, FieldViolation> {
    let refuse = |reason, message| Err(FieldViolation::new("searches", reason, message));
    match request.searches.len() {
        0 => refuse(Reason::Empty, format!("must hold 1 to {MAX_SEARCHES} searches")),
        many if many > MAX_SEARCHES => {
            refuse(Reason::TooMany, format!("must be at most {MAX_SEARCHES}, not {many}"))
        }
        _ => Ok(request.searches.into_iter().map(read).collect()),
    }
}

/// Checks the least score of what counts as found, from the field `score_threshold`.
pub(super) fn check_threshold(threshold: Option<f32>) -> Result<(), FieldViolation> {
    threshold.map_or(Ok(()), |least| within("score_threshold", least, -1.0..=1.0).map(drop))
}

/// What was found, as callers see it.
pub(crate) fn write(found: Found, request: &Request) -> v1::SearchResponse {
    let hits = |hits: Vec<Ranked>| hits.into_iter().map(|hit| write_hit(hit, request)).collect();
    match found {
        Found::Hits(found) => v1::SearchResponse { hits: hits(found), ..Default::default() },
        Found::Groups { field, groups } => {
            let groups = groups.into_iter().map(|(value, found)| v1::HitGroup {
                value: Some(value::write(&field, &value)),
                hits: hits(found),
            });
            v1::SearchResponse { groups: groups.collect(), ..Default::default() }
        }
    }
}

fn write_hit(hit: Ranked, request: &Request) -> v1::Hit {
    let vector = hit.vector.filter(|_| request.vectors);
    v1::Hit {
        item: Some(request.fields.of(super::item::write(hit.item))),
        score: hit.score,
        word_score: hit.word_score,
        fused_score: hit.fused_score,
        vector: vector.map_or_else(Vec::new, clipmesh_proto::Embedding::into_values),
    }
}

fn read_way(request: &mut v1::SearchRequest) -> Result<Way, FieldViolation> {
    let refuse = |field: &str, other: &str| {
        let message = format!("does not go with `{other}`");
        Err(FieldViolation::new(field, Reason::Conflict, message))
    };
    let (group_by, diversity) = (request.group_by.take(), request.diversity.take());
    match (group_by, diversity, request.words.take()) {
        (None, None, None) => Ok(Way::Nearest),
        (Some(_), Some(_), _) => refuse("group_by", "diversity"),
        (Some(_), None, Some(_)) => refuse("group_by", "words"),
        (None, Some(_), Some(_)) => refuse("diversity", "words"),
        (Some(_), None, None) if request.offset > 0 => refuse("group_by", "offset"),
        (Some(group_by), None, None) => read_groups(&group_by, request.limit),
        (None, Some(diversity), None) => read_diversity(&diversity, request),
        (None, None, Some(words)) => read_words(&words),
    }
}

fn read_groups(group_by: &v1::GroupBy, limit: Option<u32>) -> Result<Way, FieldViolation> {
    if let Some(limit) = limit {
        within("limit", limit, 1..=MAX_GROUPS)?;
    }
    let size = group_by.size.unwrap_or(DEFAULT_GROUP_SIZE);
    Ok(Way::Groups {
        field: super::field("group_by.key", &group_by.key)?,
        size: within("group_by.size", size, 1..=MAX_GROUP_SIZE)? as usize,
    })
}

fn read_diversity(
    diversity: &v1::Diversity,
    request: &v1::SearchRequest,
) -> Result<Way, FieldViolation> {
    let weight = diversity.weight.unwrap_or(DEFAULT_DIVERSITY);
    let weight = within("diversity.weight", weight, 0.0..=1.0)?;
    let wanted = request.limit.unwrap_or(DEFAULT_LIMIT).saturating_add(request.offset);
    // Otherwise the hits would end before the limit, as if there were no more.
    if wanted > MAX_CANDIDATES {
        let message = format!("must be at most {MAX_CANDIDATES} with `limit` and `diversity`");
        return Err(FieldViolation::new("offset", Reason::OutOfRange, message));
    }
    let default = wanted.saturating_mul(DEFAULT_CANDIDATES).min(MAX_CANDIDATES);
    let candidates = diversity.candidates.unwrap_or(default);
    let candidates = within("diversity.candidates", candidates, wanted..=MAX_CANDIDATES)?;
    Ok(Way::Diverse { weight, candidates: candidates as usize })
}

fn read_words(query: &v1::WordQuery) -> Result<Way, FieldViolation> {
    let refuse = |reason, message| Err(FieldViolation::new("words.text", reason, message));
    let bytes = query.text.len();
    if bytes > MAX_WORD_QUERY_BYTES {
        let message = format!("must be at most {MAX_WORD_QUERY_BYTES} bytes long, not {bytes}");
        return refuse(Reason::TextTooLong, message);
    }
    let words = words::of(&query.text);
    if words.is_empty() {
        return refuse(Reason::Empty, "must hold a word".to_owned());
    }
    Ok(Way::Words {
        words,
        weight: ranking_weight("words.weight", query.weight)?,
        query_weight: ranking_weight("words.query_weight", query.query_weight)?,
    })
}

fn ranking_weight(field: &str, weight: Option<f32>) -> Result<f32, FieldViolation> {
    let weight = weight.unwrap_or(DEFAULT_RANKING_WEIGHT);
    // A NaN is neither.
    if weight > 0.0 && weight <= MAX_RANKING_WEIGHT {
        return Ok(weight);
    }
    let message = format!("must be more than 0 and at most {MAX_RANKING_WEIGHT}, not {weight}");
    Err(FieldViolation::new(field, Reason::OutOfRange, message))
}

fn read_fields(mask: Option<prost_types::FieldMask>) -> Result<Fields, FieldViolation> {
    let mut fields = Fields::default();
    for (i, path) in mask.unwrap_or_default().paths.into_iter().enumerate() {
        let place = format!("fields.paths[{i}]");
        if path.starts_with("metadata.") {
            super::field(&place, &path)?;
        }
        let quoted: String = path.chars().take(super::MAX_QUOTED_CHARS).collect();
        fields.add(path).map_err(|_| {
            let message = format!("`{quoted}` is no field of an item");
            FieldViolation::new(place, Reason::Malformed, message)
        })?;
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use clipmesh_proto::search::v1::query::Kind;
    use prost_types::FieldMask;

    use super::*;

    fn request() -> v1::SearchRequest {
        let query = v1::Query { kind: Some(Kind::Text("a dog".to_owned())) };
        v1::SearchRequest {
            collection: "pets".to_owned(),
            query: Some(query),
            ..v1::SearchRequest::default()
        }
    }

    fn grouped(key: &str, size: Option<u32>) -> v1::SearchRequest {
        let group_by = v1::GroupBy { key: key.to_owned(), size };
        v1::SearchRequest { group_by: Some(group_by), ..request() }
    }

    fn diverse(weight: Option<f32>, candidates: Option<u32>) -> v1::SearchRequest {
        let diversity = v1::Diversity { weight, candidates };
        v1::SearchRequest { diversity: Some(diversity), ..request() }
    }

    fn worded(text: &str, weight: Option<f32>, query_weight: Option<f32>) -> v1::SearchRequest {
        let words = v1::WordQuery { text: text.to_owned(), weight, query_weight };
        v1::SearchRequest { words: Some(words), ..request() }
    }

    fn showing(paths: &[&str]) -> v1::SearchRequest {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        v1::SearchRequest { fields: Some(FieldMask { paths }), ..request() }
    }

    #[test]
    fn has_the_defaults_of_the_contract() {
        let plain = read(request()).expect("accepted");
        assert_eq!((plain.limit, plain.offset, plain.threshold), (10, 0, None), "a page");
        assert_eq!((plain.exact, plain.effort), (false, None), "by the graph");
        assert_eq!((plain.vectors, plain.fields), (false, Fields::default()), "what is shown");
        assert!(plain.filter.is_empty(), "no filter");
        assert_eq!(plain.way, Way::Nearest, "no other way");
        let way = |request| read(request).expect("accepted").way;
        let field = crate::filter::Field::Metadata("album".to_owned());
        assert_eq!(way(grouped("metadata.album", None)), Way::Groups { field, size: 3 }, "groups");
        let diverse_way = Way::Diverse { weight: 0.5, candidates: 100 };
        assert_eq!(way(diverse(None, None)), diverse_way, "ten for each hit");
        let words = vec!["a".to_owned(), "dog".to_owned()];
        let words = Way::Words { words, weight: 1.0, query_weight: 1.0 };
        assert_eq!(way(worded("A dog!", None, None)), words, "folded");
    }

    #[test]
    fn takes_what_lies_on_its_bounds() {
        let most = |request: v1::SearchRequest| v1::SearchRequest {
            limit: Some(1_000),
            effort: Some(4_096),
            ..request
        };
        let page = |limit, offset, threshold| v1::SearchRequest {
            limit: Some(limit),
            offset,
            score_threshold: Some(threshold),
            effort: Some(1),
            ..request()
        };
        let cases = [
            page(1, 0, -1.0),
            page(1_000, 10_000, 1.0),
            most(diverse(Some(0.0), Some(1_000))),
            most(diverse(Some(1.0), None)),
            v1::SearchRequest { limit: Some(100), ..grouped("width", Some(100)) },
            most(worded("x", Some(10.0), Some(f32::MIN_POSITIVE))),
            worded(&"a".repeat(MAX_WORD_QUERY_BYTES), None, None),
            v1::SearchRequest { query: None, ..worded("x", None, None) },
            showing(&["id", "metadata", "metadata.album", "etag"]),
        ];
        for request in cases {
            assert!(read(request.clone()).is_ok(), "{request:?}");
        }
    }

    #[track_caller]
    fn assert_refused(request: v1::SearchRequest, field: &str, reason: Reason) {
        let violation = read(request).expect_err("refused");
        assert_eq!((violation.field.as_str(), violation.reason), (field, reason), "{violation}");
    }

    #[test]
    fn refuses_by_field_and_reason() {
        let threshold = |threshold| v1::SearchRequest { score_threshold: threshold, ..request() };
        let limit = |limit| v1::SearchRequest { limit: Some(limit), ..request() };
        let effort = |effort| v1::SearchRequest { effort: Some(effort), ..request() };
        let collection =
            |name: &str| v1::SearchRequest { collection: name.to_owned(), ..request() };
        let (nan, range) = (f32::NAN, Reason::OutOfRange);
        let wide = v1::SearchRequest { limit: Some(101), ..grouped("width", None) };
        let deep = v1::SearchRequest { offset: 991, ..diverse(None, None) };
        let long = "a".repeat(MAX_WORD_QUERY_BYTES + 1);
        let cases = [
            (limit(0), "limit", range),
            (limit(1_001), "limit", range),
            (v1::SearchRequest { offset: 10_001, ..request() }, "offset", range),
            (threshold(Some(1.001)), "score_threshold", range),
            (threshold(Some(nan)), "score_threshold", range),
            (threshold(Some(f32::NEG_INFINITY)), "score_threshold", range),
            (effort(0), "effort", range),
            (effort(4_097), "effort", range),
            (collection(""), "collection", Reason::Empty),
            (collection("No"), "collection", Reason::Malformed),
            (v1::SearchRequest { query: None, ..request() }, "query", Reason::Missing),
            (grouped("", None), "group_by.key", Reason::Malformed),
            (grouped("colour", None), "group_by.key", Reason::Malformed),
            (grouped("width", Some(0)), "group_by.size", range),
            (grouped("width", Some(101)), "group_by.size", range),
            (wide, "limit", range),
            (diverse(Some(-0.1), None), "diversity.weight", range),
            (diverse(Some(1.1), None), "diversity.weight", range),
            (diverse(Some(nan), None), "diversity.weight", range),
            (diverse(None, Some(9)), "diversity.candidates", range),
            (diverse(None, Some(1_001)), "diversity.candidates", range),
            (deep, "offset", range),
            (worded("", None, None), "words.text", Reason::Empty),
            (worded(" … ", None, None), "words.text", Reason::Empty),
            (worded(&long, None, None), "words.text", Reason::TextTooLong),
            (worded("x", Some(0.0), None), "words.weight", range),
            (worded("x", Some(nan), None), "words.weight", range),
            (worded("x", None, Some(10.1)), "words.query_weight", range),
            (showing(&["id", "colour"]), "fields.paths[1]", Reason::Malformed),
            (showing(&["metadata.a.b"]), "fields.paths[0]", Reason::Malformed),
            (showing(&[""]), "fields.paths[0]", Reason::Malformed),
        ];
        for (request, field, reason) in cases {
            assert_refused(request, field, reason);
        }
    }

    #[test]
    fn refuses_what_does_not_go_together() {
        let group_by = grouped("width", None).group_by;
        let diversity = diverse(None, None).diversity;
        let words = worded("x", None, None).words;
        let conflict = Reason::Conflict;
        let with = |request| v1::SearchRequest { group_by: group_by.clone(), ..request };
        assert_refused(with(diverse(None, None)), "group_by", conflict);
        assert_refused(with(worded("x", None, None)), "group_by", conflict);
        assert_refused(with(v1::SearchRequest { offset: 1, ..request() }), "group_by", conflict);
        let both = v1::SearchRequest { diversity, words: words.clone(), ..request() };
        assert_refused(both, "diversity", conflict);
        let unscored =
            v1::SearchRequest { query: None, words, score_threshold: Some(0.5), ..request() };
        assert_refused(unscored, "score_threshold", conflict);
    }

    #[test]
    fn a_batch_is_read_search_by_search() {
        let batch = |searches| read_batch(v1::SearchBatchRequest { searches });
        let bad = v1::SearchRequest { limit: Some(0), ..request() };
        let read = batch(vec![request(), bad, request()]).expect("accepted");
        let fields: Vec<_> = read.iter().map(|one| one.as_ref().err().map(|v| &*v.field)).collect();
        assert_eq!(fields, [None, Some("limit"), None], "one of three");
        let refused = |searches| batch(searches).map(drop).expect_err("refused");
        assert_eq!(refused(vec![]).reason, Reason::Empty, "none");
        assert_eq!(refused(vec![request(); 65]).reason, Reason::TooMany, "too many");
        assert_eq!(refused(vec![]).field, "searches", "the field");
        assert!(batch(vec![request(); 64]).is_ok(), "as many as may be");
    }
}
