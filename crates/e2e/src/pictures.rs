//! Pictures made on the spot, whole and broken, in every format that is read.
//!
//! A picture is a mosaic of flat tiles of 8 by 8 pixels. One tile is one block of a JPEG and takes
//! one entry of a GIF's palette, so that every format keeps it nearly as it is, and files of one
//! mosaic in two formats must get nearly the same vector.

mod jpeg;
mod png;

use std::io::Cursor;

use bytes::Bytes;
use image::codecs::gif::GifEncoder;
use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, Frame, GrayImage, ImageBuffer, ImageFormat, Rgb, RgbImage};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

pub use jpeg::{cmyk_jpeg, jpeg_with_orientation};
pub use png::{giant_png, giant_png_start, palette_png_with_alpha};

/// Edge of a tile in pixels.
const TILE: u32 = 8;
/// Tiles in a row. More than [`ROWS`], so that a turned picture is seen by its shape.
const COLUMNS: u32 = 8;
const ROWS: u32 = 6;

/// Width of every mosaic in pixels.
pub const WIDTH: u32 = COLUMNS * TILE;
/// Height of every mosaic in pixels.
pub const HEIGHT: u32 = ROWS * TILE;

/// The formats that are read, with the name that the services give to each.
pub const FORMATS: [(ImageFormat, &str); 6] = [
    (ImageFormat::Jpeg, "jpeg"),
    (ImageFormat::Png, "png"),
    (ImageFormat::WebP, "webp"),
    (ImageFormat::Gif, "gif"),
    (ImageFormat::Bmp, "bmp"),
    (ImageFormat::Tiff, "tiff"),
];

/// A file, and the picture that a reader of it must see.
#[derive(Clone, Debug)]
pub struct Sample {
    pub file: Bytes,
    pub seen: RgbImage,
}

/// A mosaic of 48 random colours. Equal seeds make equal pictures.
pub fn mosaic(seed: u64) -> RgbImage {
    let colours = colours::<3>(seed);
    RgbImage::from_fn(WIDTH, HEIGHT, |x, y| Rgb(colours[tile(x, y)]))
}

/// A mosaic as a file.
pub fn encode(picture: &RgbImage, format: ImageFormat) -> Bytes {
    if format == ImageFormat::Jpeg {
        return jpeg(picture);
    }
    write(&DynamicImage::from(picture.clone()), format)
}

/// The mosaic of `seed` as a PNG: the picture for tests that need any.
pub fn png(seed: u64) -> Bytes {
    encode(&mosaic(seed), ImageFormat::Png)
}

/// A JPEG that is nearly lossless.
pub fn jpeg(picture: &RgbImage) -> Bytes {
    let mut file = Vec::new();
    JpegEncoder::new_with_quality(&mut file, 95)
        .encode_image(picture)
        .expect("writing to memory does not fail");
    file.into()
}

/// 16 bits per channel.
pub fn png_of_16_bits(picture: &RgbImage) -> Bytes {
    let deep = ImageBuffer::from_fn(picture.width(), picture.height(), |x, y| {
        // 257 takes 0 to 0 and 255 to 65535.
        Rgb(picture.get_pixel(x, y).0.map(|level| u16::from(level) * 257))
    });
    write(&DynamicImage::ImageRgb16(deep), ImageFormat::Png)
}

/// One channel of grey.
pub fn grey(seed: u64, format: ImageFormat) -> Sample {
    let levels = colours::<1>(seed);
    let grey = GrayImage::from_fn(WIDTH, HEIGHT, |x, y| image::Luma(levels[tile(x, y)]));
    let seen = DynamicImage::from(grey.clone()).to_rgb8();
    Sample { file: write(&DynamicImage::from(grey), format), seen }
}

/// A GIF that shows `first`, then `second`.
pub fn animated_gif(first: &RgbImage, second: &RgbImage) -> Bytes {
    let mut file = Vec::new();
    let frames =
        [first, second].map(|picture| Frame::new(DynamicImage::from(picture.clone()).to_rgba8()));
    GifEncoder::new(&mut file).encode_frames(frames).expect("writing to memory does not fail");
    file.into()
}

/// One grey pixel.
pub fn single_pixel() -> Bytes {
    encode(&RgbImage::from_pixel(1, 1, Rgb([90, 90, 90])), ImageFormat::Png)
}

/// The first half of a file, as a broken download leaves it.
pub fn truncated(file: &Bytes) -> Bytes {
    file.slice(..file.len() / 2)
}

fn write(picture: &DynamicImage, format: ImageFormat) -> Bytes {
    let mut file = Cursor::new(Vec::new());
    picture.write_to(&mut file, format).expect("writing to memory does not fail");
    file.into_inner().into()
}

/// One colour of `CHANNELS` levels for each tile.
fn colours<const CHANNELS: usize>(seed: u64) -> Vec<[u8; CHANNELS]> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..COLUMNS * ROWS).map(|_| std::array::from_fn(|_| rng.random())).collect()
}

/// Which tile a pixel is in, row by row.
fn tile(x: u32, y: u32) -> usize {
    ((y / TILE) * COLUMNS + x / TILE) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Largest difference of two pictures in levels.
    fn difference(file: &Bytes, seen: &RgbImage) -> u8 {
        let read = image::load_from_memory(file).expect("the file is whole").to_rgb8();
        assert_eq!(read.dimensions(), seen.dimensions(), "no pixel is lost");
        let pairs = read.as_raw().iter().zip(seen.as_raw());
        pairs.map(|(a, b)| a.abs_diff(*b)).max().expect("the picture has pixels")
    }

    #[test]
    fn every_format_keeps_the_picture() {
        let picture = mosaic(1);
        for (format, name) in FORMATS {
            let worst = difference(&encode(&picture, format), &picture);
            assert!(worst <= 4, "{name} is off by {worst} levels");
        }
        let worst = difference(&png_of_16_bits(&picture), &picture);
        assert_eq!(worst, 0, "16 bits hold 8");
    }

    #[test]
    fn what_is_said_to_be_seen_is_seen() {
        for format in [ImageFormat::Png, ImageFormat::Jpeg] {
            let sample = grey(3, format);
            assert!(difference(&sample.file, &sample.seen) <= 4, "grey {format:?}");
        }
        let cmyk = cmyk_jpeg(5);
        assert!(difference(&cmyk.file, &cmyk.seen) <= 4, "CMYK");
    }

    #[test]
    fn a_truncated_file_is_broken() {
        for format in [ImageFormat::Png, ImageFormat::Jpeg] {
            let half = truncated(&encode(&mosaic(1), format));
            assert!(image::load_from_memory_with_format(&half, format).is_err(), "{format:?}");
        }
    }
}
