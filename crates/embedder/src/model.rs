//! A model as it lies on disk: a Hugging Face folder, read as it is.
//!
//! [`Source`] says which: a folder, a model of the [`hub`], or the one that comes with clipmesh.
//!
//! ```text
//!   config.json               ──► Config          the architecture
//!   preprocessor_config.json  ──► Preprocessing   from picture to input
//!   tokenizer.json, or
//!   vocab.json + merges.txt   ──► Tokenizer       from text to input
//!   model.safetensors         ──► Weights         memory-mapped
//! ```
//!
//! Nothing here computes; [`crate::backend`] does. The name of a folder decides nothing.

mod config;
mod fingerprint;
pub mod hub;
mod layout;
mod preprocessing;
pub mod random;
mod section;
mod shipped;
mod source;
mod tokenizer;
mod weights;

use std::path::{Path, PathBuf};

use clipmesh_proto::ids::Fingerprint;

pub use config::{Activation, Config, Pooling, Text, Tower, Vision};
pub use preprocessing::{Filter, Normalisation, Preprocessing, Resize};
pub use source::{Source, Unnamed};
pub use tokenizer::{Tokenizer, Tokens};
pub use weights::{Dtype, TensorView, Weights};

/// A model that was read and checked, ready for a backend.
#[derive(Debug)]
pub struct Model {
    pub config: Config,
    pub preprocessing: Preprocessing,
    pub tokenizer: Tokenizer,
    pub weights: Weights,
}

/// Why a model can't be had or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "`model` names the folder `{}`, which is not there; `org/name` would be a model of the \
         Hugging Face hub, `tiny` is the one that comes with clipmesh", .0.display()
    )]
    NoFolder(PathBuf),
    #[error(
        "the model that comes with clipmesh, `tiny`, is not there: neither in {}",
        nor_in(looked)
    )]
    NotShipped { looked: Vec<PathBuf> },
    #[error(transparent)]
    Hub(#[from] hub::Error),
    #[error("read `{}`: {cause}", file.display())]
    Read { file: PathBuf, cause: std::io::Error },
    #[error("write `{}`: {cause}", file.display())]
    Write { file: PathBuf, cause: std::io::Error },
    #[error("`{}` is not the JSON that it should be: {message}", file.display())]
    Json { file: PathBuf, message: String },
    #[error("`{}`: `{key}` {message}", file.display())]
    Key { file: PathBuf, key: String, message: String },
    #[error("`{}` is not a tokenizer that can be used: {message}", file.display())]
    Tokenizer { file: PathBuf, message: String },
    #[error("split a text into tokens: {message}")]
    Encode { message: String },
    #[error("`{}` is not a safetensors file that can be used: {message}", file.display())]
    Weights { file: PathBuf, message: String },
    #[error("`{}` does not fit its configuration:\n  - {}", file.display(), faults.join("\n  - "))]
    Tensors { file: PathBuf, faults: Vec<String> },
}

impl Model {
    /// Reads and checks everything but the values of the weights, which stay on disk until a
    /// backend takes them.
    ///
    /// # Errors
    /// The first file that is missing, malformed or not supported.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let config = Config::read(folder)?;
        let preprocessing = Preprocessing::read(folder, &config)?;
        let tokenizer = Tokenizer::read(folder, &config.text)?;
        let weights = Weights::open(folder, &config)?;
        Ok(Self { config, preprocessing, tokenizer, weights })
    }

    /// Identifies what this model computes. Reads all the weights: 0.6 GB take about half a
    /// second from the page cache.
    pub fn fingerprint(&self) -> Fingerprint {
        fingerprint::of(self)
    }
}

fn nor_in(folders: &[PathBuf]) -> String {
    let folders = folders.iter().map(|folder| format!("`{}`", folder.display()));
    folders.collect::<Vec<_>>().join(" nor in ")
}
