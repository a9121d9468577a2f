//! Small pictures to show in lists: JPEG, upright, on white.
//!
//! The embedder makes them of pictures that it is given anyway. Here they are made only where the
//! vector was in the cache, so of pictures that an embedder has accepted once. The limits are
//! checked again, from the header and before memory is spent: that embedder may have accepted what
//! another setting would refuse.

use std::io::Cursor;
use std::num::NonZeroUsize;
use std::sync::Arc;

use bytes::Bytes;
use image::codecs::jpeg::JpegEncoder;
use image::imageops::FilterType;
use image::{DynamicImage, ImageDecoder as _, ImageReader, Limits, RgbImage};
use tokio::sync::Semaphore;

/// Longest side in pixels.
pub(crate) const MAX_SIDE: u32 = 256;
/// The encoder's scale is 1 to 100; below 80 edges show.
const QUALITY: u8 = 82;
/// Bytes of the largest pixel that is decoded: four channels of 32-bit floats.
const MAX_PIXEL_BYTES: u64 = 16;

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the picture has {actual} pixels, more than {max}")]
    TooManyPixels { max: u64, actual: u64 },
    #[error(transparent)]
    Image(#[from] image::ImageError),
    #[error(transparent)]
    Read(#[from] std::io::Error),
    #[error("the thread that made it panicked")]
    Panicked,
}

/// Makes them, a bounded number at a time.
#[derive(Debug)]
pub(crate) struct Thumbnailer {
    max_pixels: u64,
    permits: Arc<Semaphore>,
}

impl Thumbnailer {
    pub(crate) fn new(threads: NonZeroUsize, max_pixels: u64) -> Self {
        Self { max_pixels, permits: Arc::new(Semaphore::new(threads.get())) }
    }

    /// Makes the small picture of an image file.
    pub(crate) async fn make(&self, image: Bytes) -> Result<Bytes, Error> {
        // Never closed.
        let permit =
            Arc::clone(&self.permits).acquire_owned().await.map_err(|_| Error::Panicked)?;
        let max_pixels = self.max_pixels;
        let work = move || {
            // Held by the work, which goes on when its caller has gone.
            let _permit = permit;
            shrink(&image, max_pixels)
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| Error::Panicked)?
    }
}

fn shrink(bytes: &[u8], max_pixels: u64) -> Result<Bytes, Error> {
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
    let mut decoder = reader.into_decoder()?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if pixels > max_pixels {
        return Err(Error::TooManyPixels { max: max_pixels, actual: pixels });
    }
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(max_pixels.saturating_mul(MAX_PIXEL_BYTES));
    decoder.set_limits(limits)?;
    let orientation = decoder.orientation()?;
    let mut picture = DynamicImage::from_decoder(decoder)?;
    if picture.width().max(picture.height()) > MAX_SIDE {
        // A quick reduction to twice the size, and a good one from there.
        if picture.width().max(picture.height()) > 4 * MAX_SIDE {
            picture = picture.thumbnail(2 * MAX_SIDE, 2 * MAX_SIDE);
        }
        picture = picture.resize(MAX_SIDE, MAX_SIDE, FilterType::Triangle);
    }
    picture.apply_orientation(orientation);
    let mut jpeg = Vec::new();
    on_white(&picture).write_with_encoder(JpegEncoder::new_with_quality(&mut jpeg, QUALITY))?;
    Ok(jpeg.into())
}

/// JPEG knows no transparency.
fn on_white(picture: &DynamicImage) -> RgbImage {
    if !picture.color().has_alpha() {
        return picture.to_rgb8();
    }
    let picture = picture.to_rgba8();
    let mut opaque = RgbImage::new(picture.width(), picture.height());
    for (pixel, out) in picture.pixels().zip(opaque.pixels_mut()) {
        let [red, green, blue, alpha] = pixel.0.map(u32::from);
        // Rounded to the nearest level.
        let blend = |level: u32| ((level * alpha + 255 * (255 - alpha) + 127) / 255) as u8;
        out.0 = [red, green, blue].map(blend);
    }
    opaque
}

#[cfg(test)]
mod tests {
    use image::{ImageFormat, Rgba, RgbaImage};

    use super::*;

    fn png(width: u32, height: u32, color: [u8; 4]) -> Vec<u8> {
        let picture = RgbaImage::from_pixel(width, height, Rgba(color));
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, ImageFormat::Png).expect("encoded");
        bytes.into_inner()
    }

    fn decode(jpeg: &[u8]) -> RgbImage {
        assert_eq!(image::guess_format(jpeg).expect("an image"), ImageFormat::Jpeg, "a JPEG");
        image::load_from_memory(jpeg).expect("readable").to_rgb8()
    }

    #[test]
    fn fits_into_its_square_and_keeps_its_shape() {
        for ((width, height), expected) in [
            ((1_000, 500), (256, 128)),
            ((300, 3_000), (26, 256)),
            ((100, 50), (100, 50)),
            ((1, 1), (1, 1)),
            ((5_000, 1), (256, 1)),
        ] {
            let jpeg = shrink(&png(width, height, [9, 9, 9, 255]), 1 << 24).expect("made");
            assert_eq!(decode(&jpeg).dimensions(), expected, "of {width}x{height}");
        }
    }

    #[test]
    fn lays_transparency_on_white() {
        let jpeg = shrink(&png(40, 40, [0, 0, 0, 0]), 1 << 24).expect("made");
        let level = decode(&jpeg).get_pixel(20, 20).0[0];
        assert!(level > 250, "nothing on white is white, not {level}");
        let jpeg = shrink(&png(40, 40, [0, 0, 0, 128]), 1 << 24).expect("made");
        let level = decode(&jpeg).get_pixel(20, 20).0[0];
        assert!((122..=132).contains(&level), "half black on white is grey, not {level}");
    }

    #[test]
    fn stands_upright() {
        // A JPEG of 64x32, red on the left, whose EXIF says to turn it by 90 degrees clockwise.
        let picture = RgbImage::from_fn(64, 32, |x, _| {
            image::Rgb(if x < 32 { [220, 0, 0] } else { [0, 0, 220] })
        });
        let mut jpeg = Vec::new();
        picture.write_with_encoder(JpegEncoder::new_with_quality(&mut jpeg, 95)).expect("encoded");
        let exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
        let length = u16::try_from(exif.len() + 2).expect("short").to_be_bytes();
        let segment = [&[0xFF, 0xE1][..], &length, exif].concat();
        jpeg.splice(2..2, segment);

        let upright = decode(&shrink(&jpeg, 1 << 24).expect("made"));
        assert_eq!(upright.dimensions(), (32, 64), "it stands");
        let (top, bottom) = (upright.get_pixel(16, 8), upright.get_pixel(16, 56));
        assert!(top.0[0] > 150 && top.0[2] < 100, "what was left is above: {top:?}");
        assert!(bottom.0[2] > 150 && bottom.0[0] < 100, "what was right is below: {bottom:?}");
    }

    #[test]
    fn refuses_what_is_too_large_or_none() {
        let large = shrink(&png(200, 200, [0; 4]), 39_999);
        assert!(matches!(large, Err(Error::TooManyPixels { actual: 40_000, .. })), "{large:?}");
        assert!(shrink(b"hello", 1 << 24).is_err(), "words are no picture");
        let png = png(64, 64, [1, 2, 3, 255]);
        assert!(shrink(&png[..png.len() / 2], 1 << 24).is_err(), "half a PNG is none");
    }
}
