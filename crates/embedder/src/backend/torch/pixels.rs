//! From the levels of pictures to the numbers that a model computes with.

use tch::{Device, Kind, TchError, Tensor};

use crate::model::Normalisation;

/// Normalises pictures on the device: their levels travel as bytes.
#[derive(Debug)]
pub(super) struct Normaliser {
    /// Per channel, to broadcast over [batch, channel, row, column].
    scale: Tensor,
    offset: Tensor,
    kind: Kind,
}

impl Normaliser {
    pub(super) fn load(
        normalisation: &Normalisation,
        device: Device,
        kind: Kind,
    ) -> Result<Self, TchError> {
        let per_channel = |values: [f32; 3]| {
            Tensor::f_from_slice(&values)?.f_to_device(device)?.f_view([1, 3, 1, 1])
        };
        let scale = per_channel(normalisation.scale)?;
        Ok(Self { scale, offset: per_channel(normalisation.offset)?, kind })
    }

    /// From [batch, row, column, channel] to [batch, channel, row, column].
    pub(super) fn forward(&self, levels: &Tensor) -> Result<Tensor, TchError> {
        let levels = levels.f_permute([0, 3, 1, 2])?.f_to_kind(Kind::Float)?;
        levels.f_mul(&self.scale)?.f_add(&self.offset)?.f_to_kind(self.kind)?.f_contiguous()
    }
}
