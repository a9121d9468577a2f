//! A model as it lies on disk: a Hugging Face folder, read as it is.
//!
//! [`Source`] says which: a folder, a model of the [`hub`], or the one that comes with clipmesh.
//!
//! ```text
//!   config.json               ──► Config          the architecture
//!   preprocessor_config.json  ──► Preprocessing   from picture to input
//!   tokenizer.json, or
//!   vocab.json + merges.txt   ──► Tokenizer       from text to input
//!   model.safetensors, or
//!   several, with their list  ──► Weights         memory-mapped
//! ```
//!
//! A family that takes pictures only has no tokenizer. Instead of architecture and weights, a
//! folder may hold a program of its own, `model.pt`, see [`Script`].
//!
//! Nothing here computes; [`crate::backend`] does. The name of a folder decides nothing.

mod config;
mod fingerprint;
pub mod hub;
mod layout;
pub(crate) mod names;
mod preprocessing;
pub mod random;
mod script;
mod section;
mod shards;
mod shipped;
mod source;
mod tokenizer;
mod weights;

use std::path::{Path, PathBuf};

use clipmesh_proto::ids::Fingerprint;

use self::preprocessing::Takes;

pub use config::{Activation, Config, Family, Pooling, Text, Tower, Vision};
pub use preprocessing::{Filter, Normalisation, Preprocessing, Resize};
pub use script::Script;
pub use source::{Source, Unnamed};
pub use tokenizer::{Tokenizer, Tokens};
pub use weights::{Dtype, TensorView, Weights};

/// A model that was read and checked, ready for a backend.
#[derive(Debug)]
pub struct Model {
    pub network: Network,
    pub preprocessing: Preprocessing,
    /// `None` for a model that takes pictures only.
    pub tokenizer: Option<Tokenizer>,
}

/// What computes.
#[derive(Debug)]
pub enum Network {
    /// The towers of a known family.
    Towers { config: Box<Config>, weights: Weights },
    /// Whatever the program does.
    Script(Script),
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
    #[error(
        "`{}` does not fit its configuration, of a {} model:\n  - {}", file.display(),
        family.as_str(), faults.join("\n  - ")
    )]
    Tensors { file: PathBuf, family: Family, faults: Vec<String> },
}

impl Error {
    /// Names the family whose rule a key breaks.
    fn of_family(mut self, family: Family) -> Self {
        if let Self::Key { message, .. } = &mut self {
            message.push_str(&format!(" (read as a {} model)", family.as_str()));
        }
        self
    }
}

impl Model {
    /// Reads and checks everything but the values of the weights, which stay on disk until a
    /// backend takes them.
    ///
    /// # Errors
    /// The first file that is missing, malformed or not supported.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        if Script::is_in(folder) {
            let preprocessing = Preprocessing::read(folder, None, Takes::AtLeast(1))?;
            let network = Network::Script(Script::open(folder)?);
            return Ok(Self { network, preprocessing, tokenizer: None });
        }
        let mut config = Config::read(folder)?;
        let family = config.family;
        let takes = match config.vision.trained_size {
            Some(_) => Takes::AtLeast(config.vision.patch_size),
            None => Takes::Exactly(config.vision.image_size),
        };
        let preprocessing = Preprocessing::read(folder, Some(family), takes)?;
        config.vision.image_size = preprocessing.image_size();
        let tokenizer = match &config.text {
            Some(text) => Some(Tokenizer::read(folder, family, text)?),
            None => None,
        };
        let weights = Weights::open(folder, &config)?;
        let network = Network::Towers { config: Box::new(config), weights };
        Ok(Self { network, preprocessing, tokenizer })
    }

    /// The architecture; `None` if the model is a program of its own.
    pub fn config(&self) -> Option<&Config> {
        match &self.network {
            Network::Towers { config, .. } => Some(config),
            Network::Script(_) => None,
        }
    }

    /// What its authors call the kind of model.
    pub fn family(&self) -> &'static str {
        self.config().map_or("TorchScript", |config| config.family.as_str())
    }

    /// Edge in pixels of the square pictures that it takes.
    pub fn image_size(&self) -> usize {
        self.preprocessing.image_size()
    }

    /// Longest text in tokens; 0 if it takes pictures only.
    pub fn context_length(&self) -> usize {
        let text = self.config().and_then(|config| config.text.as_ref());
        text.map_or(0, |text| text.context_length)
    }

    /// Multiplications of one picture, as far as is known: of a program, nothing is.
    pub fn multiplications(&self) -> u64 {
        self.config().map_or(u64::MAX, |config| config.vision.multiplications())
    }

    /// The file of the weights, or of the program.
    pub fn file(&self) -> &Path {
        match &self.network {
            Network::Towers { weights, .. } => weights.file(),
            Network::Script(script) => script.file(),
        }
    }

    /// Whether it takes texts beside pictures.
    pub fn takes_texts(&self) -> bool {
        self.tokenizer.is_some()
    }

    /// The tokens of a text.
    ///
    /// # Errors
    /// A model that takes pictures only, or those of [`Tokenizer::encode`].
    pub fn encode(&self, text: &str) -> Result<Tokens, Error> {
        let pictures_only =
            || Error::Encode { message: "the model takes pictures only".to_owned() };
        self.tokenizer.as_ref().ok_or_else(pictures_only)?.encode(text)
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
