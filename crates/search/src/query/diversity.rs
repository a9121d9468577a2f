//! Hits that differ from one another.
//!
//! Maximal marginal relevance (Carbonell and Goldstein, "The Use of MMR", SIGIR 1998): the next hit
//! is the candidate with the greatest
//!
//! ```text
//! (1 - weight) × similarity to the query - weight × similarity to the most similar hit so far
//! ```
//!
//! Each round compares the candidates with one new hit, so that `take` hits of `n` candidates cost
//! `take` × `n` dot products.

use clipmesh_proto::Embedding;

/// Something near the query.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    /// Its similarity to the query.
    pub(super) score: f32,
    pub(super) vector: Embedding,
}

/// The positions of at most `take` candidates in the order in which they are chosen. Equal ones
/// keep the order that they came in.
pub(super) fn choose(candidates: &[Candidate], weight: f32, take: usize) -> Vec<usize> {
    // The similarity to the most similar of the chosen; the first choice has none to differ from.
    let mut nearest_chosen: Vec<Option<f32>> = vec![None; candidates.len()];
    let mut left: Vec<usize> = (0..candidates.len()).collect();
    let mut chosen = Vec::new();
    while chosen.len() < take {
        let gain = |at: usize| {
            let likeness = nearest_chosen[at].unwrap_or_default();
            (1.0 - weight) * candidates[at].score - weight * likeness
        };
        let best = (0..left.len()).reduce(|best, other| {
            if gain(left[other]).total_cmp(&gain(left[best])).is_gt() { other } else { best }
        });
        let Some(best) = best else { break };
        // Not swapped: equal ones must stay in their order.
        let best = left.remove(best);
        for &at in &left {
            let likeness = candidates[at].vector.dot(&candidates[best].vector);
            nearest_chosen[at] = Some(nearest_chosen[at].map_or(likeness, |old| old.max(likeness)));
        }
        chosen.push(best);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn candidates(query: [f32; 2], vectors: &[[f32; 2]]) -> Vec<Candidate> {
        let unit = |values: &[f32; 2]| Embedding::new(values.to_vec()).expect("a direction");
        let query = unit(&query);
        let scored = vectors.iter().map(|values| {
            let vector = unit(values);
            Candidate { score: vector.dot(&query), vector }
        });
        let mut candidates: Vec<_> = scored.collect();
        candidates.sort_by(|a, b| b.score.total_cmp(&a.score));
        candidates
    }

    #[test]
    fn the_second_differs_from_the_first() {
        // Two that are nearly the same, and one on the other side of the query.
        let near = candidates([1.0, 0.0], &[[1.0, 0.1], [1.0, 0.11], [1.0, -0.4]]);
        assert_eq!(choose(&near, 0.0, 3), [0, 1, 2], "plain order");
        assert_eq!(choose(&near, 0.5, 3), [0, 2, 1], "the twin comes last");
        assert_eq!(choose(&near, 0.5, 2), [0, 2], "or not at all");
        assert_eq!(choose(&near, 1.0, 1), [0], "the first is the nearest, whatever the weight");
        assert_eq!(choose(&near, 0.5, 0), [0; 0], "nothing is nothing");
        assert_eq!(choose(&[], 0.5, 5), [0; 0], "of nothing");
    }

    #[test]
    fn equal_ones_keep_their_order() {
        let same = candidates([1.0, 0.0], &[[1.0, 0.0]; 4]);
        for weight in [0.0, 0.5, 1.0] {
            assert_eq!(choose(&same, weight, 4), [0, 1, 2, 3], "weight {weight}");
        }
    }

    /// The formula, written down without any thought of speed.
    fn naive(candidates: &[Candidate], weight: f32, take: usize) -> Vec<usize> {
        let mut chosen: Vec<usize> = Vec::new();
        while chosen.len() < take.min(candidates.len()) {
            let mut best: Option<(usize, f32)> = None;
            for (at, candidate) in candidates.iter().enumerate() {
                if chosen.contains(&at) {
                    continue;
                }
                let likenesses =
                    chosen.iter().map(|one| candidate.vector.dot(&candidates[*one].vector));
                let likeness = likenesses.reduce(f32::max).unwrap_or(0.0);
                let gain = (1.0 - weight) * candidate.score - weight * likeness;
                if best.is_none_or(|(_, most)| gain > most) {
                    best = Some((at, gain));
                }
            }
            chosen.extend(best.map(|(at, _)| at));
        }
        chosen
    }

    proptest! {
        #[test]
        fn is_what_the_formula_says(
            angles in prop::collection::vec(0.0f32..6.0, 0..24),
            weight in 0.0f32..=1.0,
            take in 0usize..30,
        ) {
            let vectors: Vec<_> = angles.iter().map(|angle| [angle.cos(), angle.sin()]).collect();
            let candidates = candidates([1.0, 0.0], &vectors);
            prop_assert_eq!(choose(&candidates, weight, take), naive(&candidates, weight, take));
        }

        #[test]
        fn without_weight_it_is_the_plain_order(
            angles in prop::collection::vec(0.0f32..6.0, 0..24),
            take in 0usize..30,
        ) {
            let vectors: Vec<_> = angles.iter().map(|angle| [angle.cos(), angle.sin()]).collect();
            let candidates = candidates([1.0, 0.0], &vectors);
            let plain: Vec<_> = (0..candidates.len().min(take)).collect();
            prop_assert_eq!(choose(&candidates, 0.0, take), plain);
        }
    }
}
