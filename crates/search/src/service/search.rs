//! `clipmesh.search.v1.SearchService`.

use std::sync::Arc;
use std::time::Duration;

use clipmesh_proto::code::{self, FieldViolation, Reason};
use clipmesh_proto::search::v1;
use clipmesh_proto::search::v1::search_result::Outcome;
use clipmesh_proto::search::v1::search_service_server::SearchService;
use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};
use prost::Message as _;
use tonic::{Request, Response, Status};

use crate::convert;
use crate::duplicates::Duplicates;
use crate::error::Error;
use crate::query::{Answer, Searches, Timing};
use crate::service::items::unindexed;

/// What a result of a batch takes in a message beside its response.
const RESULT_OVERHEAD_BYTES: usize = 16;

/// The adapter of [`Searches`] and [`Duplicates`].
#[derive(Debug)]
pub(crate) struct Service {
    searches: Searches,
    duplicates: Duplicates,
    /// Longest answer.
    max_message_len: usize,
}

impl Service {
    pub(crate) fn new(searches: Searches, max_message_len: usize) -> Self {
        let duplicates = Duplicates::new(Arc::clone(&searches.store));
        Self { searches, duplicates, max_message_len }
    }
}

#[tonic::async_trait]
impl SearchService for Service {
    type FindDuplicatesStream = BoxStream<'static, Result<v1::FindDuplicatesResponse, Status>>;

    async fn search(
        &self,
        request: Request<v1::SearchRequest>,
    ) -> Result<Response<v1::SearchResponse>, Status> {
        let request = convert::search::read(request.into_inner())?;
        let answer = self.searches.search(request).await?;
        Ok(Response::new(timed(answer)))
    }

    async fn search_batch(
        &self,
        request: Request<v1::SearchBatchRequest>,
    ) -> Result<Response<v1::SearchBatchResponse>, Status> {
        let searches = convert::search::read_batch(request.into_inner())?;
        let answers = self.searches.search_all(searches).await;
        Ok(Response::new(batch(answers, self.max_message_len)))
    }

    async fn classify(
        &self,
        request: Request<v1::ClassifyRequest>,
    ) -> Result<Response<v1::ClassifyResponse>, Status> {
        let question = convert::classify::read(request.into_inner())?;
        let verdict = self.searches.classify(question).await?;
        let timing = Some(write_timing(verdict.timing));
        Ok(Response::new(v1::ClassifyResponse { timing, ..convert::classify::write(verdict) }))
    }

    async fn find_duplicates(
        &self,
        request: Request<v1::FindDuplicatesRequest>,
    ) -> Result<Response<Self::FindDuplicatesStream>, Status> {
        let question = convert::duplicates::read(request.into_inner())?;
        let name = question.collection.clone();
        let collection = self.searches.store.resolve(name).await.map_err(Error::from)?;
        let unindexed_fields = unindexed(&collection, &question.filter);
        let groups = self.duplicates.find(question).await?;
        let answers = groups.map_ok(convert::duplicates::write).map_err(Status::from);
        let note = v1::FindDuplicatesResponse { group: None, unindexed_fields };
        let notes = (!note.unindexed_fields.is_empty()).then_some(Ok(note));
        Ok(Response::new(stream::iter(notes).chain(answers).boxed()))
    }

    async fn facet(
        &self,
        request: Request<v1::FacetRequest>,
    ) -> Result<Response<v1::FacetResponse>, Status> {
        let question = convert::classify::read_facet(request.into_inner())?;
        let counts = self.searches.facet(question).await?;
        Ok(Response::new(convert::classify::write_facet(counts)))
    }
}

/// The answer of a batch. What does not fit into one message any more is answered with an error, so
/// that the others arrive.
fn batch(answers: Vec<Result<Answer, Error>>, max_message_len: usize) -> v1::SearchBatchResponse {
    let mut left = max_message_len;
    let results = answers.into_iter().enumerate().map(|(i, answer)| {
        let place = format!("searches[{i}]");
        let response = answer.map(timed).and_then(|response| {
            let needed = response.encoded_len() + RESULT_OVERHEAD_BYTES;
            let rest = left.checked_sub(needed).ok_or_else(|| {
                let message = "its answer does not fit into one message with the others";
                FieldViolation::new("limit", Reason::TooManyBytes, message)
            })?;
            left = rest;
            Ok(response)
        });
        let outcome = match response {
            Ok(response) => Outcome::Response(response),
            Err(error) => {
                let status = Status::from(error.within(&place));
                let error = code::to_rpc(&status);
                left = left.saturating_sub(error.encoded_len() + RESULT_OVERHEAD_BYTES);
                Outcome::Error(error)
            }
        };
        v1::SearchResult { outcome: Some(outcome) }
    });
    v1::SearchBatchResponse { results: results.collect() }
}

fn timed(answer: Answer) -> v1::SearchResponse {
    v1::SearchResponse { timing: Some(write_timing(answer.timing)), ..answer.response }
}

fn write_timing(timing: Timing) -> v1::SearchTiming {
    v1::SearchTiming {
        total_ms: ms(timing.total),
        embed_ms: ms(timing.embed),
        store_ms: ms(timing.store),
        embedding_cached: timing.embedding_cached,
        result_cached: timing.result_cached,
        cache_ms: ms(timing.cache),
        cache_bypassed: timing.cache_bypassed,
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(hits: usize) -> Answer {
        let hit = v1::Hit { vector: vec![1.0; 100], ..v1::Hit::default() };
        let response = v1::SearchResponse { hits: vec![hit; hits], ..Default::default() };
        Answer { response, ..Answer::default() }
    }

    #[test]
    fn a_batch_holds_what_fits_into_a_message() {
        let answers = [10, 100, 10, 10].map(|hits| Ok(answer(hits))).to_vec();
        let response = batch(answers, 16 << 10);
        assert!(response.encoded_len() <= 16 << 10, "{} bytes", response.encoded_len());
        let told = response.results.iter().map(|result| match &result.outcome {
            Some(Outcome::Response(response)) => Ok(response.hits.len()),
            Some(Outcome::Error(error)) => Err(FieldViolation::from_status(&code::from_rpc(error))),
            None => panic!("one of the two"),
        });
        let told: Vec<_> = told.collect();
        assert_eq!([&told[0], &told[2], &told[3]], [&Ok(10); 3], "what fits");
        let violation = told[1].clone().expect_err("too long").expect("a field");
        assert_eq!(violation.field, "searches[1].limit", "what to lower");
        assert_eq!(violation.reason, Reason::TooManyBytes, "{violation}");
    }
}
