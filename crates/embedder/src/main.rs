//! The embedder as a process of its own, and the commands that look at models and make them.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use clipmesh_embedder::{App, Config, command};
use clipmesh_mesh::Shutdown;
use clipmesh_mesh::settings::{self, EXIT_BAD_CONFIG, Sources};
use tokio::net::TcpListener;

/// Turns pictures and words into vectors. Without a command, it serves.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// A TOML file with settings.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where to listen, as in `127.0.0.1:8082`; port 0 takes a free one.
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// `tiny`, a folder in Hugging Face's form, or `org/name[@revision]` of the Hugging Face hub.
    #[arg(long)]
    model: Option<String>,
    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    #[arg(long)]
    device: Option<String>,
    /// Check the settings and exit.
    #[arg(long)]
    check_config: bool,
    /// Print the settings as TOML and exit.
    #[arg(long)]
    print_config: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Look at models, and make them.
    #[command(subcommand)]
    Model(command::Model),
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(Command::Model(command)) = args.command {
        let done = command.run(&mut std::io::stdout().lock());
        return done.map_or_else(|error| fail(&error.into(), 1), |()| ExitCode::SUCCESS);
    }
    let sources = Sources { file: args.config, ..Sources::from_process() }
        .with("listen", args.listen)
        .with("model", args.model)
        .with("device", args.device);
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

fn run(config: Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("start the runtime")?;
    let ended = runtime.block_on(serve(config));
    // A device that hangs keeps its thread; the process ends all the same.
    runtime.shutdown_background();
    ended
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let telemetry = clipmesh_telemetry::init("clipmesh-embedder", &config.telemetry)?;
    let shutdown = Shutdown::on_signals().context("listen for signals")?;
    let listener = TcpListener::bind(config.listen).await.context("open the port")?;
    let app = tokio::select! {
        app = App::build(config, listener) => app?,
        // A download can take longer than an orchestrator waits.
        () = shutdown.requested() => {
            telemetry.shutdown().await;
            return Ok(());
        }
    };
    let (address, version) = (app.local_addr(), env!("CARGO_PKG_VERSION"));
    tracing::info!(%address, version, "embedder listens");
    let ended = app.run(shutdown).await;
    tracing::info!("embedder stopped");
    telemetry.shutdown().await;
    Ok(ended?)
}

fn fail(error: &anyhow::Error, code: u8) -> ExitCode {
    // Telemetry may not be up yet, so a person reads it from the terminal.
    eprintln!("clipmesh-embedder: {error:#}");
    ExitCode::from(code)
}
