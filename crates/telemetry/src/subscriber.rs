//! What becomes of spans and events: log lines, and spans of a trace.

use std::io::IsTerminal as _;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Level;
use tracing_subscriber::filter::{EnvFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt};

use crate::{Config, Error, LogFormat};

pub(crate) fn install(config: &Config, provider: &SdkTracerProvider) -> Result<(), Error> {
    let filter = EnvFilter::try_new(&config.log_filter)
        .map_err(|source| Error::Filter { filter: config.log_filter.clone(), source })?;
    let lines = match config.log_format {
        LogFormat::Text => {
            // Colours are for eyes; in a file they are noise.
            let is_terminal = std::io::stderr().is_terminal();
            fmt::layer().with_ansi(is_terminal).with_writer(std::io::stderr).boxed()
        }
        LogFormat::Json => {
            let lines = fmt::layer().json().flatten_event(true).with_span_list(false);
            lines.with_writer(std::io::stderr).boxed()
        }
    };
    // A filter of its own: a quiet log must not cut traces off.
    let spans = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("clipmesh"))
        .with_filter(Targets::new().with_targets([
            ("clipmesh_cli", Level::INFO),
            ("clipmesh_embedder", Level::INFO),
            ("clipmesh_gateway", Level::INFO),
            ("clipmesh_mesh", Level::INFO),
            ("clipmesh_search", Level::INFO),
        ]));
    tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .with(spans)
        .try_init()
        .map_err(|_| Error::Twice)
}
