//! What an operator can set.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use clipmesh_mesh::settings::Validate;
use clipmesh_mesh::{client, server};
use serde::{Deserialize, Deserializer, Serialize};

use crate::origin::Pattern;

/// Pages that are served from this machine, on any port: what a developer has, and what no other
/// site can claim to be.
const LOCAL_ORIGINS: [&str; 3] = ["http://localhost:*", "http://127.0.0.1:*", "http://[::1]:*"];

/// Settings of a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where to listen. Default: `127.0.0.1:8080`, reachable from this machine only.
    pub listen: SocketAddr,
    /// Where the search service is. Default: `http://127.0.0.1:8081`.
    pub search_url: String,
    /// Where the embedder is. Default: `http://127.0.0.1:8082`.
    pub embedder_url: String,
    /// Longest time for one unary call, if the caller's own deadline is not nearer. Streams have no
    /// bound but their caller's. Choose more than the search service grants the embedder, so that
    /// its answer, which says what was slow, comes before ours, which can't. Default: 60 s.
    #[serde(with = "humantime_serde")]
    pub call_timeout: Duration,
    /// Longest time to open a connection to a service. Default: 2 s.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// Web pages that may call through a browser: `https://photos.example.org`, with `:*` for any
    /// port of a host, or `*` for every page in the world. A list, or one text with commas.
    /// Choose `*` only where everyone who can reach the port may use it. Default: pages of this
    /// machine, `http://localhost:*`, `http://127.0.0.1:*` and `http://[::1]:*`. A page that the
    /// gateway's own origin serves needs no entry.
    #[serde(deserialize_with = "list_or_text")]
    pub cors_origins: Vec<String>,
    /// What every server has. `max_message_bytes` bounds each request message on its way in.
    pub server: server::Config,
    /// How the services behind are watched.
    pub health: HealthConfig,
    /// Logs and traces.
    pub telemetry: clipmesh_telemetry::Config,
}

/// How the services behind the gateway are watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HealthConfig {
    /// How often a service is asked. Shorter notices trouble sooner; each question is one small
    /// call per service. Default: 1 s.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// How long one answer may take. A service counts as gone after three that took longer.
    /// Default: 1 s.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            search_url: "http://127.0.0.1:8081".to_owned(),
            embedder_url: "http://127.0.0.1:8082".to_owned(),
            call_timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(2),
            cors_origins: LOCAL_ORIGINS.map(str::to_owned).to_vec(),
            server: server::Config::default(),
            health: HealthConfig::default(),
            telemetry: clipmesh_telemetry::Config::default(),
        }
    }
}

impl Config {
    /// How to make calls that end within `timeout`, or when their caller says so.
    pub(crate) fn client(&self, timeout: Option<Duration>) -> client::Config {
        client::Config {
            timeout,
            connect_timeout: self.connect_timeout,
            max_message_bytes: self.server.max_message_bytes,
        }
    }
}

impl Validate for Config {
    fn faults(&self) -> Vec<String> {
        let mut faults = self.server.faults("server");
        for (key, url) in [("search_url", &self.search_url), ("embedder_url", &self.embedder_url)] {
            if !is_http_url(url) {
                faults.push(format!("`{key}` must be like `http://host:port`, not `{url}`"));
            }
        }
        let durations = [
            ("call_timeout", self.call_timeout),
            ("connect_timeout", self.connect_timeout),
            ("health.interval", self.health.interval),
            ("health.timeout", self.health.timeout),
        ];
        for (key, duration) in durations {
            if duration.is_zero() {
                faults.push(format!("`{key}` must be longer than zero"));
            }
        }
        let origins = self.cors_origins.iter();
        faults.extend(origins.filter_map(|origin| {
            let error = Pattern::parse(origin).err()?;
            Some(format!("`cors_origins`: {error}"))
        }));
        faults
    }
}

// === impl HealthConfig ===

impl Default for HealthConfig {
    fn default() -> Self {
        Self { interval: Duration::from_secs(1), timeout: Duration::from_secs(1) }
    }
}

fn is_http_url(url: &str) -> bool {
    url.parse::<http::Uri>().is_ok_and(|uri| {
        uri.scheme() == Some(&http::uri::Scheme::HTTP) && matches!(uri.path(), "" | "/")
    })
}

/// Takes a list, or one text with commas: an environment variable can't hold a list.
fn list_or_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum ListOrText {
        List(Vec<String>),
        Text(String),
    }
    Ok(match ListOrText::deserialize(deserializer)? {
        ListOrText::List(list) => list,
        ListOrText::Text(text) => {
            let entries = text.split(',').map(str::trim);
            entries.filter(|entry| !entry.is_empty()).map(str::to_owned).collect()
        }
    })
}

#[cfg(test)]
mod tests {
    use clipmesh_mesh::settings::{Error, Sources, load};

    use super::*;

    fn from_env(pairs: &[(&str, &str)]) -> Result<Config, Error> {
        let env = pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
        load(&Sources { env, ..Sources::default() })
    }

    #[test]
    fn the_defaults_are_valid_and_survive_printing() {
        let config = from_env(&[]).expect("the shipped defaults");
        assert_eq!(config, Config::default(), "no source, no change");
        let printed = toml::to_string(&config).expect("settings have a textual form");
        let again: Config = toml::from_str(&printed).expect("what is printed can be read");
        assert_eq!(again, config, "printing loses nothing");
    }

    #[test]
    fn the_environment_sets_every_kind_of_value() {
        let config = from_env(&[
            ("CLIPMESH__LISTEN", "0.0.0.0:9000"),
            ("CLIPMESH__CALL_TIMEOUT", "5s"),
            ("CLIPMESH__CORS_ORIGINS", "https://a.example, http://b.example:*"),
            ("CLIPMESH__SERVER__MAX_MESSAGE_BYTES", "8 MiB"),
            ("CLIPMESH__HEALTH__INTERVAL", "250ms"),
        ])
        .expect("valid settings");
        assert_eq!(config.listen, SocketAddr::from(([0, 0, 0, 0], 9000)), "address");
        assert_eq!(config.call_timeout, Duration::from_secs(5), "duration");
        let expected = ["https://a.example", "http://b.example:*"];
        assert_eq!(config.cors_origins, expected, "list in one variable");
        assert_eq!(config.server.max_message_len(), 8 << 20, "size");
        assert_eq!(config.health.interval, Duration::from_millis(250), "nested");
    }

    #[test]
    fn tells_every_fault_at_once() {
        let Err(Error::Invalid(faults)) = from_env(&[
            ("CLIPMESH__SEARCH_URL", "localhost:8081"),
            ("CLIPMESH__EMBEDDER_URL", "http://host/path"),
            ("CLIPMESH__CALL_TIMEOUT", "0s"),
            ("CLIPMESH__CORS_ORIGINS", "photos.example"),
        ]) else {
            panic!("four faults are refused");
        };
        for key in ["search_url", "embedder_url", "call_timeout", "cors_origins"] {
            assert!(faults.iter().any(|fault| fault.contains(key)), "`{key}` in {faults:?}");
        }
    }
}
