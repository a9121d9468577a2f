//! Why an input can't be embedded.

use std::time::Duration;

use clipmesh_proto::code::Reason;

/// Why an input can't be embedded. It is the caller's to mend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("set neither `image` nor `text`")]
    Missing,
    #[error("is empty")]
    Empty,
    #[error("is not an image of a known format")]
    NotAnImage,
    #[error("the {format} file can't be decoded: {message}")]
    Corrupt { format: &'static str, message: String },
    #[error("{message} is not supported; send {}", super::decode::FORMATS)]
    Unsupported { message: String },
    #[error("is {actual} bytes long, at most {max} are accepted")]
    TooManyBytes { actual: u64, max: u64 },
    #[error("has {width} x {height} pixels, at most {max} in all are accepted")]
    TooManyPixels { width: u32, height: u32, max: u64 },
    #[error("takes longer than {max:?} to decode")]
    TooSlow { max: Duration },
    #[error("goes over its {width} x {height} pixels {scans} times, at most {max} are accepted")]
    TooManyScans { width: u32, height: u32, scans: u32, max: u32 },
    #[error("is {actual} bytes long, at most {max} are accepted")]
    TextTooLong { actual: u64, max: u64 },
    #[error("is a text, and the model takes pictures only")]
    PicturesOnly,
}

impl Fault {
    /// The fault's name for programs.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Missing => Reason::Missing,
            Self::Empty => Reason::Empty,
            Self::NotAnImage => Reason::NotAnImage,
            Self::Corrupt { .. } => Reason::Corrupt,
            Self::Unsupported { .. } | Self::PicturesOnly => Reason::Unsupported,
            Self::TooManyBytes { .. } => Reason::TooManyBytes,
            Self::TooManyPixels { .. } => Reason::TooManyPixels,
            Self::TooSlow { .. } | Self::TooManyScans { .. } => Reason::TooSlow,
            Self::TextTooLong { .. } => Reason::TextTooLong,
        }
    }
}
