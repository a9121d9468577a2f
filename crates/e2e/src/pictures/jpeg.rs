//! JPEG files that no encoder at hand writes (ITU-T T.81, and Exif 2.3 for the orientation).

use bytes::Bytes;
use image::{Rgb, RgbImage, imageops};

use super::{COLUMNS, HEIGHT, ROWS, Sample, WIDTH, colours, jpeg, tile};

/// Quantisation of a block's mean. The mean comes scaled by 8, so that 8 makes it the plain level.
const QUANTISATION: u8 = 8;
/// Sizes of differences of two levels, in bits: 0 to 8.
const SIZES: u8 = 9;

/// Bits of a scan, the highest first.
#[derive(Default)]
struct BitWriter {
    bytes: Vec<u8>,
    pending: u32,
    count: u32,
}

/// A JPEG whose pixels are stored turned or mirrored, with the Exif orientation (1 to 8) that tells
/// a viewer how to show `upright`.
pub fn jpeg_with_orientation(upright: &RgbImage, orientation: u8) -> Bytes {
    let stored = match orientation {
        2 => imageops::flip_horizontal(upright),
        3 => imageops::rotate180(upright),
        4 => imageops::flip_vertical(upright),
        // Transposing undoes itself, and so does transposing over the other diagonal.
        5 => imageops::flip_horizontal(&imageops::rotate90(upright)),
        7 => imageops::flip_horizontal(&imageops::rotate270(upright)),
        // A viewer turns these by a quarter to the right and to the left.
        6 => imageops::rotate270(upright),
        8 => imageops::rotate90(upright),
        _ => upright.clone(),
    };
    let plain = jpeg(&stored);
    let mut tiff = b"II*\0\x08\0\0\0".to_vec();
    // One entry: tag 0x0112, a single short; and no further directory.
    tiff.extend([1, 0, 0x12, 0x01, 3, 0, 1, 0, 0, 0, orientation, 0, 0, 0, 0, 0, 0, 0]);

    let (start_of_image, rest) = plain.split_at(2);
    let mut file = start_of_image.to_vec();
    segment(&mut file, 0xE1, &[b"Exif\0\0", tiff.as_slice()].concat());
    file.extend(rest);
    file.into()
}

/// A JPEG of four inks, inverted as Adobe's programs write them.
pub fn cmyk_jpeg(seed: u64) -> Sample {
    let inks = colours::<4>(seed);
    let seen = RgbImage::from_fn(WIDTH, HEIGHT, |x, y| {
        let [c, m, y, k] = inks[tile(x, y)];
        // Stored inverted: 255 is no ink, so each level is the light that one ink lets through.
        Rgb([c, m, y].map(|ink| (u32::from(ink) * u32::from(k) / 255) as u8))
    });

    let mut file = vec![0xFF, 0xD8];
    // Version 100, no flags, and no transform: the components are the inks themselves.
    segment(&mut file, 0xEE, b"Adobe\0\x64\0\0\0\0\0");
    segment(&mut file, 0xDB, &[[0].as_slice(), &[QUANTISATION; 64]].concat());
    let [height, width] = [HEIGHT, WIDTH].map(|size| (size as u16).to_be_bytes());
    let mut frame = vec![8, height[0], height[1], width[0], width[1], 4];
    frame.extend((1..=4).flat_map(|component| [component, 0x11, 0]));
    segment(&mut file, 0xC0, &frame);
    // Differences: nine codes of four bits. Everything else: one code of one bit, "no more".
    let differences = [0, 0, 0, SIZES, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    segment(&mut file, 0xC4, &[&[0x00], &differences[..], &Vec::from_iter(0..SIZES)].concat());
    let no_more = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x00];
    segment(&mut file, 0xC4, &[&[0x10], &no_more[..]].concat());
    let mut scan = vec![4];
    scan.extend((1..=4).flat_map(|component| [component, 0x00]));
    scan.extend([0, 63, 0]);
    segment(&mut file, 0xDA, &scan);
    file.extend(flat_blocks(&inks));
    file.extend([0xFF, 0xD9]);
    Sample { file: file.into(), seen }
}

/// One block of each component per tile; a block is its difference to the one before.
fn flat_blocks(inks: &[[u8; 4]]) -> Vec<u8> {
    debug_assert_eq!(inks.len(), (COLUMNS * ROWS) as usize, "one colour per tile");
    let mut bits = BitWriter::default();
    let mut previous = [0_i32; 4];
    for levels in inks {
        for (level, previous) in levels.iter().zip(&mut previous) {
            let mean = i32::from(*level) - 128;
            let difference = mean - std::mem::replace(previous, mean);
            let size = i32::BITS - difference.abs().leading_zeros();
            bits.push(size, 4);
            // A negative number is written as one less, cut to its size.
            let number = if difference < 0 { difference - 1 } else { difference };
            bits.push(number as u32 & ((1 << size) - 1), size);
            bits.push(0, 1);
        }
    }
    bits.finish()
}

fn segment(file: &mut Vec<u8>, marker: u8, data: &[u8]) {
    let length = u16::try_from(data.len() + 2).expect("a segment of a few bytes");
    file.extend([0xFF, marker]);
    file.extend(length.to_be_bytes());
    file.extend(data);
}

// === impl BitWriter ===

impl BitWriter {
    fn push(&mut self, value: u32, length: u32) {
        for position in (0..length).rev() {
            self.pending = self.pending << 1 | (value >> position & 1);
            self.count += 1;
            if self.count == 8 {
                let byte = self.pending as u8;
                self.bytes.push(byte);
                if byte == 0xFF {
                    // Else it would start a marker.
                    self.bytes.push(0);
                }
                (self.pending, self.count) = (0, 0);
            }
        }
    }

    fn finish(mut self) -> Vec<u8> {
        while self.count != 0 {
            self.push(1, 1);
        }
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::{DynamicImage, ImageDecoder as _, ImageReader};

    use super::*;
    use crate::pictures::mosaic;

    #[test]
    fn a_viewer_that_heeds_the_orientation_sees_it_upright() {
        let upright = mosaic(7);
        for orientation in 1..=8 {
            let file = jpeg_with_orientation(&upright, orientation);
            let reader = ImageReader::new(Cursor::new(file)).with_guessed_format();
            let mut decoder = reader.expect("a JPEG").into_decoder().expect("a whole header");
            let found = decoder.orientation().expect("a readable orientation");
            assert_eq!(found.to_exif(), orientation, "the tag is found");
            let mut seen = DynamicImage::from_decoder(decoder).expect("whole");
            seen.apply_orientation(found);
            let seen = seen.to_rgb8();
            assert_eq!(seen.dimensions(), upright.dimensions(), "orientation {orientation}");
            let pairs = seen.as_raw().iter().zip(upright.as_raw());
            let worst = pairs.map(|(a, b)| a.abs_diff(*b)).max();
            assert!(worst <= Some(4), "orientation {orientation} is off by {worst:?} levels");
        }
    }
}
