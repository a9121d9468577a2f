//! Settings from their four sources: defaults, a TOML file, the environment, the command line;
//! a later source wins.
//!
//! A variable `CLIPMESH__BATCH__MAX_SIZE=8` sets `max_size` in the table `batch`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::de::DeserializeOwned;

/// What the names of variables start with, and what separates their parts.
const ENV_PREFIX: &str = "CLIPMESH";
const ENV_SEPARATOR: &str = "__";

/// The exit code of a process whose settings can't be used (`EX_USAGE` of sysexits.h).
pub const EXIT_BAD_CONFIG: u8 = 64;

/// Where settings come from. Passed in, so that tests need no environment.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// A TOML file; it must be there if it is named.
    pub file: Option<PathBuf>,
    /// Environment variables; only those with our prefix matter.
    pub env: BTreeMap<String, String>,
    /// From the command line: dotted keys and their values.
    pub overrides: Vec<(String, String)>,
}

/// Settings that can tell what is wrong with them.
pub trait Validate {
    /// Everything that is wrong, each in one sentence that names the key.
    fn faults(&self) -> Vec<String>;
}

/// Why settings can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its text is in ours, so it is not the source as well: it would be told twice.
    #[error("read settings: {0}")]
    Read(config::ConfigError),
    #[error("settings can't be used:\n  - {}", .0.join("\n  - "))]
    Invalid(Vec<String>),
}

impl From<config::ConfigError> for Error {
    fn from(error: config::ConfigError) -> Self {
        Self::Read(error)
    }
}

impl Sources {
    /// The process' own environment, and nothing else.
    pub fn from_process() -> Self {
        // A variable that is not UTF-8 can't be one of ours.
        let env = std::env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self { env, ..Self::default() }
    }

    /// Sets `key` if there is a value.
    #[must_use]
    pub fn with<V: ToString>(mut self, key: &str, value: Option<V>) -> Self {
        if let Some(value) = value {
            self.overrides.push((key.to_owned(), value.to_string()));
        }
        self
    }
}

/// Reads settings and checks them.
///
/// # Errors
/// A file that can't be read, an unknown key, a value of the wrong kind; or everything that
/// [`Validate::faults`] finds, at once.
pub fn load<T: DeserializeOwned + Validate>(sources: &Sources) -> Result<T, Error> {
    let mut builder = config::Config::builder();
    if let Some(file) = &sources.file {
        builder =
            builder.add_source(config::File::from(file.as_path()).format(config::FileFormat::Toml));
    }
    let env = sources.env.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    builder = builder.add_source(
        config::Environment::with_prefix(ENV_PREFIX)
            .prefix_separator(ENV_SEPARATOR)
            .separator(ENV_SEPARATOR)
            .source(Some(env)),
    );
    for (key, value) in &sources.overrides {
        builder = builder.set_override(key, value.as_str())?;
    }
    let settings: T = builder.build()?.try_deserialize()?;
    match settings.faults() {
        faults if faults.is_empty() => Ok(settings),
        faults => Err(Error::Invalid(faults)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Settings {
        name: String,
        batch: Batch,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Batch {
        max_size: usize,
        #[serde(with = "humantime_serde")]
        max_delay: Duration,
    }

    impl Default for Settings {
        fn default() -> Self {
            Self { name: "default".to_owned(), batch: Batch::default() }
        }
    }

    impl Default for Batch {
        fn default() -> Self {
            Self { max_size: 32, max_delay: Duration::from_millis(5) }
        }
    }

    impl Validate for Settings {
        fn faults(&self) -> Vec<String> {
            let mut faults = Vec::new();
            if self.name.is_empty() {
                faults.push("`name` must not be empty".to_owned());
            }
            if self.batch.max_size == 0 {
                faults.push("`batch.max_size` must be at least 1".to_owned());
            }
            faults
        }
    }

    fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn a_later_source_wins() {
        let folder = std::env::temp_dir();
        let file = folder.join(format!("clipmesh-settings-{}.toml", std::process::id()));
        std::fs::write(&file, "name = 'file'\n[batch]\nmax_size = 8\nmax_delay = '7ms'\n")
            .expect("write the settings file");
        let sources = Sources {
            file: Some(file.clone()),
            env: env(&[("CLIPMESH__BATCH__MAX_SIZE", "16"), ("CLIPMESH_OTHER", "x")]),
            overrides: vec![("name".to_owned(), "flag".to_owned())],
        };
        let settings: Settings = load(&sources).expect("valid settings");
        std::fs::remove_file(file).expect("remove the settings file");
        let expected = Settings {
            name: "flag".to_owned(),
            batch: Batch { max_size: 16, max_delay: Duration::from_millis(7) },
        };
        assert_eq!(settings, expected, "flag over environment over file");
    }

    #[test]
    fn tells_all_faults_at_once() {
        let sources = Sources {
            env: env(&[("CLIPMESH__NAME", ""), ("CLIPMESH__BATCH__MAX_SIZE", "0")]),
            ..Sources::default()
        };
        let Err(Error::Invalid(faults)) = load::<Settings>(&sources) else {
            panic!("two faults are refused");
        };
        assert_eq!(faults.len(), 2, "both are named: {faults:?}");
    }

    #[test]
    fn refuses_an_unknown_key_by_name() {
        let sources = Sources { env: env(&[("CLIPMESH__BTACH", "1")]), ..Sources::default() };
        let error = load::<Settings>(&sources).expect_err("a misspelt key");
        assert!(error.to_string().contains("btach"), "the key is named: {error}");
        let cause = std::error::Error::source(&error);
        assert!(cause.is_none(), "whoever prints the causes as well tells it once: {cause:?}");
    }
}
