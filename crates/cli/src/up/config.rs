//! Settings of `clipmesh up`: those of the three services, and what they share.

use clipmesh_mesh::server;
use clipmesh_mesh::settings::Validate;
use serde::{Deserialize, Serialize};

/// Settings of the three services in one process. What only makes sense between processes, such
/// as their addresses, is set by `clipmesh up` itself.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// The embedder's; `model` is what is served.
    pub(crate) embedder: clipmesh_embedder::Config,
    /// The search service's; `data_dir` is where everything is kept.
    pub(crate) search: clipmesh_search::Config,
    /// The gateway's; `listen` is the one address that others see.
    pub(crate) gateway: clipmesh_gateway::Config,
    /// Logs and traces of all three.
    pub(crate) telemetry: clipmesh_telemetry::Config,
    /// Message limits and time to stop, the same for all three.
    pub(crate) server: server::Config,
}

/// Keys of single services that have no meaning here, and what to use instead.
const OWN_KEYS: [(&[&str], &str); 11] = [
    (&["embedder", "listen"], OWN_PORT),
    (&["embedder", "server"], SHARED_SERVER),
    (&["embedder", "telemetry"], SHARED_TELEMETRY),
    (&["search", "listen"], OWN_PORT),
    (&["search", "embedder", "url"], OWN_PORT),
    (&["search", "server"], SHARED_SERVER),
    (&["search", "telemetry"], SHARED_TELEMETRY),
    (&["gateway", "search_url"], OWN_PORT),
    (&["gateway", "embedder_url"], OWN_PORT),
    (&["gateway", "server"], SHARED_SERVER),
    (&["gateway", "telemetry"], SHARED_TELEMETRY),
];
const OWN_PORT: &str = "inside one process the services find each other";
const SHARED_SERVER: &str = "set it in the table `server`, for all three";
const SHARED_TELEMETRY: &str = "set it in the table `telemetry`, for all three";

// === impl Config ===

impl Config {
    /// The settings as TOML, without the keys that have no meaning here.
    pub(crate) fn to_toml(&self) -> Result<String, toml::ser::Error> {
        let mut tables = toml::Table::try_from(self)?;
        for (path, _) in OWN_KEYS {
            remove(&mut tables, path);
        }
        toml::to_string(&tables)
    }

    /// Gives each service what all three share.
    pub(crate) fn shared(mut self) -> Self {
        self.embedder.server = self.server.clone();
        self.search.server = self.server.clone();
        self.gateway.server = self.server.clone();
        self.embedder.telemetry = self.telemetry.clone();
        self.search.telemetry = self.telemetry.clone();
        self.gateway.telemetry = self.telemetry.clone();
        self
    }

    /// A value that was set although it would be overruled is a misunderstanding to be told of.
    fn overruled(&self) -> Result<Vec<String>, toml::ser::Error> {
        let given = toml::Table::try_from(self)?;
        let default = toml::Table::try_from(Self::default())?;
        let overruled =
            OWN_KEYS.iter().filter(|(path, _)| get(&given, path) != get(&default, path));
        Ok(overruled
            .map(|(path, hint)| format!("`{}` has no effect here: {hint}", path.join(".")))
            .collect())
    }
}

fn get<'a>(table: &'a toml::Table, path: &[&str]) -> Option<&'a toml::Value> {
    let (key, rest) = path.split_first()?;
    let value = table.get(*key)?;
    if rest.is_empty() { Some(value) } else { get(value.as_table()?, rest) }
}

fn remove(table: &mut toml::Table, path: &[&str]) {
    match path {
        [] => {}
        [key] => drop(table.remove(*key)),
        [key, rest @ ..] => {
            if let Some(toml::Value::Table(table)) = table.get_mut(*key) {
                remove(table, rest);
            }
        }
    }
}

impl Validate for Config {
    fn faults(&self) -> Vec<String> {
        let shared = self.clone().shared();
        let mut faults = self.server.faults("server");
        let services: [(&str, &dyn Validate); 3] = [
            ("embedder", &shared.embedder),
            ("search", &shared.search),
            ("gateway", &shared.gateway),
        ];
        for (name, service) in services {
            // What is shared is told once, not by each.
            let own = service.faults().into_iter().filter(|fault| !fault.starts_with("`server."));
            faults.extend(own.map(|fault| format!("in `{name}`: {fault}")));
        }
        match self.overruled() {
            Ok(overruled) => faults.extend(overruled),
            Err(error) => faults.push(error.to_string()),
        }
        faults
    }
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
    fn one_table_serves_all_three() {
        let config = from_env(&[("CLIPMESH__SERVER__MAX_MESSAGE_BYTES", "48 MiB")])
            .expect("valid settings")
            .shared();
        for server in [&config.embedder.server, &config.search.server, &config.gateway.server] {
            assert_eq!(server.max_message_len(), 48 << 20, "the same everywhere");
        }
    }

    #[test]
    fn what_would_be_overruled_is_refused() {
        let Err(Error::Invalid(faults)) = from_env(&[
            ("CLIPMESH__GATEWAY__SEARCH_URL", "http://elsewhere:1"),
            ("CLIPMESH__SEARCH__SERVER__DRAIN_TIMEOUT", "1s"),
            ("CLIPMESH__SEARCH__EMBEDDER__URL", "http://elsewhere:1"),
        ]) else {
            panic!("three settings without effect are refused");
        };
        assert_eq!(faults.len(), 3, "each is named: {faults:?}");
        assert!(faults.iter().any(|fault| fault.contains("gateway.search_url")), "{faults:?}");
        assert!(faults.iter().any(|fault| fault.contains("table `server`")), "{faults:?}");
    }

    #[test]
    fn nothing_must_be_set() {
        let config = from_env(&[]).expect("the defaults do");
        let model = config.embedder.model.to_string();
        assert_eq!(model, "openai/clip-vit-base-patch32", "a trained model");
    }

    #[test]
    fn bounds_are_checked_with_what_is_shared() {
        let Err(Error::Invalid(faults)) =
            from_env(&[("CLIPMESH__SERVER__MAX_MESSAGE_BYTES", "1 MiB")])
        else {
            panic!("pictures of 20 MiB don't fit into messages of 1 MiB");
        };
        assert!(faults.iter().any(|fault| fault.starts_with("in `embedder`")), "{faults:?}");
        assert!(faults.iter().any(|fault| fault.starts_with("in `search`")), "{faults:?}");
    }

    #[test]
    fn what_is_printed_can_be_read_again() {
        let config = from_env(&[("CLIPMESH__GATEWAY__LISTEN", "0.0.0.0:9")]).expect("valid");
        let printed = config.to_toml().expect("settings have a textual form");
        let again: Config = toml::from_str(&printed).expect("what is printed can be read");
        assert_eq!(again.gateway, config.gateway, "nothing is lost");
        assert!(!printed.contains("search_url"), "nothing without effect is shown:\n{printed}");
    }
}
