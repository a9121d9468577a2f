//! The embedder as an operator starts it: its binary, a free port.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use clipmesh_embedder::backend::DeviceChoice;
use clipmesh_mesh::client::{self, Channel};
use clipmesh_proto::embedder::v1::embedder_service_client::EmbedderServiceClient;
use serde_json::Value;
use tokio::time::Instant;

/// A connection to the embedder.
pub(crate) type Client = EmbedderServiceClient<Channel>;

/// A running embedder; killed when it is dropped.
pub(crate) struct Server {
    child: Child,
    address: String,
    /// From the start of the process to the moment at which it listens.
    pub(crate) ready: Duration,
}

impl Server {
    /// Starts it and waits until it listens.
    pub(crate) fn start(
        model: &Path,
        device: DeviceChoice,
        settings: &[(String, String)],
    ) -> anyhow::Result<Self> {
        let started_at = Instant::now();
        let mut child = Command::new(env!("CARGO_BIN_EXE_clipmesh-embedder"))
            .args(["--listen", "127.0.0.1:0", "--device", &device.to_string(), "--model"])
            .arg(model)
            .env("CLIPMESH__TELEMETRY__LOG_FORMAT", "json")
            .envs(settings.iter().map(|(key, value)| (format!("CLIPMESH__{key}"), value)))
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("start the embedder")?;
        let log = child.stderr.take().context("stderr is piped")?;
        // Made at once, so that it is ended should the address never come.
        let mut server = Self { child, address: String::new(), ready: Duration::ZERO };
        server.address = listening(log)?;
        server.ready = started_at.elapsed();
        Ok(server)
    }

    /// A connection of its own.
    pub(crate) fn connect(&self) -> anyhow::Result<Client> {
        let config = client::Config { timeout: None, ..client::Config::default() };
        let channel = client::channel(&format!("http://{}", self.address), &config)?;
        Ok(EmbedderServiceClient::new(channel))
    }

    /// Physical memory that the process holds.
    pub(crate) fn resident_bytes(&self) -> anyhow::Result<u64> {
        let file = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(file).context("the embedder still runs")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib =
            line.and_then(|line| line.trim().strip_suffix("kB")).context("resident memory")?;
        Ok(kib.trim().parse::<u64>()? * 1024)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, and nothing depends on how.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Reads the log up to the line that tells the address, and goes on reading behind the scenes.
fn listening(log: ChildStderr) -> anyhow::Result<String> {
    let mut lines = BufReader::new(log).lines();
    let mut seen = String::new();
    for line in lines.by_ref() {
        let line = line.context("read the embedder's log")?;
        let entry: Value = serde_json::from_str(&line).unwrap_or_default();
        if entry["message"] == "embedder listens" {
            let address = entry["address"].as_str().context("an address")?.to_owned();
            // A full pipe would hold the embedder up. Ends with it.
            std::thread::spawn(move || lines.for_each(drop));
            return Ok(address);
        }
        seen.push_str(&line);
        seen.push('\n');
    }
    anyhow::bail!("the embedder ended before it listened; its log:\n{seen}")
}
