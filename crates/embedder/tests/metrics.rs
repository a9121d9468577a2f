//! What a scrape shows after real calls. Telemetry is set up once in a process, so that this test
//! has one of its own.
#![cfg(feature = "torch")]

use std::collections::BTreeSet;
use std::io::Cursor;

use clipmesh_embedder::model::Dtype;
use clipmesh_embedder::model::random::{self, Architecture};
use clipmesh_embedder::{App, Config};
use clipmesh_mesh::{Shutdown, client};
use clipmesh_proto::embedder::v1 as proto;
use clipmesh_proto::embedder::v1::Priority;
use clipmesh_proto::embedder::v1::embed_input::Content;
use clipmesh_proto::embedder::v1::embedder_service_client::EmbedderServiceClient;
use image::{ImageFormat, RgbImage};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// The table of every metric, for operators.
const DOCUMENT: &str = include_str!("../../../docs/operations/metrics.md");

fn picture() -> Content {
    let mut bytes = Cursor::new(Vec::new());
    RgbImage::new(40, 30).write_to(&mut bytes, ImageFormat::Png).expect("a PNG");
    Content::Image(bytes.into_inner().into())
}

fn request(content: Content, priority: Priority) -> proto::EmbedRequest {
    let inputs = vec![proto::EmbedInput { content: Some(content) }];
    proto::EmbedRequest { inputs, priority: priority.into(), ..proto::EmbedRequest::default() }
}

/// What Prometheus would read.
async fn scrape(address: std::net::SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    let request = b"GET /metrics HTTP/1.1\r\nhost: embedder\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("an answer");
    text
}

#[tokio::test]
async fn a_scrape_shows_every_stage_with_its_bounds_and_labels() {
    let telemetry = clipmesh_telemetry::Config {
        log_filter: "off".to_owned(),
        ..clipmesh_telemetry::Config::default()
    };
    let guard = clipmesh_telemetry::init("test", &telemetry).expect("the first in this process");
    let folder = tempfile::tempdir().expect("a folder");
    random::write(folder.path(), &Architecture::Tiny.config(), 1, Dtype::F32).expect("a model");
    let mut config =
        Config { model: folder.path().into(), compute_threads: 1, ..Config::default() };
    config.queue.max_inputs = 4;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let app = App::build(config, listener).await.expect("an embedder");
    let address = app.local_addr();
    let shutdown = Shutdown::new();
    let running = tokio::spawn(app.run(shutdown.clone()));
    let channel = client::channel(&format!("http://{address}"), &client::Config::default());
    let mut client = EmbedderServiceClient::new(channel.expect("an address"));

    for priority in [Priority::Interactive, Priority::Bulk] {
        client.embed(request(picture(), priority)).await.expect("an answer");
        let text = Content::Text("a cat".to_owned());
        client.embed(request(text, priority)).await.expect("an answer");
    }
    let garbage = Content::Image((&b"no image"[..]).into());
    client.embed(request(garbage, Priority::Interactive)).await.expect("an answer");
    let mut many = request(picture(), Priority::Bulk);
    many.inputs = vec![many.inputs[0].clone(); 5];
    client.embed(many).await.expect_err("more than the queue holds");

    let text = scrape(address).await;
    let mut expected = Vec::new();
    for kind in ["image", "text"] {
        for stage in ["preprocess", "preprocess_wait", "compute"] {
            let name = format!("clipmesh_embedder_{stage}_seconds_bucket");
            for bound in ["0.001", "0.05", "1", "10", "+Inf"] {
                expected.push(format!("{name}{{kind=\"{kind}\",le=\"{bound}\"}}"));
            }
        }
        for bound in ["1", "2", "4", "256", "+Inf"] {
            let name = "clipmesh_embedder_batch_inputs_bucket";
            expected.push(format!("{name}{{kind=\"{kind}\",le=\"{bound}\"}}"));
        }
        expected.push(format!("clipmesh_embedder_embedded_total{{kind=\"{kind}\"}}"));
    }
    for lane in ["interactive", "bulk"] {
        expected.push(format!("clipmesh_embedder_queue_inputs{{lane=\"{lane}\"}}"));
        let name = "clipmesh_embedder_queue_wait_seconds_bucket";
        expected.push(format!("{name}{{lane=\"{lane}\",le=\"0.001\"}}"));
    }
    expected.push("clipmesh_embedder_refused_total{lane=\"bulk\"} 1".to_owned());
    expected.push("clipmesh_embedder_faults_total{reason=\"NOT_AN_IMAGE\"} 1".to_owned());
    expected.push("process_resident_memory_bytes".to_owned());
    for line in expected {
        assert!(text.lines().any(|found| found.starts_with(&line)), "`{line}` is not in:\n{text}");
    }
    assert!(!text.contains("quantile="), "every histogram has bounds:\n{text}");

    let names: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    for name in names {
        assert!(DOCUMENT.contains(&format!("`{name}`")), "`{name}` is not in the table of metrics");
    }
    shutdown.trigger();
    running.await.expect("no panic").expect("an ordered end");
    guard.shutdown().await;
}
