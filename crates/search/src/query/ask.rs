//! Asking the store for several searches at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clipmesh_proto::ids::CollectionName;
use futures::FutureExt as _;
use futures::future::{BoxFuture, join_all};
use tokio::time::Instant;

use super::plan::{Ask, Reply};
use crate::store::{Error, Search, VectorStore};

/// What came back for one search, and how long that took.
pub(super) type Answered = Result<(Reply, Duration), Error>;

/// The searches of one collection, and how many of them each asker has.
#[derive(Debug, Default)]
struct Joint {
    askers: Vec<(usize, usize)>,
    searches: Vec<Search>,
}

/// Asks for all, with one call for the searches of one collection. The answers are in order.
pub(super) async fn all(
    store: &Arc<dyn VectorStore>,
    asks: Vec<(CollectionName, Ask)>,
) -> Vec<Answered> {
    let mut joint: BTreeMap<CollectionName, Joint> = BTreeMap::new();
    let mut calls: Vec<BoxFuture<'_, Vec<(usize, Answered)>>> = Vec::new();
    for (asker, (name, ask)) in asks.into_iter().enumerate() {
        match ask {
            Ask::Searches(searches) => {
                let joint = joint.entry(name).or_default();
                joint.askers.push((asker, searches.len()));
                joint.searches.extend(searches);
            }
            Ask::Groups(grouped) => {
                let call = async move {
                    let start = Instant::now();
                    let groups = store.group(name, grouped).await;
                    vec![(asker, groups.map(|groups| (Reply::Groups(groups), start.elapsed())))]
                };
                calls.push(call.boxed());
            }
        }
    }
    calls.extend(joint.into_iter().map(|(name, joint)| joint.ask(store, name).boxed()));
    let mut answers: Vec<_> = join_all(calls).await.into_iter().flatten().collect();
    answers.sort_by_key(|(asker, _)| *asker);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

// === impl Joint ===

impl Joint {
    async fn ask(
        self,
        store: &Arc<dyn VectorStore>,
        name: CollectionName,
    ) -> Vec<(usize, Answered)> {
        let Self { askers, searches } = self;
        let start = Instant::now();
        let lists = store.search(name, searches).await;
        let took = start.elapsed();
        match lists {
            Ok(lists) => {
                let mut lists = lists.into_iter();
                let mut of = |count| Reply::Hits(lists.by_ref().take(count).collect());
                askers.into_iter().map(|(asker, count)| (asker, Ok((of(count), took)))).collect()
            }
            // It is the store that failed, and so for all of them.
            Err(error) => {
                askers.into_iter().map(|(asker, _)| (asker, Err(error.clone()))).collect()
            }
        }
    }
}
