//! The architecture of a model, from Hugging Face's `config.json`.
//!
//! `model_type` names the family, and each family has a file here that reads its own keys. Keys
//! that are absent have the defaults of the reference implementation (`transformers`).

mod clip;
mod siglip;
mod vit;

use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};

use super::Error;
use super::section::{self, Section};

pub(super) const FILE: &str = "config.json";

/// What a model computes: a tower that looks at pictures, and in most families one that reads
/// texts, whose vectors share one space.
///
/// Its serialised form is part of a model's identity, see [`super::fingerprint`]: what was added
/// after the first models were served is left out of it where it says nothing.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Config {
    #[serde(skip_serializing_if = "Family::is_clip")]
    pub family: Family,
    /// Length of the vectors.
    pub dimension: usize,
    pub vision: Vision,
    /// `None` for a family that takes pictures only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<Text>,
}

/// How the towers are built, and what their tensors are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// OpenAI's, LAION's and their kin.
    Clip,
    /// SigLIP, and the models of SigLIP 2 that take pictures of one size.
    Siglip,
    /// Pictures only; without and with registers.
    Dinov2,
    /// The plain vision transformer. Pictures only.
    Vit,
}

/// What looks at pictures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Vision {
    pub tower: Tower,
    /// Edge in pixels of the square picture.
    pub image_size: usize,
    /// Edge in pixels of the squares that the picture is cut into.
    pub patch_size: usize,
    /// Edge in pixels of the pictures that the positions were trained on, in a family that brings
    /// them to the size of its input; `None` where the input has that size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trained_size: Option<usize>,
    /// Tokens that stand for nothing, and that attention may use as it likes.
    #[serde(skip_serializing_if = "is_zero")]
    pub registers: usize,
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
    /// Its approximation by the hyperbolic tangent.
    #[serde(rename = "gelu_pytorch_tanh")]
    GeluTanh,
    /// `a * sigmoid(a) * b`, where the layer widens to both.
    SwiGlu,
}

/// Which token's state becomes the text's vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// The first token with the highest id of the text.
    HighestId,
    /// The first token with this id; the very first token if there is none.
    FirstOf(u32),
    /// The last one of a text that is padded to the context length, which is mostly padding.
    Last,
}

/// What a family has where its file says nothing.
struct Defaults {
    width: usize,
    mlp_width: usize,
    layers: usize,
    heads: usize,
    activation: &'static str,
    layer_norm_epsilon: f64,
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
        let (family, config) = match root.text("model_type", "clip")? {
            "clip" => (Family::Clip, clip::read(&root)),
            "siglip" => (Family::Siglip, siglip::read(&root)),
            "dinov2" => (Family::Dinov2, vit::read_dino(&root, false)),
            "dinov2_with_registers" => (Family::Dinov2, vit::read_dino(&root, true)),
            "vit" => (Family::Vit, vit::read(&root)),
            "siglip2" => {
                let message = "is `siglip2`, whose pictures keep their shape (NaFlex), which is \
                               not supported; the models of SigLIP 2 for one size have `siglip`";
                return Err(root.fault("model_type", message));
            }
            other => {
                let message = format!(
                    "is `{other}`, only `clip`, `siglip`, `dinov2`, `dinov2_with_registers` and \
                     `vit` are supported"
                );
                return Err(root.fault("model_type", message));
            }
        };
        config.map_err(|error| error.of_family(family))
    }

    /// The same as `config.json`, for a tokenizer with these tokens.
    pub(super) fn to_json(&self, start_id: u32, end_id: u32) -> Value {
        match self.family {
            Family::Clip => clip::to_json(self, start_id, end_id),
            Family::Siglip => siglip::to_json(self),
            Family::Dinov2 => vit::dino_to_json(self),
            Family::Vit => vit::to_json(self),
        }
    }
}

// === impl Family ===

impl Family {
    /// What its authors call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Clip => "CLIP",
            Self::Siglip => "SigLIP",
            Self::Dinov2 => "DINOv2",
            Self::Vit => "ViT",
        }
    }

    /// In a method of a reference, as serde asks for one.
    fn is_clip(&self) -> bool {
        *self == Self::Clip
    }
}

// === impl Vision ===

impl Vision {
    /// `sizes`: the default edges of the picture and of a patch.
    fn read(section: &Section<'_>, tower: Tower, sizes: [usize; 2]) -> Result<Self, Error> {
        if section.size("num_channels", 3)? != 3 {
            return Err(section.fault("num_channels", "only 3 is supported"));
        }
        let vision = Self {
            tower,
            image_size: section.size("image_size", sizes[0])?,
            patch_size: section.size("patch_size", sizes[1])?,
            trained_size: None,
            registers: 0,
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

    /// How many squares there are positions for.
    pub fn trained_patches(&self) -> usize {
        (self.trained_size.unwrap_or(self.image_size) / self.patch_size).pow(2)
    }

    /// Multiplications of one picture with the matrices of the layers, where nearly all of a
    /// forward pass goes.
    pub fn multiplications(&self) -> u64 {
        let tower = &self.tower;
        let mlp = tower.width * (tower.mlp_inputs() + tower.mlp_width);
        let per_token = tower.layers * (4 * tower.width * tower.width + mlp);
        per_token as u64 * (self.patches() + 1 + self.registers) as u64
    }
}

// === impl Tower ===

impl Tower {
    fn read(section: &Section<'_>, defaults: &Defaults) -> Result<Self, Error> {
        let tower = Self {
            width: section.size("hidden_size", defaults.width)?,
            mlp_width: section.size("intermediate_size", defaults.mlp_width)?,
            layers: section.size("num_hidden_layers", defaults.layers)?,
            heads: section.size("num_attention_heads", defaults.heads)?,
            activation: Activation::read(section, defaults.activation)?,
            layer_norm_epsilon: section.number("layer_norm_eps", defaults.layer_norm_epsilon)?,
        };
        if !tower.width.is_multiple_of(tower.heads) {
            let message = format!("must divide `hidden_size`, {}", tower.width);
            return Err(section.fault("num_attention_heads", message));
        }
        Ok(tower)
    }

    /// What goes into the non-linearity.
    pub fn mlp_inputs(&self) -> usize {
        match self.activation {
            Activation::SwiGlu => 2 * self.mlp_width,
            Activation::QuickGelu | Activation::Gelu | Activation::GeluTanh => self.mlp_width,
        }
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

// === impl Activation ===

impl Activation {
    fn read(section: &Section<'_>, default: &str) -> Result<Self, Error> {
        match section.text("hidden_act", default)? {
            "quick_gelu" => Ok(Self::QuickGelu),
            "gelu" => Ok(Self::Gelu),
            "gelu_pytorch_tanh" => Ok(Self::GeluTanh),
            other => {
                let message = format!(
                    "`{other}` is not supported, only `quick_gelu`, `gelu` and `gelu_pytorch_tanh`"
                );
                Err(section.fault("hidden_act", message))
            }
        }
    }
}

fn is_zero(count: &usize) -> bool {
    *count == 0
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
        let text = config.text.expect("it reads texts");
        assert_eq!(text.vocabulary, 49_408, "vocabulary");
        assert_eq!(text.pooling, Pooling::FirstOf(49_407), "the end token");
        assert_eq!(text.tower.activation, Activation::QuickGelu, "activation");
    }

    #[test]
    fn an_end_token_of_two_means_the_highest_id() {
        let config = read(r#"{"text_config": {"eos_token_id": 2}}"#).expect("legacy");
        assert_eq!(
            config.text.expect("it reads texts").pooling,
            Pooling::HighestId,
            "legacy pooling"
        );
    }

    #[test]
    fn the_second_section_of_old_files_wins() {
        let json = r#"{"text_config": {"hidden_act": "quick_gelu", "hidden_size": 64},
                       "text_config_dict": {"hidden_act": "gelu", "hidden_size": null}}"#;
        let tower = read(json).expect("an old file").text.expect("it reads texts").tower;
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
    fn each_family_has_the_defaults_of_its_reference() {
        let of = |kind: &str| read(&format!(r#"{{"model_type": "{kind}"}}"#)).expect("defaults");
        let siglip = of("siglip");
        assert_eq!(siglip.vision.tower.activation, Activation::GeluTanh, "SigLIP");
        let text = siglip.text.expect("it reads texts");
        assert_eq!((text.context_length, text.pooling), (64, Pooling::Last), "SigLIP");
        let dino = of("dinov2").vision;
        assert_eq!(
            (dino.patch_size, dino.trained_size, dino.registers),
            (14, Some(224), 0),
            "DINOv2"
        );
        let with_registers = of("dinov2_with_registers").vision;
        assert_eq!(
            (with_registers.patch_size, with_registers.registers),
            (16, 4),
            "with registers"
        );
        let vit = of("vit");
        assert_eq!((vit.dimension, vit.text), (768, None), "pictures only");
        assert_eq!(vit.vision.tower.layer_norm_epsilon, 1e-12, "ViT");
    }

    #[test]
    fn a_gate_costs_a_third_of_the_width() {
        let json = r#"{"model_type": "dinov2", "hidden_size": 1536, "num_attention_heads": 24,
                       "use_swiglu_ffn": true}"#;
        let tower = read(json).expect("as the giant one").vision.tower;
        assert_eq!((tower.mlp_width, tower.mlp_inputs()), (4096, 8192), "of 6144");
    }

    #[test]
    fn pictures_of_any_shape_are_refused_with_the_way_out() {
        let fault = fault(r#"{"model_type": "siglip2"}"#);
        assert!(fault.contains("NaFlex") && fault.contains("for one size"), "{fault}");
    }

    #[test]
    fn faults_name_file_and_key() {
        for (json, key) in [
            (r#"{"model_type": "bert"}"#, "`model_type`"),
            (r#"{"text_config": {"hidden_act": "relu"}}"#, "`text_config.hidden_act`"),
            (
                r#"{"vision_config": {"num_attention_heads": 7}}"#,
                "`vision_config.num_attention_heads`",
            ),
            (r#"{"vision_config": {"hidden_size": -1}}"#, "`vision_config.hidden_size`"),
            (r#"{"vision_config": {"num_channels": 4}}"#, "`vision_config.num_channels`"),
            (r#"{"text_config": {"eos_token_id": 99999}}"#, "`text_config.eos_token_id`"),
            (
                r#"{"model_type": "siglip", "text_config": {"hidden_size": 24}}"#,
                "`text_config.projection_size`",
            ),
            (
                r#"{"model_type": "siglip", "vision_config": {"vision_use_head": false}}"#,
                "`vision_config.vision_use_head`",
            ),
            (r#"{"model_type": "vit", "qkv_bias": false}"#, "`qkv_bias`"),
        ] {
            let fault = fault(json);
            assert!(fault.contains(key) && fault.contains(FILE), "{key} of {FILE} in: {fault}");
            let family = if json.contains("siglip") { "SigLIP" } else { "" };
            assert!(fault.contains(family), "the family in: {fault}");
        }
    }
}
