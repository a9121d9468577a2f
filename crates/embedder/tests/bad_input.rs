//! Files as they come from strangers. The pictures are made here, byte by byte where need be.

use std::io::Cursor;

use bytesize::ByteSize;
use clipmesh_embedder::Limits;
use clipmesh_embedder::model::{Filter, Normalisation, Preprocessing, Resize};
use clipmesh_embedder::preprocess::{Fault, Picture, Preprocessor};
use image::codecs::gif::GifEncoder;
use image::codecs::jpeg::JpegEncoder;
use image::{
    DynamicImage, Frame, ImageBuffer, ImageFormat, Luma, LumaA, Rgb, RgbImage, Rgba, RgbaImage,
};
use proptest::prelude::*;

/// Edge of the model's picture in these tests.
const EDGE: u32 = 16;

fn preprocessor(limits: Limits) -> Preprocessor {
    let preprocessing = Preprocessing {
        resize: Resize::ShortestEdge(EDGE),
        filter: Filter::Bicubic,
        crop: Some(EDGE),
        normalisation: Normalisation { scale: [1.0; 3], offset: [0.0; 3] },
        jpeg_scaling: false,
    };
    Preprocessor::new(preprocessing, limits)
}

fn read(bytes: &[u8]) -> Result<Picture, Fault> {
    preprocessor(Limits::default()).picture(bytes)
}

fn reason(bytes: &[u8]) -> &'static str {
    read(bytes).expect_err("a bad file").reason().as_str()
}

/// Left to right from black to red, top to bottom from black to green.
fn ramp(width: u32, height: u32) -> RgbImage {
    let level = |at: u32, of: u32| (at * 255 / of.max(2)) as u8;
    RgbImage::from_fn(width, height, |x, y| Rgb([level(x, width), level(y, height), 60]))
}

fn encode(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, format).expect("an encoder");
    bytes.into_inner()
}

/// One colour of `picture`, which must have no other, to within a level or two of a lossy format.
fn colour(picture: &Picture) -> [u8; 3] {
    let first: [u8; 3] = picture.levels[..3].try_into().expect("a pixel");
    for pixel in picture.levels.chunks(3) {
        assert!(
            pixel.iter().zip(first).all(|(a, b)| a.abs_diff(b) <= 2),
            "{pixel:?} and {first:?}"
        );
    }
    first
}

#[test]
fn empty_bytes_are_empty() {
    assert_eq!(reason(b""), "EMPTY", "nothing");
}

#[test]
fn what_is_no_image_is_told_so() {
    assert_eq!(reason(b"This is a letter, whatever its name ends in."), "NOT_AN_IMAGE", "text");
    assert_eq!(reason(&[0; 1000]), "NOT_AN_IMAGE", "zeros");
    assert_eq!(reason(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), "NOT_AN_IMAGE", "drawings");
}

#[test]
fn formats_that_are_not_read_are_named() {
    let error = read(b"P6 2 2 255 abcdefghijkl").expect_err("PNM").to_string();
    assert!(error.contains("Pnm"), "the format: {error}");
    #[cfg(not(feature = "heic"))]
    assert_eq!(reason(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"), "UNSUPPORTED", "HEIC");
}

#[test]
fn files_that_end_early_are_corrupt() {
    for format in [
        ImageFormat::Jpeg,
        ImageFormat::Png,
        ImageFormat::WebP,
        ImageFormat::Gif,
        ImageFormat::Bmp,
        ImageFormat::Tiff,
    ] {
        let bytes = encode(ramp(64, 48), format);
        assert!(read(&bytes).is_ok(), "{format:?} as a whole");
        let half = &bytes[..bytes.len() / 2];
        assert_eq!(reason(half), "CORRUPT", "half of a {format:?}");
    }
}

#[test]
fn a_jpeg_that_lacks_only_its_end_is_corrupt() {
    let bytes = encode(ramp(64, 48), ImageFormat::Jpeg);
    assert_eq!(reason(&bytes[..bytes.len() - 2]), "CORRUPT", "no end marker");
    let followed = [&bytes[..], b"something that was appended"].concat();
    assert!(read(&followed).is_ok(), "what follows the end is nobody's concern");
}

#[test]
fn one_pixel_is_a_picture() {
    let picture = read(&encode(RgbImage::from_pixel(1, 1, Rgb([200, 60, 25])), ImageFormat::Png));
    let picture = picture.expect("a picture");
    assert_eq!(colour(&picture), [200, 60, 25], "of one colour");
    assert_eq!((picture.info.width, picture.info.height), (1, 1), "of one pixel");
}

#[test]
fn a_bomb_is_refused_from_its_header() {
    // The header is all there is: whoever decodes it finds the file corrupt.
    let fault = read(&png_header(20_000, 20_000)).expect_err("too large");
    let expected = Fault::TooManyPixels { width: 20_000, height: 20_000, max: 64_000_000 };
    assert_eq!(fault, expected, "refused before anything is decoded");
    assert_eq!(reason(&png_header(8000, 8000)), "CORRUPT", "64 million pixels are accepted");
    assert_eq!(reason(&png_header(8001, 8000)), "TOO_MANY_PIXELS", "one column more is not");
    assert_eq!(
        reason(&png_header(u32::MAX >> 1, u32::MAX >> 1)),
        "TOO_MANY_PIXELS",
        "beyond all sense"
    );
    assert_eq!(reason(&png_header(8001, 8000)[..33]), "TOO_MANY_PIXELS", "cut behind the header");
}

#[test]
fn a_long_file_is_refused_unread() {
    let limits = Limits { max_image_bytes: ByteSize::b(100), ..Limits::default() };
    let fault = preprocessor(limits).picture(&[0xFF; 101]).expect_err("too long");
    assert_eq!(fault, Fault::TooManyBytes { actual: 101, max: 100 }, "whatever it holds");
}

#[test]
fn a_long_text_is_refused_unread() {
    let preprocessor = preprocessor(Limits { max_text_bytes: ByteSize::b(4), ..Limits::default() });
    assert_eq!(preprocessor.check_text("äö"), Ok(()), "four bytes");
    let fault = preprocessor.check_text("äöu");
    assert_eq!(fault, Err(Fault::TextTooLong { actual: 5, max: 4 }), "five bytes");
    assert_eq!(preprocessor.check_text(""), Err(Fault::Empty), "no text");
}

#[test]
fn sixteen_bits_lose_their_low_byte() {
    let rgb = ImageBuffer::<Rgb<u16>, _>::from_pixel(3, 3, Rgb([0x12FF, 0x8000, 0xFFFF]));
    let picture = read(&encode(rgb, ImageFormat::Png)).expect("16-bit RGB");
    assert_eq!(colour(&picture), [0x12, 0x80, 0xFF], "the high bytes");
    let grey = ImageBuffer::<Luma<u16>, _>::from_pixel(3, 3, Luma([0x7FFF]));
    assert_eq!(
        colour(&read(&encode(grey, ImageFormat::Png)).expect("16-bit grey")),
        [0x7F; 3],
        "grey"
    );
    let alpha = ImageBuffer::<LumaA<u16>, _>::from_pixel(3, 3, LumaA([0, 0x80FF]));
    let picture = read(&encode(alpha, ImageFormat::Png)).expect("16-bit grey with alpha");
    assert_eq!(colour(&picture), [127; 3], "half of the white behind it");
}

#[test]
fn transparency_is_laid_on_white() {
    for format in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Tiff] {
        let image = RgbaImage::from_pixel(4, 4, Rgba([255, 0, 0, 51]));
        let picture = read(&encode(image, format)).expect("a picture with alpha");
        assert_eq!(colour(&picture), [255, 204, 204], "a fifth of red in {format:?}");
    }
}

#[test]
fn a_palette_with_transparency_is_laid_on_white() {
    // Colour 0 is blue and half transparent, colour 1 red and opaque; both pixels are colour 0.
    let chunks = [
        (*b"PLTE", vec![0, 0, 255, 255, 0, 0]),
        (*b"tRNS", vec![128]),
        (*b"IDAT", stored_zlib(&[0, 0, 0, 0, 0, 0])),
        (*b"IEND", vec![]),
    ];
    let picture = read(&png(2, 2, [8, 3], &chunks)).expect("a palette");
    assert_eq!(colour(&picture), [127, 127, 255], "half of blue");
}

#[test]
fn grey_becomes_rgb() {
    for format in [ImageFormat::Png, ImageFormat::Jpeg] {
        let image = ImageBuffer::<Luma<u8>, _>::from_pixel(20, 20, Luma([90]));
        assert_eq!(colour(&read(&encode(image, format)).expect("grey")), [90; 3], "{format:?}");
    }
}

#[test]
fn an_animation_is_its_first_frame() {
    let mut bytes = Vec::new();
    let mut encoder = GifEncoder::new(&mut bytes);
    for colour in [[250, 0, 0, 255], [0, 250, 0, 255]] {
        let frame = Frame::new(RgbaImage::from_pixel(9, 9, Rgba(colour)));
        encoder.encode_frame(frame).expect("a frame");
    }
    drop(encoder);
    let picture = read(&bytes).expect("an animation");
    assert_eq!(colour(&picture), [250, 0, 0], "the first of two frames");
    assert_eq!(picture.info.format, "gif", "by its bytes");
}

#[test]
fn every_orientation_is_applied_once() {
    let upright = ramp(48, 32);
    let expected = read(&jpeg(&upright, None)).expect("no orientation");
    for orientation in 1..=8 {
        let stored = match orientation {
            1 => upright.clone(),
            2 => image::imageops::flip_horizontal(&upright),
            3 => image::imageops::rotate180(&upright),
            4 => image::imageops::flip_vertical(&upright),
            5 => image::imageops::flip_horizontal(&image::imageops::rotate90(&upright)),
            6 => image::imageops::rotate270(&upright),
            7 => image::imageops::flip_horizontal(&image::imageops::rotate270(&upright)),
            _ => image::imageops::rotate90(&upright),
        };
        let picture = read(&jpeg(&stored, Some(orientation))).expect("an orientation");
        let size = (picture.info.width, picture.info.height);
        assert_eq!(size, (48, 32), "the upright size, orientation {orientation}");
        let distance =
            picture.levels.iter().zip(&expected.levels).map(|(a, b)| a.abs_diff(*b)).max();
        // Blocks of a turned JPEG are rounded in another direction.
        assert!(distance <= Some(8), "orientation {orientation}: {distance:?} levels apart");
    }
}

#[test]
fn an_orientation_that_makes_no_sense_is_passed_over() {
    let expected = read(&jpeg(&ramp(48, 32), None)).expect("none");
    for orientation in [0, 9, 255] {
        let picture = read(&jpeg(&ramp(48, 32), Some(orientation))).expect("a bad orientation");
        assert_eq!(picture, expected, "orientation {orientation}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// A damaged file is either refused or read; it never panics, and never gives another size.
    #[test]
    fn damage_is_survived(
        format in prop_oneof![
            Just(ImageFormat::Jpeg), Just(ImageFormat::Png), Just(ImageFormat::WebP),
            Just(ImageFormat::Gif), Just(ImageFormat::Bmp), Just(ImageFormat::Tiff),
        ],
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = encode(ramp(20, 15), format);
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let limits = Limits { max_image_pixels: 1_000_000, ..Limits::default() };
        if let Ok(picture) = preprocessor(limits).picture(&bytes) {
            prop_assert_eq!(picture.levels.len(), (3 * EDGE * EDGE) as usize, "always the model's size");
        }
    }
}

/// A JPEG with an EXIF segment that holds an orientation and nothing else.
fn jpeg(image: &RgbImage, orientation: Option<u8>) -> Vec<u8> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, 100).encode_image(image).expect("a JPEG");
    let Some(orientation) = orientation else { return bytes };
    let mut exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    exif.extend([orientation, 0, 0, 0, 0, 0, 0]);
    let length = (exif.len() as u16 + 2).to_be_bytes();
    let segment = [&[0xFF, 0xE1], &length[..], &exif].concat();
    // Behind the start marker.
    bytes.splice(2..2, segment);
    bytes
}

fn png_header(width: u32, height: u32) -> Vec<u8> {
    png(width, height, [8, 2], &[(*b"IDAT", vec![0x78, 0x9C])])
}

/// A PNG of chunks; depth and colour type as in its header.
fn png(width: u32, height: u32, kind: [u8; 2], chunks: &[([u8; 4], Vec<u8>)]) -> Vec<u8> {
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &kind, &[0; 3]].concat();
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    for (name, body) in [(*b"IHDR", header)].iter().chain(chunks) {
        bytes.extend((body.len() as u32).to_be_bytes());
        bytes.extend(name);
        bytes.extend(body);
        bytes.extend(crc32(&[&name[..], body].concat()).to_be_bytes());
    }
    bytes
}

/// A zlib stream of one block that is stored as it is.
fn stored_zlib(data: &[u8]) -> Vec<u8> {
    let length = data.len() as u16;
    let (low, high) = data.iter().fold((1_u32, 0_u32), |(low, high), &byte| {
        let low = (low + u32::from(byte)) % 65_521;
        (low, (high + low) % 65_521)
    });
    let checksum = (high << 16 | low).to_be_bytes();
    [&[0x78, 0x01, 1], &length.to_le_bytes()[..], &(!length).to_le_bytes(), data, &checksum]
        .concat()
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 * (crc & 1)))
    })
}
