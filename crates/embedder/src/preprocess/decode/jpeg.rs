//! JPEG by libjpeg-turbo, which is what the reference decodes with. Decoders differ by several
//! levels in how they bring colour to full size where it is stored at half of it.

mod segments;

use image::metadata;
use turbojpeg::{Colorspace, Decompressor, Image, PixelFormat, ScalingFactor};

use super::levels::{Channels, Levels};
use super::{Decoded, Options, icc, other};
use crate::preprocess::orient::Orientation;
use crate::preprocess::{Fault, resize, scratch};
use segments::Segments;

pub(super) const FORMAT: &str = "jpeg";

/// A progressive JPEG may refine a picture in as many scans as it likes, each of which costs time
/// for every pixel. Encoders write some ten.
const MAX_SCANS: u64 = 100;

/// So many are accepted of the largest picture; of smaller ones, more.
const MAX_SCANS_OF_LARGEST: u64 = 20;

/// Parts of eight that a picture is shrunk to while it is decoded. The others that libjpeg-turbo
/// knows have no SIMD code, and take longer than the whole.
const EIGHTHS: [usize; 3] = [1, 2, 4];

/// How much larger than the model's picture a shrunk one must be. What the decoder leaves out is
/// then mostly what the resize would leave out, too.
const MARGIN: f64 = 2.0;

pub(super) fn decode(bytes: &[u8], options: &Options<'_>) -> Result<Decoded, Fault> {
    let segments = Segments::read(bytes)?;
    let (width, height) = (segments.width, segments.height);
    options.check_size(FORMAT, width, height)?;
    check_scans(&segments, options.max_pixels)?;
    let orientation = segments.exif.and_then(metadata::Orientation::from_exif_chunk);
    let orientation = orientation.map(Orientation::from).unwrap_or_default();
    let scale = scale(width, height, orientation, options);
    let Some((levels, columns, rows)) = levels(bytes, (width, height), scale) else {
        return other::decode(bytes, image::ImageFormat::Jpeg, FORMAT, options);
    };
    let rgb = icc::to_srgb(levels, segments.profile().as_deref()).into_rgb(columns, rows);
    let factor = scale.num() as f64 / scale.denom() as f64;
    Ok(Decoded { rgb, factor, size: (width, height), orientation, format: FORMAT })
}

fn check_scans(segments: &Segments<'_>, max_pixels: u64) -> Result<(), Fault> {
    let &Segments { width, height, scans, .. } = segments;
    let pixels = u64::from(width) * u64::from(height);
    let of_this_size = MAX_SCANS_OF_LARGEST.saturating_mul(max_pixels) / pixels;
    // At most a hundred.
    let max = of_this_size.min(MAX_SCANS) as u32;
    if scans > max {
        return Err(Fault::TooManyScans { width, height, scans, max });
    }
    Ok(())
}

/// The smallest part that covers what the model needs.
fn scale(
    width: u32,
    height: u32,
    orientation: Orientation,
    options: &Options<'_>,
) -> ScalingFactor {
    let Some(preprocessing) = options.shrink_to else { return ScalingFactor::ONE };
    let upright = orientation.upright_size(width, height);
    let needed = MARGIN * resize::scale(upright, preprocessing);
    let covers = |eighths: &usize| *eighths as f64 / 8.0 >= needed;
    let eighths = EIGHTHS.into_iter().find(covers).unwrap_or(8);
    ScalingFactor::new(eighths, 8)
}

/// Decodes a JPEG of the size that its header says. `None` for what another decoder must judge:
/// files with the smallest fault, since here a warning is an error.
fn levels(
    bytes: &[u8],
    (width, height): (u32, u32),
    scale: ScalingFactor,
) -> Option<(Levels, u32, u32)> {
    let mut decompressor = Decompressor::new().ok()?;
    let header = decompressor.read_header(bytes).ok()?;
    if (header.width, header.height) != (width as usize, height as usize) {
        return None;
    }
    let (format, channels) = match header.colorspace {
        Colorspace::Gray => (PixelFormat::GRAY, Channels::Grey),
        Colorspace::RGB | Colorspace::YCbCr => (PixelFormat::RGB, Channels::Rgb),
        Colorspace::CMYK | Colorspace::YCCK => (PixelFormat::CMYK, Channels::Cmyk),
    };
    decompressor.set_scaling_factor(scale).ok()?;
    let (width, height) = (scale.scale(header.width), scale.scale(header.height));
    let pitch = channels.count() * width;
    // All of it is written, or the decoder has failed.
    let mut levels = scratch::take(pitch * height);
    let pixels = levels.as_mut_slice();
    decompressor.decompress(bytes, Image { pixels, width, pitch, height, format }).ok()?;
    if channels == Channels::Cmyk {
        // As Adobe's programs write it, and everyone after them: 255 is no ink.
        levels.iter_mut().for_each(|level| *level = 255 - *level);
    }
    // No larger than the header's 16 bits.
    Some((Levels { channels, levels }, width as u32, height as u32))
}

fn corrupt(message: &str) -> Fault {
    Fault::Corrupt { format: FORMAT, message: message.to_owned() }
}
