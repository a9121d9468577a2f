//! What must hold of preprocessing, whatever the bytes are. Fuzz targets and tests share it.

use clipmesh_embedder::Limits;
use clipmesh_embedder::model::{Filter, Normalisation, Preprocessing, Resize};
use clipmesh_embedder::preprocess::{Fault, Picture, Preprocessor, Wanted};

/// Small, so that a bomb is one.
const MAX_PIXELS: u64 = 250_000;
/// Edge of the model's picture.
const EDGE: u32 = 24;
/// Longest side of the thumbnail.
const SIDE: u32 = 16;

/// Reads a file as a model wants it.
pub(crate) fn decode(bytes: &[u8]) {
    let preprocessor = preprocessor(Resize::ShortestEdge(EDGE), Some(EDGE), false);
    check(&preprocessor.picture(bytes), &Wanted::default());
}

/// Takes the first byte for settings, the rest for a file, and asks for all there is.
pub(crate) fn preprocess(bytes: &[u8]) {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    let is_set = |bit: u8| choice >> bit & 1 == 1;
    let (resize, crop) = match (is_set(0), is_set(1)) {
        (true, _) => (Resize::Exact { width: EDGE, height: EDGE }, None),
        (false, true) => (Resize::ShortestEdge(EDGE / 2), Some(EDGE)),
        (false, false) => (Resize::ShortestEdge(EDGE + 7), Some(EDGE)),
    };
    let preprocessor = preprocessor(resize, crop, is_set(2));
    let thumbnail_side = is_set(4).then_some(SIDE);
    let wanted = Wanted { facts: is_set(3), thumbnail_side };
    check(&preprocessor.picture_with(bytes, &wanted), &wanted);
}

fn preprocessor(resize: Resize, crop: Option<u32>, jpeg_scaling: bool) -> Preprocessor {
    let normalisation = Normalisation { scale: [1.0; 3], offset: [0.0; 3] };
    let filter = Filter::Bicubic;
    let preprocessing = Preprocessing { resize, filter, crop, normalisation, jpeg_scaling };
    let limits = Limits { max_image_pixels: MAX_PIXELS, ..Limits::default() };
    Preprocessor::new(preprocessing, limits)
}

fn check(result: &Result<Picture, Fault>, wanted: &Wanted) {
    match result {
        Ok(picture) => {
            let info = &picture.info;
            let pixels = u64::from(info.width) * u64::from(info.height);
            assert!((1..=MAX_PIXELS).contains(&pixels), "{info:?} is beyond the limit");
            assert_eq!(picture.levels.len(), (3 * EDGE * EDGE) as usize, "size of {info:?}");
            assert_eq!(info.facts.is_some(), wanted.facts, "facts of {info:?}");
            let has_thumbnail = picture.thumbnail.is_some();
            assert_eq!(has_thumbnail, wanted.thumbnail_side.is_some(), "thumbnail of {info:?}");
        }
        // Every refusal says why.
        Err(fault) => assert!(!fault.to_string().is_empty(), "{fault:?}"),
    }
}
