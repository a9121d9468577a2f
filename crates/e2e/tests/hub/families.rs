//! What is brought of a model depends on what its `config.json` says it is.

use std::collections::BTreeSet;
use std::path::Path;

use clipmesh_e2e::hub::{Behaviour, Hub};

use super::{FILES, Fixture, ID, WEIGHTS, all_files};

const LIST: &str = "model.safetensors.index.json";

/// A hub with a folder that the test has made.
async fn fixture(make: impl AsyncFnOnce(&Path)) -> (Fixture, tempfile::TempDir) {
    let mut fixture = Fixture::new().await;
    let folder = tempfile::tempdir().expect("a folder");
    make(folder.path()).await;
    fixture.hub = Hub::start(folder.path(), Behaviour::of(ID)).expect("a hub");
    (fixture, folder)
}

async fn copy_random_model(folder: &Path) {
    let model = super::model_of(1).await.expect("a model");
    for file in FILES {
        std::fs::copy(model.join(file), folder.join(file)).expect("copy a file");
    }
}

/// A safetensors file with a number that no model needs.
fn spare_part() -> Vec<u8> {
    let header = br#"{"spare":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let length = (header.len() as u64).to_le_bytes();
    [&length[..], header, &1.0_f32.to_le_bytes()].concat()
}

#[tokio::test]
async fn weights_in_several_files_come_all() {
    let parts = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    let (fixture, _folder) = fixture(async |folder| {
        copy_random_model(folder).await;
        std::fs::rename(folder.join(WEIGHTS), folder.join(parts[0])).expect("rename the weights");
        std::fs::write(folder.join(parts[1]), spare_part()).expect("write a part");
        let list = serde_json::json!({
            "weight_map": { "logit_scale": parts[0], "spare": parts[1] },
        });
        std::fs::write(folder.join(LIST), list.to_string()).expect("write the list");
    })
    .await;
    fixture.inspect(ID).await.expect_success();
    let mut expected = all_files();
    expected.remove(WEIGHTS);
    expected.extend([parts[0], parts[1], LIST].map(str::to_owned));
    assert_eq!(fixture.hub.take_given(), expected, "the list and what it names");
    fixture.hub.change(|behaviour| behaviour.is_failing = true);
    fixture.inspect(ID).await.expect_success();
}

#[tokio::test]
async fn a_part_of_the_weights_that_is_missing_is_named() {
    let (fixture, _folder) = fixture(async |folder| {
        copy_random_model(folder).await;
        std::fs::remove_file(folder.join(WEIGHTS)).expect("remove the weights");
        let list = r#"{"weight_map": {"logit_scale": "model-00001-of-00001.safetensors"}}"#;
        std::fs::write(folder.join(LIST), list).expect("write the list");
    })
    .await;
    let outcome = fixture.inspect(ID).await;
    let expected = "has no `model-00001-of-00001.safetensors`";
    assert!(outcome.complaint().contains(expected), "{outcome:?}");
}

#[tokio::test]
async fn a_model_of_pictures_only_needs_no_tokenizer() {
    let mut fixture = Fixture::new().await;
    let folder = tempfile::tempdir().expect("a folder");
    let shape = ["--vision-width", "24", "--vision-heads", "2", "--vision-layers", "1"];
    let random =
        ["model", "random", "--arch", "DINOv2-B-14", folder.path().to_str().expect("UTF-8")];
    let made = super::run(fixture.command("clipmesh-embedder", &[&random[..], &shape].concat()));
    made.await.expect_success();
    fixture.hub = Hub::start(folder.path(), Behaviour::of(ID)).expect("a hub");
    let outcome = fixture.inspect(ID).await;
    outcome.expect_success();
    assert!(outcome.stdout.contains("DINOv2"), "the family is told: {outcome:?}");
    let expected: BTreeSet<String> =
        ["config.json", "preprocessor_config.json", WEIGHTS].map(str::to_owned).into();
    assert_eq!(fixture.hub.take_given(), expected, "nothing about texts");
}

#[tokio::test]
async fn a_model_of_another_kind_is_not_downloaded() {
    let (fixture, _folder) = fixture(async |folder| {
        copy_random_model(folder).await;
        std::fs::write(folder.join("config.json"), r#"{"model_type": "bert"}"#).expect("write");
    })
    .await;
    let outcome = fixture.inspect(ID).await;
    assert!(outcome.complaint().contains("`model_type` is `bert`"), "{outcome:?}");
    let expected: BTreeSet<String> = ["config.json".to_owned()].into();
    assert_eq!(fixture.hub.take_given(), expected, "nothing but what told the kind");
}
