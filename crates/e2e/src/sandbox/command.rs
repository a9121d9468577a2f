//! The command line of each binary: the only place that knows their flags and log lines.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, ensure};
use tokio::sync::Mutex;

use super::{Plan, Service, scratch};

/// What `clipmesh up` logs, with the address of its gateway, once it can answer.
const MESH_IS_UP: &str = "mesh is up";

/// The folder of a small model with seeded random weights, made once for each seed.
///
/// # Errors
/// When the embedder's command fails.
pub async fn model_of(seed: u64) -> anyhow::Result<PathBuf> {
    static MODELS: Mutex<BTreeMap<u64, PathBuf>> = Mutex::const_new(BTreeMap::new());
    let mut models = MODELS.lock().await;
    if let Some(folder) = models.get(&seed) {
        return Ok(folder.clone());
    }
    let folder = scratch::folder("models")?.join(format!("tiny-random-{seed}"));
    let mut command = tokio::process::Command::from(program("clipmesh-embedder")?);
    command.args(["model", "random", "--arch", "tiny", "--seed", &seed.to_string()]).arg(&folder);
    let output = command.output().await.context("run `clipmesh-embedder model random`")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    models.insert(seed, folder.clone());
    Ok(folder)
}

/// A command for one of our binaries, free of settings that are in our own environment, those of
/// the Hugging Face hub included.
///
/// # Errors
/// When the binary was not built.
pub fn program(name: &str) -> anyhow::Result<Command> {
    // Tests are at target/PROFILE/deps/NAME, what they test is two steps up.
    let test = std::env::current_exe().context("find the test's own binary")?;
    let folder = test.parent().and_then(|deps| deps.parent()).context("find the target folder")?;
    let binary = folder.join(name);
    ensure!(binary.is_file(), "{} is missing: run `make build` first", binary.display());
    let mut command = Command::new(binary);
    for (key, _) in std::env::vars_os() {
        if ["CLIPMESH", "HF_"].iter().any(|prefix| key.to_string_lossy().starts_with(prefix)) {
            command.env_remove(key);
        }
    }
    Ok(command)
}

/// Finds where a process listens in a line of its log.
pub(super) fn address_in(service: Service, line: &str) -> Option<SocketAddr> {
    let event: serde_json::Value = serde_json::from_str(line).ok()?;
    if service == Service::Mesh && event.get("message")?.as_str()? != MESH_IS_UP {
        // Its parts have addresses too, and this is none of them.
        return None;
    }
    event.get("address")?.as_str()?.parse().ok()
}

impl Plan {
    pub(super) fn command(
        &self,
        service: Service,
        addresses: &BTreeMap<Service, SocketAddr>,
    ) -> anyhow::Result<Command> {
        let url = |callee| {
            let address: &SocketAddr = addresses.get(&callee).context("callees start first")?;
            Ok::<_, anyhow::Error>(format!("http://{address}"))
        };
        let mut command = match service {
            Service::Embedder => {
                let mut command = program("clipmesh-embedder")?;
                command.arg("--model").arg(&self.model);
                command
            }
            Service::Search => {
                let mut command = program("clipmesh-search")?;
                command.arg("--data-dir").arg(&self.data);
                command.arg("--embedder").arg(url(Service::Embedder)?);
                command
            }
            Service::Gateway => {
                let mut command = program("clipmesh-gateway")?;
                command.arg("--search-url").arg(url(Service::Search)?);
                command.arg("--embedder-url").arg(url(Service::Embedder)?);
                command
            }
            Service::Mesh => {
                let mut command = program("clipmesh")?;
                command.arg("up").arg("--model").arg(&self.model).arg("--data").arg(&self.data);
                command
            }
        };
        // The first start takes any free port; a later one comes back to the same.
        let listen =
            addresses.get(&service).map_or("127.0.0.1:0".to_owned(), SocketAddr::to_string);
        command.arg("--listen").arg(listen);
        command.env("CLIPMESH__TELEMETRY__LOG_FORMAT", "json");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        for (of, key, value) in &self.settings {
            if *of == service {
                let key = key.replace('.', "__").to_uppercase();
                command.env(format!("CLIPMESH__{key}"), value);
            }
        }
        Ok(command)
    }
}
