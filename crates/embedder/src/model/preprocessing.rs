//! How a picture is brought into the form that the model was trained on, from Hugging Face's
//! `preprocessor_config.json`.

use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};

use super::section::{self, Section};
use super::{Config, Error};

pub(super) const FILE: &str = "preprocessor_config.json";

/// Mean and deviation of the pictures that the first CLIP models were trained on.
const CLIP_MEAN: [f64; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
const CLIP_DEVIATION: [f64; 3] = [0.268_629_54, 0.261_302_58, 0.275_777_11];

/// Above any model's input; keeps one resized picture below a gigabyte.
const MAX_EDGE: u32 = 16_384;

/// From an upright RGB picture to the model's input.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Preprocessing {
    pub resize: Resize,
    pub filter: Filter,
    /// Edge in pixels of the square that is cut out of the middle; `None` takes all.
    pub crop: Option<u32>,
    pub normalisation: Normalisation,
}

/// To which size a picture is brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Resize {
    /// The shorter edge becomes this long; the shape is kept.
    ShortestEdge(u32),
    /// Exactly this; the shape is lost.
    Exact { width: u32, height: u32 },
}

/// How pixels are weighed, after Pillow's numbering of its filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    Lanczos,
    Bilinear,
    Bicubic,
}

/// From a level of 0 to 255 to the model's number, per channel: `level * scale + offset`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Normalisation {
    pub scale: [f32; 3],
    pub offset: [f32; 3],
}

// === impl Preprocessing ===

impl Preprocessing {
    /// Reads `preprocessor_config.json` of a model's folder.
    ///
    /// # Errors
    /// A file that can't be read, a value that is not supported, or a picture that comes out in
    /// another size than the model takes; the message names the key.
    pub fn read(folder: &Path, model: &Config) -> Result<Self, Error> {
        let file = folder.join(FILE);
        let root = section::read(&file)?;
        if !root.flag("do_resize", true)? {
            return Err(root.fault("do_resize", "must be true: pictures come in all sizes"));
        }
        let crop = match root.flag("do_center_crop", true)? {
            true => Some(crop(&root)?),
            false => None,
        };
        let preprocessing = Self {
            resize: resize(&root)?,
            filter: filter(&root)?,
            crop,
            normalisation: normalisation(&root)?,
        };
        let (key, output) = match (crop, preprocessing.resize) {
            (Some(edge), _) => ("crop_size", (edge, edge)),
            (None, Resize::Exact { width, height }) => ("size", (width, height)),
            (None, Resize::ShortestEdge(_)) => {
                return Err(root.fault("do_center_crop", "must be true: `size` keeps the shape"));
            }
        };
        let expected = model.vision.image_size;
        if [output.0, output.1].map(|edge| edge as usize) != [expected; 2] {
            let (width, height) = output;
            let message =
                format!("gives {width} x {height}, but the model takes {expected} x {expected}");
            return Err(root.fault(key, message));
        }
        Ok(preprocessing)
    }

    /// A `preprocessor_config.json` that says what the first CLIP models do.
    pub(super) fn clip_json(image_size: usize) -> Value {
        json!({
            "image_processor_type": "CLIPImageProcessor",
            "do_convert_rgb": true,
            "do_resize": true,
            "size": { "shortest_edge": image_size },
            "resample": 3,
            "do_center_crop": true,
            "crop_size": { "height": image_size, "width": image_size },
            "do_rescale": true,
            "rescale_factor": 1.0 / 255.0,
            "do_normalize": true,
            "image_mean": CLIP_MEAN,
            "image_std": CLIP_DEVIATION,
        })
    }
}

// === impl Normalisation ===

impl Normalisation {
    fn new(rescale: f64, mean: [f64; 3], deviation: [f64; 3]) -> Self {
        let channel =
            |i: usize| ((rescale / deviation[i]) as f32, (-mean[i] / deviation[i]) as f32);
        let channels = [channel(0), channel(1), channel(2)];
        Self { scale: channels.map(|(scale, _)| scale), offset: channels.map(|(_, offset)| offset) }
    }
}

fn normalisation(root: &Section<'_>) -> Result<Normalisation, Error> {
    let rescale = match root.flag("do_rescale", true)? {
        true => root.number("rescale_factor", 1.0 / 255.0)?,
        false => 1.0,
    };
    let (mean, deviation) = match root.flag("do_normalize", true)? {
        true => {
            (root.channels("image_mean", CLIP_MEAN)?, root.channels("image_std", CLIP_DEVIATION)?)
        }
        false => ([0.0; 3], [1.0; 3]),
    };
    if deviation.contains(&0.0) {
        return Err(root.fault("image_std", "must not be zero"));
    }
    Ok(Normalisation::new(rescale, mean, deviation))
}

/// `size`: a number, `{shortest_edge}`, or `{height, width}`.
fn resize(root: &Section<'_>) -> Result<Resize, Error> {
    match root.value("size") {
        None => Ok(Resize::ShortestEdge(224)),
        Some(Value::Number(_)) => Ok(Resize::ShortestEdge(edge(root, "size")?)),
        Some(_) => {
            let size = root.section("size")?;
            if size.value("shortest_edge").is_some() {
                return Ok(Resize::ShortestEdge(edge(&size, "shortest_edge")?));
            }
            if size.value("height").is_none() || size.value("width").is_none() {
                return Err(root.fault("size", "needs `shortest_edge`, or `height` and `width`"));
            }
            Ok(Resize::Exact { width: edge(&size, "width")?, height: edge(&size, "height")? })
        }
    }
}

/// `crop_size`: a number, or `{height, width}` that are the same.
fn crop(root: &Section<'_>) -> Result<u32, Error> {
    if !root.value("crop_size").is_some_and(Value::is_object) {
        return edge(root, "crop_size");
    }
    let size = root.section("crop_size")?;
    let (height, width) = (edge(&size, "height")?, edge(&size, "width")?);
    if height != width {
        return Err(root.fault("crop_size", "must be a square"));
    }
    Ok(height)
}

fn edge(section: &Section<'_>, key: &str) -> Result<u32, Error> {
    let edge = section.size(key, 224)?;
    u32::try_from(edge)
        .ok()
        .filter(|&edge| edge <= MAX_EDGE)
        .ok_or_else(|| section.fault(key, format!("must be at most {MAX_EDGE}, not {edge}")))
}

fn filter(root: &Section<'_>) -> Result<Filter, Error> {
    // The numbers of `PIL.Image.Resampling`.
    match root.size("resample", 3)? {
        1 => Ok(Filter::Lanczos),
        2 => Ok(Filter::Bilinear),
        3 => Ok(Filter::Bicubic),
        other => {
            let message =
                format!("{other} is not supported, only 1 (Lanczos), 2 (bilinear) and 3 (bicubic)");
            Err(root.fault("resample", message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::random::Architecture;

    /// Reads a file for a model that takes pictures of 224.
    fn read(json: &Value) -> Result<Preprocessing, Error> {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join(FILE), json.to_string()).expect("write the file");
        Preprocessing::read(folder.path(), &Architecture::VitB32.config())
    }

    #[test]
    fn old_and_new_forms_mean_the_same() {
        let new = read(&Preprocessing::clip_json(224)).expect("the new form");
        let old =
            read(&json!({ "size": 224, "crop_size": 224, "resample": 3 })).expect("the old form");
        assert_eq!(new, old, "numbers and objects");
        assert_eq!(read(&json!({})).expect("defaults"), new, "and what is assumed for absent keys");
        assert_eq!((new.resize, new.crop), (Resize::ShortestEdge(224), Some(224)), "of CLIP");
    }

    #[test]
    fn a_fixed_size_needs_no_crop() {
        let json = json!({ "size": { "height": 224, "width": 224 }, "do_center_crop": false });
        let preprocessing = read(&json).expect("supported");
        assert_eq!(preprocessing.resize, Resize::Exact { width: 224, height: 224 }, "exact");
        assert_eq!(preprocessing.crop, None, "nothing is cut off");
    }

    #[test]
    fn switched_off_steps_do_nothing() {
        let preprocessing =
            read(&json!({ "do_rescale": false, "do_normalize": false })).expect("supported");
        let expected = Normalisation { scale: [1.0; 3], offset: [0.0; 3] };
        assert_eq!(preprocessing.normalisation, expected, "levels go in as they are");
    }

    #[test]
    fn faults_name_the_key() {
        for (json, key) in [
            (json!({ "do_resize": false }), "do_resize"),
            (json!({ "resample": 0 }), "resample"),
            (json!({ "crop_size": 336 }), "crop_size"),
            (json!({ "crop_size": { "height": 224, "width": 200 } }), "crop_size"),
            (json!({ "size": { "longest_edge": 224 } }), "size"),
            (json!({ "do_center_crop": false }), "do_center_crop"),
            (json!({ "image_std": [1, 0, 1] }), "image_std"),
            (json!({ "image_mean": [1, 0] }), "image_mean"),
        ] {
            let fault = read(&json).expect_err("not supported").to_string();
            assert!(fault.contains(&format!("`{key}`")), "`{key}` in: {fault}");
        }
    }
}
