//! What is true of a picture whatever model looks at it.
//!
//! - The *content hash* is of the file's bytes.
//! - The *pixel hash* is of what the file shows: BLAKE3 over width and height (32 bits each, little
//!   endian) and the RGB levels row by row from the top, upright, on white, in sRGB, of the full
//!   size. The same pixels have it in every lossless format and however a camera was held. JPEG
//!   and other lossy files have it in common only where the same decoder reads them.
//! - The *perceptual hash* is that of pHash: of the picture as 32 x 32 levels of grey, the 64
//!   lowest frequencies of the cosine transform but the constant row and column, each told from
//!   their median. Pictures that look alike differ in few of its bits: shrunk or compressed ones in
//!   none to six, different ones in about 32.
//!
//! Source: C. Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010,
//! section 3.2.1. There, the picture is blurred before it is shrunk; here, the filter that shrinks
//! it does both.

use std::f32::consts::PI;
use std::sync::LazyLock;

use clipmesh_proto::ids::{ContentHash, PerceptualHash, PixelHash};

use super::{Rgb, resize};

/// Edge of the grey picture.
const EDGE: usize = 32;
/// Frequencies in each direction, from the second on.
const FREQUENCIES: usize = 8;

/// Hashes of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    pub content_hash: ContentHash,
    pub pixel_hash: PixelHash,
    pub perceptual_hash: PerceptualHash,
}

/// One wave per frequency.
static WAVES: LazyLock<[[f32; EDGE]; FREQUENCIES]> = LazyLock::new(|| {
    std::array::from_fn(|frequency| {
        let step = PI * (frequency + 1) as f32 / EDGE as f32;
        std::array::from_fn(|at| (step * (at as f32 + 0.5)).cos())
    })
});

/// Of a file, and its picture upright.
pub(super) fn of(bytes: &[u8], upright: &Rgb) -> Facts {
    Facts {
        content_hash: ContentHash::of(bytes),
        pixel_hash: PixelHash::of(upright.width, upright.height, &upright.levels),
        perceptual_hash: perceptual_hash(upright),
    }
}

fn perceptual_hash(upright: &Rgb) -> PerceptualHash {
    let small = resize::shrunk(upright, EDGE as u32, EDGE as u32);
    let frequencies = frequencies(&grey(&small));
    let mut sorted = frequencies;
    sorted.sort_by(f32::total_cmp);
    let median = (sorted[31] + sorted[32]) / 2.0;
    let bits = frequencies.iter().map(|&frequency| u64::from(frequency > median));
    PerceptualHash::from(bits.fold(0, |hash, bit| hash << 1 | bit))
}

/// Brightness, as ITU-R BT.601 weighs the colours.
fn grey(picture: &Rgb) -> [[f32; EDGE]; EDGE] {
    let mut grey = [[0.0; EDGE]; EDGE];
    let levels = grey.iter_mut().flatten();
    for (level, &[red, green, blue]) in levels.zip(picture.levels.as_chunks().0) {
        *level = 0.299 * f32::from(red) + 0.587 * f32::from(green) + 0.114 * f32::from(blue);
    }
    grey
}

/// The lowest frequencies, those of the rows from the second on in each row.
fn frequencies(grey: &[[f32; EDGE]; EDGE]) -> [f32; FREQUENCIES * FREQUENCIES] {
    let dot = |a: &[f32; EDGE], b: &[f32; EDGE]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    std::array::from_fn(|index| {
        let (down, across) = (&WAVES[index / FREQUENCIES], &WAVES[index % FREQUENCIES]);
        let rows: [f32; EDGE] = std::array::from_fn(|row| dot(&grey[row], across));
        dot(&rows, down)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Light from one corner, a bright disc: nothing that repeats.
    fn scene(width: u32, height: u32, disc: (f32, f32)) -> Rgb {
        let mut levels = Vec::new();
        for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
            let (x, y) = (x as f32 / width as f32, y as f32 / height as f32);
            let is_disc = (x - disc.0).hypot(y - disc.1) < 0.2;
            let level = 60.0 + 90.0 * x * y + 40.0 * (9.0 * x * x).sin() * (7.0 * y).cos();
            levels.extend([level as u8 + 60 * u8::from(is_disc); 3]);
        }
        Rgb { width, height, levels }
    }

    fn distance(left: &Rgb, right: &Rgb) -> u32 {
        perceptual_hash(left).distance(perceptual_hash(right))
    }

    #[test]
    fn the_perceptual_hash_outlives_size_and_brightness() {
        let picture = scene(320, 240, (0.3, 0.4));
        assert!(distance(&picture, &scene(97, 61, (0.3, 0.4))) <= 4, "another size and shape");
        let mut brighter = picture.clone();
        brighter.levels.iter_mut().for_each(|level| *level += 25);
        assert!(distance(&picture, &brighter) <= 2, "more light");
        assert!(distance(&picture, &scene(320, 240, (0.7, 0.6))) >= 12, "the disc elsewhere");
    }

    #[test]
    fn the_frequencies_are_those_of_the_cosine_transform() {
        // A picture of one wave: that of frequency 3 down and 5 across, counted from zero.
        let grey: [[f32; EDGE]; EDGE] =
            std::array::from_fn(|y| std::array::from_fn(|x| WAVES[2][y] * WAVES[4][x]));
        let found = frequencies(&grey);
        let expected = 2 * FREQUENCIES + 4;
        for (index, value) in found.into_iter().enumerate() {
            let energy = if index == expected { (EDGE * EDGE / 4) as f32 } else { 0.0 };
            assert!((value - energy).abs() < 1e-2, "{value} at {index}");
        }
    }
}
