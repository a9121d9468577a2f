//! Callers of a running embedder.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use clipmesh_proto::embedder::v1::embed_result::Outcome;
use clipmesh_proto::embedder::v1::{
    EmbedInput, EmbedStreamRequest, EmbedTiming, Priority, VectorEncoding,
};
use futures::StreamExt as _;
use futures::stream;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::requests;
use crate::server::{Client, Server};

/// Callers that share a connection.
const CALLERS_PER_CONNECTION: usize = 16;

/// What callers saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// When each answer came, counted from the beginning.
    pub(crate) answered: Vec<Duration>,
    /// How long each call took.
    pub(crate) latencies: Vec<Duration>,
    /// Inputs per limiting stage, by its name.
    pub(crate) limited_by: BTreeMap<&'static str, usize>,
    /// Sizes of the batches, summed.
    pub(crate) batch_sizes: usize,
}

/// Two streams that are never without work.
pub(crate) struct Bulk {
    streams: JoinSet<anyhow::Result<()>>,
    end: CancellationToken,
    compute: Arc<Mutex<Vec<Duration>>>,
}

/// Sends one input at a time, over and over.
pub(crate) async fn closed_loop(
    server: &Server,
    callers: usize,
    inputs: &Arc<[EmbedInput]>,
    lasting: Duration,
) -> anyhow::Result<Seen> {
    let began = Instant::now();
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    let mut client = server.connect()?;
    for caller in 0..callers {
        if caller % CALLERS_PER_CONNECTION == 0 {
            client = server.connect()?;
        }
        let (mut client, inputs, next) = (client.clone(), Arc::clone(inputs), Arc::clone(&next));
        tasks.spawn(async move {
            let mut seen = Seen::default();
            while began.elapsed() < lasting {
                let index = next.fetch_add(1, Ordering::Relaxed) % inputs.len();
                let sent_at = Instant::now();
                let timing = call(&mut client, inputs[index].clone()).await?;
                seen.note(&timing, sent_at.elapsed(), began.elapsed());
            }
            Ok::<_, anyhow::Error>(seen)
        });
    }
    let mut all = Seen::default();
    while let Some(seen) = tasks.join_next().await {
        all.append(seen.context("a caller's task")??);
    }
    Ok(all)
}

/// So many calls, one after the other.
pub(crate) async fn one_by_one(
    client: &mut Client,
    files: &[Bytes],
    count: usize,
) -> anyhow::Result<Vec<Duration>> {
    let mut latencies = Vec::with_capacity(count);
    for file in files.iter().cycle().take(count) {
        let sent_at = Instant::now();
        call(client, requests::image(file)).await?;
        latencies.push(sent_at.elapsed());
    }
    Ok(latencies)
}

async fn call(client: &mut Client, input: EmbedInput) -> anyhow::Result<EmbedTiming> {
    let answer = client.embed(requests::single(input, Priority::Interactive)).await?;
    let result = answer.into_inner().results.pop().context("a result")?;
    anyhow::ensure!(matches!(result.outcome, Some(Outcome::Embedding(_))), "no vector: {result:?}");
    result.timing.context("a timing")
}

impl Seen {
    fn note(&mut self, timing: &EmbedTiming, latency: Duration, at: Duration) {
        self.answered.push(at);
        self.latencies.push(latency);
        *self.limited_by.entry(timing.limited_by().as_str_name()).or_default() += 1;
        self.batch_sizes += timing.batch_size as usize;
    }

    fn append(&mut self, mut other: Self) {
        self.answered.append(&mut other.answered);
        self.latencies.append(&mut other.latencies);
        for (stage, count) in other.limited_by {
            *self.limited_by.entry(stage).or_default() += count;
        }
        self.batch_sizes += other.batch_sizes;
    }

    /// The batch that an average input was in.
    pub(crate) fn mean_batch(&self) -> f64 {
        self.batch_sizes as f64 / self.latencies.len() as f64
    }

    /// The stage that limited most inputs, and their share.
    pub(crate) fn limit(&self) -> (&'static str, f64) {
        let most = self.limited_by.iter().max_by_key(|(_, count)| **count);
        let (stage, count) = most.map_or(("none", 0), |(stage, count)| (*stage, *count));
        (stage.trim_start_matches("STAGE_"), count as f64 / self.latencies.len() as f64)
    }
}

impl Bulk {
    /// Starts both and waits until they are answered.
    pub(crate) async fn start(server: &Server, files: &Arc<[Bytes]>) -> anyhow::Result<Self> {
        let compute = Arc::new(Mutex::new(Vec::new()));
        let end = CancellationToken::new();
        let mut streams = JoinSet::new();
        for offset in [0, files.len() / 2] {
            let (client, files) = (server.connect()?, Arc::clone(files));
            let compute = Arc::clone(&compute);
            streams.spawn(stream_until(end.clone(), client, files, offset, compute));
        }
        while compute.lock().await.len() < 2 * files.len().min(64) {
            if let Some(ended) = streams.try_join_next() {
                ended.context("a stream's task")??;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(Self { streams, end, compute })
    }

    /// Ends both, and tells the forward passes of their inputs. What is under way is answered
    /// before, so that the server has nothing left to do: a client that only drops its end goes on
    /// sending, and the server goes on answering.
    pub(crate) async fn stop(mut self) -> anyhow::Result<Vec<Duration>> {
        self.end.cancel();
        while let Some(ended) = self.streams.join_next().await {
            ended.context("a stream's task")??;
        }
        Ok(std::mem::take(&mut *self.compute.lock().await))
    }
}

async fn stream_until(
    end: CancellationToken,
    mut client: Client,
    files: Arc<[Bytes]>,
    offset: usize,
    compute: Arc<Mutex<Vec<Duration>>>,
) -> anyhow::Result<()> {
    let requests = stream::iter(offset as u64..).map(move |key| EmbedStreamRequest {
        key,
        input: Some(requests::image(&files[key as usize % files.len()])),
        encoding: VectorEncoding::RawF32.into(),
        ..EmbedStreamRequest::default()
    });
    let requests = requests.take_until(end.clone().cancelled_owned());
    let mut answers = client.embed_stream(requests).await?.into_inner();
    while let Some(answer) = answers.next().await {
        let timing = answer?.result.and_then(|result| result.timing).context("a timing")?;
        compute.lock().await.push(Duration::try_from_secs_f64(timing.compute_ms / 1e3)?);
    }
    anyhow::ensure!(end.is_cancelled(), "a stream ended before it was to");
    Ok(())
}
