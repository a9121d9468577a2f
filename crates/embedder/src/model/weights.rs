//! The weights, memory-mapped from safetensors files: one, or as many as a large model is split
//! over.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use safetensors::SafeTensors;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::Serialize;

use super::layout::{self, Spec};
use super::names::VisionNames;
use super::{Config, Error, shards};

pub(super) const FILE: &str = "model.safetensors";

/// The length of the header stands in the first bytes of a file.
const LENGTH_BYTES: usize = 8;

/// Weights whose names, shapes and types were checked. Their values are read from disk when they
/// are used.
#[derive(Debug)]
pub struct Weights {
    /// The file, or the list of the files.
    file: PathBuf,
    shards: Vec<Shard>,
    /// By the name that the reference gives to a bare tower's tensor: the shard that has it, and
    /// its name there.
    tensors: HashMap<String, (usize, String)>,
}

/// One file.
#[derive(Debug)]
struct Shard {
    map: Mmap,
    /// Where the values start in the file.
    values_at: usize,
    metadata: Metadata,
}

/// The type of the numbers of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    F32,
    F16,
    Bf16,
}

/// One tensor in the file.
#[derive(Clone, Copy, Debug)]
pub struct TensorView<'a> {
    pub dtype: Dtype,
    pub shape: &'a [usize],
    /// Little-endian, the last dimension running fastest.
    pub bytes: &'a [u8],
}

// === impl Weights ===

impl Weights {
    /// Maps `model.safetensors` of a folder, or the files that are listed in its place, and checks
    /// that they hold what the model needs. Tensors that no one needs are passed over.
    ///
    /// # Errors
    /// A file that can't be read, or all tensors that are missing, have another shape, or a type
    /// that is not supported.
    pub fn open(folder: &Path, config: &Config) -> Result<Self, Error> {
        let (file, list) = (folder.join(FILE), folder.join(shards::FILE));
        if !file.exists() && list.exists() {
            let files = shards::read(&list)?.into_iter().map(|shard| folder.join(shard));
            return Self::of(list, files, config);
        }
        Self::of(file.clone(), [file], config)
    }

    fn of(
        file: PathBuf,
        files: impl IntoIterator<Item = PathBuf>,
        config: &Config,
    ) -> Result<Self, Error> {
        let shards = files.into_iter().map(|file| Shard::open(&file));
        let shards = shards.collect::<Result<Vec<_>, _>>()?;
        let prefix = VisionNames::of(config.family, &config.vision).prefix;
        let mut tensors = HashMap::new();
        for (index, shard) in shards.iter().enumerate() {
            for name in shard.metadata.tensors().into_keys() {
                let bare = name.strip_prefix(prefix).unwrap_or(&name).to_owned();
                tensors.insert(bare, (index, name));
            }
        }
        let weights = Self { file, shards, tensors };
        let specs = layout::tensors(config);
        let faults: Vec<String> = specs.iter().filter_map(|spec| weights.fault(spec)).collect();
        if !faults.is_empty() {
            let family = config.family;
            return Err(Error::Tensors { file: weights.file, family, faults });
        }
        Ok(weights)
    }

    /// One of the tensors that the model needs; `None` for any other name.
    pub fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        let (shard, info) = self.info(name)?;
        let (start, end) = info.data_offsets;
        let bytes = shard.map.get(shard.values_at + start..shard.values_at + end)?;
        Some(TensorView { dtype: Dtype::of(info.dtype)?, shape: &info.shape, bytes })
    }

    /// The type that most values have.
    pub fn dtype(&self) -> Dtype {
        let count = |dtype| -> usize {
            let of_type = self.infos().filter(|info| Dtype::of(info.dtype) == Some(dtype));
            of_type.map(|info| info.data_offsets.1 - info.data_offsets.0).sum()
        };
        let dtypes = [Dtype::F32, Dtype::F16, Dtype::Bf16];
        dtypes.into_iter().max_by_key(|&dtype| count(dtype)).expect("there are three")
    }

    /// How many numbers the model has.
    pub fn parameters(&self) -> usize {
        self.infos().map(|info| info.shape.iter().product::<usize>()).sum()
    }

    /// The file, or the list of the files.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Each file as a whole.
    pub(super) fn file_bytes(&self) -> impl Iterator<Item = &[u8]> {
        self.shards.iter().map(|shard| &*shard.map)
    }

    fn info(&self, name: &str) -> Option<(&Shard, &TensorInfo)> {
        let (index, name) = self.tensors.get(name)?;
        let shard = self.shards.get(*index)?;
        Some((shard, shard.metadata.info(name)?))
    }

    /// All tensors, also those that no one needs.
    fn infos(&self) -> impl Iterator<Item = &TensorInfo> {
        self.tensors.keys().filter_map(|name| self.info(name)).map(|(_, info)| info)
    }

    /// What is wrong with one tensor.
    fn fault(&self, spec: &Spec) -> Option<String> {
        let Spec { name, shape, .. } = spec;
        let Some((_, info)) = self.info(name) else {
            return Some(format!("`{name}` is missing, of shape {shape:?}"));
        };
        if info.shape != *shape {
            return Some(format!("`{name}` has shape {:?} instead of {shape:?}", info.shape));
        }
        if Dtype::of(info.dtype).is_none() {
            let dtype = info.dtype;
            return Some(format!(
                "`{name}` has type {dtype:?}, only F32, F16 and BF16 are supported"
            ));
        }
        None
    }
}

// === impl Shard ===

impl Shard {
    fn open(file: &Path) -> Result<Self, Error> {
        let mapped = File::open(file).and_then(|open| map(&open));
        let map = mapped.map_err(|cause| Error::Read { file: file.to_owned(), cause })?;
        let (header_bytes, metadata) = SafeTensors::read_metadata(&map).map_err(|error| {
            Error::Weights { file: file.to_owned(), message: error.to_string() }
        })?;
        Ok(Self { map, values_at: LENGTH_BYTES + header_bytes, metadata })
    }
}

// === impl Dtype ===

impl Dtype {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }

    /// Bytes of one number.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    fn of(dtype: safetensors::Dtype) -> Option<Self> {
        if dtype == safetensors::Dtype::F32 {
            Some(Self::F32)
        } else if dtype == safetensors::Dtype::F16 {
            Some(Self::F16)
        } else if dtype == safetensors::Dtype::BF16 {
            Some(Self::Bf16)
        } else {
            None
        }
    }
}

/// Maps a model's file, to be read where it is used.
#[expect(unsafe_code, reason = "mapping a file is the only way not to hold it in memory twice")]
pub(super) fn map(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: the map is only read. A model's file must not be written to while it is in use: it
    // is replaced by renaming, as our own writer and every hub client do.
    unsafe { Mmap::map(file) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::random::{self, Architecture};

    #[test]
    fn all_missing_and_misshapen_tensors_are_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = Architecture::Tiny.config();
        random::write(folder.path(), &config, 1, Dtype::F32).expect("a random model");
        let mut wider = config;
        wider.vision.tower.layers += 1;
        let text = wider.text.as_mut().expect("it reads texts");
        text.tower.mlp_width += 1;
        let text_layers = text.tower.layers;
        let error = Weights::open(folder.path(), &wider).expect_err("it does not fit");
        let Error::Tensors { faults, .. } = &error else { panic!("faults of tensors: {error}") };
        let missing = faults.iter().filter(|fault| fault.contains("missing")).count();
        assert_eq!(missing, 16, "a layer has 16 tensors: {faults:#?}");
        let misshapen = faults.iter().filter(|fault| fault.contains("instead of")).count();
        assert_eq!(misshapen, 3 * text_layers, "fc1 twice, fc2 once per layer");
    }

    #[test]
    fn a_model_in_several_files_is_the_same_model() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = Architecture::Tiny.config();
        random::write(folder.path(), &config, 1, Dtype::F16).expect("a random model");
        let whole = Weights::open(folder.path(), &config).expect("one file");
        split(folder.path(), &whole);
        let parts = Weights::open(folder.path(), &config).expect("several files");
        assert_eq!(parts.parameters(), whole.parameters(), "all are counted");
        for spec in layout::tensors(&config) {
            let [one, other] = [&whole, &parts].map(|weights| weights.tensor(&spec.name));
            let bytes = |view: Option<TensorView<'_>>| view.map(|view| view.bytes.to_vec());
            assert!(one.is_some() && bytes(one) == bytes(other), "the same values: {}", spec.name);
        }
        std::fs::remove_file(folder.path().join("part-2.safetensors")).expect("remove a part");
        let error = Weights::open(folder.path(), &config).expect_err("a part is missing");
        assert!(error.to_string().contains("part-2.safetensors"), "it is named: {error}");
    }

    /// Writes two files and their list in place of the one.
    fn split(folder: &Path, whole: &Weights) {
        let mut map = serde_json::Map::new();
        let mut names: Vec<_> = whole.tensors.keys().collect();
        names.sort();
        for (part, names) in names.chunks(names.len().div_ceil(2)).enumerate() {
            let file = format!("part-{}.safetensors", part + 1);
            let view = |name: &String| {
                let view = whole.tensor(name).expect("of the model");
                safetensors::tensor::TensorView::new(
                    safetensors::Dtype::F16,
                    view.shape.to_vec(),
                    view.bytes,
                )
            };
            let views = names.iter().map(|name| (*name, view(name).expect("a whole tensor")));
            let bytes = safetensors::serialize(views, None).expect("safetensors");
            std::fs::write(folder.join(&file), bytes).expect("write a part");
            map.extend(names.iter().map(|name| ((*name).clone(), file.clone().into())));
        }
        let list = serde_json::json!({ "weight_map": map });
        std::fs::write(folder.join(shards::FILE), list.to_string()).expect("write the list");
        std::fs::remove_file(folder.join(FILE)).expect("remove the whole");
    }

    #[test]
    fn a_file_that_is_cut_off_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = Architecture::Tiny.config();
        random::write(folder.path(), &config, 1, Dtype::F16).expect("a random model");
        let file = folder.path().join(FILE);
        let bytes = std::fs::read(&file).expect("read it");
        std::fs::write(&file, &bytes[..bytes.len() - 1]).expect("cut it");
        let error = Weights::open(folder.path(), &config).expect_err("a byte is missing");
        assert!(matches!(error, Error::Weights { .. }), "refused up front: {error}");
    }
}
