//! What is asked of Redis in one go.

use deadpool_redis::redis::aio::ConnectionLike as _;
use deadpool_redis::redis::{Cmd, Pipeline, Value};
use futures::FutureExt as _;
use futures::future::{BoxFuture, try_join_all};

use super::Fault;
use super::links::Connection;

/// What is sent at once.
#[derive(Debug)]
pub(super) enum Request {
    Command(Cmd),
    /// To one server: in a cluster, all about one key.
    Pipeline(Pipeline),
    /// To several nodes of a cluster.
    Commands(Vec<Cmd>),
}

// === impl Request ===

impl Request {
    /// Sends it over a connection that others use, too.
    pub(super) fn run(&self, mut connection: Connection) -> BoxFuture<'_, Result<Value, Fault>> {
        async move {
            let ran = match self {
                Self::Command(command) => connection.req_packed_command(command).await,
                Self::Pipeline(pipeline) => pipeline.query_async(&mut connection).await,
                Self::Commands(commands) => {
                    let all = commands.iter().map(|command| {
                        let mut connection = connection.clone();
                        async move { connection.req_packed_command(command).await }
                    });
                    try_join_all(all).await.map(Value::Array)
                }
            };
            ran.map_err(Fault::from)
        }
        .boxed()
    }
}
