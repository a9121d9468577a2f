//! How a gateway stops.

use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::fakes::{Event, WAITS};
use crate::support::{Mesh, get, within};

#[tokio::test]
async fn a_call_that_runs_may_finish_and_nobody_else_gets_in() {
    let mut mesh = Mesh::start().await;
    let mut client = mesh.gateway.items();
    let call = tokio::spawn(async move { client.get_item(get(WAITS)).await });
    assert_eq!(within(mesh.script.next_event()).await, Event::Started, "it runs");
    let mut health = HealthClient::new(mesh.gateway.channel());
    let about = HealthCheckRequest { service: String::new() };
    let mut news = within(health.watch(about)).await.expect("the stream opens").into_inner();
    while within(news.message()).await.expect("no error").expect("no end").status()
        != ServingStatus::Serving
    {}

    mesh.gateway.shutdown.trigger();
    let told = within(news.message()).await.expect("no error").expect("no end");
    assert_eq!(told.status(), ServingStatus::NotServing, "callers are warned");
    let end = within(news.message()).await.expect("no error");
    assert_eq!(end, None, "and a watch does not hold up the stop");
    let refused = async {
        // The port closes a moment after the signal.
        loop {
            if let Err(status) = mesh.gateway.items().get_item(get("cat")).await {
                return status.code();
            }
        }
    };
    assert_eq!(within(refused).await, Code::Unavailable, "nobody else gets in");
    assert!(!call.is_finished(), "the call is still waited for");

    mesh.script.let_one_go_on();
    let answer = within(call).await.expect("no panic").expect("an answer");
    assert_eq!(answer.into_inner().item.expect("an item").id, WAITS, "whole");
    assert!(within(mesh.gateway.ended).await.expect("no panic"), "and the gateway ends well");
}
