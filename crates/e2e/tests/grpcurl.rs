//! What an operator types: grpcurl, with no proto file at hand, through the gateway.
//!
//! Skipped, with a message, where grpcurl is not installed; `tools/setup test` installs it
//! where there is a Go toolchain.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use clipmesh_e2e::clients::new_item;
use clipmesh_e2e::sandbox::{Attached, Shared};
use clipmesh_e2e::{eventually, pictures};
use serde_json::{Value, json};

/// How long the gateway may take to learn of a service's health.
const PATIENCE: Duration = Duration::from_secs(20);

static SANDBOX: Shared = Shared::new();

/// grpcurl and the address of the gateway.
struct Grpcurl {
    _sandbox: Attached,
    program: PathBuf,
    address: SocketAddr,
}

impl Grpcurl {
    /// `None` where it is not installed.
    async fn find() -> Option<Self> {
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.deps/bin/grpcurl");
        let on_path = std::env::var_os("PATH").unwrap_or_default();
        let on_path = std::env::split_paths(&on_path).map(|folder| folder.join("grpcurl"));
        let Some(program) = std::iter::once(own).chain(on_path).find(|path| path.is_file()) else {
            eprintln!(
                "SKIPPED: there is no grpcurl in .deps/bin or on the PATH; \
                 `tools/setup test` installs it where there is a Go toolchain"
            );
            return None;
        };
        let sandbox = SANDBOX.attach().await.expect("the mesh starts");
        let address = sandbox.gateway_address().expect("the gateway listens");
        Some(Self { _sandbox: sandbox, program, address })
    }

    /// Runs `grpcurl -plaintext FLAGS ADDRESS WORDS`.
    fn run(&self, flags: &[&str], words: &[&str]) -> Output {
        Command::new(&self.program)
            .args(["-plaintext", "-max-time", "30"])
            .args(flags)
            .arg(self.address.to_string())
            .args(words)
            .output()
            .expect("grpcurl runs")
    }

    /// The lines that it prints when all is well.
    fn lines(&self, words: &[&str]) -> Vec<String> {
        let output = self.run(&[], words);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "grpcurl {words:?}: {stderr}");
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
    }

    /// Calls a method with JSON, and reads the answer as JSON.
    fn call(&self, method: &str, request: &Value) -> Value {
        let output = self.run(&["-emit-defaults", "-d", &request.to_string()], &[method]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{method}: {stderr}");
        serde_json::from_slice(&output.stdout).expect("grpcurl prints JSON")
    }
}

#[tokio::test]
async fn lists_and_describes_every_service() {
    let Some(grpcurl) = Grpcurl::find().await else { return };
    let services = grpcurl.lines(&["list"]);
    for service in [
        "clipmesh.embedder.v1.EmbedderService",
        "clipmesh.search.v1.CollectionService",
        "clipmesh.search.v1.ItemService",
        "clipmesh.search.v1.SearchService",
        "grpc.health.v1.Health",
    ] {
        assert!(services.iter().any(|line| line == service), "`{service}` in {services:?}");
    }
    let methods = grpcurl.lines(&["list", "clipmesh.search.v1.ItemService"]);
    let stream = "clipmesh.search.v1.ItemService.IndexItems".to_owned();
    assert!(methods.contains(&stream), "its methods: {methods:?}");
    let described = grpcurl.lines(&["describe", "clipmesh.search.v1.SearchRequest"]).join("\n");
    assert!(described.contains("optional float score_threshold = 6"), "a message: {described}");
}

#[tokio::test]
async fn searches_in_json() {
    let Some(grpcurl) = Grpcurl::find().await else { return };
    let create = "clipmesh.search.v1.CollectionService/CreateCollection";
    let created = grpcurl.call(create, &json!({ "name": "curl" }));
    assert_eq!(created["collection"]["name"], "curl", "what was made: {created}");

    let sandbox = SANDBOX.attach().await.expect("the mesh runs");
    let mut clients = sandbox.clients().expect("the gateway listens");
    for seed in 0..3 {
        let item = new_item(format!("p{seed}"), pictures::png(seed));
        clients.index("curl", item).await.expect("indexed");
    }
    let request = json!({ "collection": "curl", "query": { "itemId": "p0" }, "limit": 1 });
    let found = grpcurl.call("clipmesh.search.v1.SearchService/Search", &request);
    let hits = found["hits"].as_array().expect("a list of hits");
    assert_eq!(hits.len(), 1, "the limit is kept: {found}");
    let id = hits[0]["item"]["id"].as_str().expect("an id");
    assert!(["p1", "p2"].contains(&id), "another picture: {found}");

    let by_words = json!({ "collection": "curl", "query": { "text": "a cat" } });
    let found = grpcurl.call("clipmesh.search.v1.SearchService/Search", &by_words);
    assert_eq!(found["hits"].as_array().map(Vec::len), Some(3), "by words: {found}");
}

#[tokio::test]
async fn says_what_was_wrong_with_a_request() {
    let Some(grpcurl) = Grpcurl::find().await else { return };
    let request = json!({ "name": "Not A Name" }).to_string();
    let create = "clipmesh.search.v1.CollectionService/CreateCollection";
    let output = grpcurl.run(&["-d", &request], &[create]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "an error is a failure to a script");
    assert!(stderr.contains("InvalidArgument"), "the code: {stderr}");
    assert!(stderr.contains("name"), "the field: {stderr}");
}

#[tokio::test]
async fn checks_the_health_of_each_service() {
    let Some(grpcurl) = Grpcurl::find().await else { return };
    for service in ["", "clipmesh.search.v1.SearchService", "clipmesh.embedder.v1.EmbedderService"]
    {
        // The gateway learns of a service's health a moment after that service has it.
        let serving = eventually("it is healthy", PATIENCE, async || {
            let health =
                grpcurl.call("grpc.health.v1.Health/Check", &json!({ "service": service }));
            if health["status"] == "SERVING" { Ok(()) } else { Err(health) }
        });
        serving.await.unwrap_or_else(|error| panic!("`{service}`: {error}"));
    }
}
