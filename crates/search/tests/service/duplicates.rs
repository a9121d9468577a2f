use clipmesh_proto::code::Reason;
use clipmesh_proto::search::v1;
use tonic::{Code, Status};

use crate::sandbox::{
    BLUE, COLLECTION, Clients, GREEN, RED, Sandbox, assert_refused, item, picture,
};

fn ask(kind: v1::DuplicateKind) -> v1::FindDuplicatesRequest {
    v1::FindDuplicatesRequest {
        collection: COLLECTION.to_owned(),
        kind: kind.into(),
        ..v1::FindDuplicatesRequest::default()
    }
}

async fn groups(
    clients: &mut Clients,
    request: v1::FindDuplicatesRequest,
) -> Result<Vec<v1::DuplicateGroup>, Status> {
    let mut stream = clients.search.find_duplicates(request).await?.into_inner();
    let mut groups = Vec::new();
    while let Some(response) = stream.message().await? {
        groups.push(response.group.expect("a group"));
    }
    Ok(groups)
}

/// The representative of each group, then the others.
fn ids(groups: &[v1::DuplicateGroup]) -> Vec<Vec<&str>> {
    let ids = groups.iter().map(|group| {
        let others = group.duplicates.iter().map(|one| one.item.as_ref());
        let items = [group.representative.as_ref()].into_iter().chain(others);
        items.map(|item| item.expect("an item").id.as_str()).collect()
    });
    ids.collect()
}

async fn with_copies() -> (Sandbox, Clients) {
    let (sandbox, mut clients) = Sandbox::start().await;
    for (id, colour, width) in [
        ("red", RED, 60),
        ("red-copy", RED, 60),
        ("red-large", RED, 120),
        ("green", GREEN, 60),
        ("blue", BLUE, 60),
    ] {
        let new = v1::NewItem { image: picture(colour, width, width), ..item(id, colour) };
        clients.index(new).await.expect("stored");
    }
    (sandbox, clients)
}

#[tokio::test]
async fn exact_duplicates_are_found_by_their_hashes() {
    let (_sandbox, mut clients) = with_copies().await;
    let found = groups(&mut clients, ask(v1::DuplicateKind::Exact)).await.expect("groups");
    assert_eq!(ids(&found), [["red", "red-copy"]], "the older one represents both");
    let copy = &found[0].duplicates[0];
    assert!(copy.same_bytes && copy.same_pixels, "the same file: {copy:?}");
    assert!(copy.score > 0.999, "which looks the same: {copy:?}");
}

#[tokio::test]
async fn near_duplicates_are_found_by_their_vectors() {
    let (_sandbox, mut clients) = with_copies().await;
    let found = groups(&mut clients, ask(v1::DuplicateKind::Near)).await.expect("groups");
    assert_eq!(ids(&found), [["red-large", "red", "red-copy"]], "the largest picture first");
    let small = &found[0].duplicates[0];
    assert!(!small.same_bytes, "another file: {small:?}");
    let all =
        v1::FindDuplicatesRequest { score_threshold: Some(-1.0), ..ask(v1::DuplicateKind::Near) };
    let found = groups(&mut clients, all).await.expect("groups");
    assert_eq!(found.len(), 1, "everything is near");
    assert_eq!(found[0].duplicates.len(), 4, "everything is near");
    let scores: Vec<_> = found[0].duplicates.iter().map(|one| one.score).collect();
    assert!(scores.is_sorted_by(|a, b| a >= b), "the most similar first: {scores:?}");
    assert_eq!(clients.count().await, 5, "nothing was deleted");
}

#[tokio::test]
async fn nothing_twice_is_an_empty_stream() {
    let (_sandbox, mut clients) = Sandbox::with_colours().await;
    for kind in [v1::DuplicateKind::Exact, v1::DuplicateKind::Near] {
        let request = v1::FindDuplicatesRequest { limit: Some(1), ..ask(kind) };
        assert_eq!(groups(&mut clients, request).await.expect("none"), [], "{kind:?}");
    }
}

#[tokio::test]
async fn fields_without_an_index_are_named_before_the_groups() {
    let (_sandbox, mut clients) = with_copies().await;
    let exists = v1::condition::Test::Exists(false);
    let condition = v1::Condition { key: "metadata.tag".to_owned(), test: Some(exists) };
    let filter = Some(v1::Filter { must: vec![condition], ..v1::Filter::default() });
    let request = v1::FindDuplicatesRequest { filter, ..ask(v1::DuplicateKind::Exact) };
    let mut stream = clients.search.find_duplicates(request).await.expect("begun").into_inner();
    let first = stream.message().await.expect("an answer").expect("the first");
    assert_eq!(first.unindexed_fields, ["metadata.tag"], "items are read one by one");
    assert_eq!(first.group, None, "nothing was found yet");
    let second = stream.message().await.expect("an answer").expect("a group");
    assert!(second.unindexed_fields.is_empty() && second.group.is_some(), "{second:?}");
    assert_eq!(stream.message().await.expect("an answer"), None, "the only one");
}

#[tokio::test]
async fn requests_for_duplicates_are_refused_before_the_stream() {
    let (_sandbox, mut clients) = Sandbox::start().await;
    let unspecified = clients.search.find_duplicates(ask(v1::DuplicateKind::Unspecified)).await;
    assert_refused(unspecified.map(drop), "kind", Reason::Missing);
    let lost = v1::FindDuplicatesRequest {
        collection: "elsewhere".to_owned(),
        ..ask(v1::DuplicateKind::Near)
    };
    let status = clients.search.find_duplicates(lost).await.map(drop).expect_err("not there");
    assert_eq!(status.code(), Code::NotFound, "{status:?}");
}
