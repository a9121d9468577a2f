//! What gateway and search add to the store, over real sockets and between real processes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clipmesh_e2e::clients::{Clients, query, vector};
use clipmesh_e2e::sandbox::{Sandbox, Service};
use clipmesh_proto::search::v1;
use futures::StreamExt as _;
use tokio::time::Instant;

use crate::load::{self, Latencies};
use crate::recipe::Drawn;
use crate::report::{line, ms};
use crate::store::{self, COLLECTION, Subject};

const WARM_UP: Duration = Duration::from_secs(1);
/// Items that are indexed through the service.
const INDEXED: usize = 20_000;

pub(crate) async fn measure(
    folder: &Path,
    qdrant_url: Option<&str>,
    subject: &Subject,
    duration: Duration,
) -> anyhow::Result<()> {
    let mut builder = Sandbox::builder()
        .data(folder.to_owned())
        // What the caches give is measured elsewhere.
        .setting(Service::Search, "cache.kind", "off");
    if let Some(url) = qdrant_url {
        let settings =
            [("kind", "qdrant"), ("qdrant.url", url), ("qdrant.prefix", &store::prefix())];
        for (key, value) in settings {
            builder = builder.setting(Service::Search, &format!("store.{key}"), value);
        }
    }
    let sandbox = builder.start().await?;
    let clients = sandbox.clients()?;
    load::run(1, WARM_UP, asking(clients.clone(), subject)).await?;
    let calm = over_store(clients.clone(), subject, duration).await?;
    for callers in [8, 64] {
        let through = load::run(callers, duration, asking(clients.clone(), subject)).await?;
        through.print(&format!("{callers} callers through the gateway"));
    }
    indexing(clients, subject, &calm, duration).await
}

/// One caller: the whole call, and the store's part of the same calls.
async fn over_store(
    mut clients: Clients,
    subject: &Subject,
    duration: Duration,
) -> anyhow::Result<Latencies> {
    let (mut whole, mut store) = (Vec::new(), Vec::new());
    let start = Instant::now();
    while start.elapsed() < duration {
        let number = whole.len() % subject.queries.len();
        let request = request(subject, number);
        let asked = Instant::now();
        let answer = clients.search.search(request).await?.into_inner();
        whole.push(asked.elapsed());
        let timing = answer.timing.unwrap_or_default();
        store.push(Duration::from_secs_f64(timing.store_ms / 1e3));
    }
    let took = start.elapsed();
    let (whole, store) = (Latencies::of(whole, took), Latencies::of(store, took));
    whole.print("one caller through the gateway");
    let added = (ms(whole.p50()) - ms(store.p50())) * 1e3;
    let store = ms(store.p50());
    line(format_args!(
        "service_over_store={added:.0} (µs at the median, beyond the store's own {store:.2} ms; \
         goal: under 1000)"
    ));
    Ok(whole)
}

/// What a caller who searches notices while another one indexes, and how fast indexing is alone.
async fn indexing(
    clients: Clients,
    subject: &Subject,
    calm: &Latencies,
    duration: Duration,
) -> anyhow::Result<()> {
    let vectors = Arc::new(subject.source.vectors(INDEXED, 4));
    let start = Instant::now();
    let (busy, rate) = tokio::try_join!(
        load::run(1, duration, asking(clients.clone(), subject)),
        index(clients.clone(), &vectors, "beside", move |_| start.elapsed() < duration),
    )?;
    line(format_args!(
        "while {rate:.0} items a second are indexed: p99_over_calm={:.2} p50_over_calm={:.2}",
        ms(busy.p99()) / ms(calm.p99()),
        ms(busy.p50()) / ms(calm.p50())
    ));
    let rate = index(clients, &vectors, "alone", |number| number < INDEXED).await?;
    line(format_args!("index_rate={rate:.0} (durable items a second, one stream)"));
    Ok(())
}

/// Sends ready vectors of new items through one stream while it `goes_on`. How many a second were
/// acknowledged, which is once they are durable.
async fn index(
    mut clients: Clients,
    vectors: &Arc<Vec<Drawn>>,
    prefix: &'static str,
    goes_on: impl Fn(usize) -> bool + Send + 'static,
) -> anyhow::Result<f64> {
    let vectors = Arc::clone(vectors);
    let requests = (0..).take_while(move |number| goes_on(*number)).map(move |number| {
        let values = vectors[number % vectors.len()].vector.values().to_vec();
        let vector = v1::VectorQuery { values, ..v1::VectorQuery::default() };
        let id = format!("{prefix}-{number}");
        let item = v1::NewItem { id, vector: Some(vector), ..v1::NewItem::default() };
        let collection = COLLECTION.to_owned();
        v1::IndexItemsRequest { collection, key: number as u64, item: Some(item) }
    });
    let start = Instant::now();
    let mut answers = clients.index_stream(futures::stream::iter(requests)).await?;
    let mut acknowledged = 0;
    while let Some(answer) = answers.next().await {
        clipmesh_e2e::clients::acknowledged(answer?).1?;
        acknowledged += 1;
    }
    Ok(f64::from(acknowledged) / start.elapsed().as_secs_f64())
}

fn asking(
    clients: Clients,
    subject: &Subject,
) -> impl Fn(usize) -> futures::future::BoxFuture<'static, anyhow::Result<()>> + Clone + Send + 'static
{
    let queries = Arc::clone(&subject.queries);
    move |number| {
        let mut clients = clients.clone();
        let values = queries[number % queries.len()].values().to_vec();
        Box::pin(async move {
            clients.search.search(query(COLLECTION, vector(values))).await?;
            Ok(())
        })
    }
}

fn request(subject: &Subject, number: usize) -> v1::SearchRequest {
    query(COLLECTION, vector(subject.queries[number].values().to_vec()))
}
