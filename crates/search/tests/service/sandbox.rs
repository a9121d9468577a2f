//! A search service with its embedder, on free ports and a folder of its own.

use std::io::Cursor;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use clipmesh_mesh::client::{self, Channel};
use clipmesh_mesh::{Shutdown, server};
use clipmesh_proto::code::{FieldViolation, Reason};
use clipmesh_proto::search::v1;
use clipmesh_proto::search::v1::collection_service_client::CollectionServiceClient;
use clipmesh_proto::search::v1::item_service_client::ItemServiceClient;
use clipmesh_proto::search::v1::query::Kind;
use clipmesh_proto::search::v1::search_service_client::SearchServiceClient;
use clipmesh_search::{App, Config};
use image::{ImageFormat, Rgb, RgbImage};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::{Code, Status};

use crate::embedder::{Embedder, Running};

pub(crate) const COLLECTION: &str = "colours";
pub(crate) const RED: [u8; 3] = [250, 10, 10];
pub(crate) const GREEN: [u8; 3] = [10, 250, 10];
pub(crate) const BLUE: [u8; 3] = [10, 10, 250];
pub(crate) const PINK: [u8; 3] = [250, 120, 120];

/// Clients of one service.
#[derive(Clone)]
pub(crate) struct Clients {
    pub(crate) collections: CollectionServiceClient<Channel>,
    pub(crate) items: ItemServiceClient<Channel>,
    pub(crate) search: SearchServiceClient<Channel>,
}

/// A service in this process.
pub(crate) struct Service {
    pub(crate) clients: Clients,
    shutdown: Shutdown,
    task: JoinHandle<Result<(), clipmesh_search::Error>>,
}

/// Everything.
pub(crate) struct Sandbox {
    pub(crate) embedder: Embedder,
    pub(crate) folder: TempDir,
    running: Option<Running>,
    service: Option<Service>,
}

impl Clients {
    pub(crate) fn new(url: &str) -> Self {
        let channel = || client::channel(url, &client::Config::default()).expect("an address");
        Self {
            collections: CollectionServiceClient::new(channel()),
            items: ItemServiceClient::new(channel()).max_decoding_message_size(32 << 20),
            search: SearchServiceClient::new(channel()).max_encoding_message_size(64 << 20),
        }
    }

    pub(crate) async fn create(&mut self, name: &str) -> v1::Collection {
        let request = v1::CreateCollectionRequest {
            name: name.to_owned(),
            distance: 0,
            ..v1::CreateCollectionRequest::default()
        };
        let response = self.collections.create_collection(request).await.expect("made");
        response.into_inner().collection.expect("described")
    }

    pub(crate) async fn index(
        &mut self,
        item: v1::NewItem,
    ) -> Result<v1::IndexItemResponse, Status> {
        let request = v1::IndexItemRequest { collection: COLLECTION.to_owned(), item: Some(item) };
        self.items.index_item(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn search(&mut self, kind: Kind) -> Result<v1::SearchResponse, Status> {
        self.search.search(request(kind)).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn get(&mut self, id: &str) -> Result<v1::GetItemResponse, Status> {
        let request = v1::GetItemRequest {
            collection: COLLECTION.to_owned(),
            id: id.to_owned(),
            include_vector: true,
        };
        self.items.get_item(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn thumbnail(&mut self, id: &str) -> Result<Bytes, Status> {
        let request =
            v1::GetThumbnailRequest { collection: COLLECTION.to_owned(), id: id.to_owned() };
        let response = self.items.get_thumbnail(request).await?.into_inner();
        assert_eq!(response.media_type, "image/jpeg", "thumbnails are JPEG");
        Ok(response.image)
    }

    pub(crate) async fn count(&mut self) -> u64 {
        let request = v1::CountItemsRequest { collection: COLLECTION.to_owned(), filter: None };
        self.items.count_items(request).await.expect("counted").into_inner().count
    }
}

impl Service {
    pub(crate) async fn start(data_dir: &Path, embedder_url: &str) -> Self {
        Self::start_with(Config::default(), data_dir, embedder_url).await
    }

    pub(crate) async fn start_with(config: Config, data_dir: &Path, embedder_url: &str) -> Self {
        let mut config = Config { data_dir: data_dir.to_owned(), ..config };
        config.embedder.url = embedder_url.to_owned();
        config.server = server::Config::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let app = App::build(config, listener).await.expect("built");
        let clients = Clients::new(&format!("http://{}", app.local_addr()));
        let shutdown = Shutdown::new();
        let task = tokio::spawn(app.run(shutdown.clone()));
        Self { clients, shutdown, task }
    }

    pub(crate) async fn stop(self) {
        self.shutdown.trigger();
        self.task.await.expect("no panic").expect("a clean end");
    }
}

impl Sandbox {
    /// A service with an empty collection.
    pub(crate) async fn start() -> (Self, Clients) {
        Self::start_with(Config::default()).await
    }

    /// The same with other settings.
    pub(crate) async fn start_with(config: Config) -> (Self, Clients) {
        let (embedder, running) = Embedder::start().await;
        let folder = TempDir::new().expect("a temporary folder");
        let service = Service::start_with(config, folder.path(), &embedder.url).await;
        let mut clients = service.clients.clone();
        clients.create(COLLECTION).await;
        let sandbox = Self { embedder, folder, running: Some(running), service: Some(service) };
        (sandbox, clients)
    }

    /// A service with a picture of each colour.
    pub(crate) async fn with_colours() -> (Self, Clients) {
        let (sandbox, mut clients) = Self::start().await;
        for (id, colour) in [("red", RED), ("green", GREEN), ("blue", BLUE), ("pink", PINK)] {
            clients.index(item(id, colour)).await.expect("stored");
        }
        (sandbox, clients)
    }

    /// Stops the embedder for good.
    pub(crate) async fn stop_embedder(&mut self) {
        self.running.take().expect("it runs").stop().await;
    }

    /// Ends the service and starts it again on what it left.
    pub(crate) async fn restart(&mut self) -> Clients {
        self.service.take().expect("it runs").stop().await;
        let service = Service::start(self.folder.path(), &self.embedder.url).await;
        self.service.insert(service).clients.clone()
    }
}

/// A PNG of one colour.
pub(crate) fn picture(colour: [u8; 3], width: u32, height: u32) -> Bytes {
    let mut bytes = Cursor::new(Vec::new());
    RgbImage::from_pixel(width, height, Rgb(colour))
        .write_to(&mut bytes, ImageFormat::Png)
        .expect("encoded");
    bytes.into_inner().into()
}

/// A new item of one colour.
pub(crate) fn item(id: &str, colour: [u8; 3]) -> v1::NewItem {
    v1::NewItem {
        id: id.to_owned(),
        image: picture(colour, 600, 300),
        filename: format!("{id}.png"),
        ..v1::NewItem::default()
    }
}

/// A new item of a vector that was made elsewhere.
pub(crate) fn ready(id: &str, values: &[f32]) -> v1::NewItem {
    let vector = v1::VectorQuery { values: values.to_vec(), model_fingerprint: String::new() };
    v1::NewItem { id: id.to_owned(), vector: Some(vector), ..v1::NewItem::default() }
}

/// Metadata of numbers and strings.
pub(crate) fn metadata(fields: &[(&str, prost_types::value::Kind)]) -> Option<prost_types::Struct> {
    let value = |kind: &prost_types::value::Kind| prost_types::Value { kind: Some(kind.clone()) };
    let fields = fields.iter().map(|(name, kind)| ((*name).to_owned(), value(kind)));
    Some(prost_types::Struct { fields: fields.collect() })
}

/// A search in the collection of colours.
pub(crate) fn request(kind: Kind) -> v1::SearchRequest {
    v1::SearchRequest {
        collection: COLLECTION.to_owned(),
        query: Some(v1::Query { kind: Some(kind) }),
        ..v1::SearchRequest::default()
    }
}

/// A search for words.
pub(crate) fn words(text: &str) -> Kind {
    Kind::Text(text.to_owned())
}

/// A search along a vector.
pub(crate) fn along(values: &[f32]) -> Kind {
    Kind::Vector(v1::VectorQuery { values: values.to_vec(), model_fingerprint: String::new() })
}

/// The ids of hits, best first.
pub(crate) fn ids(response: &v1::SearchResponse) -> Vec<String> {
    let items = response.hits.iter().map(|hit| hit.item.as_ref().expect("an item"));
    items.map(|item| item.id.clone()).collect()
}

/// Asserts that a call was refused for a field.
#[track_caller]
pub(crate) fn assert_refused<T: std::fmt::Debug>(
    result: Result<T, Status>,
    field: &str,
    reason: Reason,
) {
    let status = result.expect_err("refused");
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let violation = FieldViolation::from_status(&status).expect("names its field");
    assert_eq!((violation.field.as_str(), violation.reason), (field, reason), "{status:?}");
}

/// Waits until something holds; the limit is only for the case that it never does.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let outcome = tokio::time::timeout(Duration::from_secs(20), waiting).await;
    assert!(outcome.is_ok(), "{what}");
}
