//! What must not outlive the process of the tests, however that ends: folders and processes.
//!
//! A sandbox that tests share is a `static`, and statics are never dropped; a run of tests that is
//! interrupted drops nothing at all. So a small shell holds the reading end of a pipe. When this
//! process is gone the pipe ends, and the shell kills what was watched and removes the folder.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::Context as _;

/// Reads `+ PID` and `- PID` until the pipe ends. Deaf to Ctrl-C, which reaches the whole group of
/// processes. The folder is removed twice, because a process that is being killed may still write.
const REAPER: &str = r#"
    trap '' INT TERM HUP
    pids=' '
    while read -r sign pid; do
        case $sign in
            +) pids="$pids$pid " ;;
            -) pids="${pids%% $pid *} ${pids#* $pid }" ;;
        esac
    done
    for pid in $pids; do kill -9 "$pid"; done
    rm -rf "$1" || { sleep 1; rm -rf "$1"; }
"#;

static SCRATCH: OnceLock<Scratch> = OnceLock::new();
static FOLDERS: AtomicU64 = AtomicU64::new(0);

/// One for each process of tests.
#[derive(Debug)]
struct Scratch {
    root: PathBuf,
    reaper: Mutex<ChildStdin>,
}

/// A new empty folder, gone with this process.
pub(super) fn folder(purpose: &str) -> anyhow::Result<PathBuf> {
    let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
    let folder = scratch()?.root.join(format!("{purpose}-{number}"));
    std::fs::create_dir(&folder).with_context(|| format!("make {}", folder.display()))?;
    Ok(folder)
}

/// Ends this process with ours.
pub(super) fn watch(pid: u32) -> anyhow::Result<()> {
    scratch()?.tell('+', pid).context("tell the reaper of a process")
}

/// The process has ended, and its number may be another's soon.
pub(super) fn forget(pid: u32) {
    // Without a reaper there is nobody who could mistake the number.
    if let Some(scratch) = SCRATCH.get() {
        let _reaper_is_gone = scratch.tell('-', pid);
    }
}

fn scratch() -> anyhow::Result<&'static Scratch> {
    static STARTING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(scratch) = SCRATCH.get() {
        return Ok(scratch);
    }
    let root = tempfile::Builder::new().prefix("clipmesh-e2e-").tempdir();
    let root = root.context("make a folder for the tests")?.keep();
    let mut reaper = Command::new("sh")
        .args(["-c", REAPER, "reaper"])
        .arg(&root)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("start the reaper")?;
    let pipe = reaper.stdin.take().context("the reaper's stdin is piped")?;
    Ok(SCRATCH.get_or_init(|| Scratch { root, reaper: Mutex::new(pipe) }))
}

// === impl Scratch ===

impl Scratch {
    fn tell(&self, sign: char, pid: u32) -> std::io::Result<()> {
        let mut reaper = self.reaper.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(reaper, "{sign} {pid}")
    }
}
