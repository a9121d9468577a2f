//! Reads values out of a JSON file so that every fault names the file and the key.

use std::path::Path;

use serde_json::{Map, Value};

use super::Error;

/// Far above any real model, and low enough that products of two sizes fit into 64 bits.
const MAX_SIZE: usize = 10_000_000;

/// One object of a JSON file.
pub(super) struct Section<'a> {
    file: &'a Path,
    /// What stands before a key in messages: empty, or `text_config.`.
    prefix: String,
    values: Map<String, Value>,
}

/// Reads a whole file as one object.
pub(super) fn read(file: &Path) -> Result<Section<'_>, Error> {
    let text = std::fs::read_to_string(file)
        .map_err(|cause| Error::Read { file: file.to_owned(), cause })?;
    match serde_json::from_str(&text) {
        Ok(Value::Object(values)) => Ok(Section { file, prefix: String::new(), values }),
        Ok(_) => Err(Error::Json { file: file.to_owned(), message: "not an object".to_owned() }),
        Err(error) => Err(Error::Json { file: file.to_owned(), message: error.to_string() }),
    }
}

impl<'a> Section<'a> {
    /// The value of `key`; `null` is as good as nothing.
    pub(super) fn value(&self, key: &str) -> Option<&Value> {
        self.values.get(key).filter(|value| !value.is_null())
    }

    /// The names of all values.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// A nested object; empty if it is absent.
    pub(super) fn section(&self, key: &str) -> Result<Section<'a>, Error> {
        let values = match self.value(key) {
            None => Map::new(),
            Some(Value::Object(values)) => values.clone(),
            Some(other) => return Err(self.fault(key, format!("must be an object, not {other}"))),
        };
        Ok(Section { file: self.file, prefix: format!("{}{key}.", self.prefix), values })
    }

    /// The same section, with the values of `other` over its own.
    pub(super) fn overlaid(mut self, other: Section<'_>) -> Self {
        self.values.extend(other.values.into_iter().filter(|(_, value)| !value.is_null()));
        self
    }

    /// A positive whole number.
    pub(super) fn size(&self, key: &str, default: usize) -> Result<usize, Error> {
        let Some(value) = self.value(key) else { return Ok(default) };
        let size = value.as_u64().and_then(|size| usize::try_from(size).ok());
        size.filter(|&size| (1..=MAX_SIZE).contains(&size))
            .ok_or_else(|| self.fault(key, format!("must be from 1 to {MAX_SIZE}, not {value}")))
    }

    pub(super) fn number(&self, key: &str, default: f64) -> Result<f64, Error> {
        let Some(value) = self.value(key) else { return Ok(default) };
        value.as_f64().ok_or_else(|| self.fault(key, format!("must be a number, not {value}")))
    }

    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool, Error> {
        let Some(value) = self.value(key) else { return Ok(default) };
        value
            .as_bool()
            .ok_or_else(|| self.fault(key, format!("must be true or false, not {value}")))
    }

    pub(super) fn text<'s>(&'s self, key: &str, default: &'s str) -> Result<&'s str, Error> {
        let Some(value) = self.value(key) else { return Ok(default) };
        value.as_str().ok_or_else(|| self.fault(key, format!("must be a text, not {value}")))
    }

    /// One number per colour channel.
    pub(super) fn channels(&self, key: &str, default: [f64; 3]) -> Result<[f64; 3], Error> {
        let Some(value) = self.value(key) else { return Ok(default) };
        let numbers: Option<Vec<f64>> =
            value.as_array().and_then(|list| list.iter().map(Value::as_f64).collect());
        numbers
            .and_then(|numbers| <[f64; 3]>::try_from(numbers).ok())
            .ok_or_else(|| self.fault(key, format!("must be three numbers, not {value}")))
    }

    /// An error about one key.
    pub(super) fn fault(&self, key: &str, message: impl Into<String>) -> Error {
        let key = format!("{}{key}", self.prefix);
        Error::Key { file: self.file.to_owned(), key, message: message.into() }
    }
}
