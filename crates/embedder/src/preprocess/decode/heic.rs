//! HEIC by libheif, which turns the picture upright itself; an EXIF orientation beside that says
//! the same once more and counts for nothing.

use libheif_rs::{
    ColorSpace, DecodingOptions, HeifContext, HeifError, Image, ImageHandle, LibHeif, RgbChroma,
};

use super::levels::{Channels, Levels};
use super::{Decoded, Options, icc};
use crate::preprocess::Fault;
use crate::preprocess::orient::Orientation;

pub(super) const FORMAT: &str = "heic";

pub(super) fn decode(bytes: &[u8], options: &Options<'_>) -> Result<Decoded, Fault> {
    let mut context = HeifContext::read_from_bytes(bytes).map_err(corrupt)?;
    // The pool has threads enough.
    context.set_max_decoding_threads(1);
    let handle = context.primary_image_handle().map_err(corrupt)?;
    options.check_size(FORMAT, handle.width(), handle.height())?;
    let (image, channels) = image(&handle)?;
    let (width, height) = (image.width(), image.height());
    options.check_size(FORMAT, width, height)?;
    let levels = levels(&image, channels).ok_or_else(|| Fault::Corrupt {
        format: FORMAT,
        message: "the decoder gave no pixels".to_owned(),
    })?;
    let profile = handle.color_profile_raw().map(|profile| profile.data);
    let rgb = icc::to_srgb(levels, profile.as_deref()).into_rgb(width, height);
    let orientation = Orientation::default();
    Ok(Decoded { rgb, factor: 1.0, size: (width, height), orientation, format: FORMAT })
}

/// Decodes to 8 bits a level.
fn image(handle: &ImageHandle) -> Result<(Image, Channels), Fault> {
    let (chroma, channels) = match handle.has_alpha_channel() {
        true => (RgbChroma::Rgba, Channels::Rgba),
        false => (RgbChroma::Rgb, Channels::Rgb),
    };
    let options = DecodingOptions::new().map(|mut options| {
        options.set_convert_hdr_to_8bit(true);
        options
    });
    let image = LibHeif::new().decode(handle, ColorSpace::Rgb(chroma), options);
    Ok((image.map_err(corrupt)?, channels))
}

/// Rows without what stands between them.
fn levels(image: &Image, channels: Channels) -> Option<Levels> {
    let plane = image.planes().interleaved?;
    let row_bytes = channels.count() * image.width() as usize;
    let mut levels = Vec::with_capacity(row_bytes * image.height() as usize);
    for row in 0..image.height() as usize {
        levels.extend_from_slice(plane.data.get(row * plane.stride..)?.get(..row_bytes)?);
    }
    Some(Levels { channels, levels })
}

fn corrupt(error: HeifError) -> Fault {
    Fault::Corrupt { format: FORMAT, message: error.to_string() }
}
