//! Connections to Redis that are kept open, each shared by many calls.

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
use futures::FutureExt as _;
use tokio_util::task::TaskTracker;

use super::Fault;
use crate::cache::config::{Mode, Redis as Config, is_tls};
use crate::cache::single_flight::SingleFlight;

/// Some connections, used in turn.
#[derive(Debug)]
pub(super) struct Links {
    lanes: Vec<Lane>,
    next: AtomicUsize,
}

/// A connection that is made when it is needed, by one caller for all.
#[derive(Debug)]
struct Lane {
    pool: Arc<Pool>,
    open: Arc<Mutex<Option<Open>>>,
    opening: SingleFlight<(), Result<Link, Fault>>,
    /// A connection goes on being made when those who wanted it have given up.
    tasks: TaskTracker,
}

/// What is taken out of the pool.
struct Open {
    link: Link,
    held: Held,
}

/// A connection, and which of the many that a lane has in the course of time.
#[derive(Clone)]
pub(super) struct Link {
    pub(super) connection: Connection,
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
        let lane = |_| Lane {
            pool: Arc::clone(&pool),
            open: Arc::default(),
            opening: SingleFlight::new(),
            tasks: tasks.clone(),
        };
        let lanes = (0..config.connections.get()).map(lane).collect();
        Ok(Self { lanes, next: AtomicUsize::new(0) })
    }

    /// A connection; made now if there is none.
    pub(super) async fn connection(&self) -> Result<Link, Fault> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let lane = number % self.lanes.len();
        self.lanes[lane].connection(lane, number).await
    }

    /// A connection instead of one that failed.
    pub(super) async fn replace(&self, failed: &Link) -> Result<Link, Fault> {
        self.give_up(failed);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.lanes[failed.lane].connection(failed.lane, number).await
    }

    /// Lets go of every connection.
    pub(super) fn give_up_all(&self) {
        for lane in &self.lanes {
            let open = lane.open().take();
            if let Some(open) = open {
                open.held.forget();
            }
        }
    }

    /// Lets go of a connection that failed, unless that was done already.
    pub(super) fn give_up(&self, link: &Link) {
        let mut open = self.lanes[link.lane].open();
        if open.as_ref().is_some_and(|open| open.link.number == link.number)
            && let Some(open) = open.take()
        {
            open.held.forget();
        }
    }
}

// === impl Lane ===

impl Lane {
    async fn connection(&self, lane: usize, number: usize) -> Result<Link, Fault> {
        if let Some(open) = &*self.open() {
            return Ok(open.link.clone());
        }
        let flight = self.opening.join((), || {
            let (pool, open) = (Arc::clone(&self.pool), Arc::clone(&self.open));
            let task = self.tasks.spawn(async move {
                let held = pool.get().await?;
                let link = Link { connection: held.connection(), lane, number };
                *lock(&open) = Some(Open { link: link.clone(), held });
                Ok(link)
            });
            async move {
                task.await.unwrap_or_else(|_| Err(Fault::Down("connecting panicked".to_owned())))
            }
            .boxed()
        });
        flight.work.await
    }

    fn open(&self) -> MutexGuard<'_, Option<Open>> {
        lock(&self.open)
    }
}

fn lock(open: &Mutex<Option<Open>>) -> MutexGuard<'_, Option<Open>> {
    // The value is whole after every statement, so a panic elsewhere leaves it usable.
    open.lock().unwrap_or_else(PoisonError::into_inner)
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
