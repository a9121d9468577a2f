//! Models of the Hugging Face hub: downloaded once, into the cache that other tools use too.
//!
//! ```text
//!   org/name@revision ──► commit ──► each file:  in the cache? ──► done
//!                         (asked)                no ──► download ──► verify ──► into the cache
//! ```
//!
//! A file enters the cache only after its checksum was found to be the one that the hub names. An
//! interrupted download goes on where it stopped, in this process or a later one. A commit never
//! changes: with all its files in the cache, nothing is asked.

mod cache;
mod client;
mod download;
mod error;
mod part;
mod progress;
mod settings;

use std::fmt;
use std::path::PathBuf;
use std::time::Instant;

use self::cache::Cache;
use self::client::Client;
use self::download::download;
use super::{Config, Family, config, preprocessing, shards, tokenizer, weights};

pub use error::Error;
pub use settings::{Settings, Token};

const DEFAULT_REVISION: &str = "main";

/// Models whose main revision has weights in another form only, and the revision that has them as
/// safetensors: the request in which the hub itself converted them.
const CONVERTED: [(&str, &str); 1] = [("openai/clip-vit-base-patch32", "refs/pr/15")];

/// Digits of the hash that names a commit.
const COMMIT_DIGITS: usize = 40;

/// A model of the hub, written `org/name` or `org/name@revision`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    id: String,
    revision: Option<String>,
}

/// The hub and its cache on this machine.
#[derive(Debug)]
pub struct Hub {
    settings: Settings,
}

/// One commit of one model, on its way into the cache.
struct Fetch<'a> {
    reference: &'a Reference,
    commit: String,
    cache: Cache,
    /// `None` makes do with what is in the cache.
    client: Option<&'a Client>,
}

// === impl Reference ===

impl Reference {
    /// `None` for a text of another form.
    pub fn parse(text: &str) -> Option<Self> {
        let (id, revision) = match text.split_once('@') {
            Some((id, revision)) => (id, Some(revision)),
            None => (text, None),
        };
        let (organisation, name) = id.split_once('/')?;
        // Both become parts of paths and addresses. A name of the hub starts with a letter or a
        // digit; `--` stands for the slash in the cache.
        let is_name = |part: &str| {
            part.starts_with(|first: char| first.is_ascii_alphanumeric())
                && part.chars().all(is_plain)
                && !part.contains("--")
        };
        let is_revision = |revision: &str| {
            revision.split('/').all(|part| {
                !part.is_empty() && !part.starts_with('.') && part.chars().all(is_plain)
            })
        };
        let fits = is_name(organisation) && is_name(name) && revision.is_none_or(is_revision);
        fits.then(|| Self { id: id.to_owned(), revision: revision.map(str::to_owned) })
    }

    /// `org/name`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// A branch, a tag, a pull request or a commit: the one that was named, or else the one that
    /// is known to hold weights that can be read.
    fn revision(&self) -> &str {
        let converted = || CONVERTED.iter().find(|(id, _)| *id == self.id);
        match &self.revision {
            Some(revision) => revision,
            None => converted().map_or(DEFAULT_REVISION, |(_, revision)| revision),
        }
    }

    /// The revision if it can't change.
    fn pinned(&self) -> Option<&str> {
        Some(self.revision()).filter(|revision| is_commit(revision))
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)?;
        match &self.revision {
            Some(revision) => write!(f, "@{revision}"),
            None => Ok(()),
        }
    }
}

// === impl Hub ===

impl Hub {
    /// Asks nothing yet.
    pub fn new(settings: Settings) -> Self {
        Self { settings }
    }

    /// The folder of a model in the cache, after downloading what is missing of it. Blocks.
    ///
    /// A branch is looked up at the hub each time; where the hub doesn't give what it has now, the
    /// last complete commit in the cache is taken, with a warning.
    ///
    /// # Errors
    /// A model, revision or file that the hub doesn't have or doesn't give, a hub that can't be
    /// reached, a download that breaks off for good or has another checksum.
    pub fn fetch(&self, reference: &Reference) -> Result<PathBuf, Error> {
        if self.settings.is_offline {
            return self.cached(reference);
        }
        match self.current(reference) {
            Err(error) if error.leaves_the_cache() => {
                let Ok(folder) = self.cached(reference) else { return Err(error) };
                let (model, reason) = (reference.to_string(), error.to_string());
                tracing::warn!(model, reason, "the hub does not give it, the cached model is used");
                Ok(folder)
            }
            outcome => outcome,
        }
    }

    /// What the hub has now.
    fn current(&self, reference: &Reference) -> Result<PathBuf, Error> {
        let client = Client::new(&self.settings);
        let commit = match reference.pinned() {
            Some(commit) => commit.to_owned(),
            None => {
                let metadata = client.metadata(reference, reference.revision(), config::FILE);
                let metadata = metadata.map_err(|failure| {
                    Error::of(failure, reference, config::FILE, &self.settings)
                })?;
                metadata.commit
            }
        };
        let cache = Cache::of(&self.settings.cache, reference.id());
        let fetch = Fetch { reference, commit, cache, client: Some(&client) };
        let folder = fetch.all(&self.settings)?;
        // Only now: an older commit that is complete must not be lost to one that is not.
        if reference.pinned().is_none() {
            fetch.cache.set_reference(reference.revision(), &fetch.commit)?;
        }
        Ok(folder)
    }

    /// What the cache has.
    fn cached(&self, reference: &Reference) -> Result<PathBuf, Error> {
        let cache = Cache::of(&self.settings.cache, reference.id());
        let pinned = reference.pinned().map(str::to_owned);
        let commit = pinned.or_else(|| cache.reference(reference.revision()));
        let commit = commit.ok_or_else(|| Error::not_cached(reference, &self.settings))?;
        Fetch { reference, commit, cache, client: None }.all(&self.settings)
    }
}

// === impl Fetch ===

impl Fetch<'_> {
    /// Brings all that a model needs, and nothing else.
    fn all(&self, settings: &Settings) -> Result<PathBuf, Error> {
        let started_at = Instant::now();
        let mut fetched_bytes = 0;
        let mut bring = |file: &str| self.bring(file, settings, &mut fetched_bytes);
        let folder = self.cache.snapshot(&self.commit);
        self.need(config::FILE, settings, &mut bring)?;
        // A model that can't be read is not downloaded.
        let config = Config::read(&folder).map_err(Box::new)?;
        self.need(preprocessing::FILE, settings, &mut bring)?;
        if config.text.is_some() {
            if config.family != Family::Clip {
                self.need(tokenizer::FILE, settings, &mut bring)?;
            } else if !bring(tokenizer::FILE)? {
                self.need(tokenizer::VOCABULARY_FILE, settings, &mut bring)?;
                self.need(tokenizer::MERGES_FILE, settings, &mut bring)?;
            }
            for file in tokenizer::SPECIAL_TOKENS_FILES {
                bring(file)?;
            }
        }
        // The largest last: nothing is downloaded in vain.
        if !bring(weights::FILE)? {
            if !bring(shards::FILE)? {
                return Err(self.missing(weights::FILE, settings));
            }
            for shard in shards::read(&folder.join(shards::FILE)).map_err(Box::new)? {
                self.need(&shard, settings, &mut bring)?;
            }
        }
        if fetched_bytes > 0 {
            let (model, commit) = (self.reference.to_string(), &self.commit);
            let elapsed_ms = started_at.elapsed().as_millis() as u64;
            tracing::info!(model, commit, bytes = fetched_bytes, elapsed_ms, "model downloaded");
        }
        Ok(folder)
    }

    /// Fails where the model doesn't have the file.
    fn need(
        &self,
        file: &str,
        settings: &Settings,
        bring: &mut impl FnMut(&str) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        match bring(file)? {
            true => Ok(()),
            false => Err(self.missing(file, settings)),
        }
    }

    /// Makes sure of one file; false if the model doesn't have it.
    fn bring(&self, file: &str, settings: &Settings, fetched: &mut u64) -> Result<bool, Error> {
        if let Some(is_there) = self.cache.knows(&self.commit, file) {
            return Ok(is_there);
        }
        let Some(client) = self.client else { return Ok(false) };
        let of = |failure| Error::of(failure, self.reference, file, settings);
        let metadata = match client.metadata(self.reference, &self.commit, file) {
            Err(failure) if failure.is_no_such_file() => {
                if failure.is_final_at(&self.commit) {
                    self.cache.note_absence(&self.commit, file);
                }
                return Ok(false);
            }
            outcome => outcome.map_err(of)?,
        };
        let _turn = self.cache.lock(&metadata.checksum)?;
        if self.cache.knows(&self.commit, file) == Some(true) {
            // Another process was faster.
            return Ok(true);
        }
        let blob = self.cache.blob(&metadata.checksum);
        // Another revision may have the same.
        if !blob.exists() {
            let from = client.address(self.reference, &self.commit, file);
            download(client, &from, &metadata, &blob).map_err(of)?;
            *fetched += metadata.size;
        }
        self.cache.link(&self.commit, file, &metadata.checksum)?;
        Ok(true)
    }

    fn missing(&self, file: &str, settings: &Settings) -> Error {
        let (id, revision) = (self.reference.id().to_owned(), self.reference.revision().to_owned());
        if self.client.is_none() {
            return Error::not_cached(self.reference, settings);
        }
        match file {
            weights::FILE => Error::NoWeights { id, revision },
            _ => Error::NoFile { id, revision, file: file.to_owned() },
        }
    }
}

fn is_plain(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.')
}

fn is_commit(revision: &str) -> bool {
    revision.len() == COMMIT_DIGITS && revision.bytes().all(|digit| digit.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(text: &str) -> Reference {
        Reference::parse(text).expect("of the hub's form")
    }

    #[test]
    fn the_default_model_is_taken_where_its_weights_can_be_read() {
        assert_eq!(reference("openai/clip-vit-base-patch32").revision(), "refs/pr/15", "known");
        assert_eq!(reference("openai/clip-vit-base-patch32@main").revision(), "main", "named");
        assert_eq!(reference("org/name").revision(), "main", "any other");
    }

    #[test]
    fn a_commit_is_known_by_its_form() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(reference(&format!("o/n@{commit}")).pinned(), Some(commit), "never changes");
        assert_eq!(reference("o/n@main").pinned(), None, "a branch");
        assert_eq!(reference("o/n@0123456").pinned(), None, "could be a branch's name");
    }
}
