//! The tower that looks at pictures: a vision transformer over square patches.
//!
//! ```text
//!   levels ─► patches ─► + positions, behind class and registers ─► layers ─► head ─► vectors
//! ```

use tch::{Device, Kind, TchError, Tensor};

use super::head::Head;
use super::layers::{Encoder, LayerNorm, Linear, Loader};
use super::pixels::Normaliser;
use super::script::Script;
use crate::model::names::VisionNames;
use crate::model::{Config, Model, Network, Normalisation, Vision};

/// What looks at pictures.
#[derive(Debug)]
pub(super) enum Sight {
    Tower(Box<Tower>),
    Script(Script),
}

/// From levels to vectors.
#[derive(Debug)]
pub(super) struct Tower {
    normaliser: Normaliser,
    patches: Linear,
    patch_size: i64,
    /// The class token with its position, and the registers, in front of the patches.
    front: Option<Tensor>,
    /// Those of the patches.
    positions: Tensor,
    input_norm: Option<LayerNorm>,
    encoder: Encoder,
    head: Head,
}

// === impl Sight ===

impl Sight {
    pub(super) fn load(model: &Model, device: Device, kind: Kind) -> Result<Self, TchError> {
        let normalisation = &model.preprocessing.normalisation;
        match &model.network {
            Network::Towers { config, weights } => {
                let loader = Loader::new(weights, device, kind);
                Ok(Self::Tower(Box::new(Tower::load(&loader, config, normalisation)?)))
            }
            Network::Script(file) => Ok(Self::Script(Script::load(file, normalisation, device)?)),
        }
    }

    /// From levels of [picture, row, column, channel] to [picture, dimension].
    pub(super) fn forward(&self, levels: &Tensor) -> Result<Tensor, TchError> {
        match self {
            Self::Tower(tower) => tower.forward(levels),
            Self::Script(script) => script.forward(levels),
        }
    }
}

// === impl Tower ===

impl Tower {
    fn load(
        loader: &Loader<'_>,
        config: &Config,
        normalisation: &Normalisation,
    ) -> Result<Self, TchError> {
        let vision = &config.vision;
        let names = VisionNames::of(config.family, vision);
        let (front, positions) = tokens(loader, vision, &names)?;
        let input_norm = names.input_norm.map(|norm| loader.norm(norm, &vision.tower));
        let patches = match names.has_patch_bias {
            true => loader.linear(names.patches)?,
            false => loader.projection(names.patches)?,
        };
        Ok(Self {
            normaliser: Normaliser::load(normalisation, loader.device, loader.kind)?,
            patches,
            patch_size: vision.patch_size as i64,
            front,
            positions,
            input_norm: input_norm.transpose()?,
            encoder: loader.encoder(&names.layers, &vision.tower, false)?,
            head: Head::load(loader, config.family, vision, &names)?,
        })
    }

    fn forward(&self, levels: &Tensor) -> Result<Tensor, TchError> {
        let patches = self.normaliser.forward(levels)?.f_conv2d(
            &self.patches.weight,
            self.patches.bias.as_ref(),
            [self.patch_size; 2],
            [0, 0],
            [1, 1],
            1,
        )?;
        let patches = patches.f_flatten(2, -1)?.f_transpose(1, 2)?.f_add(&self.positions)?;
        let mut states = match &self.front {
            Some(front) => {
                let (batch, _, _) = patches.size3()?;
                Tensor::f_cat(&[front.f_expand([batch, -1, -1], false)?, patches], 1)?
            }
            None => patches,
        };
        if let Some(norm) = &self.input_norm {
            states = norm.forward(&states)?;
        }
        self.head.forward(&self.encoder.forward(states)?)
    }
}

/// What stands in front of the patches, and the positions of the patches, each [1, count, width].
fn tokens(
    loader: &Loader<'_>,
    vision: &Vision,
    names: &VisionNames,
) -> Result<(Option<Tensor>, Tensor), TchError> {
    let width = vision.tower.width as i64;
    let positions = loader.tensor(names.positions)?.f_view([1, -1, width])?;
    let Some(class) = names.class else {
        return Ok((None, positions));
    };
    let class = loader.tensor(class)?.f_view([1, 1, width])?;
    let mut front = class.f_add(&positions.f_narrow(1, 0, 1)?)?;
    if vision.registers > 0 {
        // They have no place, and so no position.
        let registers = loader.tensor(names.registers)?.f_view([1, -1, width])?;
        front = Tensor::f_cat(&[front, registers], 1)?;
    }
    let count = vision.trained_patches() as i64;
    let positions = resized(&positions.f_narrow(1, 1, count)?, vision)?;
    Ok((Some(front), positions.f_to_kind(loader.kind)?))
}

/// Brings positions to the size of the input, where they were trained for another. The reference
/// weighs neighbours in the way that a picture is resized; only with registers does it smooth
/// what becomes smaller.
fn resized(positions: &Tensor, vision: &Vision) -> Result<Tensor, TchError> {
    if vision.trained_patches() == vision.patches() {
        return positions.f_contiguous();
    }
    let (_, _, width) = positions.size3()?;
    let edge = |size: usize| (size / vision.patch_size) as i64;
    let trained = edge(vision.trained_size.unwrap_or(vision.image_size));
    let size = [edge(vision.image_size); 2];
    let grid = positions.f_view([1, trained, trained, width])?.f_permute([0, 3, 1, 2])?;
    let grid = grid.f_to_kind(Kind::Float)?;
    let resized = match vision.registers {
        0 => grid.f_upsample_bicubic2d(size, false, None, None)?,
        _ => grid.f_internal_upsample_bicubic2d_aa(size, false, None, None)?,
    };
    resized.f_permute([0, 2, 3, 1])?.f_reshape([1, -1, width])
}
