//! Brings one content into the cache, in as many attempts as it takes.

use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::path::Path;
use std::thread;
use std::time::Duration;

use super::client::{Client, Failure, Metadata};
use super::progress::Progress;

/// After so many attempts in a row that brought nothing, it is given up.
const VAIN_ATTEMPTS: u32 = 3;
/// Before the attempt after one in vain; doubled each time.
const RETRY_DELAY: Duration = Duration::from_millis(500);

const READ_AT_ONCE: usize = 1 << 18;

/// A content that is not complete yet, beside where it will be.
struct Part<'a> {
    path: &'a Path,
    file: File,
    received: u64,
    size: u64,
}

/// Downloads a content to `blob`, which must be locked. It is there afterwards, complete and
/// verified, or not at all; what came of it is kept beside it for the next time.
pub(super) fn download(
    client: &Client,
    address: &str,
    metadata: &Metadata,
    blob: &Path,
) -> Result<(), Failure> {
    let path = blob.with_extension("incomplete");
    let at = |cause| Failure::Cache { path: path.clone(), cause };
    let mut part = Part::open(&path, metadata.size).map_err(at)?;
    let name = address.rsplit('/').next().unwrap_or(address);
    let mut progress = Progress::start(name, part.received, part.size);
    part.complete(client, address, &mut progress)?;
    part.file.sync_all().map_err(at)?;
    drop(progress);
    if !metadata.checksum.fits(&path).map_err(at)? {
        fs::remove_file(&path).map_err(at)?;
        return Err(Failure::Checksum);
    }
    fs::rename(&path, blob).map_err(at)
}

// === impl Part ===

impl<'a> Part<'a> {
    fn open(path: &'a Path, size: u64) -> io::Result<Self> {
        let file = File::options().create(true).append(true).open(path)?;
        let mut part = Self { path, received: file.metadata()?.len(), file, size };
        if part.received > size {
            part.restart()?;
        }
        Ok(part)
    }

    fn restart(&mut self) -> io::Result<()> {
        self.received = 0;
        self.file.set_len(0)
    }

    fn complete(
        &mut self,
        client: &Client,
        address: &str,
        progress: &mut Progress,
    ) -> Result<(), Failure> {
        let mut vain_attempts = 0;
        while self.received < self.size {
            let before = self.received;
            let Err(failure) = self.go_on(client, address, progress) else { continue };
            let Failure::Interrupted { cause, .. } = &failure else { return Err(failure) };
            vain_attempts = if self.received > before { 0 } else { vain_attempts + 1 };
            if vain_attempts == VAIN_ATTEMPTS {
                return Err(failure);
            }
            tracing::warn!(cause, received = self.received, "download interrupted, it goes on");
            if vain_attempts > 0 {
                thread::sleep(RETRY_DELAY * (1 << (vain_attempts - 1)));
            }
        }
        Ok(())
    }

    /// One attempt.
    fn go_on(
        &mut self,
        client: &Client,
        address: &str,
        progress: &mut Progress,
    ) -> Result<(), Failure> {
        let path = self.path;
        let at = |cause| Failure::Cache { path: path.to_owned(), cause };
        let (start, content) =
            client.read(address, self.received).map_err(|failure| self.broken(failure))?;
        if start != self.received {
            self.restart().map_err(at)?;
            progress.restart();
        }
        // What would come beyond the size is never asked for.
        let mut content = content.take(self.size - self.received);
        let mut buffer = vec![0; READ_AT_ONCE];
        while self.received < self.size {
            let length = match content.read(&mut buffer) {
                Ok(0) => return Err(self.interrupted("the connection was closed")),
                Ok(length) => length,
                Err(error) => return Err(self.interrupted(&error.to_string())),
            };
            self.file.write_all(&buffer[..length]).map_err(at)?;
            self.received += length as u64;
            progress.advance(length as u64);
        }
        Ok(())
    }

    /// A hub that is gone in the middle is a download that was interrupted.
    fn broken(&self, failure: Failure) -> Failure {
        match failure {
            Failure::Unreachable(cause) => self.interrupted(&cause),
            other @ (Failure::Status { .. }
            | Failure::Malformed(_)
            | Failure::Interrupted { .. }
            | Failure::Checksum
            | Failure::Cache { .. }) => other,
        }
    }

    fn interrupted(&self, cause: &str) -> Failure {
        Failure::Interrupted { received: self.received, size: self.size, cause: cause.to_owned() }
    }
}
