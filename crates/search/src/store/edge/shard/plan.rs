//! Which way a filtered search goes: past everything that passes, or through the graph.
//!
//! The graph has no links of its own for any filter, since those of every field together take
//! longer to build than all the rest of it. A walk along links between vectors that pass gets stuck
//! where few do, and quietly finds less than there is. ACORN (arXiv:2403.04871) looks one link
//! further and gets on, until so few pass that comparing with each of them is quicker, and exact.
//!
//! Where nearly all pass but what is around the query does not, as in "like this one, but of another
//! maker", the walk ends far from the hits, so ACORN gets more effort there.
//!
//! Measured with `make bench-search` and its vectors, 100,000 of 512 floats, on two cores: the
//! milliseconds of half of the searches, and the share of the ten nearest that is found. Without a
//! filter it is 1.7 ms and 0.9995 at the effort of 256, to which the factors belong.
//!
//! | passes | scan | walk | ACORN | ACORN x 1.5 | ACORN x 2 |
//! |---|---|---|---|---|---|
//! | 10 %, by chance | 6.4 | 1.4, 0.092 | 6.8, 1.000 | 6.2, 1.000 | 10.9, 1.000 |
//! | 50 %, by chance | 20.3 | 1.9, 0.999 | 3.8, 1.000 | 4.2, 1.000 | 6.9, 1.000 |
//! | one cluster of 10, not the query's | 7.8 | 2.7, 0.834 | 3.8, 0.978 | 3.7, 0.989 | 5.5, 0.991 |
//! | one cluster of 2, not the query's | 18.8 | 2.4, 0.928 | 3.6, 0.970 | 3.5, 0.982 | 5.4, 0.987 |
//! | all clusters but the query's | 17.0 | 2.0, 0.935 | 2.5, 0.948 | 3.7, 0.965 | 4.4, 0.980 |

use qdrant_edge::external::ordered_float::OrderedFloat;
use qdrant_edge::{
    AcornSearchParams, CountRequestBuilder, Filter as EngineFilter, QuantizationSearchParams,
    SearchParams,
};

use super::super::Config;
use super::Shard;
use crate::store::{Error, Search, Target};

/// How many candidates are chosen by short forms of vectors, as a multiple of those wanted, before
/// they are compared in full.
const OVERSAMPLING: f64 = 2.0;
/// Below this share ACORN begins to miss hits.
const SCAN_BELOW: f64 = 0.025;
/// Above this share ACORN looks at few links more than a walk does, and has effort to spare.
const MORE_EFFORT_ABOVE: f64 = 0.9;

/// The way of one search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Past everything that passes.
    Scan,
    /// Along the links, where all pass.
    Walk { effort: usize },
    /// Along the links, and past vectors that do not pass.
    Acorn { effort: usize },
}

// === impl Way ===

impl Way {
    /// The way for a filter that about `passing` of `total` pass.
    fn through(passing: usize, total: usize, effort: usize, config: &Config) -> Self {
        let share = passing as f64 / total.max(1) as f64;
        if passing <= config.full_scan_points.get() || share < SCAN_BELOW {
            Self::Scan
        } else if share > MORE_EFFORT_ABOVE {
            Self::Acorn { effort: effort.saturating_mul(3) / 2 }
        } else {
            Self::Acorn { effort }
        }
    }

    /// What the engine is told, for a search of so many candidates.
    pub(super) fn params(self, fetch: usize) -> SearchParams {
        let (exact, effort, acorn) = match self {
            Self::Scan => (true, None, None),
            Self::Walk { effort } => (false, Some(effort.max(fetch)), None),
            Self::Acorn { effort } => {
                // Whether it pays was decided here.
                let max_selectivity = Some(OrderedFloat(1.0));
                let acorn = AcornSearchParams { enable: true, max_selectivity };
                (false, Some(effort.max(fetch)), Some(acorn))
            }
        };
        // Of no effect where there are no short forms, or all are compared in full.
        let quantization = Some(QuantizationSearchParams {
            ignore: false,
            rescore: Some(true),
            oversampling: Some(OVERSAMPLING),
        });
        SearchParams { hnsw_ef: effort, exact, acorn, quantization, ..SearchParams::default() }
    }
}

// === impl Shard ===

impl Shard {
    /// The way of a search.
    pub(super) fn way(&self, search: &Search, filter: Option<&EngineFilter>) -> Result<Way, Error> {
        // There is no graph of words.
        if search.exact || matches!(search.target, Target::Words(_)) {
            return Ok(Way::Scan);
        }
        let effort = search.effort.unwrap_or(self.config.search_effort.get());
        let Some(filter) = filter else {
            return Ok(Way::Walk { effort });
        };
        // How many pass such a filter can't be told without looking at each item, and then it is
        // as well to compare with it.
        let is_indexed = self.collection().indexes.missing_for(&search.filter).is_empty();
        if !is_indexed {
            return Ok(Way::Scan);
        }
        let about = || CountRequestBuilder::new().exact(false);
        let (passing, total) = self.engine.run(|shard| {
            let passing = shard.count(about().filter(filter.clone()).build())?;
            Ok((passing, shard.count(about().build())?))
        })?;
        Ok(Way::through(passing, total, effort, &self.config))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_compared_one_by_one_and_many_are_walked_through() {
        let config = Config::default();
        let way = |passing, total| Way::through(passing, total, 256, &config);
        assert_eq!(way(0, 0), Way::Scan, "nothing there");
        assert_eq!(way(9_999, 10_000), Way::Scan, "few at all");
        assert_eq!(way(100, 1_000_000), Way::Scan, "few pass");
        assert_eq!(way(20_000, 1_000_000), Way::Scan, "too few for a graph of so many");
        assert_eq!(way(100_000, 1_000_000), Way::Acorn { effort: 256 }, "10 %");
        assert_eq!(way(999_999, 1_000_000), Way::Acorn { effort: 384 }, "nearly all");
    }
}
