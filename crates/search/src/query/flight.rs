//! Asking the store, once for all that want the same answer at the same time.
//!
//! ```text
//!  search ── joins one that is under way ─────────────────────────► its answer
//!     └───── or has a place in its batch ─► one call per collection ─┘
//! ```
//!
//! Searches of one batch are asked together, and each of them can be joined by itself. Whoever waits
//! for any of them drives them all, so that nobody is stranded by a caller that goes away.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clipmesh_proto::ids::CollectionName;
use clipmesh_proto::search::v1;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared, join_all};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::ask::{self, Answered};
use super::plan::Ask;
use super::resolved::Resolved;
use super::{Answer, Open, Searches};
use crate::cache::AnswerId;
use crate::cache::single_flight::{Flight, SingleFlight};
use crate::error::Error;
use crate::metrics;
use crate::store::{self, VectorStore};

/// The searches that the store is asked now.
#[derive(Debug)]
pub(crate) struct Flights(SingleFlight<AnswerId, Outcome>);

type Outcome = Result<Done, Failed>;

/// An answer, without its timing, and how long the store took.
#[derive(Clone, Debug)]
struct Done {
    response: Arc<v1::SearchResponse>,
    took: Duration,
}

#[derive(Clone, Debug)]
struct Failed {
    error: Error,
    /// Whether it says more of the call that met it, and how long that could wait.
    is_late: bool,
}

/// Searches that are asked together.
#[derive(Debug, Default)]
struct Batch {
    asks: Vec<(CollectionName, Ask)>,
    starts: Vec<oneshot::Sender<Replies>>,
}

/// What the store answers a batch; each search takes its own.
type Replies = Shared<BoxFuture<'static, Arc<Mutex<Vec<Option<Answered>>>>>>;

/// The place of a search in a batch.
#[derive(Debug)]
struct Place {
    number: usize,
    started: oneshot::Receiver<Replies>,
}

impl Searches {
    /// Asks the store for everything at once, but for what it is asked already.
    pub(super) async fn ask(
        &self,
        open: Vec<(usize, Box<Open>)>,
    ) -> Vec<(usize, Result<Answer, Error>)> {
        let mut batch = Batch::default();
        // Nothing is awaited until the batch starts: others may have joined by then.
        let flights = open.into_iter().map(|(at, open)| {
            let (id, resolved) = (open.ticket.answer_id(), Arc::clone(&open.resolved));
            let timing = open.timing;
            let begin = || self.begin(*open, &mut batch);
            let flight = match id {
                Some(id) => self.flights.0.join(id, begin),
                // Nobody can tell whether what is under way shows the last write.
                None => Flight { work: begin().shared(), is_joined: false },
            };
            (at, resolved, timing, flight)
        });
        let flights: Vec<_> = flights.collect();
        batch.start(&self.store);
        let answers = flights.into_iter().map(async |(at, resolved, mut timing, flight)| {
            let answer = self.answer(flight, &resolved).await.map(|Done { response, took }| {
                timing.store += took;
                Answer { response: Arc::unwrap_or_clone(response), timing }
            });
            (at, answer)
        });
        join_all(answers).await
    }

    /// Has a place for a search in a batch, and keeps its answer.
    fn begin(&self, open: Open, batch: &mut Batch) -> BoxFuture<'static, Outcome> {
        let Open { ticket, resolved, timing } = open;
        let place = batch.place(resolved.collection.clone(), resolved.ask());
        let (store, caches) = (Arc::clone(&self.store), self.caches.clone());
        async move {
            let (reply, took) = place.reply().await?;
            let response = resolved.answer(reply).await?;
            // What a hit will spare, but for vectors: those are counted by themselves.
            let cost = timing.store + took;
            caches.keep(ticket, &response, cost, || resolved.rerun(&store)).await;
            Ok(Done { response: Arc::new(response), took })
        }
        .boxed()
    }

    async fn answer(&self, flight: Flight<Outcome>, resolved: &Resolved) -> Result<Done, Error> {
        let start = Instant::now();
        let outcome = flight.work.await;
        if !flight.is_joined {
            return outcome.map_err(|failed| failed.error);
        }
        metrics::answer_shared();
        match outcome {
            Ok(done) => Ok(Done { took: start.elapsed(), ..done }),
            // Whoever began had less time than this call has.
            Err(Failed { is_late: true, .. }) => {
                let response = Arc::new(resolved.ask_alone(&self.store).await?);
                Ok(Done { response, took: start.elapsed() })
            }
            Err(Failed { error, .. }) => Err(error),
        }
    }
}

// === impl Flights ===

impl Default for Flights {
    fn default() -> Self {
        Self(SingleFlight::new())
    }
}

// === impl Failed ===

impl From<store::Error> for Failed {
    fn from(error: store::Error) -> Self {
        Self { is_late: error == store::Error::TimedOut, error: error.into() }
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self { error, is_late: false }
    }
}

// === impl Batch ===

impl Batch {
    fn place(&mut self, collection: CollectionName, ask: Ask) -> Place {
        let (start, started) = oneshot::channel();
        self.asks.push((collection, ask));
        self.starts.push(start);
        Place { number: self.starts.len() - 1, started }
    }

    /// Lets every place have its reply. The store is asked by whoever waits for one.
    fn start(self, store: &Arc<dyn VectorStore>) {
        let Self { asks, starts } = self;
        let store = Arc::clone(store);
        let asking = async move {
            let replies = ask::all(&store, asks).await;
            Arc::new(Mutex::new(replies.into_iter().map(Some).collect()))
        };
        let replies = asking.boxed().shared();
        for start in starts {
            // Fails when nobody waits for that one any more.
            start.send(replies.clone()).ok();
        }
    }
}

// === impl Place ===

impl Place {
    async fn reply(self) -> Answered {
        // Neither can be: a batch that has places is started, and each place is its own.
        let lost = || Err(store::Error::Failed("a search was lost".to_owned()));
        let Ok(replies) = self.started.await else { return lost() };
        let replies = replies.await;
        let mut replies = replies.lock().unwrap_or_else(PoisonError::into_inner);
        replies.get_mut(self.number).and_then(Option::take).unwrap_or_else(lost)
    }
}

#[cfg(test)]
mod tests;
