//! A model's towers in libtorch, or the program that it brings.
//!
//! Weights are loaded once, in the type that is computed in. Pictures travel as bytes and are
//! normalised on the device. Every call into libtorch is a fallible one: its errors become ours,
//! never panics. No gradient is ever kept.

mod cuda;
mod device;
mod head;
mod layers;
mod pixels;
mod precision;
mod script;
mod staging;
mod text;
mod vision;

use tch::{Kind, TchError, Tensor};

use self::cuda::Cuda;
use super::sizes::Sizes;
use super::{
    Backend, Batch, Description, Device, DeviceChoice, Error, Options, Output, Place, Staged,
};
use crate::metrics;
use crate::model::{Dtype, Model, Tokens};

pub(super) use self::staging::Pictures;

/// Multiplications for one picture that are worth a thread. Threads wait for each other after each
/// matrix. With less to do than this they gain little, and lose much where another program has one
/// of the cores: each matrix then takes until that one is scheduled again.
const WORK_PER_THREAD: u64 = 500_000_000;

/// A loaded model.
#[derive(Debug)]
pub(super) struct Torch {
    towers: Towers,
    device: Device,
    /// What tch does not offer; `None` on a CPU.
    cuda: Option<Cuda>,
    padding: Option<Sizes>,
    max_batch: usize,
}

/// A model's towers on one device, in one type.
#[derive(Debug)]
struct Towers {
    vision: vision::Sight,
    /// `None` for a model that takes pictures only.
    text: Option<text::Tower>,
    /// Edge of a picture in pixels.
    edge: usize,
    device: tch::Device,
    dtype: Dtype,
}

/// The devices that were asked for. Must come before any other call into libtorch.
pub(super) fn devices(choice: DeviceChoice) -> Result<Vec<Device>, Error> {
    device::choose(choice)
}

impl Torch {
    pub(super) fn load(model: &Model, options: &Options) -> Result<Self, Error> {
        let threads = match options.compute_threads {
            0 => worthwhile_threads(model.multiplications(), tch::get_num_threads()),
            threads => i32::try_from(threads).unwrap_or(i32::MAX),
        };
        // The setting is the calling thread's alone, which is the one that will compute.
        tch::set_num_threads(threads);
        let device = options.device;
        let towers = precision::choose(model, device, options.dtype)?;
        let dtype = towers.dtype.as_str();
        tracing::info!(%device, dtype, threads, "model loaded");
        let cuda = match device {
            Device::Cpu => None,
            Device::Cuda { index } => Some(Cuda::new(index)?),
        };
        // A CPU takes any shape as it comes, and padding would be work like any other.
        let padding = cuda.is_some().then(|| Sizes::up_to(options.max_batch));
        Ok(Self { towers, device, cuda, padding, max_batch: options.max_batch })
    }

    /// Texts, padded with the last of them.
    fn padded(&self, texts: &[Tokens]) -> Vec<Tokens> {
        let size = self.padding.as_ref().map_or(texts.len(), |sizes| sizes.padded(texts.len()));
        let padding = texts.last().into_iter().cycle();
        texts.iter().chain(padding).take(size).cloned().collect()
    }
}

impl Backend for Torch {
    fn compute(&mut self, staged: Staged) -> Result<Output, Error> {
        let rows = match &staged.0 {
            Place::Pictures(pictures) => {
                let vectors = self.towers.see(&pictures.levels()?)?;
                rows(&vectors, pictures.count())
            }
            Place::Batch(batch) => match &**batch {
                Batch::Pictures(pictures) => {
                    let vectors = self.towers.see(&self.towers.levels(pictures)?)?;
                    rows(&vectors, pictures.len() as i64)
                }
                Batch::Texts(texts) => {
                    rows(&self.towers.read(&self.padded(texts))?, texts.len() as i64)
                }
            },
        };
        if let Some(taken) = self.cuda.as_ref().and_then(Cuda::memory_taken) {
            metrics::device_memory(&self.device.to_string(), taken);
        }
        rows.map_err(|fault| error(&fault))
    }

    fn description(&self) -> Description {
        // On a CPU, bringing pictures to where they are read takes a thousandth of computing them.
        // What is brought ahead of time can't be overtaken any more.
        let depth = if self.cuda.is_some() { 2 } else { 1 };
        Description {
            device: self.device.to_string(),
            dtype: self.towers.dtype,
            padding: self.padding.clone(),
            depth,
        }
    }

    fn stager(&mut self) -> Result<Box<dyn super::Stager>, Error> {
        let sizes = [self.max_batch, self.towers.edge, self.description().depth];
        let stager = staging::Stager::new(self.cuda, sizes, self.padding.clone())?;
        Ok(Box::new(stager))
    }
}

impl Towers {
    fn load(model: &Model, device: Device, dtype: Dtype) -> Result<Self, Error> {
        let device = match device {
            Device::Cpu => tch::Device::Cpu,
            Device::Cuda { index } => tch::Device::Cuda(index),
        };
        let load = || {
            let vision = vision::Sight::load(model, device, kind(dtype))?;
            Ok((vision, text::Tower::of(model, device, kind(dtype))?))
        };
        let (vision, text) =
            tch::no_grad(load).map_err(|error: TchError| Error::Load(first_line(&error)))?;
        Ok(Self { vision, text, edge: model.image_size(), device, dtype })
    }

    /// From levels of [picture, row, column, channel] on the device to vectors of length 1.
    fn see(&self, levels: &Tensor) -> Result<Tensor, Error> {
        tch::no_grad(|| normalised(&self.vision.forward(levels)?)).map_err(|fault| error(&fault))
    }

    /// From texts to vectors of length 1.
    fn read(&self, texts: &[Tokens]) -> Result<Tensor, Error> {
        let tower = self.text.as_ref();
        let tower = tower.ok_or_else(|| Error::Compute("the model reads no texts".to_owned()))?;
        tch::no_grad(|| normalised(&tower.forward(texts)?)).map_err(|fault| error(&fault))
    }

    /// Brings pictures to the device.
    fn levels(&self, pictures: &[Vec<u8>]) -> Result<Tensor, Error> {
        let (count, edge) = (pictures.len() as i64, self.edge as i64);
        Tensor::f_from_data_size(&pictures.concat(), &[count, edge, edge, 3], Kind::Uint8)
            .and_then(|levels| levels.f_to_device(self.device))
            .map_err(|fault| error(&fault))
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

/// Brings the first rows of a matrix to the host.
fn rows(matrix: &Tensor, count: i64) -> Result<Output, TchError> {
    let (_, width) = matrix.size2()?;
    let matrix = matrix.f_narrow(0, 0, count)?.f_to_device(tch::Device::Cpu)?;
    let values = Vec::<f32>::try_from(&matrix.f_contiguous()?.f_flatten(0, -1)?)?;
    Ok(values.chunks(width as usize).map(<[f32]>::to_vec).collect())
}

fn kind(dtype: Dtype) -> Kind {
    match dtype {
        Dtype::F32 => Kind::Float,
        Dtype::F16 => Kind::Half,
        Dtype::Bf16 => Kind::BFloat16,
    }
}

/// What a fault of libtorch means for the passes to come. Its messages are all that it tells.
fn error(fault: &TchError) -> Error {
    classify(first_line(fault))
}

fn classify(message: String) -> Error {
    const OUT_OF_MEMORY: [&str; 4] =
        ["out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED"];
    if OUT_OF_MEMORY.iter().any(|part| message.contains(part)) {
        return Error::OutOfMemory;
    }
    // After an error in a kernel, every later call of the process returns the same.
    if message.contains("CUDA error") { Error::Lost(message) } else { Error::Compute(message) }
}

/// What libtorch says first; the rest is its stack.
fn first_line(error: &TchError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_model_gets_one_thread_and_a_large_one_all() {
        assert_eq!(worthwhile_threads(120_000_000, 16), 1, "a model of a few million weights");
        assert_eq!(worthwhile_threads(4_246_732_800, 16), 8, "ViT-B/32");
        assert_eq!(worthwhile_threads(80_000_000_000, 16), 16, "ViT-L/14: no more than there are");
        assert_eq!(worthwhile_threads(u64::MAX, 0), 1, "a count of cores that is none");
    }

    #[test]
    fn faults_are_told_apart_by_what_libtorch_says() {
        let is = |message: &str| classify(message.to_owned());
        for memory in [
            "CUDA out of memory. Tried to allocate 2.00 GiB",
            "CUDA error: out of memory",
            "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
            "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory",
        ] {
            assert!(matches!(is(memory), Error::OutOfMemory), "{memory}");
        }
        for lost in [
            "CUDA error: an illegal memory access was encountered",
            "CUDA error: device-side assert",
        ] {
            assert!(matches!(is(lost), Error::Lost(_)), "{lost}");
        }
        let other = "The size of tensor a (3) must match the size of tensor b (4)";
        assert!(matches!(is(other), Error::Compute(_)), "{other}");
    }

    #[test]
    fn a_fault_of_libtorch_itself_is_recognised() {
        // An exbibyte, which no machine has.
        let huge = Tensor::f_zeros([1 << 58], (Kind::Float, tch::Device::Cpu));
        let fault = huge.expect_err("there is no such memory");
        assert!(matches!(error(&fault), Error::OutOfMemory), "{}", first_line(&fault));
    }
}
