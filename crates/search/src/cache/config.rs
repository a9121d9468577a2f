//! What an operator can set of the caches.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use crate::secret::Secret;

/// A cache that takes longer than this spares nothing.
const MAX_TIMEOUT: Duration = Duration::from_millis(500);

/// What is kept to spare work: vectors of pictures and words, and answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where. `redis` when several replicas serve one store, so that they share what they know.
    /// Default: `memory`.
    pub kind: Kind,
    /// Room in memory for vectors of pictures and words. One of 512 floats takes 2.3 KB. Redis has
    /// a bound of its own, `maxmemory`. Default: 128 MiB.
    pub embeddings_bytes: ByteSize,
    /// Longest that a vector is kept. It is never out of date; the time only clears out what nobody
    /// asks for. Default: 1 day.
    #[serde(with = "humantime_serde")]
    pub embeddings_ttl: Duration,
    /// How long it is remembered that a file is no image that can be read. Choose no more than you
    /// would wait after giving the embedder another decoder. Default: 10 min.
    #[serde(with = "humantime_serde")]
    pub refusals_ttl: Duration,
    /// Room in memory for answers. Default: 64 MiB.
    pub results_bytes: ByteSize,
    /// Longest that an answer is kept while its collection does not change. With a Qdrant server,
    /// also the longest that one is given after a write whose process died before it could tell
    /// Redis. Default: 10 min.
    #[serde(with = "humantime_serde")]
    pub results_ttl: Duration,
    pub refresh: Refresh,
    pub redis: Redis,
}

/// Where to keep things.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// In this process. With a Qdrant server, which others may write to, only vectors are kept so.
    #[default]
    Memory,
    /// In Redis, or what speaks its protocol.
    Redis,
    /// Nowhere.
    Off,
}

/// After a write, the queries that are asked most are asked again, so that their next caller need
/// not wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Refresh {
    /// Whether to do so. Off where writes never pause: each answer would be out of date before
    /// anyone asks. Default: true.
    pub enabled: bool,
    /// How often a query must have been asked of late: within `cache.results_ttl`. Default: 3.
    pub min_asked: NonZeroU32,
    /// Most queries of one collection to ask again. Default: 16.
    pub max_queries: NonZeroUsize,
    /// Waits for this long without a write, and this long between two rounds of one collection.
    /// Default: 2 s.
    #[serde(with = "humantime_serde")]
    pub quiet: Duration,
}

/// How Redis is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Redis {
    /// Where it listens: `redis://HOST:PORT`, or `rediss://` for TLS, whose certificate is checked
    /// against those that the system trusts (`SSL_CERT_FILE` names others). Of a cluster or of
    /// sentinels several, parted by commas. Default: `redis://127.0.0.1:6379`.
    pub url: String,
    /// What listens there. Default: `single`.
    pub mode: Mode,
    /// What the sentinels call the group of servers. Default: `mymaster`.
    pub sentinel_master: String,
    /// Who to log in as; empty for Redis' default user. Default: none.
    pub username: String,
    /// The password of that user. Default: none.
    pub password: Secret,
    /// The number of the database; a cluster has only 0. Default: 0.
    pub db: u32,
    /// Connections to keep. Many calls share each, and one alone answers 100,000 look-ups a second;
    /// more keep small values from waiting behind large ones. Default: 4.
    pub connections: NonZeroUsize,
    /// What keys start with. Choose another for each service that shares a Redis. Default:
    /// `clipmesh`.
    pub prefix: String,
    /// Longest that a search waits for it; then it goes on without. Choose less than what an
    /// embedding takes, at most 500 ms. Default: 50 ms.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// Longest that connecting may take, TLS and login included. Calls don't wait for it longer
    /// than `timeout`. Default: 1 s.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// After so many failed or slow calls in a row it is not asked for a while. Slow is what takes
    /// more than half of `timeout`. Default: 5.
    pub max_failures: NonZeroU32,
    /// How long it is not asked then; after that, one call tries. Doubles each time, up to
    /// `max_ejection`. Default: 500 ms.
    #[serde(with = "humantime_serde")]
    pub min_ejection: Duration,
    /// Default: 15 s.
    #[serde(with = "humantime_serde")]
    pub max_ejection: Duration,
    /// How long one replica may embed what others want too, before they do it themselves. Choose
    /// more than an embedding takes when the embedder is busy. Default: 5 s.
    #[serde(with = "humantime_serde")]
    pub lease: Duration,
}

/// What kind of Redis it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// One server.
    #[default]
    Single,
    /// A Redis Cluster.
    Cluster,
    /// Sentinels, which tell where the server is.
    Sentinel,
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            kind: Kind::default(),
            embeddings_bytes: ByteSize::mib(128),
            embeddings_ttl: Duration::from_secs(24 * 3600),
            refusals_ttl: Duration::from_secs(600),
            results_bytes: ByteSize::mib(64),
            results_ttl: Duration::from_secs(600),
            refresh: Refresh::default(),
            redis: Redis::default(),
        }
    }
}

impl Config {
    /// Everything that is wrong, each in one sentence that names the key.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (key, time) in [
            ("embeddings_ttl", self.embeddings_ttl),
            ("refusals_ttl", self.refusals_ttl),
            ("results_ttl", self.results_ttl),
            ("refresh.quiet", self.refresh.quiet),
        ] {
            if time < Duration::from_millis(1) {
                faults.push(format!("`cache.{key}` must be at least 1 ms"));
            }
        }
        if self.kind == Kind::Redis {
            self.redis.add_faults(&mut faults);
        }
        faults
    }
}

// === impl Refresh ===

impl Default for Refresh {
    fn default() -> Self {
        Self {
            enabled: true,
            min_asked: NonZeroU32::MIN.saturating_add(2),
            max_queries: NonZeroUsize::MIN.saturating_add(15),
            quiet: Duration::from_secs(2),
        }
    }
}

// === impl Redis ===

impl Default for Redis {
    fn default() -> Self {
        Self {
            url: "redis://127.0.0.1:6379".to_owned(),
            mode: Mode::default(),
            sentinel_master: "mymaster".to_owned(),
            username: String::new(),
            password: Secret::default(),
            db: 0,
            connections: NonZeroUsize::MIN.saturating_add(3),
            prefix: "clipmesh".to_owned(),
            timeout: Duration::from_millis(50),
            connect_timeout: Duration::from_secs(1),
            max_failures: NonZeroU32::MIN.saturating_add(4),
            min_ejection: Duration::from_millis(500),
            max_ejection: Duration::from_secs(15),
            lease: Duration::from_secs(5),
        }
    }
}

impl Redis {
    /// The addresses in `url`.
    pub(crate) fn urls(&self) -> impl Iterator<Item = &str> {
        self.url.split(',').map(str::trim)
    }

    fn add_faults(&self, faults: &mut Vec<String>) {
        let urls: Vec<_> = self.urls().collect();
        for url in &urls {
            // Not repeated: it may hold a password.
            let rest = url.strip_prefix("redis://").or_else(|| url.strip_prefix("rediss://"));
            match rest {
                None => faults.push(
                    "`cache.redis.url` must start with `redis://` or `rediss://`, each of several"
                        .to_owned(),
                ),
                Some("") => faults.push("`cache.redis.url` must name a host".to_owned()),
                Some(rest) if rest.contains(['@', '/', '?', '#']) => faults.push(
                    "`cache.redis.url` must end with the port: `username`, `password` and `db` are \
                     settings of their own"
                        .to_owned(),
                ),
                Some(_) => {}
            }
        }
        if self.mode == Mode::Single && urls.len() > 1 {
            faults.push("`cache.redis.url` must be one, unless `mode` is another".to_owned());
        }
        if urls.windows(2).any(|pair| is_tls(pair[0]) != is_tls(pair[1])) {
            faults.push("`cache.redis.url` must be with TLS or without, all alike".to_owned());
        }
        if self.mode == Mode::Cluster && self.db != 0 {
            faults.push("`cache.redis.db` must be 0 in a cluster".to_owned());
        }
        if self.mode == Mode::Sentinel && self.sentinel_master.is_empty() {
            faults.push("`cache.redis.sentinel_master` must not be empty".to_owned());
        }
        if !self.username.is_empty() && self.password.is_empty() {
            faults.push("`cache.redis.username` needs `cache.redis.password`".to_owned());
        }
        if self.prefix.is_empty() || self.prefix.contains(['{', '}', ' ']) {
            // Braces would choose the slot of a cluster, and so put everything on one server.
            faults.push("`cache.redis.prefix` must be without braces and spaces".to_owned());
        }
        self.add_time_faults(faults);
    }

    fn add_time_faults(&self, faults: &mut Vec<String>) {
        if self.timeout < Duration::from_millis(1) || self.timeout > MAX_TIMEOUT {
            faults.push("`cache.redis.timeout` must be 1 ms to 500 ms".to_owned());
        }
        if self.connect_timeout < Duration::from_millis(1) {
            faults.push("`cache.redis.connect_timeout` must be at least 1 ms".to_owned());
        }
        if self.min_ejection < Duration::from_millis(1) || self.min_ejection > self.max_ejection {
            faults.push(
                "`cache.redis.min_ejection` must be 1 ms to `cache.redis.max_ejection`".to_owned(),
            );
        }
        if self.lease < Duration::from_millis(1) {
            faults.push("`cache.redis.lease` must be at least 1 ms".to_owned());
        }
    }
}

pub(crate) fn is_tls(url: &str) -> bool {
    url.starts_with("rediss://")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_for_every_kind() {
        for kind in [Kind::Memory, Kind::Redis, Kind::Off] {
            let config = Config { kind, ..Config::default() };
            assert_eq!(config.faults(), Vec::<String>::new(), "{kind:?}");
        }
    }

    #[test]
    fn tells_every_fault_by_its_key() {
        let redis = Redis {
            url: "redis://:secret@a:1,rediss://b:2,http://c".to_owned(),
            username: "someone".to_owned(),
            prefix: "{all}".to_owned(),
            timeout: Duration::from_secs(1),
            connect_timeout: Duration::ZERO,
            min_ejection: Duration::from_secs(60),
            lease: Duration::ZERO,
            ..Redis::default()
        };
        let refresh = Refresh { quiet: Duration::ZERO, ..Refresh::default() };
        let ttl = Duration::ZERO;
        let config =
            Config { kind: Kind::Redis, results_ttl: ttl, redis, refresh, ..Config::default() };
        let faults = config.faults();
        assert_eq!(faults.len(), 12, "each is named: {faults:#?}");
        assert!(!format!("{faults:?}").contains("secret"), "but no password: {faults:?}");
        let unused = Config { kind: Kind::Memory, ..config };
        assert_eq!(unused.faults().len(), 2, "what is not used can't be wrong");
    }

    #[test]
    fn modes_have_rules_of_their_own() {
        let faults = |redis: Redis| {
            Config { kind: Kind::Redis, redis, ..Config::default() }.faults().concat()
        };
        let several = "redis://a:1, redis://b:2".to_owned();
        let of = |mode| Redis { url: several.clone(), mode, ..Redis::default() };
        assert!(faults(of(Mode::Single)).contains("must be one"), "one server, one address");
        assert_eq!(faults(of(Mode::Cluster)), "", "any node will do");
        assert_eq!(faults(of(Mode::Sentinel)), "", "any sentinel will do");
        let numbered = Redis { db: 1, ..of(Mode::Cluster) };
        assert!(faults(numbered).contains("redis.db"), "a cluster has one database");
        let nameless = Redis { sentinel_master: String::new(), ..of(Mode::Sentinel) };
        assert!(faults(nameless).contains("sentinel_master"), "sentinels watch several");
    }
}
