//! Which way a filtered search goes: past everything that passes, or through the graph.
//!
//! The graph has no links of its own for any filter, since those of every field together take
//! longer to build than all the rest of it. A walk along links between vectors that pass gets stuck
//! where few do, and quietly finds less than there is. ACORN (arXiv:2403.04871) looks one link
//! further and gets on, until so few pass that comparing with each of them is quicker, and exact.
//!
//! Measured with 100,000 vectors of 512 floats in 100 clusters: milliseconds of one core, and the
//! share of the ten nearest that is found. Without a filter it is 1.1 ms and 1.0 at the same effort
//! of 256. A filter passes any, or those of some clusters, which is hard: the nearest that pass are
//! then far from where the walk ends.
//!
//! | passes | scan | walk | ACORN |
//! |---|---|---|---|
//! | 90 % | 51 | 1.1, 1.000 | 1.2, 1.000 |
//! | 50 % | 28.5 | 0.9, 0.999 | 1.8, 0.999 |
//! | 25 % | 14.3 | 0.9, 0.866 | 2.2, 0.999 |
//! | 10 % | 5.9 | 0.4, 0.186 | 2.9, 0.999 |
//! | 4 % | 1.4 | 0.0, 0.007 | 4.2, 0.999 |
//! | 2 % | 1.6 | 0.0, 0.004 | 4.6, 0.912 |
//! | 50 of 100 clusters | 35 | 1.8, 0.746 | 2.4, 0.882; at twice the effort 3.2, 0.946 |
//! | 10 of 100 clusters | 7.0 | 1.4, 0.602 | 2.0, 0.890; at twice the effort 3.8, 0.970 |

use qdrant_edge::external::ordered_float::OrderedFloat;
use qdrant_edge::{AcornSearchParams, CountRequestBuilder, Filter as EngineFilter, SearchParams};

use super::super::Config;
use super::Shard;
use crate::store::{Error, Search, Target};

/// Above this share nearly every link leads to a vector that passes.
const WALK_ABOVE: f64 = 0.9;
/// Above this share ACORN has effort to spare.
const DOUBLE_EFFORT_ABOVE: f64 = 0.3;
/// Below this share ACORN begins to miss hits.
const SCAN_BELOW: f64 = 0.025;

/// The way of one search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Past everything that passes.
    Scan,
    /// Along links between vectors that pass.
    Walk { effort: usize },
    /// One link further.
    Acorn { effort: usize },
}

// === impl Way ===

impl Way {
    /// The way for a filter that about `passing` of `total` pass.
    fn through(passing: usize, total: usize, effort: usize, config: &Config) -> Self {
        let share = passing as f64 / total.max(1) as f64;
        if passing <= config.full_scan_points.get() || share < SCAN_BELOW {
            Self::Scan
        } else if share > WALK_ABOVE {
            Self::Walk { effort }
        } else if share > DOUBLE_EFFORT_ABOVE {
            Self::Acorn { effort: effort.saturating_mul(2) }
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
        SearchParams { hnsw_ef: effort, exact, acorn, ..SearchParams::default() }
    }
}

// === impl Shard ===

impl Shard {
    /// The way of a search.
    pub(super) fn way(&self, search: &Search, filter: Option<&EngineFilter>) -> Result<Way, Error> {
        let effort = search.effort.unwrap_or(self.config.search_effort.get());
        let Some(filter) = filter else {
            return Ok(if search.exact { Way::Scan } else { Way::Walk { effort } });
        };
        // How many pass such a filter can't be told without looking at each item, and then it is
        // as well to compare with it.
        let is_indexed = self.collection().indexes.missing_for(&search.filter).is_empty();
        if search.exact || !is_indexed || matches!(search.target, Target::Words(_)) {
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
    fn few_are_compared_one_by_one_and_most_are_walked_through() {
        let config = Config::default();
        let way = |passing, total| Way::through(passing, total, 256, &config);
        assert_eq!(way(0, 0), Way::Scan, "nothing there");
        assert_eq!(way(4_999, 5_000), Way::Scan, "few at all");
        assert_eq!(way(100, 1_000_000), Way::Scan, "few pass");
        assert_eq!(way(20_000, 1_000_000), Way::Scan, "too few for a graph of so many");
        assert_eq!(way(100_000, 1_000_000), Way::Acorn { effort: 256 }, "10 %");
        assert_eq!(way(500_000, 1_000_000), Way::Acorn { effort: 512 }, "50 %");
        assert_eq!(way(999_999, 1_000_000), Way::Walk { effort: 256 }, "nearly all");
    }
}
