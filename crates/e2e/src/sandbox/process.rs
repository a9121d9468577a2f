//! One process of the mesh: its start, its log, its end.

use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::Signal;

use super::spawned::Spawned;
use super::{Service, command};
use crate::eventually;

/// Lines of a log that are printed when a test fails.
const TAIL_LINES: usize = 60;

/// Ends when it is dropped.
#[derive(Debug)]
pub(super) struct Process {
    spawned: Spawned,
    service: Service,
    address: SocketAddr,
    log: Log,
}

/// What a process wrote, line by line. Threads fill it, so that it belongs to no runtime and a
/// sandbox can be shared between tests.
#[derive(Clone, Debug, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

// === impl Process ===

impl Process {
    /// Starts a process and waits until it says where it listens.
    pub(super) async fn start(
        mut command: Command,
        service: Service,
        within: Duration,
    ) -> anyhow::Result<Self> {
        let mut spawned = Spawned::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()))?;
        let (stdout, stderr) = spawned.take_output().context("its output is piped")?;
        let log = Log::default();
        log.follow(stdout);
        log.follow(stderr);
        let unbound = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut process = Self { spawned, service, address: unbound, log };
        process.address = process.listening(within).await?;
        Ok(process)
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        self.spawned.signal(signal).with_context(|| format!("signal {:?}", self.service))
    }

    pub(super) fn hold(&self) -> anyhow::Result<()> {
        self.spawned.hold().with_context(|| format!("hold {:?}", self.service))
    }

    pub(super) fn exit_status(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.spawned.exit_status()
    }

    pub(super) async fn ended(mut self, within: Duration) -> anyhow::Result<ExitStatus> {
        let ended = eventually("the process ends", within, async || {
            self.exit_status()?.context("it still runs")
        });
        let outcome = ended.await;
        outcome.with_context(|| format!("end {:?}; its log:\n{}", self.service, self.log_tail()))
    }

    pub(super) fn log_tail(&self) -> String {
        format!("--- log of {:?} ---\n{}", self.service, self.log.tail())
    }

    async fn listening(&mut self, within: Duration) -> anyhow::Result<SocketAddr> {
        let log = self.log.clone();
        let service = self.service;
        let listening = eventually("the process says where it listens", within, async || {
            if let Some(address) = log.find(|line| command::address_in(service, line)) {
                return Ok(Ok(address));
            }
            match self.exit_status()? {
                Some(status) => Ok(Err(anyhow::anyhow!("it ended with {status}"))),
                None => Err(anyhow::anyhow!("no such line in its log")),
            }
        });
        let outcome = listening.await.and_then(|outcome| outcome);
        outcome.with_context(|| format!("start {service:?}; its log:\n{}", log.tail()))
    }
}

// === impl Log ===

impl Log {
    fn follow(&self, pipe: impl Read + Send + 'static) {
        let log = self.clone();
        // Ends with the pipe, and so with the process.
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n') {
                let Ok(line) = line else { return };
                log.lock().push(String::from_utf8_lossy(&line).into_owned());
            }
        });
    }

    fn find<T>(&self, wanted: impl FnMut(&String) -> Option<T>) -> Option<T> {
        self.lock().iter().find_map(wanted)
    }

    fn tail(&self) -> String {
        let lines = self.lock();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
