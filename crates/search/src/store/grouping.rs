//! Groups of hits by Qdrant's engine, which the embedded one and the server share.
//!
//! The engine groups by whatever items have in a field, we by what its index knows. What does not
//! fit is left out, and may have taken the place of what does: then more groups are asked for.

use super::index::Kind;
use super::{AsId, Grouped, Search, by_rank, rank};
use crate::item::Scalar;

/// Where the search for groups that fit is given up: most hits that the engine is asked for.
const MAX_HITS: usize = 65_536;

/// Hits with their scores, by the value that they have in common.
pub(super) type Scored<T> = Vec<(Scalar, Vec<(T, f32)>)>;

/// How many groups to ask the engine for.
#[derive(Debug)]
pub(super) struct Asking {
    wanted: usize,
    limit: usize,
    most: usize,
}

// === impl Asking ===

impl Asking {
    pub(super) fn new(grouped: &Grouped) -> Self {
        let wanted = grouped.search.limit;
        let most = (MAX_HITS / grouped.size.max(1)).max(wanted);
        Self { wanted, limit: wanted, most }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Groups asked for beyond those that are wanted.
    pub(super) fn spare(&self) -> usize {
        self.limit - self.wanted
    }

    /// Whether groups that fit may be missing from those that the engine found; then the next
    /// question is for twice as many.
    pub(super) fn wants_more(&mut self, found: usize, fitting: usize) -> bool {
        let has_all = found < self.limit || self.limit >= self.most;
        if has_all || fitting >= self.wanted {
            return false;
        }
        self.limit = self.limit.saturating_mul(2).min(self.most);
        true
    }
}

/// Whether an index of this kind knows a value that the engine groups by.
pub(super) fn is_known(value: &Scalar, kind: Kind) -> bool {
    match value {
        Scalar::String(_) => kind == Kind::Keyword,
        Scalar::Number(_) => kind == Kind::Integer,
        Scalar::Bool(_) | Scalar::Place(_) => false,
    }
}

/// Puts hits and groups into their order, cuts the threshold and the page out of them.
pub(super) fn rank_groups<T: AsId>(groups: Scored<T>, grouped: &Grouped) -> Scored<T> {
    let each = Search { offset: 0, limit: grouped.size, ..grouped.search.clone() };
    let ranked = groups.into_iter().map(|(value, scored)| (value, rank(scored, &each)));
    let mut ranked: Vec<_> = ranked.filter(|(_, hits)| !hits.is_empty()).collect();
    ranked.sort_by(|(_, a), (_, b)| by_rank(&a[0], &b[0]));
    ranked.truncate(grouped.search.limit);
    ranked
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::Field;
    use crate::store::contract::{search, string};

    fn grouped(limit: usize, size: usize) -> Grouped {
        let search = Search { threshold: Some(0.5), ..search([1.0; 4], limit) };
        Grouped { search, field: Field::Format, size }
    }

    #[test]
    fn twice_as_many_are_asked_for_while_some_that_fit_may_be_missing() {
        let mut asking = Asking::new(&grouped(10, 100));
        assert_eq!((asking.limit(), asking.spare()), (10, 0), "as many as wanted");
        assert!(asking.wants_more(10, 9), "one did not fit");
        assert_eq!((asking.limit(), asking.spare()), (20, 10), "twice as many");
        assert!(!asking.wants_more(20, 10), "enough fit");
        assert!(!asking.wants_more(19, 9), "the engine has no more");
        while asking.wants_more(asking.limit(), 0) {}
        assert_eq!(asking.limit(), 655, "65,536 hits");
        let mut asking = Asking::new(&grouped(1_000, 100));
        assert!(!asking.wants_more(1_000, 0), "no more than the caller himself wants");
    }

    #[test]
    fn groups_are_in_order_of_their_best_hit_and_equal_ones_in_order_of_id() {
        let hits = |hits: &[(&str, f32)]| -> Vec<_> {
            hits.iter().map(|(id, score)| ((*id).to_owned(), *score)).collect()
        };
        let groups = vec![
            (string("x"), hits(&[("f", 0.7), ("b", 0.9), ("e", 0.8)])),
            (string("y"), hits(&[("a", 0.9)])),
            (string("z"), hits(&[("d", 0.4)])),
            (string("w"), hits(&[("c", 1.0)])),
        ];
        let ranked = vec![
            (string("w"), hits(&[("c", 1.0)])),
            (string("y"), hits(&[("a", 0.9)])),
            (string("x"), hits(&[("b", 0.9), ("e", 0.8)])),
        ];
        assert_eq!(rank_groups(groups.clone(), &grouped(5, 2)), ranked, "all above the threshold");
        assert_eq!(rank_groups(groups, &grouped(2, 2)), ranked[..2], "the best of them");
    }
}
