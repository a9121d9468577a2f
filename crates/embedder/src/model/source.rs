//! Which model is meant: what an operator writes, and the folder that it stands for.
//!
//! | written | means |
//! | --- | --- |
//! | `tiny` | the model that comes with clipmesh |
//! | `org/name`, `org/name@revision` | a model of the Hugging Face hub, unless such a folder is there |
//! | anything else | a folder; `./tiny` and `./org/name` are always folders |
//!
//! The folder that comes out is read in one way, wherever it came from.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::hub::{self, Hub};
use super::{Error, shipped};

/// What is served when nobody says otherwise: the smallest of the first CLIP models, which knows
/// what most pictures show.
const DEFAULT: &str = "openai/clip-vit-base-patch32";

/// Where a model comes from. Its text can be read back, and means the same wherever the same
/// folders are: that of [`Source::Hub`] is read as a folder where one of that name is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Source {
    /// The model that comes with clipmesh.
    Shipped,
    /// Downloaded once, from the Hugging Face hub.
    Hub(hub::Reference),
    /// A folder in Hugging Face's form.
    Folder(PathBuf),
}

/// A text that can't name a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`model` must name a folder, a model of the Hugging Face hub as `org/name`, or `tiny`, but it \
     is empty"
)]
pub struct Unnamed;

// === impl Source ===

impl Source {
    /// The folder to read the model from. Downloads what is missing, and so may take minutes.
    ///
    /// # Errors
    /// When there is no such model, or it can't be had; the message says how to go on.
    pub fn folder(&self) -> Result<PathBuf, Error> {
        match self {
            Self::Shipped => {
                shipped::find(&shipped::candidates(std::env::current_exe().ok().as_deref()))
            }
            Self::Hub(reference) => Ok(Hub::new(hub::Settings::from_process()?).fetch(reference)?),
            Self::Folder(folder) if folder.is_dir() => Ok(folder.clone()),
            Self::Folder(folder) => Err(Error::NoFolder(folder.clone())),
        }
    }

    /// What the model is called in answers, unless the operator has a better name.
    pub fn name(&self) -> String {
        match self {
            Self::Shipped => shipped::NAME.to_owned(),
            Self::Hub(reference) => reference.id().to_owned(),
            Self::Folder(folder) => {
                let folder = folder.canonicalize().unwrap_or_else(|_| folder.clone());
                let name = folder.file_name().unwrap_or(folder.as_os_str());
                name.to_string_lossy().into_owned()
            }
        }
    }

    /// `is_folder` is passed in so that the rules can be told from the disk.
    fn parse(text: &str, is_folder: impl Fn(&Path) -> bool) -> Result<Self, Unnamed> {
        if text.is_empty() {
            return Err(Unnamed);
        }
        if text == shipped::NAME {
            return Ok(Self::Shipped);
        }
        match hub::Reference::parse(text) {
            Some(reference) if !is_folder(Path::new(text)) => Ok(Self::Hub(reference)),
            _ => Ok(PathBuf::from(text).into()),
        }
    }
}

impl Default for Source {
    fn default() -> Self {
        Self::Hub(hub::Reference::parse(DEFAULT).expect("a constant of the hub's form"))
    }
}

impl From<PathBuf> for Source {
    /// Always the folder, whatever it is called.
    fn from(folder: PathBuf) -> Self {
        let is_other = |text| text == shipped::NAME || hub::Reference::parse(text).is_some();
        if folder.to_str().is_some_and(is_other) {
            return Self::Folder(Path::new(".").join(folder));
        }
        Self::Folder(folder)
    }
}

impl From<&Path> for Source {
    fn from(folder: &Path) -> Self {
        folder.to_owned().into()
    }
}

impl FromStr for Source {
    type Err = Unnamed;

    fn from_str(text: &str) -> Result<Self, Unnamed> {
        Self::parse(text, Path::is_dir)
    }
}

impl TryFrom<String> for Source {
    type Error = Unnamed;

    fn try_from(text: String) -> Result<Self, Unnamed> {
        text.parse()
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shipped => f.write_str(shipped::NAME),
            Self::Hub(reference) => reference.fmt(f),
            Self::Folder(folder) => folder.display().fmt(f),
        }
    }
}

impl From<Source> for String {
    fn from(source: Source) -> Self {
        source.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::parse(text, |_| false).expect("not empty")
    }

    #[test]
    fn each_form_means_one_thing() {
        assert_eq!(source("tiny"), Source::Shipped, "the shipped model");
        for text in ["org/name", "org/name@main", "org/name@refs/pr/15", "o-1/na.me_2"] {
            assert!(matches!(source(text), Source::Hub(_)), "of the hub: {text}");
        }
        for text in [
            "./tiny",
            "tiny/",
            "../tiny",
            "/org/name",
            "./org/name",
            "~/name",
            "name",
            "a/b/c",
            "org/name/",
            "org/name@",
            "org/name@../x",
            "org name/x",
            ".org/name",
        ] {
            assert_eq!(source(text), Source::Folder(text.into()), "a folder: {text}");
        }
        assert_eq!(Source::parse("", |_| true), Err(Unnamed), "nothing");
    }

    #[test]
    fn a_folder_that_is_there_goes_before_the_hub_but_not_before_the_shipped_model() {
        let there = |text| Source::parse(text, |_| true).expect("not empty");
        assert_eq!(there("org/name"), Source::Folder("./org/name".into()), "a folder");
        assert_eq!(there("tiny"), Source::Shipped, "`./tiny` would be the folder");
    }

    #[test]
    fn the_text_of_a_source_means_the_same_source() {
        let folders = ["tiny", "org/name", "org/name@v1", "/a/b", "./x", "x"];
        let folders = folders.map(|text| Source::from(Path::new(text)));
        let others = ["tiny", "org/name", "org/name@refs/pr/1"].map(source);
        for one in folders.into_iter().chain(others) {
            assert_eq!(source(&one.to_string()), one, "read back: {one}");
        }
    }

    #[test]
    fn models_are_called_by_what_tells_them_apart() {
        assert_eq!(source("tiny").name(), "tiny", "the shipped one");
        assert_eq!(source("org/name@refs/pr/1").name(), "org/name", "of the hub");
        assert_eq!(source("/no/such/folder").name(), "folder", "the last part");
        let here = std::env::current_dir().expect("a folder");
        let name = here.file_name().expect("not the root").to_string_lossy().into_owned();
        assert_eq!(source(".").name(), name, "not a dot");
    }

    #[test]
    fn a_folder_that_is_not_there_is_told_with_the_other_ways() {
        let error = source("/no/such/folder").folder().expect_err("not there").to_string();
        for part in ["`model`", "`/no/such/folder`", "`org/name`", "`tiny`"] {
            assert!(error.contains(part), "{part} in: {error}");
        }
    }
}
