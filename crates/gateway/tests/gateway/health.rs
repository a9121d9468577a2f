//! What the gateway says of what is behind it.

use clipmesh_mesh::health::Reporter;
use http::StatusCode;
use tonic::{Code, Request, Streaming};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_reflection::pb::{v1, v1alpha};

use crate::fakes::Items;
use crate::support::{
    ANY, EMBEDDER_SERVICE, Mesh, Running, config, start_embedder, start_gateway, start_search,
    within,
};

const ITEMS: &str = "clipmesh.search.v1.ItemService";
const WHOLE: &str = "";

fn about(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

async fn check(gateway: &Running, service: &str) -> Result<ServingStatus, Code> {
    let answer = within(HealthClient::new(gateway.channel()).check(about(service))).await;
    answer.map(|answer| answer.into_inner().status()).map_err(|status| status.code())
}

async fn watch(gateway: &Running, service: &str) -> Streaming<HealthCheckResponse> {
    let mut client = HealthClient::new(gateway.channel());
    within(client.watch(about(service))).await.expect("the stream opens").into_inner()
}

/// Reads on until the service is as expected.
async fn until(news: &mut Streaming<HealthCheckResponse>, expected: ServingStatus) {
    let waiting = async {
        loop {
            let news = news.message().await.expect("no error").expect("no end");
            if news.status() == expected {
                return;
            }
        }
    };
    within(waiting).await;
}

async fn readyz(gateway: &Running) -> StatusCode {
    gateway.get("/readyz").await.status()
}

async fn set_search(health: &Reporter, serving: bool) {
    health.set(ITEMS, serving).await;
}

#[tokio::test]
async fn nothing_serves_while_nobody_is_behind() {
    let gateway = start_gateway(config()).await;
    for service in [WHOLE, ITEMS, EMBEDDER_SERVICE] {
        assert_eq!(check(&gateway, service).await, Ok(ServingStatus::NotServing), "`{service}`");
    }
    assert_eq!(check(&gateway, "stranger").await, Err(Code::NotFound), "no such service");
    assert_eq!(readyz(&gateway).await, StatusCode::SERVICE_UNAVAILABLE, "not ready");
    assert_eq!(gateway.get("/livez").await.status(), StatusCode::OK, "but alive");
}

#[tokio::test]
async fn the_gateway_is_ready_when_search_is_and_says_when_it_is_not() {
    let mesh = Mesh::start().await;
    let mut whole = watch(&mesh.gateway, WHOLE).await;
    until(&mut whole, ServingStatus::Serving).await;
    assert_eq!(readyz(&mesh.gateway).await, StatusCode::OK, "for HTTP too");
    assert_eq!(check(&mesh.gateway, ITEMS).await, Ok(ServingStatus::Serving), "by name");
    let embedder = check(&mesh.gateway, EMBEDDER_SERVICE).await;
    assert_eq!(embedder, Ok(ServingStatus::NotServing), "nobody embeds");

    set_search(&mesh.search_health, false).await;
    until(&mut whole, ServingStatus::NotServing).await;
    assert_eq!(readyz(&mesh.gateway).await, StatusCode::SERVICE_UNAVAILABLE, "one part is out");
    let collections = check(&mesh.gateway, "clipmesh.search.v1.CollectionService").await;
    assert_eq!(collections, Ok(ServingStatus::Serving), "the others are told apart");
    set_search(&mesh.search_health, true).await;
    until(&mut whole, ServingStatus::Serving).await;
}

#[tokio::test]
async fn an_upstream_that_stops_and_starts_is_noticed() {
    let embedder = start_embedder(ANY).await;
    let (items, _script) = Items::new();
    let (search, _health) = start_search(items, ANY).await;
    let mut config = config();
    config.search_url = search.url();
    config.embedder_url = embedder.url();
    let gateway = start_gateway(config).await;
    let mut news = watch(&gateway, EMBEDDER_SERVICE).await;
    until(&mut news, ServingStatus::Serving).await;

    let address = embedder.address.to_string();
    embedder.shutdown.trigger();
    assert!(within(embedder.ended).await.expect("no panic"), "it stops");
    until(&mut news, ServingStatus::NotServing).await;
    let mut whole = watch(&gateway, WHOLE).await;
    until(&mut whole, ServingStatus::Serving).await;
    assert_eq!(readyz(&gateway).await, StatusCode::OK, "stored items are still found");

    let _again = start_embedder(&address).await;
    until(&mut news, ServingStatus::Serving).await;
}

#[tokio::test]
async fn reflection_lists_everything_behind_the_gateway() {
    let gateway = start_gateway(config()).await;
    let expected = [
        "clipmesh.embedder.v1.EmbedderService",
        "clipmesh.search.v1.CollectionService",
        "clipmesh.search.v1.ItemService",
        "clipmesh.search.v1.SearchService",
        "grpc.health.v1.Health",
    ];
    let mut listed = list_v1(&gateway).await;
    assert_eq!(listed.pop().as_deref(), Some("grpc.reflection.v1.ServerReflection"), "itself");
    assert_eq!(listed, expected, "version 1");
    let mut listed = list_v1alpha(&gateway).await;
    let own = "grpc.reflection.v1alpha.ServerReflection";
    assert_eq!(listed.pop().as_deref(), Some(own), "itself");
    assert_eq!(listed, expected, "version 1alpha");
}

async fn list_v1(gateway: &Running) -> Vec<String> {
    use v1::server_reflection_client::ServerReflectionClient;
    use v1::server_reflection_request::MessageRequest;
    use v1::server_reflection_response::MessageResponse;

    let list = v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(gateway.channel());
    let request = Request::new(futures::stream::iter([list]));
    let answer = within(client.server_reflection_info(request)).await.expect("a stream");
    let first = within(answer.into_inner().message()).await.expect("no error").expect("one answer");
    let Some(MessageResponse::ListServicesResponse(list)) = first.message_response else {
        panic!("a list was asked for");
    };
    sorted(list.service.into_iter().map(|service| service.name))
}

async fn list_v1alpha(gateway: &Running) -> Vec<String> {
    use v1alpha::server_reflection_client::ServerReflectionClient;
    use v1alpha::server_reflection_request::MessageRequest;
    use v1alpha::server_reflection_response::MessageResponse;

    let list = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(gateway.channel());
    let request = Request::new(futures::stream::iter([list]));
    let answer = within(client.server_reflection_info(request)).await.expect("a stream");
    let first = within(answer.into_inner().message()).await.expect("no error").expect("one answer");
    let Some(MessageResponse::ListServicesResponse(list)) = first.message_response else {
        panic!("a list was asked for");
    };
    sorted(list.service.into_iter().map(|service| service.name))
}

fn sorted(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}
