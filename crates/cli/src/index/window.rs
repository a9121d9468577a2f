//! Which pictures are on their way: the policy of the upload, without network or clock.
//!
//! ```text
//!             admit            next_ready             settle: stored, or refused for good
//!   picture ─────────► Ready ─────────────► Sent ────────────────────────────────────────► out
//!                        ▲                   │ │
//!                        │  rewind (broken)  │ │ settle: busy, try later
//!                        ├───────────────────┘ ▼
//!                        └─────────────── Waiting(until)
//! ```
//!
//! A picture stays here, bytes and all, until its acknowledgement is there, so that whatever was
//! not acknowledged can be sent again. The window is bounded in pictures and in bytes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clipmesh_proto::code;
use clipmesh_proto::ids::ContentHash;
use clipmesh_proto::search::v1::IndexOutcome;
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::error::item_reason;

/// How often one picture is offered to a busy mesh before it counts as failed.
const MAX_ATTEMPTS: u32 = 12;

/// Shortest wait after a first "busy"; doubles up to the longest.
const FIRST_BACKOFF: Duration = Duration::from_millis(250);
const LONGEST_BACKOFF: Duration = Duration::from_secs(8);

/// A picture to be stored.
#[derive(Clone, Debug)]
pub(crate) struct Picture {
    pub(crate) path: PathBuf,
    pub(crate) hash: ContentHash,
    pub(crate) image: bytes::Bytes,
}

/// How much may be on its way at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) max_pictures: usize,
    pub(crate) max_bytes: ByteSize,
}

/// What became of a picture.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    Indexed(PathBuf),
    Replaced(PathBuf),
    Unchanged(PathBuf),
    Failed(PathBuf, String),
}

#[derive(Debug)]
pub(crate) struct Window {
    bounds: Bounds,
    /// In order of key, which is the order of admission.
    entries: BTreeMap<u64, Entry>,
    next_key: u64,
    bytes: u64,
    settled: u64,
}

#[derive(Debug)]
struct Entry {
    picture: Picture,
    state: State,
    attempts: u32,
    /// Whether it was sent over a connection that broke, and may have been stored unheard.
    is_resent: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ready,
    Sent,
    Waiting { until: Instant },
}

// === impl Window ===

impl Window {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, entries: BTreeMap::new(), next_key: 0, bytes: 0, settled: 0 }
    }

    /// Whether one more picture may be admitted. One always may, however large.
    pub(crate) fn has_room(&self) -> bool {
        let fits = self.entries.len() < self.bounds.max_pictures;
        self.entries.is_empty() || fits && self.bytes < self.bounds.max_bytes.as_u64()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many pictures have left the window.
    pub(crate) fn settled_count(&self) -> u64 {
        self.settled
    }

    /// Whether an acknowledgement is due.
    pub(crate) fn is_awaiting(&self) -> bool {
        self.entries.values().any(|entry| entry.state == State::Sent)
    }

    pub(crate) fn admit(&mut self, picture: Picture) {
        self.bytes += picture.image.len() as u64;
        let entry = Entry { picture, state: State::Ready, attempts: 0, is_resent: false };
        self.entries.insert(self.next_key, entry);
        self.next_key += 1;
    }

    /// Whether there is something to send now.
    pub(crate) fn is_ready(&self, now: Instant) -> bool {
        self.entries.values().any(|entry| entry.state.is_ready(now))
    }

    /// The next picture to send, which counts as sent.
    pub(crate) fn next_ready(&mut self, now: Instant) -> Option<(u64, Picture)> {
        let (key, entry) = self.entries.iter_mut().find(|(_, entry)| entry.state.is_ready(now))?;
        entry.state = State::Sent;
        entry.attempts += 1;
        Some((*key, entry.picture.clone()))
    }

    /// When the next picture that waits may be sent again.
    pub(crate) fn wake(&self) -> Option<Instant> {
        let waiting = self.entries.values().filter_map(|entry| match entry.state {
            State::Waiting { until } => Some(until),
            State::Ready | State::Sent => None,
        });
        waiting.min()
    }

    /// Takes an acknowledgement. `None` if the picture is to be sent again, or was never sent.
    pub(crate) fn settle(
        &mut self,
        key: u64,
        answer: Result<IndexOutcome, Status>,
        now: Instant,
    ) -> Option<Settled> {
        let entry = self.entries.get_mut(&key).filter(|entry| entry.state == State::Sent)?;
        let outcome = match answer {
            Ok(outcome) => outcome,
            Err(status) if is_temporary(&status) && entry.attempts < MAX_ATTEMPTS => {
                // No sooner than it asks, and ever later: a minute in all, in which a queue empties
                // or an embedder is restarted.
                let patience = backoff(entry.attempts - 1);
                let delay = code::retry_after(&status).unwrap_or_default().max(patience);
                entry.state = State::Waiting { until: now + delay };
                return None;
            }
            Err(status) => return self.take(key).map(|entry| entry.failed(&status)),
        };
        let entry = self.take(key)?;
        let path = entry.picture.path;
        Some(match outcome {
            // What was stored over the broken connection was stored by us.
            IndexOutcome::Unchanged if entry.is_resent => Settled::Indexed(path),
            IndexOutcome::Created | IndexOutcome::Unspecified => Settled::Indexed(path),
            IndexOutcome::Replaced => Settled::Replaced(path),
            IndexOutcome::Unchanged => Settled::Unchanged(path),
        })
    }

    /// The connection broke: all that was not acknowledged is to be sent again.
    pub(crate) fn rewind(&mut self) {
        for entry in self.entries.values_mut().filter(|entry| entry.state == State::Sent) {
            entry.state = State::Ready;
            entry.is_resent = true;
            // It is the connection that failed, not the picture.
            entry.attempts -= 1;
        }
    }

    /// The server ended the stream over a message that was too long for it. It does not say which,
    /// but if any was, the longest was.
    pub(crate) fn drop_longest(&mut self, status: &Status) -> Option<Settled> {
        let sent = self.entries.iter().filter(|(_, entry)| entry.state == State::Sent);
        let (&key, _) = sent.max_by_key(|(_, entry)| entry.picture.image.len())?;
        self.take(key).map(|entry| entry.failed(status))
    }

    fn take(&mut self, key: u64) -> Option<Entry> {
        let entry = self.entries.remove(&key)?;
        self.bytes -= entry.picture.image.len() as u64;
        self.settled += 1;
        Some(entry)
    }
}

// === impl Entry, State ===

impl Entry {
    fn failed(self, status: &Status) -> Settled {
        Settled::Failed(self.picture.path, item_reason(status))
    }
}

impl State {
    fn is_ready(self, now: Instant) -> bool {
        match self {
            Self::Ready => true,
            Self::Sent => false,
            Self::Waiting { until } => until <= now,
        }
    }
}

/// How long to wait after `failures` failures before this one.
pub(crate) fn backoff(failures: u32) -> Duration {
    FIRST_BACKOFF.saturating_mul(2_u32.saturating_pow(failures)).min(LONGEST_BACKOFF)
}

/// Whether the same picture may be taken later.
fn is_temporary(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::ResourceExhausted | Code::Unavailable | Code::DeadlineExceeded | Code::Aborted
    )
}

#[cfg(test)]
mod tests;
