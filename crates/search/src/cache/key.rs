//! What values are kept under.

use clipmesh_proto::ids::{ContentHash, Fingerprint};

/// A kind of value, and a digest of all that it depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) kind: Kind,
    pub(crate) digest: [u8; 32],
}

/// What is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// The vector of an image file, or that it has none.
    Image,
    /// The vector of a text.
    Text,
    /// An answer, with the generation that it was found at.
    Answer,
    /// How often a collection was changed.
    Generation,
    /// Who makes a vector now.
    Lease,
}

// === impl Key ===

impl Key {
    /// Digests the parts so that no two lists of parts have one digest.
    fn of(kind: Kind, parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Self { kind, digest: *hasher.finalize().as_bytes() }
    }

    /// The vector that a model makes of an image file.
    pub(crate) fn image(model: &Fingerprint, content_hash: &ContentHash) -> Self {
        Self::of(Kind::Image, &[model.as_str().as_bytes(), content_hash.as_bytes()])
    }

    /// The vector that a model makes of a text.
    pub(crate) fn text(model: &Fingerprint, text: &str) -> Self {
        Self::of(Kind::Text, &[model.as_str().as_bytes(), text.as_bytes()])
    }

    /// The answer to a query in the collection with this uid.
    pub(super) fn answer(uid: &str, query: &[u8]) -> Self {
        Self::of(Kind::Answer, &[uid.as_bytes(), query])
    }

    /// The count of changes to the collection with this uid.
    pub(super) fn generation(uid: &str) -> Self {
        Self::of(Kind::Generation, &[uid.as_bytes()])
    }

    /// The right to make what belongs under this key.
    pub(super) fn lease(self) -> Self {
        Self::of(Kind::Lease, &[self.kind.as_str().as_bytes(), &self.digest])
    }
}

// === impl Kind ===

impl Kind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Text => "text",
            Self::Answer => "answer",
            Self::Generation => "generation",
            Self::Lease => "lease",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_by_every_part() {
        let model = |digit: &str| Fingerprint::try_from(digit.repeat(64)).expect("64 digits");
        let hash = ContentHash::of;
        let keys = [
            Key::text(&model("a"), "word"),
            Key::text(&model("b"), "word"),
            Key::text(&model("a"), "ward"),
            Key::text(&model("a"), "word").lease(),
            Key::image(&model("a"), &hash(b"word")),
            Key::image(&model("b"), &hash(b"word")),
            Key::image(&model("a"), &hash(b"ward")),
            Key::image(&model("a"), &hash(b"word")).lease(),
            Key::answer("ab", b"c"),
            Key::answer("a", b"bc"),
            Key::generation("a"),
            Key::generation("b"),
        ];
        for (i, one) in keys.iter().enumerate() {
            for other in &keys[..i] {
                assert_ne!(one, other, "no two of these are the same question");
            }
        }
    }
}
