//! Real Redis servers for tests: each on a free port, in a folder of its own, gone with the test.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use deadpool_redis::redis;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::cache::config::{Mode, Redis as Config};

/// How long a server may take to come up.
const PATIENCE: Duration = Duration::from_secs(30);

/// One server.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) port: u16,
    folder: TempDir,
    options: Vec<String>,
    child: Child,
}

// === impl Server ===

impl Server {
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// A server with options, as in `--requirepass secret`. It keeps nothing on the disk.
    pub(crate) fn with(options: &[&str]) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let options: Vec<_> = options.iter().map(|&option| option.to_owned()).collect();
        // The port may be taken between the look for a free one and the start.
        for _ in 0..10 {
            let port = free_port();
            let mut child = spawn(&folder, port, &options);
            if is_up(port, &mut child) {
                return Self { port, folder, options, child };
            }
        }
        panic!("redis-server does not come up");
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Settings that reach it, for a machine with much else to do.
    pub(crate) fn config(&self) -> Config {
        Config {
            url: self.url(),
            timeout: Duration::from_millis(500),
            connect_timeout: Duration::from_secs(10),
            min_ejection: Duration::from_millis(20),
            max_ejection: Duration::from_millis(40),
            ..Config::default()
        }
    }

    /// Sends a command by another way than the cache.
    pub(crate) fn command<T: redis::FromRedisValue>(&self, command: &[&str]) -> T {
        let mut connection = connect(self.port).expect("it is up");
        redis::cmd(command[0]).arg(&command[1..]).query(&mut connection).expect("an answer")
    }

    /// Stops it as a failing machine would.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.child.wait().expect("it ends");
    }

    /// Starts it again on the same port, with what it was told to save.
    pub(crate) fn restart(&mut self) {
        self.child = spawn(&self.folder, self.port, &self.options);
        assert!(is_up(self.port, &mut self.child), "redis-server does not come up again");
    }

    /// Makes it stand still without closing anything.
    pub(crate) fn stall(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail when it was killed already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A server that speaks TLS, too, and its address. `certificate.pem` in the folder is what no system
/// trusts by itself.
pub(crate) fn with_tls() -> (Server, String, TempDir) {
    let folder = TempDir::new().expect("a temporary folder");
    let file = |name| folder.path().join(name);
    let (certificate, key) = (file("certificate.pem"), file("key.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
        .args(["-nodes", "-days", "2", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-out"])
        .arg(&certificate)
        .arg("-keyout")
        .arg(&key)
        .stderr(Stdio::null())
        .status();
    assert!(made.expect("openssl, which `tools/setup test` installs").success(), "a certificate");
    let port = free_port().to_string();
    let path = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let (certificate_path, key_path) = (path(&certificate), path(&key));
    let server = Server::with(&[
        "--tls-port",
        &port,
        "--tls-cert-file",
        &certificate_path,
        "--tls-key-file",
        &key_path,
        "--tls-ca-cert-file",
        &certificate_path,
        "--tls-auth-clients",
        "no",
    ]);
    (server, format!("rediss://127.0.0.1:{port}"), folder)
}

/// Three servers that share the keys among them.
pub(crate) fn cluster() -> (Vec<Server>, Config) {
    let options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"];
    let servers: Vec<_> = (0..3).map(|_| Server::with(&options)).collect();
    let slots = [("0", "5460"), ("5461", "10922"), ("10923", "16383")];
    let first = servers[0].port.to_string();
    for (server, (from, to)) in servers.iter().zip(slots) {
        server.command::<()>(&["CLUSTER", "ADDSLOTSRANGE", from, to]);
        server.command::<()>(&["CLUSTER", "MEET", "127.0.0.1", &first]);
    }
    wait("the cluster agrees", || {
        servers.iter().all(|server| {
            let info: String = server.command(&["CLUSTER", "INFO"]);
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
        })
    });
    let url = servers.iter().map(Server::url).collect::<Vec<_>>().join(",");
    let config = Config { url, mode: Mode::Cluster, ..servers[0].config() };
    (servers, config)
}

/// A server with a replica, and a sentinel over them.
pub(crate) fn sentinel() -> (Server, Server, Server, Config) {
    let leader = Server::start();
    let port = leader.port.to_string();
    let replica = Server::with(&["--replicaof", "127.0.0.1", &port, "--repl-diskless-sync", "yes"]);
    let sentinel = Server::with(&["--sentinel"]);
    sentinel.command::<()>(&["SENTINEL", "MONITOR", "pictures", "127.0.0.1", &port, "1"]);
    for (option, value) in [("down-after-milliseconds", "500"), ("failover-timeout", "2000")] {
        sentinel.command::<()>(&["SENTINEL", "SET", "pictures", option, value]);
    }
    wait("the sentinel knows the replica", || {
        let info: String = sentinel.command(&["INFO", "sentinel"]);
        info.contains("status=ok") && info.contains("slaves=1")
    });
    let config = Config {
        url: sentinel.url(),
        mode: Mode::Sentinel,
        sentinel_master: "pictures".to_owned(),
        ..leader.config()
    };
    (leader, replica, sentinel, config)
}

fn spawn(folder: &TempDir, port: u16, options: &[String]) -> Child {
    // A sentinel writes to its file of settings, and must have one.
    let file = folder.path().join("redis.conf");
    let lines = format!("port {port}\nbind 127.0.0.1\ndir {}\n", folder.path().display());
    fs::write(&file, lines).expect("written");
    let mut command = Command::new("redis-server");
    command.arg(&file);
    if !options.iter().any(|option| option == "--sentinel") {
        command.args(["--save", "", "--appendonly", "no"]);
    }
    command.args(options).stdin(Stdio::null()).stdout(Stdio::null());
    command.spawn().expect("redis-server, which `tools/setup test` installs")
}

fn free_port() -> u16 {
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        // A node of a cluster needs the port 10,000 above, too.
        if port < 55_000 {
            return port;
        }
    }
}

fn connect(port: u16) -> redis::RedisResult<redis::Connection> {
    redis::Client::open(("127.0.0.1", port))?.get_connection_with_timeout(Duration::from_secs(1))
}

/// Whether it came up, with or without a password; it ends at once if its port is taken.
fn is_up(port: u16, child: &mut Child) -> bool {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if child.try_wait().expect("its state").is_some() {
            return false;
        }
        let answer = connect(port)
            .and_then(|mut connection| redis::cmd("PING").query::<String>(&mut connection));
        match answer {
            Ok(_) => return true,
            Err(error) if error.code() == Some("NOAUTH") => return true,
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
    false
}

fn wait(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
