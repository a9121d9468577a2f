//! What is near to something: hits, groups of them, and the values that items have.

use std::collections::HashMap;

use qdrant_edge::{
    EdgeShardRead as _, FacetRequestBuilder, FacetValue, Filter as EngineFilter,
    GroupRequestBuilder, NamedQuery, PointId, QueryEnum, QueryRequestBuilder, Record as Retrieved,
    RetrieveRequestBuilder, ScoredPoint, ScoringQuery, SearchRequestBuilder, SparseVector,
    VectorInternal, WithPayloadInterface,
};
use serde_json::Value as Json;

use super::super::engine::WORDS_VECTOR;
use super::super::{failed, filter};
use super::Shard;
use super::plan::Way;
use super::read::{record, wanted};
use crate::item::Scalar;
use crate::store::grouping::{self, Asking, rank_groups};
use crate::store::index::Kind;
use crate::store::lower::{self, point_id};
use crate::store::{Error, Facet, Group, Grouped, Hit, Record, Search, Target, check_length, rank};
use crate::words::Weights;

/// Hits fetched beyond those asked for, so that equal scores at the end are seen whole and put in
/// order. Few collections have more copies of one picture.
const TIE_MARGIN: usize = 16;

/// Where the search for the end of a row of equal scores is given up: past it, which of the equal
/// ones are on a page is the engine's choice.
const MAX_FETCH: usize = 65_536;

// === impl Shard ===

impl Shard {
    pub(in super::super) fn search(&self, search: &Search) -> Result<Vec<Hit>, Error> {
        let Some(query) = self.query(&search.target)? else {
            return Ok(Vec::new());
        };
        let filter = self.filter(search)?;
        let mut way = self.way(search, filter.as_ref())?;
        let wanted = search.offset.saturating_add(search.limit);
        let most = MAX_FETCH.max(wanted);
        let mut fetch = wanted.saturating_add(TIE_MARGIN);
        let mut scored = loop {
            let mut request = SearchRequestBuilder::new(query.clone(), fetch)
                .params(way.params(fetch))
                .with_payload(id_alone()?);
            if let Some(filter) = &filter {
                request = request.filter(filter.clone());
            }
            let found = self.engine.run(|shard| shard.search(request.build()))?;
            let scored: Vec<_> = found.into_iter().filter_map(id_and_score).collect();
            if scored.len() < wanted && way != Way::Scan {
                // The graph may lose hits: what does not fill the page is looked for without it.
                way = Way::Scan;
            } else if scored.len() < fetch || fetch >= most || is_settled(&scored, wanted) {
                break scored;
            } else {
                fetch = fetch.saturating_mul(4).min(most);
            }
        };
        if let Target::Words(_) = search.target {
            // What has none of the words can come out of a search of few items.
            scored.retain(|(_, score)| *score > 0.0);
        }
        self.hits(rank(scored, search), search.vectors)
    }

    pub(in super::super) fn group(&self, grouped: &Grouped) -> Result<Vec<Group>, Error> {
        let Grouped { search, field, size } = grouped;
        let index = self.index_on(field, &[Kind::Keyword, Kind::Integer])?;
        let path = filter::path(&lower::index(&index).0)?;
        let Some(query) = self.query(&search.target)? else {
            return Ok(Vec::new());
        };
        let filter = self.filter(search)?;
        let way = self.way(search, filter.as_ref())?;
        let mut asking = Asking::new(grouped);
        let fitting = loop {
            let mut request = QueryRequestBuilder::new(0)
                .query(ScoringQuery::Vector(query.clone()))
                .params(way.params(asking.limit().saturating_mul(*size)))
                .with_payload(id_alone()?);
            if let Some(filter) = &filter {
                request = request.filter(filter.clone());
            }
            let request = request.build();
            let request = GroupRequestBuilder::new(request, path.clone(), asking.limit(), *size);
            let found = self.engine.run(|shard| shard.query_groups(request.build()))?;
            let count = found.len();
            let fitting: Vec<_> = found
                .into_iter()
                .filter_map(|group| {
                    let value = scalar(Json::from(group.key))?;
                    let hits = group.hits.into_iter().filter_map(id_and_score).collect();
                    grouping::is_known(&value, index.kind).then_some((value, hits))
                })
                .collect();
            if !asking.wants_more(count, fitting.len()) {
                break fitting;
            }
        };
        let mut groups = Vec::with_capacity(search.limit.min(fitting.len()));
        for (value, ranked) in rank_groups(fitting, grouped) {
            let hits = self.hits(ranked, search.vectors)?;
            if !hits.is_empty() {
                groups.push(Group { value, hits });
            }
        }
        Ok(groups)
    }

    pub(in super::super) fn facet(&self, facet: &Facet) -> Result<Vec<(Scalar, u64)>, Error> {
        let fitting = [Kind::Keyword, Kind::Integer, Kind::Boolean];
        let path = lower::index(&self.index_on(&facet.field, &fitting)?).0;
        let mut request =
            FacetRequestBuilder::new(filter::path(&path)?).limit(facet.limit).exact(true);
        if let Some(filter) = self.translate(&facet.filter)? {
            request = request.filter(filter);
        }
        let found = self.engine.run(|shard| shard.facet(request.build()))?;
        let counted = found.hits.into_iter().filter_map(|hit| {
            let value = match hit.value {
                FacetValue::Keyword(text) => Scalar::String(text),
                FacetValue::Int(number) => Scalar::Number(number as f64),
                FacetValue::Bool(flag) => Scalar::Bool(flag),
                // No index of ours has these.
                FacetValue::Uuid(_) => return None,
            };
            Some((value, hit.count as u64))
        });
        Ok(counted.filter(|(_, count)| *count > 0).collect())
    }

    /// What the engine is asked for; `None` if nothing can be near to it.
    fn query(&self, target: &Target) -> Result<Option<QueryEnum>, Error> {
        let collection = self.collection();
        match target {
            Target::Vector(vector) => {
                check_length(vector, collection.dimension)?;
                Ok(Some(QueryEnum::Nearest(NamedQuery::default_dense(vector.values().to_vec()))))
            }
            Target::Words(words) if words.is_empty() || collection.word_fields.is_empty() => {
                Ok(None)
            }
            Target::Words(words) => {
                let Weights { words, weights } = Weights::of_query(words);
                let words = SparseVector::new(words, weights).map_err(failed)?;
                let query = NamedQuery::new(VectorInternal::Sparse(words), WORDS_VECTOR);
                Ok(Some(QueryEnum::Nearest(query)))
            }
        }
    }

    fn filter(&self, search: &Search) -> Result<Option<EngineFilter>, Error> {
        let exclude: Vec<_> = search.exclude.iter().map(|id| point_id(id.as_str())).collect();
        filter::translate(&search.filter, &exclude, &self.collection().indexes)
    }

    /// Fetches the items of a page; one that was deleted in between is left out.
    fn hits(&self, ranked: Vec<(String, f32)>, vectors: bool) -> Result<Vec<Hit>, Error> {
        let point = |id: &str| PointId::Uuid(point_id(id));
        let points = ranked.iter().map(|(id, _)| point(id)).collect();
        let request = RetrieveRequestBuilder::new(points)
            .with_payload(WithPayloadInterface::Bool(true))
            .with_vector(wanted(vectors))
            .build();
        let found = self.engine.run(|shard| shard.retrieve(request))?;
        let mut found: HashMap<PointId, Retrieved> =
            found.into_iter().map(|found| (found.id, found)).collect();
        let mut hits = Vec::with_capacity(ranked.len());
        for (id, score) in ranked {
            if let Some(found) = found.remove(&point(&id)) {
                let Record { item, vector } = record(found, vectors)?;
                hits.push(Hit { item, score, vector });
            }
        }
        Ok(hits)
    }
}

/// Ids are enough to rank by.
fn id_alone() -> Result<WithPayloadInterface, Error> {
    Ok(WithPayloadInterface::Fields(vec![filter::path("id")?]))
}

fn id_and_score(point: ScoredPoint) -> Option<(String, f32)> {
    let id = point.payload?.0.get("id")?.as_str()?.to_owned();
    Some((id, point.score))
}

/// What a group has in common.
fn scalar(key: Json) -> Option<Scalar> {
    match key {
        Json::String(text) => Some(Scalar::String(text)),
        Json::Number(number) => number.as_f64().map(Scalar::Number),
        Json::Null | Json::Bool(_) | Json::Array(_) | Json::Object(_) => None,
    }
}

/// Whether no score equal to that of the last wanted hit can be missing.
fn is_settled(scored: &[(String, f32)], wanted: usize) -> bool {
    let last_wanted = wanted.checked_sub(1).and_then(|last| scored.get(last));
    match (last_wanted, scored.last()) {
        (Some((_, wanted)), Some((_, last))) => wanted > last,
        (None, _) | (_, None) => true,
    }
}
