//! A real Redis server, to be killed, held up and started again.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpSocket, TcpStream};

use super::scratch;
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
    child: Option<Child>,
    /// Holds the port until Redis takes it, without listening: whoever connects is refused.
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
        let socket = TcpSocket::new_v4()?;
        socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let (address, folder) = (socket.local_addr()?, scratch::folder("redis")?);
        Ok(Self { address, folder, child: None, reserved: Some(socket) })
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
        command.arg("--dir").arg(&self.folder).stdin(Stdio::null()).stdout(Stdio::null());
        drop(self.reserved.take());
        let child = command.spawn();
        let child = child.context("start `redis-server`, which `make setup` brings")?;
        scratch::watch(child.id())?;
        self.child = Some(child);
        let answering =
            eventually("Redis answers", START_TIMEOUT, async || self.tell("PING").await);
        answering.await
    }

    /// Ends it without warning: SIGKILL.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        let mut child = self.child.take().context("Redis does not run")?;
        child.kill()?;
        child.wait()?;
        scratch::forget(child.id());
        Ok(())
    }

    /// Lets it hang: connections stay open, and nothing is answered.
    ///
    /// # Errors
    /// When it does not run.
    pub fn hold(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn release(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
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

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let child = self.child.as_ref().context("Redis does not run")?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        Ok(kill_process(pid.context("a process id is positive")?, signal)?)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Fails only if it has ended already, and then there is nothing left to do.
            let _already_ended = child.kill();
            let _already_reaped = child.wait();
            scratch::forget(child.id());
        }
    }
}
