//! A real Redis server, to be killed, held up and started again.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpSocket, TcpStream};

use super::scratch;
use super::spawned::Spawned;
use crate::eventually;

const PROGRAM: &str = "redis-server";

/// From its start to its first answer.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A Redis server of its own port and folder. It ends when it is dropped.
///
/// It writes nothing to its folder by itself: what it knows after a kill is what it knew at the
/// last [`Redis::save`], so that a test decides how much it forgets.
#[derive(Debug)]
pub struct Redis {
    address: SocketAddr,
    folder: PathBuf,
    process: Option<Spawned>,
    /// Holds the port while Redis is away, without listening: whoever connects is refused.
    reserved: Option<TcpSocket>,
}

// === impl Redis ===

impl Redis {
    /// Starts an empty one.
    ///
    /// # Errors
    /// When there is no `redis-server`, or it does not answer.
    pub async fn start() -> anyhow::Result<Self> {
        let mut redis = Self::away()?;
        redis.restart().await?;
        Ok(redis)
    }

    /// One that is not there yet, at an address where nobody answers.
    ///
    /// # Errors
    /// When there is no free port.
    pub fn away() -> anyhow::Result<Self> {
        let socket = reserve((Ipv4Addr::LOCALHOST, 0).into())?;
        let (address, folder) = (socket.local_addr()?, scratch::folder("redis")?);
        Ok(Self { address, folder, process: None, reserved: Some(socket) })
    }

    /// As a setting has it.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Starts it at its old address with what it last saved.
    ///
    /// # Errors
    /// When there is no `redis-server`, or it does not answer.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        let (host, port) = (self.address.ip().to_string(), self.address.port().to_string());
        let mut command = Command::new(PROGRAM);
        command.args(["--bind", &host, "--port", &port, "--save", "", "--appendonly", "no"]);
        command.arg("--dir").arg(&self.folder).stdout(Stdio::null());
        drop(self.reserved.take());
        let process = Spawned::start(&mut command);
        self.process = Some(process.context("`make test` brings `redis-server`")?);
        let answering =
            eventually("Redis answers", START_TIMEOUT, async || self.tell("PING").await);
        answering.await
    }

    /// Ends it without warning: SIGKILL.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        drop(self.process.take().context("Redis does not run")?);
        self.reserved = Some(reserve(self.address)?);
        Ok(())
    }

    /// Lets it hang: connections stay open, and nothing is answered.
    ///
    /// # Errors
    /// When it does not run.
    pub fn hold(&self) -> anyhow::Result<()> {
        self.running()?.hold()
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn release(&self) -> anyhow::Result<()> {
        self.running()?.signal(Signal::CONT)
    }

    /// Writes all that it knows to its folder.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn save(&self) -> anyhow::Result<()> {
        self.tell("SAVE").await
    }

    /// Gives one command without arguments, which must succeed.
    async fn tell(&self, command: &str) -> anyhow::Result<()> {
        let mut stream = BufReader::new(TcpStream::connect(self.address).await?);
        stream.write_all(format!("{command}\r\n").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_line(&mut answer).await?;
        ensure!(answer.starts_with('+'), "{command}: {answer}");
        Ok(())
    }

    fn running(&self) -> anyhow::Result<&Spawned> {
        self.process.as_ref().context("Redis does not run")
    }
}

/// A socket that has an address and does not listen.
fn reserve(address: SocketAddr) -> anyhow::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    // Connections of a server that was killed linger on its port for a while.
    socket.set_reuseaddr(true)?;
    socket.bind(address).with_context(|| format!("reserve {address}"))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_port_of_one_that_was_killed_stays_its_own() {
        let mut redis = Redis::start().await.expect("Redis starts");
        // A connection that outlives it, as those of a mesh do.
        let mut connection = TcpStream::connect(redis.address).await.expect("connected");
        connection.write_all(b"PING\r\n").await.expect("sent");
        redis.kill().expect("Redis is killed");
        let other = TcpSocket::new_v4().expect("a socket");
        assert!(other.bind(redis.address).is_err(), "nobody else gets it");
        let refused = TcpStream::connect(redis.address).await;
        assert!(refused.is_err(), "nobody answers there: {refused:?}");
        redis.restart().await.expect("Redis starts again at its port");
    }
}
