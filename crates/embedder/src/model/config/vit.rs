//! Vision transformers that take pictures only: the plain one, DINOv2, and DINOv2 with registers.
//! Their vector is the
//! class token's state after the last norm.

use serde_json::{Value, json};

use super::{Activation, Config, Defaults, Family, Tower, Vision};
use crate::model::Error;
use crate::model::section::Section;

/// Of the plain one.
const TOWER: Defaults = Defaults {
    width: 768,
    mlp_width: 3072,
    layers: 12,
    heads: 12,
    activation: "gelu",
    layer_norm_epsilon: 1e-12,
};
const DINO_TOWER: Defaults = Defaults { layer_norm_epsilon: 1e-6, ..TOWER };

pub(super) fn read(root: &Section<'_>) -> Result<Config, Error> {
    check(root)?;
    let vision = Vision::read(root, Tower::read(root, &TOWER)?, [224, 16])?;
    Ok(Config { family: Family::Vit, dimension: vision.tower.width, vision, text: None })
}

pub(super) fn read_dino(root: &Section<'_>, has_registers: bool) -> Result<Config, Error> {
    check(root)?;
    let mut tower = Tower::read(root, &DINO_TOWER)?;
    tower.mlp_width = tower.width * root.size("mlp_ratio", 4)?;
    if root.flag("use_swiglu_ffn", false)? {
        tower.activation = Activation::SwiGlu;
        tower.mlp_width = gated(tower.mlp_width);
    }
    let patch_size = if has_registers { 16 } else { 14 };
    let mut vision = Vision::read(root, tower, [224, patch_size])?;
    vision.trained_size = Some(vision.image_size);
    if has_registers {
        vision.registers = root.size("num_register_tokens", 4)?;
    }
    Ok(Config { family: Family::Dinov2, dimension: vision.tower.width, vision, text: None })
}

fn check(root: &Section<'_>) -> Result<(), Error> {
    if !root.flag("qkv_bias", true)? {
        return Err(root.fault("qkv_bias", "must be true, other models are not supported"));
    }
    Ok(())
}

/// How wide a feed-forward part with a gate is where one without would have `width`: with its
/// third matrix it costs the same.
fn gated(width: usize) -> usize {
    (width * 2 / 3).next_multiple_of(8)
}

pub(super) fn to_json(config: &Config) -> Value {
    let mut root = config.vision.tower.to_json();
    root["architectures"] = json!(["ViTModel"]);
    root["model_type"] = json!("vit");
    root["image_size"] = json!(config.vision.image_size);
    root["patch_size"] = json!(config.vision.patch_size);
    root["num_channels"] = json!(3);
    root["qkv_bias"] = json!(true);
    root
}

pub(super) fn dino_to_json(config: &Config) -> Value {
    let vision = &config.vision;
    let tower = &vision.tower;
    let has_registers = vision.registers > 0;
    let has_gate = tower.activation == Activation::SwiGlu;
    let architecture = if has_registers { "Dinov2WithRegistersModel" } else { "Dinov2Model" };
    let mut root = json!({
        "architectures": [architecture],
        "model_type": if has_registers { "dinov2_with_registers" } else { "dinov2" },
        "hidden_size": tower.width,
        "num_hidden_layers": tower.layers,
        "num_attention_heads": tower.heads,
        "hidden_act": if has_gate { Activation::Gelu } else { tower.activation },
        "use_swiglu_ffn": has_gate,
        "layer_norm_eps": tower.layer_norm_epsilon,
        // A gated one is narrower than its ratio says.
        "mlp_ratio": if has_gate { 4 } else { tower.mlp_width / tower.width },
        "image_size": vision.trained_size.unwrap_or(vision.image_size),
        "patch_size": vision.patch_size,
        "num_channels": 3,
        "qkv_bias": true,
    });
    if has_registers {
        root["num_register_tokens"] = json!(vision.registers);
    }
    root
}
