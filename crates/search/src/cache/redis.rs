//! A cache in Redis, shared by the replicas of the service.
//!
//! ```text
//!  call ─► breaker ─► a connection, shared with other calls ─► one command or pipeline
//!             │ left alone for now          │ failed or late
//!             └───────── bypassed ◄─────────┘
//! ```
//!
//! A raise passes the breaker by: until it is told, others take old answers for current ones.
//!
//! A server that loads a snapshot when it starts, and a replica that takes over, may have a count
//! of before a raise, and the answers that were found at it. So a count is told as the sum of what
//! the server has and a number that stands for this run of it (`INFO server`, `run_id`). In a
//! cluster, where a key moves between servers unseen, it is told as it is.
//!
//! A checkout from a pool of deadpool-redis asks the server whether the connection lives: a round
//! trip before each of ours. So connections are not checked out for each call but kept, and shared
//! by all calls (`links`); the pool makes them and bounds the time that takes.

mod links;
mod request;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use clipmesh_telemetry::semconv;
use deadpool_redis::redis::{Cmd, FromRedisValue, RedisError, Value, cmd, from_redis_value, pipe};
use futures::FutureExt as _;
use tokio::time::Instant;
use tracing::Instrument as _;

use self::links::{Link, Links};
use self::request::Request;
use super::breaker::{Breaker, Call, Change, Policy};
use super::config::{Mode, Redis as Config};
use super::key::{Key, Kind};
use super::{Bypassed, Cache, Entry, Leases, Reply};
use crate::metrics;

/// Part of the keys, so that releases with other forms of values don't meet.
const VERSION: u32 = 1;

/// How long a count of changes is kept after the last one. When it goes, the answers of that
/// collection go with it.
const COUNTER_SECONDS: u64 = 7 * 24 * 3600;

/// Only who has the lease may end it: it may have run out and be another's by now.
const RELEASE: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";

/// Entries in Redis. How much it keeps and what goes first is set there, by `maxmemory` and
/// `maxmemory-policy`.
#[derive(Debug)]
pub(crate) struct Redis {
    links: Links,
    breaker: Mutex<Breaker>,
    prefix: String,
    timeout: Duration,
    is_cluster: bool,
}

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
enum Fault {
    /// It does not answer, or not in a state to: the connection is given up.
    #[error("{0}")]
    Down(String),
    /// It answers, but not to this.
    #[error("{0}")]
    Refused(String),
    #[error("no answer within {0:?}")]
    Late(Duration),
}

/// What a server told, and which run of it that was.
#[derive(Debug)]
struct Told<T> {
    value: T,
    run: u64,
}

/// Leave to make a call. One whose caller goes away before its outcome is told tells that.
struct Permit<'a> {
    redis: &'a Redis,
    call: Option<Call>,
    start: Instant,
}

// === impl Redis ===

impl Redis {
    /// Prepares connections; makes them when they are needed.
    ///
    /// # Errors
    /// Addresses that are none.
    pub(crate) fn new(config: &Config) -> Result<Self, String> {
        let policy = Policy {
            max_failures: config.max_failures.get(),
            min_ejection: config.min_ejection,
            max_ejection: config.max_ejection,
        };
        Ok(Self {
            links: Links::new(config).map_err(|error| error.to_string())?,
            breaker: Mutex::new(Breaker::new(policy)),
            prefix: format!("{}:{VERSION}", config.prefix),
            timeout: config.timeout,
            is_cluster: config.mode == Mode::Cluster,
        })
    }

    /// The key as an operator sees it: `clipmesh:1:answer:` and 64 digits.
    fn name(&self, key: Key) -> String {
        let digest = blake3::Hash::from_bytes(key.digest);
        format!("{}:{}:{}", self.prefix, key.kind.as_str(), digest.to_hex())
    }

    /// Sends a request and reads the answer, unless the server is left alone or does not answer in
    /// time.
    async fn ask<T: FromRedisValue>(
        &self,
        operation: &'static str,
        request: Request,
    ) -> Result<Told<T>, Bypassed> {
        let permit = self.admit().ok_or(Bypassed)?;
        let outcome = self.ask_at_once(operation, request).await;
        permit.tell(outcome.as_ref().err());
        outcome.map_err(|_| Bypassed)
    }

    /// The same, whether the server is left alone or not.
    async fn ask_at_once<T: FromRedisValue>(
        &self,
        operation: &'static str,
        request: Request,
    ) -> Result<Told<T>, Fault> {
        let start = Instant::now();
        let span = tracing::info_span!(
            "cache",
            { semconv::OTEL_NAME } = operation,
            { semconv::OTEL_KIND } = "client",
            { semconv::OTEL_STATUS_CODE } = tracing::field::Empty,
            { semconv::DB_SYSTEM_NAME } = "redis",
            { semconv::DB_OPERATION_NAME } = operation,
        );
        let sent = self.send(&request, start + self.timeout).instrument(span.clone()).await;
        let outcome = sent.and_then(|Told { value, run }| match from_redis_value(value) {
            Ok(value) => Ok(Told { value, run }),
            Err(error) => {
                Err(Fault::Refused(format!("its answer to {operation} can't be read: {error}")))
            }
        });
        let status = if outcome.is_ok() { "ok" } else { "error" };
        span.record(semconv::OTEL_STATUS_CODE, status);
        metrics::cache_asked(operation, status, start);
        outcome
    }

    async fn send(&self, request: &Request, until: Instant) -> Result<Told<Value>, Fault> {
        let link = self.in_time(until, self.links.connection()).await?;
        let fault = match self.send_over(&link, request, until).await {
            Err(fault @ Fault::Down(_)) => fault,
            outcome => return outcome,
        };
        // The server may have been restarted since the connection was made: it is asked once more,
        // over a new one. Every request of ours may be carried out twice.
        tracing::debug!(%fault, "a connection to redis failed");
        let link = self.in_time(until, self.links.replace(&link)).await?;
        self.send_over(&link, request, until).await
    }

    /// Sends a request over one connection. One that fails is given up, and so is one that is late:
    /// whatever holds it up may do so for ever, and that others answer would hide it. But it must
    /// have had its time: one that was just made is not late because making it took long.
    async fn send_over(
        &self,
        link: &Link,
        request: &Request,
        until: Instant,
    ) -> Result<Told<Value>, Fault> {
        let had_time = until - Instant::now() >= self.timeout / 2;
        let outcome = self.in_time(until, request.run(link.connection.clone())).await;
        match outcome {
            Err(Fault::Late(_)) if had_time => self.links.give_up(link),
            Err(Fault::Down(_)) => self.links.give_up(link),
            Ok(_) | Err(Fault::Late(_) | Fault::Refused(_)) => {}
        }
        outcome.map(|value| Told { value, run: link.run })
    }

    async fn in_time<T>(
        &self,
        until: Instant,
        work: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        let late = |_| Err(Fault::Late(self.timeout));
        tokio::time::timeout_at(until, work).await.unwrap_or_else(late)
    }

    fn admit(&self) -> Option<Permit<'_>> {
        let start = Instant::now();
        let call = self.breaker().admit(start)?;
        Some(Permit { redis: self, call: Some(call), start })
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        // The breaker is whole after every call, so a panic elsewhere leaves it usable.
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Commands about several keys, sent at once.
    fn all(&self, commands: impl Iterator<Item = Cmd>) -> Request {
        if self.is_cluster {
            return Request::Commands(commands.collect());
        }
        let mut pipeline = pipe();
        for command in commands {
            pipeline.add_command(command);
        }
        Request::Pipeline(pipeline)
    }

    /// Sets a count that is not there. Its start is left to chance, so that a count that was lost
    /// never comes back to a number that answers were found at.
    fn start_count(name: &str) -> Cmd {
        let start: u64 = rand::random_range(1..1 << 62);
        let mut command = cmd("SET");
        command.arg(name).arg(start).arg("NX").arg("EX").arg(COUNTER_SECONDS);
        command
    }
}

impl Cache for Redis {
    fn fetch(&self, keys: Vec<Key>) -> Reply<'_, Vec<Option<Bytes>>> {
        let mut command = cmd("MGET");
        for key in &keys {
            command.arg(self.name(*key));
        }
        async move {
            let told = self.ask("MGET", Request::Command(command)).await?;
            let values: Vec<Option<Vec<u8>>> = told.value;
            if values.len() != keys.len() {
                return Err(Bypassed);
            }
            let values = keys.iter().zip(values).map(|(key, value)| match key.kind {
                Kind::Generation => value.and_then(|digits| counted(&digits, told.run)),
                Kind::Image | Kind::Text | Kind::Answer | Kind::Lease => value.map(Bytes::from),
            });
            Ok(values.collect())
        }
        .boxed()
    }

    fn store(&self, entries: Vec<Entry>) -> Reply<'_, ()> {
        let commands = entries.into_iter().map(|Entry { key, value, time_to_live }| {
            let millis = u64::try_from(time_to_live.as_millis()).unwrap_or(u64::MAX).max(1);
            let mut command = cmd("SET");
            command.arg(self.name(key)).arg(value.as_ref()).arg("PX").arg(millis);
            command
        });
        let request = self.all(commands);
        async move { self.ask::<Value>("SET", request).await.map(drop) }.boxed()
    }

    fn count(&self, counter: Key) -> Reply<'_, u64> {
        let name = self.name(counter);
        let mut pipeline = pipe();
        pipeline.add_command(Self::start_count(&name)).ignore();
        pipeline.cmd("GET").arg(name);
        async move {
            let told: Told<(u64,)> = self.ask("GET", Request::Pipeline(pipeline)).await?;
            Ok(told.value.0.wrapping_add(told.run))
        }
        .boxed()
    }

    fn raise(&self, counter: Key) -> Reply<'_, ()> {
        let name = self.name(counter);
        let mut pipeline = pipe();
        pipeline.add_command(Self::start_count(&name)).ignore();
        pipeline.cmd("INCR").arg(&name).ignore();
        pipeline.cmd("EXPIRE").arg(&name).arg(COUNTER_SECONDS).ignore();
        async move {
            let raised = match self.ask_at_once::<()>("INCR", Request::Pipeline(pipeline)).await {
                // A server that is full, and drops nothing by itself, still deletes; and a count
                // that is not there is as good as another.
                Err(Fault::Refused(_)) => {
                    let mut command = cmd("DEL");
                    command.arg(name);
                    self.ask_at_once("DEL", Request::Command(command)).await
                }
                raised => raised,
            };
            raised.map(drop).map_err(|_| Bypassed)
        }
        .boxed()
    }

    fn forget(&self, _: Key) {
        // Others may count it still. It goes when its time is up.
    }

    fn shared(&self) -> Option<&dyn Leases> {
        Some(self)
    }
}

impl Leases for Redis {
    fn lease(&self, key: Key, token: u64, time: Duration) -> Reply<'_, bool> {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
        let mut command = cmd("SET");
        command.arg(self.name(key)).arg(token).arg("NX").arg("PX").arg(millis);
        async move {
            let taken: Told<Option<String>> = self.ask("SET", Request::Command(command)).await?;
            Ok(taken.value.is_some())
        }
        .boxed()
    }

    fn release(&self, leases: Vec<(Key, u64)>) -> Reply<'_, ()> {
        let commands = leases.into_iter().map(|(key, token)| {
            let mut command = cmd("EVAL");
            command.arg(RELEASE).arg(1).arg(self.name(key)).arg(token);
            command
        });
        let request = self.all(commands);
        async move { self.ask::<Value>("EVAL", request).await.map(drop) }.boxed()
    }
}

// === impl Permit ===

impl Permit<'_> {
    /// Tells how the call went.
    fn tell(mut self, fault: Option<&Fault>) {
        let Some(call) = self.call.take() else { return };
        let now = Instant::now();
        let is_slow = now - self.start > self.redis.timeout / 2;
        let mut breaker = self.redis.breaker();
        let change = match fault {
            Some(Fault::Down(_) | Fault::Late(_)) => breaker.failed(call, now, rand::random()),
            None | Some(Fault::Refused(_)) if is_slow => breaker.failed(call, now, rand::random()),
            None | Some(Fault::Refused(_)) => breaker.succeeded(call),
        };
        drop(breaker);
        match change {
            Change::None => {}
            Change::Ejected(time) => {
                metrics::cache_ejected();
                let why = fault.map_or_else(|| "it is slow".to_owned(), ToString::to_string);
                if call == Call::Probe {
                    tracing::debug!(%why, ?time, "redis is still left alone");
                } else {
                    tracing::warn!(%why, ?time, "redis is left alone; nothing is cached meanwhile");
                }
            }
            Change::Admitted => tracing::info!("redis answers again"),
        }
    }
}

/// A count as others are told it, in digits; `None` for what is none.
fn counted(digits: &[u8], run: u64) -> Option<Bytes> {
    let count: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(count.wrapping_add(run).to_string().into())
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if let Some(call) = self.call.take() {
            self.redis.breaker().abandoned(call, Instant::now());
        }
    }
}

// === impl Fault ===

impl From<RedisError> for Fault {
    fn from(error: RedisError) -> Self {
        let text = error.to_string();
        // No room, or a key of ours that holds something else: others can still be asked for.
        let is_refusal = |code: &str| matches!(code, "OOM" | "ERR" | "WRONGTYPE");
        let is_refused = error
            .into_server_errors()
            .is_some_and(|errors| errors.iter().all(|(_, error)| is_refusal(error.code())));
        if is_refused { Self::Refused(text) } else { Self::Down(text) }
    }
}

#[cfg(test)]
mod proxy;
#[cfg(test)]
pub(crate) mod server;
#[cfg(test)]
mod tests;
