//! The upload against a server that breaks in every way it can.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};

use bytesize::ByteSize;
use clipmesh_proto::search::v1::item_service_server::{ItemService, ItemServiceServer};
use futures::stream;
use futures::stream::BoxStream;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Request;

use super::*;
use crate::client::Connection;
use crate::index::window::Bounds;

/// What one stream does.
#[derive(Clone, Debug)]
enum Script {
    /// Stores this many, then ends with this error.
    Break(usize, Status),
    /// Stores this many and says nothing of the last.
    Swallow(usize),
    /// Ends at a picture longer than this.
    TooLong(usize),
    /// Stores everything.
    Whole,
}

/// Follows one script per stream, and the last one from then on.
#[derive(Clone, Debug)]
struct Server {
    scripts: Arc<Mutex<VecDeque<Script>>>,
    stored: Arc<Mutex<BTreeSet<String>>>,
}

type Acknowledgement = Result<search::IndexItemsResponse, Status>;

// === impl Server ===

impl Server {
    fn new(scripts: impl IntoIterator<Item = Script>) -> Self {
        let scripts = scripts.into_iter().collect();
        Self { scripts: Arc::new(Mutex::new(scripts)), stored: Arc::default() }
    }

    fn next_script(&self) -> Script {
        let mut scripts = self.scripts.lock().expect("no panic before");
        match scripts.len() {
            0 => Script::Whole,
            1 => scripts[0].clone(),
            _ => scripts.pop_front().expect("more than one"),
        }
    }

    fn store(&self, request: &search::IndexItemsRequest) -> Acknowledgement {
        let id = request.item.as_ref().expect("a picture").id.clone();
        let is_new = self.stored.lock().expect("no panic before").insert(id);
        let outcome =
            if is_new { search::IndexOutcome::Created } else { search::IndexOutcome::Unchanged };
        let indexed = search::IndexItemResponse { item: None, outcome: outcome.into() };
        Ok(search::IndexItemsResponse { key: request.key, result: Some(Answer::Indexed(indexed)) })
    }

    /// Serves on a free port until the test is over.
    async fn serve(&self) -> Mesh {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let server = format!("http://{}", listener.local_addr().expect("an address"));
        let serving = tonic::transport::Server::builder()
            .add_service(ItemServiceServer::new(self.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(serving);
        let connection = Connection { server, timeout: Duration::from_secs(30), json: false };
        Mesh::for_streams(&connection).expect("an address")
    }

    fn stored(&self) -> usize {
        self.stored.lock().expect("no panic before").len()
    }
}

/// One step of a script: the answer to one picture, if any, and whether to go on.
fn step(
    server: &Server,
    script: &Script,
    index: usize,
    request: &search::IndexItemsRequest,
) -> Option<Acknowledgement> {
    let length = request.item.as_ref().map_or(0, |item| item.image.len());
    match script {
        Script::Break(after, status) if index == *after => Some(Err(status.clone())),
        Script::TooLong(limit) if length > *limit => Some(Err(Status::out_of_range("too long"))),
        Script::Swallow(after) if index + 1 >= *after => {
            server.store(request).expect("stored, and not a word of it");
            None
        }
        Script::Break(..) | Script::TooLong(_) | Script::Swallow(_) | Script::Whole => {
            Some(server.store(request))
        }
    }
}

#[tonic::async_trait]
impl ItemService for Server {
    type IndexItemsStream = BoxStream<'static, Acknowledgement>;

    async fn index_items(
        &self,
        request: Request<Streaming<search::IndexItemsRequest>>,
    ) -> Result<Response<Self::IndexItemsStream>, Status> {
        let (server, script) = (self.clone(), self.next_script());
        let answers = stream::unfold((request.into_inner(), 0), move |(mut pictures, index)| {
            let (server, script) = (server.clone(), script.clone());
            async move {
                loop {
                    let request = pictures.message().await.ok()??;
                    if let Some(answer) = step(&server, &script, index, &request) {
                        return Some((answer, (pictures, index + 1)));
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn index_item(
        &self,
        _: Request<search::IndexItemRequest>,
    ) -> Result<Response<search::IndexItemResponse>, Status> {
        Err(unasked())
    }

    async fn get_item(
        &self,
        _: Request<search::GetItemRequest>,
    ) -> Result<Response<search::GetItemResponse>, Status> {
        Err(unasked())
    }

    async fn list_items(
        &self,
        _: Request<search::ListItemsRequest>,
    ) -> Result<Response<search::ListItemsResponse>, Status> {
        Err(unasked())
    }

    async fn count_items(
        &self,
        _: Request<search::CountItemsRequest>,
    ) -> Result<Response<search::CountItemsResponse>, Status> {
        Err(unasked())
    }

    async fn delete_item(
        &self,
        _: Request<search::DeleteItemRequest>,
    ) -> Result<Response<search::DeleteItemResponse>, Status> {
        Err(unasked())
    }

    async fn get_thumbnail(
        &self,
        _: Request<search::GetThumbnailRequest>,
    ) -> Result<Response<search::GetThumbnailResponse>, Status> {
        Err(unasked())
    }

    async fn check_items(
        &self,
        _: Request<search::CheckItemsRequest>,
    ) -> Result<Response<search::CheckItemsResponse>, Status> {
        Err(unasked())
    }

    async fn sample_items(
        &self,
        _: Request<search::SampleItemsRequest>,
    ) -> Result<Response<search::SampleItemsResponse>, Status> {
        Err(unasked())
    }

    async fn update_item(
        &self,
        _: Request<search::UpdateItemRequest>,
    ) -> Result<Response<search::UpdateItemResponse>, Status> {
        Err(unasked())
    }

    async fn replace_image(
        &self,
        _: Request<search::ReplaceImageRequest>,
    ) -> Result<Response<search::ReplaceImageResponse>, Status> {
        Err(unasked())
    }

    async fn delete_items(
        &self,
        _: Request<search::DeleteItemsRequest>,
    ) -> Result<Response<search::DeleteItemsResponse>, Status> {
        Err(unasked())
    }

    async fn get_original(
        &self,
        _: Request<search::GetOriginalRequest>,
    ) -> Result<Response<search::GetOriginalResponse>, Status> {
        Err(unasked())
    }
}

fn unasked() -> Status {
    Status::internal("an upload asks for nothing but its stream")
}

/// Pictures of the given lengths, all different.
fn pictures(lengths: &[usize]) -> Vec<Result<Planned, Error>> {
    let picture = |(index, &length): (usize, &usize)| {
        let mut image = vec![0; length];
        image[0] = u8::try_from(index).expect("a few pictures");
        let path = format!("{index}.jpg").into();
        Ok(Planned::Send(Picture { path, hash: ContentHash::of(&image), image: image.into() }))
    };
    lengths.iter().enumerate().map(picture).collect()
}

async fn upload(server: &Server, lengths: &[usize]) -> (Result<(), Error>, Report) {
    let mut report = Report::new(lengths.len());
    let upload = Upload {
        mesh: server.serve().await,
        collection: "images".to_owned(),
        fields: Arc::default(),
        patience: Duration::from_millis(200),
        backoff: |_| Duration::ZERO,
        window: Window::new(Bounds { max_pictures: 4, max_bytes: ByteSize::mib(1) }),
        report: &mut report,
    };
    let outcome = upload.run(stream::iter(pictures(lengths))).await;
    (outcome, report)
}

#[tokio::test]
async fn everything_arrives_over_one_stream() {
    let server = Server::new([Script::Whole]);
    let (outcome, report) = upload(&server, &[10; 20]).await;
    outcome.expect("all is well");
    assert_eq!((report.indexed(), server.stored()), (20, 20), "through a window of four");
}

#[tokio::test]
async fn a_broken_stream_is_resumed_where_it_broke() {
    let gone = || Status::unavailable("restarting");
    let server = Server::new([Script::Break(2, gone()), Script::Break(3, gone()), Script::Whole]);
    let (outcome, report) = upload(&server, &[10; 9]).await;
    outcome.expect("resumed twice");
    assert_eq!((report.indexed(), server.stored()), (9, 9), "each is stored and counted once");
}

#[tokio::test]
async fn what_was_stored_unheard_is_counted_as_ours() {
    let server = Server::new([Script::Swallow(3), Script::Whole]);
    let (outcome, report) = upload(&server, &[10; 6]).await;
    outcome.expect("resumed after the silence");
    assert_eq!((report.indexed(), server.stored()), (6, 6), "none is lost or told as known");
}

#[tokio::test]
async fn a_mesh_that_stays_away_is_given_up() {
    let server = Server::new([Script::Break(0, Status::unavailable("no"))]);
    let (outcome, report) = upload(&server, &[10; 3]).await;
    let error = outcome.expect_err("it never came back");
    assert_eq!(error.exit_code(), 3, "unreachable: {error}");
    assert_eq!(report.indexed(), 0, "nothing was stored");
}

#[tokio::test]
async fn a_refusal_of_the_whole_stream_is_not_tried_again() {
    let refusal = Status::failed_precondition("another model");
    let server = Server::new([Script::Break(1, refusal), Script::Whole]);
    let (outcome, report) = upload(&server, &[10; 3]).await;
    let error = outcome.expect_err("refused");
    assert_eq!((error.exit_code(), report.indexed()), (5, 1), "at once: {error}");
}

#[tokio::test]
async fn a_picture_too_long_for_the_mesh_fails_alone() {
    let server = Server::new([Script::TooLong(1_000)]);
    let (outcome, report) = upload(&server, &[10, 5_000, 20, 9_000, 30]).await;
    outcome.expect("the others are stored");
    assert_eq!((report.indexed(), server.stored()), (3, 3), "all but two");
    let mut failures = report.failures();
    failures.sort();
    assert_eq!(failures, [("1.jpg", "too long"), ("3.jpg", "too long")], "the two");
}
