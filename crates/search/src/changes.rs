//! Work that is done to its end.

use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::error::Error;

/// Takes on changes that must not stop half way because their callers go away, and knows which are
/// under way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes(TaskTracker);

impl Changes {
    /// Makes a change. Dropping the answer drops the waiting alone.
    pub(crate) async fn finish<T: Send + 'static>(
        &self,
        change: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let changed = self.0.spawn(change.in_current_span()).await;
        changed.unwrap_or_else(|_| Err(Error::Internal("a change ended in a panic".to_owned())))
    }

    /// Waits for all that are under way.
    pub(crate) async fn settle(&self) {
        self.0.close();
        self.0.wait().await;
    }
}
