//! What the server said of collections a moment ago, so that not every call asks for it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clipmesh_proto::ids::CollectionName;
use futures::future::BoxFuture;
use tokio::time::Instant;

use crate::cache::single_flight::{Flight, SingleFlight};
use crate::store::{Collection, Error};

/// What is known of collections, and who asks just now.
#[derive(Debug)]
pub(super) struct Known {
    memory: Mutex<Memory>,
    asking: SingleFlight<(CollectionName, Era), Result<Collection, Error>>,
}

/// The time between two changes that this process made. What was asked for in one era may be out of
/// date in the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Era(u64);

#[derive(Debug, Default)]
struct Memory {
    era: Era,
    /// By the names that were asked for.
    answers: HashMap<CollectionName, Answer>,
}

#[derive(Debug)]
struct Answer {
    collection: Collection,
    since: Instant,
}

// === impl Known ===

impl Known {
    pub(super) fn new() -> Self {
        Self { memory: Mutex::default(), asking: SingleFlight::new() }
    }

    /// What was said of a collection in the time before `now`.
    ///
    /// # Errors
    /// The era to ask in, when nothing was.
    pub(super) fn recall(
        &self,
        name: &CollectionName,
        keep: Duration,
        now: Instant,
    ) -> Result<Collection, Era> {
        self.memory().recall(name, keep, now)
    }

    /// Joins whoever asks the same in the same era, or begins.
    pub(super) fn ask(
        &self,
        name: &CollectionName,
        era: Era,
        begin: impl FnOnce() -> BoxFuture<'static, Result<Collection, Error>>,
    ) -> Flight<Result<Collection, Error>> {
        self.asking.join((name.clone(), era), begin)
    }

    /// Keeps what was asked for in an era, if that is not over.
    pub(super) fn keep(&self, name: &CollectionName, collection: Collection, era: Era) {
        self.memory().keep(name, collection, era, Instant::now());
    }

    /// Has a collection asked for again, by whichever name it was known.
    pub(super) fn forget(&self, name: &CollectionName) {
        self.memory().forget(name);
    }

    /// The same after a change, of which those who ask just now may not have been told.
    pub(super) fn changed(&self, name: &CollectionName) {
        self.memory().changed(name);
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Memory ===

impl Memory {
    fn recall(
        &self,
        name: &CollectionName,
        keep: Duration,
        now: Instant,
    ) -> Result<Collection, Era> {
        let answer = self.answers.get(name);
        let fresh = answer.filter(|answer| now.duration_since(answer.since) < keep);
        fresh.map(|answer| answer.collection.clone()).ok_or(self.era)
    }

    fn keep(&mut self, name: &CollectionName, collection: Collection, era: Era, since: Instant) {
        if era == self.era {
            self.answers.insert(name.clone(), Answer { collection, since });
        }
    }

    fn changed(&mut self, name: &CollectionName) {
        self.era.0 += 1;
        self.forget(name);
    }

    fn forget(&mut self, name: &CollectionName) {
        self.answers.retain(|asked, answer| asked != name && answer.collection.name != *name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::VectorStore as _;
    use crate::store::contract::{name, new_collection};
    use crate::store::exact::Exact;

    const KEEP: Duration = Duration::from_secs(2);

    async fn collection() -> Collection {
        Exact::default().create(new_collection("c")).await.expect("described")
    }

    #[tokio::test]
    async fn an_answer_is_kept_for_a_while_and_until_it_is_forgotten() {
        let (mut memory, now) = (Memory::default(), Instant::now());
        let era = memory.recall(&name("live"), KEEP, now).expect_err("nothing was asked");
        memory.keep(&name("live"), collection().await, era, now);
        let known = memory.recall(&name("live"), KEEP, now).map(|collection| collection.name);
        assert_eq!(known, Ok(name("c")), "as it was said");
        assert!(memory.recall(&name("c"), KEEP, now).is_err(), "by the name that was asked for");
        assert!(memory.recall(&name("live"), KEEP, now + KEEP).is_err(), "it is too old");
        memory.forget(&name("d"));
        assert!(memory.recall(&name("live"), KEEP, now).is_ok(), "another one");
        memory.forget(&name("c"));
        assert!(memory.recall(&name("live"), KEEP, now).is_err(), "by its own name, too");
    }

    #[tokio::test]
    async fn what_was_asked_before_a_change_is_not_kept_after_it() {
        let (mut memory, now) = (Memory::default(), Instant::now());
        let era = memory.recall(&name("c"), KEEP, now).expect_err("nothing was asked");
        memory.changed(&name("c"));
        memory.keep(&name("c"), collection().await, era, now);
        let asked_again = memory.recall(&name("c"), KEEP, now);
        assert!(asked_again.is_err(), "it may be of before: {asked_again:?}");
        assert_ne!(asked_again, Err(era), "nor is anybody joined who asks since before");
    }
}
