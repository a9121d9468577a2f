//! Pictures that are as hard to compress, to shrink and to tell apart as photographs: detail of
//! every size whose contrast falls with it, a few hard edges, a little grain.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use turbojpeg::{Compressor, PixelFormat, Subsamp};

/// Detail of 2, 4, 8 ... pixels, this often.
const OCTAVES: u32 = 8;
/// What a level of contrast becomes when its detail gets half as large.
const FALLOFF: f32 = 0.65;
/// Contrast of the coarsest detail, in levels.
const CONTRAST: f32 = 80.0;
/// Contrast of the grain, in levels.
const GRAIN: f32 = 10.0;

/// RGB levels, rows from the top.
pub(crate) struct Photo {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) levels: Vec<u8>,
}

/// A grid of random values that is read between its points, too.
struct Noise {
    columns: usize,
    values: Vec<f32>,
}

impl Photo {
    /// One of each `seed`.
    pub(crate) fn new(width: u32, height: u32, seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut sums = vec![0.0; 3 * width as usize * height as usize];
        for channel in 0..3 {
            for octave in 0..OCTAVES {
                let noise = Noise::new(&mut random, width, height, 2 << octave);
                let contrast = CONTRAST * FALLOFF.powi((OCTAVES - 1 - octave) as i32);
                noise.add(&mut sums[channel..], width as usize, 2 << octave, contrast);
            }
        }
        paint_edges(&mut random, &mut sums, width as usize, height as usize);
        let levels = sums.iter().map(|sum| 128.0 + sum + GRAIN * signed(&mut random));
        Self { width, height, levels: levels.map(|level| level.clamp(0.0, 255.0) as u8).collect() }
    }

    /// As cameras write it: colour at half the size.
    pub(crate) fn jpeg(&self, quality: i32) -> Vec<u8> {
        let mut compressor = Compressor::new().expect("an encoder");
        compressor.set_quality(quality).expect("1 to 100");
        compressor.set_subsamp(Subsamp::Sub2x2).expect("a usual one");
        let (width, height) = (self.width as usize, self.height as usize);
        let pixels = self.levels.as_slice();
        let format = PixelFormat::RGB;
        let image = turbojpeg::Image { pixels, width, pitch: 3 * width, height, format };
        compressor.compress_to_vec(image).expect("a JPEG")
    }
}

impl Noise {
    fn new(random: &mut ChaCha8Rng, width: u32, height: u32, step: u32) -> Self {
        let (columns, rows) = ((width / step + 2) as usize, (height / step + 2) as usize);
        let values = (0..columns * rows).map(|_| signed(random)).collect();
        Self { columns, values }
    }

    fn add(&self, sums: &mut [f32], width: usize, step: usize, contrast: f32) {
        for (index, sum) in sums.iter_mut().step_by(3).enumerate() {
            let (x, y) = (index % width, index / width);
            let (right, down) = ((x % step) as f32 / step as f32, (y % step) as f32 / step as f32);
            let at = y / step * self.columns + x / step;
            let mix = |a: f32, b: f32, share: f32| a + (b - a) * share;
            let above = mix(self.values[at], self.values[at + 1], right);
            let below = at + self.columns;
            let below = mix(self.values[below], self.values[below + 1], right);
            *sum += contrast * mix(above, below, down);
        }
    }
}

/// A few discs, brighter or darker than what they cover.
fn paint_edges(random: &mut ChaCha8Rng, sums: &mut [f32], width: usize, height: usize) {
    for _ in 0..6 {
        let mut at = |size: usize| (signed(random) * 0.5 + 0.5) * size as f32;
        let (x, y, radius) = (at(width), at(height), at(width.min(height) / 4));
        let shades: [f32; 3] = std::array::from_fn(|_| 90.0 * signed(random));
        for (index, pixel) in sums.chunks_exact_mut(3).enumerate() {
            let (right, down) = ((index % width) as f32 - x, (index / width) as f32 - y);
            if right.hypot(down) < radius {
                pixel.iter_mut().zip(shades).for_each(|(sum, shade)| *sum += shade);
            }
        }
    }
}

/// From -1 to 1.
fn signed(random: &mut ChaCha8Rng) -> f32 {
    random.next_u32() as f32 / u32::MAX as f32 * 2.0 - 1.0
}
