//! Settings of the Qdrant store.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use crate::secret::Secret;

/// What separates several addresses.
const SEPARATOR: char = ',';

/// Qdrant's limit is 255, of which a collection's own name takes up to 64.
const MAX_PREFIX_CHARS: usize = 128;

/// Settings of the Qdrant store. The server has to be of version 1.17 or later, which was the first
/// that can leave a point alone that is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where its gRPC port is: `http://host:6334`, or `https://` for TLS. Several nodes of one
    /// cluster are separated by commas; calls go round them, and past one that can't be reached.
    /// Default: `http://127.0.0.1:6334`.
    pub url: String,
    /// The key that the server asks for. Set it with `https://` only: it is sent as it is.
    /// Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_key: Option<Secret>,
    /// A PEM file of the authorities that the server's certificate may come from, in place of
    /// those of the system. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Longest time to open a connection. Default: 2 s.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// Longest time for one call, if the caller's own deadline is not nearer, and for a shutdown to
    /// wait for writes under way. Default: 30 s.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// Longest time to make a collection or an index. An index that takes longer is still built, and
    /// is there once it is. Default: 10 min.
    #[serde(with = "humantime_serde")]
    pub build_timeout: Duration,
    /// Connections to each address. One carries many calls at once; more help where large answers
    /// would hold up small ones. Default: 3.
    pub connections: NonZeroUsize,
    /// Longest message in either direction. A batch of points has to fit. Default: 64 MiB.
    pub max_message_bytes: ByteSize,
    /// What the names of our collections and aliases start with on the server, so that several
    /// installations can share one. Default: `clipmesh_`.
    pub prefix: String,
    /// Shards of a new collection. Choose a multiple of the nodes; it can't be changed later.
    /// Default: 1.
    pub shard_number: NonZeroU32,
    /// Copies of each shard of a new collection. Default: 1.
    pub replication_factor: NonZeroU32,
    /// Copies that must have a write before it is answered; at most `replication_factor`. A write
    /// always goes to all copies that are up, and one that failed is not read from until it has
    /// caught up. Lower goes on with more nodes down; higher survives the loss of more of them.
    /// Default: 1.
    pub write_consistency_factor: NonZeroU32,
    /// Whether full vectors of a new collection are read from the disk as needed. Saves 4 bytes per
    /// value of memory and is slower, unless short forms are searched first (`quantization` of the
    /// collection's index). Default: false.
    pub on_disk_vectors: bool,
    /// Whether payloads of a new collection are read from the disk as needed. Default: true.
    pub on_disk_payload: bool,
    /// Whether graphs of a new collection are read from the disk as needed. Default: false.
    pub on_disk_hnsw: bool,
    /// How many candidates a walk through the graph keeps, where a search says nothing of it.
    /// Higher finds more of the true neighbours, and is slower. Default: 256.
    pub search_effort: NonZeroUsize,
    /// Points that a filter may leave to be compared one by one. Above, the graph is walked, one
    /// link further where neighbours do not pass (ACORN), which still loses some hits where few do.
    /// Higher is more exact and slower. Default: 50000.
    pub full_scan_points: NonZeroUsize,
    /// Whether the best hits of a search through short forms are compared in full. Default: true.
    pub rescore: bool,
    /// How many times as many hits as asked for are taken from the short forms to be compared in
    /// full. Higher finds more of the true neighbours, and is slower. Default: 2.
    pub oversampling: NonZeroU32,
    /// How long to rely on what the server said of a collection: a collection or an alias that
    /// another process changed is noticed after this time. If one was removed and made anew for the
    /// same model, what is on its way to the former may for as long be stored in the latter; for
    /// another model, it is refused. Zero asks at every call. Default: 2 s.
    #[serde(with = "humantime_serde")]
    pub keep_collections: Duration,
}

impl Default for Config {
    fn default() -> Self {
        let positive = |number| NonZeroUsize::new(number).unwrap_or(NonZeroUsize::MIN);
        Self {
            url: "http://127.0.0.1:6334".to_owned(),
            api_key: None,
            ca_file: None,
            connect_timeout: Duration::from_secs(2),
            timeout: Duration::from_secs(30),
            build_timeout: Duration::from_secs(600),
            connections: positive(3),
            max_message_bytes: ByteSize::mib(64),
            prefix: "clipmesh_".to_owned(),
            shard_number: NonZeroU32::MIN,
            replication_factor: NonZeroU32::MIN,
            write_consistency_factor: NonZeroU32::MIN,
            on_disk_vectors: false,
            on_disk_payload: true,
            on_disk_hnsw: false,
            search_effort: positive(256),
            full_scan_points: positive(50_000),
            rescore: true,
            oversampling: NonZeroU32::MIN.saturating_add(1),
            keep_collections: Duration::from_secs(2),
        }
    }
}

// === impl Config ===

impl Config {
    /// The addresses, one by one.
    pub(super) fn urls(&self) -> impl Iterator<Item = &str> {
        self.url.split(SEPARATOR).map(str::trim)
    }

    /// The limit in the form that tonic's clients take.
    pub(super) fn max_message_len(&self) -> usize {
        usize::try_from(self.max_message_bytes.as_u64()).unwrap_or(usize::MAX)
    }

    /// Everything that is wrong, each in one sentence that names the key.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut check = |is_fine: bool, fault: &str| {
            if !is_fine {
                faults.push(format!("`store.qdrant.{fault}"));
            }
        };
        let is_url = |url: &str| url.starts_with("http://") || url.starts_with("https://");
        check(self.urls().all(is_url), "url` must start with `http://` or `https://`");
        let is_secure = self.urls().all(|url| url.starts_with("https://"));
        check(self.ca_file.is_none() || is_secure, "ca_file` needs a `url` with `https://`");
        for (key, time) in [
            ("connect_timeout` must be longer than zero", self.connect_timeout),
            ("timeout` must be longer than zero", self.timeout),
            ("build_timeout` must be longer than zero", self.build_timeout),
        ] {
            check(!time.is_zero(), key);
        }
        check(self.max_message_bytes.as_u64() > 0, "max_message_bytes` must be at least 1");
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        check(
            self.prefix.len() <= MAX_PREFIX_CHARS && self.prefix.chars().all(is_word),
            "prefix` must have at most 128 characters of `a-z`, `A-Z`, `0-9`, `-` and `_`",
        );
        check(
            self.write_consistency_factor <= self.replication_factor,
            "write_consistency_factor` must be at most `store.qdrant.replication_factor`",
        );
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_can_be_used() {
        assert_eq!(Config::default().faults(), Vec::<String>::new(), "nothing is wrong");
    }

    #[test]
    fn each_fault_names_its_key() {
        let two = NonZeroU32::new(2).expect("not zero");
        let cases = [
            ("url", Config { url: "http://a:1,b:2".to_owned(), ..Config::default() }),
            ("url", Config { url: String::new(), ..Config::default() }),
            ("ca_file", Config { ca_file: Some("ca.pem".into()), ..Config::default() }),
            ("connect_timeout", Config { connect_timeout: Duration::ZERO, ..Config::default() }),
            ("timeout", Config { timeout: Duration::ZERO, ..Config::default() }),
            ("build_timeout", Config { build_timeout: Duration::ZERO, ..Config::default() }),
            ("max_message_bytes", Config { max_message_bytes: ByteSize(0), ..Config::default() }),
            ("prefix", Config { prefix: "a/".to_owned(), ..Config::default() }),
            ("write_consistency_factor", {
                Config { write_consistency_factor: two, ..Config::default() }
            }),
        ];
        for (key, config) in cases {
            let faults = config.faults();
            assert_eq!(faults.len(), 1, "`{key}` alone: {faults:?}");
            assert!(faults[0].starts_with(&format!("`store.qdrant.{key}`")), "{faults:?}");
        }
    }

    #[test]
    fn several_nodes_are_separated_by_commas() {
        let config =
            Config { url: "https://a:6334, https://b:6334".to_owned(), ..Config::default() };
        assert_eq!(config.faults(), Vec::<String>::new(), "both are addresses");
        assert_eq!(config.urls().collect::<Vec<_>>(), ["https://a:6334", "https://b:6334"]);
    }

    #[test]
    fn the_key_is_never_shown() {
        let api_key = Some(Secret::new("open sesame".to_owned()));
        let config = Config { api_key, ..Config::default() };
        let shown = format!("{config:?} {}", toml::to_string(&config).expect("printable"));
        assert!(shown.contains("***") && !shown.contains("sesame"), "a secret: {shown}");
    }
}
