//! Callers that ask again as soon as they are answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::report::{line, ms, quantile};

/// How long answers took, in order.
#[derive(Clone, Debug)]
pub(crate) struct Latencies {
    sorted: Vec<Duration>,
    per_second: f64,
}

impl Latencies {
    pub(crate) fn of(mut times: Vec<Duration>, took: Duration) -> Self {
        times.sort();
        let per_second = times.len() as f64 / took.as_secs_f64();
        Self { sorted: times, per_second }
    }

    pub(crate) fn p50(&self) -> Duration {
        quantile(&self.sorted, 0.5)
    }

    pub(crate) fn p99(&self) -> Duration {
        quantile(&self.sorted, 0.99)
    }

    pub(crate) fn print(&self, what: &str) {
        let (p50, p99, qps) = (ms(self.p50()), ms(self.p99()), self.per_second);
        line(format_args!("{what}: p50_ms={p50:.2} p99_ms={p99:.2} qps={qps:.0}"));
    }
}

/// Asks for a while from several callers at once; `ask` is given the number of the question.
pub(crate) async fn run<F>(
    callers: usize,
    duration: Duration,
    ask: impl Fn(usize) -> F + Clone + Send + 'static,
) -> anyhow::Result<Latencies>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let next = Arc::new(AtomicUsize::new(0));
    let start = Instant::now();
    let mut running = JoinSet::new();
    for _ in 0..callers {
        let (next, ask) = (Arc::clone(&next), ask.clone());
        running.spawn(async move {
            let mut times = Vec::new();
            while start.elapsed() < duration {
                let asked = Instant::now();
                ask(next.fetch_add(1, Ordering::Relaxed)).await?;
                times.push(asked.elapsed());
            }
            anyhow::Ok(times)
        });
    }
    let mut times = Vec::new();
    for caller in running.join_all().await {
        times.extend(caller?);
    }
    Ok(Latencies::of(times, start.elapsed()))
}
