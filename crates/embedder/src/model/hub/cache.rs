//! The cache on disk, in the layout that all tools of the hub share:
//!
//! ```text
//!   models--ORG--NAME/
//!     refs/REVISION            the commit that a branch or tag was last seen at
//!     snapshots/COMMIT/FILE    a link to the file's content
//!     .no_exist/COMMIT/FILE    empty: the commit is known not to have the file
//!     blobs/CHECKSUM           a content, once for all commits that have it
//!     .NAME                    for a moment: a file or link that is renamed when it is whole
//!   .locks/models--ORG--NAME/CHECKSUM.lock
//! ```

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use sha1::Sha1;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{Error, is_commit, part};

/// How long another process may hold a file and bring nothing of it. Its attempts end far sooner;
/// what is left is the time to verify what came, and a slow disk.
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

/// Whether to go on waiting for another process.
#[derive(Debug)]
struct Patience {
    since: Instant,
    /// The parts that were there then, and their lengths.
    parts: Vec<(PathBuf, u64)>,
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
            let path = self.model.join("refs").join(revision);
            return self.put(&path, |unfinished| fs::write(unfinished, commit));
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
        let noted = self.put(&self.absence(commit, file), |unfinished| fs::write(unfinished, ""));
        if let Err(error) = noted {
            tracing::debug!(%error, file, "the absence of a file is not noted");
        }
    }

    /// Where a content is, once it is there.
    pub(super) fn blob(&self, checksum: &Checksum) -> PathBuf {
        self.model.join("blobs").join(checksum.digits())
    }

    /// Gives a content its name in a commit. A link that is there, and leads nowhere, is replaced.
    pub(super) fn link(&self, commit: &str, file: &str, checksum: &Checksum) -> Result<(), Error> {
        let link = self.snapshot(commit).join(file);
        let target = Path::new("../../blobs").join(checksum.digits());
        self.put(&link, |unfinished| std::os::unix::fs::symlink(target, unfinished))
    }

    /// Waits for other processes that write the same content.
    pub(super) fn lock(&self, checksum: &Checksum) -> Result<Lock, Error> {
        let path = self.locks.join(checksum.digits()).with_extension("lock");
        let at = |cause| Error::cache(&path, cause);
        fs::create_dir_all(&self.locks).map_err(at)?;
        fs::create_dir_all(self.model.join("blobs")).map_err(at)?;
        let file = File::options().write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(at)?;
        let blob = self.blob(checksum);
        let mut patience = None;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Lock { _file: file }),
                // Some network file systems have no locks. Two processes may then download the
                // same file, each for itself.
                Err(TryLockError::Error(cause)) if cause.kind() == io::ErrorKind::Unsupported => {
                    tracing::debug!(lock = %path.display(), "the file system has no locks");
                    return Ok(Lock { _file: file });
                }
                Err(TryLockError::Error(cause)) => return Err(at(cause)),
                Err(TryLockError::WouldBlock) => {}
            }
            let now = Instant::now();
            let patience = patience.get_or_insert_with(|| {
                tracing::info!(lock = %path.display(), "another process downloads this file");
                Patience { since: now, parts: part::parts_of(&blob).unwrap_or_default() }
            });
            if patience.is_over(now, || part::parts_of(&blob).unwrap_or_default()) {
                return Err(Error::Locked(path));
            }
            thread::sleep(LOCK_POLL);
        }
    }

    /// Makes a file or link that is there as a whole or not at all, and replaces what was there.
    fn put(&self, path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), Error> {
        // Not beside it: other tools take all that is in their folders for references and files.
        // Random, as processes in containers share their numbers.
        let unfinished = self.model.join(format!(".{}", Uuid::new_v4().simple()));
        let put = || {
            fs::create_dir_all(path.parent().unwrap_or(path))?;
            let made = make(&unfinished).and_then(|()| fs::rename(&unfinished, path));
            if made.is_err() {
                // The first error is the one that counts; it may not have been made.
                let _removed = fs::remove_file(&unfinished);
            }
            made
        };
        put().map_err(|cause| Error::cache(path, cause))
    }

    fn absence(&self, commit: &str, file: &str) -> PathBuf {
        self.model.join(".no_exist").join(commit).join(file)
    }
}

// === impl Patience ===

impl Patience {
    /// The other process has its time again whenever more has come since the last time.
    fn is_over(&mut self, now: Instant, parts: impl FnOnce() -> Vec<(PathBuf, u64)>) -> bool {
        if now.duration_since(self.since) <= LOCK_TIMEOUT {
            return false;
        }
        let parts = parts();
        let is_over = parts == self.parts;
        *self = Self { since: now, parts };
        is_over
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
    pub(super) fn fits(&self, file: &mut File) -> io::Result<bool> {
        file.rewind()?;
        let computed = match self {
            Self::Sha256(_) => digits_of(Sha256::new(), file)?,
            Self::GitSha1(_) => {
                let header = format!("blob {}\0", file.metadata()?.len());
                digits_of(Sha1::new_with_prefix(header), file)?
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

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
    /// What `printf 'hello\n' | git hash-object --stdin` and `sha256sum` print.
    const GIT_SHA1: &str = "ce013625030ba8dba906f756967f9e9ca394464a";
    const SHA256: &str = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";

    fn open(file: &Path) -> File {
        File::open(file).expect("readable")
    }

    #[test]
    fn both_kinds_of_checksums_are_computed_as_the_hub_does() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("hello");
        fs::write(&file, "hello\n").expect("write it");
        for tag in [format!("\"{GIT_SHA1}\""), format!("W/\"{GIT_SHA1}\""), SHA256.to_owned()] {
            let checksum = Checksum::parse(&tag).expect("a checksum");
            assert!(checksum.fits(&mut open(&file)).expect("readable"), "{tag}");
        }
        fs::write(&file, "hello!").expect("change it");
        let checksum = Checksum::parse(SHA256).expect("a checksum");
        assert!(!checksum.fits(&mut open(&file)).expect("readable"), "another content");
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
        let names = fs::read_dir(folder).expect("readable");
        let names = names.map(|entry| entry.expect("readable").file_name());
        let mut names: Vec<_> = names.collect();
        names.sort();
        assert_eq!(names, [".no_exist", "blobs", "refs", "snapshots"], "and nothing unfinished");
    }

    #[test]
    fn a_link_replaces_one_that_leads_nowhere() {
        let root = tempfile::tempdir().expect("a folder");
        let cache = Cache::of(root.path(), "org/name");
        let checksum = Checksum::parse(SHA256).expect("a checksum");
        let gone = Checksum::parse(GIT_SHA1).expect("a checksum");
        cache.link(COMMIT, "config.json", &gone).expect("linked");
        assert_eq!(cache.knows(COMMIT, "config.json"), None, "it leads nowhere");
        let _lock = cache.lock(&checksum).expect("nobody else");
        fs::write(cache.blob(&checksum), "hello\n").expect("a content");
        for time in ["replaced", "made again"] {
            cache.link(COMMIT, "config.json", &checksum).expect("linked");
            assert_eq!(cache.knows(COMMIT, "config.json"), Some(true), "{time}");
        }
    }

    #[test]
    fn patience_ends_when_nothing_more_comes() {
        let start = Instant::now();
        let parts = |length| move || vec![(PathBuf::from("part"), length)];
        let mut patience = Patience { since: start, parts: parts(1)() };
        let after = |periods| start + (LOCK_TIMEOUT + Duration::from_secs(1)) * periods;
        assert!(!patience.is_over(start + LOCK_TIMEOUT, parts(1)), "its time is not over");
        assert!(!patience.is_over(after(1), parts(2)), "more has come");
        assert!(!patience.is_over(after(1) + LOCK_TIMEOUT, parts(2)), "so it has its time again");
        assert!(patience.is_over(after(2), parts(2)), "nothing has come since");
    }
}
