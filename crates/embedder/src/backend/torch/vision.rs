//! The tower that looks at pictures: a vision transformer over square patches.

use tch::{Kind, TchError, Tensor};

use super::layers::{Encoder, LayerNorm, Linear, Loader};
use crate::model::{Config, Normalisation};

/// From levels to vectors.
#[derive(Debug)]
pub(super) struct Tower {
    /// Per channel, to broadcast over [batch, channel, row, column].
    scale: Tensor,
    offset: Tensor,
    patches: Tensor,
    patch_size: i64,
    /// The state that a picture's vector is taken from, in front of those of its patches.
    class: Tensor,
    positions: Tensor,
    input_norm: LayerNorm,
    encoder: Encoder,
    output_norm: LayerNorm,
    projection: Linear,
    kind: Kind,
}

impl Tower {
    pub(super) fn load(
        loader: &Loader<'_>,
        config: &Config,
        normalisation: &Normalisation,
    ) -> Result<Self, TchError> {
        let per_channel = |values: [f32; 3]| {
            Tensor::f_from_slice(&values)?.f_to_device(loader.device)?.f_view([1, 3, 1, 1])
        };
        let vision = &config.vision;
        let tower = &vision.tower;
        let embeddings = "vision_model.embeddings";
        Ok(Self {
            scale: per_channel(normalisation.scale)?,
            offset: per_channel(normalisation.offset)?,
            patches: loader.tensor(&format!("{embeddings}.patch_embedding.weight"))?,
            patch_size: vision.patch_size as i64,
            class: loader.tensor(&format!("{embeddings}.class_embedding"))?,
            positions: loader.tensor(&format!("{embeddings}.position_embedding.weight"))?,
            input_norm: loader.norm("vision_model.pre_layrnorm", tower)?,
            encoder: loader.encoder("vision_model", tower, false)?,
            output_norm: loader.norm("vision_model.post_layernorm", tower)?,
            projection: loader.projection("visual_projection")?,
            kind: loader.kind,
        })
    }

    /// From levels of [picture, row, column, channel] to [batch, dimension].
    pub(super) fn forward(&self, levels: &Tensor) -> Result<Tensor, TchError> {
        let patches = self.normalise(levels)?.f_conv2d(
            &self.patches,
            None::<Tensor>,
            [self.patch_size; 2],
            [0, 0],
            [1, 1],
            1,
        )?;
        let patches = patches.f_flatten(2, -1)?.f_transpose(1, 2)?;
        let (batch, _, width) = patches.size3()?;
        let class = self.class.f_expand([batch, 1, width], false)?;
        let states = Tensor::f_cat(&[class, patches], 1)?.f_add(&self.positions)?;
        let states = self.encoder.forward(self.input_norm.forward(&states)?)?;
        let class = self.output_norm.forward(&states.f_select(1, 0)?)?;
        self.projection.forward(&class)
    }

    /// Bytes become numbers on the device.
    fn normalise(&self, levels: &Tensor) -> Result<Tensor, TchError> {
        let levels = levels.f_permute([0, 3, 1, 2])?.f_to_kind(Kind::Float)?;
        levels.f_mul(&self.scale)?.f_add(&self.offset)?.f_to_kind(self.kind)?.f_contiguous()
    }
}
