//! Colours of other spaces than sRGB, by the ICC profile that a file carries.

use moxcms::{ColorProfile, DataColorSpace, Layout, TransformOptions};

use super::levels::{Channels, Levels};

/// A longer profile is passed over. Those of printers have a megabyte or two.
const MAX_PROFILE_BYTES: usize = 4 << 20;

/// Levels are converted this many pixels at a time.
const PIECE_PIXELS: usize = 4096;

/// Pixels per edge of the cube of colours by which a profile is told from sRGB.
const PROBES: u8 = 6;

/// Brings levels to sRGB, with the profile's perceptual intent, as the reference would if it
/// looked at profiles. Levels that are sRGB already stay as they are, and so do those with a
/// profile that can't be read or is for something else: a picture with slightly wrong colours is
/// found, one that is refused is not.
pub(super) fn to_srgb(levels: Levels, profile: Option<&[u8]>) -> Levels {
    let Some(profile) = profile.filter(|profile| profile.len() <= MAX_PROFILE_BYTES) else {
        return levels;
    };
    let Ok(profile) = ColorProfile::new_from_slice(profile) else { return levels };
    convert(&levels, &profile).unwrap_or(levels)
}

/// `None` where nothing is to be done, or can be.
fn convert(levels: &Levels, profile: &ColorProfile) -> Option<Levels> {
    let (space, from, to, channels) = match levels.channels {
        Channels::Grey => (DataColorSpace::Gray, Layout::Gray, Layout::Rgb, Channels::Rgb),
        Channels::GreyAlpha => {
            (DataColorSpace::Gray, Layout::GrayAlpha, Layout::Rgba, Channels::Rgba)
        }
        Channels::Rgb => (DataColorSpace::Rgb, Layout::Rgb, Layout::Rgb, Channels::Rgb),
        Channels::Rgba => (DataColorSpace::Rgb, Layout::Rgba, Layout::Rgba, Channels::Rgba),
        // Four channels of ink.
        Channels::Cmyk => (DataColorSpace::Cmyk, Layout::Rgba, Layout::Rgb, Channels::Rgb),
    };
    if profile.color_space != space {
        return None;
    }
    let options = TransformOptions::default();
    let transform =
        profile.create_transform_8bit(from, &ColorProfile::new_srgb(), to, options).ok()?;
    let (from, to) = (levels.channels.count(), channels.count());
    if space != DataColorSpace::Cmyk {
        let probes = probes(levels.channels);
        let mut converted = vec![0; probes.len() / from * to];
        transform.transform(&probes, &mut converted).ok()?;
        let plain = Levels { channels: levels.channels, levels: probes }.into_channels(channels);
        if plain.levels.iter().zip(&converted).all(|(a, b)| a.abs_diff(*b) <= 1) {
            return None;
        }
    }
    let mut converted = vec![0; levels.levels.len() / from * to];
    let pieces = levels.levels.chunks(PIECE_PIXELS * from);
    for (piece, converted) in pieces.zip(converted.chunks_mut(PIECE_PIXELS * to)) {
        transform.transform(piece, converted).ok()?;
    }
    Some(Levels { channels, levels: converted })
}

/// Colours from all over the space.
fn probes(channels: Channels) -> Vec<u8> {
    let steps = || (0..PROBES).map(|step| step * (255 / (PROBES - 1)));
    match channels {
        Channels::Grey => (0..=255).collect(),
        Channels::GreyAlpha => (0..=255).flat_map(|level| [level, 255]).collect(),
        Channels::Rgb => steps()
            .flat_map(|red| {
                steps().flat_map(move |green| steps().map(move |blue| (red, green, blue)))
            })
            .flat_map(|(red, green, blue)| [red, green, blue])
            .collect(),
        Channels::Rgba | Channels::Cmyk => steps()
            .flat_map(|red| {
                steps().flat_map(move |green| steps().map(move |blue| (red, green, blue)))
            })
            .flat_map(|(red, green, blue)| [red, green, blue, 255])
            .collect(),
    }
}
