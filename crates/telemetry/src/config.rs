//! What an operator can set.

use serde::{Deserialize, Serialize};

/// Settings of logs and traces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `text` for people, `json` for a log collector. Default: `text`.
    pub log_format: LogFormat,
    /// What to log, in the syntax of `tracing-subscriber`'s `EnvFilter`. Default: lifecycle and
    /// trouble of clipmesh, trouble of everything else. `clipmesh_mesh=debug` shows every call.
    pub log_filter: String,
    /// Where to send traces by OTLP over gRPC, as in `http://localhost:4317`. Default: nowhere.
    pub otlp_endpoint: Option<String>,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            log_format: LogFormat::Text,
            // The store's engine warns of flags that only its server sets, for every collection.
            log_filter: "info,qdrant_edge=error".to_owned(),
            otlp_endpoint: None,
        }
    }
}
