//! The architecture of a CLIP model, from Hugging Face's `config.json`.
//!
//! Keys that are absent have the defaults of the reference implementation (`transformers`,
//! `CLIPTextConfig` and `CLIPVisionConfig`).

use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};

use super::Error;
use super::section::{self, Section};

pub(super) const FILE: &str = "config.json";

/// The end token's id in configurations that were written before the id meant anything: such a
/// model takes a text's vector at its highest id, which is the end token in CLIP's vocabulary.
const LEGACY_END_ID: usize = 2;

/// A CLIP model: a picture tower and a text tower that project into one space.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Config {
    /// Length of the vectors of both towers.
    pub dimension: usize,
    pub vision: Vision,
    pub text: Text,
}

/// What looks at pictures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Vision {
    pub tower: Tower,
    /// Edge in pixels of the square picture.
    pub image_size: usize,
    /// Edge in pixels of the squares that the picture is cut into.
    pub patch_size: usize,
}

/// What reads texts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Text {
    pub tower: Tower,
    /// How many token ids there are.
    pub vocabulary: usize,
    /// Longest text in tokens, start and end token included.
    pub context_length: usize,
    pub pooling: Pooling,
}

/// A stack of transformer layers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tower {
    pub width: usize,
    /// Width inside the feed-forward part of a layer.
    pub mlp_width: usize,
    pub layers: usize,
    /// How many attention heads share the width.
    pub heads: usize,
    pub activation: Activation,
    pub layer_norm_epsilon: f64,
}

/// The non-linearity of a tower.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x * sigmoid(1.702 x)`, of the first CLIP models.
    QuickGelu,
    /// The exact one, by the error function.
    Gelu,
}

/// Which token's state becomes the text's vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// The first token with the highest id of the text.
    HighestId,
    /// The first token with this id; the very first token if there is none.
    FirstOf(u32),
}

// === impl Config ===

impl Config {
    /// Reads `config.json` of a model's folder.
    ///
    /// # Errors
    /// A file that can't be read, another kind of model, or a value that is not supported; the
    /// message names the key.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let file = folder.join(FILE);
        let root = section::read(&file)?;
        if root.text("model_type", "clip")? != "clip" {
            return Err(root.fault("model_type", "only `clip` is supported"));
        }
        // Files of 2022 hold the true values in a second section beside the first.
        let text = root.section("text_config")?.overlaid(root.section("text_config_dict")?);
        let vision = root.section("vision_config")?.overlaid(root.section("vision_config_dict")?);
        Ok(Self {
            dimension: root.size("projection_dim", 512)?,
            vision: Vision::read(&vision)?,
            text: Text::read(&text)?,
        })
    }

    /// The same as `config.json`.
    pub(super) fn to_json(&self, start_id: u32, end_id: u32) -> Value {
        let ids = [("bos_token_id", start_id), ("eos_token_id", end_id), ("pad_token_id", end_id)];
        let mut text = self.text.tower.to_json();
        text["model_type"] = json!("clip_text_model");
        text["vocab_size"] = json!(self.text.vocabulary);
        text["max_position_embeddings"] = json!(self.text.context_length);
        text["projection_dim"] = json!(self.dimension);
        let mut vision = self.vision.tower.to_json();
        vision["model_type"] = json!("clip_vision_model");
        vision["image_size"] = json!(self.vision.image_size);
        vision["patch_size"] = json!(self.vision.patch_size);
        vision["num_channels"] = json!(3);
        vision["projection_dim"] = json!(self.dimension);
        let mut root = json!({
            "architectures": ["CLIPModel"],
            "model_type": "clip",
            "projection_dim": self.dimension,
            "logit_scale_init_value": 2.6592,
        });
        for (key, id) in ids {
            text[key] = json!(id);
            root[key] = json!(id);
        }
        root["text_config"] = text;
        root["vision_config"] = vision;
        root
    }
}

// === impl Vision ===

impl Vision {
    fn read(section: &Section<'_>) -> Result<Self, Error> {
        if section.size("num_channels", 3)? != 3 {
            return Err(section.fault("num_channels", "only 3 is supported"));
        }
        let vision = Self {
            tower: Tower::read(section, [768, 3072, 12, 12])?,
            image_size: section.size("image_size", 224)?,
            patch_size: section.size("patch_size", 32)?,
        };
        if vision.patch_size > vision.image_size {
            return Err(section.fault("patch_size", "must be at most `image_size`"));
        }
        Ok(vision)
    }

    /// How many squares the picture is cut into. A rest at the edge is not looked at.
    pub fn patches(&self) -> usize {
        (self.image_size / self.patch_size).pow(2)
    }

    /// Multiplications of one picture with the matrices of the layers, where nearly all of a
    /// forward pass goes.
    pub fn multiplications(&self) -> u64 {
        let tower = &self.tower;
        let per_token = tower.layers * tower.width * (4 * tower.width + 2 * tower.mlp_width);
        per_token as u64 * (self.patches() + 1) as u64
    }
}

// === impl Text ===

impl Text {
    fn read(section: &Section<'_>) -> Result<Self, Error> {
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
        let tower = Tower::read(section, [512, 2048, 12, 8])?;
        Ok(Self { tower, vocabulary, context_length, pooling })
    }
}

// === impl Tower ===

impl Tower {
    /// `defaults`: width, width of the feed-forward part, layers, heads.
    fn read(section: &Section<'_>, defaults: [usize; 4]) -> Result<Self, Error> {
        let [width, mlp_width, layers, heads] = defaults;
        let activation = match section.text("hidden_act", "quick_gelu")? {
            "quick_gelu" => Activation::QuickGelu,
            "gelu" => Activation::Gelu,
            other => {
                let message = format!("`{other}` is not supported, only `quick_gelu` and `gelu`");
                return Err(section.fault("hidden_act", message));
            }
        };
        let tower = Self {
            width: section.size("hidden_size", width)?,
            mlp_width: section.size("intermediate_size", mlp_width)?,
            layers: section.size("num_hidden_layers", layers)?,
            heads: section.size("num_attention_heads", heads)?,
            activation,
            layer_norm_epsilon: section.number("layer_norm_eps", 1e-5)?,
        };
        if !tower.width.is_multiple_of(tower.heads) {
            let message = format!("must divide `hidden_size`, {}", tower.width);
            return Err(section.fault("num_attention_heads", message));
        }
        Ok(tower)
    }

    fn to_json(&self) -> Value {
        json!({
            "hidden_size": self.width,
            "intermediate_size": self.mlp_width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "hidden_act": self.activation,
            "layer_norm_eps": self.layer_norm_epsilon,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Config, Error> {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join(FILE), json).expect("write the config");
        Config::read(folder.path())
    }

    fn fault(json: &str) -> String {
        read(json).expect_err("not supported").to_string()
    }

    #[test]
    fn an_empty_config_is_the_reference_s_default() {
        let config = read("{}").expect("all defaults");
        assert_eq!(config.dimension, 512, "projection");
        assert_eq!(config.vision.tower.width, 768, "ViT-B");
        assert_eq!(config.vision.patches(), 49, "7 x 7 patches of 32 in 224");
        assert_eq!(config.vision.multiplications(), 4_246_732_800, "50 times 85 million weights");
        assert_eq!(config.text.vocabulary, 49_408, "vocabulary");
        assert_eq!(config.text.pooling, Pooling::FirstOf(49_407), "the end token");
        assert_eq!(config.text.tower.activation, Activation::QuickGelu, "activation");
    }

    #[test]
    fn an_end_token_of_two_means_the_highest_id() {
        let config = read(r#"{"text_config": {"eos_token_id": 2}}"#).expect("legacy");
        assert_eq!(config.text.pooling, Pooling::HighestId, "legacy pooling");
    }

    #[test]
    fn the_second_section_of_old_files_wins() {
        let json = r#"{"text_config": {"hidden_act": "quick_gelu", "hidden_size": 64},
                       "text_config_dict": {"hidden_act": "gelu", "hidden_size": null}}"#;
        let tower = read(json).expect("an old file").text.tower;
        assert_eq!(tower.activation, Activation::Gelu, "overlaid");
        assert_eq!(tower.width, 64, "null overlays nothing");
    }

    #[test]
    fn what_is_written_is_read_back() {
        let config = read(r#"{"projection_dim": 20, "vision_config": {"hidden_act": "gelu"}}"#)
            .expect("a config");
        let again = read(&config.to_json(49_406, 49_407).to_string()).expect("written by us");
        assert_eq!(again, config, "nothing is lost");
    }

    #[test]
    fn faults_name_file_and_key() {
        for (json, key) in [
            (r#"{"model_type": "siglip"}"#, "`model_type`"),
            (r#"{"text_config": {"hidden_act": "relu"}}"#, "`text_config.hidden_act`"),
            (
                r#"{"vision_config": {"num_attention_heads": 7}}"#,
                "`vision_config.num_attention_heads`",
            ),
            (r#"{"vision_config": {"hidden_size": -1}}"#, "`vision_config.hidden_size`"),
            (r#"{"vision_config": {"num_channels": 4}}"#, "`vision_config.num_channels`"),
            (r#"{"text_config": {"eos_token_id": 99999}}"#, "`text_config.eos_token_id`"),
        ] {
            let fault = fault(json);
            assert!(fault.contains(key) && fault.contains(FILE), "{key} of {FILE} in: {fault}");
        }
    }
}
