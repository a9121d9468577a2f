//! One signal to stop, for every part of a process.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The exit code after a second signal: 128 and SIGINT's number, as shells have it.
const EXIT_IMPATIENT: i32 = 130;

/// Tells that the process is to stop. Clones tell of one request.
#[derive(Clone, Debug, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    pub fn new() -> Self {
        Self::default()
    }

    /// Stops at the first SIGTERM or SIGINT. A second one ends the process at once, for an
    /// operator who will not wait for the drain.
    ///
    /// # Errors
    /// When the signal handlers can't be installed.
    pub fn on_signals() -> std::io::Result<Self> {
        let shutdown = Self::new();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let first = shutdown.clone();
        // Lives as long as the process: the second signal may come at any time.
        tokio::spawn(async move {
            for is_first in [true, false] {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                if is_first {
                    tracing::info!("stopping; a second signal stops at once");
                    first.trigger();
                }
            }
            std::process::exit(EXIT_IMPATIENT);
        });
        Ok(shutdown)
    }

    /// Asks everything to stop. Asking twice is the same as asking once.
    pub fn trigger(&self) {
        self.0.cancel();
    }

    /// Waits until someone asks to stop.
    pub async fn requested(&self) {
        self.0.cancelled().await;
    }

    pub fn is_requested(&self) -> bool {
        self.0.is_cancelled()
    }
}
