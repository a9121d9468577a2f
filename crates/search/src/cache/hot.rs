//! Which queries are worth asking again after a write, and when.
//!
//! A write makes every answer of its collection out of date. Once writes pause, the queries that
//! were asked most are asked again, so that whoever asks next finds an answer. Pure: it is told the
//! time, and asks nothing itself.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::config::Refresh;
use super::key::Key;

/// Queries that are watched, for each that may be asked again.
const WATCHED_PER_QUERY: usize = 16;

/// The queries of all collections, by how often they are asked; `R` knows how to ask one again.
#[derive(Debug)]
pub(super) struct Hot<R> {
    config: Refresh,
    /// A query that was not asked for so long counts from the beginning.
    window: Duration,
    by_uid: HashMap<String, Queries<R>>,
}

#[derive(Debug)]
struct Queries<R> {
    by_key: HashMap<Key, Query<R>>,
    /// The last write that no round followed yet.
    written: Option<Instant>,
    /// When the last round began.
    refreshed: Option<Instant>,
}

#[derive(Debug)]
struct Query<R> {
    asked: u32,
    last: Instant,
    rerun: Option<R>,
}

impl<R: Clone> Hot<R> {
    pub(super) fn new(config: Refresh, window: Duration) -> Self {
        Self { config, window, by_uid: HashMap::new() }
    }

    /// Notes that a query was asked.
    pub(super) fn asked(&mut self, uid: &str, key: Key, now: Instant) {
        if !self.config.enabled {
            return;
        }
        let max_watched = WATCHED_PER_QUERY.saturating_mul(self.config.max_queries.get());
        if !self.by_uid.contains_key(uid) {
            // Another process may have removed collections, which is told to nobody.
            let window = self.window;
            self.by_uid.retain(|_, queries| queries.is_asked(now, window));
            self.by_uid.insert(uid.to_owned(), Queries::new());
        }
        let Some(queries) = self.by_uid.get_mut(uid) else { return };
        if let Some(query) = queries.by_key.get_mut(&key) {
            let is_recent = now.duration_since(query.last) <= self.window;
            query.asked = if is_recent { query.asked.saturating_add(1) } else { 1 };
            query.last = now;
            return;
        }
        if queries.by_key.len() >= max_watched {
            queries.age();
        }
        if queries.by_key.len() < max_watched {
            queries.by_key.insert(key, Query { asked: 1, last: now, rerun: None });
        }
    }

    /// Tells how a query can be asked again. Of one that is asked too seldom nothing is kept.
    pub(super) fn learn(&mut self, uid: &str, key: &Key, rerun: impl FnOnce() -> Option<R>) {
        let query = self.by_uid.get_mut(uid).and_then(|queries| queries.by_key.get_mut(key));
        // A query that may become one of the hot ones with the next asking that is answered from
        // the cache, where nobody knows any more how it was asked.
        if let Some(query) = query.filter(|query| query.asked > 1 && query.rerun.is_none()) {
            query.rerun = rerun();
        }
    }

    /// Notes a write.
    pub(super) fn written(&mut self, uid: &str, now: Instant) {
        // A collection that nobody searches has nothing to be asked again.
        if let Some(queries) = self.by_uid.get_mut(uid) {
            queries.written = Some(now);
        }
    }

    /// The collection is gone.
    pub(super) fn forget(&mut self, uid: &str) {
        self.by_uid.remove(uid);
    }

    /// When the next round is due; `None` when nothing was written.
    pub(super) fn next_round(&self) -> Option<Instant> {
        self.by_uid.values().filter_map(|queries| queries.due(self.config.quiet)).min()
    }

    /// What is to be asked again now, the most asked first.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<(String, Key, R)> {
        let mut taken = Vec::new();
        for (uid, queries) in &mut self.by_uid {
            if queries.due(self.config.quiet).is_none_or(|due| due > now) {
                continue;
            }
            queries.written = None;
            queries.refreshed = Some(now);
            let least = self.config.min_asked.get();
            let is_hot = |query: &Query<R>| {
                query.asked >= least && now.duration_since(query.last) <= self.window
            };
            let mut hot: Vec<_> =
                queries.by_key.iter().filter(|(_, query)| is_hot(query)).collect();
            hot.sort_by_key(|(key, query)| (Reverse(query.asked), key.digest));
            let known = hot.into_iter().filter_map(|(key, query)| {
                query.rerun.clone().map(|rerun| (uid.clone(), *key, rerun))
            });
            taken.extend(known.take(self.config.max_queries.get()));
        }
        taken
    }
}

impl<R> Queries<R> {
    fn new() -> Self {
        Self { by_key: HashMap::new(), written: None, refreshed: None }
    }

    fn is_asked(&self, now: Instant, window: Duration) -> bool {
        self.by_key.values().any(|query| now.duration_since(query.last) <= window)
    }

    fn due(&self, quiet: Duration) -> Option<Instant> {
        let after_write = self.written? + quiet;
        let after_round = self.refreshed.map(|refreshed| refreshed + quiet);
        Some(after_round.map_or(after_write, |round| round.max(after_write)))
    }

    /// Halves what was counted, and lets go of what was asked once: old fame fades.
    fn age(&mut self) {
        self.by_key.retain(|_, query| {
            query.asked /= 2;
            query.asked > 0
        });
    }
}

#[cfg(test)]
mod tests {
    use std::num::{NonZeroU32, NonZeroUsize};

    use super::*;

    const QUIET: Duration = Duration::from_secs(2);
    const WINDOW: Duration = Duration::from_secs(600);

    fn hot() -> Hot<&'static str> {
        let config = Refresh {
            enabled: true,
            min_asked: NonZeroU32::MIN.saturating_add(2),
            max_queries: NonZeroUsize::MIN.saturating_add(1),
            quiet: QUIET,
        };
        Hot::new(config, WINDOW)
    }

    fn key(name: &str) -> Key {
        Key::answer("uid", name.as_bytes())
    }

    /// Asks a query so often, by its name.
    fn ask(hot: &mut Hot<&'static str>, name: &'static str, times: u32, now: Instant) {
        for _ in 0..times {
            hot.asked("uid", key(name), now);
            hot.learn("uid", &key(name), || Some(name));
        }
    }

    fn names(taken: &[(String, Key, &'static str)]) -> Vec<&'static str> {
        taken.iter().map(|(_, _, name)| *name).collect()
    }

    #[test]
    fn the_most_asked_go_first_and_the_rest_not_at_all() {
        let (mut hot, now) = (hot(), Instant::now());
        ask(&mut hot, "seldom", 2, now);
        ask(&mut hot, "often", 4, now);
        ask(&mut hot, "most", 5, now);
        ask(&mut hot, "enough", 3, now);
        hot.written("uid", now);
        assert_eq!(names(&hot.take_due(now + QUIET)), ["most", "often"], "two at most");
    }

    #[test]
    fn waits_until_writes_pause() {
        let (mut hot, now) = (hot(), Instant::now());
        ask(&mut hot, "hot", 3, now);
        assert_eq!(hot.next_round(), None, "nothing was written");
        for second in 0..10 {
            let now = now + Duration::from_secs(second);
            hot.written("uid", now);
            assert!(hot.take_due(now + QUIET / 2).is_empty(), "there may be another");
        }
        let last = now + Duration::from_secs(9);
        assert_eq!(hot.next_round(), Some(last + QUIET), "after the last");
        assert_eq!(names(&hot.take_due(last + QUIET)), ["hot"], "once for all of them");
        assert_eq!(hot.next_round(), None, "and no more");
    }

    #[test]
    fn rounds_keep_a_distance() {
        let (mut hot, now) = (hot(), Instant::now());
        ask(&mut hot, "hot", 3, now);
        hot.written("uid", now);
        let late = now + 10 * QUIET;
        assert_eq!(names(&hot.take_due(late)), ["hot"], "a round that was late");
        hot.written("uid", late - QUIET);
        assert_eq!(hot.next_round(), Some(late + QUIET), "is followed at the same distance");
    }

    #[test]
    fn old_fame_fades() {
        let (mut hot, now) = (hot(), Instant::now());
        ask(&mut hot, "yesterday", 100, now);
        let later = now + WINDOW + Duration::from_secs(1);
        hot.written("uid", later);
        assert!(hot.take_due(later + QUIET).is_empty(), "nobody asks it now");
        ask(&mut hot, "yesterday", 1, later);
        hot.written("uid", later);
        assert!(hot.take_due(later + 3 * QUIET).is_empty(), "it counts from the beginning");
    }

    #[test]
    fn unique_queries_neither_pile_up_nor_push_out_hot_ones() {
        const NAMES: [&str; 4] = ["a", "b", "c", "d"];
        let (mut hot, now) = (hot(), Instant::now());
        ask(&mut hot, "hot", 1_000, now);
        for i in 0..1_000 {
            let name = format!("{}{i}", NAMES[i % 4]);
            hot.asked("uid", key(&name), now);
            ask(&mut hot, "hot", 5, now);
        }
        let watched = hot.by_uid["uid"].by_key.len();
        assert!(watched <= 2 * WATCHED_PER_QUERY, "{watched} are watched");
        hot.written("uid", now);
        assert_eq!(names(&hot.take_due(now + QUIET)), ["hot"], "it is still known");
    }

    #[test]
    fn what_nobody_searches_and_what_is_gone_is_left_alone() {
        let (mut hot, now) = (hot(), Instant::now());
        hot.written("uid", now);
        assert_eq!(hot.next_round(), None, "no query, no round");
        ask(&mut hot, "hot", 3, now);
        hot.written("uid", now);
        hot.forget("uid");
        assert_eq!(hot.next_round(), None, "the collection is gone");
        for uid in ["a", "b", "c"] {
            hot.asked(uid, key("hot"), now);
        }
        let later = now + WINDOW;
        hot.asked("b", key("hot"), later);
        hot.asked("new", key("hot"), later + Duration::from_millis(1));
        let mut watched: Vec<_> = hot.by_uid.keys().map(String::as_str).collect();
        watched.sort_unstable();
        assert_eq!(watched, ["b", "new"], "those that nobody asks may be gone");
        let off = Refresh { enabled: false, ..Refresh::default() };
        let mut hot = Hot::new(off, WINDOW);
        ask(&mut hot, "hot", 3, now);
        hot.written("uid", now);
        assert_eq!(hot.next_round(), None, "switched off");
    }
}
