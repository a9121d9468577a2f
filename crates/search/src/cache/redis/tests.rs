//! The cache over real servers, well and ill.

use super::proxy::Proxy;
use super::server::{Server, cluster, sentinel, with_tls};
use std::num::{NonZeroU32, NonZeroUsize};

use super::*;
use crate::cache::contract::{self, eventually};

const LONG: Duration = Duration::from_secs(60);

fn cache(config: &Config) -> Redis {
    Redis::new(config).expect("an address")
}

fn key(name: &str) -> Key {
    Key::text(&"a".repeat(64).try_into().expect("64 digits"), name)
}

async fn reached(cache: &Redis) {
    let is_reached = || async { cache.fetch(vec![key("a")]).await.is_ok() };
    eventually("it is reached", is_reached).await;
}

#[tokio::test]
async fn a_server_keeps_the_contract() {
    let server = Server::start();
    contract::run(&cache(&server.config())).await;
}

#[tokio::test]
async fn a_cluster_keeps_the_contract_whatever_the_slots() {
    let (servers, config) = cluster();
    let cache = cache(&config);
    contract::run(&cache).await;
    let keys: Vec<_> = (0..100).map(|i| key(&i.to_string())).collect();
    let entry = |key: &Key| Entry {
        key: *key,
        value: Bytes::copy_from_slice(&key.digest),
        time_to_live: LONG,
    };
    cache.store(keys.iter().map(entry).collect()).await.expect("it is reached");
    let found = cache.fetch(keys.clone()).await.expect("it is reached");
    for (key, value) in keys.iter().zip(found) {
        assert_eq!(value.as_deref(), Some(&key.digest[..]), "each under its own key");
    }
    for server in &servers {
        let size: usize = server.command(&["DBSIZE"]);
        assert!(size > 10, "{size}: every node has its share");
    }
}

#[tokio::test]
async fn a_cluster_without_a_node_is_reached_again_when_it_is_back() {
    let (mut servers, config) = cluster();
    let cache = cache(&config);
    reached(&cache).await;
    servers[1].kill();
    let keys: Vec<_> = (0..100).map(|i| key(&i.to_string())).collect();
    assert_eq!(cache.fetch(keys.clone()).await, Err(Bypassed), "a third of the keys is gone");
    servers[1].restart();
    let is_reached = || async { cache.fetch(keys.clone()).await.is_ok() };
    eventually("it is reached again", is_reached).await;
}

#[tokio::test]
async fn sentinels_tell_where_the_server_is_and_where_it_went() {
    let (mut leader, replica, _sentinel, config) = sentinel();
    let cache = cache(&config);
    contract::run(&cache).await;
    let size: usize = leader.command(&["DBSIZE"]);
    assert!(size > 0, "the leader was asked");
    leader.kill();
    let entry = || Entry { key: key("a"), value: "1".into(), time_to_live: LONG };
    let is_stored = || async { cache.store(vec![entry()]).await.is_ok() };
    eventually("the replica leads and takes writes", is_stored).await;
    let role: Vec<deadpool_redis::redis::Value> = replica.command(&["ROLE"]);
    let role: String = from_redis_value(role[0].clone()).expect("a word");
    assert_eq!(role, "master", "it was the replica");
}

#[tokio::test]
async fn only_the_right_password_opens() {
    let server = Server::with(&["--requirepass", "right"]);
    for (password, is_right) in [("right", true), ("wrong", false), ("", false)] {
        let password = crate::secret::Secret::new(password);
        let config = Config { password, ..server.config() };
        let outcome = cache(&config).fetch(vec![key("a")]).await;
        assert_eq!(outcome.is_ok(), is_right, "{config:?}");
    }
}

#[tokio::test]
async fn users_and_databases_are_told_apart() {
    let server = Server::start();
    server.command::<()>(&["ACL", "SETUSER", "cache", "on", ">pw", "~pictures:*", "+@all"]);
    let login = Config {
        username: "cache".to_owned(),
        password: crate::secret::Secret::new("pw"),
        db: 3,
        prefix: "pictures".to_owned(),
        ..server.config()
    };
    let entry = Entry { key: key("a"), value: "1".into(), time_to_live: LONG };
    cache(&login).store(vec![entry.clone()]).await.expect("its own keys");
    let other = Config { prefix: "others".to_owned(), ..login };
    assert_eq!(cache(&other).store(vec![entry]).await, Err(Bypassed), "and no others");
    let found = cache(&server.config()).fetch(vec![key("a")]).await;
    assert_eq!(found, Ok(vec![None]), "another database");
    let info: String = server.command(&["INFO", "keyspace"]);
    assert!(info.contains("db3:keys=1"), "in the third: {info}");
}

#[tokio::test]
async fn keys_tell_an_operator_whose_they_are() {
    let server = Server::start();
    let entry = Entry { key: key("a"), value: "1".into(), time_to_live: LONG };
    cache(&server.config()).store(vec![entry]).await.expect("it is reached");
    let names: Vec<String> = server.command(&["KEYS", "*"]);
    let [name] = names.as_slice() else { panic!("one key: {names:?}") };
    assert!(name.starts_with("clipmesh:1:text:"), "{name}");
    let millis: u64 = server.command(&["PTTL", name]);
    assert!(millis <= 60_000, "{millis}: everything goes one day");
}

#[tokio::test]
async fn a_server_that_is_full_is_still_read() {
    let server = Server::start();
    let cache = cache(&server.config());
    let entry = |name| Entry { key: key(name), value: "1".into(), time_to_live: LONG };
    cache.store(vec![entry("a")]).await.expect("there is room");
    server.command::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    for _ in 0..2 * server.config().max_failures.get() {
        assert_eq!(cache.store(vec![entry("b")]).await, Err(Bypassed), "no room");
    }
    let found = cache.fetch(vec![key("a"), key("b")]).await;
    assert_eq!(found, Ok(vec![Some("1".into()), None]), "that is no reason to leave it alone");
}

#[tokio::test]
async fn a_server_that_was_restarted_costs_no_call() {
    let mut server = Server::start();
    let cache = cache(&server.config());
    for _ in 0..8 {
        cache.fetch(vec![key("a")]).await.expect("each connection is made");
    }
    server.kill();
    server.restart();
    for _ in 0..8 {
        let found = cache.fetch(vec![key("a")]).await;
        assert_eq!(found, Ok(vec![None]), "asked again over a new connection");
    }
}

#[tokio::test]
async fn a_server_that_is_gone_is_left_alone_and_found_again() {
    let mut server = Server::start();
    let config = Config { min_ejection: LONG, max_ejection: LONG, ..server.config() };
    let patient = cache(&config);
    let cache = cache(&server.config());
    reached(&cache).await;
    reached(&patient).await;
    server.kill();
    for _ in 0..config.max_failures.get() {
        assert_eq!(patient.fetch(vec![key("a")]).await, Err(Bypassed), "it does not answer");
    }
    server.restart();
    assert_eq!(patient.fetch(vec![key("a")]).await, Err(Bypassed), "it is not even asked");
    reached(&cache).await;
}

#[tokio::test]
async fn a_server_that_stands_still_is_left_alone_and_found_again() {
    let server = Server::start();
    let timeout = Duration::from_millis(20);
    let config = Config { timeout, ..server.config() };
    let cache = cache(&config);
    reached(&cache).await;
    server.stall();
    let is_left_alone = || async {
        let outcome = cache.fetch(vec![key("a")]).await;
        // Without a wait: the future was never pending.
        let at_once = futures::poll!(cache.fetch(vec![key("a")])).is_ready();
        outcome.is_err() && at_once
    };
    eventually("it is left alone", is_left_alone).await;
    server.go_on();
    reached(&cache).await;
}

#[tokio::test]
async fn a_connection_that_took_longer_than_calls_wait_is_used_by_the_next_probe() {
    let server = Server::start();
    let proxy = Proxy::to(server.port).await;
    let url = format!("redis://127.0.0.1:{}", proxy.port);
    let max_failures = NonZeroU32::MIN;
    let cache = cache(&Config { url, max_failures, ..server.config() });
    assert_eq!(cache.fetch(vec![key("a")]).await, Err(Bypassed), "it connects for too long");
    // One connection is let through, and no other ever.
    proxy.leave.add_permits(1);
    for _ in 0..8 {
        reached(&cache).await;
    }
}

#[tokio::test]
async fn a_connection_that_is_dead_is_replaced_though_others_answer() {
    let server = Server::start();
    let proxy = Proxy::to(server.port).await;
    proxy.leave.add_permits(100);
    let url = format!("redis://127.0.0.1:{}", proxy.port);
    let connections = NonZeroUsize::MIN.saturating_add(1);
    let cache = cache(&Config { url, connections, ..server.config() });
    let open = || cache.links.opened();
    eventually("both are open", || async {
        cache.fetch(vec![key("a")]).await.is_ok() && open() == 2
    })
    .await;
    proxy.silence(1);
    for _ in 0..2 {
        // One of the two has to find it out.
        cache.fetch(vec![key("a")]).await.ok();
    }
    for _ in 0..8 {
        assert_eq!(cache.fetch(vec![key("a")]).await, Ok(vec![None]), "it is not used again");
    }
}

#[tokio::test]
async fn a_raise_is_told_while_the_server_is_left_alone() {
    let mut server = Server::start();
    let config = Config { min_ejection: LONG, max_ejection: LONG, ..server.config() };
    let (cache, counter) = (cache(&config), Key::generation("uid"));
    reached(&cache).await;
    server.kill();
    for _ in 0..config.max_failures.get() {
        assert_eq!(cache.fetch(vec![key("a")]).await, Err(Bypassed), "it does not answer");
    }
    server.restart();
    assert_eq!(cache.fetch(vec![key("a")]).await, Err(Bypassed), "it is left alone");
    assert_eq!(cache.raise(counter).await, Ok(()), "others may ask it");
}

#[tokio::test]
async fn a_server_that_is_full_is_told_of_changes_by_what_it_forgets() {
    let server = Server::start();
    let (cache, counter) = (cache(&server.config()), Key::generation("uid"));
    let count = cache.count(counter).await.expect("there is room");
    server.command::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    assert_eq!(cache.raise(counter).await, Ok(()), "told");
    assert_eq!(cache.fetch(vec![counter]).await, Ok(vec![None]), "no answer is of this count");
    assert_eq!(cache.count(counter).await, Err(Bypassed), "nor is there room for another");
    server.command::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_ne!(cache.count(counter).await, Ok(count), "which is a new one");
}

/// Where the server of a test in another process listens.
const URL: &str = "CLIPMESH_TEST_REDISS_URL";

#[tokio::test]
async fn a_certificate_must_be_one_that_the_system_trusts() {
    let (server, url, folder) = with_tls();
    let config = Config { url: url.clone(), ..server.config() };
    let outcome = cache(&config).fetch(vec![key("a")]).await;
    assert_eq!(outcome, Err(Bypassed), "anyone could have made it");
    // What the system trusts is asked once in a process, so that another one is needed.
    let name = "cache::redis::tests::asks_over_tls_where_another_test_tells";
    let trusting = std::process::Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "--ignored", name])
        .env("SSL_CERT_FILE", folder.path().join("certificate.pem"))
        .env(URL, url)
        .output();
    let output = trusting.expect("it runs");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && told.contains("1 passed"), "a trusted one opens: {told}");
}

#[tokio::test]
#[ignore = "run by the test above, which starts its server"]
async fn asks_over_tls_where_another_test_tells() {
    let url = std::env::var(URL).expect("told by the other test");
    let config = Config { url, connect_timeout: LONG, ..Config::default() };
    let cache = cache(&Config { timeout: Duration::from_millis(500), ..config });
    reached(&cache).await;
    contract::run(&cache).await;
}
