//! Brings one content into the cache, in as many attempts as it takes.

use std::io::{self, Read};
use std::path::Path;
use std::thread;
use std::time::Duration;

use super::client::{Client, Failure, Metadata};
use super::part::{Part, Settled};
use super::progress::Progress;

/// After so many attempts in a row that brought nothing, it is given up.
const VAIN_ATTEMPTS: u32 = 3;
/// Before the attempt after one in vain; doubled each time.
const RETRY_DELAY: Duration = Duration::from_millis(500);

const READ_AT_ONCE: usize = 1 << 18;

/// One content, from where it lies to where it will be.
struct Download<'a> {
    client: &'a Client,
    address: &'a str,
    size: u64,
    blob: &'a Path,
}

/// Downloads a content to `blob`, which should be locked. It is there afterwards, complete and
/// verified, or not at all; what came of it is kept beside it for the next time.
pub(super) fn download(
    client: &Client,
    address: &str,
    metadata: &Metadata,
    blob: &Path,
) -> Result<(), Failure> {
    let download = Download { client, address, size: metadata.size, blob };
    let at = |cause| download.failure(cause);
    let mut part = Part::inherit(blob, metadata.size).map_err(at)?;
    loop {
        let outcome = download.complete(&mut part);
        if outcome.is_err() {
            part.leave();
            return outcome;
        }
        let is_inherited = part.is_inherited();
        match part.settle(&metadata.checksum, blob).map_err(at)? {
            Settled::Kept => return Ok(()),
            Settled::Wrong if !is_inherited => return Err(Failure::Checksum),
            settled @ (Settled::Wrong | Settled::Taken) => {
                tracing::warn!(address, ?settled, "a part was of no use, the download starts over");
            }
        }
        part = Part::new(blob).map_err(at)?;
    }
}

// === impl Download ===

impl Download<'_> {
    fn complete(&self, part: &mut Part) -> Result<(), Failure> {
        let name = self.address.rsplit('/').next().unwrap_or(self.address);
        let mut progress = Progress::start(name, part.received(), self.size);
        let mut vain_attempts = 0;
        while part.received() < self.size {
            let before = part.received();
            let Err(failure) = self.go_on(part, &mut progress) else { continue };
            let Failure::Interrupted { cause, .. } = &failure else { return Err(failure) };
            vain_attempts = if part.received() > before { 0 } else { vain_attempts + 1 };
            if vain_attempts == VAIN_ATTEMPTS {
                return Err(failure);
            }
            let received = part.received();
            tracing::warn!(cause, received, "download interrupted, it goes on");
            if vain_attempts > 0 {
                thread::sleep(RETRY_DELAY * (1 << (vain_attempts - 1)));
            }
        }
        Ok(())
    }

    /// One attempt.
    fn go_on(&self, part: &mut Part, progress: &mut Progress) -> Result<(), Failure> {
        let at = |cause| self.failure(cause);
        let answer = self.client.read(self.address, part.received());
        let (start, content) = answer.map_err(|failure| self.broken(failure, part))?;
        if start != part.received() {
            part.restart().map_err(at)?;
            progress.restart();
        }
        // What would come beyond the size is never asked for.
        let mut content = content.take(self.size - part.received());
        let mut buffer = vec![0; READ_AT_ONCE];
        while part.received() < self.size {
            let length = match content.read(&mut buffer) {
                Ok(0) => return Err(self.interrupted("the connection was closed", part)),
                Ok(length) => length,
                Err(error) => return Err(self.interrupted(&error.to_string(), part)),
            };
            part.append(&buffer[..length]).map_err(at)?;
            progress.advance(length as u64);
        }
        Ok(())
    }

    /// A hub that is gone in the middle is a download that was interrupted.
    fn broken(&self, failure: Failure, part: &Part) -> Failure {
        match failure {
            Failure::Unreachable(cause) => self.interrupted(&cause, part),
            other @ (Failure::Status { .. }
            | Failure::Malformed(_)
            | Failure::Interrupted { .. }
            | Failure::Checksum
            | Failure::Cache { .. }) => other,
        }
    }

    fn interrupted(&self, cause: &str, part: &Part) -> Failure {
        let (received, size) = (part.received(), self.size);
        Failure::Interrupted { received, size, cause: cause.to_owned() }
    }

    fn failure(&self, cause: io::Error) -> Failure {
        Failure::Cache { path: self.blob.to_owned(), cause }
    }
}
