//! Files that commands read: pictures, vectors, lines. `-` is standard input.

use std::io::Read as _;
use std::path::Path;

use clipmesh_proto::search::v1::VectorQuery;
use serde::Deserialize;

use crate::error::Error;

/// Stands for standard input.
pub(crate) const STDIN: &str = "-";

/// A vector as a document: alone, or with what it belongs to.
#[derive(Deserialize)]
#[serde(untagged)]
enum Vector {
    Alone(Vec<f32>),
    Of {
        vector: Vec<f32>,
        #[serde(default)]
        model_fingerprint: String,
    },
}

/// Reads all of a file.
pub(crate) async fn bytes(path: &Path) -> Result<Vec<u8>, Error> {
    let path = path.to_owned();
    let read = tokio::task::spawn_blocking(move || read(&path)).await;
    read.map_err(|error| Error::Runtime(error.into()))?
}

/// Reads all of a file that holds text.
pub(crate) async fn text(path: &Path) -> Result<String, Error> {
    let text = String::from_utf8(bytes(path).await?);
    text.map_err(|_| Error::Usage(format!("{}: it is no text", path.display())))
}

/// Reads a vector from a file; one that starts with a bracket is the vector itself.
pub(crate) async fn vector(path: &Path) -> Result<VectorQuery, Error> {
    let text = path.to_string_lossy();
    let document = match text.starts_with(['[', '{']) {
        true => text.as_bytes().to_vec(),
        false => bytes(path).await?,
    };
    parse_vector(&document).map_err(|reason| Error::Usage(format!("`{text}`: {reason}")))
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let bytes = if path == Path::new(STDIN) {
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes)
    } else {
        std::fs::read(path)
    };
    bytes.map_err(|source| Error::File { path: path.to_owned(), source })
}

fn parse_vector(bytes: &[u8]) -> Result<VectorQuery, &'static str> {
    match serde_json::from_slice(bytes) {
        Ok(Vector::Alone(values)) => Ok(VectorQuery { values, model_fingerprint: String::new() }),
        Ok(Vector::Of { vector, model_fingerprint }) => {
            Ok(VectorQuery { values: vector, model_fingerprint })
        }
        Err(_) => Err("it is no JSON list of numbers, and no object with one as `vector`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_is_a_list_or_part_of_an_object() {
        let values = |text: &str| parse_vector(text.as_bytes()).expect(text);
        assert_eq!(values("[0.5, -1, 2e-3]").values, [0.5, -1.0, 0.002], "a list");
        let shown = r#"{"id": "a", "vector": [1], "model_fingerprint": "f"}"#;
        let expected = VectorQuery { values: vec![1.0], model_fingerprint: "f".to_owned() };
        assert_eq!(values(shown), expected, "as an item is shown");
        for bad in ["", "1", "[true]", "{}", r#"{"vector": "1"}"#] {
            assert!(parse_vector(bad.as_bytes()).is_err(), "{bad:?} is none");
        }
    }
}
