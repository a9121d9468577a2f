//! What the tensors of each family are called in its files. A typing error here is one of the
//! published files' own: they are spelt as they are there.

use super::config::{Activation, Family, Vision};

/// The tensors of a tower that looks at pictures.
#[derive(Debug)]
pub(crate) struct VisionNames {
    /// What may stand before all names: files of a whole classifier have it, those of the bare
    /// tower don't. Empty if there is no such thing.
    pub(super) prefix: &'static str,
    pub(crate) patches: &'static str,
    /// Whether the patches have a bias beside their weight.
    pub(crate) has_patch_bias: bool,
    pub(crate) positions: &'static str,
    /// The token that a picture's vector is taken from; `None` where a head pools the patches.
    pub(crate) class: Option<&'static str>,
    /// Unused where the architecture has none.
    pub(crate) registers: &'static str,
    /// Whether class, positions and registers have a first axis of length 1, for a batch.
    pub(super) has_batch_axis: bool,
    /// `None` where nothing is normalised before the first layer.
    pub(crate) input_norm: Option<&'static str>,
    pub(crate) layers: LayerNames,
    pub(crate) output_norm: &'static str,
    pub(crate) projection: Option<&'static str>,
}

/// The tensors of a stack of layers. All but `stack` follow after the layer's number.
#[derive(Debug)]
pub(crate) struct LayerNames {
    /// What stands before the number.
    pub(crate) stack: &'static str,
    pub(crate) attention_norm: &'static str,
    /// Queries, keys and values.
    pub(crate) attention_inputs: [&'static str; 3],
    pub(crate) attention_output: &'static str,
    pub(crate) mlp_norm: &'static str,
    pub(crate) widen: &'static str,
    pub(crate) narrow: &'static str,
    /// What the outputs of the attention and of the feed-forward part are multiplied with.
    pub(crate) scales: Option<[&'static str; 2]>,
}

/// What brings a text's state into the space of the pictures.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TextProjection {
    pub(crate) name: &'static str,
    pub(crate) has_bias: bool,
}

/// The head that pools patches.
pub(crate) const POOLING_HEAD: &str = "vision_model.head";

const CLIP_LAYERS: LayerNames = LayerNames {
    stack: "vision_model.encoder.layers",
    attention_norm: "layer_norm1",
    attention_inputs: ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    attention_output: "self_attn.out_proj",
    mlp_norm: "layer_norm2",
    widen: "mlp.fc1",
    narrow: "mlp.fc2",
    scales: None,
};

/// Of the tower that reads texts, in each family that has one.
pub(crate) const TEXT_LAYERS: LayerNames =
    LayerNames { stack: "text_model.encoder.layers", ..CLIP_LAYERS };

const VIT_LAYERS: LayerNames = LayerNames {
    stack: "encoder.layer",
    attention_norm: "layernorm_before",
    attention_inputs: [
        "attention.attention.query",
        "attention.attention.key",
        "attention.attention.value",
    ],
    attention_output: "attention.output.dense",
    mlp_norm: "layernorm_after",
    widen: "intermediate.dense",
    narrow: "output.dense",
    scales: None,
};

const CLIP: VisionNames = VisionNames {
    prefix: "",
    patches: "vision_model.embeddings.patch_embedding",
    has_patch_bias: false,
    positions: "vision_model.embeddings.position_embedding.weight",
    class: Some("vision_model.embeddings.class_embedding"),
    registers: "",
    has_batch_axis: false,
    input_norm: Some("vision_model.pre_layrnorm"),
    layers: CLIP_LAYERS,
    output_norm: "vision_model.post_layernorm",
    projection: Some("visual_projection"),
};

const SIGLIP: VisionNames =
    VisionNames { has_patch_bias: true, class: None, input_norm: None, projection: None, ..CLIP };

const VIT: VisionNames = VisionNames {
    prefix: "vit.",
    patches: "embeddings.patch_embeddings.projection",
    has_patch_bias: true,
    positions: "embeddings.position_embeddings",
    class: Some("embeddings.cls_token"),
    registers: "embeddings.register_tokens",
    has_batch_axis: true,
    input_norm: None,
    layers: VIT_LAYERS,
    output_norm: "layernorm",
    projection: None,
};

const DINOV2: VisionNames = VisionNames {
    prefix: "dinov2.",
    layers: LayerNames {
        attention_norm: "norm1",
        mlp_norm: "norm2",
        widen: "mlp.fc1",
        narrow: "mlp.fc2",
        scales: Some(["layer_scale1.lambda1", "layer_scale2.lambda1"]),
        ..VIT_LAYERS
    },
    ..VIT
};

const DINOV2_GATED: VisionNames = VisionNames {
    layers: LayerNames { widen: "mlp.weights_in", narrow: "mlp.weights_out", ..DINOV2.layers },
    ..DINOV2
};

impl VisionNames {
    /// Those of one architecture.
    pub(crate) fn of(family: Family, vision: &Vision) -> Self {
        match family {
            Family::Clip => CLIP,
            Family::Siglip => SIGLIP,
            Family::Vit => VIT,
            Family::Dinov2 => {
                let is_gated = vision.tower.activation == Activation::SwiGlu;
                let names = if is_gated { DINOV2_GATED } else { DINOV2 };
                let has_registers = vision.registers > 0;
                let prefix = if has_registers { "dinov2_with_registers." } else { names.prefix };
                Self { prefix, ..names }
            }
        }
    }
}

/// The projection of texts in a family that has them.
pub(crate) fn text_projection(family: Family) -> TextProjection {
    match family {
        Family::Siglip => TextProjection { name: "text_model.head", has_bias: true },
        Family::Clip | Family::Dinov2 | Family::Vit => {
            TextProjection { name: "text_projection", has_bias: false }
        }
    }
}
