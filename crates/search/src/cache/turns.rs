//! Whose turn it is to make a vector: the driver of [`Patience`].

use std::time::Duration;

use clipmesh_mesh::deadline;
use tokio::time::Instant;

use super::key::Key;
use super::lease::Patience;
use super::writer::Writer;
use super::{Caches, Known, Leases};
use crate::metrics;

/// What to do about a vector that is not in the cache.
#[derive(Debug)]
pub(crate) enum Turn {
    /// Make it. The turn is over when this is dropped; keep the vector before.
    Mine(Option<Lease>),
    /// Another replica made it meanwhile.
    Made(Known),
}

/// The right to make a vector, which ends when it is dropped, or with its time.
#[derive(Debug)]
pub(crate) struct Lease {
    writer: Writer,
    key: Key,
    token: u64,
    /// Whether there may be something to end.
    is_held: bool,
}

impl Caches {
    /// Waits while another replica makes the vector that belongs under a key. Without one, or
    /// without a way to know, it is the caller's own turn at once.
    pub(crate) async fn turn(&self, key: Key) -> Turn {
        let cache = self.0.cache.as_deref();
        let (Some(leases), Some(writer)) = (cache.and_then(|cache| cache.shared()), &self.0.writer)
        else {
            return Turn::Mine(None);
        };
        let time = self.0.config.redis.lease;
        let mut patience = Patience::new(Instant::now(), time, deadline::remaining());
        while let Some(is_taken) = self.take(leases, writer, key, time).await {
            if let Some(lease) = is_taken {
                metrics::embedding_leased("taken");
                return Turn::Mine(Some(lease));
            }
            match self.wait(key, &mut patience).await {
                Waited::Made(known) => {
                    metrics::embedding_leased("awaited");
                    return Turn::Made(known);
                }
                Waited::Free => {}
                Waited::Enough => {
                    metrics::embedding_leased("impatient");
                    return Turn::Mine(None);
                }
            }
        }
        Turn::Mine(None)
    }

    /// Tries to take the lease: `Some(None)` while another has it, `None` when nobody can tell.
    async fn take(
        &self,
        leases: &dyn Leases,
        writer: &Writer,
        key: Key,
        time: Duration,
    ) -> Option<Option<Lease>> {
        let token = rand::random();
        let key = key.lease();
        // Made before it is asked for: if the caller leaves in between, it is ended all the same.
        let mut lease = Lease { writer: writer.clone(), key, token, is_held: true };
        lease.is_held = leases.lease(key, token, time).await.ok()?;
        Some(lease.is_held.then_some(lease))
    }

    /// Waits until the value is there, or nobody makes it any more.
    async fn wait(&self, key: Key, patience: &mut Patience) -> Waited {
        while let Some(pause) = patience.pause(Instant::now()) {
            tokio::time::sleep(pause).await;
            let Ok(values) = self.fetch(vec![key, key.lease()]).await else {
                return Waited::Enough;
            };
            let [value, lease] = values.try_into().unwrap_or_default();
            if let Some(known) = value.and_then(Known::decode) {
                return Waited::Made(known.value);
            }
            if lease.is_none() {
                return Waited::Free;
            }
        }
        Waited::Enough
    }
}

/// How waiting ended.
enum Waited {
    Made(Known),
    Free,
    Enough,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.is_held {
            self.writer.release(self.key, self.token);
        }
    }
}
