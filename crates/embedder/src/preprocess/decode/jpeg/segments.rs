//! What stands around a JPEG's data: ITU-T T.81, annex B; EXIF and ICC segments after their own
//! specifications.

use memchr::memchr;

use crate::preprocess::Fault;

use super::corrupt;

/// The standards' names of markers, by their second byte.
mod marker {
    pub(super) const START_OF_IMAGE: u8 = 0xD8;
    pub(super) const END_OF_IMAGE: u8 = 0xD9;
    pub(super) const START_OF_SCAN: u8 = 0xDA;
    pub(super) const EXIF: u8 = 0xE1;
    pub(super) const PROFILE: u8 = 0xE2;
}

const EXIF_NAME: &[u8] = b"Exif\0\0";
/// Two more bytes say which piece this is, and of how many.
const PROFILE_NAME: &[u8] = b"ICC_PROFILE\0";

/// A file's segments, up to its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Segments<'a> {
    pub(super) width: u32,
    pub(super) height: u32,
    /// How often the data go over the picture.
    pub(super) scans: u32,
    pub(super) exif: Option<&'a [u8]>,
    /// In the order of the file.
    profile: Vec<ProfilePiece<'a>>,
}

#[derive(Debug, PartialEq, Eq)]
struct ProfilePiece<'a> {
    number: u8,
    bytes: &'a [u8],
}

/// Goes from marker to marker.
struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
}

// === impl Segments ===

impl<'a> Segments<'a> {
    /// Reads what comes before the data, and counts the scans. What follows the end of a picture
    /// is nobody's concern.
    ///
    /// # Errors
    /// A file that ends before its end marker: a decoder would fill what is missing with grey, and
    /// a picture that is half grey would be found by nothing. One of a kind that is not read.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, Fault> {
        // Behind the start marker.
        let mut walk = Walk { bytes, at: 2 };
        let mut size = None;
        let (mut scans, mut exif, mut profile) = (0, None, Vec::new());
        loop {
            let Some(marker) = walk.marker() else { return Err(corrupt("it ends early")) };
            match marker {
                marker::END_OF_IMAGE => break,
                // Alone; nothing follows. Restart markers belong to a scan.
                0x00 | 0x01 | 0xD0..=marker::START_OF_IMAGE => continue,
                0x02..=0xFF => {}
            }
            let Some(segment) = walk.segment() else { return Err(corrupt("it ends early")) };
            match marker {
                marker::START_OF_SCAN => scans += 1,
                marker::EXIF => exif = exif.or(segment.strip_prefix(EXIF_NAME)),
                marker::PROFILE => profile.extend(ProfilePiece::read(segment)),
                // Tables, in between the kinds of frames.
                0xC4 | 0xC8 | 0xCC => {}
                0xC0..=0xCF if size.is_none() => size = Some(frame(marker, segment)?),
                _ => {}
            }
        }
        let (width, height) = size.ok_or_else(|| corrupt("it has no frame"))?;
        Ok(Self { width, height, scans, exif, profile })
    }

    /// The pieces of a profile, put together; an incomplete one is no profile.
    pub(super) fn profile(mut self) -> Option<Vec<u8>> {
        self.profile.sort_by_key(|piece| piece.number);
        let is_whole = self.profile.iter().zip(1..).all(|(piece, number)| piece.number == number);
        let bytes = self.profile.iter().flat_map(|piece| piece.bytes.iter().copied());
        (is_whole && !self.profile.is_empty()).then(|| bytes.collect())
    }
}

impl<'a> ProfilePiece<'a> {
    fn read(segment: &'a [u8]) -> Option<Self> {
        let [number, _count, bytes @ ..] = segment.strip_prefix(PROFILE_NAME)? else { return None };
        Some(Self { number: *number, bytes })
    }
}

// === impl Walk ===

impl<'a> Walk<'a> {
    /// The next marker, and moves behind it. In front of one stands nothing, or what is left of a
    /// scan; there, 0xFF is followed by zero where it is data.
    fn marker(&mut self) -> Option<u8> {
        loop {
            let found = self.at + memchr(0xFF, self.bytes.get(self.at..)?)?;
            let marker = *self.bytes.get(found + 1)?;
            // After a fill byte, the marker itself comes next.
            self.at = if marker == 0xFF { found + 1 } else { found + 2 };
            if marker != 0xFF {
                return Some(marker);
            }
        }
    }

    /// What belongs to the marker, behind its length.
    fn segment(&mut self) -> Option<&'a [u8]> {
        let rest = self.bytes.get(self.at..)?;
        let &[high, low] = rest.first_chunk()?;
        let length = usize::from(u16::from_be_bytes([high, low])).max(2);
        self.at += length;
        rest.get(2..length)
    }
}

/// The size that a frame header promises, if it is of a kind that is read.
fn frame(marker: u8, segment: &[u8]) -> Result<(u32, u32), Fault> {
    let refuse = |kind: &str| Err(Fault::Unsupported { message: kind.to_owned() });
    match marker {
        // Baseline, extended, progressive; all with Huffman codes.
        0xC0..=0xC2 => {}
        0xC3 => return refuse("a lossless JPEG"),
        0xC9..=0xCB => return refuse("an arithmetic-coded JPEG"),
        _ => return refuse("a hierarchical JPEG"),
    }
    let Some(&[bits, h1, h0, w1, w0]) = segment.first_chunk() else {
        return Err(corrupt("its frame header is too short"));
    };
    if bits != 8 {
        return refuse(&format!("a JPEG of {bits} bits per level"));
    }
    Ok((u16::from_be_bytes([w1, w0]).into(), u16::from_be_bytes([h1, h0]).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(marker: u8, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len() + 2).expect("a short segment").to_be_bytes();
        [&[0xFF, marker], &length[..], content].concat()
    }

    /// 3 x 2 pixels, 8 bits.
    fn frame_header(marker: u8) -> Vec<u8> {
        segment(marker, &[8, 0, 2, 0, 3, 1])
    }

    fn file(segments: &[Vec<u8>]) -> Vec<u8> {
        [&[0xFF, 0xD8], &segments.concat()[..], &[0xFF, 0xD9]].concat()
    }

    #[test]
    fn a_file_is_whole_up_to_its_end_marker() {
        // A segment with an end marker inside, a fill byte, a scan with data that look like markers.
        let before = [segment(0xE5, &[0xFF, 0xD9]), frame_header(0xC0), vec![0xFF]].concat();
        let scan = [segment(0xDA, &[]), vec![1, 2, 0xFF, 0x00, 0xFF, 0xD3, 5]].concat();
        let whole = file(&[before, scan]);
        let segments = Segments::read(&whole).expect("a whole file");
        assert_eq!((segments.width, segments.height, segments.scans), (3, 2, 1), "its frame");
        let followed = [&whole[..], &[7, 7]].concat();
        assert_eq!(Segments::read(&followed), Ok(segments), "what follows is nobody's concern");
        for end in 2..whole.len() {
            assert!(
                matches!(Segments::read(&whole[..end]), Err(Fault::Corrupt { .. })),
                "{end} bytes of {}",
                whole.len()
            );
        }
    }

    #[test]
    fn kinds_that_are_not_read_are_named() {
        for (marker, name) in
            [(0xC3, "lossless"), (0xC9, "arithmetic"), (0xCA, "arithmetic"), (0xC5, "hierarchical")]
        {
            let fault = Segments::read(&file(&[frame_header(marker)])).expect_err(name);
            assert!(fault.to_string().contains(name), "{fault}");
        }
        let twelve = segment(0xC1, &[12, 0, 2, 0, 3, 1]);
        let fault = Segments::read(&file(&[twelve])).expect_err("12 bits").to_string();
        assert!(fault.contains("12 bits"), "{fault}");
    }

    #[test]
    fn a_profile_is_put_together_from_its_pieces() {
        let piece =
            |number: u8, bytes: &[u8]| segment(0xE2, &[PROFILE_NAME, &[number, 2], bytes].concat());
        let profile = |segments: &[Vec<u8>]| {
            let whole = file(&[&[frame_header(0xC0)], segments].concat());
            Segments::read(&whole).expect("a whole file").profile()
        };
        let both = profile(&[piece(2, b"second"), piece(1, b"first ")]);
        assert_eq!(both.as_deref(), Some(&b"first second"[..]), "in their order");
        assert_eq!(profile(&[piece(2, b"second")]), None, "the first is missing");
        assert_eq!(profile(&[segment(0xE2, b"MPF\0")]), None, "another thing");
    }
}
