//! One ranking of several.
//!
//! Reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009): an entry counts weight /
//! (60 + rank) from each ranking that it is in, the best of a ranking having rank 1. Scores of
//! different kinds are never added up, and so need no common scale.

use std::collections::BTreeMap;

/// How little the very first ranks stand out; the value of the paper.
const SMOOTHING: f64 = 60.0;
/// Few enough to be quick, and enough for the first page of anything.
const MIN_DEPTH: usize = 128;
/// As many as can be paged through.
const MAX_DEPTH: usize = 11_000;

/// How much of each ranking is looked at for the best `wanted` of two together.
///
/// What is beyond the first 2 × `wanted` + 60 of both can't be among them: it counts at most twice
/// the heavier weight / (2 × `wanted` + 121), and each of the first `wanted` of that ranking counts
/// more. [`MAX_DEPTH`] has room for that up to a `wanted` of 5,470; further down, an entry can be
/// missed.
///
/// What is within the depth of one ranking alone is found, but counts as if the other did not have
/// it: at most that other's weight / (61 + depth) too little, which may cost it a place. In steps,
/// so that pages that follow one another are mostly cut out of one fusion.
pub(super) fn depth(wanted: usize) -> usize {
    (2 * wanted + 60).next_power_of_two().clamp(MIN_DEPTH, MAX_DEPTH)
}

/// Fuses rankings, each with its weight and its entries, best first and without repetition. The
/// best first; equal ones in order of the entry.
pub(super) fn fuse<T: Ord>(rankings: impl IntoIterator<Item = (f32, Vec<T>)>) -> Vec<(T, f64)> {
    let mut scores: BTreeMap<T, f64> = BTreeMap::new();
    for (weight, entries) in rankings {
        for (position, entry) in entries.into_iter().enumerate() {
            let rank = (position + 1) as f64;
            *scores.entry(entry).or_default() += f64::from(weight) / (SMOOTHING + rank);
        }
    }
    let mut fused: Vec<_> = scores.into_iter().collect();
    // Stable, on entries that are in order.
    fused.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    fused
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn order(rankings: &[(f32, &[&'static str])]) -> Vec<&'static str> {
        let rankings = rankings.iter().map(|(weight, entries)| (*weight, entries.to_vec()));
        fuse(rankings).into_iter().map(|(entry, _)| entry).collect()
    }

    #[test]
    fn what_several_rankings_agree_on_comes_first() {
        assert_eq!(order(&[(1.0, &["a", "b", "c"]), (1.0, &["d", "b"])]), ["b", "a", "d", "c"]);
        assert_eq!(order(&[(1.0, &["a", "b"]), (1.0, &["b", "a"])]), ["a", "b"], "equal: by name");
        assert_eq!(order(&[(1.0, &["a"]), (2.0, &["b"])]), ["b", "a"], "the heavier one");
        assert_eq!(order(&[(1.0, &[]), (1.0, &[])]), [""; 0], "of nothing");
    }

    #[test]
    fn an_entry_counts_what_the_paper_says() {
        let fused = fuse([(2.0, vec!["a", "b"]), (0.5, vec!["b"])]);
        assert_eq!(fused[0], ("b", 2.0 / 62.0 + 0.5 / 61.0), "from both");
        assert_eq!(fused[1], ("a", 2.0 / 61.0), "from one");
    }

    #[test]
    fn looks_deep_enough_and_not_into_everything() {
        assert_eq!([0, 10, 34, 35].map(depth), [128, 128, 128, 256], "in steps");
        for wanted in 1..=5_470 {
            assert!(depth(wanted) >= 2 * wanted + 60, "{wanted}");
        }
        assert_eq!([5_471, 11_000].map(depth), [MAX_DEPTH; 2], "and no further");
    }

    proptest! {
        #[test]
        fn one_ranking_stays_as_it_is(
            entries in Just((0u32..50).collect::<Vec<_>>()).prop_shuffle(),
            weight in 0.01f32..10.0,
        ) {
            let fused = fuse([(weight, entries.clone())]);
            let order: Vec<_> = fused.into_iter().map(|(entry, _)| entry).collect();
            prop_assert_eq!(order, entries);
        }

        #[test]
        fn what_is_deep_in_one_counts_hardly_too_little(
            other in Just((0u32..600).collect::<Vec<_>>()).prop_shuffle(),
            wanted in 1usize..30,
            weight in 0.1f32..10.0,
        ) {
            let deep = depth(wanted);
            let fused = |depth| -> BTreeMap<u32, f64> {
                let cut = other.iter().copied().take(depth).collect();
                fuse([(1.0, (0..600).take(depth).collect()), (weight, cut)]).into_iter().collect()
            };
            let (whole, looked_at) = (fused(600), fused(deep));
            let most = f64::from(weight.max(1.0)) / (61 + deep) as f64;
            for (entry, score) in looked_at {
                let lacking = whole[&entry] - score;
                prop_assert!((-1e-12..=most + 1e-12).contains(&lacking), "{lacking} for {most}");
            }
        }

        #[test]
        fn what_is_deep_in_both_is_not_among_the_best(
            seed in prop::collection::vec(0u32..100_000, 600),
            wanted in 1usize..100,
            weight in 0.1f32..10.0,
        ) {
            // Two orders of the same entries.
            let mut other: Vec<_> = (0..600u32).collect();
            other.sort_by_key(|entry| seed[*entry as usize]);
            let whole = fuse([(1.0, (0..600).collect()), (weight, other.clone())]);
            let deep = depth(wanted);
            let kept: BTreeSet<u32> = (0..600).take(deep).chain(other.into_iter().take(deep)).collect();
            for (entry, _) in whole.into_iter().take(wanted) {
                prop_assert!(kept.contains(&entry), "{} is needed", entry);
            }
        }
    }
}
