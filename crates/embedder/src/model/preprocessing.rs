//! How a picture is brought into the form that the model was trained on, from Hugging Face's
//! `preprocessor_config.json`.

use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};

use super::section::{self, Section};
use super::{Error, Family};

pub(super) const FILE: &str = "preprocessor_config.json";

/// Mean and deviation of the pictures that the first CLIP models were trained on.
const CLIP_MEAN: [f64; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
const CLIP_DEVIATION: [f64; 3] = [0.268_629_54, 0.261_302_58, 0.275_777_11];

/// The plain half, of SigLIP and of vision transformers.
const STANDARD: [f64; 3] = [0.5; 3];

/// Below this edge, a ConvNeXt processor cuts the middle out of a larger picture.
const CONV_NEXT_WARPED: u32 = 384;

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
    /// Whether a large JPEG may be shrunk while it is decoded: the operator's choice, not the
    /// model's. Not written where it is off, as it was before there was the choice.
    #[serde(skip_serializing_if = "is_off")]
    pub jpeg_scaling: bool,
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

/// Which pictures a model can look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    /// Squares of this edge.
    Exactly(usize),
    /// Squares of this edge or a longer one.
    AtLeast(usize),
}

/// The reference's processors, which differ in what they do where a file says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Processor {
    /// `CLIPImageProcessor`, and `BitImageProcessor`, which is the same.
    Clip,
    Siglip,
    Vit,
    /// Of ResNet too.
    ConvNext,
}

// === impl Preprocessing ===

impl Preprocessing {
    /// Reads `preprocessor_config.json` of a model's folder. The family tells the processor where
    /// the file doesn't.
    ///
    /// # Errors
    /// A file that can't be read, a value that is not supported, or a picture that comes out in
    /// another size than the model takes; the message names the key.
    pub(super) fn read(folder: &Path, family: Option<Family>, takes: Takes) -> Result<Self, Error> {
        let file = folder.join(FILE);
        let root = section::read(&file)?;
        if !root.flag("do_resize", true)? {
            return Err(root.fault("do_resize", "must be true: pictures come in all sizes"));
        }
        let processor = Processor::of(&root, family)?;
        let (resize, crop) = processor.sizes(&root)?;
        let filter = filter(&root, processor.filter())?;
        let normalisation = normalisation(&root, processor)?;
        let preprocessing = Self { resize, filter, crop, normalisation, jpeg_scaling: false };
        preprocessing.check(&root, takes)?;
        Ok(preprocessing)
    }

    /// Whether a square of a size that the model takes comes out.
    fn check(&self, root: &Section<'_>, takes: Takes) -> Result<(), Error> {
        let (key, [width, height]) = match (self.crop, self.resize) {
            (Some(edge), _) => ("crop_size", [edge; 2]),
            (None, Resize::Exact { width, height }) => ("size", [width, height]),
            (None, Resize::ShortestEdge(_)) => {
                return Err(root.fault("do_center_crop", "must be true: `size` keeps the shape"));
            }
        };
        let edge = width as usize;
        let (fits, expected) = match takes {
            Takes::Exactly(size) => (edge == size, format!("{size} x {size}")),
            Takes::AtLeast(size) => (edge >= size, format!("{size} x {size} or more")),
        };
        if width == height && fits {
            return Ok(());
        }
        let message = format!("gives {width} x {height}, but the model takes {expected}");
        Err(root.fault(key, message))
    }

    /// Edge in pixels of the square that comes out.
    pub fn image_size(&self) -> usize {
        let edge = match (self.crop, self.resize) {
            (Some(edge), _) | (None, Resize::ShortestEdge(edge)) => edge,
            (None, Resize::Exact { width, .. }) => width,
        };
        edge as usize
    }

    /// A `preprocessor_config.json` as the models of a family have it.
    pub(super) fn to_json(family: Family, image_size: usize) -> Value {
        let plain = |processor: &str, filter: usize| {
            json!({
                "image_processor_type": processor,
                "do_resize": true,
                "size": { "height": image_size, "width": image_size },
                "resample": filter,
                "do_rescale": true,
                "rescale_factor": 1.0 / 255.0,
                "do_normalize": true,
                "image_mean": STANDARD,
                "image_std": STANDARD,
            })
        };
        match family {
            Family::Siglip => plain("SiglipImageProcessor", 3),
            Family::Vit => plain("ViTImageProcessor", 2),
            Family::Clip => Self::clip_json(image_size),
            Family::Dinov2 => {
                let mut root = Self::clip_json(image_size);
                root["image_processor_type"] = json!("BitImageProcessor");
                root["size"] = json!({ "shortest_edge": image_size * 8 / 7 });
                root
            }
        }
    }

    /// As the first CLIP models have it.
    fn clip_json(image_size: usize) -> Value {
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

// === impl Processor ===

impl Processor {
    /// The one that the file names, or else that of the family.
    fn of(root: &Section<'_>, family: Option<Family>) -> Result<Self, Error> {
        let keys = ["image_processor_type", "feature_extractor_type"];
        let Some(key) = keys.into_iter().find(|key| root.value(key).is_some()) else {
            return Ok(match family {
                Some(Family::Siglip) => Self::Siglip,
                Some(Family::Vit) => Self::Vit,
                Some(Family::Clip | Family::Dinov2) | None => Self::Clip,
            });
        };
        let name = root.text(key, "")?;
        let stem = name.trim_end_matches("Fast").trim_end_matches("Pil");
        let stem = stem.trim_end_matches("ImageProcessor").trim_end_matches("FeatureExtractor");
        match stem {
            "CLIP" | "Bit" => Ok(Self::Clip),
            "Siglip" => Ok(Self::Siglip),
            "ViT" => Ok(Self::Vit),
            "ConvNext" => Ok(Self::ConvNext),
            _ => {
                let message = format!(
                    "`{name}` is not supported, only `CLIPImageProcessor`, `BitImageProcessor`, \
                     `SiglipImageProcessor`, `ViTImageProcessor` and `ConvNextImageProcessor`"
                );
                Err(root.fault(key, message))
            }
        }
    }

    /// To which size a picture is brought, and the edge of what is cut out of it.
    fn sizes(self, root: &Section<'_>) -> Result<(Resize, Option<u32>), Error> {
        let square = Resize::Exact { width: 224, height: 224 };
        let (default, crops) = match self {
            Self::Clip => (Resize::ShortestEdge(224), true),
            Self::Siglip | Self::Vit => (square, false),
            Self::ConvNext => (Resize::ShortestEdge(CONV_NEXT_WARPED), false),
        };
        let resize = resize(root, default)?;
        if let (Self::ConvNext, Resize::ShortestEdge(edge)) = (self, resize) {
            return conv_next_sizes(root, edge);
        }
        let crop = match root.flag("do_center_crop", crops)? {
            true => Some(crop(root)?),
            false => None,
        };
        Ok((resize, crop))
    }

    /// In the numbers of the file.
    fn filter(self) -> usize {
        match self {
            Self::Clip | Self::Siglip | Self::ConvNext => 3,
            Self::Vit => 2,
        }
    }

    /// Mean and deviation.
    fn levels(self) -> ([f64; 3], [f64; 3]) {
        match self {
            Self::Clip => (CLIP_MEAN, CLIP_DEVIATION),
            Self::Siglip | Self::Vit | Self::ConvNext => (STANDARD, STANDARD),
        }
    }
}

/// Up to a size, the middle of a larger picture; from there on, all of it.
fn conv_next_sizes(root: &Section<'_>, edge: u32) -> Result<(Resize, Option<u32>), Error> {
    if edge >= CONV_NEXT_WARPED {
        return Ok((Resize::Exact { width: edge, height: edge }, None));
    }
    let share = root.number("crop_pct", 224.0 / 256.0)?;
    let larger = f64::from(edge) / share;
    if !(f64::from(edge)..=f64::from(MAX_EDGE)).contains(&larger) {
        return Err(root.fault("crop_pct", format!("must be above 0 and at most 1, not {share}")));
    }
    // What is left of a pixel is dropped, as the reference does.
    Ok((Resize::ShortestEdge(larger as u32), Some(edge)))
}

fn is_off(flag: &bool) -> bool {
    !flag
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

fn normalisation(root: &Section<'_>, processor: Processor) -> Result<Normalisation, Error> {
    let rescale = match root.flag("do_rescale", true)? {
        true => root.number("rescale_factor", 1.0 / 255.0)?,
        false => 1.0,
    };
    let (mean, deviation) = match root.flag("do_normalize", true)? {
        true => {
            let (mean, deviation) = processor.levels();
            (root.channels("image_mean", mean)?, root.channels("image_std", deviation)?)
        }
        false => ([0.0; 3], [1.0; 3]),
    };
    if deviation.contains(&0.0) {
        return Err(root.fault("image_std", "must not be zero"));
    }
    Ok(Normalisation::new(rescale, mean, deviation))
}

/// `size`: a number, `{shortest_edge}`, or `{height, width}`.
fn resize(root: &Section<'_>, default: Resize) -> Result<Resize, Error> {
    match root.value("size") {
        None => Ok(default),
        Some(Value::Number(_)) => {
            let edge = edge(root, "size")?;
            Ok(match default {
                Resize::ShortestEdge(_) => Resize::ShortestEdge(edge),
                Resize::Exact { .. } => Resize::Exact { width: edge, height: edge },
            })
        }
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

fn filter(root: &Section<'_>, default: usize) -> Result<Filter, Error> {
    // The numbers of `PIL.Image.Resampling`.
    match root.size("resample", default)? {
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

    /// Reads a file of CLIP for a model that takes pictures of 224.
    fn read(json: &Value) -> Result<Preprocessing, Error> {
        read_for(Some(Family::Clip), json)
    }

    fn read_for(family: Option<Family>, json: &Value) -> Result<Preprocessing, Error> {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join(FILE), json.to_string()).expect("write the file");
        Preprocessing::read(folder.path(), family, Takes::Exactly(224))
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

    fn conv_next(share: f64) -> Value {
        let processor = "ConvNextFeatureExtractor";
        json!({ "feature_extractor_type": processor, "size": 224, "crop_pct": share })
    }

    #[test]
    fn every_family_s_form_is_read_back() {
        for family in [Family::Clip, Family::Siglip, Family::Dinov2, Family::Vit] {
            let mut json = Preprocessing::to_json(family, 224);
            let named = read_for(None, &json).expect("the processor is named");
            assert_eq!(named.image_size(), 224, "{family:?}");
            json.as_object_mut().expect("an object").remove("image_processor_type");
            assert_eq!(read_for(Some(family), &json).expect("known"), named, "{family:?}");
        }
    }

    #[test]
    fn a_number_is_a_square_to_a_vision_transformer() {
        let vit = read_for(Some(Family::Vit), &json!({ "size": 224 })).expect("an old file");
        assert_eq!(vit.resize, Resize::Exact { width: 224, height: 224 }, "the shape is lost");
        assert_eq!((vit.filter, vit.crop), (Filter::Bilinear, None), "its own defaults");
        let defaults = read_for(Some(Family::Siglip), &json!({})).expect("defaults");
        let expected = Normalisation::new(1.0 / 255.0, STANDARD, STANDARD);
        assert_eq!(
            (defaults.filter, defaults.normalisation),
            (Filter::Bicubic, expected),
            "SigLIP"
        );
    }

    #[test]
    fn a_conv_next_processor_takes_the_middle_of_a_larger_picture() {
        let resnet = read_for(None, &conv_next(0.875)).expect("as of ResNet-50");
        assert_eq!((resnet.resize, resnet.crop), (Resize::ShortestEdge(256), Some(224)), "middle");
        let sizes = conv_next_sizes_of(&json!({ "size": { "shortest_edge": 384 } }));
        assert_eq!(sizes, (Resize::Exact { width: 384, height: 384 }, None), "all of it");
    }

    fn conv_next_sizes_of(json: &Value) -> (Resize, Option<u32>) {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join(FILE);
        std::fs::write(&file, json.to_string()).expect("write the file");
        Processor::ConvNext.sizes(&section::read(&file).expect("JSON")).expect("supported")
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
            (json!({ "image_processor_type": "LevitImageProcessor" }), "image_processor_type"),
            (conv_next(0.0), "crop_pct"),
            (conv_next(1.5), "crop_pct"),
        ] {
            let fault = read(&json).expect_err("not supported").to_string();
            assert!(fault.contains(&format!("`{key}`")), "`{key}` in: {fault}");
        }
    }
}
