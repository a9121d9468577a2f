//! An encoder that brings its own program: a TorchScript file beside a `preprocessor_config.json`.
//! This is the way in for whatever no family here covers, such as a ResNet-50.
//!
//! The program takes pictures as [batch, 3, edge, edge], normalised as the preprocessing says, and
//! gives [batch, dimension], or [batch, dimension, 1, 1].

use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use super::{Error, shards, weights};

pub(super) const FILE: &str = "model.pt";

/// A TorchScript file. What is in it is learned when a backend loads it.
#[derive(Debug)]
pub struct Script {
    file: PathBuf,
    map: Mmap,
}

impl Script {
    /// Whether the folder holds one, and no weights of a family.
    pub(super) fn is_in(folder: &Path) -> bool {
        let has = |file: &str| folder.join(file).is_file();
        has(FILE) && !has(weights::FILE) && !has(shards::FILE)
    }

    /// # Errors
    /// A file that can't be read.
    pub(super) fn open(folder: &Path) -> Result<Self, Error> {
        let file = folder.join(FILE);
        let mapped = File::open(&file).and_then(|open| weights::map(&open));
        let map = mapped.map_err(|cause| Error::Read { file: file.clone(), cause })?;
        Ok(Self { file, map })
    }

    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The whole file.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.map
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::model::Model;

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        let processor = r#"{"size": {"height": 8, "width": 8}, "do_center_crop": false}"#;
        fs::write(folder.path().join("preprocessor_config.json"), processor).expect("write it");
        folder
    }

    #[test]
    fn the_program_is_the_model_s_identity() {
        let folder = folder();
        let [one, other] = ["one", "other"].map(|program| {
            fs::write(folder.path().join(FILE), program).expect("write a program");
            Model::open(folder.path()).expect("a program").fingerprint()
        });
        assert_ne!(one, other, "another program, another model");
    }

    #[test]
    fn weights_of_a_family_go_before_a_program() {
        let folder = folder();
        for file in [FILE, weights::FILE] {
            fs::write(folder.path().join(file), "").expect("write a file");
        }
        let error = Model::open(folder.path()).expect_err("no config").to_string();
        assert!(error.contains("config.json"), "read as a family's folder: {error}");
    }
}
