//! What a filter does to the time and to what is found.

use clipmesh_search::filter::{Field, Filter, Test};
use clipmesh_search::item::Scalar;
use clipmesh_search::store::VectorStore;

use crate::load::Latencies;
use crate::recipe::{CLUSTER_TAGS, TAGS};
use crate::report::{line, ms};
use crate::store::{self, LIMIT, Subject};
use crate::truth;

/// How many queries are asked where each takes long.
const FEW: usize = 20;

/// What passes.
#[derive(Clone, Copy, Debug)]
enum Case {
    /// What has the tag, asked of all queries.
    Tag(&'static str),
    /// The same, asked of the queries that would have the tag: whoever filters by a kind looks for
    /// one of that kind.
    OwnTag(&'static str),
    /// The same, asked of the queries that would not: the hits are far from the query.
    OthersTag(&'static str),
    /// Every tenth, by a field without an index, asked of a few queries: it takes long.
    NoIndex,
    /// All but the cluster of the query, as in "like this one, but not of this maker".
    OtherClusters,
}

pub(crate) async fn measure(
    store: &dyn VectorStore,
    subject: &Subject,
    unfiltered: &Latencies,
) -> anyhow::Result<()> {
    let by_chance =
        TAGS.map(|(tag, chance)| (Case::Tag(tag), format!("{:.1} % by chance", chance * 100.0)));
    let by_cluster = CLUSTER_TAGS
        .map(|(tag, one_of)| (Case::OwnTag(tag), format!("one cluster of {one_of}, its own too")));
    let by_other = CLUSTER_TAGS.map(|(tag, one_of)| {
        (Case::OthersTag(tag), format!("one cluster of {one_of}, not its own"))
    });
    let others = [
        (Case::OtherClusters, "all clusters but its own".to_owned()),
        (Case::NoIndex, "10 % by a field without an index".to_owned()),
    ];
    for (case, what) in by_chance.into_iter().chain(by_cluster).chain(by_other).chain(others) {
        let asked: Vec<_> =
            (0..subject.queries.len()).filter(|&query| case.is_asked(subject, query)).collect();
        let queries: Vec<_> = asked.iter().map(|&query| subject.queries[query].clone()).collect();
        let filters: Vec<_> = asked.iter().map(|&query| case.filter(subject, query)).collect();
        let passes = |at: usize, number: usize| case.passes(subject, asked[at], number);
        let truth = truth::nearest(&subject.vectors, &queries, LIMIT, passes);
        let (found, times) = store::one_by_one(store, &queries, &filters).await?;
        let recall = truth::recall(&truth, &found);
        let (p50, p99) = (ms(times.p50()), ms(times.p99()));
        let (slower_p50, slower_p99) = (p50 / ms(unfiltered.p50()), p99 / ms(unfiltered.p99()));
        line(format_args!(
            "filtered, {what}: filtered_p50_ms={p50:.2} filtered_p99_ms={p99:.2} \
             recall={recall:.4} p50_over_unfiltered={slower_p50:.2} \
             p99_over_unfiltered={slower_p99:.2}"
        ));
    }
    Ok(())
}

/// The field of an item's tags.
pub(crate) fn tag() -> Field {
    Field::Metadata("tag".to_owned())
}

/// The field of the name of an item's cluster.
pub(crate) fn cluster() -> Field {
    Field::Metadata("cluster".to_owned())
}

/// The field of the last digit of an item's number, which has no index.
pub(crate) fn digit() -> Field {
    Field::Metadata("digit".to_owned())
}

pub(crate) fn cluster_name(number: usize) -> String {
    format!("k{number}")
}

fn is(name: &str) -> Test {
    Test::Match(Scalar::String(name.to_owned()))
}

// === impl Case ===

impl Case {
    fn is_asked(self, subject: &Subject, query: usize) -> bool {
        match self {
            Self::OwnTag(tag) => subject.has(query, tag),
            Self::OthersTag(tag) => !subject.has(query, tag),
            Self::NoIndex => query < FEW,
            Self::Tag(_) | Self::OtherClusters => true,
        }
    }

    fn filter(self, subject: &Subject, query: usize) -> Filter {
        match self {
            Self::Tag(name) | Self::OwnTag(name) | Self::OthersTag(name) => {
                Filter::default().and(tag(), is(name))
            }
            Self::NoIndex => Filter::default().and(digit(), is("0")),
            Self::OtherClusters => {
                let own = cluster_name(subject.clusters[query]);
                Filter::default().and_not(cluster(), is(&own))
            }
        }
    }

    fn passes(self, subject: &Subject, query: usize, number: usize) -> bool {
        let (cluster, tags) = &subject.facts[number];
        match self {
            Self::Tag(name) | Self::OwnTag(name) | Self::OthersTag(name) => tags.contains(&name),
            Self::NoIndex => number.is_multiple_of(10),
            Self::OtherClusters => *cluster != subject.clusters[query],
        }
    }
}
