//! From brightness and colour differences to RGB: ITU-T H.273, sections 8.2 and 8.3. Colour that
//! several pixels share is brought to full size as the reference does, which takes three quarters
//! of the nearest sample and a quarter of the next, in each direction.

use super::av1::Frame;
use crate::preprocess::Fault;
use crate::preprocess::decode::levels::{Channels, Levels};

/// Numbers of the standard.
const IDENTITY: u32 = 0;
const YCGCO: u32 = 8;

/// How red and blue weigh in brightness.
#[derive(Clone, Copy, Debug)]
struct Weights {
    red: f32,
    blue: f32,
}

/// A plane of colour, read as if it had a sample for each pixel.
#[derive(Clone, Copy, Debug)]
struct Colour<'a> {
    samples: &'a [u16],
    width: usize,
    height: usize,
    sharing: (usize, usize),
}

/// From samples to shares of one.
#[derive(Clone, Copy, Debug)]
struct Range {
    black: f32,
    brightness: f32,
    grey: f32,
    colour: f32,
}

/// RGB, or grey where there is no colour.
pub(super) fn levels(frame: &Frame) -> Result<Levels, Fault> {
    let Some(sharing) = frame.sharing else {
        return Ok(Levels { channels: Channels::Grey, levels: brightness(frame).collect() });
    };
    let (width, height) = (frame.width as usize, frame.height as usize);
    let range = Range::of(frame);
    let convert = converter(frame.matrix, &range)?;
    let (columns, rows) = (width.div_ceil(sharing.0), height.div_ceil(sharing.1));
    let colours = [1, 2].map(|plane| Colour {
        samples: &frame.planes[plane],
        width: columns,
        height: rows,
        sharing,
    });
    let mut levels = Vec::with_capacity(3 * width * height);
    for (y, row) in frame.planes[0].chunks_exact(width).enumerate() {
        for (x, &sample) in row.iter().enumerate() {
            let [first, second] = colours.map(|colour| colour.at(x, y));
            levels.extend(convert(f32::from(sample), first, second).map(level));
        }
    }
    Ok(Levels { channels: Channels::Rgb, levels })
}

/// The levels of the first plane.
pub(super) fn brightness(frame: &Frame) -> impl Iterator<Item = u8> {
    let range = Range::of(frame);
    frame.planes[0].iter().map(move |&sample| level(range.brightness(f32::from(sample))))
}

/// From brightness and two differences to shares of red, green and blue.
fn converter(matrix: u32, range: &Range) -> Result<impl Fn(f32, f32, f32) -> [f32; 3], Fault> {
    let range = *range;
    let weights = match matrix {
        IDENTITY | YCGCO => Weights { red: 0.0, blue: 0.0 },
        1 => Weights { red: 0.2126, blue: 0.0722 },
        4 => Weights { red: 0.30, blue: 0.11 },
        // Most of those that don't say.
        2 | 5 | 6 => Weights { red: 0.299, blue: 0.114 },
        7 => Weights { red: 0.212, blue: 0.087 },
        9 => Weights { red: 0.2627, blue: 0.0593 },
        other => {
            let message = format!("an AVIF with the colour matrix {other}");
            return Err(Fault::Unsupported { message });
        }
    };
    let Weights { red, blue } = weights;
    Ok(move |brightness: f32, first: f32, second: f32| match matrix {
        // Green, blue, red; all in the range of brightness.
        IDENTITY => [second, brightness, first].map(|sample| range.brightness(sample)),
        YCGCO => {
            let (y, green, orange) =
                (range.brightness(brightness), range.colour(first), range.colour(second));
            [y - green + orange, y + green, y - green - orange]
        }
        _ => {
            let (y, u, v) =
                (range.brightness(brightness), range.colour(first), range.colour(second));
            let (r, b) = (y + 2.0 * (1.0 - red) * v, y + 2.0 * (1.0 - blue) * u);
            [r, (y - red * r - blue * b) / (1.0 - red - blue), b]
        }
    })
}

fn level(share: f32) -> u8 {
    // Saturates.
    (share * 255.0 + 0.5) as u8
}

// === impl Colour ===

impl Colour<'_> {
    fn at(&self, x: usize, y: usize) -> f32 {
        let (left, right, across) = neighbours(x, self.sharing.0, self.width);
        let (above, below, down) = neighbours(y, self.sharing.1, self.height);
        let sample = |x: usize, y: usize| f32::from(self.samples[y * self.width + x]);
        let upper = sample(left, above) * across + sample(right, above) * (1.0 - across);
        if above == below {
            return upper;
        }
        let lower = sample(left, below) * across + sample(right, below) * (1.0 - across);
        upper * down + lower * (1.0 - down)
    }
}

/// The nearest sample, the next one, and the share of the nearest.
fn neighbours(at: usize, sharing: usize, len: usize) -> (usize, usize, f32) {
    let nearest = at / sharing;
    if sharing == 1 {
        return (nearest, nearest, 1.0);
    }
    let next =
        if at.is_multiple_of(2) { nearest.saturating_sub(1) } else { (nearest + 1).min(len - 1) };
    (nearest, next, 0.75)
}

// === impl Range ===

impl Range {
    fn of(frame: &Frame) -> Self {
        let unit = (1_u32 << (frame.bits - 8)) as f32;
        let max = ((1_u32 << frame.bits) - 1) as f32;
        let grey = 128.0 * unit;
        if frame.is_full_range {
            return Self { black: 0.0, brightness: 1.0 / max, grey, colour: 1.0 / max };
        }
        let (brightness, colour) = (1.0 / (219.0 * unit), 1.0 / (224.0 * unit));
        Self { black: 16.0 * unit, brightness, grey, colour }
    }

    fn brightness(&self, sample: f32) -> f32 {
        (sample - self.black) * self.brightness
    }

    fn colour(&self, sample: f32) -> f32 {
        (sample - self.grey) * self.colour
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(matrix: u32, is_full_range: bool, samples: [u16; 3]) -> Frame {
        let planes = samples.map(|sample| vec![sample]);
        let sharing = Some((1, 1));
        Frame { width: 1, height: 1, bits: 8, sharing, matrix, is_full_range, planes }
    }

    #[test]
    fn colours_are_put_together_as_the_standard_says() {
        let colour = |frame: &Frame| levels(frame).expect("a known matrix").levels;
        assert_eq!(colour(&frame(1, false, [235, 128, 128])), [255; 3], "white");
        assert_eq!(colour(&frame(1, true, [0, 128, 128])), [0; 3], "black of the full range");
        assert_eq!(colour(&frame(6, true, [76, 85, 255])), [254, 0, 0], "red, by BT.601");
        assert_eq!(colour(&frame(0, true, [20, 30, 10])), [10, 20, 30], "green comes first");
        let ten = Frame { bits: 10, ..frame(0, true, [1023, 0, 512]) };
        assert_eq!(colour(&ten), [128, 255, 0], "ten bits");
        assert!(levels(&frame(14, true, [0; 3])).is_err(), "no such matrix");
    }

    #[test]
    fn shared_colour_is_smoothed() {
        assert_eq!(neighbours(0, 2, 3), (0, 0, 0.75), "nothing before the first");
        assert_eq!(neighbours(1, 2, 3), (0, 1, 0.75), "the second half leans on the next");
        assert_eq!(neighbours(2, 2, 3), (1, 0, 0.75), "the first half on the one before");
        assert_eq!(neighbours(5, 2, 3), (2, 2, 0.75), "nothing behind the last");
        assert_eq!(neighbours(5, 1, 6), (5, 5, 1.0), "one each");
    }
}
