//! SigLIP, and SigLIP 2 for pictures of one size: no class token, an attention that pools the
//! patches, and texts that are padded to one length and read in both directions.

use serde_json::{Value, json};

use super::{Config, Defaults, Family, Pooling, Text, Tower, Vision};
use crate::model::Error;
use crate::model::section::Section;

const TOWER: Defaults = Defaults {
    width: 768,
    mlp_width: 3072,
    layers: 12,
    heads: 12,
    activation: "gelu_pytorch_tanh",
    layer_norm_epsilon: 1e-6,
};

pub(super) fn read(root: &Section<'_>) -> Result<Config, Error> {
    let section = root.section("vision_config")?;
    if !section.flag("vision_use_head", true)? {
        let message = "must be true: without its head, the tower has no vector for a picture";
        return Err(section.fault("vision_use_head", message));
    }
    let vision = Vision::read(&section, Tower::read(&section, &TOWER)?, [224, 16])?;
    let section = root.section("text_config")?;
    let text = Text {
        tower: Tower::read(&section, &TOWER)?,
        vocabulary: section.size("vocab_size", 32_000)?,
        context_length: section.size("max_position_embeddings", 64)?,
        pooling: Pooling::Last,
    };
    // The picture's vector is as long as its tower is wide.
    let dimension = vision.tower.width;
    let projected = section.size("projection_size", text.tower.width)?;
    if projected != dimension {
        let message =
            format!("is {projected}, but pictures have {dimension}, `vision_config.hidden_size`");
        return Err(section.fault("projection_size", message));
    }
    Ok(Config { family: Family::Siglip, dimension, vision, text: Some(text) })
}

pub(super) fn to_json(config: &Config) -> Value {
    let mut vision = config.vision.tower.to_json();
    vision["model_type"] = json!("siglip_vision_model");
    vision["image_size"] = json!(config.vision.image_size);
    vision["patch_size"] = json!(config.vision.patch_size);
    vision["num_channels"] = json!(3);
    let mut root = json!({
        "architectures": ["SiglipModel"],
        "model_type": "siglip",
        "vision_config": vision,
    });
    if let Some(config_text) = &config.text {
        let mut text = config_text.tower.to_json();
        text["model_type"] = json!("siglip_text_model");
        text["vocab_size"] = json!(config_text.vocabulary);
        text["max_position_embeddings"] = json!(config_text.context_length);
        text["projection_size"] = json!(config.dimension);
        root["text_config"] = text;
    }
    root
}
