//! `clipmesh.search.v1.SearchService`.

use std::time::Duration;

use clipmesh_proto::search::v1;
use clipmesh_proto::search::v1::search_service_server::SearchService;
use tonic::{Request, Response, Status};

use crate::convert;
use crate::query::Searches;

/// The adapter of [`Searches`].
#[derive(Debug)]
pub(crate) struct Service {
    searches: Searches,
}

impl Service {
    pub(crate) fn new(searches: Searches) -> Self {
        Self { searches }
    }
}

#[tonic::async_trait]
impl SearchService for Service {
    type FindDuplicatesStream =
        futures::stream::BoxStream<'static, Result<v1::FindDuplicatesResponse, Status>>;

    async fn find_duplicates(
        &self,
        _: Request<v1::FindDuplicatesRequest>,
    ) -> Result<Response<Self::FindDuplicatesStream>, Status> {
        Err(Status::unimplemented("SKELETON"))
    }

    async fn search(
        &self,
        request: Request<v1::SearchRequest>,
    ) -> Result<Response<v1::SearchResponse>, Status> {
        let request = convert::query::read(request.into_inner())?;
        let answer = self.searches.search(request).await?;
        let timing = v1::SearchTiming {
            total_ms: ms(answer.total),
            embed_ms: ms(answer.embed),
            store_ms: ms(answer.store),
            embedding_cached: answer.embedding_cached,
            result_cached: answer.result_cached,
            ..Default::default()
        };
        Ok(Response::new(v1::SearchResponse {
            hits: answer.hits,
            timing: Some(timing),
            ..Default::default()
        }))
    }

    async fn search_batch(
        &self,
        _: Request<v1::SearchBatchRequest>,
    ) -> Result<Response<v1::SearchBatchResponse>, Status> {
        Err(Status::unimplemented("SKELETON"))
    }

    async fn classify(
        &self,
        _: Request<v1::ClassifyRequest>,
    ) -> Result<Response<v1::ClassifyResponse>, Status> {
        Err(Status::unimplemented("SKELETON"))
    }

    async fn facet(
        &self,
        _: Request<v1::FacetRequest>,
    ) -> Result<Response<v1::FacetResponse>, Status> {
        Err(Status::unimplemented("SKELETON"))
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}
