//! CLIP's two towers in libtorch.
//!
//! Weights are loaded once, in the type that is computed in. Pictures travel as bytes and are
//! normalised on the device. Every call into libtorch is a fallible one: its errors become ours,
//! never panics. No gradient is ever kept.

mod device;
mod layers;
mod text;
mod vision;

use tch::{Device, Kind, TchError, Tensor};

use self::layers::Loader;
use super::{Backend, Batch, Description, DtypeChoice, Error, Options, Output};
use crate::model::{Dtype, Model};

/// Multiplications for one picture that are worth a thread. Threads wait for each other after each
/// matrix. With less to do than this they gain little, and lose much where another program has one
/// of the cores: each matrix then takes until that one is scheduled again.
const WORK_PER_THREAD: u64 = 500_000_000;

/// A loaded model.
#[derive(Debug)]
pub(super) struct Torch {
    vision: vision::Tower,
    text: text::Tower,
    device: Device,
    dtype: Dtype,
}

impl Torch {
    pub(super) fn load(model: &Model, options: &Options) -> Result<Self, Error> {
        let device = device::choose(options.device)?;
        let dtype = dtype(options.dtype, device)?;
        let threads = match options.compute_threads {
            0 => worthwhile_threads(model.config.vision.multiplications(), tch::get_num_threads()),
            threads => i32::try_from(threads).unwrap_or(i32::MAX),
        };
        // The setting is the calling thread's alone, which is the one that will compute.
        tch::set_num_threads(threads);
        let loader = Loader::new(&model.weights, device, kind(dtype));
        let (vision, text) = tch::no_grad(|| {
            let vision =
                vision::Tower::load(&loader, &model.config, &model.preprocessing.normalisation)?;
            Ok((vision, text::Tower::load(&loader, &model.config.text, &model.tokenizer)?))
        })
        .map_err(|error: TchError| Error::Load(first_line(&error)))?;
        tracing::info!(device = name(device), dtype = dtype.as_str(), threads, "model loaded");
        Ok(Self { vision, text, device, dtype })
    }
}

impl Backend for Torch {
    fn embed(&mut self, batch: &Batch) -> Result<Output, Error> {
        let rows = tch::no_grad(|| {
            let vectors = match batch {
                Batch::Pictures(pictures) => self.vision.forward(pictures)?,
                Batch::Texts(texts) => self.text.forward(texts)?,
            };
            rows(&normalised(&vectors)?)
        });
        rows.map_err(|error| Error::Compute(first_line(&error)))
    }

    fn description(&self) -> Description {
        Description { device: name(self.device), dtype: self.dtype }
    }
}

/// How many threads a CPU gives to a picture of so many multiplications, where it has `most`.
fn worthwhile_threads(multiplications: u64, most: i32) -> i32 {
    i32::try_from(multiplications / WORK_PER_THREAD).unwrap_or(most).clamp(1, most.max(1))
}

/// Scales each row to length 1, in single precision whatever was computed in.
fn normalised(vectors: &Tensor) -> Result<Tensor, TchError> {
    let vectors = vectors.f_to_kind(Kind::Float)?;
    let lengths = vectors.f_norm_scalaropt_dim(2.0, [-1], true)?;
    vectors.f_div(&lengths)
}

/// Brings a matrix to the host, row by row.
fn rows(matrix: &Tensor) -> Result<Output, TchError> {
    let (_, width) = matrix.size2()?;
    let values =
        Vec::<f32>::try_from(&matrix.f_to_device(Device::Cpu)?.f_contiguous()?.f_flatten(0, -1)?)?;
    Ok(values.chunks(width as usize).map(<[f32]>::to_vec).collect())
}

fn dtype(choice: DtypeChoice, device: Device) -> Result<Dtype, Error> {
    let dtype = match choice {
        DtypeChoice::Auto if device.is_cuda() => Dtype::F16,
        DtypeChoice::Auto | DtypeChoice::F32 => Dtype::F32,
        DtypeChoice::F16 => Dtype::F16,
        DtypeChoice::Bf16 => Dtype::Bf16,
    };
    if dtype != Dtype::F32 && !device.is_cuda() {
        return Err(Error::HalfOnCpu(dtype));
    }
    Ok(dtype)
}

fn kind(dtype: Dtype) -> Kind {
    match dtype {
        Dtype::F32 => Kind::Float,
        Dtype::F16 => Kind::Half,
        Dtype::Bf16 => Kind::BFloat16,
    }
}

fn name(device: Device) -> String {
    match device {
        Device::Cpu => "cpu".to_owned(),
        Device::Cuda(index) => format!("cuda:{index}"),
        Device::Mps => "mps".to_owned(),
        Device::Vulkan => "vulkan".to_owned(),
    }
}

/// What libtorch says first; the rest is its stack.
fn first_line(error: &TchError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::worthwhile_threads;

    #[test]
    fn a_small_model_gets_one_thread_and_a_large_one_all() {
        assert_eq!(worthwhile_threads(120_000_000, 16), 1, "a model of a few million weights");
        assert_eq!(worthwhile_threads(4_246_732_800, 16), 8, "ViT-B/32");
        assert_eq!(worthwhile_threads(80_000_000_000, 16), 16, "ViT-L/14: no more than there are");
        assert_eq!(worthwhile_threads(u64::MAX, 0), 1, "a count of cores that is none");
    }
}
