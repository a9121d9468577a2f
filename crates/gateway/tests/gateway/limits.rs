//! Messages that are too long.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use bytes::Bytes;
use clipmesh_proto::search::v1::{IndexItemRequest, NewItem};
use futures::StreamExt as _;
use http::Request;
use prost::Message as _;
use tonic::{Code, Status};

use crate::fakes::Event;
use crate::support::{LIMIT, Mesh, picture, within};
use crate::web::{frame, grpc_web};

const INDEX_ITEM: &str = "/clipmesh.search.v1.ItemService/IndexItem";

fn index(len: usize) -> IndexItemRequest {
    let item = NewItem { image: vec![0xff; len].into(), ..Default::default() };
    IndexItemRequest { item: Some(item), ..Default::default() }
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused_before_it_travels_on() {
    let mesh = Mesh::start().await;
    let within_limit = index(LIMIT - 100);
    within(mesh.gateway.items().index_item(within_limit)).await.expect("just short enough");
    assert_eq!(mesh.script.calls(), 1, "it arrived");

    let too_long = index(LIMIT + 1);
    let refused =
        within(mesh.gateway.items().index_item(too_long.clone())).await.expect_err("too long");
    let (len, limit) = (too_long.encoded_len().to_string(), LIMIT.to_string());
    assert!(refused.message().contains(&len), "it names the length: {}", refused.message());
    assert!(refused.message().contains(&limit), "and the limit: {}", refused.message());
    assert_eq!(mesh.script.calls(), 1, "the service saw nothing of it");

    let direct = within(mesh.search.items().index_item(too_long)).await.expect_err("too long");
    assert_eq!(refused.code(), direct.code(), "as from the service itself");
}

#[tokio::test]
async fn a_message_far_over_the_limit_is_refused_too() {
    let mesh = Mesh::start().await;
    let refused =
        within(mesh.gateway.items().index_item(index(64 * LIMIT))).await.expect_err("too long");
    assert_eq!(refused.code(), Code::OutOfRange, "though most of it was never sent");
}

#[tokio::test]
async fn a_stream_ends_at_the_message_over_the_limit() {
    let mut mesh = Mesh::start().await;
    let messages = [picture(1, 10), picture(2, 10), picture(3, LIMIT + 1), picture(4, 10)];
    let mut client = mesh.gateway.items();
    // The caller would go on sending: what ends the call is the refusal.
    let messages = futures::stream::iter(messages).chain(futures::stream::pending());
    let answer = within(client.index_items(messages)).await;
    // The refusal may be known before the first acknowledgement is.
    let status: Status = match answer {
        Err(status) => status,
        Ok(answer) => {
            let mut acknowledgements = answer.into_inner();
            loop {
                match within(acknowledgements.message()).await {
                    Ok(Some(acknowledged)) => assert!(acknowledged.key < 3, "none after it"),
                    Ok(None) => panic!("the stream must not end well"),
                    Err(status) => break status,
                }
            }
        }
    };
    assert_eq!(status.code(), Code::OutOfRange, "the caller learns why");
    if mesh.script.calls() > 0 {
        assert_eq!(within(mesh.script.next_event()).await, Event::Started, "it had begun");
        assert_eq!(within(mesh.script.next_event()).await, Event::Cancelled, "it is over");
    }
}

#[tokio::test]
async fn a_browser_is_refused_too() {
    let mesh = Mesh::start().await;
    for len in [LIMIT + 1, 64 * LIMIT] {
        let body = frame(&index(len));
        let answer = grpc_web(&mesh.gateway, Request::post(INDEX_ITEM), body).await;
        assert_eq!(answer.code(), Code::OutOfRange, "over HTTP/1.1 with {len} bytes too");
    }
    assert_eq!(mesh.script.calls(), 0, "the service saw nothing of it");
}

#[tokio::test]
async fn a_caller_who_reads_only_after_sending_everything_gets_the_answer() {
    let mesh = Mesh::start().await;
    let address = mesh.gateway.address;
    // Far more than the sockets between them hold.
    let body = frame(&index(512 * LIMIT));
    let head = format!(
        "POST {INDEX_ITEM} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
         content-type: application/grpc-web+proto\r\ncontent-length: {}\r\n\r\n",
        body.len(),
    );
    let talk = tokio::task::spawn_blocking(move || {
        let mut socket = TcpStream::connect(address)?;
        socket.write_all(head.as_bytes())?;
        socket.write_all(&body)?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        std::io::Result::Ok(answer)
    });
    let answer = within(talk).await.expect("no panic").expect("the connection stays whole");
    assert!(answer.contains("grpc-status: 11\r\n"), "OUT_OF_RANGE in {answer}");
}

#[tokio::test]
async fn a_length_that_no_message_has_is_refused_by_its_prefix_alone() {
    let mesh = Mesh::start().await;
    let prefix_only = Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff]);
    let answer = grpc_web(&mesh.gateway, Request::post(INDEX_ITEM), prefix_only).await;
    assert_eq!(answer.code(), Code::OutOfRange, "4 GiB are promised");
}
