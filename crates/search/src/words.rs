//! Words of texts, and how well those of a query fit those of an item.
//!
//! The ranking is BM25 (Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009) as a
//! product of two sparse vectors: what depends on an item alone is in the item's, how rare a word is
//! is known to the store, which knows all items.

use std::collections::{BTreeMap, BTreeSet};

use unicode_segmentation::UnicodeSegmentation as _;

use crate::filter::fold_case;

/// How soon more of one word counts no more; the usual value.
const SATURATION: f32 = 1.2;
/// How much a longer text counts less; the usual value.
const LENGTH_WEIGHT: f32 = 0.75;
/// Words of a usual caption. The true mean would change with every write.
const AVERAGE_WORDS: f32 = 16.0;

/// The words of a text in their order, folded: letters and digits between the boundaries of
/// Unicode's UAX #29.
pub(crate) fn of(text: &str) -> Vec<String> {
    fold_case(text).unicode_words().map(str::to_owned).collect()
}

/// The different words of several texts.
pub(crate) fn of_all<'a>(texts: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    texts.flat_map(of).collect()
}

/// A sparse vector: words by number, in order, and what each counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Weights {
    pub(crate) words: Vec<u32>,
    pub(crate) weights: Vec<f32>,
}

impl Weights {
    /// Of an item's texts together. Empty for no words.
    pub(crate) fn of_item<'a>(texts: impl Iterator<Item = &'a str>) -> Self {
        let words: Vec<_> = texts.flat_map(of).collect();
        let mut counts: BTreeMap<u32, f32> = BTreeMap::new();
        for word in &words {
            *counts.entry(number(word)).or_default() += 1.0;
        }
        let length = words.len() as f32 / AVERAGE_WORDS;
        let norm = SATURATION * (1.0 - LENGTH_WEIGHT + LENGTH_WEIGHT * length);
        let weigh = |count: f32| count * (SATURATION + 1.0) / (count + norm);
        counts.into_iter().map(|(word, count)| (word, weigh(count))).collect()
    }

    /// Of the words of a query: each counts once.
    pub(crate) fn of_query(words: &[String]) -> Self {
        let numbers: BTreeSet<u32> = words.iter().map(|word| number(word)).collect();
        numbers.into_iter().map(|word| (word, 1.0)).collect()
    }
}

impl FromIterator<(u32, f32)> for Weights {
    fn from_iter<T: IntoIterator<Item = (u32, f32)>>(entries: T) -> Self {
        let (words, weights) = entries.into_iter().unzip();
        Self { words, weights }
    }
}

/// How much a word counts by its rarity: `total` items have texts, `with` of them this word.
pub(crate) fn rarity(total: usize, with: usize) -> f32 {
    let (total, with) = (total as f32, with as f32);
    ((total - with + 0.5) / (with + 0.5) + 1.0).ln()
}

/// The number that stands for a word. Two words in four thousand million share one.
fn number(word: &str) -> u32 {
    let hash = blake3::hash(word.as_bytes());
    let mut first = [0; 4];
    first.copy_from_slice(&hash.as_bytes()[..4]);
    u32::from_le_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_told_apart_in_any_script_and_case() {
        assert_eq!(
            of("A cat's CAT, on the Größe-42!"),
            ["a", "cat's", "cat", "on", "the", "größe", "42"]
        );
        assert_eq!(of("  … – "), Vec::<String>::new(), "signs are no words");
        let all = of_all(["red cat", "Cat red"].into_iter());
        assert_eq!(all.into_iter().collect::<Vec<_>>(), ["cat", "red"], "each once");
    }

    #[test]
    fn more_of_a_word_counts_more_and_more_of_others_less() {
        let weight = |text: &str, word: &str| {
            let weights = Weights::of_item([text].into_iter());
            let at = weights.words.iter().position(|own| *own == number(word)).expect("there");
            weights.weights[at]
        };
        let once = weight("red cat", "cat");
        assert!(weight("cat cat red", "cat") > once, "twice is more");
        assert!(weight("cat cat red", "cat") < 2.0 * once, "but not twice as much");
        assert!(weight("a red cat sits on a long wall in a town", "cat") < once, "among many");
        assert!(rarity(100, 1) > rarity(100, 50), "a rare word tells more");
        assert!(rarity(100, 100) > 0.0, "and every word something");
        assert_eq!(Weights::of_item([""].into_iter()), Weights::default(), "nothing of nothing");
    }
}
