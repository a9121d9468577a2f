//! The weights, memory-mapped from a safetensors file.

use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use safetensors::SafeTensors;
use safetensors::tensor::Metadata;
use serde::Serialize;

use super::layout::{self, Spec};
use super::{Config, Error};

pub(super) const FILE: &str = "model.safetensors";

/// Where a model that is split over several files lists them.
const SHARDS_FILE: &str = "model.safetensors.index.json";

/// The length of the header stands in the first bytes of a file.
const LENGTH_BYTES: usize = 8;

/// Weights whose names, shapes and types were checked. Their values are read from disk when they
/// are used.
#[derive(Debug)]
pub struct Weights {
    file: PathBuf,
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
    /// Maps `model.safetensors` of a folder and checks that it holds what the model needs. Tensors
    /// that no one needs are passed over.
    ///
    /// # Errors
    /// A file that can't be read, or all tensors that are missing, have another shape, or a type
    /// that is not supported.
    pub fn open(folder: &Path, config: &Config) -> Result<Self, Error> {
        let file = folder.join(FILE);
        if !file.exists() && folder.join(SHARDS_FILE).exists() {
            let message = "the model is split over several files, which is not supported";
            return Err(Error::Weights { file, message: message.to_owned() });
        }
        let map = map(&file).map_err(|cause| Error::Read { file: file.clone(), cause })?;
        let (header_bytes, metadata) = SafeTensors::read_metadata(&map)
            .map_err(|error| Error::Weights { file: file.clone(), message: error.to_string() })?;
        let faults: Vec<String> =
            layout::tensors(config).iter().filter_map(|spec| fault(&metadata, spec)).collect();
        if !faults.is_empty() {
            return Err(Error::Tensors { file, faults });
        }
        Ok(Self { file, map, values_at: LENGTH_BYTES + header_bytes, metadata })
    }

    /// One of the tensors that the model needs; `None` for any other name.
    pub fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        let info = self.metadata.info(name)?;
        let (start, end) = info.data_offsets;
        let bytes = self.map.get(self.values_at + start..self.values_at + end)?;
        Some(TensorView { dtype: Dtype::of(info.dtype)?, shape: &info.shape, bytes })
    }

    /// The type that most values have.
    pub fn dtype(&self) -> Dtype {
        let count = |dtype| -> usize {
            let of_type = self.metadata.tensors().into_values();
            of_type
                .filter(|info| Dtype::of(info.dtype) == Some(dtype))
                .map(|info| info.data_offsets.1 - info.data_offsets.0)
                .sum()
        };
        let dtypes = [Dtype::F32, Dtype::F16, Dtype::Bf16];
        dtypes.into_iter().max_by_key(|&dtype| count(dtype)).expect("there are three")
    }

    /// How many numbers the model has.
    pub fn parameters(&self) -> usize {
        self.metadata.tensors().values().map(|info| info.shape.iter().product::<usize>()).sum()
    }

    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The whole file.
    pub(super) fn file_bytes(&self) -> &[u8] {
        &self.map
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

#[expect(unsafe_code, reason = "mapping a file is the only way not to hold it in memory twice")]
fn map(file: &Path) -> std::io::Result<Mmap> {
    let file = File::open(file)?;
    // SAFETY: the map is only read. A model's file must not be written to while it is in use: it
    // is replaced by renaming, as our own writer and every hub client do.
    unsafe { Mmap::map(&file) }
}

/// What is wrong with one tensor.
fn fault(metadata: &Metadata, spec: &Spec) -> Option<String> {
    let name = &spec.name;
    let Some(info) = metadata.info(name) else {
        return Some(format!("`{name}` is missing, of shape {:?}", spec.shape));
    };
    if info.shape != spec.shape {
        return Some(format!("`{name}` has shape {:?} instead of {:?}", info.shape, spec.shape));
    }
    if Dtype::of(info.dtype).is_none() {
        return Some(format!(
            "`{name}` has type {:?}, only F32, F16 and BF16 are supported",
            info.dtype
        ));
    }
    None
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
        let mut wider = config.clone();
        wider.vision.tower.layers += 1;
        wider.text.tower.mlp_width += 1;
        let error = Weights::open(folder.path(), &wider).expect_err("it does not fit");
        let Error::Tensors { faults, .. } = &error else { panic!("faults of tensors: {error}") };
        let missing = faults.iter().filter(|fault| fault.contains("missing")).count();
        assert_eq!(missing, 16, "a layer has 16 tensors: {faults:#?}");
        let misshapen = faults.iter().filter(|fault| fault.contains("instead of")).count();
        assert_eq!(misshapen, 3 * config.text.tower.layers, "fc1 twice, fc2 once per layer");
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
