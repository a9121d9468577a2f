//! From the bytes of a file to RGB levels, by the rules of the reference (Pillow) where it has
//! any: 16-bit levels lose their low byte, transparency is laid on white, CMYK and grey become
//! RGB, the first frame of an animation counts.

mod jpeg;
mod webp;

use std::io::Cursor;

use image::error::{ImageError, UnsupportedError};
use image::{ColorType, DynamicImage, ImageDecoder as _, ImageFormat, ImageReader, Limits};

use super::orient::Orientation;
use super::{Fault, Rgb};

/// Memory that a decoder may take besides the picture itself, for its tables and metadata.
const DECODER_BYTES: u64 = 64 << 20;

/// The most bytes that a decoder holds per pixel: four channels of 16 bits.
const MAX_BYTES_PER_PIXEL: u64 = 8;

/// White, on which transparency is laid.
const WHITE: u32 = 255;

/// What is read, and what it is called in answers.
const NAMES: [(ImageFormat, &str); 6] = [
    (ImageFormat::Jpeg, "jpeg"),
    (ImageFormat::Png, "png"),
    (ImageFormat::WebP, "webp"),
    (ImageFormat::Gif, "gif"),
    (ImageFormat::Bmp, "bmp"),
    (ImageFormat::Tiff, "tiff"),
];

/// A picture as it is stored: not yet turned upright.
#[derive(Debug)]
pub(super) struct Decoded {
    pub(super) rgb: Rgb,
    pub(super) orientation: Orientation,
    pub(super) format: &'static str,
}

/// Decodes a file of at most `max_pixels`.
pub(super) fn decode(bytes: &[u8], max_pixels: u64) -> Result<Decoded, Fault> {
    let (format, name) = format(bytes)?;
    if format == ImageFormat::WebP {
        webp::check(bytes, max_pixels)?;
    }
    let fault = |error| fault(name, error);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(max_pixels.saturating_mul(MAX_BYTES_PER_PIXEL) + DECODER_BYTES);
    reader.limits(limits);
    // Reads no further than the header.
    let mut decoder = reader.into_decoder().map_err(fault)?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > max_pixels {
        return Err(Fault::TooManyPixels { width, height, max: max_pixels });
    }
    if matches!(decoder.color_type(), ColorType::Rgb32F | ColorType::Rgba32F) {
        let message = "a picture of floating-point levels".to_owned();
        return Err(Fault::Unsupported { message });
    }
    if width == 0 || height == 0 {
        return Err(Fault::Corrupt { format: name, message: "it has no pixels".to_owned() });
    }
    if format == ImageFormat::Jpeg && !is_whole_jpeg(bytes) {
        return Err(Fault::Corrupt { format: name, message: "it ends early".to_owned() });
    }
    // Metadata that can't be read is no reason to refuse a picture.
    let orientation = decoder.orientation().map(Orientation::from).unwrap_or_default();
    let exact = (format == ImageFormat::Jpeg).then(|| jpeg::rgb(bytes, width, height)).flatten();
    let rgb = match exact {
        Some(rgb) => rgb,
        None => rgb(DynamicImage::from_decoder(decoder).map_err(fault)?)?,
    };
    Ok(Decoded { rgb, orientation, format: name })
}

/// Finds the format in the first bytes; a file's name counts for nothing.
fn format(bytes: &[u8]) -> Result<(ImageFormat, &'static str), Fault> {
    let unsupported = |message: &str| Fault::Unsupported { message: message.to_owned() };
    let Ok(format) = image::guess_format(bytes) else {
        return Err(match bytes.get(4..12) {
            Some(b"ftypheic" | b"ftypheix" | b"ftypmif1" | b"ftypmsf1") => unsupported("HEIC"),
            _ => Fault::NotAnImage,
        });
    };
    let name = NAMES.iter().find(|&&(known, _)| known == format).map(|&(_, name)| name);
    let name = name.ok_or_else(|| unsupported(&format!("{format:?}")))?;
    Ok((format, name))
}

fn fault(format: &'static str, error: ImageError) -> Fault {
    match error {
        ImageError::Unsupported(error) => Fault::Unsupported { message: describe(format, &error) },
        ImageError::Decoding(_)
        | ImageError::Encoding(_)
        | ImageError::Parameter(_)
        | ImageError::Limits(_)
        | ImageError::IoError(_) => Fault::Corrupt { format, message: error.to_string() },
    }
}

fn describe(format: &str, error: &UnsupportedError) -> String {
    format!("this kind of {format} ({error})")
}

/// Whether a JPEG's data go on to its end marker. The decoder fills what is missing with grey,
/// and a picture that is half grey would be found by nothing.
///
/// Walks from marker to marker (ITU-T T.81, annex B); what follows the end is nobody's concern.
fn is_whole_jpeg(bytes: &[u8]) -> bool {
    const END_OF_IMAGE: u8 = 0xD9;
    const START_OF_SCAN: u8 = 0xDA;
    // Behind the start marker.
    let mut at = 2;
    loop {
        // In front of a marker stands nothing, or what is left of a scan. There, 0xFF is followed
        // by zero where it is data; restart markers belong to the scan, too.
        let Some(marker) = next_marker(bytes, &mut at) else { return false };
        match marker {
            END_OF_IMAGE => return true,
            // Alone; nothing follows.
            0x00 | 0x01 | 0xD0..=0xD8 => {}
            START_OF_SCAN | 0x02..=0xFE => {
                let Some(&[high, low]) = bytes.get(at..at + 2) else { return false };
                at += usize::from(u16::from_be_bytes([high, low])).max(2);
            }
            // A fill byte: the marker itself comes next.
            0xFF => at -= 1,
        }
    }
}

/// The byte behind the next 0xFF, and moves behind it.
fn next_marker(bytes: &[u8], at: &mut usize) -> Option<u8> {
    let rest = bytes.get(*at..)?;
    let found = rest.iter().position(|&byte| byte == 0xFF)?;
    let marker = *rest.get(found + 1)?;
    *at += found + 2;
    Some(marker)
}

fn rgb(image: DynamicImage) -> Result<Rgb, Fault> {
    let (width, height) = (image.width(), image.height());
    let levels = match image {
        DynamicImage::ImageRgb8(image) => image.into_raw(),
        DynamicImage::ImageLuma8(image) => grey(image.into_raw().into_iter()),
        DynamicImage::ImageLumaA8(image) => grey_on_white(image.into_raw().into_iter()),
        DynamicImage::ImageRgba8(image) => on_white(image.into_raw().into_iter()),
        DynamicImage::ImageLuma16(image) => grey(high_bytes(image.into_raw())),
        DynamicImage::ImageLumaA16(image) => grey_on_white(high_bytes(image.into_raw())),
        DynamicImage::ImageRgb16(image) => high_bytes(image.into_raw()).collect(),
        DynamicImage::ImageRgba16(image) => on_white(high_bytes(image.into_raw())),
        DynamicImage::ImageRgb32F(_) | DynamicImage::ImageRgba32F(_) | _ => {
            return Err(Fault::Unsupported {
                message: "a picture of floating-point levels".to_owned(),
            });
        }
    };
    Ok(Rgb { width, height, levels })
}

fn high_bytes(levels: Vec<u16>) -> impl Iterator<Item = u8> {
    levels.into_iter().map(|level| (level >> 8) as u8)
}

fn grey(levels: impl Iterator<Item = u8>) -> Vec<u8> {
    levels.flat_map(|level| [level; 3]).collect()
}

fn grey_on_white(mut levels: impl Iterator<Item = u8>) -> Vec<u8> {
    let mut rgb = Vec::with_capacity(levels.size_hint().0 / 2 * 3);
    while let (Some(level), Some(alpha)) = (levels.next(), levels.next()) {
        rgb.extend([over_white(level, alpha); 3]);
    }
    rgb
}

fn on_white(mut levels: impl Iterator<Item = u8>) -> Vec<u8> {
    let mut rgb = Vec::with_capacity(levels.size_hint().0 / 4 * 3);
    while let (Some(red), Some(green), Some(blue), Some(alpha)) =
        (levels.next(), levels.next(), levels.next(), levels.next())
    {
        rgb.extend([red, green, blue].map(|level| over_white(level, alpha)));
    }
    rgb
}

/// One level seen through its transparency, rounded to the nearest.
fn over_white(level: u8, alpha: u8) -> u8 {
    let alpha = u32::from(alpha);
    let sum = u32::from(level) * alpha + WHITE * (255 - alpha);
    ((sum + 127) / 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transparency_shows_white() {
        assert_eq!(over_white(0, 0), 255, "nothing of a transparent black");
        assert_eq!(over_white(77, 255), 77, "all of an opaque level");
        assert_eq!(over_white(0, 128), 127, "half of each");
        assert_eq!(
            on_white([10, 20, 30, 255, 10, 20, 30, 0].into_iter()),
            [10, 20, 30, 255, 255, 255],
            "per pixel"
        );
        assert_eq!(grey_on_white([9, 255].into_iter()), [9, 9, 9], "grey becomes RGB");
    }

    #[test]
    fn a_jpeg_is_whole_up_to_its_end_marker() {
        // Start, a segment with an end marker inside, a scan with data that look like markers.
        let head = [0xFF, 0xD8, 0xFF, 0xE1, 0, 4, 0xFF, 0xD9, 0xFF, 0xFF, 0xDA, 0, 2];
        let scan = [1, 2, 0xFF, 0x00, 0xFF, 0xD3, 5];
        let cut = [&head[..], &scan].concat();
        assert!(!is_whole_jpeg(&cut), "no end marker of its own");
        assert!(!is_whole_jpeg(&[&cut[..], &[0xFF]].concat()), "half an end marker");
        assert!(is_whole_jpeg(&[&cut[..], &[0xFF, 0xD9]].concat()), "an end marker");
        assert!(
            is_whole_jpeg(&[&cut[..], &[0xFF, 0xD9, 7, 7]].concat()),
            "and something behind it"
        );
    }

    #[test]
    fn the_bytes_decide_the_format() {
        assert_eq!(format(b"just some text"), Err(Fault::NotAnImage), "text");
        let heic = b"\0\0\0\x18ftypheic\0\0\0\0";
        assert!(matches!(format(heic), Err(Fault::Unsupported { .. })), "known, but not read");
        assert!(
            matches!(format(b"qoif0000"), Err(Fault::Unsupported { .. })),
            "known, but not read"
        );
        assert_eq!(format(b"GIF89a"), Ok((ImageFormat::Gif, "gif")), "read");
    }
}
