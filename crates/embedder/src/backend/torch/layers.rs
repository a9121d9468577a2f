//! The parts that both towers are built from.

use tch::{Device, Kind, TchError, Tensor};

use crate::model::{Activation, Dtype, Tower, Weights};

/// Reads weights and puts them on the device.
#[derive(Debug)]
pub(super) struct Loader<'a> {
    weights: &'a Weights,
    pub(super) device: Device,
    pub(super) kind: Kind,
}

/// `x W^T + b`.
#[derive(Debug)]
pub(super) struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

#[derive(Debug)]
pub(super) struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    width: i64,
    epsilon: f64,
}

/// A stack of transformer layers.
#[derive(Debug)]
pub(super) struct Encoder {
    layers: Vec<Layer>,
    /// Whether a position sees only itself and those before it.
    is_causal: bool,
}

#[derive(Debug)]
struct Layer {
    attention_norm: LayerNorm,
    attention: Attention,
    mlp_norm: LayerNorm,
    widen: Linear,
    narrow: Linear,
    activation: Activation,
}

#[derive(Debug)]
struct Attention {
    /// Queries, keys and values in one product.
    inputs: Linear,
    output: Linear,
    heads: i64,
}

// === impl Loader ===

impl<'a> Loader<'a> {
    pub(super) fn new(weights: &'a Weights, device: Device, kind: Kind) -> Self {
        Self { weights, device, kind }
    }

    pub(super) fn tensor(&self, name: &str) -> Result<Tensor, TchError> {
        let view = self.weights.tensor(name).ok_or_else(|| {
            TchError::TensorNameNotFound(name.to_owned(), self.weights.file().display().to_string())
        })?;
        let kind = match view.dtype {
            Dtype::F32 => Kind::Float,
            Dtype::F16 => Kind::Half,
            Dtype::Bf16 => Kind::BFloat16,
        };
        let shape: Vec<i64> = view.shape.iter().map(|&size| size as i64).collect();
        Tensor::f_from_data_size(view.bytes, &shape, kind)?
            .f_to_device(self.device)?
            .f_to_kind(self.kind)
    }

    /// A product without a bias.
    pub(super) fn projection(&self, name: &str) -> Result<Linear, TchError> {
        Ok(Linear { weight: self.tensor(&format!("{name}.weight"))?, bias: None })
    }

    pub(super) fn norm(&self, name: &str, tower: &Tower) -> Result<LayerNorm, TchError> {
        Ok(LayerNorm {
            weight: self.tensor(&format!("{name}.weight"))?,
            bias: self.tensor(&format!("{name}.bias"))?,
            width: tower.width as i64,
            epsilon: tower.layer_norm_epsilon,
        })
    }

    /// The layers of `{name}.encoder`.
    pub(super) fn encoder(
        &self,
        name: &str,
        tower: &Tower,
        is_causal: bool,
    ) -> Result<Encoder, TchError> {
        let layer = |i| self.layer(&format!("{name}.encoder.layers.{i}"), tower);
        let layers = (0..tower.layers).map(layer).collect::<Result<_, _>>()?;
        Ok(Encoder { layers, is_causal })
    }

    fn layer(&self, name: &str, tower: &Tower) -> Result<Layer, TchError> {
        let attention = format!("{name}.self_attn");
        Ok(Layer {
            attention_norm: self.norm(&format!("{name}.layer_norm1"), tower)?,
            attention: Attention {
                inputs: self.joined(
                    ["q_proj", "k_proj", "v_proj"].map(|part| format!("{attention}.{part}")),
                )?,
                output: self.joined([format!("{attention}.out_proj")])?,
                heads: tower.heads as i64,
            },
            mlp_norm: self.norm(&format!("{name}.layer_norm2"), tower)?,
            widen: self.joined([format!("{name}.mlp.fc1")])?,
            narrow: self.joined([format!("{name}.mlp.fc2")])?,
            activation: tower.activation,
        })
    }

    /// Several products of the same input as one.
    fn joined<const N: usize>(&self, names: [String; N]) -> Result<Linear, TchError> {
        let part = |kind: &str| -> Result<Tensor, TchError> {
            let tensors = names.iter().map(|name| self.tensor(&format!("{name}.{kind}")));
            Tensor::f_cat(&tensors.collect::<Result<Vec<_>, _>>()?, 0)
        };
        Ok(Linear { weight: part("weight")?, bias: Some(part("bias")?) })
    }
}

// === impl Linear ===

impl Linear {
    pub(super) fn forward(&self, input: &Tensor) -> Result<Tensor, TchError> {
        input.f_linear(&self.weight, self.bias.as_ref())
    }
}

// === impl LayerNorm ===

impl LayerNorm {
    pub(super) fn forward(&self, input: &Tensor) -> Result<Tensor, TchError> {
        input.f_layer_norm([self.width], Some(&self.weight), Some(&self.bias), self.epsilon, true)
    }
}

// === impl Encoder ===

impl Encoder {
    /// From [batch, positions, width] to the same.
    pub(super) fn forward(&self, mut states: Tensor) -> Result<Tensor, TchError> {
        for layer in &self.layers {
            states = layer.forward(&states, self.is_causal)?;
        }
        Ok(states)
    }
}

// === impl Layer ===

impl Layer {
    fn forward(&self, states: &Tensor, is_causal: bool) -> Result<Tensor, TchError> {
        let attended = self.attention.forward(&self.attention_norm.forward(states)?, is_causal)?;
        let states = states.f_add(&attended)?;
        let wide = self.widen.forward(&self.mlp_norm.forward(&states)?)?;
        let active = match self.activation {
            Activation::Gelu => wide.f_gelu("none")?,
            Activation::QuickGelu => wide.f_mul(&wide.f_mul_scalar(1.702)?.f_sigmoid()?)?,
        };
        states.f_add(&self.narrow.forward(&active)?)
    }
}

// === impl Attention ===

impl Attention {
    fn forward(&self, states: &Tensor, is_causal: bool) -> Result<Tensor, TchError> {
        let (batch, positions, width) = states.size3()?;
        let head_width = width / self.heads;
        // [batch, positions, 3 * width] to three of [batch, heads, positions, head width].
        let inputs = self.inputs.forward(states)?;
        let inputs = inputs
            .f_view([batch, positions, 3, self.heads, head_width])?
            .f_permute([2, 0, 3, 1, 4])?;
        let [queries, keys, values] = [0, 1, 2].map(|part| inputs.f_select(0, part));
        let attended = Tensor::f_scaled_dot_product_attention(
            &queries?,
            &keys?,
            &values?,
            None::<Tensor>,
            0.0,
            is_causal,
            None,
            false,
        )?;
        self.output.forward(&attended.f_transpose(1, 2)?.f_reshape([batch, positions, width])?)
    }
}
