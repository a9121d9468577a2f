//! Logs, traces and metrics of every clipmesh process.
//!
//! [`init`] sets up all three and returns a [`Guard`] that flushes them at the end. Traces always
//! exist, so that a trace id joins the logs of the three services; they are exported only where an
//! OTLP endpoint is configured. Metrics are kept in process and rendered by [`metrics_text`].
//!
//! It decides no names of spans or metrics for its users except those that several crates share,
//! which are in [`semconv`].

mod buckets;
mod config;
mod guard;
mod otlp;
mod process;
pub mod propagation;
pub mod semconv;
mod subscriber;

use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

pub use config::{Config, LogFormat};
pub use guard::Guard;

const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

static METRICS: OnceLock<PrometheusHandle> = OnceLock::new();

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("log filter `{filter}` is not understood: {source}")]
    Filter { filter: String, source: tracing_subscriber::filter::ParseError },
    #[error("the OTLP endpoint `{endpoint}` can't be used: {source}")]
    Otlp { endpoint: String, source: opentelemetry_otlp::ExporterBuildError },
    #[error("telemetry was already set up in this process")]
    Twice,
    #[error("start the upkeep of metrics: {0}")]
    Upkeep(std::io::Error),
    #[error("set up metrics: {0}")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
}

/// Sets up logging, tracing and metrics for this process. `service_name` becomes the
/// `service.name` of its traces.
///
/// # Errors
/// A filter or an endpoint that can't be used, or a second call.
pub fn init(service_name: &'static str, config: &Config) -> Result<Guard, Error> {
    let recorder = buckets::choose(PrometheusBuilder::new())?.install_recorder()?;
    METRICS.set(recorder).map_err(|_| Error::Twice)?;
    keep_up()?;
    let provider = otlp::provider(service_name, config.otlp_endpoint.as_deref())?;
    subscriber::install(config, &provider)?;
    Ok(Guard::new(provider))
}

/// Folds the samples of histograms together every few seconds. Only a scrape would do it otherwise,
/// and where nobody scrapes, they would pile up for ever.
fn keep_up() -> Result<(), Error> {
    let run = || {
        loop {
            std::thread::sleep(UPKEEP_INTERVAL);
            if let Some(recorder) = METRICS.get() {
                recorder.run_upkeep();
            }
        }
    };
    // Ends with the process.
    let thread = std::thread::Builder::new().name("metrics-upkeep".to_owned());
    thread.spawn(run).map(drop).map_err(Error::Upkeep)
}

/// Every metric of this process in Prometheus' text format; empty before [`init`].
pub fn metrics_text() -> String {
    process::measure();
    METRICS.get().map(PrometheusHandle::render).unwrap_or_default()
}
