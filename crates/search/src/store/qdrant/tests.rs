mod questions;
mod server;
mod state;

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use clipmesh_proto::ids::{ContentHash, Fingerprint};
use qdrant_client::qdrant::{CreateCollection, UpdateStatus, quantization_config};
use tonic::transport::{Identity, ServerTlsConfig};
use tonic::{Code, Status as RpcStatus};

use self::server::{Fault, Server};
use super::*;
use crate::filter::Test;
use crate::item::Item;
use crate::secret::Secret;
use crate::store::IndexState;
use crate::store::contract::{self, DIMENSION, item, name, new_collection, oracle, point, search};
use crate::store::index::{Kind, Quantization, VectorIndex};

/// Where a real server is, as in `http://127.0.0.1:6334`; its key, if it needs one.
const TEST_URL: &str = "CLIPMESH_TEST_QDRANT_URL";
const TEST_API_KEY: &str = "CLIPMESH_TEST_QDRANT_API_KEY";

fn config(url: String) -> Config {
    // At each call what is, so that the tests see what they did.
    Config { url, keep_collections: Duration::ZERO, ..Config::default() }
}

fn open(config: Config) -> Qdrant {
    Qdrant::new(config).expect("settings that can be used")
}

fn client_of(server: &Server) -> Qdrant {
    open(config(server.url()))
}

/// An address where nobody listens.
async fn nowhere() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    format!("http://{}", listener.local_addr().expect("an address"))
}

fn tls_file(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/qdrant/tests/tls").join(name)
}

fn one() -> Point {
    point("a", [1.0, 0.0, 0.0, 0.0])
}

fn failure<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    match result {
        Err(Error::Failed(text)) => text,
        other => panic!("a failure, not {other:?}"),
    }
}

#[tokio::test]
async fn keeps_the_contract() {
    let server = Server::start().await;
    contract::verify(&client_of(&server)).await;
}

#[tokio::test]
async fn keeps_the_contract_with_what_is_known_kept_for_a_while() {
    let server = Server::start().await;
    let config = Config { keep_collections: Duration::from_secs(3600), ..config(server.url()) };
    contract::verify(&open(config)).await;
}

/// A store of this run alone on the real server, so that the server may be in use.
fn real() -> Option<Qdrant> {
    let Ok(url) = std::env::var(TEST_URL) else {
        println!("skipped: {TEST_URL} names no server");
        return None;
    };
    let prefix = format!("test_{}_", uuid::Uuid::new_v4().simple());
    let api_key = std::env::var(TEST_API_KEY).ok().map(Secret::new);
    Some(open(Config { prefix, api_key, ..config(url) }))
}

async fn clear(store: &Qdrant) {
    for collection in store.collections().await.expect("an answer") {
        store.remove(collection.name).await.expect("removed");
    }
}

#[tokio::test]
async fn keeps_the_contract_on_a_real_server() {
    if let Some(store) = real() {
        contract::verify(&store).await;
        oracle::weighs_words_alike(&store).await;
        clear(&store).await;
    }
}

#[test]
fn agrees_with_the_oracle_on_a_real_server() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let _entered = runtime.enter();
    if let Some(store) = real() {
        oracle::agrees_on_random_items(&runtime, &store, oracle::Between::Renewed);
        runtime.block_on(clear(&store));
    }
}

#[test]
fn agrees_with_the_oracle_on_random_items_filters_and_indexes() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let _entered = runtime.enter();
    let server = runtime.block_on(Server::start());
    oracle::agrees_on_random_items(&runtime, &client_of(&server), oracle::Between::Emptied);
}

#[tokio::test]
async fn words_weigh_as_much_as_the_oracle_says() {
    let server = Server::start().await;
    oracle::weighs_words_alike(&client_of(&server)).await;
}

#[tokio::test]
async fn a_server_that_is_down_is_a_failure_and_no_empty_answer() {
    let store = open(config(nowhere().await));
    failure(store.collections().await);
    failure(store.resolve(name("c")).await);
    failure(store.create(new_collection("c")).await);
    failure(store.upsert(name("c"), vec![one()]).await);
    failure(store.search(name("c"), vec![search([1.0; DIMENSION], 1)]).await);
    failure(store.count(name("c"), Filter::default()).await);
    failure(store.aliases().await);
}

#[tokio::test]
async fn a_server_that_goes_down_and_comes_back_is_found_again() {
    let server = Server::start().await;
    let store = client_of(&server);
    store.create(new_collection("c")).await.expect("made");
    server.break_method("points/count", Fault::Refuse(RpcStatus::unavailable("starting")));
    failure(store.count(name("c"), Filter::default()).await);
    server.mend();
    assert_eq!(store.count(name("c"), Filter::default()).await, Ok(0), "without a new client");
}

#[tokio::test]
async fn each_refusal_has_its_meaning() {
    let server = Server::start().await;
    let store = client_of(&server);
    store.create(new_collection("c")).await.expect("made");
    let cases = [
        (Code::ResourceExhausted, Error::Busy),
        (Code::DeadlineExceeded, Error::TimedOut),
        (Code::NotFound, Error::NoCollection(name("c"))),
    ];
    for (code, expected) in cases {
        let methods = ["points/query_batch", "points/upsert", "points/scroll", "points/get"];
        for method in methods {
            server.break_method(method, Fault::Refuse(RpcStatus::new(code, "why")));
        }
        let query = vec![search([1.0; DIMENSION], 1)];
        let searched = store.search(name("c"), query).await.map(drop);
        assert_eq!(searched, Err(expected.clone()), "a search, {code:?}");
        let stored = store.upsert(name("c"), vec![one()]).await;
        assert_eq!(stored, Err(expected.clone()), "a write, {code:?}");
        let page = Page { filter: Filter::default(), after: None, limit: 1, vectors: false };
        let listed = store.scroll(name("c"), page).await.map(drop);
        assert_eq!(listed, Err(expected.clone()), "a page, {code:?}");
        let got = store.get(name("c"), vec![one().item.id], false).await.map(drop);
        assert_eq!(got, Err(expected), "an item, {code:?}");
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up() {
    let server = Server::start().await;
    let timeout = Duration::from_millis(200);
    let store = open(Config { timeout, ..config(server.url()) });
    store.create(new_collection("c")).await.expect("made");
    for method in ["points/count", "points/upsert", "points/query_batch"] {
        server.break_method(method, Fault::Hang);
    }
    let counted = store.count(name("c"), Filter::default()).await;
    assert_eq!(counted, Err(Error::TimedOut), "a count");
    assert_eq!(store.upsert(name("c"), vec![one()]).await, Err(Error::TimedOut), "a write");
    let found = store.search(name("c"), vec![search([1.0; DIMENSION], 1)]).await.map(drop);
    assert_eq!(found, Err(Error::TimedOut), "a search");
}

#[tokio::test]
async fn a_write_that_is_only_taken_in_is_not_answered_as_done() {
    let server = Server::start().await;
    let store = client_of(&server);
    store.create(new_collection("c")).await.expect("made");
    for (status, expected) in [
        (UpdateStatus::Acknowledged, Error::TimedOut),
        (UpdateStatus::WaitTimeout, Error::TimedOut),
    ] {
        server.state().write_status = status;
        let stored = store.upsert(name("c"), vec![one()]).await;
        assert_eq!(stored, Err(expected.clone()), "{status:?}");
        assert_eq!(store.delete(name("c"), vec![one().item.id]).await, Err(expected), "{status:?}");
    }
    server.state().write_status = UpdateStatus::ClockRejected;
    failure(store.upsert(name("c"), vec![one()]).await);
    let asked = server.state().last_upsert.clone().expect("asked");
    assert_eq!(asked.wait, Some(true), "it was asked to wait until the write is there");
}

#[tokio::test]
async fn the_key_goes_along_and_a_wrong_one_is_named() {
    let server = Server::start_with(Some("open sesame"), None).await;
    let with = |key: Option<&str>| {
        let api_key = key.map(|key| Secret::new(key.to_owned()));
        open(Config { api_key, ..config(server.url()) })
    };
    assert_eq!(with(Some("open sesame")).collections().await, Ok(vec![]), "the right one");
    for key in [None, Some("open barley")] {
        let text = failure(with(key).collections().await);
        assert!(text.contains("store.qdrant.api_key"), "where to look: {text}");
        assert!(!text.contains("barley"), "a secret: {text}");
    }
    let unsendable = Config { api_key: Some(Secret::new("a\nb".to_owned())), ..Config::default() };
    assert!(Qdrant::new(unsendable).is_err(), "refused at once");
}

#[tokio::test]
async fn the_server_is_known_by_its_certificate() {
    let read = |name: &str| std::fs::read(tls_file(name)).expect("a file");
    let identity = Identity::from_pem(read("server.pem"), read("server.key"));
    let server = Server::start_with(None, Some(ServerTlsConfig::new().identity(identity))).await;
    let url = format!("https://localhost:{}", server.address.port());
    let trusting = open(Config { ca_file: Some(tls_file("ca.pem")), ..config(url.clone()) });
    trusting.create(new_collection("c")).await.expect("made, over TLS");
    // The authorities of the system know nothing of this one.
    failure(open(config(url)).collections().await);
    failure(client_of(&server).collections().await);
    let lost = Config { ca_file: Some(tls_file("nobody.pem")), ..Config::default() };
    let error = Qdrant::new(lost).expect_err("no such file").to_string();
    assert!(error.contains("nobody.pem"), "the file is named: {error}");
}

#[tokio::test]
async fn calls_go_past_a_node_that_is_down() {
    let server = Server::start().await;
    let store = open(config(format!("{},{}", nowhere().await, server.url())));
    store.create(new_collection("c")).await.expect("made");
    for _ in 0..4 {
        store.upsert(name("c"), vec![one()]).await.expect("stored, whichever node's turn it is");
    }
    assert_eq!(store.count(name("c"), Filter::default()).await, Ok(1), "by the other node");
}

#[tokio::test]
async fn a_collection_that_can_not_be_made_whole_leaves_nothing() {
    let server = Server::start().await;
    let store = client_of(&server);
    for method in ["points/create_field_index", "collections/update"] {
        server.break_method(method, Fault::Refuse(RpcStatus::internal("disk full")));
        let text = failure(store.create(new_collection("c")).await);
        assert!(text.contains("disk full"), "what the server said is told: {text}");
        assert!(server.state().collections.is_empty(), "nothing is left after {method} failed");
        server.mend();
    }
    store.create(new_collection("c")).await.expect("made, as if nothing had been");
}

/// Has a collection lie on the server as a process leaves it that dies while it makes it.
async fn leave_half_made(server: &Server, store: &Qdrant) {
    for method in ["points/create_field_index", "collections/delete"] {
        server.break_method(method, Fault::Refuse(RpcStatus::unavailable("gone")));
    }
    failure(store.create(new_collection("c")).await);
    server.mend();
    assert_eq!(server.state().collections.len(), 1, "it lies there");
}

#[tokio::test]
async fn a_half_made_collection_is_there_for_nobody_and_cleared_away_in_time() {
    let server = Server::start().await;
    let store = client_of(&server);
    leave_half_made(&server, &store).await;
    assert_eq!(store.collections().await, Ok(vec![]), "not listed");
    let resolved = store.resolve(name("c")).await.map(drop);
    assert_eq!(resolved, Err(Error::NoCollection(name("c"))), "not found");
    let made = store.create(new_collection("c")).await.map(drop);
    assert_eq!(made, Err(Error::CollectionExists(name("c"))), "somebody may be making it now");

    for shelf in server.state().collections.values_mut() {
        let record = shelf.metadata.get_mut("clipmesh").expect("a record");
        let mut json = serde_json::Value::from(record.clone());
        json["create_time"] = "2020-01-01T00:00:00Z".into();
        *record = json.into();
    }
    let made = store.create(new_collection("c")).await.expect("nobody takes that long");
    assert_eq!(store.resolve(name("c")).await, Ok(made), "made anew");
}

#[tokio::test]
async fn what_has_no_record_of_ours_is_none_of_ours() {
    let server = Server::start().await;
    let store = client_of(&server);
    store.create(new_collection("ours")).await.expect("made");
    let make = |outer: &str, metadata| CreateCollection {
        collection_name: outer.to_owned(),
        metadata,
        ..CreateCollection::default()
    };
    let ours = server.state().collections["clipmesh_ours"].metadata.clone();
    // Somebody else's, somebody else's that looks like ours, and somebody's copy of ours.
    for (outer, metadata) in
        [("theirs", HashMap::new()), ("clipmesh_theirs", HashMap::new()), ("clipmesh_copy", ours)]
    {
        server.state().create_collection(make(outer, metadata)).expect("made");
    }
    let listed = store.collections().await.expect("an answer");
    let names: Vec<_> = listed.iter().map(|collection| collection.name.as_str()).collect();
    assert_eq!(names, ["ours"], "listed");
    for other in ["theirs", "copy"] {
        let unknown = Error::NoCollection(name(other));
        assert_eq!(store.resolve(name(other)).await.map(drop), Err(unknown.clone()), "resolved");
        assert_eq!(store.remove(name(other)).await.map(drop), Err(unknown.clone()), "removed");
        let stored = store.upsert(name(other), vec![one()]).await;
        assert_eq!(stored, Err(unknown), "written to");
        let made = store.create(new_collection(other)).await.map(drop);
        assert_eq!(made, Err(Error::CollectionExists(name(other))), "but its name is taken");
    }
}

#[tokio::test]
async fn installations_with_different_prefixes_share_a_server() {
    let server = Server::start().await;
    let with = |prefix: &str| open(Config { prefix: prefix.to_owned(), ..config(server.url()) });
    let (red, blue) = (with("red_"), with("blue_"));
    red.create(new_collection("c")).await.expect("made");
    blue.create(new_collection("c")).await.expect("made, too");
    red.set_alias(name("live"), name("c")).await.expect("set");
    assert_eq!(blue.aliases().await, Ok(BTreeMap::new()), "the other's alias is not seen");
    blue.remove(name("c")).await.expect("removed");
    assert_eq!(red.collections().await.expect("an answer").len(), 1, "its own alone");
}

#[tokio::test]
async fn a_collection_is_made_as_set() {
    let server = Server::start().await;
    let number = |number| std::num::NonZeroU32::new(number).expect("not zero");
    let store = open(Config {
        shard_number: number(6),
        replication_factor: number(3),
        write_consistency_factor: number(2),
        on_disk_vectors: true,
        on_disk_payload: false,
        on_disk_hnsw: true,
        ..config(server.url())
    });
    let vector_index =
        VectorIndex { links: 24, build_effort: 80, quantization: Quantization::Scalar };
    let indexes = [FieldIndex { field: Field::Metadata("tag".to_owned()), kind: Kind::Keyword }];
    let new = NewCollection {
        vector_index,
        indexes: crate::store::index::Indexes::new(indexes),
        dimension: 512,
        ..new_collection("c")
    };
    store.create(new).await.expect("made");
    let shelf = server.state().collections["clipmesh_c"].clone();
    let made = shelf.made_as;
    assert_eq!(made.shard_number, Some(6), "shards");
    assert_eq!(made.replication_factor, Some(3), "copies");
    assert_eq!(made.write_consistency_factor, Some(2), "copies that a write waits for");
    let graph = made.hnsw_config.expect("a graph");
    assert_eq!((graph.m, graph.ef_construct), (Some(24), Some(80)), "the graph");
    assert_eq!(graph.full_scan_threshold, Some(100_000), "50000 vectors of 2 KiB, in KiB");
    let quantization = made.quantization_config.and_then(|config| config.quantization);
    let is_scalar = matches!(quantization, Some(quantization_config::Quantization::Scalar(_)));
    assert!(is_scalar, "a byte per value: {quantization:?}");
    let on_disk = format!("{made:?}").matches("on_disk: Some(true)").count();
    assert_eq!(on_disk, 2, "vectors and graphs on disk: {made:?}");
    let links = |path: &str| format!("{:?}", shelf.index_params[path].field_index_params);
    assert!(links("uri").contains("enable_hnsw: Some(false)"), "{}", links("uri"));
    assert!(links("metadata.tag").contains("enable_hnsw: Some(true)"), "{}", links("metadata.tag"));
    assert!(shelf.index_params.values().all(|made| made.wait == Some(true)), "each is waited for");
}

#[tokio::test]
async fn a_search_is_asked_as_set() {
    let server = Server::start().await;
    let effort = std::num::NonZeroUsize::new(77).expect("not zero");
    let store = open(Config { search_effort: effort, ..config(server.url()) });
    store.create(new_collection("c")).await.expect("made");
    let asked = async |search: Search| {
        store.search(name("c"), vec![search]).await.expect("an answer");
        let query = server.state().last_query.clone().expect("asked");
        query.params.expect("parameters")
    };
    let plain = || search([1.0; DIMENSION], 10);
    let params = asked(plain()).await;
    assert_eq!((params.hnsw_ef, params.exact), (Some(77), Some(false)), "as set");
    assert_eq!(params.quantization, None, "there are no short forms");
    assert_eq!(params.acorn, None, "every link leads to what passes");
    let filter = contract::must(Field::Width, Test::Match(Scalar::Number(640.0)));
    let filtered = Search { filter, ..plain() };
    let acorn = asked(filtered.clone()).await.acorn.expect("some links do not");
    assert_eq!((acorn.enable, acorn.max_selectivity), (Some(true), Some(0.9)), "looked beyond");
    let params = asked(Search { exact: true, ..filtered }).await;
    assert_eq!(params.acorn, None, "no link is walked along");
    let params = asked(Search { effort: Some(300), exact: true, ..plain() }).await;
    assert_eq!((params.hnsw_ef, params.exact), (Some(300), Some(true)), "as the caller wants it");
    let params = asked(Search { limit: 500, ..plain() }).await;
    assert!(params.hnsw_ef >= Some(500), "no fewer candidates than hits: {params:?}");

    let quantization = Some(Quantization::Binary);
    let change = VectorIndexChange { quantization, ..VectorIndexChange::default() };
    store.set_vector_index(name("c"), change).await.expect("changed");
    let changed = server.state().collections["clipmesh_c"].changed_to.clone().expect("changed");
    assert!(changed.quantization_config.is_some(), "short forms are made: {changed:?}");
    let short = asked(plain()).await.quantization.expect("short forms are searched");
    assert_eq!(short.rescore, Some(true), "and the best compared in full");
    assert_eq!(short.oversampling, Some(2.0), "of twice as many");
    let exact = asked(Search { exact: true, ..plain() }).await.quantization.expect("set");
    assert_eq!(exact.ignore, Some(true), "unless all are to be compared");
}

#[tokio::test]
async fn a_server_that_is_too_old_is_refused() {
    let server = Server::start().await;
    server.state().version = "1.16.3".to_owned();
    let text = failure(client_of(&server).create(new_collection("c")).await);
    assert!(text.contains("1.16.3") && text.contains("1.17"), "both are named: {text}");
    server.state().version = "2.0.0".to_owned();
    client_of(&server).create(new_collection("c")).await.expect("a later one will do");
}

#[tokio::test]
async fn what_another_process_changed_is_noticed() {
    let server = Server::start().await;
    let keep_collections = Duration::from_secs(3600);
    let (one_process, other) =
        (open(Config { keep_collections, ..config(server.url()) }), client_of(&server));
    one_process.create(new_collection("c")).await.expect("made");
    one_process.upsert(name("c"), vec![one()]).await.expect("stored");

    // Made anew for another model, with vectors as long.
    other.remove(name("c")).await.expect("removed");
    let fingerprint = Fingerprint::try_from(ContentHash::of(b"other").to_string());
    let new = NewCollection { fingerprint: fingerprint.expect("64 digits"), ..new_collection("c") };
    let remade = other.create(new).await.expect("made anew");
    let text = failure(one_process.upsert(name("c"), vec![one()]).await);
    assert!(text.contains("vector name"), "vectors of two models are never mixed: {text}");
    assert_eq!(one_process.resolve(name("c")).await, Ok(remade), "and it is asked for again");

    other.remove(name("c")).await.expect("removed");
    let gone = Err(Error::NoCollection(name("c")));
    assert_eq!(one_process.count(name("c"), Filter::default()).await, gone, "it is gone");
    assert_eq!(one_process.resolve(name("c")).await.map(drop), gone.map(drop), "for good");
}

#[tokio::test]
async fn an_index_that_another_process_removed_is_made_again() {
    let server = Server::start().await;
    let keep_collections = Duration::from_secs(3600);
    let (one_process, other) =
        (open(Config { keep_collections, ..config(server.url()) }), client_of(&server));
    one_process.create(new_collection("c")).await.expect("made");
    let field = Field::Metadata("tag".to_owned());
    let index = FieldIndex { field: field.clone(), kind: Kind::Keyword };
    one_process.create_index(name("c"), index.clone()).await.expect("made");
    let known = one_process.resolve(name("c")).await.expect("there");
    assert_eq!(known.indexes.kind(&field), Some(Kind::Keyword), "known for an hour");
    other.remove_index(name("c"), field.clone()).await.expect("removed");
    one_process.create_index(name("c"), index).await.expect("made again");
    let now = other.resolve(name("c")).await.expect("there");
    assert_eq!(now.indexes.kind(&field), Some(Kind::Keyword), "it is there");
}

#[tokio::test]
async fn what_another_process_changed_of_a_graph_stays_changed() {
    let server = Server::start().await;
    let keep_collections = Duration::from_secs(3600);
    let (one_process, other) =
        (open(Config { keep_collections, ..config(server.url()) }), client_of(&server));
    one_process.create(new_collection("c")).await.expect("made");
    one_process.resolve(name("c")).await.expect("there");
    let links = VectorIndexChange { links: Some(24), ..VectorIndexChange::default() };
    other.set_vector_index(name("c"), links).await.expect("changed");
    let effort = VectorIndexChange { build_effort: Some(80), ..VectorIndexChange::default() };
    let changed = one_process.set_vector_index(name("c"), effort).await.expect("changed");
    let graph = changed.vector_index;
    assert_eq!((graph.links, graph.build_effort), (24, 80), "by both");
    let asked = server.state().collections["clipmesh_c"].changed_to.clone().expect("changed");
    assert_eq!(asked.hnsw_config.expect("a graph").m, Some(24), "as the server is told");
}

#[tokio::test]
async fn an_alias_is_followed_to_where_it_leads_now() {
    let server = Server::start().await;
    let keep_collections = Duration::from_secs(3600);
    let store = open(Config { keep_collections, ..config(server.url()) });
    for text in ["blue", "green"] {
        store.create(new_collection(text)).await.expect("made");
        store.set_alias(name("live"), name(text)).await.expect("set");
        let resolved = store.resolve(name("live")).await.expect("there");
        assert_eq!(resolved.name, name(text), "not where it led before");
    }
}

#[tokio::test]
async fn what_is_made_anew_is_known_at_once() {
    let server = Server::start().await;
    let keep_collections = Duration::from_secs(3600);
    let store = open(Config { keep_collections, ..config(server.url()) });
    store.create(new_collection("c")).await.expect("made");
    store.resolve(name("c")).await.expect("there");
    client_of(&server).remove(name("c")).await.expect("removed");
    let made = store.create(new_collection("c")).await.expect("made anew");
    assert_eq!(store.resolve(name("c")).await, Ok(made), "not the one of before");
}

#[tokio::test]
async fn many_who_ask_for_one_collection_ask_once() {
    let server = Server::start().await;
    client_of(&server).create(new_collection("c")).await.expect("made");
    let keep_collections = Duration::from_secs(3600);
    let store = open(Config { keep_collections, ..config(server.url()) });
    let before = server.calls("collections/get");
    let counts = (0..8).map(|_| store.count(name("c"), Filter::default()));
    for count in futures::future::join_all(counts).await {
        assert_eq!(count, Ok(0), "each has its answer");
    }
    assert_eq!(server.calls("collections/get") - before, 1, "of one question");
}

#[tokio::test]
async fn a_server_with_too_much_to_do_is_not_asked_again() {
    let server = Server::start().await;
    let keep_collections = Duration::from_secs(3600);
    let store = open(Config { keep_collections, ..config(server.url()) });
    store.create(new_collection("c")).await.expect("made");
    store.resolve(name("c")).await.expect("there");
    let before = server.calls("collections/get");
    for (code, asks) in
        [(Code::ResourceExhausted, 0), (Code::DeadlineExceeded, 0), (Code::InvalidArgument, 1)]
    {
        server.break_method("points/count", Fault::Refuse(RpcStatus::new(code, "why")));
        store.count(name("c"), Filter::default()).await.expect_err("refused");
        server.mend();
        store.count(name("c"), Filter::default()).await.expect("an answer");
        assert_eq!(server.calls("collections/get") - before, asks, "after {code:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_writers_that_saw_the_same_one_wins() {
    let server = Server::start().await;
    let store = Arc::new(client_of(&server));
    store.create(new_collection("c")).await.expect("made");
    // First that there is nothing, then what one of them has put there.
    for round in 0..2 {
        let stored: &dyn VectorStore = &*store;
        let seen = stored.point(name("c"), one().item.id).await.expect("an answer");
        let seen = seen.map(|point| point.item.etag());
        assert_eq!(seen.is_some(), round > 0, "what they see");
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..8 {
            let (store, seen) = (Arc::clone(&store), seen.clone());
            writers.spawn(async move {
                let item = Item { uri: format!("file:///{round}/{writer}"), ..item("a") };
                let point = Point { item, ..one() };
                store.replace(name("c"), point, seen).await.expect("an answer")
            });
        }
        let applied = writers.join_all().await.into_iter().filter(|applied| *applied).count();
        assert_eq!(applied, 1, "the others are told to look again");
    }
}

#[tokio::test]
async fn a_write_that_has_begun_is_finished_without_its_caller() {
    let server = Server::start().await;
    let store = client_of(&server);
    store.create(new_collection("c")).await.expect("made");
    let mut write = store.upsert(name("c"), vec![one()]);
    assert!(futures::poll!(&mut write).is_pending(), "it has begun");
    drop(write);
    store.close().await;
    assert_eq!(server.state().collections["clipmesh_c"].len(), 1, "and is finished");
    let late = failure(store.count(name("c"), Filter::default()).await);
    assert!(late.contains("closed"), "nothing is begun any more: {late}");
    failure(store.upsert(name("c"), vec![one()]).await);
    failure(store.collections().await);
}

#[tokio::test]
async fn what_takes_long_to_build_does_not_hold_up_the_end() {
    let server = Server::start().await;
    let timeout = Duration::from_millis(200);
    let store = open(Config { timeout, ..config(server.url()) });
    store.create(new_collection("c")).await.expect("made");
    server.break_method("points/create_field_index", Fault::Hang);
    let index = FieldIndex { field: Field::Metadata("f".to_owned()), kind: Kind::Keyword };
    let mut building = store.create_index(name("c"), index);
    assert!(futures::poll!(&mut building).is_pending(), "it has begun");
    let closed = tokio::time::timeout(Duration::from_secs(60), store.close()).await;
    assert!(closed.is_ok(), "it may take ten minutes");
}

#[tokio::test]
async fn the_state_of_a_graph_is_told() {
    let server = Server::start().await;
    let store = client_of(&server);
    let word_fields = vec![Field::Filename];
    store.create(NewCollection { word_fields, ..new_collection("c") }).await.expect("made");
    store.upsert(name("c"), vec![one()]).await.expect("stored");
    let status = store.status(name("c")).await.expect("an answer");
    assert_eq!((status.unindexed, status.state), (1, IndexState::Ready), "one by one");
}
