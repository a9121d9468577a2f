//! The gateway as a process of its own.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use clipmesh_gateway::{App, Config};
use clipmesh_mesh::Shutdown;
use clipmesh_mesh::settings::{self, EXIT_BAD_CONFIG, Sources};
use tokio::net::TcpListener;

/// The one door of clipmesh: gRPC and grpc-web proxied to the services behind it.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// A TOML file with settings.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where to listen, as in `127.0.0.1:8080`; port 0 takes a free one.
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Where the search service is, as in `http://127.0.0.1:8081`.
    #[arg(long, value_name = "URL")]
    search_url: Option<String>,
    /// Where the embedder is, as in `http://127.0.0.1:8082`.
    #[arg(long, value_name = "URL")]
    embedder_url: Option<String>,
    /// Check the settings and exit.
    #[arg(long)]
    check_config: bool,
    /// Print the settings as TOML and exit.
    #[arg(long)]
    print_config: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let sources = Sources { file: args.config, ..Sources::from_process() }
        .with("listen", args.listen)
        .with("search_url", args.search_url)
        .with("embedder_url", args.embedder_url);
    let config: Config = match settings::load(&sources) {
        Ok(config) => config,
        Err(error) => return fail(&error.into(), EXIT_BAD_CONFIG),
    };
    let done = if args.print_config {
        print(&config)
    } else if args.check_config {
        Ok(())
    } else {
        run(config)
    };
    done.map_or_else(|error| fail(&error, 1), |()| ExitCode::SUCCESS)
}

fn print(config: &Config) -> anyhow::Result<()> {
    let text = toml::to_string(config).context("write the settings as TOML")?;
    std::io::stdout().write_all(text.as_bytes()).context("print the settings")
}

#[tokio::main]
async fn run(config: Config) -> anyhow::Result<()> {
    let telemetry = clipmesh_telemetry::init("clipmesh-gateway", &config.telemetry)?;
    let shutdown = Shutdown::on_signals().context("listen for signals")?;
    let listener = TcpListener::bind(config.listen).await.context("open the port")?;
    let (search, embedder) = (config.search_url.clone(), config.embedder_url.clone());
    let app = App::build(config, listener).await?;
    let (address, version) = (app.local_addr(), env!("CARGO_PKG_VERSION"));
    tracing::info!(%address, search, embedder, version, "gateway listens");
    app.run(shutdown).await;
    tracing::info!("gateway stopped");
    telemetry.shutdown().await;
    Ok(())
}

fn fail(error: &anyhow::Error, code: u8) -> ExitCode {
    // Telemetry may not be up yet, so a person reads it from the terminal.
    eprintln!("clipmesh-gateway: {error:#}");
    ExitCode::from(code)
}
