//! Streams in both directions at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clipmesh_proto::embedder::v1::EmbedStreamRequest;
use clipmesh_proto::embedder::v1::embedder_service_client::EmbedderServiceClient;
use clipmesh_proto::search::v1::IndexItemsRequest;
use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::fakes::{Event, STALLED};
use crate::support::{ANY, Mesh, config, picture, start_embedder, start_gateway, within};

#[tokio::test]
async fn acknowledgements_come_back_while_items_are_still_sent() {
    let mut mesh = Mesh::start().await;
    let (sender, requests) = mpsc::channel(1);
    let call = mesh.gateway.items();
    let mut acknowledgements = within(open(call, requests)).await;
    for key in 0..20 {
        within(sender.send(picture(key, 1000))).await.expect("the stream is open");
        let acknowledged = within(acknowledgements.next()).await.expect("not the end");
        assert_eq!(acknowledged.expect("no error").key, key, "each before the next is sent");
    }
    drop(sender);
    assert!(within(acknowledgements.next()).await.is_none(), "the end of one is that of the other");
    assert_eq!(mesh.script.next_event().await, Event::Started, "one call");
    assert_eq!(mesh.script.next_event().await, Event::Finished, "that ended as it should");
}

#[tokio::test]
async fn a_stalled_upstream_stalls_the_caller() {
    // 64 MiB: far more than the windows of two connections.
    const MESSAGES: usize = 2000;
    const LEN: usize = 32 << 10;
    let mesh = Mesh::start().await;
    let pulled = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&pulled);
    let messages = futures::stream::iter((0..MESSAGES).map(move |key| {
        counter.fetch_add(1, Ordering::Relaxed);
        let collection = if key == 0 { STALLED } else { "" };
        let key = u64::try_from(key).expect("a small number");
        IndexItemsRequest { collection: collection.to_owned(), ..picture(key, LEN) }
    }));
    let mut client = mesh.gateway.items();
    let answer = within(client.index_items(messages)).await.expect("the stream opens");
    let mut acknowledgements = answer.into_inner();
    let first = tokio::time::timeout(Duration::from_millis(500), acknowledgements.next()).await;
    assert!(first.is_err(), "the upstream reads nothing yet");
    let taken = pulled.load(Ordering::Relaxed);
    assert!(taken < MESSAGES / 2, "the caller was held back, but {taken} messages were taken");

    mesh.script.let_one_go_on();
    let mut received = 0;
    while let Some(acknowledged) = within(acknowledgements.next()).await {
        acknowledged.expect("no error");
        received += 1;
    }
    assert_eq!(received, MESSAGES, "and nothing was lost");
}

#[tokio::test]
async fn the_embedder_s_stream_goes_through_as_well() {
    let embedder = start_embedder(ANY).await;
    let config = clipmesh_gateway::Config { embedder_url: embedder.url(), ..config() };
    let gateway = start_gateway(config).await;
    let mut client = EmbedderServiceClient::new(gateway.channel());
    let keys = [7, 5, u64::MAX];
    let requests = keys.map(|key| EmbedStreamRequest { key, ..EmbedStreamRequest::default() });
    let answers = within(client.embed_stream(futures::stream::iter(requests))).await;
    let answers = answers.expect("the stream opens").into_inner();
    let answered = answers.map(|answer| answer.expect("no error").key).collect::<Vec<_>>();
    assert_eq!(within(answered).await, keys, "each comes back, and the end does");
}

/// Opens the stream of acknowledgements.
async fn open(
    mut client: clipmesh_proto::search::v1::item_service_client::ItemServiceClient<
        tonic::transport::Channel,
    >,
    requests: mpsc::Receiver<IndexItemsRequest>,
) -> tonic::Streaming<clipmesh_proto::search::v1::IndexItemsResponse> {
    client.index_items(ReceiverStream::new(requests)).await.expect("the stream opens").into_inner()
}
