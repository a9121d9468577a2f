//! From the bytes of an image file to the model's input.
//!
//! ```text
//!   bytes ─► limits, format, header ─► pixels ─► RGB ─► resize, crop ─► turn ─► levels
//!            └──────────── decode ──────────────────┘   └ resize ────┘  └ orient
//! ```
//!
//! Levels stay whole numbers of 0 to 255 up to the device, which normalises them: a quarter of
//! the bytes travel. What is too large is refused from its header, before memory is spent on it.
//! A picture is turned upright after it was made small, which costs nothing.
//!
//! [`Preprocessor`] is the synchronous whole; [`pool::Pool`] runs it on threads of its own.

mod decode;
mod orient;
pub(crate) mod pool;
mod resize;

use clipmesh_proto::code::Reason;

use crate::config::Limits;
use crate::model::Preprocessing;

/// Brings pictures into the form that one model takes.
#[derive(Clone, Debug)]
pub struct Preprocessor {
    preprocessing: Preprocessing,
    limits: Limits,
}

/// A picture that is ready for the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// RGB levels, rows from the top, of the model's square.
    pub levels: Vec<u8>,
    pub info: Info,
}

/// What was learned of a picture on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// In pixels, upright.
    pub width: u32,
    /// In pixels, upright.
    pub height: u32,
    /// `jpeg`, `png`, `webp`, `gif`, `bmp` or `tiff`.
    pub format: &'static str,
}

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
    #[error("{message} is not supported; send JPEG, PNG, WebP, GIF, BMP or TIFF")]
    Unsupported { message: String },
    #[error("is {actual} bytes long, at most {max} are accepted")]
    TooManyBytes { actual: u64, max: u64 },
    #[error("has {width} x {height} pixels, at most {max} in all are accepted")]
    TooManyPixels { width: u32, height: u32, max: u64 },
    #[error("is {actual} bytes long, at most {max} are accepted")]
    TextTooLong { actual: u64, max: u64 },
    #[error("is a text, and the model takes pictures only")]
    PicturesOnly,
}

/// Rows of RGB levels.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rgb {
    width: u32,
    height: u32,
    /// `3 * width * height` bytes.
    levels: Vec<u8>,
}

// === impl Preprocessor ===

impl Preprocessor {
    pub fn new(preprocessing: Preprocessing, limits: Limits) -> Self {
        Self { preprocessing, limits }
    }

    /// Decodes a file and brings it into the model's form. Takes milliseconds to seconds, and up
    /// to about eight bytes of memory per pixel of the file.
    ///
    /// # Errors
    /// Whatever is wrong with the file.
    pub fn picture(&self, bytes: &[u8]) -> Result<Picture, Fault> {
        self.check_image(bytes)?;
        let decoded = decode::decode(bytes, self.limits.max_image_pixels)?;
        let (rgb, orientation, format) = (decoded.rgb, decoded.orientation, decoded.format);
        let (width, height) = orientation.upright_size(rgb.width, rgb.height);
        let plan = resize::Plan::new((width, height), &self.preprocessing);
        let turned = resize::window(&rgb, orientation, &plan, self.preprocessing.filter);
        let upright = orient::turn(turned, orientation);
        let levels = plan.fill(upright).levels;
        Ok(Picture { levels, info: Info { width, height, format } })
    }

    /// What can be said of a file without looking into it.
    ///
    /// # Errors
    /// An empty file, or one that is too long.
    pub fn check_image(&self, bytes: &[u8]) -> Result<(), Fault> {
        let (actual, max) = (bytes.len() as u64, self.limits.max_image_bytes.as_u64());
        if actual == 0 {
            return Err(Fault::Empty);
        }
        if actual > max {
            return Err(Fault::TooManyBytes { actual, max });
        }
        Ok(())
    }

    /// What can be said of a text without reading it.
    ///
    /// # Errors
    /// An empty text, or one that is too long.
    pub fn check_text(&self, text: &str) -> Result<(), Fault> {
        let (actual, max) = (text.len() as u64, self.limits.max_text_bytes.as_u64());
        if actual == 0 {
            return Err(Fault::Empty);
        }
        if actual > max {
            return Err(Fault::TextTooLong { actual, max });
        }
        Ok(())
    }
}

// === impl Fault ===

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
            Self::TextTooLong { .. } => Reason::TextTooLong,
        }
    }
}
