//! Settings of the embedded store.

use std::num::{NonZeroU64, NonZeroUsize};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Settings of the embedded store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether a write waits for the disk before it is answered.
    ///
    /// | what happens after the answer | off | on |
    /// |---|---|---|
    /// | the process is killed, or crashes | the write is there | the write is there |
    /// | the machine loses power, or its kernel crashes | the writes since the last flush may be lost, see `flush_interval` and `flush_after` | the write is there |
    /// | the disk is lost | all is lost | all is lost |
    ///
    /// It costs 15 ms to 200 ms; writes that wait together share one flush. What makes, changes or
    /// removes collections, indexes and aliases always waits. Default: false.
    pub sync_writes: bool,
    /// How often writes are brought onto the disk, and how often it is seen whether a graph is to
    /// be built. Longer loses more to a power failure, and makes a start after a crash slower, by
    /// about 0.2 ms per point. Default: 2 s.
    #[serde(with = "humantime_serde")]
    pub flush_interval: Duration,
    /// After how many changed points they are brought onto the disk, before `flush_interval` is
    /// over. Bounds what a start after a crash has to take in again, at about 0.2 ms each.
    /// Default: 10000.
    pub flush_after: NonZeroU64,
    /// How many points may be searched one by one before a graph is built for them. Lower makes
    /// searches during bulk indexing faster, and builds more often: 5000 vectors of 512 floats add
    /// 0.7 ms to a search, whose walk through 100000 others takes 1.2 ms. Where points come faster
    /// than one core builds graphs, which is some 500 a second, more than this stay without one
    /// until it catches up. Default: 5000.
    pub optimize_after: NonZeroUsize,
    /// How many items may pass a filter for the vectors of all of them to be compared with. Above,
    /// the graph is walked, unless fewer than 2.5 % pass. Higher is more exact and slower: 10000
    /// vectors of 512 floats take about 6 ms. Default: 10000.
    pub full_scan_points: NonZeroUsize,
    /// How many candidates a walk through the graph keeps. Higher finds more of the true
    /// neighbours: 256 found 99.7 % of ten where the default of the engine found 95 %, at twice
    /// the time. Default: 256.
    pub search_effort: NonZeroUsize,
    /// Calls into the engine that run at once, for reads and for writes each, and threads of one
    /// search. Default: the number of CPUs, at most 8.
    pub threads: NonZeroUsize,
    /// Calls that may wait for one of `threads`, for reads and for writes each; the next one is
    /// refused as busy. Choose what is served within the callers' deadlines. Default: 1024.
    pub max_waiting: usize,
}

impl Default for Config {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get).min(8);
        let positive = |number| NonZeroUsize::new(number).unwrap_or(NonZeroUsize::MIN);
        Self {
            sync_writes: false,
            flush_interval: Duration::from_secs(2),
            flush_after: NonZeroU64::new(10_000).unwrap_or(NonZeroU64::MIN),
            optimize_after: positive(5_000),
            full_scan_points: positive(10_000),
            search_effort: positive(256),
            threads: positive(threads),
            max_waiting: 1024,
        }
    }
}
