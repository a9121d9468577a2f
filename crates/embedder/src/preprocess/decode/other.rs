//! The formats that the `image` crate decodes: PNG, WebP, GIF, BMP and TIFF, and JPEGs with a
//! fault that libjpeg-turbo warns of.

use image::error::{ImageError, UnsupportedError};
use image::{DynamicImage, ImageDecoder as _, ImageFormat, ImageReader, Limits};

use super::levels::{self, Levels};
use super::{Decoded, Options, icc, webp};
use crate::preprocess::Fault;
use crate::preprocess::orient::Orientation;

/// Memory that a decoder may take besides the picture itself, for its tables and metadata.
const DECODER_BYTES: u64 = 64 << 20;

/// The most bytes that a decoder holds per pixel: four channels of 16 bits.
const MAX_BYTES_PER_PIXEL: u64 = 8;

pub(super) fn decode(
    bytes: &[u8],
    format: ImageFormat,
    name: &'static str,
    options: &Options<'_>,
) -> Result<Decoded, Fault> {
    if format == ImageFormat::WebP {
        webp::check(bytes, options.max_pixels)?;
    }
    if let Some((width, height)) = png_size(bytes) {
        options.check_size(name, width, height)?;
    }
    let fault = |error| fault(name, error, options);
    let mut reader = ImageReader::with_format(options.deadline.reader(bytes), format);
    let mut limits = Limits::no_limits();
    let picture_bytes = options.max_pixels.saturating_mul(MAX_BYTES_PER_PIXEL);
    limits.max_alloc = Some(picture_bytes.saturating_add(DECODER_BYTES));
    reader.limits(limits);
    // Reads no further than the header.
    let mut decoder = reader.into_decoder().map_err(fault)?;
    let (width, height) = decoder.dimensions();
    options.check_size(name, width, height)?;
    levels::check_kind(decoder.color_type())?;
    // Metadata that can't be read is no reason to refuse a picture.
    let orientation = decoder.orientation().map(Orientation::from).unwrap_or_default();
    let profile = decoder.icc_profile().ok().flatten();
    let levels = Levels::of(DynamicImage::from_decoder(decoder).map_err(fault)?)?;
    options.deadline.check()?;
    let rgb = icc::to_srgb(levels, profile.as_deref()).into_rgb(width, height);
    Ok(Decoded { rgb, factor: 1.0, size: (width, height), orientation, format: name })
}

/// The size in a PNG's header, which the decoder tells only once it has found the picture's data.
fn png_size(bytes: &[u8]) -> Option<(u32, u32)> {
    let header = bytes.strip_prefix(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")?;
    let &[width, height] = header.as_chunks().0.first_chunk()?;
    Some((u32::from_be_bytes(width), u32::from_be_bytes(height)))
}

fn fault(format: &'static str, error: ImageError, options: &Options<'_>) -> Fault {
    // A reader that ran out of time shows in one way or another.
    if let Err(fault) = options.deadline.check() {
        return fault;
    }
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
