//! Upstreams that are not there, do not answer, or go away.

use std::time::Duration;

use clipmesh_proto::code;
use clipmesh_proto::search::v1::item_service_client::ItemServiceClient;
use futures::StreamExt as _;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tonic::{Code, Request};

use crate::fakes::{Event, Items, WAITS};
use crate::support::{ANY, Mesh, config, get, picture, start_gateway, start_search, within};

#[tokio::test]
async fn an_upstream_that_is_not_there_is_unavailable() {
    let gateway = start_gateway(config()).await;
    let status = within(gateway.items().get_item(get("cat"))).await.expect_err("nobody is there");
    assert_eq!(status.code(), Code::Unavailable, "worth another try");
    assert!(code::retry_after(&status).is_some(), "and it says when");
    assert!(status.message().contains("search"), "it names who is gone: {}", status.message());
    assert!(!status.message().contains("127.0.0.1"), "but not where it lives");
}

#[tokio::test]
async fn an_upstream_that_comes_back_is_found_again() {
    let (items, _script) = Items::new();
    let (search, _health) = start_search(items.clone(), ANY).await;
    let mut config = config();
    config.search_url = search.url();
    let gateway = start_gateway(config).await;
    let mut client = gateway.items();
    within(client.get_item(get("cat"))).await.expect("it is there");

    search.shutdown.trigger();
    assert!(within(search.ended).await.expect("no panic"), "it stops");
    let status = within(client.get_item(get("cat"))).await.expect_err("it is gone");
    assert_eq!(status.code(), Code::Unavailable, "no connection");

    let _again = start_search(items, &search.address.to_string()).await;
    within(client.get_item(get("cat"))).await.expect("the next call finds it");
}

#[tokio::test]
async fn an_upstream_that_dies_in_the_middle_is_unavailable() {
    let (items, mut script) = Items::new();
    // A runtime of its own dies with everything on it, sockets too, as a killed process does.
    let process = Runtime::new().expect("a runtime");
    let (search, _health) =
        process.spawn(start_search(items, ANY)).await.expect("the service starts");
    let mut config = config();
    config.search_url = search.url();
    let gateway = start_gateway(config).await;

    let (sender, requests) = mpsc::channel(1);
    let mut client = gateway.items();
    let opening = client.index_items(ReceiverStream::new(requests));
    let mut stream = within(opening).await.expect("the stream opens").into_inner();
    sender.send(picture(1, 10)).await.expect("the stream is open");
    within(stream.next()).await.expect("not the end").expect("an acknowledgement");
    let mut other = gateway.items();
    let waiting = tokio::spawn(async move { other.get_item(get(WAITS)).await });
    assert_eq!(script.next_event().await, Event::Started, "the stream");
    assert_eq!(script.next_event().await, Event::Started, "the call");

    process.shutdown_background();
    let status = within(stream.next()).await.expect("not just the end").expect_err("a status");
    assert_eq!(status.code(), Code::Unavailable, "in the middle of an answer");
    let status = within(waiting).await.expect("no panic").expect_err("no answer");
    assert_eq!(status.code(), Code::Unavailable, "before the answer");
}

#[tokio::test]
async fn a_unary_call_ends_at_the_gateways_own_deadline_and_a_stream_goes_on() {
    let mut mesh = Mesh::with(|config| config.call_timeout = Duration::from_millis(100)).await;
    let (sender, requests) = mpsc::channel(1);
    let mut client = mesh.gateway.items();
    let opening = client.index_items(ReceiverStream::new(requests));
    let mut stream = within(opening).await.expect("the stream opens").into_inner();
    assert_eq!(mesh.script.next_event().await, Event::Started, "the stream");

    let status = within(mesh.gateway.items().get_item(get(WAITS))).await.expect_err("too slow");
    assert_eq!(status.code(), Code::DeadlineExceeded, "our own deadline");
    assert_eq!(within(mesh.script.next_event()).await, Event::Started, "the call");
    assert_eq!(within(mesh.script.next_event()).await, Event::Cancelled, "its work is dropped");

    sender.send(picture(7, 10)).await.expect("the stream is open");
    let acknowledged = within(stream.next()).await.expect("not the end").expect("no error");
    assert_eq!(acknowledged.key, 7, "the stream has outlived that deadline");
}

#[tokio::test]
async fn the_callers_deadline_goes_on_to_the_upstream() {
    let mut mesh = Mesh::start().await;
    let mut request = Request::new(get(WAITS));
    request.set_timeout(Duration::from_millis(200));
    let status = within(mesh.gateway.items().get_item(request)).await.expect_err("too slow");
    assert!(
        matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled),
        "the caller's own clock or the gateway's: {status:?}"
    );
    assert_eq!(within(mesh.script.next_event()).await, Event::Started, "it arrived");
    assert_eq!(within(mesh.script.next_event()).await, Event::Cancelled, "and was dropped");
    let arrived = mesh.script.only_call();
    let timeout = arrived.get("grpc-timeout").expect("a deadline").to_str().expect("visible");
    let left_us: u64 = timeout.strip_suffix('u').expect("microseconds").parse().expect("a number");
    assert!(left_us < 200_000, "less what the way took: {left_us} µs");
}

#[tokio::test]
async fn a_caller_who_gives_up_stops_the_upstream() {
    let mut mesh = Mesh::start().await;
    let mut client = mesh.gateway.items();
    let call = tokio::spawn(async move { client.get_item(get(WAITS)).await });
    assert_eq!(within(mesh.script.next_event()).await, Event::Started, "it waits");
    call.abort();
    assert_eq!(within(mesh.script.next_event()).await, Event::Cancelled, "before the answer");

    // A caller that dies leaves a stream open in both directions.
    let process = Runtime::new().expect("a runtime");
    let url = mesh.gateway.url();
    process.spawn(async move {
        let channel = Endpoint::from_shared(url).expect("an address").connect_lazy();
        let (_sender, requests) = mpsc::channel(1);
        let mut client = ItemServiceClient::new(channel);
        let opening = client.index_items(ReceiverStream::new(requests));
        let mut stream = opening.await.expect("the stream opens").into_inner();
        stream.next().await
    });
    assert_eq!(within(mesh.script.next_event()).await, Event::Started, "it streams");
    process.shutdown_background();
    assert_eq!(within(mesh.script.next_event()).await, Event::Cancelled, "in the middle of it");
}
