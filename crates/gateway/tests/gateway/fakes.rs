//! Services behind the gateway that do what a test asks of them, by the id of the item.

use std::sync::{Arc, Mutex};

use clipmesh_proto::code::{FieldViolation, Reason};
use clipmesh_proto::embedder::v1 as embedder;
use clipmesh_proto::search::v1 as search;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use search::item_service_server::ItemService;
use tokio::sync::{Semaphore, mpsc};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Request, Response, Status, Streaming};

/// An item whose call waits until the test lets it go on.
pub(crate) const WAITS: &str = "waits";
/// An item that fails with details and metadata.
pub(crate) const FAILS: &str = "fails";
/// A collection whose stream is not read until the test lets it go on.
pub(crate) const STALLED: &str = "stalled";

/// What happened to a call that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Started,
    Finished,
    /// Dropped before its end.
    Cancelled,
}

/// An item service that remembers what it was sent.
#[derive(Clone, Debug)]
pub(crate) struct Items {
    calls: Arc<Mutex<Vec<MetadataMap>>>,
    events: mpsc::Sender<Event>,
    /// Each permit lets one call go on.
    gate: Arc<Semaphore>,
}

/// The test's side of [`Items`].
#[derive(Debug)]
pub(crate) struct Script {
    calls: Arc<Mutex<Vec<MetadataMap>>>,
    events: mpsc::Receiver<Event>,
    gate: Arc<Semaphore>,
}

/// Reports the end of a call, whichever it is.
struct Running {
    events: mpsc::Sender<Event>,
    is_finished: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Embedder;

// === impl Script ===

impl Script {
    /// What came with the only call so far.
    pub(crate) fn only_call(&self) -> MetadataMap {
        let calls = self.calls.lock().expect("no fake has panicked");
        assert_eq!(calls.len(), 1, "exactly one call arrived");
        calls[0].clone()
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls.lock().expect("no fake has panicked").len()
    }

    pub(crate) async fn next_event(&mut self) -> Event {
        self.events.recv().await.expect("the fake is alive")
    }

    pub(crate) fn let_one_go_on(&self) {
        self.gate.add_permits(1);
    }
}

// === impl Items ===

impl Items {
    pub(crate) fn new() -> (Self, Script) {
        let calls = Arc::default();
        let (events, received) = mpsc::channel(64);
        let gate = Arc::new(Semaphore::new(0));
        let script = Script { calls: Arc::clone(&calls), events: received, gate: gate.clone() };
        (Self { calls, events, gate }, script)
    }

    fn remember<T>(&self, request: &Request<T>) {
        self.calls.lock().expect("no test has panicked").push(request.metadata().clone());
    }

    async fn wait(&self) {
        let mut running = Running { events: self.events.clone(), is_finished: false };
        running.tell(Event::Started);
        self.gate.acquire().await.expect("the gate stays open").forget();
        running.is_finished = true;
    }
}

impl Running {
    fn tell(&self, event: Event) {
        // A test that is over no longer listens.
        self.events.try_send(event).ok();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tell(if self.is_finished { Event::Finished } else { Event::Cancelled });
    }
}

/// What [`FAILS`] answers.
pub(crate) fn failure() -> Status {
    let mut status =
        FieldViolation::new("id", Reason::Malformed, "ünfit for use, 100 %").into_status();
    status.metadata_mut().insert("x-cause", MetadataValue::from_static("a test"));
    status
}

#[tonic::async_trait]
impl ItemService for Items {
    type IndexItemsStream = BoxStream<'static, Result<search::IndexItemsResponse, Status>>;

    async fn index_item(
        &self,
        request: Request<search::IndexItemRequest>,
    ) -> Result<Response<search::IndexItemResponse>, Status> {
        self.remember(&request);
        let new = request.into_inner().item.unwrap_or_default();
        let item = search::Item { id: new.id, byte_size: len(&new.image), ..Default::default() };
        Ok(Response::new(search::IndexItemResponse { item: Some(item), ..Default::default() }))
    }

    async fn index_items(
        &self,
        request: Request<Streaming<search::IndexItemsRequest>>,
    ) -> Result<Response<Self::IndexItemsStream>, Status> {
        self.remember(&request);
        let running = Running { events: self.events.clone(), is_finished: false };
        running.tell(Event::Started);
        let state = (request.into_inner(), self.gate.clone(), running);
        let acknowledgements = futures::stream::unfold(state, |state| async move {
            let (mut requests, gate, mut running) = state;
            let message = match requests.next().await {
                None => {
                    running.is_finished = true;
                    return None;
                }
                Some(Err(status)) => return Some((Err(status), (requests, gate, running))),
                Some(Ok(message)) => message,
            };
            if message.collection == STALLED {
                gate.acquire().await.expect("the gate stays open").forget();
            }
            let answer = search::IndexItemsResponse { key: message.key, result: None };
            Some((Ok(answer), (requests, gate, running)))
        });
        Ok(Response::new(acknowledgements.boxed()))
    }

    async fn get_item(
        &self,
        request: Request<search::GetItemRequest>,
    ) -> Result<Response<search::GetItemResponse>, Status> {
        self.remember(&request);
        let echoed = request.metadata().get_bin("x-echo-bin").cloned();
        let id = request.into_inner().id;
        match id.as_str() {
            WAITS => self.wait().await,
            FAILS => return Err(failure()),
            _ => {}
        }
        let item = search::Item { id, ..Default::default() };
        let answer = search::GetItemResponse { item: Some(item), ..Default::default() };
        let mut response = Response::new(answer);
        if let Some(value) = echoed {
            response.metadata_mut().insert_bin("x-echo-bin", value);
        }
        Ok(response)
    }

    async fn list_items(
        &self,
        _: Request<search::ListItemsRequest>,
    ) -> Result<Response<search::ListItemsResponse>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn count_items(
        &self,
        _: Request<search::CountItemsRequest>,
    ) -> Result<Response<search::CountItemsResponse>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn delete_item(
        &self,
        _: Request<search::DeleteItemRequest>,
    ) -> Result<Response<search::DeleteItemResponse>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn get_thumbnail(
        &self,
        _: Request<search::GetThumbnailRequest>,
    ) -> Result<Response<search::GetThumbnailResponse>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn check_items(
        &self,
        _: Request<search::CheckItemsRequest>,
    ) -> Result<Response<search::CheckItemsResponse>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn sample_items(
        &self,
        _: Request<search::SampleItemsRequest>,
    ) -> Result<Response<search::SampleItemsResponse>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn update_item(
        &self,
        _: Request<search::UpdateItemRequest>,
    ) -> Result<Response<search::UpdateItemResponse>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn replace_image(
        &self,
        _: Request<search::ReplaceImageRequest>,
    ) -> Result<Response<search::ReplaceImageResponse>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn delete_items(
        &self,
        _: Request<search::DeleteItemsRequest>,
    ) -> Result<Response<search::DeleteItemsResponse>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn get_original(
        &self,
        _: Request<search::GetOriginalRequest>,
    ) -> Result<Response<search::GetOriginalResponse>, Status> {
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl embedder::embedder_service_server::EmbedderService for Embedder {
    type EmbedStreamStream = BoxStream<'static, Result<embedder::EmbedStreamResponse, Status>>;

    async fn embed(
        &self,
        _: Request<embedder::EmbedRequest>,
    ) -> Result<Response<embedder::EmbedResponse>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn embed_stream(
        &self,
        request: Request<Streaming<embedder::EmbedStreamRequest>>,
    ) -> Result<Response<Self::EmbedStreamStream>, Status> {
        let answers = request.into_inner().map(|request| {
            let key = request?.key;
            Ok(embedder::EmbedStreamResponse { key, ..Default::default() })
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn get_model(
        &self,
        _: Request<embedder::GetModelRequest>,
    ) -> Result<Response<embedder::GetModelResponse>, Status> {
        let model = embedder::Model { name: "fake".to_owned(), ..Default::default() };
        Ok(Response::new(embedder::GetModelResponse { model: Some(model) }))
    }
}

fn len(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).expect("a picture fits")
}
