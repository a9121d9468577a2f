//! AVIF: a picture of AV1 in a box of boxes. The boxes are read by Mozilla's parser, the picture
//! by dav1d.
//!
//! How a picture is to be turned is written in the boxes (`irot`, `imir`); an EXIF orientation
//! beside them says the same once more and counts for nothing, as the standard wants it (ISO/IEC
//! 23008-12, section 6.5.10). Of a sequence, the still picture counts. A picture in tiles (`grid`)
//! is not read.

mod av1;
mod yuv;

use mp4parse::{AvifContext, ImageMirror, ImageRotation, ParseStrictness};

use super::levels::{Channels, Levels};
use super::{Decoded, Options, icc};
use crate::preprocess::Fault;
use crate::preprocess::orient::Orientation;
use av1::Frame;

pub(super) const FORMAT: &str = "avif";

/// Brands of files with an AV1 picture: stills, and sequences that have one.
const BRANDS: [&[u8; 4]; 2] = [b"avif", b"avis"];

/// Whether a file calls itself AVIF. Those with a general brand may name it further on.
pub(super) fn is_avif(bytes: &[u8]) -> bool {
    let Some((head, b"ftyp", behind)) = bytes.split_first_chunk().and_then(|(length, rest)| {
        let (name, rest) = rest.split_first_chunk::<4>()?;
        Some((u32::from_be_bytes(*length) as usize, name, rest))
    }) else {
        return false;
    };
    let brands = &behind[..head.saturating_sub(8).min(behind.len())];
    brands.as_chunks().0.iter().any(|brand| BRANDS.contains(&brand))
}

pub(super) fn decode(bytes: &[u8], options: &Options<'_>) -> Result<Decoded, Fault> {
    let mut reader = options.deadline.reader(bytes);
    let boxes = mp4parse::read_avif(&mut reader, ParseStrictness::Permissive);
    options.deadline.check()?;
    let boxes = boxes.map_err(|error| corrupt(error.to_string()))?;
    let Some(coded) = boxes.primary_item_coded_data() else {
        return Err(Fault::Unsupported { message: "an AVIF without a single picture".to_owned() });
    };
    let orientation = orientation(&boxes)?;
    let frame = av1::decode(coded, options)?;
    let (width, height) = (frame.width, frame.height);
    let mut levels = yuv::levels(&frame)?;
    drop(frame);
    if let Some(coded) = boxes.alpha_item_coded_data().filter(|coded| !coded.is_empty()) {
        options.deadline.check()?;
        let alpha = av1::decode(coded, options)?;
        levels = with_alpha(levels, &alpha, (width, height), boxes.premultiplied_alpha)?;
    }
    let profile = boxes.icc_colour_information().and_then(Result::ok);
    let rgb = icc::to_srgb(levels, profile).into_rgb(width, height);
    Ok(Decoded { rgb, factor: 1.0, size: (width, height), orientation, format: FORMAT })
}

/// First turned against the clock, then mirrored.
fn orientation(boxes: &AvifContext) -> Result<Orientation, Fault> {
    let fault = |error: mp4parse::Error| corrupt(error.to_string());
    let (transposes, mut mirrors_across, mut mirrors_down) =
        match boxes.image_rotation().map_err(fault)? {
            ImageRotation::D0 => (false, false, false),
            ImageRotation::D90 => (true, false, true),
            ImageRotation::D180 => (false, true, true),
            ImageRotation::D270 => (true, true, false),
        };
    let mirror = boxes.image_mirror_ptr().map_err(fault)?;
    // SAFETY: null, or a part of `boxes`, which live on.
    #[expect(unsafe_code, reason = "the parser's way to tell it")]
    match unsafe { mirror.as_ref() } {
        None => {}
        Some(ImageMirror::TopBottom) => mirrors_down = !mirrors_down,
        Some(ImageMirror::LeftRight) => mirrors_across = !mirrors_across,
    }
    Ok(Orientation { transposes, mirrors_across, mirrors_down })
}

/// Adds transparency, which is a grey picture of its own.
fn with_alpha(
    levels: Levels,
    alpha: &Frame,
    size: (u32, u32),
    is_premultiplied: bool,
) -> Result<Levels, Fault> {
    if (alpha.width, alpha.height) != size {
        return Err(corrupt("its transparency has another size".to_owned()));
    }
    let Levels { channels: _, levels: colours } = levels.into_channels(Channels::Rgb);
    let mut levels = Vec::with_capacity(colours.len() / 3 * 4);
    for (&colour, alpha) in colours.as_chunks::<3>().0.iter().zip(yuv::brightness(alpha)) {
        let divided = |level: u8| match alpha {
            0 => 0,
            alpha => (u32::from(level) * 255 / u32::from(alpha)).min(255) as u8,
        };
        let [red, green, blue] = if is_premultiplied { colour.map(divided) } else { colour };
        levels.extend([red, green, blue, alpha]);
    }
    Ok(Levels { channels: Channels::Rgba, levels })
}

fn corrupt(message: String) -> Fault {
    Fault::Corrupt { format: FORMAT, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_names_its_kind_somewhere_in_its_first_box() {
        assert!(is_avif(b"\0\0\0\x14ftypavif\0\0\0\0mif1...."), "in front");
        assert!(is_avif(b"\0\0\0\x18ftypmif1\0\0\0\0miafavif...."), "behind");
        assert!(!is_avif(b"\0\0\0\x14ftypmif1\0\0\0\0heicavif"), "outside of the box");
        assert!(!is_avif(b"\0\0\0\x14moovavif"), "another box");
        assert!(!is_avif(b"\0\0"), "no box");
    }
}
