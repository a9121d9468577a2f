//! `clipmesh up`: the whole mesh in one process, through the same code and the same gRPC calls
//! over loopback that a cluster has.
//!
//! ```text
//!   start:  embedder ──► search ──► gateway ──► all report healthy ──► "up"
//!   stop:   gateway  ──► search ──► embedder        (callers before callees, each bounded)
//! ```

mod config;
mod parts;

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use clipmesh_mesh::settings::{self, Sources};
use clipmesh_mesh::{Shutdown, client};
use clipmesh_proto::embedder::v1 as embedder;
use clipmesh_proto::embedder::v1::embedder_service_client::EmbedderServiceClient;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::error::Error;
use crate::output;
use crate::output::table::Facts;
use crate::status::SERVICES;
use crate::up::config::Config;
use crate::up::parts::Parts;

/// Longest time from the first service to all of them healthy. Most of it is for the embedder,
/// which runs each shape of batch once; a large model on a slow CPU takes minutes.
const READY_TIMEOUT: Duration = Duration::from_secs(600);

/// How often health is asked for while starting.
const READY_POLL: Duration = Duration::from_millis(50);

/// What a service may take to stop beyond the drain of its calls, for batches under way, the
/// store's last flush and joining threads.
const STOP_MARGIN: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(crate) struct Command {
    /// `tiny` (comes with clipmesh), a folder in Hugging Face's form, or `org/name[@revision]` of
    /// the Hugging Face hub, downloaded once. Default: openai/clip-vit-base-patch32 (0.6 GB).
    #[arg(long, env = "CLIPMESH_MODEL")]
    model: Option<String>,

    /// Where items, vectors and thumbnails are kept. Default: $XDG_DATA_HOME/clipmesh, or
    /// ~/.local/share/clipmesh.
    #[arg(long, value_name = "DIR", env = "CLIPMESH_DATA")]
    data: Option<PathBuf>,

    /// Where to listen; port 0 takes a free one. Default: 127.0.0.1:8080.
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,

    /// Where to compute: `auto`, `cpu` or `cuda`.
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,

    /// Where vectors live: `edge`, in this process, or `qdrant`, a server. Default: edge.
    #[arg(long, value_name = "ENGINE")]
    store: Option<String>,

    /// The gRPC address of the Qdrant server, as in `http://qdrant:6334`. Its key is a setting:
    /// CLIPMESH__SEARCH__STORE__QDRANT__API_KEY.
    #[arg(long, value_name = "URL", requires = "store")]
    qdrant_url: Option<String>,

    /// Where answers and vectors of queries are kept to spare work: `memory`, of this process,
    /// `redis`, a server, or `off`. Default: memory.
    #[arg(long, value_name = "ENGINE")]
    cache: Option<String>,

    /// The address of the Redis server, as in `redis://redis:6379`. Its password is a setting:
    /// CLIPMESH__SEARCH__CACHE__REDIS__PASSWORD.
    #[arg(long, value_name = "URL", requires = "cache")]
    redis_url: Option<String>,

    /// A TOML file with the tables embedder, search, gateway, telemetry and server.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// The form of log lines, which go to standard error.
    #[arg(long, value_name = "FORMAT", value_enum)]
    log_format: Option<LogFormat>,

    /// Print one JSON line with the addresses once everything is ready.
    #[arg(long)]
    json: bool,

    /// Check the settings and exit.
    #[arg(long)]
    check_config: bool,

    /// Print the settings as TOML and exit.
    #[arg(long)]
    print_config: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// Where everything listens.
#[derive(Debug, Serialize)]
struct Addresses {
    gateway: String,
    search: String,
    embedder: String,
}

/// Ports that are open before anything is loaded, so that a taken one is told at once.
struct Listeners {
    gateway: TcpListener,
    search: TcpListener,
    embedder: TcpListener,
}

// === impl Command ===

impl Command {
    pub(crate) async fn run(self) -> Result<(), Error> {
        let is_json = self.json;
        let (is_print, is_check) = (self.print_config, self.check_config);
        let config = self.load()?;
        if is_print {
            let text = config.to_toml().map_err(|error| Error::Unusable(error.to_string()))?;
            return output::line(text.trim_end());
        }
        if is_check {
            return output::line("the settings are fine");
        }
        let shutdown = Shutdown::on_signals().map_err(Error::Runtime)?;
        let telemetry = clipmesh_telemetry::init("clipmesh", &config.telemetry)
            .map_err(|error| Error::Unusable(error.to_string()))?;
        let outcome = serve(config.shared(), &shutdown, is_json).await;
        telemetry.shutdown().await;
        outcome
    }

    fn load(self) -> Result<Config, Error> {
        let format = self.log_format.and_then(|format| format.to_possible_value());
        let sources = Sources { file: self.config, ..Sources::from_process() }
            .with("embedder.model", self.model)
            .with("embedder.device", self.device)
            .with("search.data_dir", self.data.map(absolute))
            .with("search.store.kind", self.store)
            .with("search.store.qdrant.url", self.qdrant_url)
            .with("search.cache.kind", self.cache)
            .with("search.cache.redis.url", self.redis_url)
            .with("gateway.listen", self.listen)
            .with("telemetry.log_format", format.map(|format| format.get_name().to_owned()));
        let mut config: Config = settings::load(&sources)?;
        // A service on its own keeps its data where it is started; a command of a person can't.
        if config.search.data_dir == clipmesh_search::Config::default().data_dir {
            config.search.data_dir = data_folder(|name| std::env::var_os(name))?;
        }
        Ok(config)
    }
}

/// Where a person's programs keep their data (XDG Base Directory Specification).
fn data_folder(variable: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf, Error> {
    let folder = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let share = folder("XDG_DATA_HOME")
        .or_else(|| folder("HOME").map(|home| home.join(".local").join("share")));
    match share {
        Some(share) => Ok(share.join("clipmesh")),
        None => Err(Error::Unusable("no home folder: --data DIR says where to keep data".into())),
    }
}

/// Starts all three, tells where they listen, and runs them until `shutdown` or until one fails.
async fn serve(config: Config, shutdown: &Shutdown, is_json: bool) -> Result<(), Error> {
    let stop_limit = config.server.shutdown_delay + config.server.drain_timeout + STOP_MARGIN;
    let mut parts = Parts::default();
    // Stopped while starting: what runs by then is stopped in order all the same.
    let started = tokio::select! {
        started = start(config, &mut parts, is_json) => started,
        () = shutdown.requested() => Ok(()),
    };
    if started.is_ok() {
        tokio::select! {
            () = parts.failed() => {}
            () = shutdown.requested() => {}
        }
    }
    let stopped = parts.stop(stop_limit).await;
    // Why it did not start says more than how it stopped.
    started.and(stopped)
}

async fn start(config: Config, parts: &mut Parts, is_json: bool) -> Result<(), Error> {
    let listeners = Listeners::bind(config.gateway.listen).await?;
    let addresses = listeners.addresses()?;
    let data = config.search.data_dir.display().to_string();
    run_parts(config, listeners, &addresses, parts).await?;
    let model = timeout(READY_TIMEOUT, until_ready(&addresses, parts)).await;
    let Some(model) = model.map_err(|_| not_ready())? else {
        // A part failed; its reason comes with the stop.
        return Ok(());
    };
    let version = env!("CARGO_PKG_VERSION");
    let address = addresses.gateway.trim_start_matches("http://");
    let (search, embedder) = (&addresses.search, &addresses.embedder);
    tracing::info!(address, search, embedder, data, version, "mesh is up");
    if is_json { output::document(&addresses) } else { greet(&addresses, &model, &data) }
}

/// Starts the callees before their callers.
async fn run_parts(
    mut config: Config,
    listeners: Listeners,
    addresses: &Addresses,
    parts: &mut Parts,
) -> Result<(), Error> {
    config.search.embedder.url.clone_from(&addresses.embedder);
    config.gateway.embedder_url.clone_from(&addresses.embedder);
    config.gateway.search_url.clone_from(&addresses.search);

    let app = clipmesh_embedder::App::build(config.embedder, listeners.embedder);
    let app = Box::pin(app).await.map_err(|error| no_embedder(&error))?;
    parts.start("embedder", |shutdown| app.run(shutdown));
    let app = clipmesh_search::App::build(config.search, listeners.search);
    let app = Box::pin(app).await.map_err(|error| broken("search", &error))?;
    parts.start("search", |shutdown| app.run(shutdown));
    let app = clipmesh_gateway::App::build(config.gateway, listeners.gateway);
    let app = Box::pin(app).await.map_err(|error| broken("gateway", &error))?;
    parts.start("gateway", |shutdown| async move {
        app.run(shutdown).await;
        Ok::<(), clipmesh_gateway::Error>(())
    });
    Ok(())
}

/// Waits until every service reports healthy through the gateway; `None` if one ends before.
async fn until_ready(addresses: &Addresses, parts: &mut Parts) -> Option<embedder::Model> {
    tokio::select! {
        model = healthy_model(&addresses.gateway) => Some(model),
        () = parts.failed() => None,
    }
}

async fn healthy_model(gateway: &str) -> embedder::Model {
    let mut ticks = interval(READY_POLL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Some(model) = look(gateway).await {
            return model;
        }
    }
}

async fn look(gateway: &str) -> Option<embedder::Model> {
    let channel = client::channel(gateway, &client::Config::default()).ok()?;
    let mut health = HealthClient::new(channel.clone());
    for service in SERVICES {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = health.check(request).await.ok()?.into_inner();
        if answer.status() != ServingStatus::Serving {
            return None;
        }
    }
    let answer = EmbedderServiceClient::new(channel).get_model(embedder::GetModelRequest {}).await;
    answer.ok()?.into_inner().model
}

fn greet(addresses: &Addresses, model: &embedder::Model, data: &str) -> Result<(), Error> {
    let mut facts = Facts::default();
    facts.add("gateway", format!("{}  (gRPC, grpc-web)", addresses.gateway));
    facts.add("search", &addresses.search);
    facts.add("embedder", &addresses.embedder);
    facts.add("model", format!("{} on {} in {}", model.name, model.device, model.dtype));
    facts.add("data", data);
    output::line(format!("clipmesh {} is up\n\n{facts}\n", env!("CARGO_PKG_VERSION")))?;
    output::line("Ctrl-C stops it; a second one at once.")
}

/// A folder that was named is used as named, even where it has the default's name.
fn absolute(path: PathBuf) -> String {
    std::path::absolute(&path).unwrap_or(path).display().to_string()
}

fn broken(name: &'static str, error: &dyn std::fmt::Display) -> Error {
    Error::Part { name, message: error.to_string() }
}

/// Where the hub is the trouble, there are models that don't need it.
fn no_embedder(error: &clipmesh_embedder::Error) -> Error {
    if !error.is_of_hub() {
        return broken("embedder", error);
    }
    let other = "`--model tiny` takes the model that comes with clipmesh, `--model FOLDER` yours";
    broken("embedder", &format!("{error}\n  without the hub, {other}"))
}

fn not_ready() -> Error {
    let seconds = READY_TIMEOUT.as_secs();
    Error::Part { name: "up", message: format!("not ready within {seconds} s; see the log") }
}

// === impl Listeners ===

impl Listeners {
    async fn bind(gateway: SocketAddr) -> Result<Self, Error> {
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Ok(Self {
            gateway: bind("gateway", gateway).await?,
            search: bind("search", loopback).await?,
            embedder: bind("embedder", loopback).await?,
        })
    }

    fn addresses(&self) -> Result<Addresses, Error> {
        let url = |listener: &TcpListener| {
            let address = listener.local_addr().map_err(Error::Runtime)?;
            Ok::<_, Error>(format!("http://{}", reachable(address)))
        };
        Ok(Addresses {
            gateway: url(&self.gateway)?,
            search: url(&self.search)?,
            embedder: url(&self.embedder)?,
        })
    }
}

async fn bind(name: &'static str, address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|error| {
        let message = if error.kind() == std::io::ErrorKind::AddrInUse {
            format!("{address} is taken; --listen names another address")
        } else {
            format!("open {address}: {error}")
        };
        Error::Part { name, message }
    })
}

/// An address that can be called: who listens everywhere is called on this machine.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_kept_where_the_platform_says() {
        let xdg = |name: &str| (name == "XDG_DATA_HOME").then(|| OsString::from("/xdg"));
        assert_eq!(data_folder(xdg).expect("a folder"), PathBuf::from("/xdg/clipmesh"), "XDG");
        let home = |name: &str| (name == "HOME").then(|| OsString::from("/home/x"));
        let expected = PathBuf::from("/home/x/.local/share/clipmesh");
        assert_eq!(data_folder(home).expect("a folder"), expected, "the usual place");
        let error = data_folder(|_| None).expect_err("no home");
        assert_eq!(error.exit_code(), 64, "told: {error}");
    }

    #[test]
    fn who_listens_everywhere_is_called_here() {
        let everywhere = SocketAddr::from(([0, 0, 0, 0], 80));
        assert_eq!(reachable(everywhere).to_string(), "127.0.0.1:80", "this machine");
        let one = SocketAddr::from(([10, 0, 0, 7], 80));
        assert_eq!(reachable(one), one, "an address is left as it is");
    }

    #[tokio::test]
    async fn a_taken_port_is_told_with_the_way_out() {
        let taken = bind("gateway", SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await;
        let address = taken.as_ref().expect("a free port").local_addr().expect("an address");
        let error = bind("gateway", address).await.expect_err("taken").to_string();
        assert!(error.contains("is taken; --listen"), "what to do: {error}");
    }
}
