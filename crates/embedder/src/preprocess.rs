//! From the bytes of an image file to the model's input.
//!
//! ```text
//!   bytes ─► limits, format, header ─► pixels ─► RGB ─► resize, crop ─► turn ─► levels
//!            └──────────── decode ──────────────────┘   └ resize ────┘  └ orient
//!                                                 └──► turn ─► facts, thumbnail, if wanted
//! ```
//!
//! Levels stay whole numbers of 0 to 255 up to the device, which normalises them: a quarter of
//! the bytes travel. What is too large is refused from its header, before memory is spent on it.
//! A picture is turned upright after it was made small, which costs nothing.
//!
//! [`Preprocessor`] is the synchronous whole; [`pool::Pool`] runs it on threads of its own.

mod deadline;
mod decode;
mod facts;
mod fault;
mod orient;
pub(crate) mod pool;
mod resize;
mod scratch;
mod thumbnail;

use crate::config::Limits;
use crate::model::Preprocessing;
use deadline::Deadline;
use decode::Decoded;

pub use facts::Facts;
pub use fault::Fault;

/// Brings pictures into the form that one model takes.
#[derive(Clone, Debug)]
pub struct Preprocessor {
    preprocessing: Preprocessing,
    limits: Limits,
}

/// What else is asked of a picture. It is made of the pixels that the model's input is made of,
/// and costs nothing where it is not wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The hashes of [`Info::facts`]. Cost about as much as decoding a PNG does.
    pub facts: bool,
    /// A small JPEG whose longest side has at most so many pixels.
    pub thumbnail_side: Option<u32>,
}

/// A picture that is ready for the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// RGB levels, rows from the top, of the model's square.
    pub levels: Vec<u8>,
    pub info: Info,
    /// A JPEG, if one was wanted.
    pub thumbnail: Option<Vec<u8>>,
}

/// What was learned of a picture on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// In pixels, upright.
    pub width: u32,
    /// In pixels, upright.
    pub height: u32,
    /// `jpeg`, `png`, `webp`, `gif`, `bmp`, `tiff`, `avif` or `heic`.
    pub format: &'static str,
    /// If they were wanted.
    pub facts: Option<Facts>,
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
    /// to about eleven bytes of memory per pixel of the file.
    ///
    /// # Errors
    /// Whatever is wrong with the file.
    pub fn picture(&self, bytes: &[u8]) -> Result<Picture, Fault> {
        self.picture_with(bytes, &Wanted::default())
    }

    /// The same, with more than the model needs.
    ///
    /// # Errors
    /// Whatever is wrong with the file.
    pub fn picture_with(&self, bytes: &[u8], wanted: &Wanted) -> Result<Picture, Fault> {
        self.check_image(bytes)?;
        let deadline = Deadline::after(self.limits.max_decode_time);
        let may_shrink = self.preprocessing.jpeg_scaling && *wanted == Wanted::default();
        let options = decode::Options {
            max_pixels: self.limits.max_image_pixels,
            deadline,
            shrink_to: may_shrink.then_some(&self.preprocessing),
        };
        let decoded = decode::decode(bytes, &options)?;
        let levels = self.levels(&decoded);
        let Decoded { rgb, size, orientation, format, .. } = decoded;
        let (width, height) = orientation.upright_size(size.0, size.1);
        let (mut facts, mut thumbnail) = (None, None);
        let picture = if *wanted == Wanted::default() {
            rgb
        } else {
            deadline.check()?;
            let upright = orient::turn(rgb, orientation);
            facts = wanted.facts.then(|| facts::of(bytes, &upright));
            thumbnail = wanted.thumbnail_side.and_then(|side| thumbnail::of(&upright, side));
            upright
        };
        scratch::give_back(picture.levels);
        Ok(Picture { levels, info: Info { width, height, format, facts }, thumbnail })
    }

    fn levels(&self, decoded: &Decoded) -> Vec<u8> {
        let &Decoded { ref rgb, factor, size, orientation, .. } = decoded;
        let full = orientation.upright_size(size.0, size.1);
        let actual = orientation.upright_size(rgb.width, rgb.height);
        let plan = resize::Plan::new(full, &self.preprocessing).of_shrunk(actual, factor);
        let turned = resize::window(rgb, orientation, &plan, self.preprocessing.filter);
        plan.fill(orient::turn(turned, orientation)).levels
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
