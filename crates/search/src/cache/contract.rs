//! What every cache must do, whatever it is made of.

use std::time::Duration;

use bytes::Bytes;

use super::key::Key;
use super::{Cache, Entry};

const LONG: Duration = Duration::from_secs(60);

/// Runs the whole suite. It needs a cache with nothing in it that is reached at once.
pub(super) async fn run(cache: &dyn Cache) {
    gives_back_what_was_put_in(cache).await;
    forgets_when_the_time_is_up(cache).await;
    counts_where_nothing_was_counted(cache).await;
    if cache.shared().is_some() {
        gives_a_lease_to_one(cache).await;
    }
}

/// Waits until something holds; the limit is only for the case that it never does.
pub(super) async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let outcome = tokio::time::timeout(Duration::from_secs(30), waiting).await;
    assert!(outcome.is_ok(), "{what}");
}

fn key(name: &str) -> Key {
    Key::answer("contract", name.as_bytes())
}

fn entry(name: &str, value: impl Into<Bytes>, time_to_live: Duration) -> Entry {
    Entry { key: key(name), value: value.into(), time_to_live }
}

async fn fetch(cache: &dyn Cache, names: &[&str]) -> Vec<Option<Bytes>> {
    cache.fetch(names.iter().map(|name| key(name)).collect()).await.expect("it is reached")
}

async fn gives_back_what_was_put_in(cache: &dyn Cache) {
    assert_eq!(fetch(cache, &["a", "b"]).await, [None, None], "nothing yet");
    let large = vec![7; 1 << 20];
    let entries = vec![
        entry("a", "1", LONG),
        entry("empty", "", LONG),
        entry("large", large.clone(), LONG),
        entry("bytes", &b"\r\n\0\xFF"[..], LONG),
    ];
    cache.store(entries).await.expect("it is reached");
    let found = fetch(cache, &["large", "missing", "a", "bytes", "empty", "a"]).await;
    let bytes = |bytes: &[u8]| Some(Bytes::copy_from_slice(bytes));
    let expected =
        [bytes(&large), None, bytes(b"1"), bytes(b"\r\n\0\xFF"), bytes(b""), bytes(b"1")];
    assert!(found == expected, "in the order of the keys, byte for byte");
    cache.store(vec![entry("a", "2", LONG)]).await.expect("it is reached");
    assert_eq!(fetch(cache, &["a"]).await, [bytes(b"2")], "replaced");
}

async fn forgets_when_the_time_is_up(cache: &dyn Cache) {
    let short = Duration::from_millis(1);
    let entries = vec![entry("short", "1", short), entry("long", "1", LONG)];
    cache.store(entries).await.expect("it is reached");
    eventually("its time is up", || async { fetch(cache, &["short"]).await[0].is_none() }).await;
    assert!(fetch(cache, &["long"]).await[0].is_some(), "each has its own time");
}

async fn counts_where_nothing_was_counted(cache: &dyn Cache) {
    let (one, other) = (Key::generation("one"), Key::generation("other"));
    let fetched = cache.fetch(vec![one]).await.expect("it is reached");
    assert_eq!(fetched, [None], "nothing is counted");
    let start = cache.count(one).await.expect("it is reached");
    assert_eq!(cache.count(one).await, Ok(start), "it stays as it is");
    cache.raise(one).await.expect("it is reached");
    let raised = cache.count(one).await.expect("it is reached");
    assert_ne!(raised, start, "until it is raised");
    let fetched = cache.fetch(vec![other, one]).await.expect("it is reached");
    assert_eq!(fetched, [None, Some(raised.to_string().into())], "in digits, among other values");
    cache.raise(other).await.expect("one that was not there is raised, too");
    assert_eq!(cache.count(one).await, Ok(raised), "each by itself");
}

async fn gives_a_lease_to_one(cache: &dyn Cache) {
    let leases = cache.shared().expect("it is shared");
    let lease = |name: &str| key(name).lease();
    let take = |name: &str, token, time| leases.lease(lease(name), token, time);
    assert_eq!(take("a", 1, LONG).await, Ok(true), "it is free");
    assert_eq!(take("a", 2, LONG).await, Ok(false), "and then another's");
    assert_eq!(take("b", 2, LONG).await, Ok(true), "each by itself");
    leases.release(vec![(lease("a"), 2), (lease("b"), 1)]).await.expect("it is reached");
    assert_eq!(take("a", 2, LONG).await, Ok(false), "nobody ends what is another's");
    leases.release(vec![(lease("a"), 1), (lease("b"), 2)]).await.expect("it is reached");
    assert_eq!(take("a", 2, LONG).await, Ok(true), "whoever has it does");
    assert_eq!(take("b", 1, LONG).await, Ok(true), "all of them");
    let short = Duration::from_millis(1);
    assert_eq!(take("c", 1, short).await, Ok(true), "one for a short time");
    eventually("it runs out by itself", || async { take("c", 2, LONG).await == Ok(true) }).await;
}
