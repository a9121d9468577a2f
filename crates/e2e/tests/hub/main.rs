//! Models from a hub: `--model org/name` against one that runs here, with every way it can fail.

mod download;
mod families;

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use clipmesh_e2e::eventually;
use clipmesh_e2e::hub::{Behaviour, COMMIT, Hub};
use clipmesh_e2e::sandbox::{Sandbox, Service, model_of, program};
use clipmesh_proto::embedder::v1::embed_input::Content;
use clipmesh_proto::embedder::v1::embed_result::Outcome as Embedded;
use clipmesh_proto::embedder::v1::{EmbedInput, EmbedRequest, GetModelRequest};

const ID: &str = "org/name";
const WEIGHTS: &str = "model.safetensors";
/// What our random models consist of.
const FILES: [&str; 4] = ["config.json", "preprocessor_config.json", "tokenizer.json", WEIGHTS];
/// How long a process may take to be where it is expected.
const PATIENCE: Duration = Duration::from_secs(60);

/// A machine with an empty cache, and a hub.
struct Fixture {
    hub: Hub,
    home: tempfile::TempDir,
}

/// How a command ended.
#[derive(Debug)]
struct Outcome {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Fixture {
    async fn new() -> Self {
        Self::of(Behaviour::of(ID)).await
    }

    async fn of(behaviour: Behaviour) -> Self {
        let folder = model_of(1).await.expect("a model");
        let hub = Hub::start(&folder, behaviour).expect("a hub");
        Self { hub, home: tempfile::tempdir().expect("a folder") }
    }

    fn command(&self, binary: &str, arguments: &[&str]) -> Command {
        let mut command = program(binary).expect("it was built");
        command.args(arguments).env("HF_HOME", self.home.path());
        command.env("HF_ENDPOINT", self.hub.endpoint()).env("NO_PROXY", "127.0.0.1,localhost");
        command
    }

    /// Has a model read, which brings it here.
    async fn inspect(&self, model: &str) -> Outcome {
        self.inspect_with(model, &[]).await
    }

    async fn inspect_with(&self, model: &str, variables: &[(&str, &str)]) -> Outcome {
        let mut command = self.command("clipmesh-embedder", &["model", "inspect", model]);
        command.envs(variables.iter().copied());
        run(command).await
    }

    /// Waits for a request for the content of the weights.
    async fn download_begins(&self) {
        let begun = eventually("the download begins", PATIENCE, async || {
            let begun = self.hub.take_asked().iter().any(|asked| asked.path.starts_with("/cdn/"));
            begun.then_some(()).ok_or("not yet")
        });
        begun.await.expect("it downloads");
    }

    /// Where the requests for the content of the weights since the last time began.
    fn ranges(&self) -> Vec<Option<String>> {
        let asked = self.hub.take_asked().into_iter();
        let weights = asked.filter(|asked| asked.path.starts_with("/cdn/"));
        weights.map(|asked| asked.range).collect()
    }

    /// The one content that is not finished.
    fn part(&self) -> Option<PathBuf> {
        let is_part = |blob: &PathBuf| blob.extension().is_some_and(|name| name == "incomplete");
        self.blobs().into_iter().find(is_part)
    }

    /// All contents in the cache, finished or not.
    fn blobs(&self) -> Vec<PathBuf> {
        let blobs = self.home.path().join("hub/models--org--name/blobs");
        let Ok(entries) = std::fs::read_dir(blobs) else { return Vec::new() };
        entries.map(|entry| entry.expect("readable").path()).collect()
    }
}

impl Outcome {
    /// What went wrong.
    fn complaint(&self) -> &str {
        assert_eq!(self.code, Some(1), "a failure: {self:?}");
        &self.stderr
    }

    fn fingerprint(&self) -> &str {
        let line = self.stdout.lines().find(|line| line.starts_with("fingerprint"));
        line.expect("a fingerprint")
    }

    fn expect_success(&self) {
        assert_eq!(self.code, Some(0), "a success: {self:?}");
        assert!(self.stdout.contains("fingerprint"), "a model was read: {self:?}");
    }
}

async fn run(command: Command) -> Outcome {
    let mut command = tokio::process::Command::from(command);
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(PATIENCE, output).await.expect("it ends");
    let output = output.expect("it starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Outcome {
        code: output.status.code(),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    }
}

fn all_files() -> BTreeSet<String> {
    FILES.map(str::to_owned).into()
}

/// An address at which nobody listens.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    format!("http://{}", listener.local_addr().expect("an address"))
}

#[tokio::test]
async fn what_the_hub_does_not_have_is_named() {
    let fixture = Fixture::new().await;
    let outcome = fixture.inspect("org/other").await;
    let complaint = outcome.complaint();
    let expected = format!("there is no model `org/other` at {}", fixture.hub.endpoint());
    assert!(complaint.contains(&expected), "no such model: {complaint}");

    let outcome = fixture.inspect("org/name@v9").await;
    let complaint = outcome.complaint();
    assert!(complaint.contains("`org/name` has no revision `v9`"), "no revision: {complaint}");

    fixture.hub.change(|behaviour| behaviour.without = vec!["preprocessor_config.json".into()]);
    let outcome = fixture.inspect(ID).await;
    let complaint = outcome.complaint();
    let expected = "`org/name` at `main` has no `preprocessor_config.json`";
    assert!(complaint.contains(expected), "no such file: {complaint}");
}

#[tokio::test]
async fn a_file_that_only_a_mirror_misses_is_asked_for_again() {
    let fixture = Fixture::new().await;
    let is_missing = |is_missing: bool| {
        let file = is_missing.then(|| "preprocessor_config.json".to_owned());
        fixture.hub.change(|behaviour| behaviour.without = file.into_iter().collect());
    };
    fixture.hub.change(|behaviour| behaviour.is_bare = |status| status == 404);
    is_missing(true);
    let outcome = fixture.inspect(ID).await;
    assert!(outcome.complaint().contains("has no `preprocessor_config.json`"), "{outcome:?}");
    is_missing(false);
    fixture.inspect(ID).await.expect_success();
}

#[tokio::test]
async fn a_revision_without_weights_is_told_with_the_way_to_one_that_has_them() {
    let fixture = Fixture::new().await;
    fixture.hub.change(|behaviour| behaviour.without = vec![WEIGHTS.into()]);
    let outcome = fixture.inspect(ID).await;
    let complaint = outcome.complaint();
    let expected = "`org/name` at `main` has no `model.safetensors`";
    assert!(complaint.contains(expected), "what is missing: {complaint}");
    assert!(complaint.contains("`org/name@refs/pr/N`"), "where it may be: {complaint}");
}

#[tokio::test]
async fn the_default_model_is_taken_at_the_revision_that_has_weights() {
    let id = "openai/clip-vit-base-patch32";
    let revisions = vec!["refs/pr/15".to_owned()];
    let fixture = Fixture::of(Behaviour { revisions, ..Behaviour::of(id) }).await;
    fixture.inspect(id).await.expect_success();
    let asked = fixture.hub.take_asked();
    let first = format!("/{id}/resolve/refs%2Fpr%2F15/config.json");
    assert_eq!(asked[0].path, first, "the revision is one part of the path");
    let outcome = fixture.inspect(&format!("{id}@main")).await;
    assert!(outcome.complaint().contains("no revision `main`"), "what is named counts");
}

#[tokio::test]
async fn a_private_model_needs_its_token() {
    let fixture = Fixture::new().await;
    fixture.hub.change(|behaviour| behaviour.token = Some("secret".to_owned()));
    let outcome = fixture.inspect(ID).await;
    let complaint = outcome.complaint();
    assert!(complaint.contains("a private one, which needs a token in `HF_TOKEN`"), "{complaint}");
    let outcome = fixture.inspect_with(ID, &[("HF_TOKEN", "guessed")]).await;
    let complaint = outcome.complaint();
    assert!(complaint.contains("does not accept the token"), "{complaint}");
    assert!(!complaint.contains("guessed"), "a token is never shown: {complaint}");

    fixture.hub.take_asked();
    std::fs::write(fixture.home.path().join("token"), "secret\n").expect("a token's file");
    fixture.inspect(ID).await.expect_success();
    let asked = fixture.hub.take_asked();
    let (stored, hub): (Vec<_>, Vec<_>) =
        asked.iter().partition(|asked| asked.path.starts_with("/cdn/"));
    assert!(hub.iter().any(|asked| asked.authorization.as_deref() == Some("Bearer secret")));
    assert!(stored.iter().all(|asked| asked.authorization.is_none()), "it stays with the hub");
}

#[tokio::test]
async fn offline_only_the_cache_counts() {
    let fixture = Fixture::new().await;
    let offline = [("HF_HUB_OFFLINE", "1")];
    let outcome = fixture.inspect_with(ID, &offline).await;
    let complaint = outcome.complaint();
    let cache = fixture.home.path().join("hub");
    for part in ["`org/name` at `main`", "`HF_HUB_OFFLINE`", cache.to_str().expect("UTF-8")] {
        assert!(complaint.contains(part), "{part} in: {complaint}");
    }
    fixture.inspect(ID).await.expect_success();
    fixture.hub.take_asked();
    fixture.inspect_with(ID, &offline).await.expect_success();
    assert_eq!(fixture.hub.take_asked(), [], "nobody is asked");
}

#[tokio::test]
async fn a_hub_that_is_not_there_is_told_unless_the_cache_has_the_model() {
    let fixture = Fixture::new().await;
    let endpoint = nobody();
    let nobody = [("HF_ENDPOINT", endpoint.as_str())];
    let outcome = fixture.inspect_with(ID, &nobody).await;
    let complaint = outcome.complaint();
    assert!(complaint.contains(&format!("{endpoint} can't be reached")), "{complaint}");
    fixture.hub.change(|behaviour| behaviour.is_failing = true);
    let outcome = fixture.inspect(ID).await;
    assert!(outcome.complaint().contains("it answers 503"), "as good as gone: {outcome:?}");

    fixture.hub.change(|behaviour| behaviour.is_failing = false);
    fixture.inspect(ID).await.expect_success();
    fixture.inspect_with(ID, &nobody).await.expect_success();
    fixture.hub.change(|behaviour| behaviour.is_failing = true);
    fixture.inspect(ID).await.expect_success();
}

#[tokio::test]
async fn a_hub_that_gives_no_newer_model_leaves_the_cached_one() {
    let fixture = Fixture::new().await;
    fixture.inspect(ID).await.expect_success();
    fixture.hub.change(|behaviour| behaviour.is_bare = |_| true);
    fixture.inspect(ID).await.expect_success();

    let token = Some("renewed".to_owned());
    fixture.hub.change(|behaviour| *behaviour = Behaviour { token, ..Behaviour::of(ID) });
    fixture.inspect_with(ID, &[("HF_TOKEN", "expired")]).await.expect_success();

    let folder = model_of(2).await.expect("another model");
    let commit = COMMIT.chars().rev().collect();
    let cuts = vec![1_000, 0, 0, 0];
    let behaviour = Behaviour { commit, cuts, ..Behaviour::of(ID) };
    let hub = Hub::start(&folder, behaviour).expect("the same hub later");
    let later = [("HF_ENDPOINT", hub.endpoint())];
    let later = later.each_ref().map(|(name, value)| (*name, value.as_str()));
    let fingerprint = |outcome: Outcome| {
        outcome.expect_success();
        outcome.fingerprint().to_owned()
    };
    let cached = fingerprint(fixture.inspect_with(ID, &[("HF_HUB_OFFLINE", "1")]).await);
    let cut_off = fingerprint(fixture.inspect_with(ID, &later).await);
    assert_eq!(cut_off, cached, "the older commit is complete");
    let newer = fingerprint(fixture.inspect_with(ID, &later).await);
    assert_ne!(newer, cached, "the newer one goes on, and is complete now");
}

#[tokio::test]
async fn a_mesh_that_can_not_have_its_model_says_which_ones_need_no_hub() {
    let fixture = Fixture::new().await;
    let data = fixture.home.path().join("data");
    let mut command = fixture.command("clipmesh", &["up", "--listen", "127.0.0.1:0", "--data"]);
    command.arg(data).env("HF_ENDPOINT", nobody());
    let outcome = run(command).await;
    let complaint = outcome.complaint();
    for part in ["can't be reached", "`--model tiny`", "`--model FOLDER`"] {
        assert!(complaint.contains(part), "{part} in: {complaint}");
    }
}

#[tokio::test]
async fn a_mesh_serves_a_model_of_the_hub_with_and_without_the_hub() {
    let fixture = Fixture::new().await;
    let home = fixture.home.path().to_str().expect("UTF-8").to_owned();
    let mesh = Sandbox::builder().in_one_process().model(ID);
    let mesh = mesh.env("HF_HOME", &home).env("HF_ENDPOINT", &fixture.hub.endpoint());
    let mut sandbox = mesh.start().await.expect("the mesh starts");
    assert_eq!(fixture.hub.take_given(), all_files(), "it was downloaded");
    let vector = embed(&sandbox).await;

    sandbox.kill(Service::Mesh).await.expect("it runs");
    drop(fixture.hub);
    sandbox.restart(Service::Mesh).await.expect("the cached model does");
    assert_eq!(embed(&sandbox).await, vector, "the same model");
    assert!(sandbox.logs().contains("the cached model is used"), "told: {}", sandbox.logs());
}

/// The vector of some words, from a model that is called as the hub calls it.
async fn embed(sandbox: &Sandbox) -> Vec<f32> {
    let mut clients = sandbox.clients().expect("the gateway listens");
    let model = clients.embedder.get_model(GetModelRequest {}).await.expect("described");
    assert_eq!(model.into_inner().model.expect("the model").name, ID, "its name at the hub");
    let input = EmbedInput { content: Some(Content::Text("a cat".to_owned())) };
    let request = EmbedRequest { inputs: vec![input], ..EmbedRequest::default() };
    let mut answer = clients.embedder.embed(request).await.expect("embedded").into_inner();
    match answer.results.remove(0).outcome {
        Some(Embedded::Embedding(embedding)) => embedding.values,
        other => panic!("a vector: {other:?}"),
    }
}
