//! Small pictures to show in lists: JPEG, upright, on white.

use turbojpeg::{Compressor, Image, PixelFormat, Subsamp};

use super::{Rgb, resize};

/// The encoder's scale is 1 to 100; below 80 edges show.
const QUALITY: i32 = 82;

/// A JPEG whose longest side has at most `side` pixels; nothing is enlarged. `None` if the encoder
/// fails, which it does for want of memory only.
pub(super) fn of(upright: &Rgb, side: u32) -> Option<Vec<u8>> {
    let (width, height) = fitted(upright.width, upright.height, side);
    let small;
    let picture = if (width, height) == (upright.width, upright.height) {
        upright
    } else {
        small = resize::shrunk(upright, width, height);
        &small
    };
    jpeg(picture).ok()
}

fn jpeg(picture: &Rgb) -> turbojpeg::Result<Vec<u8>> {
    let mut compressor = Compressor::new()?;
    compressor.set_quality(QUALITY)?;
    // Colour at full size: at half of it, red edges on something this small fray.
    compressor.set_subsamp(Subsamp::None)?;
    let (width, height) = (picture.width as usize, picture.height as usize);
    let (pixels, pitch) = (picture.levels.as_slice(), 3 * width);
    compressor.compress_to_vec(Image { pixels, width, pitch, height, format: PixelFormat::RGB })
}

/// The size of a picture that fits into a square.
fn fitted(width: u32, height: u32, side: u32) -> (u32, u32) {
    let (longest, side) = (width.max(height), side.max(1));
    if longest <= side {
        return (width, height);
    }
    // To the nearest pixel; of a strip, at least one is left.
    let scaled = |length: u32| {
        let twice = 2 * u64::from(length) * u64::from(side) / u64::from(longest);
        // At most the side.
        (twice.div_ceil(2) as u32).max(1)
    };
    (scaled(width), scaled(height))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_side_fits_and_the_shape_stays() {
        assert_eq!(fitted(1000, 500, 256), (256, 128), "wide");
        assert_eq!(fitted(300, 401, 100), (75, 100), "tall, 74.8 across");
        assert_eq!(fitted(200, 100, 256), (200, 100), "nothing is enlarged");
        assert_eq!(fitted(100_000, 1, 256), (256, 1), "a strip");
    }

    #[test]
    fn a_thumbnail_looks_like_its_picture() {
        let (width, height) = (400, 200);
        let half = [[250, 10, 10].repeat(200), [10, 10, 250].repeat(200)].concat();
        let picture = Rgb { width, height, levels: half.repeat(200) };
        let bytes = of(&picture, 100).expect("a JPEG");
        let small = turbojpeg::decompress(&bytes, PixelFormat::RGB).expect("a JPEG");
        assert_eq!((small.width, small.height), (100, 50), "its size");
        let pixel = |column: usize| &small.pixels[3 * column..][..3];
        assert!(pixel(20)[0] > 230 && pixel(20)[2] < 30, "red on the left: {:?}", pixel(20));
        assert!(pixel(80)[2] > 230 && pixel(80)[0] < 30, "blue on the right: {:?}", pixel(80));
    }
}
