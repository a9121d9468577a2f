//! From the bytes of a file to RGB levels, by the rules of the reference (Pillow) where it has
//! any: the first frame of an animation counts, and [`levels`] has the rest.

mod avif;
#[cfg(feature = "heic")]
mod heic;
mod icc;
mod jpeg;
mod levels;
mod other;
mod webp;

use image::ImageFormat;

use super::deadline::Deadline;
use super::orient::Orientation;
use super::{Fault, Rgb};
use crate::model::Preprocessing;

/// What is read, for people.
#[cfg(not(feature = "heic"))]
pub(super) const FORMATS: &str = "JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF";
#[cfg(feature = "heic")]
pub(super) const FORMATS: &str = "JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF or HEIC";

/// Brands of HEVC's pictures, and those of files that hold any kind.
const HEIC_BRANDS: [&[u8; 4]; 5] = [b"heic", b"heix", b"hevc", b"mif1", b"msf1"];

/// What the `image` crate reads, and what it is called in answers.
const NAMES: [(ImageFormat, &str); 5] = [
    (ImageFormat::Png, "png"),
    (ImageFormat::WebP, "webp"),
    (ImageFormat::Gif, "gif"),
    (ImageFormat::Bmp, "bmp"),
    (ImageFormat::Tiff, "tiff"),
];

/// A picture as it is stored: not yet turned upright.
#[derive(Debug)]
pub(super) struct Decoded {
    /// Of the full size, or shrunk.
    pub(super) rgb: Rgb,
    /// By what it was shrunk: at most 1, which is not at all.
    pub(super) factor: f64,
    /// The full width and height.
    pub(super) size: (u32, u32),
    pub(super) orientation: Orientation,
    pub(super) format: &'static str,
}

/// How to decode.
#[derive(Debug)]
pub(super) struct Options<'a> {
    /// Of the full size.
    pub(super) max_pixels: u64,
    pub(super) deadline: Deadline,
    /// What a picture may be shrunk for, while it is decoded.
    pub(super) shrink_to: Option<&'a Preprocessing>,
}

/// How a file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Jpeg,
    Avif,
    Heic,
    Other(ImageFormat, &'static str),
}

/// Decodes a file.
pub(super) fn decode(bytes: &[u8], options: &Options<'_>) -> Result<Decoded, Fault> {
    let decoded = match Kind::of(bytes)? {
        Kind::Jpeg => jpeg::decode(bytes, options),
        Kind::Avif => avif::decode(bytes, options),
        #[cfg(feature = "heic")]
        Kind::Heic => heic::decode(bytes, options),
        #[cfg(not(feature = "heic"))]
        Kind::Heic => Err(unsupported("HEIC")),
        Kind::Other(format, name) => other::decode(bytes, format, name, options),
    }?;
    options.deadline.check()?;
    Ok(decoded)
}

// === impl Options ===

impl Options<'_> {
    /// Whether a picture of this size may be decoded.
    fn check_size(&self, format: &'static str, width: u32, height: u32) -> Result<(), Fault> {
        if u64::from(width) * u64::from(height) > self.max_pixels {
            return Err(Fault::TooManyPixels { width, height, max: self.max_pixels });
        }
        if width == 0 || height == 0 {
            return Err(Fault::Corrupt { format, message: "it has no pixels".to_owned() });
        }
        Ok(())
    }
}

// === impl Kind ===

impl Kind {
    /// Finds the format in the first bytes; a file's name counts for nothing.
    fn of(bytes: &[u8]) -> Result<Self, Fault> {
        if avif::is_avif(bytes) {
            return Ok(Self::Avif);
        }
        if bytes.get(4..12).is_some_and(is_heic) {
            return Ok(Self::Heic);
        }
        let format = image::guess_format(bytes).map_err(|_| Fault::NotAnImage)?;
        if format == ImageFormat::Jpeg {
            return Ok(Self::Jpeg);
        }
        let name = NAMES.iter().find(|&&(known, _)| known == format).map(|&(_, name)| name);
        let name = name.ok_or_else(|| unsupported(&format!("{format:?}")))?;
        Ok(Self::Other(format, name))
    }
}

fn is_heic(name: &[u8]) -> bool {
    name.strip_prefix(b"ftyp")
        .is_some_and(|brand| HEIC_BRANDS.iter().any(|known| known.as_slice() == brand))
}

fn unsupported(message: &str) -> Fault {
    Fault::Unsupported { message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_decide_the_format() {
        assert_eq!(Kind::of(b"just some text"), Err(Fault::NotAnImage), "text");
        let heic = b"\0\0\0\x18ftypheic\0\0\0\0";
        assert_eq!(Kind::of(heic), Ok(Kind::Heic), "known");
        assert!(
            matches!(Kind::of(b"qoif0000"), Err(Fault::Unsupported { .. })),
            "known, but not read"
        );
        assert_eq!(Kind::of(b"GIF89a"), Ok(Kind::Other(ImageFormat::Gif, "gif")), "read");
    }
}
