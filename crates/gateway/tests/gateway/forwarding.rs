//! What goes in comes out: messages, metadata, errors, paths.

use clipmesh_proto::code::{FieldViolation, Reason};
use clipmesh_proto::embedder::v1::GetModelRequest;
use clipmesh_proto::embedder::v1::embedder_service_client::EmbedderServiceClient;
use clipmesh_proto::search::v1::search_service_client::SearchServiceClient;
use http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status};

use crate::fakes::{FAILS, failure};
use crate::support::{ANY, Mesh, config, get, start_embedder, start_gateway, within};

#[tokio::test]
async fn a_call_reaches_the_service_of_its_package() {
    let mesh = Mesh::start().await;
    let answer = within(mesh.gateway.items().get_item(get("cat"))).await.expect("an answer");
    let item = answer.into_inner().item.expect("an item");
    assert_eq!(item.id, "cat", "the item service answered");

    let embedder = start_embedder(ANY).await;
    let config = clipmesh_gateway::Config { embedder_url: embedder.url(), ..config() };
    let gateway = start_gateway(config).await;
    let mut client = EmbedderServiceClient::new(gateway.channel());
    let answer = within(client.get_model(GetModelRequest {})).await.expect("an answer");
    let model = answer.into_inner().model.expect("a model");
    assert_eq!(model.name, "fake", "the embedder answered, though no search service is there");
}

#[tokio::test]
async fn metadata_passes_in_both_directions() {
    let mesh = Mesh::start().await;
    let mut request = Request::new(get("cat"));
    let bytes = MetadataValue::from_bytes(&[0, 159, 146, 150]);
    request.metadata_mut().insert_bin("x-echo-bin", bytes.clone());
    request.metadata_mut().append("x-tag", MetadataValue::from_static("a"));
    request.metadata_mut().append("x-tag", MetadataValue::from_static("b"));
    let answer = within(mesh.gateway.items().get_item(request)).await.expect("an answer");
    assert_eq!(answer.metadata().get_bin("x-echo-bin"), Some(&bytes), "back as it was");

    let arrived = mesh.script.only_call();
    assert_eq!(arrived.get_bin("x-echo-bin"), Some(&bytes), "bytes arrive");
    let tags: Vec<_> = arrived.get_all("x-tag").iter().collect();
    assert_eq!(tags, ["a", "b"], "repeated names arrive in order");
}

#[tokio::test]
async fn an_error_passes_with_its_details_and_metadata() {
    let mesh = Mesh::start().await;
    let direct = within(mesh.search.items().get_item(get(FAILS))).await.expect_err("it fails");
    let proxied = within(mesh.gateway.items().get_item(get(FAILS))).await.expect_err("it fails");
    assert_eq!(proxied.code(), failure().code(), "code");
    assert_eq!(proxied.message(), failure().message(), "message, with its odd characters");
    assert_eq!(proxied.details(), direct.details(), "details, byte for byte");
    let violation = FieldViolation::from_status(&proxied).expect("a field violation");
    assert_eq!(violation.reason, Reason::Malformed, "details that a program can read");
    let cause = proxied.metadata().get("x-cause").expect("metadata of the error");
    assert_eq!(cause, "a test", "unchanged");
}

#[tokio::test]
async fn a_service_that_nobody_has_is_named() {
    let mesh = Mesh::start().await;
    for (path, service) in [
        ("/clipmesh.painter.v1.PainterService/Paint", "clipmesh.painter.v1.PainterService"),
        ("/grpc.channelz.v1.Channelz/GetServers", "grpc.channelz.v1.Channelz"),
    ] {
        let status = call(&mesh, path).await;
        assert_eq!(status.code(), Code::Unimplemented, "the protocol's answer");
        assert!(status.message().contains(service), "it names it: {}", status.message());
    }
}

#[tokio::test]
async fn a_method_that_the_contracts_lack_is_the_upstreams_to_answer() {
    let mesh = Mesh::start().await;
    let status = call(&mesh, "/clipmesh.search.v1.ItemService/PaintItem").await;
    assert_eq!(status.code(), Code::Unimplemented, "the item service does not know it");
    assert!(!status.message().contains("here"), "this is not the gateway's own answer");

    // A service of the package that this upstream does not have.
    let mut client = SearchServiceClient::new(mesh.gateway.channel());
    let status = within(client.search(clipmesh_proto::search::v1::SearchRequest::default()))
        .await
        .expect_err("nobody searches");
    assert_eq!(status.code(), Code::Unimplemented, "as without a gateway");
}

/// Calls a method that no generated client has.
async fn call(mesh: &Mesh, path: &'static str) -> Status {
    let mut client = Grpc::new(mesh.gateway.channel());
    within(client.ready()).await.expect("a connection");
    let codec = tonic_prost::ProstCodec::<GetModelRequest, GetModelRequest>::default();
    let request = Request::new(GetModelRequest {});
    within(client.unary(request, PathAndQuery::from_static(path), codec))
        .await
        .expect_err("there is no such method")
}
