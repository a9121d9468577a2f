//! What callers of a search get when it can't be done now: too much at once, too late, or about
//! something that is not there.

use std::time::Duration;

use clipmesh_e2e::clients::{Clients, new_item, query};
use clipmesh_e2e::sandbox::{Builder, Sandbox, Service};
use clipmesh_e2e::{eventually, fields, pictures};
use clipmesh_proto::code;
use clipmesh_proto::search::v1 as search;
use clipmesh_proto::search::v1::delete_items_request::Which;
use clipmesh_proto::search::v1::query::Kind;
use clipmesh_proto::search::v1::search_service_client::SearchServiceClient;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::time::Instant;
use tonic::{Code, Request, Response, Status};

const COLLECTION: &str = "refusals";

/// How long it may take to have more at once than fits, on a machine that answers quickly.
const PATIENCE: Duration = Duration::from_secs(60);

/// Of a caller, and far below every other limit.
const DEADLINE: Duration = Duration::from_millis(500);

async fn start(mesh: Builder) -> (Sandbox, Clients) {
    let sandbox = mesh.start().await.expect("the mesh starts");
    let mut clients = sandbox.clients().expect("the gateway listens");
    clients.create_collection(COLLECTION).await.expect("a new collection");
    clients.index(COLLECTION, new_item("a", pictures::png(1))).await.expect("indexed");
    (sandbox, clients)
}

#[tokio::test]
async fn a_full_queue_says_when_to_try_again() {
    // Room for four.
    let settings =
        [("batch.max_size", "1"), ("limits.max_inputs", "1"), ("queue.stream_window", "1")];
    let mesh = Sandbox::builder().setting(Service::Embedder, "queue.max_inputs", "4");
    let mesh = settings
        .iter()
        .fold(mesh, |mesh, (key, value)| mesh.setting(Service::Embedder, key, *value));
    let (_sandbox, clients) = start(mesh).await;
    let mut number = 0;
    let refused = eventually("there is too much at once", PATIENCE, async || {
        number += 1;
        let round = number;
        let calls = (0..200).map(|index| {
            let (mut clients, text) = (clients.clone(), format!("words {round}/{index}"));
            async move { clients.find(COLLECTION, Kind::Text(text)).await }
        });
        let answers = futures::future::join_all(calls).await;
        let (found, failed): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
        assert!(!found.is_empty(), "what fits is answered");
        let failed: Vec<Status> = failed.into_iter().filter_map(Result::err).collect();
        if failed.is_empty() { Err("all of it fits") } else { Ok(failed) }
    });
    for status in refused.await.expect("four do not hold two hundred") {
        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
        assert!(code::retry_after(&status).is_some(), "it says when to try again: {status:?}");
    }
}

#[tokio::test]
async fn a_deadline_that_passes_is_told_as_one() {
    let (sandbox, mut clients) = start(Sandbox::builder()).await;
    sandbox.hold(Service::Embedder).expect("the embedder hangs");
    let mut request = Request::new(query(COLLECTION, Kind::Text("never embedded".to_owned())));
    request.set_timeout(DEADLINE);
    // Over a bare connection: tonic's own gives up by itself at the same moment.
    let http = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let address = sandbox.gateway_address().expect("the gateway listens");
    let origin = format!("http://{address}").parse().expect("an address is a URI's authority");
    let mut patient = SearchServiceClient::with_origin(http, origin);
    let start = Instant::now();
    let status = patient.search(request).await.expect_err("nobody embeds it");
    let took = start.elapsed();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    assert!(took < 10 * DEADLINE, "the caller's deadline, not another: {took:?}");
    let by_item = clients.find(COLLECTION, Kind::ItemId("a".to_owned())).await;
    assert!(by_item.is_ok(), "what needs no embedder is answered: {by_item:?}");
}

fn code_of<T>(answer: Result<Response<T>, Status>) -> Code {
    answer.err().map_or(Code::Ok, |status| status.code())
}

#[tokio::test]
async fn a_collection_that_is_not_there_is_not_found_whatever_is_asked() {
    let (_sandbox, clients) = start(Sandbox::builder()).await;
    for (what, code) in questions(&clients, "unknown").await {
        assert_eq!(code, Code::NotFound, "{what}");
    }
    for (what, code) in actions(&clients, "unknown").await {
        assert_eq!(code, Code::NotFound, "{what}");
    }
    for (what, code) in of_collection(&clients, "unknown").await {
        assert_eq!(code, Code::NotFound, "{what}");
    }
}

#[tokio::test]
async fn an_item_that_is_not_there_is_not_found() {
    let (_sandbox, clients) = start(Sandbox::builder()).await;
    for (what, code) in actions(&clients, COLLECTION).await {
        assert_eq!(code, Code::NotFound, "{what}");
    }
}

/// All that can be asked of the items of a collection.
async fn questions(clients: &Clients, name: &str) -> Vec<(&'static str, Code)> {
    let collection = || name.to_owned();
    let (mut items, mut search) = (clients.items.clone(), clients.search.clone());
    let check = search::CheckItemsRequest {
        collection: collection(),
        ids: vec!["a".to_owned()],
        ..search::CheckItemsRequest::default()
    };
    let sample = search::SampleItemsRequest {
        collection: collection(),
        ..search::SampleItemsRequest::default()
    };
    let delete = search::DeleteItemsRequest {
        collection: collection(),
        which: Some(Which::Filter(fields::is("format", "png"))),
    };
    let classify = search::ClassifyRequest {
        collection: collection(),
        query: Some(search::Query { kind: Some(Kind::Image(pictures::png(1))) }),
        field: "format".to_owned(),
        ..search::ClassifyRequest::default()
    };
    let facet = search::FacetRequest {
        collection: collection(),
        key: "format".to_owned(),
        ..search::FacetRequest::default()
    };
    let duplicates = search::FindDuplicatesRequest {
        collection: collection(),
        kind: search::DuplicateKind::Exact.into(),
        ..search::FindDuplicatesRequest::default()
    };
    // A stream may be refused before it opens or by its first message.
    let duplicates = match search.find_duplicates(duplicates).await {
        Ok(stream) => stream.into_inner().message().await.err(),
        Err(status) => Some(status),
    };
    vec![
        ("check", code_of(items.check_items(check).await)),
        ("sample", code_of(items.sample_items(sample).await)),
        ("delete by filter", code_of(items.delete_items(delete).await)),
        ("classify", code_of(search.classify(classify).await)),
        ("facet", code_of(search.facet(facet).await)),
        ("duplicates", duplicates.map_or(Code::Ok, |status| status.code())),
    ]
}

/// All that can be done to one item, which is not there.
async fn actions(clients: &Clients, name: &str) -> Vec<(&'static str, Code)> {
    let (collection, id) = (|| name.to_owned(), || "nobody".to_owned());
    let mut items = clients.items.clone();
    let update = search::UpdateItemRequest {
        collection: collection(),
        item: Some(search::Item { id: id(), filename: "b".to_owned(), ..search::Item::default() }),
        ..search::UpdateItemRequest::default()
    };
    let replace = search::ReplaceImageRequest {
        collection: collection(),
        id: id(),
        image: pictures::png(1),
        ..search::ReplaceImageRequest::default()
    };
    let delete = search::DeleteItemRequest {
        collection: collection(),
        id: id(),
        ..search::DeleteItemRequest::default()
    };
    let thumbnail = search::GetThumbnailRequest { collection: collection(), id: id() };
    let original = search::GetOriginalRequest { collection: collection(), id: id() };
    vec![
        ("update", code_of(items.update_item(update).await)),
        ("replace the picture", code_of(items.replace_image(replace).await)),
        ("delete", code_of(items.delete_item(delete).await)),
        ("thumbnail", code_of(items.get_thumbnail(thumbnail).await)),
        ("original", code_of(items.get_original(original).await)),
    ]
}

/// All that is about a collection itself.
async fn of_collection(clients: &Clients, name: &str) -> Vec<(&'static str, Code)> {
    let name = || name.to_owned();
    let mut collections = clients.collections.clone();
    let update = search::UpdateCollectionRequest {
        collection: Some(search::Collection {
            name: name(),
            vector_index: Some(search::VectorIndex {
                links: Some(32),
                ..search::VectorIndex::default()
            }),
            ..search::Collection::default()
        }),
        ..search::UpdateCollectionRequest::default()
    };
    let index =
        search::FieldIndex { key: "metadata.a".to_owned(), ..search::FieldIndex::default() };
    let create = search::CreateFieldIndexRequest { collection: name(), field_index: Some(index) };
    let delete =
        search::DeleteFieldIndexRequest { collection: name(), key: "metadata.a".to_owned() };
    let set = search::SetAliasRequest { alias: "other".to_owned(), collection: name() };
    let alias = search::DeleteAliasRequest { alias: "no-alias".to_owned() };
    let stats = search::GetCollectionStatsRequest { name: name() };
    let clear = search::ClearCacheRequest { name: name() };
    vec![
        ("update", code_of(collections.update_collection(update).await)),
        ("add an index", code_of(collections.create_field_index(create).await)),
        ("remove an index", code_of(collections.delete_field_index(delete).await)),
        ("set an alias", code_of(collections.set_alias(set).await)),
        ("delete an alias", code_of(collections.delete_alias(alias).await)),
        ("stats", code_of(collections.get_collection_stats(stats).await)),
        ("clear the cache", code_of(collections.clear_cache(clear).await)),
    ]
}
