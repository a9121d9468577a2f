//! Names that were checked once, where they came in.

use std::fmt;
use std::str::FromStr;

/// Longest item id in bytes.
pub const MAX_ITEM_ID_BYTES: usize = 256;
/// Longest collection name in characters.
pub const MAX_COLLECTION_NAME_CHARS: usize = 64;

/// Why a text is not an id of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("must not be empty")]
    Empty,
    #[error("must be at most {max} bytes long, not {actual}")]
    TooLong { max: usize, actual: usize },
    #[error("must not contain control characters")]
    ControlCharacter,
    #[error("may hold only `a-z`, `0-9`, `-` and `_`, and must start with a letter or digit")]
    CollectionName,
    #[error("must be 64 hexadecimal digits")]
    Hash,
}

/// BLAKE3 of an image file's bytes. Written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentHash([u8; 32]);

/// BLAKE3 of what an image file shows: width and height (32 bits each, little endian), then RGB
/// levels row by row from the top, upright, on white. Written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PixelHash([u8; 32]);

/// 64 bits of which pictures that look alike have most in common. Written as 16 lower-case
/// hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PerceptualHash(u64);

/// What a caller calls an item: 1 to 256 bytes of UTF-8 without control characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemId(String);

/// 1 to 64 characters of `a-z`, `0-9`, `-` and `_`, the first a letter or digit, so that a name is
/// safe as a folder, a key and a part of an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CollectionName(String);

/// Identifies a model by what it computes: 64 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(String);

// === impl ContentHash ===

impl ContentHash {
    /// Hashes the bytes of a file.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The 32 bytes of the hash.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentHash({self})")
    }
}

impl FromStr for ContentHash {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let hash = blake3::Hash::from_hex(text).map_err(|_| Error::Hash)?;
        Ok(Self(*hash.as_bytes()))
    }
}

// === impl PixelHash ===

impl PixelHash {
    /// Hashes the levels of a picture.
    pub fn of(width: u32, height: u32, levels: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&width.to_le_bytes()).update(&height.to_le_bytes()).update(levels);
        Self(*hasher.finalize().as_bytes())
    }

    /// The 32 bytes of the hash.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for PixelHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for PixelHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PixelHash({self})")
    }
}

impl FromStr for PixelHash {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let hash = blake3::Hash::from_hex(text).map_err(|_| Error::Hash)?;
        Ok(Self(*hash.as_bytes()))
    }
}

// === impl PerceptualHash ===

impl PerceptualHash {
    /// How many bits differ, 0 to 64.
    pub fn distance(self, other: Self) -> u32 {
        (self.0 ^ other.0).count_ones()
    }
}

impl From<u64> for PerceptualHash {
    fn from(bits: u64) -> Self {
        Self(bits)
    }
}

impl From<PerceptualHash> for u64 {
    fn from(hash: PerceptualHash) -> Self {
        hash.0
    }
}

impl fmt::Display for PerceptualHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for PerceptualHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PerceptualHash({self})")
    }
}

// === impl ItemId ===

impl ItemId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ItemId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        if text.is_empty() {
            return Err(Error::Empty);
        }
        if text.len() > MAX_ITEM_ID_BYTES {
            return Err(Error::TooLong { max: MAX_ITEM_ID_BYTES, actual: text.len() });
        }
        if text.chars().any(char::is_control) {
            return Err(Error::ControlCharacter);
        }
        Ok(Self(text))
    }
}

impl From<ContentHash> for ItemId {
    fn from(hash: ContentHash) -> Self {
        Self(hash.to_string())
    }
}

impl fmt::Display for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl CollectionName ===

impl CollectionName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for CollectionName {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        if text.is_empty() {
            return Err(Error::Empty);
        }
        if text.len() > MAX_COLLECTION_NAME_CHARS {
            return Err(Error::TooLong { max: MAX_COLLECTION_NAME_CHARS, actual: text.len() });
        }
        let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let starts_well = text.chars().next().is_some_and(is_word);
        if !starts_well || !text.chars().all(|c| is_word(c) || c == '-' || c == '_') {
            return Err(Error::CollectionName);
        }
        Ok(Self(text))
    }
}

impl fmt::Display for CollectionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl Fingerprint ===

impl Fingerprint {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        let hash: ContentHash = text.parse()?;
        Ok(Self(hash.to_string()))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collection(name: &str) -> Result<CollectionName, Error> {
        CollectionName::try_from(name.to_owned())
    }

    fn item(id: &str) -> Result<ItemId, Error> {
        ItemId::try_from(id.to_owned())
    }

    #[test]
    fn content_hash_is_blake3_of_the_bytes() {
        // The digest of the empty input, from the BLAKE3 paper's test vectors.
        let empty = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
        assert_eq!(ContentHash::of(b"").to_string(), empty, "digest of nothing");
        assert_eq!(empty.parse(), Ok(ContentHash::of(b"")), "hexadecimal digits are read back");
        assert_eq!("af13".parse::<ContentHash>(), Err(Error::Hash), "a short digest is refused");
    }

    #[test]
    fn collection_names_are_safe_in_paths_and_keys() {
        assert!(collection("holiday-2026_a").is_ok(), "letters, digits, dash, underscore");
        for bad in ["-a", "_a", "A", "a/b", "a.b", "..", "ä"] {
            assert_eq!(collection(bad), Err(Error::CollectionName), "`{bad}` is refused");
        }
        assert_eq!(collection(""), Err(Error::Empty), "an empty name is refused");
        let long = "a".repeat(65);
        assert_eq!(collection(&long), Err(Error::TooLong { max: 64, actual: 65 }), "65 characters");
    }

    #[test]
    fn item_ids_are_any_printable_text() {
        assert!(item("photos/été 1.jpg").is_ok(), "spaces, slashes and accents are fine");
        assert!(item(&"x".repeat(256)).is_ok(), "256 bytes are the longest");
        assert!(item(&"x".repeat(257)).is_err(), "257 bytes are too long");
        assert_eq!(item("a\nb"), Err(Error::ControlCharacter), "a line break is refused");
    }
}
