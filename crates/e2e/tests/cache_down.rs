//! A cache can only help. A real Redis is killed, held up, made to forget and started again under
//! load: no call may fail, none may wait for it, and no answer may be out of date.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use clipmesh_e2e::clients::{Clients, ids, new_item, query, vector};
use clipmesh_e2e::sandbox::{Redis, Sandbox};
use clipmesh_e2e::{eventually, pictures};
use clipmesh_proto::search::v1 as search;
use clipmesh_proto::search::v1::query::Kind;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::Status;

const COLLECTION: &str = "cached";

/// Pictures that are there from the start.
const ITEMS: u64 = 12;

/// Callers at a time.
const CALLERS: u64 = 6;

/// Calls of all callers together in each phase of a test: enough for every caller to run into what
/// happens in it.
const CALLS: u64 = 150;

/// From a change of Redis to when it is noticed, with the calls of a phase, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The longest that a call may take while Redis hangs, on a busy machine. Without a limit of its
/// own it would hang as long as Redis does; `cache.redis.timeout` is 50 ms.
const SLOWEST_CALL: Duration = Duration::from_secs(2);

/// Callers that ask until they are told to stop.
struct Load {
    is_over: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    callers: JoinSet<Calls>,
}

/// How the calls of a caller went.
#[derive(Default)]
struct Calls {
    failures: Vec<String>,
    slowest: Duration,
}

async fn start(redis: &Redis) -> (Sandbox, Clients) {
    let sandbox = Sandbox::builder().redis(redis).start().await.expect("the mesh starts");
    let mut clients = sandbox.clients().expect("the gateway listens");
    clients.create_collection(COLLECTION).await.expect("a new collection");
    for seed in 0..ITEMS {
        let item = new_item(format!("p{seed}"), pictures::png(seed));
        clients.index(COLLECTION, item).await.expect("indexed");
    }
    (sandbox, clients)
}

/// Redis is asked, also if it was passed over for a while.
async fn asked_again(clients: &mut Clients) {
    let asked = eventually("Redis is asked", PATIENCE, async || {
        let found = clients.find(COLLECTION, Kind::ItemId("p0".to_owned())).await;
        let timing = found.map_err(|status| status.to_string())?.timing.unwrap_or_default();
        if timing.cache_bypassed { Err(format!("{timing:?}")) } else { Ok(()) }
    });
    asked.await.expect("Redis is used");
}

/// A question that was asked before is answered from Redis.
async fn answered_from_cache(clients: &mut Clients) {
    let cached = eventually("an answer is cached", PATIENCE, async || {
        let found = clients.find(COLLECTION, Kind::ItemId("p0".to_owned())).await;
        let timing = found.map_err(|status| status.to_string())?.timing.unwrap_or_default();
        if timing.result_cached && !timing.cache_bypassed {
            Ok(())
        } else {
            Err(format!("{timing:?}"))
        }
    });
    cached.await.expect("Redis is used");
}

// === impl Load ===

impl Load {
    fn start(clients: &Clients) -> Self {
        let mut load =
            Self { is_over: Arc::default(), answered: Arc::default(), callers: JoinSet::new() };
        for caller in 0..CALLERS {
            let (is_over, answered) = (Arc::clone(&load.is_over), Arc::clone(&load.answered));
            let mut clients = clients.clone();
            load.callers.spawn(async move {
                let mut calls = Calls::default();
                let mut number = caller;
                while !is_over.load(Ordering::Relaxed) {
                    let start = Instant::now();
                    if let Err(status) = call(&mut clients, caller, number).await {
                        calls.failures.push(format!("call {number}: {status:?}"));
                    }
                    calls.slowest = calls.slowest.max(start.elapsed());
                    answered.fetch_add(1, Ordering::Relaxed);
                    number += CALLERS;
                }
                calls
            });
        }
        load
    }

    /// Waits until so many more calls have been answered.
    async fn goes_on(&self) {
        let enough = self.answered.load(Ordering::Relaxed) + CALLS;
        let answered = eventually("calls are answered", PATIENCE, async || {
            let answered = self.answered.load(Ordering::Relaxed);
            if answered >= enough { Ok(()) } else { Err(format!("{answered} of {enough}")) }
        });
        answered.await.expect("the load goes on");
    }

    /// Ends it, and returns how long the slowest call took. No call may have failed.
    async fn stop(self) -> Duration {
        self.is_over.store(true, Ordering::Relaxed);
        let calls = self.callers.join_all().await;
        let slowest = calls.iter().map(|calls| calls.slowest).max().unwrap_or_default();
        let failures: Vec<String> = calls.into_iter().flat_map(|calls| calls.failures).collect();
        let (failed, answered) = (failures.len(), self.answered.load(Ordering::Relaxed));
        assert_eq!(failures, Vec::<String>::new(), "{failed} of {answered} calls failed");
        slowest
    }
}

/// One call of many kinds: what is cached, what is not, and what makes it out of date.
async fn call(clients: &mut Clients, caller: u64, number: u64) -> Result<(), Status> {
    let kind = match number % 5 {
        0 => Kind::ItemId(format!("p{}", number % ITEMS)),
        1 => Kind::Image(pictures::png(number % ITEMS)),
        2 => Kind::Text(format!("words {}", number % 7)),
        3 => Kind::Text(format!("words that nobody else has asked for: {number}")),
        _ => {
            let item = new_item(format!("new-{caller}"), pictures::png(1_000 + number % 50));
            return clients.index(COLLECTION, item).await.map(drop);
        }
    };
    let found = clients.find(COLLECTION, kind).await?;
    assert_eq!(found.hits.len(), 10, "an answer is a whole one: {found:?}");
    Ok(())
}

#[tokio::test]
async fn redis_killed_and_started_again_under_load_costs_no_failed_call() {
    let mut redis = Redis::start().await.expect("Redis starts");
    let (_sandbox, mut clients) = start(&redis).await;
    let load = Load::start(&clients);
    load.goes_on().await;
    for _ in 0..3 {
        asked_again(&mut clients).await;
        redis.kill().expect("Redis is killed");
        load.goes_on().await;
        redis.restart().await.expect("Redis starts again");
        load.goes_on().await;
    }
    load.stop().await;
    answered_from_cache(&mut clients).await;
}

#[tokio::test]
async fn redis_that_hangs_costs_no_failed_call() {
    let redis = Redis::start().await.expect("Redis starts");
    let (_sandbox, mut clients) = start(&redis).await;
    let load = Load::start(&clients);
    load.goes_on().await;
    asked_again(&mut clients).await;
    redis.hold().expect("Redis hangs");
    load.goes_on().await;
    redis.release().expect("Redis goes on");
    load.goes_on().await;
    let slowest = load.stop().await;
    assert!(slowest < SLOWEST_CALL, "a call waited for Redis: {slowest:?}");
    answered_from_cache(&mut clients).await;
}

#[tokio::test]
async fn a_mesh_starts_without_redis_and_takes_it_when_it_comes() {
    let mut redis = Redis::away().expect("an address");
    let (_sandbox, mut clients) = start(&redis).await;
    let kind = || Kind::Image(pictures::png(3));
    for _ in 0..2 {
        let found = clients.find(COLLECTION, kind()).await.expect("an answer");
        assert_eq!(ids(&found)[0], "p3", "the right one");
        let timing = found.timing.expect("timing");
        assert!(timing.cache_bypassed && !timing.result_cached, "it says so: {timing:?}");
    }
    redis.restart().await.expect("Redis starts");
    answered_from_cache(&mut clients).await;
}

/// Asks for all items by a vector, and returns their ids.
async fn all(clients: &mut Clients, values: &[f32]) -> (Vec<String>, search::SearchTiming) {
    let request =
        search::SearchRequest { limit: Some(1_000), ..query(COLLECTION, vector(values.to_vec())) };
    let found = clients.search.search(request).await.expect("an answer").into_inner();
    let mut ids: Vec<String> = ids(&found).into_iter().map(str::to_owned).collect();
    ids.sort();
    (ids, found.timing.expect("timing"))
}

/// What is there, past every cache.
async fn there(clients: &mut Clients) -> Vec<String> {
    let listed = clients.list_all(COLLECTION, 0).await.expect("listed");
    let mut ids: Vec<String> = listed.into_iter().map(|item| item.id).collect();
    ids.sort();
    ids
}

/// An answer was saved with Redis, and Redis has not seen the writes since.
async fn write_unseen(redis: &mut Redis, clients: &mut Clients, is_away: bool) -> Vec<f32> {
    let (_, values) = clients.get_item(COLLECTION, "p0").await.expect("there");
    let cached = eventually("the answer is cached", PATIENCE, async || {
        let (_, timing) = all(clients, &values).await;
        if timing.result_cached { Ok(()) } else { Err(format!("{timing:?}")) }
    });
    cached.await.expect("Redis is used");
    redis.save().await.expect("Redis saves");
    if is_away {
        redis.kill().expect("Redis is killed");
    }
    let new = new_item("written", pictures::png(500));
    clients.index(COLLECTION, new).await.expect("indexed");
    let request = search::DeleteItemRequest {
        collection: COLLECTION.to_owned(),
        id: "p5".to_owned(),
        ..search::DeleteItemRequest::default()
    };
    clients.items.delete_item(request).await.expect("deleted");
    let (found, _) = all(clients, &values).await;
    assert_eq!(found, there(clients).await, "the writes are seen at once");
    if !is_away {
        redis.kill().expect("Redis is killed");
    }
    redis.restart().await.expect("Redis starts with what it saved");
    values
}

#[tokio::test]
async fn redis_that_comes_back_with_what_it_had_before_a_write_hides_nothing() {
    for is_away in [true, false] {
        let mut redis = Redis::start().await.expect("Redis starts");
        let (_sandbox, mut clients) = start(&redis).await;
        let values = write_unseen(&mut redis, &mut clients, is_away).await;
        let expected = there(&mut clients).await;
        // Until Redis is used again, and then some: its old answer must never be given.
        let mut from_cache = 0;
        let used = eventually("Redis is used again", PATIENCE, async || {
            let (found, timing) = all(&mut clients, &values).await;
            assert_eq!(found, expected, "away {is_away}: as it is now: {timing:?}");
            from_cache += u32::from(timing.result_cached);
            if from_cache > 3 { Ok(()) } else { Err(format!("{timing:?}")) }
        });
        used.await.expect("the answer is cached anew");
    }
}
