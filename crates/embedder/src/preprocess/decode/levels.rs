//! Levels as decoders give them, and RGB out of them by the rules of the reference (Pillow):
//! 16-bit levels lose their low byte, transparency is laid on white, grey and CMYK become RGB.

use image::{ColorType, DynamicImage};

use super::super::{Fault, Rgb};

/// White, on which transparency is laid.
const WHITE: u32 = 255;

/// What the levels of a pixel mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Channels {
    Grey,
    GreyAlpha,
    Rgb,
    Rgba,
    /// Ink: 0 is none of it.
    Cmyk,
}

/// Levels of 0 to 255, pixel by pixel, rows from the top.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Levels {
    pub(super) channels: Channels,
    pub(super) levels: Vec<u8>,
}

// === impl Channels ===

impl Channels {
    /// Bytes per pixel.
    pub(super) fn count(self) -> usize {
        match self {
            Self::Grey => 1,
            Self::GreyAlpha => 2,
            Self::Rgb => 3,
            Self::Rgba | Self::Cmyk => 4,
        }
    }
}

// === impl Levels ===

impl Levels {
    /// # Errors
    /// Levels that are no whole numbers.
    pub(super) fn of(image: DynamicImage) -> Result<Self, Fault> {
        let (channels, levels) = match image {
            DynamicImage::ImageLuma8(image) => (Channels::Grey, image.into_raw()),
            DynamicImage::ImageLumaA8(image) => (Channels::GreyAlpha, image.into_raw()),
            DynamicImage::ImageRgb8(image) => (Channels::Rgb, image.into_raw()),
            DynamicImage::ImageRgba8(image) => (Channels::Rgba, image.into_raw()),
            DynamicImage::ImageLuma16(image) => (Channels::Grey, high_bytes(&image.into_raw())),
            DynamicImage::ImageLumaA16(image) => {
                (Channels::GreyAlpha, high_bytes(&image.into_raw()))
            }
            DynamicImage::ImageRgb16(image) => (Channels::Rgb, high_bytes(&image.into_raw())),
            DynamicImage::ImageRgba16(image) => (Channels::Rgba, high_bytes(&image.into_raw())),
            DynamicImage::ImageRgb32F(_) | DynamicImage::ImageRgba32F(_) | _ => {
                return Err(floating_point());
            }
        };
        Ok(Self { channels, levels })
    }

    /// The same colours with other channels: of `Rgb` or `Rgba`, those that are not less.
    pub(super) fn into_channels(self, channels: Channels) -> Self {
        let levels = match (self.channels, channels) {
            (Channels::Grey, Channels::Rgb) => {
                self.levels.iter().flat_map(|&level| [level; 3]).collect()
            }
            (Channels::GreyAlpha, Channels::Rgba) => pixels(&self.levels)
                .flat_map(|&[level, alpha]| [level, level, level, alpha])
                .collect(),
            _ => return self,
        };
        Self { channels, levels }
    }

    /// A picture of the size that the levels were decoded for.
    pub(super) fn into_rgb(self, width: u32, height: u32) -> Rgb {
        let levels = match self.channels {
            Channels::Rgb => self.levels,
            Channels::Grey => grey(&self.levels),
            Channels::GreyAlpha => grey_on_white(&self.levels),
            Channels::Rgba => on_white(&self.levels),
            Channels::Cmyk => printed(&self.levels),
        };
        Rgb { width, height, levels }
    }
}

/// Whether levels are neither whole numbers nor can be taken for such.
pub(super) fn check_kind(color: ColorType) -> Result<(), Fault> {
    if matches!(color, ColorType::Rgb32F | ColorType::Rgba32F) {
        return Err(floating_point());
    }
    Ok(())
}

fn floating_point() -> Fault {
    Fault::Unsupported { message: "a picture of floating-point levels".to_owned() }
}

fn pixels<const N: usize>(levels: &[u8]) -> impl Iterator<Item = &[u8; N]> {
    levels.as_chunks().0.iter()
}

fn high_bytes(levels: &[u16]) -> Vec<u8> {
    levels.iter().map(|level| (level >> 8) as u8).collect()
}

// Each makes room once and fills it pixel by pixel: an iterator of arrays would grow as it goes.

fn grey(levels: &[u8]) -> Vec<u8> {
    let mut rgb = vec![0; 3 * levels.len()];
    for (out, &level) in rgb.as_chunks_mut().0.iter_mut().zip(levels) {
        *out = [level; 3];
    }
    rgb
}

fn grey_on_white(levels: &[u8]) -> Vec<u8> {
    let mut rgb = vec![0; levels.len() / 2 * 3];
    for (out, &[level, alpha]) in rgb.as_chunks_mut().0.iter_mut().zip(pixels(levels)) {
        *out = [over_white(level, alpha); 3];
    }
    rgb
}

fn on_white(levels: &[u8]) -> Vec<u8> {
    let mut rgb = vec![0; levels.len() / 4 * 3];
    for (out, &[red, green, blue, alpha]) in rgb.as_chunks_mut().0.iter_mut().zip(pixels(levels)) {
        *out = [red, green, blue].map(|level| over_white(level, alpha));
    }
    rgb
}

/// What is left of white behind black ink and then behind a coloured one.
fn printed(levels: &[u8]) -> Vec<u8> {
    let mut rgb = vec![0; levels.len() / 4 * 3];
    for (out, &[cyan, magenta, yellow, black]) in
        rgb.as_chunks_mut().0.iter_mut().zip(pixels(levels))
    {
        let light = 255 - black;
        *out = [cyan, magenta, yellow].map(|ink| light - scaled(ink, light));
    }
    rgb
}

/// One level seen through its transparency, rounded to the nearest.
fn over_white(level: u8, alpha: u8) -> u8 {
    let alpha = u32::from(alpha);
    let sum = u32::from(level) * alpha + WHITE * (255 - alpha);
    ((sum + 127) / 255) as u8
}

/// A product of two shares of 255, rounded to the nearest.
fn scaled(level: u8, share: u8) -> u8 {
    ((u32::from(level) * u32::from(share) + 127) / 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rgb(channels: Channels, levels: &[u8]) -> Vec<u8> {
        Levels { channels, levels: levels.to_vec() }.into_rgb(1, 1).levels
    }

    #[test]
    fn transparency_shows_white() {
        assert_eq!(over_white(0, 0), 255, "nothing of a transparent black");
        assert_eq!(over_white(77, 255), 77, "all of an opaque level");
        assert_eq!(over_white(0, 128), 127, "half of each");
        assert_eq!(
            rgb(Channels::Rgba, &[10, 20, 30, 255, 10, 20, 30, 0]),
            [10, 20, 30, 255, 255, 255],
            "per pixel"
        );
        assert_eq!(rgb(Channels::GreyAlpha, &[9, 255]), [9, 9, 9], "grey becomes RGB");
    }

    #[test]
    fn ink_takes_light_away() {
        assert_eq!(rgb(Channels::Cmyk, &[0, 0, 0, 0]), [255; 3], "paper");
        assert_eq!(rgb(Channels::Cmyk, &[9, 0, 200, 255]), [0; 3], "black covers all");
        assert_eq!(rgb(Channels::Cmyk, &[255, 0, 51, 55]), [0, 200, 160], "each its own light");
    }
}
