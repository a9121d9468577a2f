//! From the states of a picture's tokens to its vector.

use tch::{TchError, Tensor};

use super::layers::{Attention, LayerNorm, Linear, Loader, Mlp};
use crate::model::names::{POOLING_HEAD, VisionNames};
use crate::model::{Family, Tower, Vision};

/// What comes after the layers.
#[derive(Debug)]
pub(super) enum Head {
    /// The class token's state, projected where there is a space to share with texts.
    Class { norm: LayerNorm, projection: Option<Linear> },
    /// A question that is learned, and answered by all patches.
    Pooling { norm: LayerNorm, pooling: Pooling },
}

/// Attention from one query to all patches.
#[derive(Debug)]
pub(super) struct Pooling {
    /// [1, heads, 1, head width]; the same for every picture.
    query: Tensor,
    /// Keys and values in one product.
    inputs: Linear,
    output: Linear,
    mlp_norm: LayerNorm,
    mlp: Mlp,
    heads: i64,
}

// === impl Head ===

impl Head {
    pub(super) fn load(
        loader: &Loader<'_>,
        family: Family,
        vision: &Vision,
        names: &VisionNames,
    ) -> Result<Self, TchError> {
        let tower = &vision.tower;
        let norm = loader.norm(names.output_norm, tower)?;
        match family {
            Family::Siglip => Ok(Self::Pooling { norm, pooling: Pooling::load(loader, tower)? }),
            Family::Clip | Family::Dinov2 | Family::Vit => {
                let projection = names.projection.map(|name| loader.projection(name));
                Ok(Self::Class { norm, projection: projection.transpose()? })
            }
        }
    }

    /// From [batch, positions, width] to [batch, dimension].
    pub(super) fn forward(&self, states: &Tensor) -> Result<Tensor, TchError> {
        match self {
            Self::Class { norm, projection } => {
                let class = norm.forward(&states.f_select(1, 0)?)?;
                match projection {
                    Some(projection) => projection.forward(&class),
                    None => Ok(class),
                }
            }
            Self::Pooling { norm, pooling } => pooling.forward(&norm.forward(states)?),
        }
    }
}

// === impl Pooling ===

impl Pooling {
    fn load(loader: &Loader<'_>, tower: &Tower) -> Result<Self, TchError> {
        let (width, heads) = (tower.width as i64, tower.heads as i64);
        let part = |name: &str| loader.tensor(&format!("{POOLING_HEAD}.{name}"));
        // Queries, keys and values stand one below the other.
        let weight = part("attention.in_proj_weight")?;
        let bias = part("attention.in_proj_bias")?;
        let rows = |start: i64, count: i64| -> Result<Linear, TchError> {
            let bias = bias.f_narrow(0, start * width, count * width)?;
            let weight = weight.f_narrow(0, start * width, count * width)?;
            Ok(Linear { weight: weight.f_contiguous()?, bias: Some(bias.f_contiguous()?) })
        };
        let query = rows(0, 1)?.forward(&part("probe")?)?;
        Ok(Self {
            query: query.f_view([1, 1, heads, width / heads])?.f_transpose(1, 2)?,
            inputs: rows(1, 2)?,
            output: loader.linear(&format!("{POOLING_HEAD}.attention.out_proj"))?,
            mlp_norm: loader.norm(&format!("{POOLING_HEAD}.layernorm"), tower)?,
            mlp: loader.mlp(
                &format!("{POOLING_HEAD}.mlp.fc1"),
                &format!("{POOLING_HEAD}.mlp.fc2"),
                tower,
            )?,
            heads,
        })
    }

    fn forward(&self, states: &Tensor) -> Result<Tensor, TchError> {
        let (batch, _, width) = states.size3()?;
        let [keys, values] = Attention::split(&self.inputs.forward(states)?, self.heads)?;
        let queries = self.query.f_expand([batch, -1, -1, -1], false)?;
        let attended = Attention::attend(&queries, &keys, &values, false)?;
        let pooled = self.output.forward(&attended.f_reshape([batch, width])?)?;
        pooled.f_add(&self.mlp.forward(&self.mlp_norm.forward(&pooled)?)?)
    }
}
