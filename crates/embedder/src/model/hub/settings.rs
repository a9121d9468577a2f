//! Where the hub is, where its files are kept, and who asks: the variables that all tools of the
//! hub share. They are the hub's own, so none of them starts with our prefix.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use super::Error;

const ENDPOINT: &str = "https://huggingface.co";

/// How to reach the hub.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `HF_ENDPOINT`: the hub, or a mirror of it. Default: `https://huggingface.co`.
    pub endpoint: String,
    /// `HF_HUB_CACHE`. Default: `hub` in `HF_HOME`, which is `huggingface` in `XDG_CACHE_HOME`,
    /// which is `~/.cache`.
    pub cache: PathBuf,
    /// `HF_TOKEN`, or what is in the file `HF_TOKEN_PATH`. Default: the file `token` in `HF_HOME`.
    pub token: Option<Token>,
    /// `HF_HUB_OFFLINE`: use the cache only.
    pub is_offline: bool,
}

/// A secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

// === impl Settings ===

impl Settings {
    /// Those of the process' environment.
    ///
    /// # Errors
    /// An endpoint that is no address, or no folder to keep files in.
    pub fn from_process() -> Result<Self, Error> {
        Self::from_variables(|name| std::env::var_os(name))
    }

    /// The same, of any environment. An empty variable counts as none.
    ///
    /// # Errors
    /// As of [`Self::from_process`].
    pub fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, Error> {
        let variable = |name| variable(name).filter(|value| !value.is_empty());
        let folder = |name| variable(name).map(PathBuf::from);
        let text = |name| variable(name).and_then(|value| value.into_string().ok());

        let caches = || folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
        let home = folder("HF_HOME").or_else(|| Some(caches()?.join("huggingface")));
        let cache = folder("HF_HUB_CACHE").or_else(|| Some(home.as_ref()?.join("hub")));
        let token_file = folder("HF_TOKEN_PATH").or_else(|| Some(home.as_ref()?.join("token")));
        let from_file = || std::fs::read_to_string(token_file?).ok();
        let token = text("HF_TOKEN").or_else(from_file).map(|token| token.trim().to_owned());
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        if !["http://", "https://"].iter().any(|scheme| endpoint.starts_with(scheme)) {
            return Err(Error::Endpoint(endpoint));
        }
        let is_offline = text("HF_HUB_OFFLINE").is_some_and(|value| is_yes(&value));
        Ok(Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            cache: cache.ok_or(Error::NoHome)?,
            token: token.filter(|token| !token.is_empty()).map(Token),
            is_offline,
        })
    }
}

/// As the hub's own tools read a switch.
fn is_yes(value: &str) -> bool {
    ["1", "on", "yes", "true"].contains(&value.to_ascii_lowercase().as_str())
}

// === impl Token ===

impl Token {
    /// Takes a secret over.
    pub fn new(secret: String) -> Self {
        Self(secret)
    }

    /// For the request that needs it.
    pub(super) fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Result<Settings, Error> {
        Settings::from_variables(|name| {
            let found = variables.iter().find(|(other, _)| *other == name);
            found.map(|(_, value)| OsString::from(value))
        })
    }

    fn cache(variables: &[(&str, &str)]) -> PathBuf {
        settings(variables).expect("settings").cache
    }

    #[test]
    fn files_are_kept_where_other_tools_keep_them() {
        let home = ("HOME", "/home/x");
        assert_eq!(cache(&[home]), PathBuf::from("/home/x/.cache/huggingface/hub"), "the usual");
        let xdg = ("XDG_CACHE_HOME", "/c");
        assert_eq!(cache(&[home, xdg]), PathBuf::from("/c/huggingface/hub"), "XDG");
        let hf_home = ("HF_HOME", "/hf");
        assert_eq!(cache(&[home, xdg, hf_home]), PathBuf::from("/hf/hub"), "the hub's home");
        let hub_cache = ("HF_HUB_CACHE", "/models");
        assert_eq!(cache(&[home, hf_home, hub_cache]), PathBuf::from("/models"), "its cache");
        assert!(matches!(settings(&[("HF_HOME", "")]), Err(Error::NoHome)), "nowhere");
    }

    #[test]
    fn an_endpoint_is_an_address() {
        let of = |endpoint| settings(&[("HOME", "/x"), ("HF_ENDPOINT", endpoint)]);
        assert_eq!(of("").expect("none").endpoint, "https://huggingface.co", "the hub");
        assert_eq!(of("http://a:1/b/").expect("a mirror").endpoint, "http://a:1/b", "a mirror");
        let error = of("mirror.example").expect_err("no scheme").to_string();
        assert!(error.contains("`HF_ENDPOINT`") && error.contains("mirror.example"), "{error}");
    }

    #[test]
    fn a_token_is_found_and_never_shown() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("token"), "from-file\n").expect("write the token");
        let home = ("HF_HOME", folder.path().to_str().expect("UTF-8"));
        let token = |variables: &[_]| settings(variables).expect("settings").token;
        assert_eq!(token(&[home]), Some(Token::new("from-file".to_owned())), "of the file");
        let both = token(&[home, ("HF_TOKEN", "from-env")]);
        assert_eq!(both, Some(Token::new("from-env".to_owned())), "the variable wins");
        assert_eq!(token(&[("HOME", "/no/such/home")]), None, "none");
        let shown = format!("{:?}", settings(&[home]).expect("settings"));
        assert!(shown.contains("***") && !shown.contains("from-file"), "a secret: {shown}");
    }

    #[test]
    fn offline_is_a_switch() {
        let of = |value| settings(&[("HOME", "/x"), ("HF_HUB_OFFLINE", value)]);
        let is_offline = |value| of(value).expect("settings").is_offline;
        assert!(["1", "ON", "yes", "True"].into_iter().all(is_offline), "on");
        assert!(!["", "0", "off", "no"].into_iter().any(is_offline), "off");
    }
}
