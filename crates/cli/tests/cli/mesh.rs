//! A mesh in a process of its own, and the command that talks to it.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Limits, not waits: generous for a machine that is busy compiling.
const START_LIMIT: Duration = Duration::from_secs(120);
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// For a whole command, such as one that stores hundreds of pictures one by one.
const END_LIMIT: Duration = Duration::from_secs(300);

/// What a command left behind.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// `clipmesh up` with a small model; killed if a test fails.
#[derive(Debug)]
pub(crate) struct Mesh {
    child: Option<Child>,
    log: Option<thread::JoinHandle<String>>,
    server: String,
    /// Kept until the mesh has stopped.
    _data: Option<tempfile::TempDir>,
}

// === impl Mesh ===

impl Mesh {
    /// A mesh with nothing in it.
    pub(crate) fn start() -> Self {
        let data = tempfile::tempdir().expect("make a folder");
        let mut mesh = Self::start_at(data.path());
        mesh._data = Some(data);
        mesh
    }

    /// A mesh with what is in this folder.
    pub(crate) fn start_at(data: &Path) -> Self {
        Self::start_on("127.0.0.1:0", data)
    }

    /// A mesh at this address, with what is in this folder.
    pub(crate) fn start_on(listen: &str, data: &Path) -> Self {
        let mut child = command()
            .args(["up", "--listen", listen, "--json", "--device", "cpu"])
            .args(["--log-format", "json"])
            .arg("--model")
            .arg(model())
            .arg("--data")
            .arg(data)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start a mesh");
        let mut stderr = child.stderr.take().expect("stderr is piped");
        let log = thread::spawn(move || {
            let mut log = Vec::new();
            stderr.read_to_end(&mut log).expect("read the log");
            String::from_utf8_lossy(&log).into_owned()
        });
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut mesh =
            Self { child: Some(child), log: Some(log), server: String::new(), _data: None };
        let line = within(START_LIMIT, move || {
            let mut line = String::new();
            stdout.read_line(&mut line).expect("read the first line");
            line
        });
        let Some(addresses) = line.and_then(|line| serde_json::from_str::<Value>(&line).ok())
        else {
            panic!("the mesh did not come up; its log:\n{}", mesh.kill());
        };
        mesh.server = addresses["gateway"].as_str().expect("an address").to_owned();
        mesh
    }

    /// Host and port of its gateway.
    pub(crate) fn address(&self) -> &str {
        self.server.trim_start_matches("http://")
    }

    /// Starts a client command and leaves it to itself.
    pub(crate) fn spawn(&self, arguments: &[&str]) -> Child {
        let mut command = command();
        command.args(arguments).args(["--server", &self.server]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("start the command")
    }

    /// Runs a client command.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        output(command().args(arguments).args(["--server", &self.server]))
    }

    /// Runs a script whose commands are client commands, as a person at home in this folder does. It
    /// ends with the first that fails, and tells on standard error which that was.
    pub(crate) fn script(&self, script: &str, home: &Path) -> Output {
        let program = Path::new(env!("CARGO_BIN_EXE_clipmesh"));
        let mut path = program.parent().expect("it is in a folder").as_os_str().to_owned();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        let mut shell = without_settings(Command::new("sh"));
        shell.args(["-euxc", script]).current_dir(home);
        shell.env("HOME", home).env("PATH", path).env("CLIPMESH_SERVER", &self.server);
        output(&mut shell)
    }

    /// Runs a client command that must end with `code`, and reads its one document.
    pub(crate) fn json(&self, arguments: &[&str], code: i32) -> Value {
        let output = self.run(&[arguments, &["--json"]].concat());
        assert_eq!(output.code, code, "`{}`: {output:?}", arguments.join(" "));
        serde_json::from_str(&output.stdout).expect("one JSON document")
    }

    /// Stops it as an orchestrator does.
    pub(crate) fn stop(self) {
        let (code, log) = self.signal(Signal::TERM);
        assert_eq!(code, Some(0), "a clean stop; its log:\n{log}");
    }

    /// Stops it as a person does; returns the exit code and the log.
    pub(crate) fn interrupt(self) -> (Option<i32>, String) {
        self.signal(Signal::INT)
    }

    fn signal(mut self, signal: Signal) -> (Option<i32>, String) {
        let mut child = self.child.take().expect("it runs");
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, signal).expect("send the signal");
        let ended = within(STOP_LIMIT, move || child.wait().expect("its exit status"));
        let Some(status) = ended else {
            kill_process(pid, Signal::KILL).expect("end it");
            panic!("the mesh did not stop; its log:\n{}", self.read_log());
        };
        (status.code(), self.read_log())
    }

    /// Ends it as a power cut does.
    pub(crate) fn kill(&mut self) -> String {
        if let Some(mut child) = self.child.take() {
            // Fails only if it has ended already, and then there is nothing left to do.
            let _already_ended = child.kill();
            let _already_reaped = child.wait();
        }
        self.read_log()
    }

    fn read_log(&mut self) -> String {
        self.log.take().map(|log| log.join().expect("the log was read")).unwrap_or_default()
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if self.child.is_some() {
            let log = self.kill();
            eprintln!("--- the mesh's log ---\n{log}");
        }
    }
}

/// A small model with random weights, made once.
pub(crate) fn model() -> &'static Path {
    static MODEL: OnceLock<PathBuf> = OnceLock::new();
    MODEL.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cli-model");
        if folder.exists() {
            std::fs::remove_dir_all(&folder).expect("remove an old model");
        }
        let path = folder.to_str().expect("a plain path");
        let made = clipmesh(&["model", "random", "--arch", "tiny", "--seed", "7", path]);
        assert_eq!(made.code, 0, "a model is made: {made:?}");
        folder
    })
}

/// Waits for a command that was left to itself.
pub(crate) fn ended(child: Child) -> Output {
    let ended = within(END_LIMIT, move || child.wait_with_output().expect("its output"));
    read(ended.expect("it comes to an end"))
}

/// Runs a command that needs no mesh.
pub(crate) fn clipmesh(arguments: &[&str]) -> Output {
    output(command().args(arguments))
}

fn command() -> Command {
    without_settings(Command::new(env!("CARGO_BIN_EXE_clipmesh")))
}

/// The command, without settings from our own environment.
fn without_settings(mut command: Command) -> Command {
    for (key, _) in std::env::vars_os() {
        if key.to_string_lossy().starts_with("CLIPMESH") {
            command.env_remove(key);
        }
    }
    command.stdin(Stdio::null());
    command
}

fn output(command: &mut Command) -> Output {
    read(command.output().expect("run the command"))
}

fn read(output: std::process::Output) -> Output {
    Output {
        code: output.status.code().expect("it was not killed"),
        stdout: String::from_utf8(output.stdout).expect("text"),
        stderr: String::from_utf8(output.stderr).expect("text"),
    }
}

/// Runs something that may take for ever on a thread of its own.
fn within<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        // Nobody listens any more once the limit is over.
        let _too_late = sender.send(work());
    });
    receiver.recv_timeout(limit).ok()
}
