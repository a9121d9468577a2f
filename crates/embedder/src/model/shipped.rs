//! Where the model lies that comes with clipmesh.

use std::path::{Path, PathBuf};

use super::{Error, config};

/// What the model is called, and its folder.
pub(super) const NAME: &str = "tiny";

/// For programs that run where they were built, wherever the compiler's output is kept.
const SOURCE_TREE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models");

/// Folders to look into, the first one first: beside the program, where packages of a system put
/// data, and the tree that the program was built from.
pub(super) fn candidates(program: Option<&Path>) -> Vec<PathBuf> {
    let beside = program
        .and_then(Path::parent)
        .into_iter()
        .flat_map(|folder| [folder.join("models"), folder.join("../share/clipmesh/models")]);
    beside.chain([PathBuf::from(SOURCE_TREE)]).map(|models| models.join(NAME)).collect()
}

/// The first of `candidates` that holds a model.
pub(super) fn find(candidates: &[PathBuf]) -> Result<PathBuf, Error> {
    let found = candidates.iter().find(|folder| folder.join(config::FILE).is_file());
    found.cloned().ok_or_else(|| Error::NotShipped { looked: candidates.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::random::{self, Architecture};
    use crate::model::{Dtype, Model};

    #[test]
    fn the_package_goes_before_the_system_and_that_before_the_source_tree() {
        let candidates = candidates(Some(Path::new("/opt/clipmesh/bin/clipmesh")));
        let [beside, shared, source] = candidates.as_slice() else { panic!("{candidates:?}") };
        assert_eq!(beside, Path::new("/opt/clipmesh/bin/models/tiny"), "a package in one folder");
        let expected = Path::new("/opt/clipmesh/bin/../share/clipmesh/models/tiny");
        assert_eq!(shared, expected, "a package of the system");
        assert!(source.ends_with("models/tiny"), "the source tree: {}", source.display());
        assert_eq!(super::candidates(None).as_slice(), [source.as_path()], "a nameless program");
    }

    #[test]
    fn the_first_folder_with_a_model_is_taken_and_opened_as_any_other() {
        let root = tempfile::tempdir().expect("a folder");
        let folders = ["empty", "first", "second"].map(|name| root.path().join(name));
        std::fs::create_dir(&folders[0]).expect("an empty folder");
        for (seed, folder) in (1..).zip(&folders[1..]) {
            let config = Architecture::Tiny.config();
            random::write(folder, &config, seed, Dtype::F16).expect("a random model");
        }
        let found = find(&folders).expect("two models");
        assert_eq!(found, folders[1], "the first");
        Model::open(&found).expect("a model");
    }

    #[test]
    fn a_package_without_the_model_is_told_where_it_was_looked_for() {
        let candidates = [PathBuf::from("/no/such/a"), PathBuf::from("/no/such/b")];
        let error = find(&candidates).expect_err("neither is there").to_string();
        for part in ["`tiny`", "/no/such/a", "/no/such/b"] {
            assert!(error.contains(part), "{part} in: {error}");
        }
    }
}
