//! CLIP: both towers with a class or end token, projected into one space.
//!
//! OpenAI's models and LAION's differ in what stands in the file alone: sizes, `quick_gelu` or
//! `gelu`, and the meaning of `eos_token_id`.

use serde_json::{Value, json};

use super::{Config, Defaults, Family, Pooling, Text, Tower, Vision};
use crate::model::Error;
use crate::model::section::Section;

/// The end token's id in configurations that were written before the id meant anything: such a
/// model takes a text's vector at its highest id, which is the end token in CLIP's vocabulary.
const LEGACY_END_ID: usize = 2;

const VISION: Defaults = Defaults {
    width: 768,
    mlp_width: 3072,
    layers: 12,
    heads: 12,
    activation: "quick_gelu",
    layer_norm_epsilon: 1e-5,
};
const TEXT: Defaults = Defaults { width: 512, mlp_width: 2048, heads: 8, ..VISION };

pub(super) fn read(root: &Section<'_>) -> Result<Config, Error> {
    // Files of 2022 hold the true values in a second section beside the first.
    let text = root.section("text_config")?.overlaid(root.section("text_config_dict")?);
    let vision = root.section("vision_config")?.overlaid(root.section("vision_config_dict")?);
    Ok(Config {
        family: Family::Clip,
        dimension: root.size("projection_dim", 512)?,
        vision: Vision::read(&vision, Tower::read(&vision, &VISION)?, [224, 32])?,
        text: Some(read_text(&text)?),
    })
}

fn read_text(section: &Section<'_>) -> Result<Text, Error> {
    let vocabulary = section.size("vocab_size", 49_408)?;
    let end_id = section.size("eos_token_id", 49_407)?;
    let pooling = if end_id == LEGACY_END_ID {
        Pooling::HighestId
    } else {
        let end_id = u32::try_from(end_id).ok().filter(|&id| (id as usize) < vocabulary);
        Pooling::FirstOf(end_id.ok_or_else(|| {
            section.fault("eos_token_id", format!("must be below `vocab_size`, {vocabulary}"))
        })?)
    };
    let context_length = section.size("max_position_embeddings", 77)?;
    if context_length < 2 {
        let message = "must have room for the start and the end token";
        return Err(section.fault("max_position_embeddings", message));
    }
    Ok(Text { tower: Tower::read(section, &TEXT)?, vocabulary, context_length, pooling })
}

pub(super) fn to_json(config: &Config, start_id: u32, end_id: u32) -> Value {
    let ids = [("bos_token_id", start_id), ("eos_token_id", end_id), ("pad_token_id", end_id)];
    let mut root = json!({
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": config.dimension,
        "logit_scale_init_value": 2.6592,
    });
    let mut vision = config.vision.tower.to_json();
    vision["model_type"] = json!("clip_vision_model");
    vision["image_size"] = json!(config.vision.image_size);
    vision["patch_size"] = json!(config.vision.patch_size);
    vision["num_channels"] = json!(3);
    vision["projection_dim"] = json!(config.dimension);
    root["vision_config"] = vision;
    if let Some(config_text) = &config.text {
        let mut text = config_text.tower.to_json();
        text["model_type"] = json!("clip_text_model");
        text["vocab_size"] = json!(config_text.vocabulary);
        text["max_position_embeddings"] = json!(config_text.context_length);
        text["projection_dim"] = json!(config.dimension);
        for (key, id) in ids {
            text[key] = json!(id);
        }
        root["text_config"] = text;
    }
    for (key, id) in ids {
        root[key] = json!(id);
    }
    root
}
