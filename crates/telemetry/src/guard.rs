//! The end of telemetry.

use std::time::Duration;

use opentelemetry_sdk::trace::SdkTracerProvider;

/// How long the last spans may take to leave. A collector that is gone must not hold up a restart.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// Keeps telemetry running; [`Guard::shutdown`] flushes it.
#[derive(Debug)]
#[must_use = "spans are lost unless the guard is shut down"]
pub struct Guard {
    provider: SdkTracerProvider,
}

impl Guard {
    pub(crate) fn new(provider: SdkTracerProvider) -> Self {
        Self { provider }
    }

    /// Sends the spans that are still waiting, for at most three seconds.
    pub async fn shutdown(self) {
        // The exporter blocks its thread until the last batch is sent.
        let flushed =
            tokio::task::spawn_blocking(move || self.provider.shutdown_with_timeout(FLUSH_TIMEOUT))
                .await;
        match flushed {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the last spans were not sent"),
            Err(error) => tracing::warn!(%error, "flushing spans failed"),
        }
    }
}
