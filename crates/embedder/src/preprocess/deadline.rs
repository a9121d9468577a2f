//! How long one picture may take.
//!
//! A decoder can't be interrupted from outside. What is done instead: its work is bounded before
//! it begins (pixels, scans), the bytes that it reads come in pieces with a look at the clock
//! before each, and between the stages of preprocessing the clock is looked at, too. Between two
//! looks pass at most the decoding of one piece or, of formats that are decoded in one go (JPEG,
//! WebP, AVIF, HEIC), that of the picture.

use std::io::{self, BufRead, Read, Seek, SeekFrom};
use std::time::Duration;

use tokio::time::Instant;

use super::Fault;

/// Deflate turns this into 16 MiB at most, which takes milliseconds.
const PIECE_BYTES: usize = 16 << 10;

/// When a picture must be done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    /// `None` for a time beyond all clocks.
    at: Option<Instant>,
    /// How long that was in the beginning.
    max: Duration,
}

/// The bytes of a file, until time is up.
#[derive(Debug)]
pub(super) struct Timed<'a> {
    inner: io::Cursor<&'a [u8]>,
    deadline: Deadline,
}

// === impl Deadline ===

impl Deadline {
    pub(super) fn after(max: Duration) -> Self {
        Self { at: Instant::now().checked_add(max), max }
    }

    /// # Errors
    /// Time is up.
    pub(super) fn check(&self) -> Result<(), Fault> {
        match self.at {
            Some(at) if Instant::now() >= at => Err(Fault::TooSlow { max: self.max }),
            Some(_) | None => Ok(()),
        }
    }

    pub(super) fn reader<'a>(&self, bytes: &'a [u8]) -> Timed<'a> {
        Timed { inner: io::Cursor::new(bytes), deadline: *self }
    }
}

// === impl Timed ===

impl Timed<'_> {
    fn check(&self) -> io::Result<()> {
        self.deadline.check().map_err(|fault| io::Error::new(io::ErrorKind::TimedOut, fault))
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.check()?;
        let len = buffer.len().min(PIECE_BYTES);
        self.inner.read(&mut buffer[..len])
    }
}

impl BufRead for Timed<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.check()?;
        let bytes = self.inner.fill_buf()?;
        Ok(&bytes[..bytes.len().min(PIECE_BYTES)])
    }

    fn consume(&mut self, amount: usize) {
        self.inner.consume(amount);
    }
}

impl Seek for Timed<'_> {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.inner.seek(position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_end_when_time_is_up() {
        let max = Duration::from_millis(1);
        let mut reader = Deadline::after(Duration::MAX).reader(&[7; 3 * PIECE_BYTES]);
        let mut piece = vec![0; 2 * PIECE_BYTES];
        assert_eq!(reader.read(&mut piece).ok(), Some(PIECE_BYTES), "a piece at a time");
        assert_eq!(reader.fill_buf().map(<[u8]>::len).ok(), Some(PIECE_BYTES), "here, too");
        reader.deadline = Deadline { at: Some(Instant::now()), max };
        let kind = |result: io::Result<usize>| result.map_err(|error| error.kind());
        assert_eq!(kind(reader.read(&mut piece)), Err(io::ErrorKind::TimedOut), "no more");
        assert_eq!(reader.deadline.check(), Err(Fault::TooSlow { max }), "nor another stage");
    }
}
