//! A program of its own that looks at pictures.

use tch::jit::{
    f_set_graph_executor_optimize, f_set_profiling_mode, f_set_tensor_expr_fuser_enabled,
};
use tch::{CModule, Device, Kind, TchError, Tensor};

use super::pixels::Normaliser;
use crate::model::{Normalisation, Script as File};

/// From levels to vectors.
#[derive(Debug)]
pub(super) struct Script {
    normaliser: Normaliser,
    module: CModule,
}

impl Script {
    /// Loads the program. It computes in single precision, as it was made: what it was traced with
    /// may be written into it.
    pub(super) fn load(
        file: &File,
        normalisation: &Normalisation,
        device: Device,
    ) -> Result<Self, TchError> {
        // The profiling executor watches the first runs of every shape and then compiles it anew,
        // so that callers of the first batches would wait for seconds. Its fuser needs it.
        f_set_profiling_mode(false)?;
        f_set_tensor_expr_fuser_enabled(false)?;
        f_set_graph_executor_optimize(false)?;
        let mut module = CModule::load_on_device(file.file(), device)?;
        module.f_set_eval()?;
        let normaliser = Normaliser::load(normalisation, device, Kind::Float)?;
        Ok(Self { normaliser, module })
    }

    /// From pictures of [batch, row, column, channel] to [batch, dimension].
    pub(super) fn forward(&self, levels: &Tensor) -> Result<Tensor, TchError> {
        let output = self.module.forward_ts(&[self.normaliser.forward(levels)?])?;
        vectors(&output, levels.size()[0])
    }
}

/// What the program gives, as [batch, dimension].
fn vectors(output: &Tensor, batch: i64) -> Result<Tensor, TchError> {
    let shape = output.size();
    match shape.as_slice() {
        [count, _] | [count, _, 1, 1] if *count == batch => output.f_flatten(1, -1),
        _ => Err(TchError::Shape(format!(
            "the program gives {shape:?} for {batch} pictures, not [{batch}, dimension]"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_must_give_a_vector_per_picture() {
        let of = |shape: &[i64]| {
            vectors(&Tensor::zeros(shape, (Kind::Float, Device::Cpu)), 2).map(|rows| rows.size())
        };
        assert_eq!(of(&[2, 5]).expect("vectors"), [2, 5], "as they are");
        assert_eq!(of(&[2, 5, 1, 1]).expect("vectors"), [2, 5], "pooled, but not flattened");
        for shape in [&[1, 5][..], &[2], &[2, 5, 7, 7], &[10]] {
            let fault = of(shape).expect_err("no vectors").to_string();
            assert!(fault.contains("[2, dimension]"), "what was expected: {fault}");
        }
    }
}
