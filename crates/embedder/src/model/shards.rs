//! The list of files that a large model's weights are split over.

use std::collections::BTreeSet;
use std::path::Path;

use super::Error;
use super::section;

pub(super) const FILE: &str = "model.safetensors.index.json";

/// More than any model has; keeps a broken list from asking for files without end.
const MAX_SHARDS: usize = 1000;

/// The names of the files, in their order.
///
/// # Errors
/// A list that can't be read, that names no file, too many, or one outside the folder.
pub(super) fn read(file: &Path) -> Result<Vec<String>, Error> {
    let root = section::read(file)?;
    let map = root.section("weight_map")?;
    let mut shards = BTreeSet::new();
    for tensor in map.keys() {
        let shard = map.text(tensor, "")?;
        // It becomes part of a path and of an address.
        let is_plain = shard.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        if !is_plain || shard.starts_with('.') || !shard.ends_with(".safetensors") {
            return Err(map.fault(tensor, "must be the name of a safetensors file in this folder"));
        }
        shards.insert(shard.to_owned());
    }
    if !(1..=MAX_SHARDS).contains(&shards.len()) {
        let message = format!("names {} files instead of 1 to {MAX_SHARDS}", shards.len());
        return Err(root.fault("weight_map", message));
    }
    Ok(shards.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_list(json: &str) -> Result<Vec<String>, Error> {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join(FILE);
        std::fs::write(&file, json).expect("write the list");
        read(&file)
    }

    #[test]
    fn each_file_is_named_once_and_in_order() {
        let json = r#"{"metadata": {"total_size": 9}, "weight_map": {
            "b": "model-00002-of-00002.safetensors", "a": "model-00001-of-00002.safetensors",
            "c": "model-00002-of-00002.safetensors"}}"#;
        let expected = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
        assert_eq!(read_list(json).expect("a list"), expected, "sorted, without repeats");
    }

    #[test]
    fn a_file_elsewhere_is_refused() {
        for shard in ["../x.safetensors", "/x.safetensors", ".safetensors", "a/b.safetensors", "x"]
        {
            let json = format!(r#"{{"weight_map": {{"a": "{shard}"}}}}"#);
            let fault = read_list(&json).expect_err("not in this folder").to_string();
            assert!(fault.contains("`weight_map.a`"), "the tensor is named: {fault}");
        }
        let fault = read_list("{}").expect_err("no file").to_string();
        assert!(fault.contains("`weight_map` names 0 files"), "{fault}");
    }
}
