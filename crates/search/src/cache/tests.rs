//! The caches as a search uses them: in memory, and over real servers that several replicas share.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};

use clipmesh_proto::Embedding;
use clipmesh_proto::code::{FieldViolation, Reason};
use clipmesh_proto::ids::{CollectionName, ContentHash, Fingerprint};

use super::contract::eventually;
use super::entry::{Found, Generation};
use super::look_up::LookUp;
use super::redis::server::Server;
use super::*;
use crate::embedder::Embedded;
use crate::item;
use crate::store::Distance;
use crate::store::index::{Indexes, VectorIndex};

const COST: Duration = Duration::from_millis(2);

/// A collection of a store that counts its changes, or of one that does not.
fn collection(generation: Option<u64>) -> Collection {
    Collection {
        name: CollectionName::try_from("pictures".to_owned()).expect("a name"),
        uid: "uid".to_owned(),
        fingerprint: model("a"),
        model_name: "tiny".to_owned(),
        dimension: 2,
        distance: Distance::Cosine,
        indexes: Indexes::default(),
        vector_index: VectorIndex::default(),
        word_fields: Vec::new(),
        create_time: item::now(),
        generation,
    }
}

fn model(digit: &str) -> Fingerprint {
    Fingerprint::try_from(digit.repeat(64)).expect("64 digits")
}

fn response(score: f32) -> v1::SearchResponse {
    let hit = v1::Hit { score, ..v1::Hit::default() };
    v1::SearchResponse { hits: vec![hit], ..v1::SearchResponse::default() }
}

fn vector() -> Known {
    let vector = Embedding::new(vec![0.6, 0.8]).expect("a direction");
    Known::Embedded(Embedded { vector, image: None, thumbnail: None })
}

fn no_rerun() -> Option<Rerun> {
    None
}

fn in_memory() -> Caches {
    Caches::new(&Config::default()).expect("it needs nothing")
}

/// A replica that shares a server with others.
fn replica(server: &Server) -> Caches {
    let config = Config { kind: Kind::Redis, redis: server.config(), ..Config::default() };
    Caches::new(&config).expect("an address")
}

async fn look_up(caches: &Caches, collection: &Collection) -> LookUp {
    caches.look_up(collection, b"query", &[]).await
}

async fn answer(caches: &Caches, collection: &Collection) -> Option<v1::SearchResponse> {
    look_up(caches, collection).await.answer
}

/// Asks until an answer is kept: at once, or at the second asking.
async fn keep(caches: &Caches, collection: &Collection, score: f32) {
    for _ in 0..3 {
        let looked_up = look_up(caches, collection).await;
        if looked_up.answer.is_some() {
            return;
        }
        caches.keep(looked_up.ticket, &response(score), COST, no_rerun).await;
        settle(caches).await;
    }
    panic!("it was asked often enough");
}

/// Waits for what is done behind the calls.
async fn settle(caches: &Caches) {
    if let Some(writer) = &caches.0.writer {
        writer.flush().await;
    }
}

/// What holds wherever things are kept.
async fn keeps_answers_until_something_is_written(caches: &Caches) {
    let before = collection(Some(7));
    assert_eq!(answer(caches, &before).await, None, "nothing yet");
    keep(caches, &before, 0.5).await;
    assert_eq!(answer(caches, &before).await, Some(response(0.5)), "kept");
    let other = caches.look_up(&before, b"another", &[]).await;
    assert_eq!(other.answer, None, "of another query");
    let elsewhere = Collection { uid: "other".to_owned(), ..before.clone() };
    assert_eq!(answer(caches, &elsewhere).await, None, "of another collection");

    let after = collection(Some(8));
    caches.raise(&after).await;
    let stale = look_up(caches, &after).await;
    assert_eq!(stale.answer, None, "out of date");
    caches.keep(stale.ticket, &response(0.7), COST, no_rerun).await;
    settle(caches).await;
    assert_eq!(answer(caches, &after).await, Some(response(0.7)), "replaced at once: it was asked");

    caches.clear(&after).await;
    assert_eq!(answer(caches, &after).await, None, "cleared");
    let answers = caches.stats("uid").results;
    assert_eq!(answers.hits, 3, "{answers:?}");
    assert!((answers.saved_ms - 6.0).abs() < 0.1, "three times two: {answers:?}");
    caches.forget("uid");
    assert_eq!(caches.stats("uid").results, v1::CacheStats::default(), "the collection is gone");
}

/// What holds wherever things are kept.
async fn keeps_vectors_by_model_and_content(caches: &Caches) {
    let hash = ContentHash::of(b"a picture");
    let (picture, words) = (Key::image(&model("a"), &hash), Key::text(&model("a"), "words"));
    let violation = FieldViolation::new("inputs[0].image", Reason::NotAnImage, "no image");
    caches.keep_vector(words, &vector(), COST).await;
    caches.keep_vector(picture, &Known::Refused(violation.clone()), COST).await;
    settle(caches).await;
    let keys = [picture, Key::text(&model("a"), "other words"), words];
    let found = caches.look_up(&collection(Some(1)), b"q", &keys).await.vectors;
    let expected = [Some(Known::Refused(violation)), None, Some(vector())];
    assert_eq!(found, expected, "each in its place, what is no picture among them");
    assert_eq!(caches.vector(words).await, Some(vector()), "by itself");
    for key in [Key::text(&model("b"), "words"), Key::image(&model("b"), &hash)] {
        assert_eq!(caches.vector(key).await, None, "another model made none of it");
    }
    let vectors = caches.stats("uid").embeddings;
    assert_eq!((vectors.hits, vectors.misses, vectors.bypasses), (3, 3, 0), "{vectors:?}");
}

#[tokio::test]
async fn memory_keeps_its_contract() {
    contract::run(&memory::Memory::new(&Config::default())).await;
}

#[tokio::test]
async fn memory_keeps_answers_until_something_is_written() {
    keeps_answers_until_something_is_written(&in_memory()).await;
}

#[tokio::test]
async fn redis_keeps_answers_until_something_is_written() {
    let server = Server::start();
    keeps_answers_until_something_is_written(&replica(&server)).await;
}

#[tokio::test]
async fn memory_keeps_vectors_by_model_and_content() {
    keeps_vectors_by_model_and_content(&in_memory()).await;
}

#[tokio::test]
async fn redis_keeps_vectors_by_model_and_content() {
    let server = Server::start();
    keeps_vectors_by_model_and_content(&replica(&server)).await;
}

#[tokio::test]
async fn what_was_written_while_the_store_was_asked_counts() {
    let caches = in_memory();
    let before = collection(Some(1));
    let asked = look_up(&caches, &before).await;
    // A write comes in between, and the answer may or may not show it.
    caches.keep(asked.ticket, &response(0.5), COST, no_rerun).await;
    assert_eq!(answer(&caches, &collection(Some(2))).await, None, "it is of the time before");

    let server = Server::start();
    let caches = replica(&server);
    let shared = collection(None);
    keep(&caches, &shared, 0.1).await;
    caches.raise(&shared).await;
    let asked = look_up(&caches, &shared).await;
    caches.raise(&shared).await;
    caches.keep(asked.ticket, &response(0.5), COST, no_rerun).await;
    settle(&caches).await;
    assert_eq!(answer(&caches, &shared).await, None, "nor is it kept for all replicas");
}

#[tokio::test]
async fn a_cache_that_is_off_says_so() {
    let config = Config { kind: Kind::Off, ..Config::default() };
    let caches = Caches::new(&config).expect("it needs nothing");
    let words = Key::text(&model("a"), "words");
    caches.keep_vector(words, &vector(), COST).await;
    let looked_up = caches.look_up(&collection(Some(1)), b"query", &[words]).await;
    assert!(looked_up.bypassed, "it was not asked");
    assert_eq!(looked_up.vectors, [None], "one for each key");
    caches.keep(looked_up.ticket, &response(0.5), COST, no_rerun).await;
    caches.raise(&collection(None)).await;
    caches.clear(&collection(None)).await;
    let Stats { results: answers, embeddings: vectors } = caches.stats("uid");
    assert_eq!((answers.bypasses, vectors.bypasses), (1, 1), "both are counted");
}

#[tokio::test]
async fn a_process_alone_keeps_no_answers_that_others_make_wrong() {
    let caches = in_memory();
    let shared = collection(None);
    for _ in 0..3 {
        let looked_up = look_up(&caches, &shared).await;
        assert!(looked_up.bypassed, "others may write to the store");
        assert_eq!(looked_up.answer, None, "so nothing is kept");
        caches.keep(looked_up.ticket, &response(0.5), COST, no_rerun).await;
    }
    let words = Key::text(&model("a"), "words");
    caches.keep_vector(words, &vector(), COST).await;
    let looked_up = caches.look_up(&shared, b"query", &[words]).await;
    assert_eq!(looked_up.vectors, [Some(vector())], "but vectors are what they are");
}

#[tokio::test]
async fn unique_queries_cost_a_shared_cache_nothing() {
    let server = Server::start();
    let caches = replica(&server);
    let collection = collection(Some(1));
    for i in 0..100_u32 {
        let asked = caches.look_up(&collection, &i.to_le_bytes(), &[]).await;
        caches.keep(asked.ticket, &response(0.5), COST, no_rerun).await;
    }
    settle(&caches).await;
    let names: Vec<String> = server.command(&["KEYS", "*:answer:*"]);
    assert_eq!(names, Vec::<String>::new(), "none was asked twice");
}

#[tokio::test]
async fn replicas_share_answers_writes_and_vectors() {
    let server = Server::start();
    let (one, other) = (replica(&server), replica(&server));
    let collection = collection(None);
    keep(&one, &collection, 0.5).await;
    assert_eq!(answer(&other, &collection).await, Some(response(0.5)), "what one found");
    other.raise(&collection).await;
    assert_eq!(answer(&one, &collection).await, None, "what the other made out of date");
    let words = Key::text(&model("a"), "words");
    one.keep_vector(words, &vector(), COST).await;
    settle(&one).await;
    assert_eq!(other.vector(words).await, Some(vector()), "what one embedded");
}

#[tokio::test]
async fn a_vector_that_several_replicas_want_is_made_once() {
    let server = Server::start();
    let (one, other) = (replica(&server), replica(&server));
    let words = Key::text(&model("a"), "words");
    let Turn::Mine(Some(lease)) = one.turn(words).await else { panic!("nobody else wants it") };
    let waiting = other.turn(words);
    let mut waiting = std::pin::pin!(waiting);
    // Far enough to see that it is another's.
    let early = tokio::time::timeout(Duration::from_millis(20), &mut waiting).await;
    assert!(early.is_err(), "it waits: {early:?}");
    settle(&other).await;
    let commands: String = server.command(&["INFO", "commandstats"]);
    assert!(!commands.contains("cmdstat_eval"), "it ends no lease that it has not: {commands}");
    one.keep_vector(words, &vector(), COST).await;
    drop(lease);
    let Turn::Made(known) = waiting.await else { panic!("it was made meanwhile") };
    assert_eq!(known, vector(), "what the first made");
    settle(&one).await;
    let Turn::Mine(Some(_)) = other.turn(words).await else { panic!("the lease was ended") };
}

#[tokio::test]
async fn whoever_fails_leaves_the_turn_to_the_next() {
    let server = Server::start();
    let (one, other) = (replica(&server), replica(&server));
    let words = Key::text(&model("a"), "words");
    let Turn::Mine(Some(lease)) = one.turn(words).await else { panic!("nobody else wants it") };
    let (next, ()) = tokio::join!(other.turn(words), async { drop(lease) });
    let Turn::Mine(Some(_)) = next else { panic!("there is nothing to wait for: {next:?}") };
}

#[tokio::test]
async fn whoever_dies_holds_nobody_up_for_ever() {
    let server = Server::start();
    let (one, mut config) = (replica(&server), server.config());
    config.lease = Duration::from_millis(50);
    let config = Config { kind: Kind::Redis, redis: config, ..Config::default() };
    let other = Caches::new(&config).expect("an address");
    let words = Key::text(&model("a"), "words");
    let Turn::Mine(Some(lease)) = one.turn(words).await else { panic!("nobody else wants it") };
    let Turn::Mine(None) = other.turn(words).await else { panic!("it waited long enough") };
    drop(lease);
}

#[tokio::test]
async fn garbage_is_a_miss_and_is_replaced() {
    let server = Server::start();
    let caches = replica(&server);
    let collection = collection(Some(1));
    let words = Key::text(&model("a"), "words");
    keep(&caches, &collection, 0.5).await;
    caches.keep_vector(words, &vector(), COST).await;
    settle(&caches).await;
    for garbage in ["", "x", "\u{1}\0\0\0\0\u{7}", "\u{1}\0\0\0\0\0\u{F}\u{F}\u{F}\u{F}"] {
        let names: Vec<String> = server.command(&["KEYS", "clipmesh:1:*"]);
        let values = names.iter().filter(|name| !name.contains(":generation:"));
        for name in values {
            server.command::<()>(&["SET", name, garbage]);
        }
        let looked_up = caches.look_up(&collection, b"query", &[words]).await;
        assert_eq!(looked_up.answer, None, "{garbage:?} is no answer");
        assert_eq!(looked_up.vectors, [None], "nor a vector");
        assert!(!looked_up.bypassed, "the cache itself is well");
        caches.keep(looked_up.ticket, &response(0.5), COST, no_rerun).await;
        settle(&caches).await;
        assert_eq!(answer(&caches, &collection).await, Some(response(0.5)), "replaced");
    }
}

#[tokio::test]
async fn a_count_that_was_lost_revives_no_old_answer() {
    let server = Server::start();
    let caches = replica(&server);
    let collection = collection(None);
    keep(&caches, &collection, 0.5).await;
    let names: Vec<String> = server.command(&["KEYS", "*:generation:*"]);
    server.command::<()>(&["DEL", &names[0]]);
    assert_eq!(answer(&caches, &collection).await, None, "nobody knows what was written since");
    let again: Vec<String> = server.command(&["KEYS", "*:generation:*"]);
    assert_eq!(again, names, "counted anew");
}

#[tokio::test]
async fn a_snapshot_revives_no_old_answer() {
    let mut server = Server::start();
    let (caches, collection) = (replica(&server), collection(None));
    keep(&caches, &collection, 0.5).await;
    server.command::<()>(&["SAVE"]);
    caches.raise(&collection).await;
    server.kill();
    server.restart();
    let names: Vec<String> = server.command(&["KEYS", "*"]);
    assert_eq!(names.len(), 2, "it has the answer, and the count that it was found at: {names:?}");
    let is_reached = || async { !look_up(&caches, &collection).await.bypassed };
    eventually("it is reached", is_reached).await;
    assert_eq!(answer(&caches, &collection).await, None, "but of another run of the server");
}

#[tokio::test]
async fn a_write_that_is_found_to_be_made_is_told_unless_it_was_long_ago() {
    let server = Server::start();
    let caches = replica(&server);
    let collection = collection(None);
    let ago = |time: Duration| Some(Timestamp::now() - time);
    let ttl = Config::default().results_ttl;
    for (written, is_told) in
        [(ago(ttl + 2 * SLACK), false), (ago(ttl), true), (ago(Duration::ZERO), true), (None, true)]
    {
        keep(&caches, &collection, 0.5).await;
        caches.confirm(&collection, written).await;
        let kept = answer(&caches, &collection).await;
        assert_eq!(kept.is_none(), is_told, "{written:?}");
    }
}

#[test]
fn nothing_is_kept_longer_than_its_time() {
    let time = Duration::from_secs(100);
    for (chance, millis) in [(0.0, 100_000), (0.5, 95_000), (1.0, 90_000)] {
        assert_eq!(jittered(time, chance), Duration::from_millis(millis), "{chance}");
    }
}

#[tokio::test]
async fn a_write_that_could_not_be_told_stops_answers_until_it_is() {
    let server = Server::start();
    let mut config = server.config();
    config.timeout = Duration::from_millis(50);
    let config = Config { kind: Kind::Redis, redis: config, ..Config::default() };
    let (writer, reader) = (Caches::new(&config).expect("an address"), replica(&server));
    let collection = collection(None);
    keep(&reader, &collection, 0.5).await;
    let is_found = || async { answer(&writer, &collection).await.is_some() };
    eventually("both find it", is_found).await;
    server.stall();
    writer.raise(&collection).await;
    assert!(look_up(&writer, &collection).await.bypassed, "what it finds may be out of date");
    server.go_on();
    let is_told = || async { !look_up(&writer, &collection).await.bypassed };
    eventually("it is told behind the calls", is_told).await;
    assert_eq!(answer(&writer, &collection).await, None, "and the old answer is not given");
    assert_eq!(answer(&reader, &collection).await, None, "by nobody");
}

#[tokio::test]
async fn what_is_untold_at_the_end_is_told_then() {
    let server = Server::start();
    let mut config = server.config();
    (config.timeout, config.max_failures) = (Duration::from_millis(50), NonZeroU32::MAX);
    let config = Config { kind: Kind::Redis, redis: config, ..Config::default() };
    let (writer, reader) = (Caches::new(&config).expect("an address"), replica(&server));
    let collection = collection(None);
    keep(&reader, &collection, 0.5).await;
    server.stall();
    writer.raise(&collection).await;
    server.go_on();
    writer.close().await;
    drop(writer);
    assert_eq!(answer(&reader, &collection).await, None, "the next replica knows");
}

#[tokio::test]
async fn a_server_that_comes_and_goes_under_load_costs_no_search() {
    let mut server = Server::start();
    let caches = replica(&server);
    let is_over = AtomicUsize::new(0);
    let callers = (0..8_u32).map(|caller| {
        let (caches, is_over) = (caches.clone(), &is_over);
        async move {
            let (mut asked, words) = (0_u32, Key::text(&model("a"), "words"));
            while is_over.load(Ordering::Relaxed) == 0 || asked < 10 {
                let query = [caller.to_le_bytes(), (asked % 5).to_le_bytes()].concat();
                let looked_up = caches.look_up(&collection(None), &query, &[words]).await;
                if let Some(answer) = looked_up.answer {
                    assert_eq!(answer, response(0.5), "an answer is right or not there");
                } else {
                    caches.keep(looked_up.ticket, &response(0.5), COST, no_rerun).await;
                }
                asked += 1;
                tokio::task::yield_now().await;
            }
        }
    });
    let is_hit = || async {
        let hits = caches.stats("uid").results.hits;
        eventually("it is used", || async { caches.stats("uid").results.hits > hits + 100 }).await;
        true
    };
    let trouble = async {
        for _ in 0..3 {
            is_hit().await;
            server.kill();
            let bypasses = caches.stats("uid").results.bypasses;
            let is_bypassed = || async { caches.stats("uid").results.bypasses > bypasses + 100 };
            eventually("searches go on without", is_bypassed).await;
            server.restart();
        }
        is_hit().await;
        is_over.store(1, Ordering::Relaxed);
    };
    tokio::join!(futures::future::join_all(callers), trouble);
}

#[tokio::test]
async fn hot_queries_are_asked_again_after_a_write() {
    let refresh = config::Refresh { quiet: Duration::from_millis(10), ..Default::default() };
    let caches = Caches::new(&Config { refresh, ..Config::default() }).expect("in memory");
    let reruns = Arc::new(AtomicUsize::new(0));
    let ask = |generation: u64| {
        let (caches, reruns) = (caches.clone(), Arc::clone(&reruns));
        async move {
            let looked_up = look_up(&caches, &collection(Some(generation))).await;
            let rerun = move || {
                let reruns = Arc::clone(&reruns);
                Some(Rerun::new(move || {
                    reruns.fetch_add(1, Ordering::Relaxed);
                    Box::pin(async { Some((collection(Some(4)), response(0.9))) })
                }))
            };
            caches.keep(looked_up.ticket, &response(0.5), COST, rerun).await;
            looked_up.answer
        }
    };
    // The second one comes after a write: a query that always hits shows nobody how to ask it.
    for generation in [1, 2, 3] {
        assert_eq!(ask(generation).await, None, "a write came before it");
    }
    caches.raise(&collection(Some(4))).await;
    let is_kept = || async {
        caches.fetch(vec![Key::answer("uid", b"query")]).await.is_ok_and(|values| {
            let now = Generation { store: 4, counter: 0 };
            let found = values[0].clone().and_then(|value| Found::decode(value, now));
            matches!(found, Some(Found::Current(_)))
        })
    };
    eventually("it is kept at the generation of now", is_kept).await;
    assert_eq!(reruns.load(Ordering::Relaxed), 1, "asked again once");
    assert_eq!(ask(4).await, Some(response(0.9)), "the next caller does not wait");
}
