//! A content on its way into the cache, as a file beside where it will be.
//!
//! ```text
//!   blobs/CHECKSUM.incomplete        left by another tool
//!   blobs/CHECKSUM.NAME.incomplete   of a download of ours that goes on, or was given up or killed
//!   blobs/CHECKSUM                   verified
//! ```
//!
//! The lock of the cache lets one process at a time download a content. There are network file
//! systems on which locks are not seen by other machines, so nothing here relies on it: every
//! download writes to a file that it has made itself, and copies what an earlier one left. Whoever
//! still writes to the original then writes to a file that has lost its name, never to one that
//! was verified.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::cache::Checksum;

const EXTENSION: &str = "incomplete";

/// A content that is not complete yet.
#[derive(Debug)]
pub(super) struct Part {
    path: PathBuf,
    file: File,
    received: u64,
    /// Whether some of it was received by an earlier download.
    is_inherited: bool,
}

/// What became of a part that is as long as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// The content is in the cache.
    Kept,
    /// It had another checksum, and is gone.
    Wrong,
    /// Another process took it over before it was complete.
    Taken,
}

// === impl Part ===

impl Part {
    /// Nothing yet of what will be `blob`.
    pub(super) fn new(blob: &Path) -> io::Result<Self> {
        let path = blob.with_extension(format!("{}.{EXTENSION}", Uuid::new_v4().simple()));
        let file = File::options().read(true).append(true).create_new(true).open(&path)?;
        Ok(Self { path, file, received: 0, is_inherited: false })
    }

    /// Goes on with the longest part that an earlier download left, if there is one.
    pub(super) fn inherit(blob: &Path, size: u64) -> io::Result<Self> {
        let mut part = Self::new(blob)?;
        let mut left = parts_of(blob)?;
        left.retain(|(path, length)| *path != part.path && (1..=size).contains(length));
        left.sort_by_key(|(_, length)| *length);
        while let Some((path, length)) = left.pop() {
            match take(&path) {
                Ok(left) => {
                    part.received = io::copy(&mut left.take(length), &mut part.file)?;
                    part.is_inherited = true;
                    break;
                }
                // Another process was faster.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(part)
    }

    /// How much of it is here.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    pub(super) fn is_inherited(&self) -> bool {
        self.is_inherited
    }

    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.received += bytes.len() as u64;
        Ok(())
    }

    /// Forgets what is here.
    pub(super) fn restart(&mut self) -> io::Result<()> {
        self.received = 0;
        self.is_inherited = false;
        self.file.set_len(0)
    }

    /// Gives up. What is here is for the next download.
    pub(super) fn leave(self) {
        if self.received == 0
            && let Err(error) = remove(&self.path)
        {
            // Whoever finishes the content removes it too.
            tracing::debug!(%error, path = %self.path.display(), "an empty part is left");
        }
    }

    /// Verifies the content, and gives it its name if it is right.
    pub(super) fn settle(mut self, checksum: &Checksum, blob: &Path) -> io::Result<Settled> {
        self.file.sync_all()?;
        if !checksum.fits(&mut self.file)? {
            remove(&self.path)?;
            return Ok(Settled::Wrong);
        }
        match fs::rename(&self.path, blob) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound && blob.exists() => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Settled::Taken),
            Err(error) => return Err(error),
        }
        for (path, _) in parts_of(blob)? {
            remove(&path)?;
        }
        Ok(Settled::Kept)
    }
}

/// The parts of what will be `blob`, whosever they are, and how long they are; in order.
pub(super) fn parts_of(blob: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let (Some(folder), Some(name)) = (blob.parent(), blob.file_name()) else { return Ok(vec![]) };
    let mut parts = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        // The first part of a name is the content's checksum.
        let is_part = path.file_prefix() == Some(name)
            && path.extension().is_some_and(|extension| extension == EXTENSION);
        // One that is gone by now is none.
        if let Some(metadata) = is_part.then(|| path.metadata().ok()).flatten() {
            parts.push((path, metadata.len()));
        }
    }
    parts.sort();
    Ok(parts)
}

/// Takes a file's name away; of several who try, one succeeds.
fn take(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    fs::remove_file(path)?;
    Ok(file)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTENT: &[u8] = b"hello\n";
    /// What `printf 'hello\n' | sha256sum` prints.
    const SHA256: &str = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";

    struct Fixture {
        folder: tempfile::TempDir,
        checksum: Checksum,
    }

    impl Fixture {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            Self { folder, checksum: Checksum::parse(SHA256).expect("a checksum") }
        }

        fn blob(&self) -> PathBuf {
            self.folder.path().join(SHA256)
        }

        fn inherit(&self) -> Part {
            Part::inherit(&self.blob(), CONTENT.len() as u64).expect("a part")
        }

        fn settle(&self, part: Part) -> Settled {
            part.settle(&self.checksum, &self.blob()).expect("readable")
        }

        fn lengths(&self) -> Vec<u64> {
            let parts = parts_of(&self.blob()).expect("readable");
            parts.into_iter().map(|(_, length)| length).collect()
        }

        /// Fails unless the content is there, and nothing else.
        fn expect_complete(&self) {
            assert_eq!(fs::read(self.blob()).expect("a content"), CONTENT, "the content");
            assert!(self.lengths().is_empty(), "nothing half done is left");
        }
    }

    #[test]
    fn one_download_goes_on_with_what_was_left_and_another_starts_anew() {
        let fixture = Fixture::new();
        let mut killed = fixture.inherit();
        killed.append(b"hel").expect("written");
        drop(killed);
        let (mut heir, other) = (fixture.inherit(), Part::new(&fixture.blob()).expect("a part"));
        assert_eq!((heir.received(), heir.is_inherited()), (3, true), "what was left");
        assert_eq!((other.received(), other.is_inherited()), (0, false), "not taken twice");
        other.leave();
        assert_eq!(fixture.lengths(), [3], "a part with nothing in it is of no use");
        heir.append(b"lo\n").expect("written");
        assert_eq!(fixture.settle(heir), Settled::Kept, "complete");
        fixture.expect_complete();
    }

    #[test]
    fn what_another_tool_left_is_gone_on_with_unless_it_is_too_long() {
        let fixture = Fixture::new();
        let left = fixture.blob().with_extension("incomplete");
        fs::write(&left, "hello\n, and more").expect("written");
        assert_eq!(fixture.inherit().received(), 0, "not of this content");
        fs::write(&left, "hell").expect("written");
        assert_eq!(fixture.inherit().received(), 4, "the longest");
        let other = fixture.folder.path().join("0123").with_extension("incomplete");
        fs::write(&other, "hello").expect("written");
        assert_eq!(fixture.inherit().received(), 4, "nothing of another content");
    }

    #[test]
    fn a_verified_content_is_not_changed_by_who_wrote_the_part_that_was_taken_over() {
        let fixture = Fixture::new();
        let mut robbed = fixture.inherit();
        robbed.append(b"hello").expect("written");
        let mut heir = fixture.inherit();
        heir.append(b"\n").expect("written");
        assert_eq!(fixture.settle(heir), Settled::Kept, "complete");
        robbed.append(b"\n").expect("written");
        assert_eq!(fixture.settle(robbed), Settled::Kept, "there, if not by this process");
        fixture.expect_complete();
    }

    #[test]
    fn a_part_that_was_taken_over_does_not_become_a_content() {
        let fixture = Fixture::new();
        let mut robbed = fixture.inherit();
        robbed.append(b"hello").expect("written");
        let heir = fixture.inherit();
        robbed.append(b"\n").expect("written");
        assert_eq!(fixture.settle(robbed), Settled::Taken, "it has no name any more");
        assert!(!fixture.blob().exists(), "the heir is not done");
        assert_eq!(heir.received(), 5, "it goes on");
    }

    #[test]
    fn a_wrong_content_is_not_kept() {
        let fixture = Fixture::new();
        let mut part = fixture.inherit();
        part.append(b"hullo\n").expect("written");
        assert_eq!(fixture.settle(part), Settled::Wrong, "another checksum");
        assert!(fixture.lengths().is_empty(), "nothing to go on with");
        assert!(!fixture.blob().exists(), "nothing to trust");
        let mut part = Part::new(&fixture.blob()).expect("a part");
        part.append(b"hullo").expect("written");
        part.restart().expect("emptied");
        part.append(CONTENT).expect("written");
        assert_eq!(fixture.settle(part), Settled::Kept, "from the start again");
        fixture.expect_complete();
    }
}
