//! A cache in Redis, shared by the replicas of the service.
//!
//! ```text
//!  call ─► breaker ─► a connection, shared with other calls ─► one command or pipeline
//!             │ left alone for now          │ failed or late
//!             └───────── bypassed ◄─────────┘
//! ```
//!
//! A checkout from a pool of deadpool-redis asks the server whether the connection lives: a round
//! trip before each of ours. So connections are not checked out for each call but kept, and shared
//! by all calls (`links`); the pool makes them and bounds the time that takes.

mod links;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use clipmesh_telemetry::semconv;
use deadpool_redis::redis::aio::ConnectionLike as _;
use deadpool_redis::redis::{
    Cmd, FromRedisValue, Pipeline, RedisError, RedisResult, Value, cmd, from_redis_value, pipe,
};
use futures::FutureExt as _;
use futures::future::{BoxFuture, try_join_all};
use tokio::time::Instant;
use tracing::Instrument as _;

use self::links::{Connection, Links};
use super::breaker::{Breaker, Call, Change, Policy};
use super::config::{Mode, Redis as Config};
use super::key::Key;
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

/// What is sent at once.
#[derive(Debug)]
enum Request {
    Command(Cmd),
    /// All about one key, so that one node of a cluster has it.
    Pipeline(Pipeline),
    /// To several nodes of a cluster.
    Commands(Vec<Cmd>),
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
    ) -> Result<T, Bypassed> {
        let permit = self.admit().ok_or(Bypassed)?;
        let span = tracing::info_span!(
            "cache",
            { semconv::OTEL_NAME } = operation,
            { semconv::OTEL_KIND } = "client",
            { semconv::OTEL_STATUS_CODE } = tracing::field::Empty,
            { semconv::DB_SYSTEM_NAME } = "redis",
            { semconv::DB_OPERATION_NAME } = operation,
        );
        let sent = self.send(&request).instrument(span.clone());
        let outcome = match tokio::time::timeout(self.timeout, sent).await {
            Ok(Ok(value)) => from_redis_value(value).map_err(|error| {
                Fault::Refused(format!("its answer to {operation} can't be read: {error}"))
            }),
            Ok(Err(fault)) => Err(fault),
            Err(_) => Err(Fault::Late(self.timeout)),
        };
        let status = if outcome.is_ok() { "ok" } else { "error" };
        span.record(semconv::OTEL_STATUS_CODE, status);
        metrics::cache_asked(operation, status, permit.start);
        permit.tell(outcome.as_ref().err());
        outcome.map_err(|_| Bypassed)
    }

    async fn send(&self, request: &Request) -> Result<Value, Fault> {
        let mut link = self.links.connection().await?;
        let fault = match request.run(link.connection.clone()).await.map_err(Fault::from) {
            Err(fault @ Fault::Down(_)) => fault,
            outcome => return outcome,
        };
        // The server may have been restarted since the connection was made: it is asked once more,
        // over a new one. Every request of ours may be carried out twice.
        tracing::debug!(%fault, "a connection to redis failed");
        link = self.links.replace(&link).await?;
        let outcome = request.run(link.connection.clone()).await.map_err(Fault::from);
        if let Err(Fault::Down(_)) = outcome {
            self.links.give_up(&link);
        }
        outcome
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
            let values: Vec<Option<Vec<u8>>> = self.ask("MGET", Request::Command(command)).await?;
            if values.len() != keys.len() {
                return Err(Bypassed);
            }
            Ok(values.into_iter().map(|value| value.map(Bytes::from)).collect())
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
        let request = if self.is_cluster {
            Request::Commands(commands.collect())
        } else {
            let mut pipeline = pipe();
            for command in commands {
                pipeline.add_command(command);
            }
            Request::Pipeline(pipeline)
        };
        async move { self.ask::<Value>("SET", request).await.map(drop) }.boxed()
    }

    fn count(&self, counter: Key) -> Reply<'_, u64> {
        let name = self.name(counter);
        let mut pipeline = pipe();
        pipeline.add_command(Self::start_count(&name)).ignore();
        pipeline.cmd("GET").arg(name);
        async move {
            let (count,): (u64,) = self.ask("GET", Request::Pipeline(pipeline)).await?;
            Ok(count)
        }
        .boxed()
    }

    fn raise(&self, counter: Key) -> Reply<'_, u64> {
        let name = self.name(counter);
        let mut pipeline = pipe();
        pipeline.add_command(Self::start_count(&name)).ignore();
        pipeline.cmd("INCR").arg(&name);
        pipeline.cmd("EXPIRE").arg(name).arg(COUNTER_SECONDS).ignore();
        async move {
            let (count,): (u64,) = self.ask("INCR", Request::Pipeline(pipeline)).await?;
            Ok(count)
        }
        .boxed()
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
            let taken: Option<String> = self.ask("SET", Request::Command(command)).await?;
            Ok(taken.is_some())
        }
        .boxed()
    }

    fn release(&self, key: Key, token: u64) -> Reply<'_, ()> {
        let mut command = cmd("EVAL");
        command.arg(RELEASE).arg(1).arg(self.name(key)).arg(token);
        async move { self.ask::<Value>("EVAL", Request::Command(command)).await.map(drop) }.boxed()
    }
}

// === impl Request ===

impl Request {
    fn run(&self, mut connection: Connection) -> BoxFuture<'_, RedisResult<Value>> {
        async move {
            match self {
                Self::Command(command) => connection.req_packed_command(command).await,
                Self::Pipeline(pipeline) => pipeline.query_async(&mut connection).await,
                Self::Commands(commands) => {
                    let all = commands.iter().map(|command| {
                        let mut connection = connection.clone();
                        async move { connection.req_packed_command(command).await }
                    });
                    try_join_all(all).await.map(Value::Array)
                }
            }
        }
        .boxed()
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
                // What stalls may do so for ever on the same connection.
                self.redis.links.give_up_all();
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
pub(crate) mod server;
#[cfg(test)]
mod tests;
