//! How the files come: once, on from where they stopped, and verified.

use std::process::Stdio;

use clipmesh_e2e::eventually;
use clipmesh_e2e::hub::{Behaviour, COMMIT, Hub};
use clipmesh_e2e::sandbox::model_of;
use rustix::process::{Pid, Signal, kill_process};

use crate::{FILES, Fixture, ID, PATIENCE, WEIGHTS, all_files, run};

#[tokio::test]
async fn a_model_is_downloaded_once_and_only_what_is_needed_of_it() {
    let fixture = Fixture::new().await;
    let folder = tempfile::tempdir().expect("a folder");
    for file in FILES {
        let from = model_of(1).await.expect("a model").join(file);
        std::fs::copy(from, folder.path().join(file)).expect("copied");
    }
    for other in ["pytorch_model.bin", "README.md", "vocab.json", "merges.txt"] {
        std::fs::write(folder.path().join(other), "of no use").expect("written");
    }
    let hub = Hub::start(folder.path(), Behaviour::of(ID)).expect("a hub");
    let fixture = Fixture { hub, ..fixture };

    fixture.inspect(ID).await.expect_success();
    assert_eq!(fixture.hub.take_given(), all_files(), "all that is needed, and nothing else");
    fixture.inspect(ID).await.expect_success();
    let asked = fixture.hub.take_asked();
    let asked: Vec<&str> = asked.iter().map(|asked| asked.method.as_str()).collect();
    assert_eq!(asked, ["HEAD", "HEAD"], "only where the branch is now, and its redirect");
    fixture.inspect(&format!("{ID}@{COMMIT}")).await.expect_success();
    assert_eq!(fixture.hub.take_asked(), [], "a commit never changes");
}

#[tokio::test]
async fn the_model_is_the_one_that_the_hub_has() {
    let fixture = Fixture::new().await;
    let folder = model_of(1).await.expect("a model");
    let folder = folder.to_str().expect("UTF-8");
    let here = run(fixture.command("clipmesh-embedder", &["model", "inspect", folder])).await;
    let there = fixture.inspect(ID).await;
    assert_eq!(there.fingerprint(), here.fingerprint(), "byte by byte");
}

#[tokio::test]
async fn a_broken_download_goes_on_where_it_stopped() {
    let fixture = Fixture::new().await;
    fixture.hub.change(|behaviour| behaviour.cuts = vec![1_000, 5_000]);
    fixture.inspect(ID).await.expect_success();
    let [second, third] = ["bytes=1000-", "bytes=6000-"].map(|range| Some(range.to_owned()));
    assert_eq!(fixture.ranges(), [None, second, third], "no byte twice");
}

#[tokio::test]
async fn a_download_that_was_given_up_goes_on_in_the_next_process() {
    let fixture = Fixture::new().await;
    fixture.hub.change(|behaviour| behaviour.cuts = vec![1_000, 0, 0, 0]);
    let outcome = fixture.inspect(ID).await;
    let complaint = outcome.complaint();
    for part in ["`model.safetensors` of `org/name`", "at 1000 of", "what came is kept"] {
        assert!(complaint.contains(part), "{part} in: {complaint}");
    }
    fixture.hub.take_asked();
    fixture.inspect(ID).await.expect_success();
    assert_eq!(fixture.ranges(), [Some("bytes=1000-".to_owned())], "from where it stopped");
    assert_eq!(fixture.part(), None, "nothing half done");
}

#[tokio::test]
async fn a_download_that_was_killed_goes_on_in_the_next_process() {
    let fixture = Fixture::new().await;
    fixture.hub.change(|behaviour| behaviour.is_stalling = true);
    let command = fixture.command("clipmesh-embedder", &["model", "inspect", ID]);
    let mut process = tokio::process::Command::from(command);
    let mut process = process.kill_on_drop(true).spawn().expect("it starts");
    let written = eventually("the first byte is written", PATIENCE, async || {
        let part = fixture.part().ok_or("no part")?;
        let length = part.metadata().map_err(|_| "no part any more")?.len();
        (length == 1).then_some(()).ok_or("not yet")
    });
    written.await.expect("it downloads");
    process.kill().await.expect("it runs");
    fixture.hub.change(|behaviour| behaviour.is_stalling = false);
    fixture.hub.take_asked();
    fixture.inspect(ID).await.expect_success();
    assert_eq!(fixture.ranges(), [Some("bytes=1-".to_owned())], "from where it was killed");
    assert_eq!(fixture.part(), None, "nothing half done");
}

#[tokio::test]
async fn a_download_that_goes_on_with_something_wrong_starts_over_once() {
    let fixture = Fixture::new().await;
    fixture.hub.change(|behaviour| behaviour.cuts = vec![1_000, 0, 0, 0]);
    fixture.inspect(ID).await.complaint();
    std::fs::write(fixture.part().expect("a part"), [1; 1_000]).expect("overwritten");
    fixture.hub.take_asked();
    fixture.inspect(ID).await.expect_success();
    let resumed = Some("bytes=1000-".to_owned());
    assert_eq!(fixture.ranges(), [resumed, None], "from where it stopped, then from the start");
    assert_eq!(fixture.part(), None, "nothing half done");
}

#[tokio::test]
async fn two_processes_download_a_model_once() {
    let fixture = Fixture::new().await;
    fixture.hub.change(|behaviour| behaviour.is_stalling = true);
    let mut asked = Vec::new();
    let both_ask = eventually("both ask for the weights", PATIENCE, async || {
        asked.extend(fixture.hub.take_asked());
        let weights = asked.iter().filter(|asked| asked.file() == WEIGHTS);
        // Neither has them yet: what the first is given stalls until both have asked what they are.
        let count = weights.filter(|asked| asked.method == "HEAD").count();
        (count == 2).then_some(()).ok_or(format!("{count} have asked"))
    });
    let go_on = async {
        both_ask.await.expect("both start");
        fixture.hub.change(|behaviour| behaviour.is_stalling = false);
    };
    let (one, other, ()) = tokio::join!(fixture.inspect(ID), fixture.inspect(ID), go_on);
    for outcome in [one, other] {
        outcome.expect_success();
    }
    asked.extend(fixture.hub.take_asked());
    let count = asked.iter().filter(|asked| asked.path.starts_with("/cdn/")).count();
    assert_eq!(count, 1, "one downloads the weights, the other waits for it");
}

#[tokio::test]
async fn a_file_with_a_wrong_checksum_is_refused_and_not_kept() {
    let fixture = Fixture::new().await;
    fixture.hub.change(|behaviour| behaviour.is_corrupt = true);
    let outcome = fixture.inspect(ID).await;
    let complaint = outcome.complaint();
    assert!(complaint.contains("`model.safetensors` of `org/name` came with another checksum"));
    let small_files = FILES.len() - 1;
    assert_eq!(fixture.blobs().len(), small_files, "the weights are gone: {:?}", fixture.blobs());
    let offline = fixture.inspect_with(ID, &[("HF_HUB_OFFLINE", "1")]).await;
    assert!(offline.complaint().contains("not complete in the cache"), "{offline:?}");

    fixture.hub.change(|behaviour| behaviour.is_corrupt = false);
    fixture.inspect(ID).await.expect_success();
}

#[tokio::test]
async fn a_download_does_not_keep_a_process_from_its_end() {
    let fixture = Fixture::new().await;
    fixture.hub.change(|behaviour| behaviour.is_stalling = true);
    let arguments = ["--model", ID, "--listen", "127.0.0.1:0"];
    let mut command = fixture.command("clipmesh-embedder", &arguments);
    let mut process = command.stderr(Stdio::null()).spawn().expect("it starts");
    fixture.download_begins().await;
    let pid = i32::try_from(process.id()).ok().and_then(Pid::from_raw).expect("a process id");
    kill_process(pid, Signal::TERM).expect("it runs");
    let ended = eventually("the process ends", PATIENCE, async || {
        process.try_wait().expect("its status").ok_or("it still runs")
    });
    assert_eq!(ended.await.expect("at once").code(), Some(0), "an ordered stop is a success");
}
