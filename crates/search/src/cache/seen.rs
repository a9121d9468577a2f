//! Which queries were asked before, so that what is asked once costs no cache anything.

use std::collections::HashSet;

use super::key::Key;

/// Queries of late. Two tables of so many, of 9 bytes a place and 8 places for 7 queries, rounded up
/// to a power of two, take 2.4 MB at most. Two queries that are taken for one only lead to an answer
/// that is kept at its first asking.
const MAX_QUERIES: usize = 64 * 1024;

/// The last queries that were asked: between one and two times [`MAX_QUERIES`].
#[derive(Debug, Default)]
pub(super) struct Seen {
    recent: HashSet<u64>,
    before: HashSet<u64>,
}

impl Seen {
    /// Notes a query; whether it had been asked of late.
    pub(super) fn again(&mut self, key: &Key) -> bool {
        let [a, b, c, d, e, f, g, h, ..] = key.digest;
        let short = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        if self.recent.len() == MAX_QUERIES {
            self.before = std::mem::take(&mut self.recent);
        }
        let is_new = self.recent.insert(short);
        !is_new || self.before.contains(&short)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> Key {
        Key::answer("uid", &number.to_le_bytes())
    }

    #[test]
    fn tells_the_second_asking_from_the_first() {
        let mut seen = Seen::default();
        assert!(!seen.again(&key(1)), "the first");
        assert!(!seen.again(&key(2)), "of another");
        assert!(seen.again(&key(1)), "the second");
        assert!(seen.again(&key(1)), "the third");
    }

    #[test]
    fn forgets_what_is_long_ago_and_nothing_recent() {
        let mut seen = Seen::default();
        seen.again(&key(0));
        for number in 1..MAX_QUERIES {
            seen.again(&key(number));
        }
        assert!(seen.again(&key(1)), "as many as are kept");
        for number in MAX_QUERIES..3 * MAX_QUERIES {
            seen.again(&key(number));
        }
        assert!(!seen.again(&key(0)), "long ago");
        let kept = seen.recent.len() + seen.before.len();
        assert!(kept <= 2 * MAX_QUERIES, "{kept} are within bounds");
    }
}
