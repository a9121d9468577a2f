//! No acknowledged update is lost, no acknowledged delete comes back, and no answer is of a time
//! before: neither from the store nor from a cache that has outlived the crash.
//!
//! Four workers change items of their own: they update metadata, replace pictures, delete, and
//! index anew. The state of each item is known up to the one change that was on its way at the
//! crash, which may have been made or not, but not half.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use clipmesh_e2e::clients::{Clients, content_hash, new_item, query, vector};
use clipmesh_e2e::fields::{metadata, number, number_of};
use clipmesh_e2e::sandbox::{Builder, Redis, Sandbox, Service};
use clipmesh_e2e::{eventually, pictures};
use clipmesh_proto::search::v1 as search;
use prost_types::FieldMask;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tokio::sync::Notify;
use tonic::{Code, Status};

use crate::{LONGEST_PAUSE, PATIENCE, seed};

const COLLECTION: &str = "changes";
const WORKERS: u64 = 4;
const ITEMS_OF_WORKER: u64 = 10;
/// The kill follows at most so many acknowledgements; workers go on until then, so that every kill
/// cuts changes off.
const LATEST_KILL: u64 = 60;
/// For the changes before a kill, on a busy machine.
const WORK_PATIENCE: Duration = Duration::from_secs(120);
/// Pictures that items are given.
const PICTURES: u64 = 40;

/// Pictures by their content hashes.
static HASHES: LazyLock<BTreeMap<String, u64>> = LazyLock::new(|| {
    let hash = |picture| (content_hash(&pictures::png(picture)), picture);
    (0..PICTURES).map(hash).collect()
});

/// What an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    /// Rises with every change of it.
    version: u64,
    picture: u64,
}

/// What is known of an item, `None` being that it is not there.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    acknowledged: Option<State>,
    /// The change that was on its way when the process died.
    attempted: Option<Option<State>>,
    /// Of all changes, made or not, so that no version is used twice.
    last_version: u64,
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Index(State),
    Update(State),
    ReplaceImage(State),
    Delete,
}

/// Items of one worker, by id.
type Items = BTreeMap<String, Known>;

/// What workers know of the process that is killed.
#[derive(Clone, Copy)]
struct Life<'a> {
    /// Told of each change that is acknowledged.
    made: &'a dyn Fn(),
    /// Set right before the kill.
    is_killed: &'a AtomicBool,
}

/// One life of the data folder through many crashes.
struct Ordeal {
    sandbox: Sandbox,
    victim: Service,
    clients: Clients,
    rng: ChaCha8Rng,
    workers: Vec<Items>,
    /// A vector that everything is searched by.
    values: Vec<f32>,
}

// === impl Known ===

impl Known {
    fn next(&mut self, rng: &mut ChaCha8Rng) -> Change {
        self.last_version += 1;
        let version = self.last_version;
        let picture = rng.random_range(0..PICTURES);
        match (self.acknowledged, rng.random_range(0..10)) {
            (None, _) => Change::Index(State { version, picture }),
            (Some(_), 0..3) => Change::Delete,
            (Some(state), 3..5) if state.picture != picture => {
                Change::ReplaceImage(State { picture, ..state })
            }
            (Some(state), _) => Change::Update(State { version, ..state }),
        }
    }

    /// What it may be after a crash.
    fn allows(&self, found: Option<State>) -> bool {
        found == self.acknowledged || self.attempted == Some(found)
    }

    fn settle(&mut self, found: Option<State>) {
        self.acknowledged = found;
        self.attempted = None;
    }
}

// === impl Change ===

impl Change {
    fn outcome(self) -> Option<State> {
        match self {
            Self::Index(state) | Self::Update(state) | Self::ReplaceImage(state) => Some(state),
            Self::Delete => None,
        }
    }

    async fn make(self, clients: &mut Clients, id: &str) -> Result<(), Status> {
        let (collection, id) = (COLLECTION.to_owned(), id.to_owned());
        let version = |state: State| metadata([("version", number(state.version as f64))]);
        match self {
            Self::Index(state) => {
                let item = new_item(id, pictures::png(state.picture));
                let item = search::NewItem { metadata: version(state), ..item };
                clients.index(COLLECTION, item).await.map(drop)
            }
            Self::Update(state) => {
                let item = search::Item { id, metadata: version(state), ..Default::default() };
                let update_mask = Some(FieldMask { paths: vec!["metadata.version".to_owned()] });
                let item = Some(item);
                let etag = String::new();
                let request = search::UpdateItemRequest { collection, item, update_mask, etag };
                clients.items.update_item(request).await.map(drop)
            }
            Self::ReplaceImage(state) => {
                let image = pictures::png(state.picture);
                let etag = String::new();
                let request = search::ReplaceImageRequest { collection, id, image, etag };
                clients.items.replace_image(request).await.map(drop)
            }
            Self::Delete => {
                let request = search::DeleteItemRequest { collection, id, etag: String::new() };
                clients.items.delete_item(request).await.map(drop)
            }
        }
    }
}

// === impl Life ===

impl Life<'_> {
    /// A call fails because the process is dead, and is never refused.
    fn expect_over(self, status: &Status) {
        assert!(self.is_killed.load(Ordering::Relaxed), "a call fails in a live mesh: {status:?}");
        let is_refusal = matches!(
            status.code(),
            Code::InvalidArgument
                | Code::NotFound
                | Code::AlreadyExists
                | Code::FailedPrecondition
                | Code::Aborted
                | Code::OutOfRange
                | Code::ResourceExhausted
                | Code::Unimplemented
        );
        assert!(!is_refusal, "a good change is refused: {status:?}");
    }
}

// === impl Ordeal ===

impl Ordeal {
    async fn new(mesh: Builder, victim: Service) -> Self {
        let sandbox = mesh.start().await.expect("the mesh starts");
        let mut clients = sandbox.clients().expect("the gateway listens");
        clients.create_collection(COLLECTION).await.expect("a new collection");
        let values = clients.embed_image(pictures::png(0)).await.expect("embedded");
        let items = |worker| {
            let id = |index| (format!("w{worker}/{index}"), Known::default());
            (0..ITEMS_OF_WORKER).map(id).collect()
        };
        let workers = (0..WORKERS).map(items).collect();
        let rng = ChaCha8Rng::seed_from_u64(seed());
        Self { sandbox, victim, clients, rng, workers, values }
    }

    async fn run(&mut self, rounds: u64, mut redis: Option<Redis>) {
        let mut deletes = 0;
        for round in 0..rounds {
            let before = self.there();
            self.change_until_killed().await;
            if let Some(redis) = &mut redis
                && round % 3 == 2
            {
                // It has seen some changes that it forgets now, with what was saved a while ago.
                redis.kill().expect("Redis is killed");
                redis.restart().await.expect("Redis starts with what it saved");
            }
            self.restart().await;
            self.check(round).await;
            if let Some(redis) = &redis {
                redis.save().await.expect("Redis saves");
            }
            deletes += before.difference(&self.there()).count();
        }
        eprintln!("{deletes} items were deleted on the way");
        assert!(deletes > 0, "no crash followed a delete");
    }

    fn there(&self) -> BTreeSet<String> {
        let items = self.workers.iter().flatten();
        let there = items.filter(|(_, known)| known.acknowledged.is_some());
        there.map(|(id, _)| id.clone()).collect()
    }

    /// Changes items from all sides, and kills the victim somewhere in the middle.
    async fn change_until_killed(&mut self) {
        let enough = self.rng.random_range(1..=LATEST_KILL);
        let pause = self.rng.random_range(Duration::ZERO..=LONGEST_PAUSE);
        let (count, is_enough) = (AtomicU64::new(0), Notify::new());
        let is_killed = AtomicBool::new(false);
        let made = || {
            if count.fetch_add(1, Ordering::Relaxed) + 1 == enough {
                is_enough.notify_one();
            }
        };
        let workers = self.workers.iter_mut().map(|items| {
            let rng = ChaCha8Rng::seed_from_u64(self.rng.random());
            let life = Life { made: &made, is_killed: &is_killed };
            work(self.clients.clone(), items, rng, &self.values, life)
        });
        let working = futures::future::join_all(workers);
        let (sandbox, victim) = (&mut self.sandbox, self.victim);
        let killing = async {
            let enough = tokio::time::timeout(WORK_PATIENCE, is_enough.notified()).await;
            enough.expect("the workers go on until the kill");
            // Not a wait for anything: the moment of the crash is what is random here.
            tokio::time::sleep(pause).await;
            is_killed.store(true, Ordering::Relaxed);
            sandbox.kill(victim).await.expect("the victim dies");
        };
        tokio::join!(working, killing);
    }

    async fn restart(&mut self) {
        self.sandbox.restart(self.victim).await.expect("it starts on what the crash left");
        let clients = &mut self.clients;
        let answering = eventually("the mesh answers again", PATIENCE, async || {
            clients.count(COLLECTION).await?;
            // The embedder is needed for what follows.
            clients.embed_image(pictures::png(0)).await
        });
        answering.await.expect("no other process needs a restart");
    }

    /// Each item is what it may be, whoever is asked.
    async fn check(&mut self, round: u64) {
        let mut expected = BTreeMap::new();
        for (id, known) in self.workers.iter_mut().flatten() {
            let found = get(&mut self.clients, id).await;
            assert!(known.allows(found), "round {round}: `{id}` is {found:?}: {known:?}");
            known.settle(found);
            expected.extend(found.map(|state| (id.clone(), state)));
        }
        let listed = self.clients.list_all(COLLECTION, 0).await.expect("listed");
        assert_eq!(states(&listed), expected, "round {round}: listed");
        // The first answer must not come from an old cache. An answer may be kept only once it was
        // asked for again, so that what is kept is seen by asking until it comes.
        let cached = eventually("an answer comes from the cache", PATIENCE, async || {
            let (found, is_cached) =
                find_all(&mut self.clients, &self.values).await.expect("found");
            assert_eq!(found, expected, "round {round}: found, cached {is_cached}");
            if is_cached { Ok(()) } else { Err("the store answers") }
        });
        cached.await.expect("the cache is used");
    }
}

/// Changes items one after the other until the process is gone. Each change that is acknowledged is
/// seen by the next search.
async fn work(
    mut clients: Clients,
    items: &mut Items,
    mut rng: ChaCha8Rng,
    values: &[f32],
    life: Life<'_>,
) {
    let ids: Vec<String> = items.keys().cloned().collect();
    loop {
        let id = &ids[rng.random_range(0..ids.len())];
        let Some(known) = items.get_mut(id) else { continue };
        let change = known.next(&mut rng);
        known.attempted = Some(change.outcome());
        match change.make(&mut clients, id).await {
            Ok(()) => known.settle(change.outcome()),
            Err(status) => return life.expect_over(&status),
        }
        (life.made)();
        match find_all(&mut clients, values).await {
            Ok((found, _)) => {
                assert_eq!(found.get(id).copied(), change.outcome(), "`{id}` after {change:?}");
            }
            Err(status) => return life.expect_over(&status),
        }
    }
}

async fn get(clients: &mut Clients, id: &str) -> Option<State> {
    match clients.get_item(COLLECTION, id).await {
        Ok((item, _)) => Some(state_of(&item)),
        Err(status) if status.code() == Code::NotFound => None,
        Err(status) => panic!("get `{id}`: {status:?}"),
    }
}

/// What a search for everything finds, and whether that was cached.
async fn find_all(
    clients: &mut Clients,
    values: &[f32],
) -> Result<(BTreeMap<String, State>, bool), Status> {
    let request =
        search::SearchRequest { limit: Some(1_000), ..query(COLLECTION, vector(values.to_vec())) };
    let found = clients.search.search(request).await?.into_inner();
    let is_cached = found.timing.is_some_and(|timing| timing.result_cached);
    Ok((states(found.hits.iter().filter_map(|hit| hit.item.as_ref())), is_cached))
}

fn states<'a>(items: impl IntoIterator<Item = &'a search::Item>) -> BTreeMap<String, State> {
    items.into_iter().map(|item| (item.id.clone(), state_of(item))).collect()
}

fn state_of(item: &search::Item) -> State {
    let (picture, version) = (HASHES.get(&item.content_hash), number_of(item, "version"));
    let picture = picture.unwrap_or_else(|| panic!("it shows what it never did: {item:?}"));
    let version = version.unwrap_or_else(|| panic!("it has lost its version: {item:?}"));
    State { version: version as u64, picture: *picture }
}

#[tokio::test]
async fn twenty_crashes_lose_no_update_and_bring_nothing_back() {
    let mesh = Sandbox::builder().in_one_process();
    Ordeal::new(mesh, Service::Mesh).await.run(20, None).await;
}

#[tokio::test]
async fn twenty_crashes_with_redis_as_cache_give_no_answer_of_before() {
    let redis = Redis::start().await.expect("Redis starts");
    let mesh = Sandbox::builder().redis(&redis);
    Ordeal::new(mesh, Service::Search).await.run(20, Some(redis)).await;
}
