//! What a picture is, by what its nearest neighbours are labelled.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use clipmesh_proto::ids::{CollectionName, ItemId};
use tokio::time::Instant;

use crate::error::Error;
use crate::filter::{Field, Filter, Test};
use crate::item::{Scalar, Value};
use crate::query::{Part, Searches, Timing};
use crate::store::{Hit, Search, Target};

/// A question, checked as far as it can be without its collection.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) collection: CollectionName,
    /// What to classify; at least one part.
    pub(crate) query: Vec<Part>,
    /// What holds the labels.
    pub(crate) field: Field,
    pub(crate) filter: Filter,
    /// How many of the nearest vote.
    pub(crate) neighbours: usize,
    pub(crate) weight: Weight,
    pub(crate) threshold: Option<f32>,
    pub(crate) exact: bool,
}

/// How a vote counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weight {
    /// By its score, where that is above 0.
    Similarity,
    Uniform,
}

/// The outcome of a vote.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    pub(crate) field: Field,
    pub(crate) predictions: Vec<Prediction>,
    pub(crate) unindexed: Vec<Field>,
    pub(crate) timing: Timing,
}

/// A label, and who is for it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Prediction {
    pub(crate) label: Scalar,
    /// Its share of all votes; those of all predictions add up to 1.
    pub(crate) score: f32,
    /// Nearest first.
    pub(crate) voters: Vec<(ItemId, f32)>,
}

/// Someone near, with its labels.
#[derive(Clone, Debug, PartialEq)]
struct Voter {
    id: ItemId,
    score: f32,
    labels: Option<Value>,
}

impl Searches {
    /// Asks the nearest items that have a label. Nobody near is an empty verdict.
    pub(crate) async fn classify(&self, question: Question) -> Result<Verdict, Error> {
        let start = Instant::now();
        let collection = self.store.resolve(question.collection).await?;
        let sources = self.check(question.query, &collection).await?;
        let exclude = sources.iter().filter_map(|source| source.item()).cloned().collect();
        let direction = self.direction(sources, &collection).await?;
        let mut timing = direction.timing();

        let filter = question.filter.and(question.field.clone(), Test::Exists(true));
        let unindexed = collection.indexes.missing_for(&filter);
        let search = Search {
            target: Target::Vector(direction.vector),
            filter,
            exclude,
            offset: 0,
            limit: question.neighbours,
            threshold: question.threshold,
            exact: question.exact,
            effort: None,
            vectors: false,
        };
        let asked = Instant::now();
        let found = self.store.search(collection.name, vec![search]).await?;
        timing.store += asked.elapsed();
        let hits = found.into_iter().flatten();
        let voters = hits.map(|hit| Voter::of(hit, &question.field)).collect();
        let predictions = vote(voters, question.weight);
        timing.total = start.elapsed();
        Ok(Verdict { field: question.field, predictions, unindexed, timing })
    }
}

/// Counts the votes, given the nearest first: for the label with the most first, equal ones in
/// order of the label.
fn vote(voters: Vec<Voter>, weight: Weight) -> Vec<Prediction> {
    let mut ballots: BTreeMap<Label, (f64, Vec<(ItemId, f32)>)> = BTreeMap::new();
    let mut total = 0.0;
    for Voter { id, score, labels } in voters {
        let counts = match weight {
            Weight::Uniform => 1.0,
            Weight::Similarity => f64::from(score),
        };
        if counts <= 0.0 {
            continue;
        }
        let labels = labels.as_ref().map_or(&[][..], Value::elements).iter().cloned();
        // Once for each, however often it is on the list.
        let labels: BTreeSet<_> = labels.map(Label::new).collect();
        for label in labels {
            let (votes, voters) = ballots.entry(label).or_default();
            *votes += counts;
            total += counts;
            voters.push((id.clone(), score));
        }
    }
    let mut counted: Vec<_> = ballots.into_iter().collect();
    // Stable, on labels that are in order.
    counted.sort_by(|(_, (a, _)), (_, (b, _))| b.total_cmp(a));
    let prediction = |(Label(label), (votes, voters))| {
        let score = (votes / total) as f32;
        Prediction { label, score, voters }
    };
    counted.into_iter().map(prediction).collect()
}

// === impl Voter ===

impl Voter {
    fn of(hit: Hit, field: &Field) -> Self {
        let labels = field.of(&hit.item);
        Self { id: hit.item.id, score: hit.score, labels }
    }
}

/// A scalar in an order among all of them: by type, then by value.
#[derive(Clone, Debug)]
struct Label(Scalar);

// === impl Label ===

impl Label {
    fn new(scalar: Scalar) -> Self {
        Self(match scalar {
            // There are two zeros, which are one label.
            Scalar::Number(number) => Scalar::Number(number + 0.0),
            other @ (Scalar::String(_) | Scalar::Bool(_) | Scalar::Place(_)) => other,
        })
    }

    fn rank(&self) -> u8 {
        match self.0 {
            Scalar::String(_) => 0,
            Scalar::Number(_) => 1,
            Scalar::Bool(_) => 2,
            Scalar::Place(_) => 3,
        }
    }
}

impl Ord for Label {
    fn cmp(&self, other: &Self) -> Ordering {
        match (&self.0, &other.0) {
            (Scalar::String(a), Scalar::String(b)) => a.cmp(b),
            (Scalar::Number(a), Scalar::Number(b)) => a.total_cmp(b),
            (Scalar::Bool(a), Scalar::Bool(b)) => a.cmp(b),
            (Scalar::Place(a), Scalar::Place(b)) => {
                a.lat.total_cmp(&b.lat).then_with(|| a.lon.total_cmp(&b.lon))
            }
            (_, _) => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Label {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Label {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Label {}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(text: &str) -> Scalar {
        Scalar::String(text.to_owned())
    }

    fn voter(id: &str, score: f32, labels: &[&str]) -> Voter {
        let labels = Value::Many(labels.iter().map(|label| string(label)).collect());
        Voter { id: id.to_owned().try_into().expect("an id"), score, labels: Some(labels) }
    }

    fn one(id: &str, score: f32, label: Scalar) -> Voter {
        Voter { labels: Some(Value::One(label)), ..voter(id, score, &[]) }
    }

    /// Labels, their shares in tenths of a percent, and who voted for them.
    fn outcome(predictions: &[Prediction]) -> Vec<(Scalar, u32, Vec<&str>)> {
        let told = predictions.iter().map(|one| {
            let voters = one.voters.iter().map(|(id, _)| id.as_str()).collect();
            (one.label.clone(), (one.score * 1_000.0).round() as u32, voters)
        });
        told.collect()
    }

    #[test]
    fn similarity_counts_unless_all_are_alike() {
        let voters = || {
            vec![voter("a", 0.9, &["cat"]), voter("b", 0.4, &["dog"]), voter("c", 0.2, &["dog"])]
        };
        let weighted = vote(voters(), Weight::Similarity);
        let expected = [(string("cat"), 600, vec!["a"]), (string("dog"), 400, vec!["b", "c"])];
        assert_eq!(outcome(&weighted), expected, "one near one beats two far ones");
        let uniform = vote(voters(), Weight::Uniform);
        let expected = [(string("dog"), 667, vec!["b", "c"]), (string("cat"), 333, vec!["a"])];
        assert_eq!(outcome(&uniform), expected, "two are more than one");
        assert_eq!(uniform[0].voters[0].1, 0.4, "with their own scores");
    }

    #[test]
    fn a_list_votes_for_each_of_its_elements_once() {
        let voters = vec![voter("a", 0.5, &["cat", "pet", "cat"]), voter("b", 0.5, &["pet"])];
        let predictions = vote(voters, Weight::Similarity);
        let expected = [(string("pet"), 667, vec!["a", "b"]), (string("cat"), 333, vec!["a"])];
        assert_eq!(outcome(&predictions), expected, "two of three votes");
    }

    #[test]
    fn what_is_no_nearer_than_nothing_has_no_vote_by_similarity() {
        let voters = || vec![voter("a", 0.0, &["cat"]), voter("b", -0.5, &["dog"])];
        assert_eq!(vote(voters(), Weight::Similarity), [], "nobody votes");
        let uniform = vote(voters(), Weight::Uniform);
        let labels: Vec<_> = uniform.iter().map(|one| one.label.clone()).collect();
        assert_eq!(labels, [string("cat"), string("dog")], "equal ones in order of the label");
        assert_eq!(vote(Vec::new(), Weight::Uniform), [], "nobody there");
    }

    #[test]
    fn labels_of_several_types_are_told_apart() {
        let labels = [
            Scalar::Bool(true),
            Scalar::Number(1.0),
            string("1"),
            Scalar::Number(-0.0),
            Scalar::Number(0.0),
        ];
        let voters = labels.into_iter().map(|label| one("a", 1.0, label)).collect();
        let predictions = vote(voters, Weight::Uniform);
        let labels: Vec<_> = predictions.iter().map(|one| one.label.clone()).collect();
        let zero = Scalar::Number(0.0);
        let expected = [zero, string("1"), Scalar::Number(1.0), Scalar::Bool(true)];
        assert_eq!(labels, expected, "zero is one number, and has two votes");
        let total: f32 = predictions.iter().map(|one| one.score).sum();
        assert!((total - 1.0).abs() < 1e-6, "all shares together: {total}");
    }
}
