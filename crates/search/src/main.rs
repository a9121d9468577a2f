//! `clipmesh-search`: the search service as a process of its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use clipmesh_mesh::Shutdown;
use clipmesh_mesh::settings::{self, EXIT_BAD_CONFIG, Sources};
use clipmesh_search::{App, Config};
use tokio::net::TcpListener;

/// Items, collections and search over them.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// A TOML file of settings; the environment and the other options win over it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where to listen, as in `127.0.0.1:8081`.
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// The folder of everything that is kept.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where the embedder listens, as in `http://127.0.0.1:8082`.
    #[arg(long, value_name = "URL")]
    embedder: Option<String>,
    /// Check the settings and exit.
    #[arg(long)]
    check_config: bool,
    /// Print the settings in effect and exit.
    #[arg(long)]
    print_config: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let data_dir = args.data_dir.as_ref().map(|path| path.display());
    let sources = Sources { file: args.config.clone(), ..Sources::from_process() }
        .with("listen", args.listen)
        .with("data_dir", data_dir)
        .with("embedder.url", args.embedder.as_ref());
    let config: Config = match settings::load(&sources) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("clipmesh-search: {error}");
            return ExitCode::from(EXIT_BAD_CONFIG);
        }
    };
    if args.check_config {
        return ExitCode::SUCCESS;
    }
    let done = if args.print_config { print(&config) } else { run(config) };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("clipmesh-search: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn print(config: &Config) -> anyhow::Result<()> {
    use std::io::Write as _;
    let text = toml::to_string(config).context("write down the settings")?;
    std::io::stdout().write_all(text.as_bytes()).context("print the settings")
}

#[tokio::main]
async fn run(config: Config) -> anyhow::Result<()> {
    let guard = clipmesh_telemetry::init("clipmesh-search", &config.telemetry)?;
    let shutdown = Shutdown::on_signals().context("listen for signals")?;
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("listen on {}", config.listen))?;
    let embedder = config.embedder.url.clone();
    let app = App::build(config, listener).await?;
    let (version, address) = (env!("CARGO_PKG_VERSION"), app.local_addr());
    tracing::info!(version, %address, embedder, "the search service is up");
    let served = app.run(shutdown).await;
    tracing::info!("the search service has stopped");
    guard.shutdown().await;
    Ok(served?)
}
