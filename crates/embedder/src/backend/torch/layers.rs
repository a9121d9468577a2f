//! The parts that both towers are built from.

use tch::{Device, Kind, TchError, Tensor};

use crate::model::names::LayerNames;
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
    pub(super) weight: Tensor,
    pub(super) bias: Option<Tensor>,
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
    mlp: Mlp,
    /// What the outputs of both parts are multiplied with.
    scales: Option<[Tensor; 2]>,
}

#[derive(Debug)]
pub(super) struct Attention {
    /// Queries, keys and values in one product.
    inputs: Linear,
    output: Linear,
    heads: i64,
}

/// The feed-forward part of a layer.
#[derive(Debug)]
pub(super) struct Mlp {
    widen: Linear,
    narrow: Linear,
    activation: Activation,
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

    /// A product with a bias.
    pub(super) fn linear(&self, name: &str) -> Result<Linear, TchError> {
        let bias = Some(self.tensor(&format!("{name}.bias"))?);
        Ok(Linear { weight: self.tensor(&format!("{name}.weight"))?, bias })
    }

    pub(super) fn norm(&self, name: &str, tower: &Tower) -> Result<LayerNorm, TchError> {
        Ok(LayerNorm {
            weight: self.tensor(&format!("{name}.weight"))?,
            bias: self.tensor(&format!("{name}.bias"))?,
            width: tower.width as i64,
            epsilon: tower.layer_norm_epsilon,
        })
    }

    pub(super) fn mlp(&self, widen: &str, narrow: &str, tower: &Tower) -> Result<Mlp, TchError> {
        let (widen, narrow) = (self.linear(widen)?, self.linear(narrow)?);
        Ok(Mlp { widen, narrow, activation: tower.activation })
    }

    /// All layers of a tower.
    pub(super) fn encoder(
        &self,
        names: &LayerNames,
        tower: &Tower,
        is_causal: bool,
    ) -> Result<Encoder, TchError> {
        let layers = (0..tower.layers).map(|i| self.layer(i, names, tower));
        Ok(Encoder { layers: layers.collect::<Result<_, _>>()?, is_causal })
    }

    fn layer(&self, i: usize, names: &LayerNames, tower: &Tower) -> Result<Layer, TchError> {
        let of_layer = |part: &str| format!("{}.{i}.{part}", names.stack);
        let scales = names.scales.map(|[attention, mlp]| {
            Ok::<_, TchError>([self.tensor(&of_layer(attention))?, self.tensor(&of_layer(mlp))?])
        });
        Ok(Layer {
            attention_norm: self.norm(&of_layer(names.attention_norm), tower)?,
            attention: Attention {
                inputs: self.joined(names.attention_inputs.map(of_layer))?,
                output: self.linear(&of_layer(names.attention_output))?,
                heads: tower.heads as i64,
            },
            mlp_norm: self.norm(&of_layer(names.mlp_norm), tower)?,
            mlp: self.mlp(&of_layer(names.widen), &of_layer(names.narrow), tower)?,
            scales: scales.transpose()?,
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
        let states = states.f_add(&self.scaled(attended, 0)?)?;
        let thought = self.mlp.forward(&self.mlp_norm.forward(&states)?)?;
        states.f_add(&self.scaled(thought, 1)?)
    }

    fn scaled(&self, output: Tensor, part: usize) -> Result<Tensor, TchError> {
        match &self.scales {
            Some(scales) => output.f_mul(&scales[part]),
            None => Ok(output),
        }
    }
}

// === impl Attention ===

impl Attention {
    fn forward(&self, states: &Tensor, is_causal: bool) -> Result<Tensor, TchError> {
        let shape = states.size();
        let [queries, keys, values] = Self::split(&self.inputs.forward(states)?, self.heads)?;
        let attended = Self::attend(&queries, &keys, &values, is_causal)?;
        self.output.forward(&attended.f_transpose(1, 2)?.f_reshape(shape)?)
    }

    /// From [batch, positions, N * width] to N of [batch, heads, positions, head width].
    pub(super) fn split<const N: usize>(
        inputs: &Tensor,
        heads: i64,
    ) -> Result<[Tensor; N], TchError> {
        let (batch, positions, width) = inputs.size3()?;
        let head_width = width / (N as i64 * heads);
        let inputs = inputs
            .f_view([batch, positions, N as i64, heads, head_width])?
            .f_permute([2, 0, 3, 1, 4])?;
        let mut parts = [const { None }; N];
        for (i, part) in (0..).zip(&mut parts) {
            *part = Some(inputs.f_select(0, i)?);
        }
        Ok(parts.map(|part| part.expect("each was set just now")))
    }

    /// From queries of [batch, heads, positions, head width] to the same.
    pub(super) fn attend(
        queries: &Tensor,
        keys: &Tensor,
        values: &Tensor,
        is_causal: bool,
    ) -> Result<Tensor, TchError> {
        Tensor::f_scaled_dot_product_attention(
            queries,
            keys,
            values,
            None::<Tensor>,
            0.0,
            is_causal,
            None,
            false,
        )
    }
}

// === impl Mlp ===

impl Mlp {
    pub(super) fn forward(&self, states: &Tensor) -> Result<Tensor, TchError> {
        let mut wide = self.widen.forward(states)?;
        // In place as far as it goes: these are the largest tensors of all.
        let active = match self.activation {
            Activation::Gelu => wide.f_gelu_("none")?,
            Activation::GeluTanh => wide.f_gelu_("tanh")?,
            Activation::QuickGelu => wide.f_mul_scalar(1.702)?.f_sigmoid_()?.f_mul_(&wide)?,
            Activation::SwiGlu => {
                let half = wide.size().last().copied().unwrap_or(0) / 2;
                let [gate, value] = [0, half].map(|start| wide.f_narrow(-1, start, half));
                gate?.f_silu()?.f_mul(&value?)?
            }
        };
        self.narrow.forward(&active)
    }
}
