//! A mesh of real processes.

mod command;
mod process;
mod redis;
mod scratch;
mod spawned;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::Signal;
use tokio::sync::OnceCell;

use crate::clients::Clients;
use crate::eventually;
use process::Process;

pub use command::{model_of, program};
pub use redis::Redis;

/// From the start of a process to the first `SERVING`: loading libtorch from a cold disk on a busy
/// machine takes most of it.
const START_TIMEOUT: Duration = Duration::from_secs(90);

/// Of the model that is served unless a test wants another.
const DEFAULT_SEED: u64 = 1;

/// A process of the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    Embedder,
    Search,
    Gateway,
    /// All three in one process: `clipmesh up`.
    Mesh,
}

/// A running mesh. Its processes end when it is dropped, or with the process of the tests; what
/// they logged is printed when the test fails.
#[derive(Debug)]
pub struct Sandbox {
    plan: Plan,
    processes: BTreeMap<Service, Process>,
    /// Where each process listens, so that it comes back at the same address.
    addresses: BTreeMap<Service, SocketAddr>,
}

/// What to start, and how.
#[derive(Debug)]
#[must_use = "nothing runs before `start`"]
pub struct Builder {
    layout: Layout,
    settings: Vec<(Service, String, String)>,
    environment: Vec<(String, String)>,
    model: Option<String>,
    data: Option<PathBuf>,
}

/// A sandbox that the tests of one file share; it starts with the first of them.
#[derive(Debug)]
pub struct Shared(OnceCell<Sandbox>);

/// The use of a shared sandbox by one test.
#[derive(Debug)]
pub struct Attached(&'static Sandbox);

/// How the services are spread over processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    ThreeProcesses,
    OneProcess,
}

/// What a command line is made of.
#[derive(Debug)]
struct Plan {
    layout: Layout,
    settings: Vec<(Service, String, String)>,
    environment: Vec<(String, String)>,
    model: OsString,
    data: PathBuf,
}

// === impl Sandbox ===

impl Sandbox {
    /// Three processes with a small seeded model and an empty data folder, unless told otherwise.
    pub fn builder() -> Builder {
        Builder {
            layout: Layout::ThreeProcesses,
            settings: Vec::new(),
            environment: Vec::new(),
            model: None,
            data: None,
        }
    }

    /// Clients of everything, through the gateway.
    ///
    /// # Errors
    /// When the gateway was never started.
    pub fn clients(&self) -> anyhow::Result<Clients> {
        Clients::of(self.gateway_address()?)
    }

    /// Where the gateway listens.
    ///
    /// # Errors
    /// When it was never started.
    pub fn gateway_address(&self) -> anyhow::Result<SocketAddr> {
        self.address(self.plan.layout.front())
    }

    /// Where a process listens, or listened before it was ended. For `clipmesh up` that is its
    /// gateway.
    ///
    /// # Errors
    /// When it was never started.
    pub fn address(&self, service: Service) -> anyhow::Result<SocketAddr> {
        self.addresses.get(&service).copied().with_context(|| format!("no {service:?} is there"))
    }

    /// Ends a process without warning, as a crash or the kernel would: SIGKILL.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill(&mut self, service: Service) -> anyhow::Result<()> {
        let process = self.take(service)?;
        process.signal(Signal::KILL)?;
        process.ended(Duration::from_secs(10)).await?;
        Ok(())
    }

    /// Asks a process to stop, as an orchestrator would: SIGTERM. It is still there afterwards.
    ///
    /// # Errors
    /// When it does not run.
    pub fn terminate(&self, service: Service) -> anyhow::Result<()> {
        let process = self.processes.get(&service);
        process.with_context(|| format!("no {service:?} runs"))?.signal(Signal::TERM)
    }

    /// Lets a process hang: its connections stay open, and nothing is answered.
    ///
    /// # Errors
    /// When it does not run.
    pub fn hold(&self, service: Service) -> anyhow::Result<()> {
        let process = self.processes.get(&service);
        process.with_context(|| format!("no {service:?} runs"))?.hold()
    }

    /// Waits for a process that was asked to stop.
    ///
    /// # Errors
    /// When it still runs after `within`.
    pub async fn ended(
        &mut self,
        service: Service,
        within: Duration,
    ) -> anyhow::Result<ExitStatus> {
        self.take(service)?.ended(within).await
    }

    /// Starts a process again that was ended, at its old address and on its old data, and waits
    /// until it can answer.
    ///
    /// # Errors
    /// When it does not come up, with the end of its log.
    pub async fn restart(&mut self, service: Service) -> anyhow::Result<()> {
        self.start(service).await
    }

    /// Gives the embedder another model from its next start on.
    ///
    /// # Errors
    /// When the model can't be made.
    pub async fn replace_model(&mut self, seed: u64) -> anyhow::Result<()> {
        self.plan.model = model_of(seed).await?.into();
        Ok(())
    }

    /// Where the search service keeps its data.
    pub fn data_folder(&self) -> &Path {
        &self.plan.data
    }

    /// What every process logged lately, for a person.
    pub fn logs(&self) -> String {
        let logs = self.processes.values().map(|process| process.log_tail());
        logs.collect::<Vec<_>>().join("\n")
    }

    async fn start(&mut self, service: Service) -> anyhow::Result<()> {
        let command = self.plan.command(service, &self.addresses)?;
        let process = Process::start(command, service, START_TIMEOUT).await?;
        let address = process.address();
        self.addresses.insert(service, address);
        // Kept before it is ready: if it never is, its log is printed with the sandbox's.
        self.processes.insert(service, process);
        self.ready(service).await
    }

    async fn ready(&mut self, service: Service) -> anyhow::Result<()> {
        let mut clients = Clients::of(self.address(service)?)?;
        let process = self.processes.get_mut(&service).context("it was just started")?;
        let ready = eventually("the process serves", START_TIMEOUT, async || {
            match process.exit_status()? {
                // No use to wait on: report it as it is.
                Some(status) => Ok(Err(anyhow::anyhow!("it ended with {status}"))),
                None => clients.check_health("").await.map(Ok).map_err(anyhow::Error::from),
            }
        });
        let outcome = ready.await.and_then(|outcome| outcome);
        outcome.with_context(|| format!("start {service:?}; its log:\n{}", process.log_tail()))
    }

    fn take(&mut self, service: Service) -> anyhow::Result<Process> {
        self.processes.remove(&service).with_context(|| format!("no {service:?} runs"))
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
    }
}

// === impl Builder ===

impl Builder {
    /// Runs all three services in one process: `clipmesh up`.
    pub fn in_one_process(mut self) -> Self {
        self.layout = Layout::OneProcess;
        self
    }

    /// Sets a key of one process' settings, as in `server.drain_timeout`.
    pub fn setting(mut self, service: Service, key: &str, value: impl Into<String>) -> Self {
        self.settings.push((service, key.to_owned(), value.into()));
        self
    }

    /// Sets a key that every process has.
    pub fn setting_of_all(self, key: &str, value: &str) -> Self {
        let services = self.layout.services();
        services.iter().fold(self, |builder, &service| builder.setting(service, key, value))
    }

    /// Sets a variable in the environment of every process.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Keeps what was computed in this Redis.
    pub fn redis(self, redis: &Redis) -> Self {
        let (service, prefix) = match self.layout {
            Layout::ThreeProcesses => (Service::Search, ""),
            Layout::OneProcess => (Service::Mesh, "search."),
        };
        self.setting(service, &format!("{prefix}cache.kind"), "redis").setting(
            service,
            &format!("{prefix}cache.redis.url"),
            redis.url(),
        )
    }

    /// Serves this model, as it is written after `--model`.
    pub fn model(mut self, model: &str) -> Self {
        self.model = Some(model.to_owned());
        self
    }

    /// Keeps data in a folder of the caller's, which stays.
    pub fn data(mut self, folder: PathBuf) -> Self {
        self.data = Some(folder);
        self
    }

    /// Starts the processes, each once those that it calls can answer.
    ///
    /// # Errors
    /// When one does not come up, with the end of its log.
    pub async fn start(self) -> anyhow::Result<Sandbox> {
        let model = match self.model {
            Some(model) => model.into(),
            None => model_of(DEFAULT_SEED).await?.into(),
        };
        let data = match self.data {
            Some(folder) => folder,
            None => scratch::folder("data")?,
        };
        let plan = Plan {
            layout: self.layout,
            settings: self.settings,
            environment: self.environment,
            model,
            data,
        };
        let mut sandbox = Sandbox { plan, processes: BTreeMap::new(), addresses: BTreeMap::new() };
        for &service in self.layout.services() {
            sandbox.start(service).await?;
        }
        Ok(sandbox)
    }
}

// === impl Layout ===

impl Layout {
    /// In the order of their start: callees first.
    fn services(self) -> &'static [Service] {
        match self {
            Self::ThreeProcesses => &[Service::Embedder, Service::Search, Service::Gateway],
            Self::OneProcess => &[Service::Mesh],
        }
    }

    /// What callers from outside talk to.
    fn front(self) -> Service {
        match self {
            Self::ThreeProcesses => Service::Gateway,
            Self::OneProcess => Service::Mesh,
        }
    }
}

// === impl Shared ===

impl Shared {
    /// For a `static`.
    pub const fn new() -> Self {
        Self(OnceCell::const_new())
    }

    /// The sandbox with its default settings, started if it does not run yet. It ends with the
    /// process of the tests.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn attach(&'static self) -> anyhow::Result<Attached> {
        self.attach_or_start(|| Sandbox::builder().start()).await
    }

    /// The sandbox as `start` leaves it, if it does not run yet. It ends with the process of the
    /// tests.
    ///
    /// # Errors
    /// Those of `start`.
    pub async fn attach_or_start<F>(
        &'static self,
        start: impl FnOnce() -> F,
    ) -> anyhow::Result<Attached>
    where
        F: Future<Output = anyhow::Result<Sandbox>>,
    {
        self.0.get_or_try_init(start).await.map(Attached)
    }
}

impl Default for Shared {
    fn default() -> Self {
        Self::new()
    }
}

// === impl Attached ===

impl Deref for Attached {
    type Target = Sandbox;

    fn deref(&self) -> &Sandbox {
        self.0
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
    }
}
