//! What computes vectors, seen from outside: batches in, vectors out, no tensors.
//!
//! [`torch`] is the only implementation that computes, and the only place that names `tch`. A
//! backend lives on one thread of its own, see [`thread`], and each device has its own backend.

#[cfg(any(test, feature = "testing"))]
pub mod fake;
pub mod sizes;
pub(crate) mod thread;
#[cfg(feature = "torch")]
mod torch;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use self::sizes::Sizes;
use crate::model::{Dtype, Model, Tokens};

/// Inputs of one kind that are computed together; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Batch {
    /// RGB levels of the model's square, rows from the top.
    Pictures(Vec<Vec<u8>>),
    Texts(Vec<Tokens>),
}

/// A vector of length 1 per input, in the order of the inputs.
pub type Output = Vec<Vec<f32>>;

/// Computes vectors.
pub trait Backend {
    /// Runs one forward pass over a batch that was brought to the device, or that is brought there
    /// now.
    ///
    /// # Errors
    /// When the device fails. The inputs were checked before.
    fn compute(&mut self, staged: Staged) -> Result<Output, Error>;

    /// Where and how it computes.
    fn description(&self) -> Description;

    /// What brings batches to the device from another thread, while it computes. Asked for once.
    ///
    /// # Errors
    /// When there is no memory for it.
    fn stager(&mut self) -> Result<Box<dyn Stager>, Error> {
        Ok(Box::new(Unstaged))
    }

    /// Runs one forward pass over a batch.
    ///
    /// # Errors
    /// As those of [`Backend::compute`].
    fn embed(&mut self, batch: &Batch) -> Result<Output, Error> {
        self.compute(Staged(Place::Batch(Arc::new(batch.clone()))))
    }
}

/// Brings batches to a device.
pub trait Stager: Send {
    /// Brings one there. Waits while as many are on their way as the device has room for.
    ///
    /// # Errors
    /// When the device fails.
    fn stage(&mut self, batch: Arc<Batch>) -> Result<Staged, Error>;
}

/// A batch on its way through a backend.
#[derive(Debug)]
pub struct Staged(Place);

#[derive(Debug)]
enum Place {
    /// As it came.
    Batch(Arc<Batch>),
    /// Pictures that lie where the device reads them.
    #[cfg(feature = "torch")]
    Pictures(torch::Pictures),
}

/// Leaves batches where they are.
#[derive(Debug)]
struct Unstaged;

/// Where and how a backend computes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// `cpu` or `cuda:0`.
    pub device: String,
    pub dtype: Dtype,
    /// What its batches are padded to, if they are.
    pub padding: Option<Sizes>,
    /// Batches that it has at a time: one, or two where the next is brought to the device while
    /// one is computed.
    pub depth: usize,
}

/// Why a backend can't start, or failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("this program was built without a backend; build it with the feature `torch`")]
    NoBackend,
    #[error("CUDA was asked for, but {reason}")]
    NoCuda { reason: String },
    #[error("`{}` is not computed on this CPU; leave `dtype` at `auto` or set `f32`", .0.as_str())]
    HalfOnCpu(Dtype),
    #[error(
        "this model in `{}` gives vectors with a cosine of {cosine} to those in `f32`, and at \
         least {least} is asked for; leave `dtype` at `auto` or set `f32`", .dtype.as_str()
    )]
    Unfaithful { dtype: Dtype, cosine: f32, least: f32 },
    #[error("a TorchScript program is computed in `f32` only, not in `{}`", .0.as_str())]
    HalfScript(Dtype),
    #[error("load the model: {0}")]
    Load(String),
    #[error("the device is out of memory")]
    OutOfMemory,
    /// Every later pass would fail, too.
    #[error("the device is lost: {0}")]
    Lost(String),
    #[error("the forward pass failed: {0}")]
    Compute(String),
    #[error("start the model's thread")]
    Thread(#[from] std::io::Error),
    #[error("the model's thread has died")]
    Died,
}

/// Settings of a backend.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub device: Device,
    pub dtype: DtypeChoice,
    /// Threads of a forward pass on a CPU; 0 leaves it to the backend.
    pub compute_threads: usize,
    /// Most inputs in a batch, at least 1.
    pub max_batch: usize,
}

/// Where a backend computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    Cpu,
    Cuda { index: usize },
}

/// Where an operator wants to compute. Written `auto`, `cpu`, `cuda` or `cuda:N`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceChoice {
    /// Every CUDA device if CUDA works, else the CPU.
    #[default]
    Auto,
    Cpu,
    /// Every CUDA device that this process can see.
    Cuda,
    /// One of them.
    CudaDevice {
        index: usize,
    },
}

/// What an operator wants to compute in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DtypeChoice {
    /// On CUDA whichever of `f16` and `bf16` comes closer to `f32` with the model at hand; `f32` on
    /// the CPU.
    #[default]
    Auto,
    F32,
    /// On CUDA only.
    F16,
    /// On CUDA, and on CPUs that have instructions for it.
    Bf16,
}

/// Finds the devices that were asked for, at least one. Must come before anything else in here.
///
/// # Errors
/// CUDA that was asked for and does not work; [`Error::NoBackend`] in a program that was built
/// without one.
pub fn devices(choice: DeviceChoice) -> Result<Vec<Device>, Error> {
    #[cfg(feature = "torch")]
    return torch::devices(choice);
    #[cfg(not(feature = "torch"))]
    {
        tracing::debug!(%choice, "nothing computes");
        Err(Error::NoBackend)
    }
}

/// Loads the model into the backend that was compiled in. Blocks for seconds; call it on the
/// thread that is to own the model.
///
/// # Errors
/// A device that is not there, or weights that can't be loaded onto it; [`Error::NoBackend`] in a
/// program that was built without one.
pub fn load(model: &Model, options: &Options) -> Result<Box<dyn Backend>, Error> {
    #[cfg(feature = "torch")]
    return Ok(Box::new(torch::Torch::load(model, options)?));
    #[cfg(not(feature = "torch"))]
    {
        tracing::debug!(file = %model.file().display(), ?options, "nothing loads it");
        Err(Error::NoBackend)
    }
}

// === impl Unstaged ===

impl Stager for Unstaged {
    fn stage(&mut self, batch: Arc<Batch>) -> Result<Staged, Error> {
        Ok(Staged(Place::Batch(batch)))
    }
}

// === impl Batch ===

impl Batch {
    /// How many inputs it holds.
    pub fn len(&self) -> usize {
        match self {
            Self::Pictures(pictures) => pictures.len(),
            Self::Texts(texts) => texts.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds inputs of the same kind; of others it takes none.
    pub(crate) fn append(&mut self, more: Self) {
        match (self, more) {
            (Self::Pictures(pictures), Self::Pictures(more)) => pictures.extend(more),
            (Self::Texts(texts), Self::Texts(more)) => texts.extend(more),
            (Self::Pictures(_), Self::Texts(_)) | (Self::Texts(_), Self::Pictures(_)) => {
                debug_assert!(false, "a batch of two kinds");
            }
        }
    }

    /// The inputs of a range as a batch of their own.
    pub(crate) fn part(&self, range: std::ops::Range<usize>) -> Self {
        match self {
            Self::Pictures(pictures) => Self::Pictures(pictures[range].to_vec()),
            Self::Texts(texts) => Self::Texts(texts[range].to_vec()),
        }
    }
}

// === impl Device ===

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda { index } => write!(f, "cuda:{index}"),
        }
    }
}

// === impl DeviceChoice ===

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let index = match text {
            "auto" => return Ok(Self::Auto),
            "cpu" => return Ok(Self::Cpu),
            "cuda" => return Ok(Self::Cuda),
            other => other.strip_prefix("cuda:").and_then(|index| index.parse().ok()),
        };
        let index =
            index.ok_or_else(|| format!("`{text}` is not `auto`, `cpu`, `cuda` or `cuda:N`"))?;
        Ok(Self::CudaDevice { index })
    }
}

impl TryFrom<String> for DeviceChoice {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<DeviceChoice> for String {
    fn from(choice: DeviceChoice) -> Self {
        choice.to_string()
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda => f.write_str("cuda"),
            Self::CudaDevice { index } => write!(f, "cuda:{index}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_written_as_they_are_read() {
        for text in ["auto", "cpu", "cuda", "cuda:0", "cuda:3"] {
            let choice: DeviceChoice = text.parse().expect("a device");
            assert_eq!(choice.to_string(), text, "round trip");
        }
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda), "all of them");
        for text in ["", "gpu", "cuda:", "cuda:x", "CPU"] {
            assert!(text.parse::<DeviceChoice>().is_err(), "`{text}` is no device");
        }
    }
}
