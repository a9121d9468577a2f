//! Why a model of the hub can't be had, and how to go on.

use std::path::{Path, PathBuf};

use super::client::{Failure, NO_SUCH_FILE};
use super::{Reference, Settings};

/// Why a model of the hub can't be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no home folder to cache models in: `HF_HOME` names another one")]
    NoHome,
    #[error("`HF_ENDPOINT` must be an address with http:// or https://, not `{0}`")]
    Endpoint(String),
    #[error("{}", no_model(.id, .endpoint, *.has_token))]
    NoModel { id: String, endpoint: String, has_token: bool },
    #[error(
        "`{id}` is given to those only who have accepted its terms at {endpoint}/{id}, and whose \
         token is in `HF_TOKEN`"
    )]
    Gated { id: String, endpoint: String },
    #[error("{endpoint} does not accept the token of `HF_TOKEN`, or of its file, for `{id}`")]
    Token { id: String, endpoint: String },
    #[error("`{id}` has no revision `{revision}`")]
    NoRevision { id: String, revision: String },
    #[error("`{id}` at `{revision}` has no `{file}`, so it is no model that can be read")]
    NoFile { id: String, revision: String, file: String },
    #[error(
        "`{id}` at `{revision}` has no `model.safetensors`; if another revision has it, name that \
         one: `{id}@refs/pr/N` for a pull request"
    )]
    NoWeights { id: String, revision: String },
    #[error(
        "{endpoint} can't be reached for `{id}`, and there is no folder of that name here: {cause}"
    )]
    Unreachable { id: String, endpoint: String, cause: String },
    #[error("{endpoint} gives no usable answer for `{file}` of `{id}`: {message}")]
    Answer { id: String, endpoint: String, file: String, message: String },
    #[error(
        "`{file}` of `{id}` broke off at {received} of {size} bytes, what came is kept: {cause}"
    )]
    Interrupted { id: String, file: String, received: u64, size: u64, cause: String },
    #[error("`{file}` of `{id}` came with another checksum than the hub names; it was thrown away")]
    Checksum { id: String, file: String },
    #[error(
        "`{id}` at `{revision}` is not complete in the cache, `{}`, `HF_HUB_OFFLINE` forbids to \
         download it, and there is no folder of that name here", cache.display()
    )]
    NotCached { id: String, revision: String, cache: PathBuf },
    /// What came is not a model that can be read.
    #[error(transparent)]
    Unreadable(#[from] Box<super::super::Error>),
    #[error("another process has held `{}` for too long", .0.display())]
    Locked(PathBuf),
    #[error("write to the cache at `{}`: {cause}", path.display())]
    Cache { path: PathBuf, cause: std::io::Error },
}

// === impl Error ===

impl Error {
    /// What a failure means for whoever wants this file of this model.
    pub(super) fn of(
        failure: Failure,
        reference: &Reference,
        file: &str,
        settings: &Settings,
    ) -> Self {
        let id = reference.id().to_owned();
        let endpoint = settings.endpoint.clone();
        let file = file.to_owned();
        match failure {
            Failure::Unreachable(cause) => Self::Unreachable { id, endpoint, cause },
            Failure::Status { code, kind, .. } => {
                Self::of_status(code, kind.as_deref(), reference, file, settings)
            }
            Failure::Malformed(message) => Self::Answer { id, endpoint, file, message },
            Failure::Interrupted { received, size, cause } => {
                Self::Interrupted { id, file, received, size, cause }
            }
            Failure::Checksum => Self::Checksum { id, file },
            Failure::Cache { path, cause } => Self::Cache { path, cause },
        }
    }

    /// `kind` is the hub's own word for what is wrong; mirrors don't send it. The hub answers 401
    /// for a model that is not there, so that nobody learns of private ones.
    fn of_status(
        code: u16,
        kind: Option<&str>,
        reference: &Reference,
        file: String,
        settings: &Settings,
    ) -> Self {
        let (id, revision) = (reference.id().to_owned(), reference.revision().to_owned());
        let endpoint = settings.endpoint.clone();
        let has_token = settings.token.is_some();
        match (code, kind) {
            (_, Some("RevisionNotFound")) => Self::NoRevision { id, revision },
            (_, Some("RepoNotFound")) => Self::NoModel { id, endpoint, has_token },
            (_, Some("GatedRepo")) => Self::Gated { id, endpoint },
            (_, Some(NO_SUCH_FILE)) => Self::NoFile { id, revision, file },
            (401, _) if !has_token => Self::NoModel { id, endpoint, has_token },
            (401 | 403, _) if has_token => Self::Token { id, endpoint },
            (404, _) => Self::NoFile { id, revision, file },
            _ => Self::Answer { id, endpoint, file, message: format!("status {code}") },
        }
    }

    pub(super) fn not_cached(reference: &Reference, settings: &Settings) -> Self {
        Self::NotCached {
            id: reference.id().to_owned(),
            revision: reference.revision().to_owned(),
            cache: settings.cache.clone(),
        }
    }

    pub(super) fn cache(path: &Path, cause: std::io::Error) -> Self {
        Self::Cache { path: path.to_owned(), cause }
    }

    /// Whether what is in the cache may still be right: the hub said nothing, nothing that it
    /// would say, only a part of what it has, or that it doesn't know us any more.
    pub(super) fn leaves_the_cache(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::Interrupted { .. }
                | Self::Answer { .. }
                | Self::Token { .. }
        )
    }
}

fn no_model(id: &str, endpoint: &str, has_token: bool) -> String {
    let hint = if has_token {
        "or the holder of the token may not see it"
    } else {
        "or it is a private one, which needs a token in `HF_TOKEN`"
    };
    format!(
        "there is no model `{id}` at {endpoint}, {hint}; nor is there a folder of that name here"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::hub::Token;

    fn settings(token: Option<&str>) -> Settings {
        Settings {
            endpoint: "https://hub".to_owned(),
            cache: PathBuf::new(),
            token: token.map(|token| Token::new(token.to_owned())),
            is_offline: false,
        }
    }

    fn reference() -> Reference {
        Reference::parse("org/name@v2").expect("a reference")
    }

    fn told(code: u16, kind: Option<&str>, token: Option<&str>) -> String {
        let failure = Failure::Status { code, kind: kind.map(str::to_owned), commit: None };
        Error::of(failure, &reference(), "config.json", &settings(token)).to_string()
    }

    #[test]
    fn a_name_that_was_meant_for_a_folder_is_told_that_there_is_none() {
        let (reference, settings) = (reference(), settings(None));
        let unreachable = Failure::Unreachable("no route".to_owned());
        for told in [
            told(404, Some("RepoNotFound"), None),
            Error::of(unreachable, &reference, "config.json", &settings).to_string(),
            Error::not_cached(&reference, &settings).to_string(),
        ] {
            assert!(told.contains("folder of that name here"), "{told}");
        }
    }

    #[test]
    fn what_the_hub_answers_is_told_with_the_way_on() {
        for (code, kind, token, expected) in [
            (
                404,
                Some("RepoNotFound"),
                None,
                "no model `org/name` at https://hub, or it is a priv",
            ),
            (401, Some("RepoNotFound"), None, "needs a token in `HF_TOKEN`"),
            (404, Some("RepoNotFound"), Some("t"), "the holder of the token may not see it"),
            (404, Some("RevisionNotFound"), None, "`org/name` has no revision `v2`"),
            (404, Some("EntryNotFound"), None, "`org/name` at `v2` has no `config.json`"),
            (404, None, None, "`org/name` at `v2` has no `config.json`"),
            (401, None, None, "needs a token in `HF_TOKEN`"),
            (401, None, Some("t"), "https://hub does not accept the token"),
            (403, Some("GatedRepo"), Some("t"), "accepted its terms at https://hub/org/name"),
            (403, None, None, "status 403"),
        ] {
            let told = told(code, kind, token);
            assert!(told.contains(expected), "{code} {kind:?}: {told}");
        }
    }
}
