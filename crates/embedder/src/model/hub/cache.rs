//! The cache on disk, in the layout that all tools of the hub share:
//!
//! ```text
//!   models--ORG--NAME/
//!     refs/REVISION            the commit that a branch or tag was last seen at
//!     snapshots/COMMIT/FILE    a link to the file's content
//!     .no_exist/COMMIT/FILE    empty: the commit is known not to have the file
//!     blobs/CHECKSUM           a content, once for all commits that have it
//!   .locks/models--ORG--NAME/CHECKSUM.lock
//! ```

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::{Error, is_commit};

/// How long another process may take over the same file.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1800);
const LOCK_POLL: Duration = Duration::from_millis(200);

const HASHED_AT_ONCE: usize = 1 << 20;

/// The part of the cache that belongs to one model.
#[derive(Debug)]
pub(super) struct Cache {
    model: PathBuf,
    locks: PathBuf,
}

/// What the hub says of a file's content, and what its content is called in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Checksum {
    /// Of a large file.
    Sha256(String),
    /// Of a small one, as git names it.
    GitSha1(String),
}

/// Nobody else writes the content until it is dropped.
#[derive(Debug)]
#[must_use = "the lock is released when it is dropped"]
pub(super) struct Lock {
    _file: File,
}

// === impl Cache ===

impl Cache {
    /// Makes nothing yet.
    pub(super) fn of(root: &Path, id: &str) -> Self {
        let folder = format!("models--{}", id.replace('/', "--"));
        Self { model: root.join(&folder), locks: root.join(".locks").join(folder) }
    }

    /// The commit that a revision was last seen at.
    pub(super) fn reference(&self, revision: &str) -> Option<String> {
        let commit = fs::read_to_string(self.model.join("refs").join(revision)).ok()?;
        Some(commit.trim().to_owned()).filter(|commit| is_commit(commit))
    }

    pub(super) fn set_reference(&self, revision: &str, commit: &str) -> Result<(), Error> {
        if self.reference(revision).as_deref() != Some(commit) {
            write(&self.model.join("refs").join(revision), commit)?;
        }
        Ok(())
    }

    /// The folder of a commit's files.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.model.join("snapshots").join(commit)
    }

    /// Whether the commit has the file; `None` if that is not known.
    pub(super) fn knows(&self, commit: &str, file: &str) -> Option<bool> {
        if self.snapshot(commit).join(file).exists() {
            return Some(true);
        }
        self.absence(commit, file).exists().then_some(false)
    }

    /// Saves a question at the next start. A cache that can't be written to does without.
    pub(super) fn note_absence(&self, commit: &str, file: &str) {
        if let Err(error) = write(&self.absence(commit, file), "") {
            tracing::debug!(%error, file, "the absence of a file is not noted");
        }
    }

    /// Where a content is, once it is there.
    pub(super) fn blob(&self, checksum: &Checksum) -> PathBuf {
        self.model.join("blobs").join(checksum.digits())
    }

    /// Gives a content its name in a commit.
    pub(super) fn link(&self, commit: &str, file: &str, checksum: &Checksum) -> Result<(), Error> {
        let folder = self.snapshot(commit);
        let link = folder.join(file);
        let target = Path::new("../../blobs").join(checksum.digits());
        let linked = make_folder(&folder).and_then(|()| {
            // A link that leads nowhere would be in the way.
            if link.is_symlink() {
                fs::remove_file(&link)?;
            }
            std::os::unix::fs::symlink(target, &link)
        });
        linked.map_err(|cause| Error::cache(&link, cause))
    }

    /// Waits for other processes that write the same content.
    pub(super) fn lock(&self, checksum: &Checksum) -> Result<Lock, Error> {
        let path = self.locks.join(checksum.digits()).with_extension("lock");
        let at = |cause| Error::cache(&path, cause);
        make_folder(&self.locks).map_err(at)?;
        make_folder(&self.model.join("blobs")).map_err(at)?;
        let file = File::options().write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(at)?;
        let mut waiting_since = None;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Lock { _file: file }),
                Err(TryLockError::Error(cause)) => return Err(at(cause)),
                Err(TryLockError::WouldBlock) => {}
            }
            let since = *waiting_since.get_or_insert_with(|| {
                tracing::info!(lock = %path.display(), "another process downloads this file");
                Instant::now()
            });
            if since.elapsed() > LOCK_TIMEOUT {
                return Err(Error::Locked(path));
            }
            thread::sleep(LOCK_POLL);
        }
    }

    fn absence(&self, commit: &str, file: &str) -> PathBuf {
        self.model.join(".no_exist").join(commit).join(file)
    }
}

// === impl Checksum ===

impl Checksum {
    /// Reads the hub's entity tag.
    pub(super) fn parse(tag: &str) -> Option<Self> {
        let digits = tag.trim_start_matches("W/").trim_matches('"');
        // They become a file's name.
        let is_hex = digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        match digits.len() {
            64 if is_hex => Some(Self::Sha256(digits.to_owned())),
            40 if is_hex => Some(Self::GitSha1(digits.to_owned())),
            _ => None,
        }
    }

    /// Whether this is the checksum of the file's content.
    pub(super) fn fits(&self, file: &Path) -> io::Result<bool> {
        let mut content = File::open(file)?;
        let computed = match self {
            Self::Sha256(_) => digits_of(Sha256::new(), &mut content)?,
            Self::GitSha1(_) => {
                let header = format!("blob {}\0", content.metadata()?.len());
                digits_of(Sha1::new_with_prefix(header), &mut content)?
            }
        };
        Ok(computed == self.digits())
    }

    fn digits(&self) -> &str {
        match self {
            Self::Sha256(digits) | Self::GitSha1(digits) => digits,
        }
    }
}

fn digits_of(mut hasher: impl Digest, content: &mut File) -> io::Result<String> {
    let mut buffer = vec![0; HASHED_AT_ONCE];
    loop {
        match content.read(&mut buffer)? {
            0 => break,
            length => hasher.update(&buffer[..length]),
        }
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Writes a small file so that it is there as a whole or not at all.
fn write(path: &Path, text: &str) -> Result<(), Error> {
    let written = || {
        make_folder(path.parent().unwrap_or(path))?;
        let unfinished = path.with_added_extension(std::process::id().to_string());
        fs::write(&unfinished, text)?;
        fs::rename(&unfinished, path)
    };
    written().map_err(|cause| Error::cache(path, cause))
}

fn make_folder(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
    /// What `printf 'hello\n' | git hash-object --stdin` and `sha256sum` print.
    const GIT_SHA1: &str = "ce013625030ba8dba906f756967f9e9ca394464a";
    const SHA256: &str = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";

    #[test]
    fn both_kinds_of_checksums_are_computed_as_the_hub_does() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("hello");
        fs::write(&file, "hello\n").expect("write it");
        for tag in [format!("\"{GIT_SHA1}\""), format!("W/\"{GIT_SHA1}\""), SHA256.to_owned()] {
            let checksum = Checksum::parse(&tag).expect("a checksum");
            assert!(checksum.fits(&file).expect("readable"), "{tag}");
        }
        fs::write(&file, "hello!").expect("change it");
        let checksum = Checksum::parse(SHA256).expect("a checksum");
        assert!(!checksum.fits(&file).expect("readable"), "another content");
    }

    #[test]
    fn only_checksums_become_names_of_files() {
        for tag in ["", "\"../../etc/passwd\"", "\"xyz\"", &"g".repeat(40), &"A".repeat(64)] {
            assert_eq!(Checksum::parse(tag), None, "{tag}");
        }
    }

    #[test]
    fn a_linked_file_is_known_and_so_is_one_that_is_not_there() {
        let root = tempfile::tempdir().expect("a folder");
        let cache = Cache::of(root.path(), "org/name");
        let checksum = Checksum::parse(SHA256).expect("a checksum");
        let lock = cache.lock(&checksum).expect("nobody else");
        fs::write(cache.blob(&checksum), "hello\n").expect("a content");
        cache.link(COMMIT, "config.json", &checksum).expect("linked");
        drop(lock);
        assert_eq!(cache.knows(COMMIT, "config.json"), Some(true), "there");
        let folder = root.path().join("models--org--name");
        let read = fs::read_to_string(folder.join("snapshots").join(COMMIT).join("config.json"));
        assert_eq!(read.expect("the link leads to it"), "hello\n", "as other tools find it");

        assert_eq!(cache.knows(COMMIT, "merges.txt"), None, "not asked yet");
        cache.note_absence(COMMIT, "merges.txt");
        assert_eq!(cache.knows(COMMIT, "merges.txt"), Some(false), "known to be absent");

        assert_eq!(cache.reference("refs/pr/1"), None, "never seen");
        cache.set_reference("refs/pr/1", COMMIT).expect("noted");
        assert_eq!(cache.reference("refs/pr/1").as_deref(), Some(COMMIT), "seen");
    }
}
