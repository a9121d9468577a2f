//! Indexing in bulk: many items under way at once, each acknowledged as it finishes.
//!
//! ```text
//! requests ──► hash ──► lane of the id ──► index ──► acknowledgement
//!                       (one at a time per id, in the order of arrival)
//! ```
//!
//! The answers are a stream that does its work when it is asked for the next one. So a client
//! that does not read its acknowledgements is not read from either, and when it goes away the
//! work goes with it. No more than a set number of items are in memory at once.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use clipmesh_proto::code::{self, FieldViolation, Reason};
use clipmesh_proto::ids::{CollectionName, ItemId};
use clipmesh_proto::search::v1;
use clipmesh_proto::search::v1::index_items_response::Result as Acknowledged;
use futures::future::BoxFuture;
use futures::stream::{self, FuturesUnordered, StreamExt as _};
use futures::{FutureExt as _, Stream};
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;
use tracing::{Instrument as _, Span};

use super::{Incoming, Items};
use crate::embedder::Lane;
use crate::error::Error;
use crate::{convert, service};

/// A stream of items on its way in.
struct Indexing<S> {
    items: Arc<Items>,
    requests: S,
    collection: CollectionName,
    /// The first request, which named the collection.
    first: Option<v1::IndexItemsRequest>,
    lanes: Lanes,
    running: FuturesUnordered<BoxFuture<'static, (ItemId, v1::IndexItemsResponse)>>,
    /// Whether the client has said that nothing more will come.
    is_complete: bool,
    /// Why nothing more can be read.
    failed: Option<Status>,
    max_in_flight: usize,
    span: Span,
}

/// An item that waits for its turn.
struct Job {
    key: u64,
    incoming: Incoming,
}

/// Items with one id one after another, all others at once.
#[derive(Default)]
struct Lanes {
    /// Ids under way, each with what waits for it.
    waiting: HashMap<ItemId, VecDeque<Job>>,
    in_flight: usize,
}

/// Indexes the items of a stream whose first request has been read.
pub(crate) async fn index<S>(
    items: Arc<Items>,
    first: v1::IndexItemsRequest,
    requests: S,
    max_in_flight: usize,
) -> Result<impl Stream<Item = Result<v1::IndexItemsResponse, Status>> + Send + 'static, Error>
where
    S: Stream<Item = Result<v1::IndexItemsRequest, Status>> + Send + Unpin + 'static,
{
    let collection = convert::collection_name("collection", first.collection.clone())?;
    // Told at once, and not with each item.
    items.store.resolve(collection.clone()).await?;
    let indexing = Indexing {
        items,
        requests,
        collection,
        first: Some(first),
        lanes: Lanes::default(),
        running: FuturesUnordered::new(),
        is_complete: false,
        failed: None,
        max_in_flight,
        span: Span::current(),
    };
    Ok(stream::unfold(indexing, |mut indexing| async {
        let answer = indexing.next().await?;
        Some((answer, indexing))
    }))
}

// === impl Indexing ===

impl<S> Indexing<S>
where
    S: Stream<Item = Result<v1::IndexItemsRequest, Status>> + Send + Unpin,
{
    /// Works until there is something to answer, or nothing left to do.
    async fn next(&mut self) -> Option<Result<v1::IndexItemsResponse, Status>> {
        loop {
            let request = match self.first.take() {
                Some(first) => Some(Ok(first)),
                None => {
                    let may_read = !self.is_complete && self.lanes.in_flight < self.max_in_flight;
                    tokio::select! {
                        Some((id, answer)) = self.running.next(), if !self.running.is_empty() => {
                            if let Some(next) = self.lanes.finish(&id) {
                                self.start(next);
                            }
                            return Some(Ok(answer));
                        }
                        request = self.requests.next(), if may_read => request,
                        else => return self.failed.take().map(Err),
                    }
                }
            };
            match request {
                None => self.is_complete = true,
                // Such as a message over the limit: nothing more can be read, but what came before
                // is answered.
                Some(Err(status)) => {
                    self.is_complete = true;
                    self.failed = Some(status);
                }
                Some(Ok(request)) => {
                    if let Some(refusal) = self.admit(request).await {
                        return Some(Ok(refusal));
                    }
                }
            }
        }
    }

    /// Begins with an item, or puts it behind another of its id, or answers why not.
    async fn admit(&mut self, request: v1::IndexItemsRequest) -> Option<v1::IndexItemsResponse> {
        let key = request.key;
        match read(&self.items, &self.collection, request).await {
            Ok(incoming) => {
                if let Some(job) = self.lanes.enter(Job { key, incoming }) {
                    self.start(job);
                }
                None
            }
            Err(error) => Some(refused(key, error)),
        }
    }

    fn start(&self, Job { key, incoming }: Job) {
        let items = Arc::clone(&self.items);
        let collection = self.collection.clone();
        let id = incoming.id.clone();
        let work = async move {
            match items.index(&collection, incoming, Lane::Bulk).await {
                Ok((item, outcome)) => {
                    let result = Acknowledged::Indexed(service::items::indexed(item, outcome));
                    v1::IndexItemsResponse { key, result: Some(result) }
                }
                Err(error) => refused(key, error),
            }
        };
        // On a task of its own: what it holds, others may wait for, and a client that does not
        // read its acknowledgements must not hold that up. It ends with the stream.
        let task = AbortOnDropHandle::new(tokio::spawn(work.instrument(self.span.clone())));
        let answer = task.map(move |answer| {
            let panicked =
                |_| refused(key, Error::Internal("indexing ended in a panic".to_owned()));
            (id, answer.unwrap_or_else(panicked))
        });
        self.running.push(answer.boxed());
    }
}

// === impl Lanes ===

impl Lanes {
    /// Gives an item back if it can begin, and keeps it if another of its id is under way.
    fn enter(&mut self, job: Job) -> Option<Job> {
        self.in_flight += 1;
        if let Some(waiting) = self.waiting.get_mut(&job.incoming.id) {
            waiting.push_back(job);
            return None;
        }
        self.waiting.insert(job.incoming.id.clone(), VecDeque::new());
        Some(job)
    }

    /// The next of an id after one has finished.
    fn finish(&mut self, id: &ItemId) -> Option<Job> {
        self.in_flight -= 1;
        let next = self.waiting.get_mut(id).and_then(VecDeque::pop_front);
        if next.is_none() {
            self.waiting.remove(id);
        }
        next
    }
}

async fn read(
    items: &Items,
    collection: &CollectionName,
    request: v1::IndexItemsRequest,
) -> Result<Incoming, Error> {
    if !request.collection.is_empty() && request.collection != collection.as_str() {
        let message = format!("must be empty or `{collection}` from here on");
        return Err(FieldViolation::new("collection", Reason::Malformed, message).into());
    }
    let new = convert::item::read(request.item)?;
    items.settle(new).await
}

fn refused(key: u64, error: Error) -> v1::IndexItemsResponse {
    let status = code::to_rpc(&Status::from(error));
    v1::IndexItemsResponse { key, result: Some(Acknowledged::Error(status)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(key: u64, id: &str) -> Job {
        Job { key, incoming: Incoming::along(id, vec![1.0]) }
    }

    fn key(job: Option<Job>) -> Option<u64> {
        job.map(|job| job.key)
    }

    #[test]
    fn items_of_one_id_go_one_after_another() {
        let mut lanes = Lanes::default();
        assert_eq!(key(lanes.enter(job(1, "a"))), Some(1), "the first begins");
        assert_eq!(key(lanes.enter(job(2, "a"))), None, "the second waits");
        assert_eq!(key(lanes.enter(job(3, "b"))), Some(3), "another does not");
        assert_eq!(key(lanes.enter(job(4, "a"))), None, "the third waits too");
        assert_eq!(lanes.in_flight, 4, "those that wait count");

        let a = job(0, "a").incoming.id;
        assert_eq!(key(lanes.finish(&a)), Some(2), "in the order of arrival");
        assert_eq!(key(lanes.finish(&a)), Some(4), "to the last");
        assert_eq!(key(lanes.finish(&a)), None, "then the lane is empty");
        assert_eq!(key(lanes.enter(job(5, "a"))), Some(5), "and free");
        assert_eq!(lanes.in_flight, 2, "3 and 5 are left");
        lanes.finish(&job(0, "a").incoming.id);
        lanes.finish(&job(0, "b").incoming.id);
        assert!(lanes.waiting.is_empty(), "nothing is kept of what is over");
    }
}
