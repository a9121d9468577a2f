//! What an operator can set.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;

use bytesize::ByteSize;
use clipmesh_mesh::server;
use clipmesh_mesh::settings::Validate;
use clipmesh_telemetry as telemetry;
use serde::{Deserialize, Serialize};

use crate::store::{edge, qdrant};

pub use crate::blobs::Config as Blobs;
pub use crate::cache::config::{
    Config as Cache, Kind as CacheKind, Mode as RedisMode, Redis, Refresh,
};
pub use crate::embedder::Config as Embedder;
pub use crate::secret::Secret;

/// Settings of the search service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where to listen. Default: 127.0.0.1:8081.
    pub listen: SocketAddr,
    /// The folder of everything that is kept: vectors in `collections`, small pictures in
    /// `thumbnails`; beside a Qdrant server, which has the vectors, they are in
    /// `thumbnails-qdrant`. One process at a time. Default: `data`.
    pub data_dir: PathBuf,
    pub limits: Limits,
    pub store: Store,
    pub blobs: Blobs,
    pub cache: Cache,
    pub embedder: Embedder,
    pub server: server::Config,
    pub telemetry: telemetry::Config,
}

/// Bounds of what is taken in, and of what is done at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Longest image file. Choose the embedder's limit, so that what it would refuse is not sent.
    /// Default: 20 MiB.
    pub max_image_bytes: ByteSize,
    /// Width times height of a picture of which a thumbnail is made. Choose the embedder's limit.
    /// Each pixel takes 4 to 16 bytes of memory while it is made. Default: 64000000.
    pub max_image_pixels: u64,
    /// Items of one `IndexItems` stream that are worked on at once. Higher fills the embedder's
    /// batches; each holds its picture in memory. Default: 32.
    pub stream_concurrency: NonZeroUsize,
    /// Thumbnails made at once. Default: half the CPUs, at least 1.
    pub thumbnail_threads: NonZeroUsize,
}

/// Where vectors live.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// Which engine. Default: `edge`.
    pub kind: StoreKind,
    pub edge: edge::Config,
    pub qdrant: qdrant::Config,
}

/// The engines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// Qdrant's engine in this process, on this machine's disk.
    #[default]
    Edge,
    /// A Qdrant server or cluster.
    Qdrant,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8081)),
            data_dir: PathBuf::from("data"),
            limits: Limits::default(),
            store: Store::default(),
            blobs: Blobs::default(),
            cache: Cache::default(),
            embedder: Embedder::default(),
            server: server::Config::default(),
            telemetry: telemetry::Config::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let positive = |number| NonZeroUsize::new(number).unwrap_or(NonZeroUsize::MIN);
        Self {
            max_image_bytes: ByteSize::mib(20),
            max_image_pixels: 64_000_000,
            stream_concurrency: positive(32),
            thumbnail_threads: positive(cpus / 2),
        }
    }
}

impl Validate for Config {
    fn faults(&self) -> Vec<String> {
        let mut faults = self.server.faults("server");
        if self.data_dir.as_os_str().is_empty() {
            faults.push("`data_dir` must not be empty".to_owned());
        }
        let max_message = self.server.max_message_bytes.min(self.embedder.client.max_message_bytes);
        if self.limits.max_image_bytes >= max_message {
            faults.push(
                "`limits.max_image_bytes` must be less than `server.max_message_bytes` and \
                 `embedder.client.max_message_bytes`: an image travels in a message"
                    .to_owned(),
            );
        }
        if self.limits.max_image_pixels == 0 {
            faults.push("`limits.max_image_pixels` must be at least 1".to_owned());
        }
        if !self.embedder.url.starts_with("http://") {
            faults.push(format!(
                "`embedder.url` must start with `http://`, unlike `{}`",
                self.embedder.url
            ));
        }
        faults.extend(self.cache.faults());
        if self.store.edge.flush_interval.is_zero() {
            faults.push("`store.edge.flush_interval` must be longer than zero".to_owned());
        }
        faults.extend(self.blobs.faults());
        if self.store.kind == StoreKind::Qdrant {
            faults.extend(self.store.qdrant.faults());
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use clipmesh_mesh::settings::{self, Sources};

    use super::*;

    fn from_env(pairs: &[(&str, &str)]) -> Result<Config, settings::Error> {
        let env: BTreeMap<_, _> =
            pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
        settings::load(&Sources { env, ..Sources::default() })
    }

    #[test]
    fn the_defaults_are_valid_and_survive_being_printed() {
        let config = from_env(&[]).expect("valid");
        assert_eq!(config, Config::default(), "nothing was set");
        let text = toml::to_string(&config).expect("printable");
        let again: Config = toml::from_str(&text).expect("readable");
        assert_eq!(again, config, "what is printed can be used");
    }

    #[test]
    fn takes_settings_from_the_environment() {
        let config = from_env(&[
            ("CLIPMESH__STORE__EDGE__SYNC_WRITES", "true"),
            ("CLIPMESH__LIMITS__MAX_IMAGE_BYTES", "1 MiB"),
            ("CLIPMESH__CACHE__RESULTS_TTL", "5s"),
            ("CLIPMESH__CACHE__KIND", "redis"),
            ("CLIPMESH__CACHE__REDIS__MODE", "cluster"),
            ("CLIPMESH__CACHE__REDIS__URL", "redis://a:1,redis://b:2"),
            ("CLIPMESH__CACHE__REDIS__PASSWORD", "hunter2"),
            ("CLIPMESH__CACHE__REDIS__CONNECTIONS", "2"),
            ("CLIPMESH__LISTEN", "127.0.0.1:0"),
            ("CLIPMESH__BLOBS__URL", "s3://pictures/clipmesh"),
            ("CLIPMESH__BLOBS__KEEP_ORIGINALS", "true"),
        ])
        .expect("valid");
        assert!(config.store.edge.sync_writes, "a flag");
        assert_eq!(config.limits.max_image_bytes, ByteSize::mib(1), "a size");
        assert_eq!(config.cache.results_ttl, Duration::from_secs(5), "a time");
        assert_eq!(config.listen.port(), 0, "an address");
        assert_eq!(config.blobs.url.as_deref(), Some("s3://pictures/clipmesh"), "a place");
        assert!(config.blobs.keep_originals, "a choice");
        let redis = &config.cache.redis;
        assert_eq!(redis.urls().count(), 2, "several addresses");
        assert_eq!(redis.connections.get(), 2, "a number");
        assert_eq!(redis.password.reveal(), "hunter2", "a secret, for the server");
        let shown = format!("{config:?}") + &toml::to_string(&config).expect("printable");
        assert!(!shown.contains("hunter2"), "and for nobody else: {shown}");
    }

    #[test]
    fn tells_all_faults_at_once() {
        let faults = from_env(&[
            ("CLIPMESH__LIMITS__MAX_IMAGE_BYTES", "1 GiB"),
            ("CLIPMESH__LIMITS__MAX_IMAGE_PIXELS", "0"),
            ("CLIPMESH__EMBEDDER__URL", "localhost"),
            ("CLIPMESH__STORE__EDGE__FLUSH_INTERVAL", "0s"),
            ("CLIPMESH__DATA_DIR", ""),
            ("CLIPMESH__BLOBS__URL", "ftp://pictures"),
            ("CLIPMESH__BLOBS__TIMEOUT", "0s"),
            ("CLIPMESH__CACHE__KIND", "redis"),
            ("CLIPMESH__CACHE__REDIS__TIMEOUT", "1 min"),
        ]);
        let Err(settings::Error::Invalid(faults)) = faults else {
            panic!("refused as invalid: {faults:?}");
        };
        assert_eq!(faults.len(), 8, "each is named: {faults:?}");
    }

    #[test]
    fn only_real_stores_can_be_chosen() {
        assert!(
            from_env(&[("CLIPMESH__STORE__KIND", "exact")]).is_err(),
            "the oracle is for tests"
        );
    }
}
