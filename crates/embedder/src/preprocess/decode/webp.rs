//! What a WebP really holds. Its header may name a small canvas while a picture inside is of any
//! size, and the decoder notices only once it has decoded it.
//!
//! Source: the WebP container specification and RFC 6386, section 9.1.

use crate::preprocess::Fault;

const FORMAT: &str = "webp";

/// Behind `RIFF`, the length and `WEBP`.
const FIRST_CHUNK: usize = 12;
/// A name of four bytes and a length of four.
const CHUNK_HEADER: usize = 8;
/// Before the chunks of an animation's frame stand its place, size and time.
const FRAME_HEADER: usize = 16;
/// Sizes are written in 14 bits.
const SIZE_BITS: u32 = 14;
const SIZE_MASK: u32 = (1 << SIZE_BITS) - 1;

/// Refuses a file with a picture of more than `max_pixels` inside, or one that promises more bytes
/// than it has.
pub(super) fn check(bytes: &[u8], max_pixels: u64) -> Result<(), Fault> {
    check_chunks(bytes.get(FIRST_CHUNK..).unwrap_or_default(), max_pixels)
}

fn check_chunks(mut rest: &[u8], max_pixels: u64) -> Result<(), Fault> {
    while let Some((header, behind)) = rest.split_at_checked(CHUNK_HEADER) {
        let len = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
        let Some((content, next)) = behind.split_at_checked(len) else {
            return Err(Fault::Corrupt { format: FORMAT, message: "it ends early".to_owned() });
        };
        let size = match &header[..4] {
            b"VP8 " => lossy_size(content),
            b"VP8L" => lossless_size(content),
            b"ANMF" => {
                check_chunks(content.get(FRAME_HEADER..).unwrap_or_default(), max_pixels)?;
                None
            }
            _ => None,
        };
        if let Some((width, height)) = size
            && u64::from(width) * u64::from(height) > max_pixels
        {
            return Err(Fault::TooManyPixels { width, height, max: max_pixels });
        }
        // Chunks begin at even places.
        rest = next.get(len % 2..).unwrap_or_default();
    }
    Ok(())
}

/// Of a key frame: behind a tag of three bytes and a mark of three.
fn lossy_size(content: &[u8]) -> Option<(u32, u32)> {
    let &[w0, w1, h0, h1] = content.get(6..10)? else { return None };
    let size = |low, high| u32::from(u16::from_le_bytes([low, high])) & SIZE_MASK;
    Some((size(w0, w1), size(h0, h1)))
}

/// Behind a mark of one byte; one less is written.
fn lossless_size(content: &[u8]) -> Option<(u32, u32)> {
    let &[a, b, c, d] = content.get(1..5)? else { return None };
    let bits = u32::from_le_bytes([a, b, c, d]);
    Some(((bits & SIZE_MASK) + 1, ((bits >> SIZE_BITS) & SIZE_MASK) + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
        let len = u32::try_from(content.len()).expect("a short chunk").to_le_bytes();
        [name, &len[..], content, &vec![0; content.len() % 2]].concat()
    }

    fn file(chunks: &[Vec<u8>]) -> Vec<u8> {
        [b"RIFF\0\0\0\0WEBP".to_vec(), chunks.concat()].concat()
    }

    /// The start of a lossy picture of 16383 x 16383 pixels.
    fn giant() -> Vec<u8> {
        chunk(b"VP8 ", &[0, 0, 0, 0x9d, 0x01, 0x2a, 0xff, 0x3f, 0xff, 0x3f, 0])
    }

    #[test]
    fn a_giant_behind_a_small_canvas_is_refused() {
        let canvas = chunk(b"VP8X", &[0; 10]);
        let expected = Err(Fault::TooManyPixels { width: 16_383, height: 16_383, max: 1_000 });
        assert_eq!(check(&file(&[canvas.clone(), giant()]), 1_000), expected, "a picture");
        let frame = chunk(b"ANMF", &[vec![0; FRAME_HEADER], giant()].concat());
        assert_eq!(check(&file(&[canvas, frame]), 1_000), expected, "a frame of an animation");
    }

    #[test]
    fn lossless_sizes_are_read_too() {
        // 3 x 2 pixels.
        let small = chunk(b"VP8L", &[0x2f, 2, 0x40, 0, 0, 0]);
        assert_eq!(check(&file(std::slice::from_ref(&small)), 6), Ok(()), "just small enough");
        let expected = Err(Fault::TooManyPixels { width: 3, height: 2, max: 5 });
        assert_eq!(check(&file(&[small]), 5), expected, "one pixel too many");
    }

    #[test]
    fn a_chunk_that_promises_more_than_there_is_is_refused() {
        let mut claims = file(&[chunk(b"EXIF", b"")]);
        let at = claims.len() - 4;
        claims[at..].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(check(&claims, 10), Err(Fault::Corrupt { .. })), "4 GiB of metadata");
    }
}
