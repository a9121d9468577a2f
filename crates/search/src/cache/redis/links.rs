//! Connections to Redis that are kept open, each shared by many calls.
//!
//! ```text
//!                      wanted                    made
//!  lane:   Closed ──────────────► Opening ─────────────────► Open
//!            ▲                       │ failed                 │ failed, or late
//!            └───────────────────────┴────────────────────────┘
//! ```
//!
//! Calls take the lanes in turn. One whose lane is not open goes over any that is, and waits only
//! where none is: connecting may take longer than a call has.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deadpool_redis::redis::aio::{ConnectionLike, MultiplexedConnection};
use deadpool_redis::redis::{
    AsyncConnectionConfig, Cmd, IntoConnectionInfo as _, Pipeline, RedisConnectionInfo,
    RedisFuture, RedisResult, Value,
};
use deadpool_redis::sentinel::{SentinelNodeConnectionInfo, SentinelServerType, TlsMode};
use deadpool_redis::{PoolConfig, Runtime, Timeouts, cluster, redis, sentinel};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::Fault;
use crate::cache::config::{Mode, Redis as Config, is_tls};

/// Runs are told apart by so many bits, so that a count added to them does not overflow.
const RUN_BITS: u32 = 62;

/// Some connections, used in turn.
#[derive(Debug)]
pub(super) struct Links {
    lanes: Vec<Lane>,
    next: AtomicUsize,
}

/// A connection that is made when it is needed, once for all that want it.
#[derive(Debug)]
struct Lane {
    pool: Arc<Pool>,
    state: Arc<Mutex<State>>,
    /// A connection goes on being made when those who wanted it have given up.
    tasks: TaskTracker,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Closed,
    /// Over when nobody is left to tell the outcome.
    Opening(Opening),
    Open(Open),
}

/// What becomes of a connection that is being made; `None` until it is known.
type Opening = watch::Receiver<Option<Result<Link, Fault>>>;

/// What is taken out of the pool.
struct Open {
    link: Link,
    held: Held,
}

/// A connection, and which of the many that a lane has in the course of time.
#[derive(Clone)]
pub(super) struct Link {
    pub(super) connection: Connection,
    /// Which run of which server it leads to; 0 where that can't be told.
    pub(super) run: u64,
    lane: usize,
    number: usize,
}

/// A connection that any number of calls may use at a time.
#[derive(Clone)]
pub(super) enum Connection {
    One(MultiplexedConnection),
    Cluster(cluster::ClusterConnection),
}

/// Makes connections and bounds the time that it takes.
enum Pool {
    Single(deadpool_redis::Pool),
    Cluster(cluster::Pool),
    Sentinel(sentinel::Pool),
}

/// A place in the pool.
enum Held {
    Single(deadpool_redis::Connection),
    Cluster(cluster::Connection),
    Sentinel(sentinel::Connection),
}

// === impl Links ===

impl Links {
    pub(super) fn new(config: &Config) -> RedisResult<Self> {
        let pool = Arc::new(Pool::new(config)?);
        let tasks = TaskTracker::new();
        let lane =
            |_| Lane { pool: Arc::clone(&pool), state: Arc::default(), tasks: tasks.clone() };
        let lanes = (0..config.connections.get()).map(lane).collect();
        Ok(Self { lanes, next: AtomicUsize::new(0) })
    }

    /// A connection; made now if there is none.
    pub(super) async fn connection(&self) -> Result<Link, Fault> {
        let (lane, number) = self.next();
        match self.lanes[lane].link(lane, number) {
            Ok(link) => Ok(link),
            Err(opening) => match self.lanes.iter().find_map(Lane::opened) {
                Some(link) => Ok(link),
                None => made(opening).await,
            },
        }
    }

    /// A connection instead of one that failed: not another of the same age, which may be of no
    /// more use.
    pub(super) async fn replace(&self, failed: &Link) -> Result<Link, Fault> {
        self.give_up(failed);
        let (_, number) = self.next();
        match self.lanes[failed.lane].link(failed.lane, number) {
            Ok(link) => Ok(link),
            Err(opening) => made(opening).await,
        }
    }

    /// Lets go of a connection that failed or was late, unless that was done already.
    pub(super) fn give_up(&self, link: &Link) {
        let mut state = self.lanes[link.lane].state();
        if matches!(&*state, State::Open(open) if open.link.number == link.number)
            && let State::Open(open) = std::mem::take(&mut *state)
        {
            open.held.forget();
        }
    }

    /// How many connections there are.
    #[cfg(test)]
    pub(super) fn opened(&self) -> usize {
        self.lanes.iter().filter_map(Lane::opened).count()
    }

    /// The lane whose turn it is, and a number that no other connection has.
    fn next(&self) -> (usize, usize) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        (number % self.lanes.len(), number)
    }
}

async fn made(mut opening: Opening) -> Result<Link, Fault> {
    let panicked = || Fault::Down("connecting panicked".to_owned());
    let outcome = opening.wait_for(Option::is_some).await.map_err(|_| panicked())?;
    outcome.clone().unwrap_or_else(|| Err(panicked()))
}

// === impl Lane ===

impl Lane {
    /// The connection, or what becomes of the one that is being made from here on.
    fn link(&self, lane: usize, number: usize) -> Result<Link, Opening> {
        let mut state = self.state();
        match &*state {
            State::Open(open) => return Ok(open.link.clone()),
            State::Opening(opening) if opening.has_changed().is_ok() => {
                return Err(opening.clone());
            }
            State::Opening(_) | State::Closed => {}
        }
        let (told, opening) = watch::channel(None);
        *state = State::Opening(opening.clone());
        let (pool, state) = (Arc::clone(&self.pool), Arc::clone(&self.state));
        self.tasks.spawn(async move {
            let outcome = open(&pool, lane, number).await.map(|open| {
                let link = open.link.clone();
                *lock(&state) = State::Open(open);
                link
            });
            told.send_replace(Some(outcome));
        });
        Err(opening)
    }

    fn opened(&self) -> Option<Link> {
        match &*self.state() {
            State::Open(open) => Some(open.link.clone()),
            State::Opening(_) | State::Closed => None,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // The value is whole after every statement, so a panic elsewhere leaves it usable.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn open(pool: &Pool, lane: usize, number: usize) -> Result<Open, Fault> {
    let held = pool.get().await?;
    let mut connection = held.connection();
    let run = match &mut connection {
        Connection::One(one) => run(one).await?,
        // Each of its nodes has one, and may change it at any time.
        Connection::Cluster(_) => 0,
    };
    Ok(Open { link: Link { connection, run, lane, number }, held })
}

/// Which run of a server it is. One that is started again is another, and so is its replica.
async fn run(connection: &mut MultiplexedConnection) -> Result<u64, Fault> {
    let info: RedisResult<String> = redis::cmd("INFO").arg("server").query_async(connection).await;
    let told = match info {
        Ok(info) => info.lines().find_map(|line| line.strip_prefix("run_id:").map(digest)),
        // A user who may not ask, or what only speaks the protocol.
        Err(error) if matches!(error.code(), Some("NOPERM" | "ERR")) => None,
        Err(error) => return Err(Fault::from(error)),
    };
    if told.is_none() {
        tracing::warn!(
            "redis does not tell its `run_id` (INFO server); if it loads a snapshot, answers from \
             before a write may come back"
        );
    }
    Ok(told.unwrap_or_default())
}

fn digest(run_id: &str) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *blake3::hash(run_id.trim().as_bytes()).as_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h]) >> (u64::BITS - RUN_BITS)
}

// === impl Pool ===

impl Pool {
    fn new(config: &Config) -> RedisResult<Self> {
        let timeouts = Timeouts {
            wait: Some(config.connect_timeout),
            create: Some(config.connect_timeout),
            recycle: Some(config.timeout),
        };
        let mut settings = PoolConfig::new(config.connections.get());
        settings.timeouts = timeouts;
        let nodes = nodes(config)?;
        // The builders fail only for time-outs without a runtime, and there is one.
        let failed = |error: &dyn fmt::Display| {
            redis::RedisError::from((
                redis::ErrorKind::InvalidClientConfig,
                "make a pool",
                error.to_string(),
            ))
        };
        let runtime = Runtime::Tokio1;
        Ok(match config.mode {
            Mode::Single => {
                let Some(node) = nodes.into_iter().next() else {
                    return Err(failed(&"no address"));
                };
                let manager = deadpool_redis::Manager::new_with_config(node, times(config))?;
                let pool = deadpool_redis::Pool::builder(manager).config(settings);
                Self::Single(pool.runtime(runtime).build().map_err(|error| failed(&error))?)
            }
            Mode::Cluster => {
                let pool = cluster::Pool::builder(cluster::Manager::new(nodes, false)?);
                let pool = pool.config(settings).runtime(runtime);
                Self::Cluster(pool.build().map_err(|error| failed(&error))?)
            }
            Mode::Sentinel => {
                let is_tls = config.urls().any(is_tls);
                let node = SentinelNodeConnectionInfo {
                    tls_mode: is_tls.then_some(TlsMode::Secure),
                    redis_connection_info: Some(login(config).into()),
                };
                let master = config.sentinel_master.clone();
                let kind = SentinelServerType::Master;
                let manager = sentinel::Manager::new(nodes, master, Some(node), kind)?;
                let pool = sentinel::Pool::builder(manager).config(settings);
                Self::Sentinel(pool.runtime(runtime).build().map_err(|error| failed(&error))?)
            }
        })
    }

    async fn get(&self) -> Result<Held, Fault> {
        let down = |error: &dyn fmt::Display| Fault::Down(error.to_string());
        Ok(match self {
            Self::Single(pool) => Held::Single(pool.get().await.map_err(|error| down(&error))?),
            Self::Cluster(pool) => Held::Cluster(pool.get().await.map_err(|error| down(&error))?),
            Self::Sentinel(pool) => Held::Sentinel(pool.get().await.map_err(|error| down(&error))?),
        })
    }
}

/// Addresses of servers, or of sentinels.
fn nodes(config: &Config) -> RedisResult<Vec<redis::ConnectionInfo>> {
    let is_sentinel = config.mode == Mode::Sentinel;
    let nodes = config.urls().map(|url| {
        let info = url.into_connection_info()?;
        // Sentinels have a login of their own, or none.
        Ok(if is_sentinel { info } else { info.set_redis_settings(login(config)) })
    });
    nodes.collect()
}

fn login(config: &Config) -> RedisConnectionInfo {
    let mut login = RedisConnectionInfo::default().set_db(config.db.into());
    if !config.username.is_empty() {
        login = login.set_username(&config.username);
    }
    if !config.password.is_empty() {
        login = login.set_password(config.password.reveal());
    }
    login
}

fn times(config: &Config) -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(config.connect_timeout))
        // Calls have a shorter one of their own; this one is for logging in.
        .set_response_timeout(Some(config.connect_timeout.max(Duration::from_millis(500))))
}

// === impl Held ===

impl Held {
    fn connection(&self) -> Connection {
        match self {
            Self::Single(held) => Connection::One((**held).clone()),
            Self::Cluster(held) => Connection::Cluster((**held).clone()),
            Self::Sentinel(held) => Connection::One((**held).clone()),
        }
    }

    /// Keeps a connection that failed out of the pool: it might pass for a living one there, as
    /// that of a server which no longer leads.
    fn forget(self) {
        match self {
            Self::Single(held) => drop(deadpool_redis::Connection::take(held)),
            Self::Cluster(held) => drop(cluster::Connection::take(held)),
            Self::Sentinel(held) => drop(sentinel::Connection::take(held)),
        }
    }
}

// === impl Connection ===

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::One(one) => one.req_packed_command(command),
            Self::Cluster(cluster) => cluster.req_packed_command(command),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::One(one) => one.req_packed_commands(pipeline, offset, count),
            Self::Cluster(cluster) => cluster.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::One(one) => one.get_db(),
            Self::Cluster(cluster) => cluster.get_db(),
        }
    }
}

// === impl fmt::Debug: connections have none ===

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Single(_) => "Single",
            Self::Cluster(_) => "Cluster",
            Self::Sentinel(_) => "Sentinel",
        })
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("lane", &self.lane).finish_non_exhaustive()
    }
}

impl fmt::Debug for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.link.fmt(f)
    }
}
