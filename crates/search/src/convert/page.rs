//! Pages of listings and the tokens that lead from one to the next.
//!
//! A token is hexadecimal text: a version, a digest of the listing it belongs to, the last key of
//! the page before, and a checksum. It is nothing to be kept secret; the digests are there so
//! that a token that was cut off, made up or taken from another listing is refused, and not
//! answered with a page that its owner did not ask for.

use clipmesh_proto::code::{FieldViolation, Reason};

use crate::items::Order;

const VERSION: u8 = 1;
const DIGEST_BYTES: usize = 8;
const DEFAULT_SIZE: u32 = 100;
const MAX_SIZE: u32 = 1_000;

/// Which listing a token belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Listing([u8; DIGEST_BYTES]);

/// How many entries a page holds: 0 means the default, and too many the maximum.
pub(crate) fn size(asked: u32) -> usize {
    let size = if asked == 0 { DEFAULT_SIZE } else { asked.min(MAX_SIZE) };
    size as usize
}

/// What to sort by, from the field `order_by`; `None` for an order of the store's own.
pub(crate) fn order(text: &str) -> Result<Option<Order>, FieldViolation> {
    let words: Vec<_> = text.split_whitespace().collect();
    let (key, descending) = match words.as_slice() {
        [] => return Ok(None),
        [key] => (*key, false),
        [key, "desc"] => (*key, true),
        _ => {
            let message = "must be a field, or a field and ` desc`";
            return Err(FieldViolation::new("order_by", Reason::Malformed, message));
        }
    };
    Ok(Some(Order { field: super::field("order_by", key)?, descending }))
}

// === impl Listing ===

impl Listing {
    /// The listing that is told by these parts.
    pub(crate) fn of(parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Self(truncated(&hasher.finalize()))
    }

    /// The token for the page after `last`.
    pub(crate) fn token(self, last: &str) -> String {
        let mut bytes = vec![VERSION];
        bytes.extend(self.0);
        bytes.extend(last.as_bytes());
        let checksum = truncated(&blake3::hash(&bytes));
        bytes.extend(checksum);
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The last key of the page before, or `None` for the first page.
    pub(crate) fn after(self, token: &str) -> Result<Option<String>, FieldViolation> {
        if token.is_empty() {
            return Ok(None);
        }
        let refuse = |message| FieldViolation::new("page_token", Reason::Malformed, message);
        let bytes = unhex(token).ok_or_else(|| refuse("is not one that was given out"))?;
        let (content, checksum) = bytes
            .split_last_chunk::<DIGEST_BYTES>()
            .filter(|(content, checksum)| truncated(&blake3::hash(content)) == **checksum)
            .ok_or_else(|| refuse("is not one that was given out"))?;
        debug_assert_eq!(checksum.len(), DIGEST_BYTES, "a whole checksum");
        let Some((&VERSION, rest)) = content.split_first() else {
            return Err(refuse("is of another version"));
        };
        match rest.split_first_chunk::<DIGEST_BYTES>() {
            Some((listing, last)) if *listing == self.0 => {
                let last = String::from_utf8(last.to_vec());
                last.map(Some).map_err(|_| refuse("is not one that was given out"))
            }
            Some(_) | None => Err(refuse("belongs to another listing")),
        }
    }
}

fn truncated(hash: &blake3::Hash) -> [u8; DIGEST_BYTES] {
    let mut digest = [0; DIGEST_BYTES];
    digest.copy_from_slice(&hash.as_bytes()[..DIGEST_BYTES]);
    digest
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::Field;

    #[test]
    fn leads_to_the_place_it_was_made_for() {
        let listing = Listing::of(&[b"items", b"pets"]);
        assert_eq!(listing.after(""), Ok(None), "the first page needs none");
        for last in ["a", "photos/Été 1.jpg", ""] {
            let token = listing.token(last);
            assert_eq!(listing.after(&token), Ok(Some(last.to_owned())), "after `{last}`");
        }
    }

    #[test]
    fn refuses_what_was_not_given_out() {
        let listing = Listing::of(&[b"items", b"pets"]);
        let token = listing.token("a");
        let mut damaged = token.clone().into_bytes();
        damaged[20] ^= 1;
        let damaged = String::from_utf8(damaged).expect("still text");
        let foreign = Listing::of(&[b"items", b"pet", b"s"]).token("a");
        for bad in ["x", "é", "00", "zz".repeat(20).as_str(), &token[2..], &damaged, &foreign] {
            let violation = listing.after(bad).expect_err("refused");
            assert_eq!(violation.field, "page_token", "the field of `{bad}`");
            assert_eq!(violation.reason, Reason::Malformed, "the reason of `{bad}`");
        }
    }

    #[test]
    fn an_order_is_a_field_and_a_direction() {
        let by = |field, descending| Ok(Some(Order { field, descending }));
        assert_eq!(order(""), Ok(None), "the store's own");
        assert_eq!(order("create_time"), by(Field::CreateTime, false), "the least first");
        let album = Field::Metadata("album".to_owned());
        assert_eq!(order(" metadata.album  desc "), by(album, true), "the greatest first");
        for bad in ["desc", "lot", "width asc", "width DESC", "width, height", "width desc desc"] {
            let violation = order(bad).expect_err("refused");
            assert_eq!(violation.field, "order_by", "{bad}");
            assert_eq!(violation.reason, Reason::Malformed, "{bad}");
        }
    }

    #[test]
    fn sizes_have_a_default_and_a_maximum() {
        assert_eq!(
            [0, 1, 1_000, 1_001, u32::MAX].map(size),
            [100, 1, 1_000, 1_000, 1_000],
            "sizes"
        );
    }
}
