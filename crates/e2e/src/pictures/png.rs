//! PNG files that no encoder at hand writes (<https://www.w3.org/TR/png-3/>).

use bytes::Bytes;
use image::{Rgb, RgbImage};

use super::{HEIGHT, Sample, WIDTH, colours, tile};

const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
/// Colour types of `IHDR`.
const GREY: u8 = 0;
const PALETTE: u8 = 3;

/// Edge of the giant in pixels.
const GIANT_EDGE: u32 = 20_000;
/// Bytes of its pixels: a filter byte and one bit per pixel in each line.
const GIANT_BYTES: usize = GIANT_EDGE as usize * (1 + GIANT_EDGE as usize / 8);

/// What one bit or more of a deflate stream stands for.
struct BitWriter {
    bytes: Vec<u8>,
    used: u32,
}

/// A palette whose entries are more or less transparent; to be seen on white.
pub fn palette_png_with_alpha(seed: u64) -> Sample {
    let palette = colours::<4>(seed);
    let mut pixels = Vec::new();
    for y in 0..HEIGHT {
        // Each line starts with its filter: none.
        pixels.push(0);
        pixels.extend((0..WIDTH).map(|x| tile(x, y) as u8));
    }
    let seen = RgbImage::from_fn(WIDTH, HEIGHT, |x, y| {
        let [r, g, b, alpha] = palette[tile(x, y)];
        Rgb([r, g, b].map(|level| on_white(level, alpha)))
    });
    let colours: Vec<u8> = palette.iter().flat_map(|&[r, g, b, _]| [r, g, b]).collect();
    let alphas: Vec<u8> = palette.iter().map(|&[.., alpha]| alpha).collect();

    let mut file = header(WIDTH, HEIGHT, 8, PALETTE);
    chunk(&mut file, b"PLTE", &colours);
    chunk(&mut file, b"tRNS", &alphas);
    chunk(&mut file, b"IDAT", &stored(&pixels));
    chunk(&mut file, b"IEND", &[]);
    Sample { file: file.into(), seen }
}

/// A whole and valid picture of 20000 by 20000 black pixels in some 300 KB: a decompression bomb.
pub fn giant_png() -> Bytes {
    let mut file = header(GIANT_EDGE, GIANT_EDGE, 1, GREY);
    chunk(&mut file, b"IDAT", &zeros(GIANT_BYTES));
    chunk(&mut file, b"IEND", &[]);
    file.into()
}

/// The start of the giant, a few bytes into its pixels. Who decodes them first calls it broken.
pub fn giant_png_start() -> Bytes {
    let pixels = SIGNATURE.len() + 25 + 8;
    giant_png().slice(..pixels + 16)
}

fn on_white(level: u8, alpha: u8) -> u8 {
    let (level, alpha) = (u32::from(level), u32::from(alpha));
    ((level * alpha + 255 * (255 - alpha) + 127) / 255) as u8
}

fn header(width: u32, height: u32, bit_depth: u8, colour_type: u8) -> Vec<u8> {
    let mut data = Vec::new();
    data.extend(width.to_be_bytes());
    data.extend(height.to_be_bytes());
    // Then the only compression and filter methods that exist, and no interlacing.
    data.extend([bit_depth, colour_type, 0, 0, 0]);
    let mut file = SIGNATURE.to_vec();
    chunk(&mut file, b"IHDR", &data);
    file
}

fn chunk(file: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
    file.extend((data.len() as u32).to_be_bytes());
    let start = file.len();
    file.extend(kind);
    file.extend(data);
    let checksum = crc32(&file[start..]);
    file.extend(checksum.to_be_bytes());
}

/// A zlib stream (RFC 1950) that compresses nothing.
fn stored(data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).expect("a mosaic fits one stored block");
    let mut stream = vec![0x78, 0x01, 0x01];
    stream.extend(length.to_le_bytes());
    stream.extend((!length).to_le_bytes());
    stream.extend(data);
    stream.extend(adler32(data).to_be_bytes());
    stream
}

/// A zlib stream of `count` zero bytes: one literal, then copies of 258 bytes from one byte back,
/// in the fixed Huffman codes of RFC 1951, 3.2.6.
fn zeros(count: usize) -> Vec<u8> {
    const LITERAL_ZERO: (u32, u32) = (0b0011_0000, 8);
    const COPY_258: (u32, u32) = (0b1100_0101, 8);
    const FROM_ONE_BACK: (u32, u32) = (0, 5);
    const END: (u32, u32) = (0, 7);

    let mut bits = BitWriter { bytes: vec![0x78, 0x01], used: 8 };
    // The last block, and one of fixed codes; these two are numbers, so lowest bit first.
    bits.code((0b1, 1));
    bits.code((0b10, 2));
    let copies = (count - 1) / 258;
    for _ in 0..count - copies * 258 {
        bits.code(LITERAL_ZERO);
    }
    for _ in 0..copies {
        bits.code(COPY_258);
        bits.code(FROM_ONE_BACK);
    }
    bits.code(END);
    let mut stream = bits.bytes;
    // Adler-32 of zeros: the first sum stays 1, the second counts.
    let checksum = ((count % 65_521) as u32) << 16 | 1;
    stream.extend(checksum.to_be_bytes());
    stream
}

fn crc32(data: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for &byte in data {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            let polynomial = if crc & 1 == 1 { 0xEDB8_8320 } else { 0 };
            crc = crc >> 1 ^ polynomial;
        }
    }
    !crc
}

fn adler32(data: &[u8]) -> u32 {
    let (mut low, mut high) = (1, 0);
    for &byte in data {
        low = (low + u32::from(byte)) % 65_521;
        high = (high + low) % 65_521;
    }
    high << 16 | low
}

// === impl BitWriter ===

impl BitWriter {
    /// Appends a Huffman code of some bits, its highest bit first.
    fn code(&mut self, (code, length): (u32, u32)) {
        for position in (0..length).rev() {
            if self.used == 8 {
                self.bytes.push(0);
                self.used = 0;
            }
            let bit = (code >> position & 1) as u8;
            let last = self.bytes.last_mut().expect("a byte was pushed");
            *last |= bit << self.used;
            self.used += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn the_palette_and_its_alpha_are_read_back() {
        let sample = palette_png_with_alpha(2);
        let read = image::load_from_memory(&sample.file).expect("a valid file").to_rgba8();
        for (x, y, pixel) in read.enumerate_pixels() {
            let [r, g, b, alpha] = pixel.0;
            let on_white = Rgb([r, g, b].map(|level| on_white(level, alpha)));
            assert_eq!(&on_white, sample.seen.get_pixel(x, y), "pixel {x},{y} on white");
        }
    }

    #[test]
    fn the_run_of_zeros_is_valid_at_any_length() {
        // 16 by 16 pixels of one bit: the same code at a size that can be decoded here.
        for edge in [8_u32, 16, 1_000] {
            let mut file = header(edge, edge, 1, GREY);
            chunk(&mut file, b"IDAT", &zeros(edge as usize * (1 + edge as usize / 8)));
            chunk(&mut file, b"IEND", &[]);
            let read = image::load_from_memory(&file).expect("a valid file").to_luma8();
            assert!(read.pixels().all(|pixel| pixel.0 == [0]), "{edge} by {edge} black pixels");
        }
    }

    #[test]
    fn the_giant_is_small_as_a_file() {
        let file = giant_png();
        assert!(file.len() < 400_000, "{} bytes", file.len());
        let reader = image::ImageReader::new(Cursor::new(&file)).with_guessed_format();
        let size = reader.expect("a PNG").into_dimensions().expect("a readable header");
        assert_eq!(size, (GIANT_EDGE, GIANT_EDGE), "as large as its header says");
    }
}
