//! What computes vectors, seen from outside: batches in, vectors out, no tensors.
//!
//! [`torch`] is the only implementation that computes, and the only place that names `tch`. A
//! backend lives on one thread of its own, see [`thread`].

#[cfg(any(test, feature = "testing"))]
pub mod fake;
pub(crate) mod thread;
#[cfg(feature = "torch")]
mod torch;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

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
    /// Runs one forward pass.
    ///
    /// # Errors
    /// When the device fails. The inputs were checked before.
    fn embed(&mut self, batch: &Batch) -> Result<Output, Error>;

    /// Where and how it computes.
    fn description(&self) -> Description;
}

/// Where and how a backend computes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// `cpu` or `cuda:0`.
    pub device: String,
    pub dtype: Dtype,
}

/// Why a backend can't start, or failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("this program was built without a backend; build it with the feature `torch`")]
    NoBackend,
    #[error("CUDA was asked for, but {reason}")]
    NoCuda { reason: String },
    #[error("`{}` is computed on CUDA only; leave `dtype` at `auto` or set `f32`", .0.as_str())]
    HalfOnCpu(Dtype),
    #[error("load the model: {0}")]
    Load(String),
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
    pub device: DeviceChoice,
    pub dtype: DtypeChoice,
    /// Threads of a forward pass on a CPU; 0 leaves it to the backend.
    pub compute_threads: usize,
}

/// Where an operator wants to compute. Written `auto`, `cpu`, `cuda` or `cuda:N`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceChoice {
    /// CUDA if it works, else the CPU.
    #[default]
    Auto,
    Cpu,
    Cuda {
        index: usize,
    },
}

/// What an operator wants to compute in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DtypeChoice {
    /// `f16` on CUDA, `f32` on the CPU.
    #[default]
    Auto,
    F32,
    F16,
    Bf16,
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
        tracing::debug!(weights = %model.weights.file().display(), ?options, "nothing loads them");
        Err(Error::NoBackend)
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
}

// === impl DeviceChoice ===

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let index = match text {
            "auto" => return Ok(Self::Auto),
            "cpu" => return Ok(Self::Cpu),
            "cuda" => Some(0),
            other => other.strip_prefix("cuda:").and_then(|index| index.parse().ok()),
        };
        let index =
            index.ok_or_else(|| format!("`{text}` is not `auto`, `cpu`, `cuda` or `cuda:N`"))?;
        Ok(Self::Cuda { index })
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
            Self::Cuda { index } => write!(f, "cuda:{index}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_written_as_they_are_read() {
        for text in ["auto", "cpu", "cuda:0", "cuda:3"] {
            let choice: DeviceChoice = text.parse().expect("a device");
            assert_eq!(choice.to_string(), text, "round trip");
        }
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda { index: 0 }), "the first one");
        for text in ["", "gpu", "cuda:", "cuda:x", "CPU"] {
            assert!(text.parse::<DeviceChoice>().is_err(), "`{text}` is no device");
        }
    }
}
