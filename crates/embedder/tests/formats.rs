//! Every kind of file gives the pixels that the reference decodes: `tests/golden/formats.py` wrote
//! the files, and what Pillow makes of each.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clipmesh_embedder::Limits;
use clipmesh_embedder::model::{Filter, Normalisation, Preprocessing, Resize};
use clipmesh_embedder::preprocess::{Fault, Picture, Preprocessor, Wanted};
use image::{ImageFormat, RgbImage};
use turbojpeg::{Compressor, Decompressor, Image, PixelFormat};

/// How far a kind may be from Pillow's levels: on average, and at most.
struct Tolerance {
    mean: f64,
    max: u8,
}

/// The same decoder, or nothing lost.
const EQUAL: Tolerance = Tolerance { mean: 0.0, max: 0 };
/// Two programs that convert colours by the same tables, rounded in other places.
const CONVERTED: Tolerance = Tolerance { mean: 0.25, max: 1 };
/// The same samples of colour, but one for several pixels: how they are spread shows at edges.
const SHARED: Tolerance = Tolerance { mean: 0.7, max: 14 };
/// The same samples, rounded in other places before a conversion that makes more of it.
const ROUNDED: Tolerance = Tolerance { mean: 0.3, max: 7 };
/// Where an ink's table has only its corners, the way between them is each program's own.
const PRINTED: Tolerance = Tolerance { mean: 2.0, max: 24 };

fn tolerance(file: &str) -> Tolerance {
    match file {
        "srgb.png" | "broken-profile.png" => EQUAL,
        "printed.jpg" => PRINTED,
        "avif-display-p3.avif" => ROUNDED,
        "upright.heic" | "turned.heic" => SHARED,
        "avif-420.avif" | "avif-422.avif" | "avif-10-bit.avif" | "avif-limited-range.avif" => {
            SHARED
        }
        _ => CONVERTED,
    }
}

/// Gives the picture itself: resized to the size that it has, and nothing cut off.
fn read(bytes: &[u8], (width, height): (u32, u32)) -> Picture {
    preprocessor(Resize::Exact { width, height }, Limits::default())
        .picture(bytes)
        .expect("a picture")
}

fn preprocessor(resize: Resize, limits: Limits) -> Preprocessor {
    let normalisation = Normalisation { scale: [1.0; 3], offset: [0.0; 3] };
    let filter = Filter::Bicubic;
    let preprocessing =
        Preprocessing { resize, filter, crop: None, normalisation, jpeg_scaling: false };
    Preprocessor::new(preprocessing, limits)
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/formats")
}

fn golden(file: &str) -> Vec<u8> {
    fs::read(folder().join(file)).expect("a golden file")
}

/// Names of the files, and what Pillow makes of them.
fn all() -> Vec<(String, RgbImage)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder()).expect("the golden files") {
        let path = entry.expect("a file").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        let file = name.strip_suffix(".expected.png");
        let is_read = |file: &&str| cfg!(feature = "heic") || !file.ends_with(".heic");
        if let Some(file) = file.filter(is_read) {
            files.push((file.to_owned(), image::open(&path).expect("a picture").into_rgb8()));
        }
    }
    files.sort_by(|left, right| left.0.cmp(&right.0));
    files
}

#[test]
fn every_kind_gives_the_reference_s_pixels() {
    let files = all();
    assert!(files.len() >= 20, "{} kinds", files.len());
    let mut strays = Vec::new();
    for (file, expected) in files {
        let picture = read(&golden(&file), expected.dimensions());
        let size = (picture.info.width, picture.info.height);
        assert_eq!(size, expected.dimensions(), "upright size of {file}");
        let distances: Vec<u8> =
            picture.levels.iter().zip(expected.as_raw()).map(|(a, b)| a.abs_diff(*b)).collect();
        let sum: f64 = distances.iter().map(|&distance| f64::from(distance)).sum();
        let (mean, max) = (sum / distances.len() as f64, distances.iter().max().copied());
        println!("{file}: {mean:.3} on average, {max:?} at most");
        let Tolerance { mean: most, max: highest } = tolerance(&file);
        if mean > most || max > Some(highest) {
            strays.push(format!("{file}: {mean:.3}, {max:?}"));
        }
    }
    assert!(strays.is_empty(), "too far from the reference: {strays:#?}");
}

#[test]
fn the_formats_are_told_from_the_bytes() {
    let info = |file: &str| read(&golden(file), (10, 10)).info.format;
    assert_eq!(info("avif-444.avif"), "avif", "by its brand");
    assert_eq!(info("adobe-rgb.tiff"), "tiff", "by its mark");
}

#[test]
fn avif_is_refused_for_what_it_is() {
    let bytes = golden("avif-420.avif");
    let resize = Resize::Exact { width: 8, height: 8 };
    let limits = Limits { max_image_pixels: 61 * 47 - 1, ..Limits::default() };
    let fault = preprocessor(resize, limits).picture(&bytes).expect_err("too large");
    let expected = Fault::TooManyPixels { width: 61, height: 47, max: 61 * 47 - 1 };
    assert_eq!(fault, expected, "from the header");
    let strict = preprocessor(resize, Limits::default());
    for end in [40, bytes.len() / 2, bytes.len() - 1] {
        let fault = strict.picture(&bytes[..end]).expect_err("cut");
        assert_eq!(fault.reason().as_str(), "CORRUPT", "{end} bytes: {fault}");
    }
}

#[test]
fn ink_that_was_taken_apart_like_light_is_put_together() {
    // Stored the other way round, as Adobe does: no cyan, half of magenta, no yellow, no black.
    let pixels = [255, 128, 255, 255].repeat(16 * 16);
    let mut compressor = Compressor::new().expect("an encoder");
    compressor.set_quality(100).expect("1 to 100");
    let image = Image {
        pixels: pixels.as_slice(),
        width: 16,
        height: 16,
        pitch: 64,
        format: PixelFormat::CMYK,
    };
    let bytes = compressor.compress_to_vec(image).expect("a JPEG");
    let header = Decompressor::new().and_then(|mut it| it.read_header(&bytes)).expect("a header");
    assert_eq!(header.colorspace, turbojpeg::Colorspace::YCCK, "what this is about");
    let picture = read(&bytes, (1, 1));
    for (level, expected) in picture.levels.iter().zip([255_u8, 128, 255]) {
        assert!(level.abs_diff(expected) <= 2, "{:?}", picture.levels);
    }
}

#[test]
fn equal_pixels_have_one_hash_in_every_form() {
    let resize = Resize::Exact { width: 8, height: 8 };
    let preprocessor = preprocessor(resize, Limits::default());
    let wanted = Wanted { facts: true, thumbnail_side: None };
    let facts = |bytes: &[u8]| {
        preprocessor.picture_with(bytes, &wanted).expect("a picture").info.facts.expect("wanted")
    };
    let picture = image::load_from_memory(&golden("srgb.png.expected.png")).expect("a picture");
    let encode = |format| {
        let mut bytes = std::io::Cursor::new(Vec::new());
        picture.write_to(&mut bytes, format).expect("an encoder");
        bytes.into_inner()
    };
    let png = facts(&encode(ImageFormat::Png));
    for format in [ImageFormat::Bmp, ImageFormat::Tiff, ImageFormat::WebP] {
        let other = facts(&encode(format));
        assert_eq!(other.pixel_hash, png.pixel_hash, "{format:?} shows the same");
        assert_eq!(other.perceptual_hash, png.perceptual_hash, "{format:?} looks the same");
        assert_ne!(other.content_hash, png.content_hash, "{format:?} is another file");
    }
    let other = facts(&golden("dark-grey.png"));
    assert_ne!(other.pixel_hash, png.pixel_hash, "another picture");
}

#[test]
fn hashes_and_thumbnails_are_of_the_upright_picture() {
    let resize = Resize::Exact { width: 8, height: 8 };
    let preprocessor = preprocessor(resize, Limits::default());
    let wanted = Wanted { facts: true, thumbnail_side: Some(40) };
    let images = folder().join("../images");
    let read = |file: &str| {
        let bytes = fs::read(images.join(file)).expect("a golden file");
        preprocessor.picture_with(&bytes, &wanted).expect("a picture")
    };
    let upright = read("orientation-1.jpg");
    let hash = |picture: &Picture| picture.info.facts.expect("wanted").perceptual_hash;
    for orientation in 2..=8 {
        let turned = read(&format!("orientation-{orientation}.jpg"));
        let distance = hash(&turned).distance(hash(&upright));
        assert!(distance <= 4, "{distance} bits from orientation {orientation}");
        let thumbnail = turned.thumbnail.expect("wanted");
        let thumbnail = image::load_from_memory(&thumbnail).expect("a JPEG");
        assert_eq!((thumbnail.width(), thumbnail.height()), (40, 28), "orientation {orientation}");
    }
    // A lossless file whose tag turns it.
    let turned = read("orientation-6.png");
    let levels = image::open(images.join("orientation-6.png")).expect("a picture").rotate90();
    let mut bmp = std::io::Cursor::new(Vec::new());
    levels.into_rgb8().write_to(&mut bmp, ImageFormat::Bmp).expect("an encoder");
    let plain = preprocessor.picture_with(bmp.get_ref(), &wanted).expect("a picture");
    let pixels = |picture: &Picture| picture.info.facts.expect("wanted").pixel_hash;
    assert_eq!(pixels(&turned), pixels(&plain), "however the camera was held");
}

#[test]
fn what_takes_too_long_is_told_so() {
    let limits = Limits { max_decode_time: Duration::from_nanos(1), ..Limits::default() };
    let hasty = preprocessor(Resize::Exact { width: 8, height: 8 }, limits);
    for file in ["adobe-rgb.jpg", "srgb.png", "display-p3.webp", "adobe-rgb.tiff", "avif-420.avif"]
    {
        let fault = hasty.picture(&golden(file)).expect_err("no time");
        assert_eq!(fault, Fault::TooSlow { max: Duration::from_nanos(1) }, "{file}");
        assert_eq!(fault.reason().as_str(), "TOO_SLOW", "for programs");
    }
}

#[test]
fn a_jpeg_may_go_over_its_pixels_so_often() {
    let resize = Resize::Exact { width: 8, height: 8 };
    let mut bytes = fs::read(folder().join("../images/landscape-progressive.jpg")).expect("a file");
    let fine = preprocessor(resize, Limits::default());
    assert!(fine.picture(&bytes).is_ok(), "ten scans or so");
    // Scans without components, in front of the end marker: 101 of them are too many.
    let end = bytes.len() - 2;
    bytes.splice(end..end, [0xFF, 0xDA, 0, 2].repeat(101));
    let fault = fine.picture(&bytes).expect_err("too many scans");
    assert!(matches!(fault, Fault::TooManyScans { max: 100, .. }), "{fault}");
    assert_eq!(fault.reason().as_str(), "TOO_SLOW", "for programs");
}
