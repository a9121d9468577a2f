//! Searches: nearest items, groups of them, and counts by value.

use std::collections::HashMap;

use clipmesh_proto::ids::{CollectionName, ItemId};
use qdrant_client::qdrant::{
    AcornSearchParams, FacetCounts, PointGroup, QuantizationSearchParams, QueryBatchPoints,
    QueryPointGroups, QueryPoints, ScoredPoint, SearchParams, WithPayloadSelector,
    WithVectorsSelector, facet_value, group_id,
};

use super::convert::{self, Payload, WORDS_VECTOR};
use super::error::failed_on;
use super::points::{incomplete, index_kind, outer_filter};
use super::{Inner, record};
use crate::item::Scalar;
use crate::store::grouping::{self, Asking, rank_groups};
use crate::store::index::{Kind, Quantization};
use crate::store::lower::{self, point_id};
use crate::store::{
    AsId, Collection, Error, Facet, Group, Grouped, Hit, Record, Search, Target, check_length, rank,
};

/// Hits fetched beyond those asked for, so that equal scores at the end are seen whole and put in
/// order. Few collections have more copies of one picture.
const TIE_MARGIN: usize = 16;

/// Where the search for the end of a row of equal scores is given up: past it, which of the equal
/// ones are on a page is the server's choice.
const MAX_FETCH: usize = 65_536;

/// How many hits that are on no page may come with everything in them. Beyond, a second call for
/// those of the page is less work than what the first would carry in vain.
const MAX_SPARE: usize = 64;

/// The share of all points up to which a filtered walk looks one link further (ACORN,
/// arXiv:2403.04871), lest it gets stuck among links to what does not pass. Above, nearly every link
/// leads to what does. The embedded store has measured both.
const ACORN_UP_TO: f64 = 0.9;

/// A hit as the server found it.
#[derive(Debug)]
struct Found {
    id: String,
    /// Unless only the id was asked for.
    hit: Option<Record>,
}

impl AsId for Found {
    fn id(&self) -> &str {
        &self.id
    }
}

/// What a search has found so far.
#[derive(Debug)]
struct Progress {
    search: Search,
    /// How many to ask the server for.
    fetch: usize,
    /// Best first; equal scores in any order.
    scored: Vec<(Found, f32)>,
}

impl Inner {
    pub(super) async fn search(
        &self,
        name: &CollectionName,
        searches: Vec<Search>,
    ) -> Result<Vec<Vec<Hit>>, Error> {
        let collection = self.describe(name).await?;
        for search in &searches {
            check_target(&collection, search)?;
        }
        let mut all: Vec<_> = searches.into_iter().map(Progress::new).collect();
        let can_find = |progress: &Progress| match &progress.search.target {
            Target::Vector(_) => progress.search.limit > 0,
            // The server has no vectors of words where there are no fields of them.
            Target::Words(words) => {
                progress.search.limit > 0 && !words.is_empty() && !collection.word_fields.is_empty()
            }
        };
        let mut open: Vec<_> = (0..all.len()).filter(|&i| can_find(&all[i])).collect();
        while !open.is_empty() {
            let queries = open.iter().map(|&i| all[i].query(self, &collection)).collect();
            let answers = self.query(name, queries).await?;
            if answers.len() != open.len() {
                return Err(incomplete("a batch of hits"));
            }
            for (&i, points) in open.iter().zip(answers) {
                all[i].scored = points.into_iter().map(found).collect::<Result<_, _>>()?;
            }
            open.retain(|&i| all[i].wants_more());
        }
        let pages = all.into_iter().map(|Progress { search, scored, .. }| {
            let page = rank(scored, &search);
            (page, search.vectors)
        });
        let pages = pages.collect();
        self.complete(&collection, pages).await
    }

    async fn query(
        &self,
        name: &CollectionName,
        query_points: Vec<QueryPoints>,
    ) -> Result<Vec<Vec<ScoredPoint>>, Error> {
        let request = QueryBatchPoints {
            collection_name: self.outer_name(name),
            query_points,
            ..QueryBatchPoints::default()
        };
        let answer = self.points.clone().query_batch(request).await;
        let batches = answer.map_err(|status| failed_on(name, &status))?.into_inner().result;
        Ok(batches.into_iter().map(|batch| batch.result).collect())
    }

    /// Fetches the items of those hits that came as an id; one that was deleted in between is left
    /// out.
    async fn complete(
        &self,
        collection: &Collection,
        pages: Vec<(Vec<(Found, f32)>, bool)>,
    ) -> Result<Vec<Vec<Hit>>, Error> {
        let missing = pages.iter().flat_map(|(page, vectors)| {
            let bare = page.iter().filter(|(found, _)| found.hit.is_none());
            bare.map(|(found, _)| (found.id.clone(), *vectors))
        });
        let (mut ids, mut any_vectors) = (Vec::new(), false);
        for (id, vectors) in missing {
            ids.push(ItemId::try_from(id).map_err(|_| incomplete("a hit"))?);
            any_vectors |= vectors;
        }
        ids.sort();
        ids.dedup();
        let records = self.get(&collection.name, &ids, any_vectors).await?;
        let records: HashMap<_, _> =
            records.into_iter().map(|record| (record.item.id.to_string(), record)).collect();
        let hits = |(page, vectors): (Vec<(Found, f32)>, bool)| {
            let hits = page.into_iter().filter_map(|(found, score)| {
                let record = found.hit.or_else(|| records.get(&found.id).cloned())?;
                let vector = record.vector.filter(|_| vectors);
                Some(Hit { item: record.item, score, vector })
            });
            hits.collect()
        };
        Ok(pages.into_iter().map(hits).collect())
    }

    pub(super) async fn group(
        &self,
        name: &CollectionName,
        grouped: Grouped,
    ) -> Result<Vec<Group>, Error> {
        let collection = self.describe(name).await?;
        let Grouped { search, field, size } = &grouped;
        let kind = index_kind(&collection, field, &[Kind::Keyword, Kind::Integer])?;
        check_target(&collection, search)?;
        if search.limit == 0 || *size == 0 {
            return Ok(Vec::new());
        }
        let mut asking = Asking::new(&grouped);
        let fitting = loop {
            let request = self.groups_query(&collection, &grouped, &asking);
            let answer = self.points.clone().query_groups(request).await;
            let result = answer.map_err(|status| failed_on(name, &status))?.into_inner().result;
            let found = result.ok_or_else(|| incomplete("groups"))?.groups;
            let count = found.len();
            let groups: Vec<_> = found.into_iter().map(scored_group).collect::<Result<_, _>>()?;
            let fits = |(value, _): &(Scalar, _)| grouping::is_known(value, kind);
            let fitting: Vec<_> = groups.into_iter().filter(fits).collect();
            if !asking.wants_more(count, fitting.len()) {
                break fitting;
            }
        };
        let (values, pages): (Vec<_>, Vec<_>) = rank_groups(fitting, &grouped)
            .into_iter()
            .map(|(value, page)| (value, (page, search.vectors)))
            .unzip();
        let hits = self.complete(&collection, pages).await?.into_iter();
        let groups = values.into_iter().zip(hits).map(|(value, hits)| Group { value, hits });
        Ok(groups.filter(|group| !group.hits.is_empty()).collect())
    }

    fn groups_query(
        &self,
        collection: &Collection,
        Grouped { search, field, size }: &Grouped,
        asking: &Asking,
    ) -> QueryPointGroups {
        let QueryPoints { query, using, filter, params, .. } =
            Progress::new(search.clone()).query(self, collection);
        let spare = asking.spare().saturating_mul(*size);
        let (fields, vectors) = shown(collection, spare, search.vectors);
        QueryPointGroups {
            collection_name: self.outer_name(&collection.name),
            query,
            using,
            filter,
            params,
            limit: Some(asking.limit() as u64),
            group_size: Some(*size as u64),
            group_by: lower::path(field),
            with_payload: Some(fields),
            with_vectors: Some(vectors),
            ..QueryPointGroups::default()
        }
    }

    pub(super) async fn facet(
        &self,
        name: &CollectionName,
        facet: Facet,
    ) -> Result<Vec<(Scalar, u64)>, Error> {
        let collection = self.describe(name).await?;
        index_kind(&collection, &facet.field, &[Kind::Keyword, Kind::Integer, Kind::Boolean])?;
        if facet.limit == 0 {
            return Ok(Vec::new());
        }
        let request = FacetCounts {
            collection_name: self.outer_name(name),
            key: lower::path(&facet.field),
            filter: outer_filter(&collection, &facet.filter),
            limit: Some(facet.limit as u64),
            exact: Some(true),
            ..FacetCounts::default()
        };
        let answer = self.points.clone().facet(request).await;
        let counts = answer.map_err(|status| failed_on(name, &status))?.into_inner().hits;
        // The server's order is ours already: by count, then by value. It may know of values that
        // nothing has which passes.
        let counts = counts.into_iter().filter(|counted| counted.count > 0).map(|counted| {
            let value = match counted.value.and_then(|value| value.variant) {
                Some(facet_value::Variant::StringValue(text)) => Scalar::String(text),
                Some(facet_value::Variant::IntegerValue(number)) => Scalar::Number(number as f64),
                Some(facet_value::Variant::BoolValue(flag)) => Scalar::Bool(flag),
                None => return Err(incomplete("a count")),
            };
            Ok((value, counted.count))
        });
        counts.collect()
    }

    fn params(&self, collection: &Collection, search: &Search, fetch: usize) -> SearchParams {
        let effort = search.effort.unwrap_or(self.config.search_effort.get()).max(fetch);
        let quantization = match collection.vector_index.quantization {
            Quantization::None => None,
            Quantization::Scalar | Quantization::Binary => Some(QuantizationSearchParams {
                ignore: Some(search.exact),
                rescore: Some(self.config.rescore),
                oversampling: Some(self.config.oversampling.get().into()),
            }),
        };
        // Whether so few pass that comparing with each is better, the server sees for itself.
        let is_walk = !search.exact && !search.filter.is_empty();
        let acorn = is_walk.then_some(AcornSearchParams {
            enable: Some(true),
            max_selectivity: Some(ACORN_UP_TO),
        });
        SearchParams {
            hnsw_ef: Some(effort as u64),
            exact: Some(search.exact),
            quantization,
            acorn,
            ..SearchParams::default()
        }
    }
}

// === impl Progress ===

impl Progress {
    fn new(search: Search) -> Self {
        let fetch = search.offset.saturating_add(search.limit).saturating_add(TIE_MARGIN);
        Self { search, fetch, scored: Vec::new() }
    }

    fn query(&self, store: &Inner, collection: &Collection) -> QueryPoints {
        let search = &self.search;
        let (query, using) = match &search.target {
            Target::Vector(vector) => {
                (convert::nearest(vector), record::vector_name(&collection.fingerprint))
            }
            Target::Words(words) => (convert::fitting(words), WORDS_VECTOR.to_owned()),
        };
        let exclude: Vec<_> = search.exclude.iter().map(|id| point_id(id.as_str())).collect();
        let filter = lower::filter(&search.filter, &exclude, &collection.indexes);
        let spare = self.fetch.saturating_sub(search.limit);
        let (fields, vectors) = shown(collection, spare, search.vectors);
        QueryPoints {
            collection_name: store.outer_name(&collection.name),
            query: Some(query),
            using: Some(using),
            filter: filter.as_ref().map(convert::filter),
            params: Some(store.params(collection, search, self.fetch)),
            limit: Some(self.fetch as u64),
            with_payload: Some(fields),
            with_vectors: Some(vectors),
            ..QueryPoints::default()
        }
    }

    /// Whether a hit of the page may not have been seen yet; then the next query asks for more.
    fn wants_more(&mut self) -> bool {
        let has_all = self.scored.len() < self.fetch || self.fetch >= MAX_FETCH;
        if has_all || self.is_settled() {
            return false;
        }
        self.fetch = (self.fetch * 4).min(MAX_FETCH);
        true
    }

    /// Whether no score equal to that of the last wanted hit can be missing.
    fn is_settled(&self) -> bool {
        let wanted = self.search.offset.saturating_add(self.search.limit);
        let last_wanted = wanted.checked_sub(1).and_then(|last| self.scored.get(last));
        match (last_wanted, self.scored.last()) {
            (Some((_, wanted)), Some((_, last))) => {
                wanted > last || self.search.threshold.is_some_and(|least| *last < least)
            }
            (None, _) | (_, None) => true,
        }
    }
}

fn check_target(collection: &Collection, search: &Search) -> Result<(), Error> {
    match &search.target {
        Target::Vector(vector) => check_length(vector, collection.dimension),
        Target::Words(_) => Ok(()),
    }
}

/// What hits come with, of which so many are on no page.
fn shown(
    collection: &Collection,
    spare: usize,
    vectors: bool,
) -> (WithPayloadSelector, WithVectorsSelector) {
    if spare <= MAX_SPARE {
        (convert::read_fields(), convert::read_vectors(collection, vectors))
    } else {
        (vec!["id"].into(), false.into())
    }
}

fn found(point: ScoredPoint) -> Result<(Found, f32), Error> {
    let id = |payload: &Payload| payload.get("id")?.as_str().cloned();
    let id = id(&point.payload).ok_or_else(|| incomplete("a hit"))?;
    let hit = if point.payload.len() > 1 {
        let vector = convert::embedding(point.vectors)?;
        Some(Record { item: convert::item(point.payload)?, vector })
    } else {
        None
    };
    Ok((Found { id, hit }, point.score))
}

fn scored_group(group: PointGroup) -> Result<(Scalar, Vec<(Found, f32)>), Error> {
    let value = match group.id.and_then(|id| id.kind) {
        Some(group_id::Kind::StringValue(text)) => Scalar::String(text),
        Some(group_id::Kind::IntegerValue(number)) => Scalar::Number(number as f64),
        Some(group_id::Kind::UnsignedValue(number)) => Scalar::Number(number as f64),
        None => return Err(incomplete("a group")),
    };
    Ok((value, group.hits.into_iter().map(found).collect::<Result<_, _>>()?))
}
