use clipmesh_proto::code::{self, FieldViolation, Reason};
use clipmesh_proto::search::v1;
use clipmesh_proto::search::v1::query::Kind;
use clipmesh_proto::search::v1::search_result::Outcome;
use tonic::{Code, Status};

use crate::sandbox::{
    Clients, Sandbox, along, assert_refused, eventually, ids, picture, request, words,
};

/// What each search of a batch was answered with.
async fn batch(
    clients: &mut Clients,
    searches: Vec<v1::SearchRequest>,
) -> Result<Vec<Result<v1::SearchResponse, Status>>, Status> {
    let request = v1::SearchBatchRequest { searches };
    let response = clients.search.search_batch(request).await?.into_inner();
    let outcomes = response.results.into_iter().map(|result| match result.outcome {
        Some(Outcome::Response(response)) => Ok(response),
        Some(Outcome::Error(error)) => Err(code::from_rpc(&error)),
        None => panic!("one of the two"),
    });
    Ok(outcomes.collect())
}

#[tokio::test]
async fn a_batch_answers_what_single_searches_do() {
    let (_sandbox, mut clients) = Sandbox::with_colours().await;
    let group_by = Some(v1::GroupBy { key: "width".to_owned(), size: None });
    let diversity = Some(v1::Diversity::default());
    let searches = vec![
        request(words("red")),
        v1::SearchRequest { limit: Some(2), offset: 1, ..request(words("green")) },
        v1::SearchRequest { group_by, ..request(Kind::ItemId("red".to_owned())) },
        v1::SearchRequest { diversity, ..request(along(&[1.0, 0.0, 0.5, 0.0])) },
        v1::SearchRequest { include_vectors: true, ..request(words("red")) },
    ];
    // Another order first, so that one half is answered from the cache.
    let mut known = searches.clone();
    known.truncate(2);
    known.reverse();
    batch(&mut clients, known).await.expect("answers");
    let answers = batch(&mut clients, searches.clone()).await.expect("answers");
    assert_eq!(answers.len(), searches.len(), "one for each");
    let cached = answers
        .iter()
        .map(|answer| answer.as_ref().expect("an answer").timing.expect("timed").result_cached);
    assert_eq!(cached.collect::<Vec<_>>(), [true, true, false, false, false], "what was known");
    for (search, answer) in searches.into_iter().zip(answers) {
        let alone = clients.search.search(search.clone()).await.expect("an answer").into_inner();
        let untimed = |answer| v1::SearchResponse { timing: None, ..answer };
        let answer = untimed(answer.expect("an answer"));
        assert_eq!(answer, untimed(alone), "in its place: {search:?}");
        assert!(!answer.hits.is_empty() || !answer.groups.is_empty(), "with hits: {search:?}");
    }
}

#[tokio::test]
async fn one_bad_search_does_not_cost_the_others_their_hits() {
    let (sandbox, mut clients) = Sandbox::with_colours().await;
    let elsewhere = v1::SearchRequest { collection: "elsewhere".to_owned(), ..request(words("a")) };
    let group_by = Some(v1::GroupBy { key: "metadata.album".to_owned(), size: None });
    let no_picture = Kind::Image(bytes::Bytes::from_static(b"just words"));
    let searches = vec![
        request(words("red")),
        v1::SearchRequest { limit: Some(0), ..request(words("red")) },
        elsewhere,
        request(along(&[1.0, 2.0, 3.0])),
        request(no_picture),
        v1::SearchRequest { group_by, ..request(words("red")) },
        request(Kind::ItemId("nobody".to_owned())),
        request(words("blue")),
    ];
    let answers = batch(&mut clients, searches).await.expect("answers");
    for (at, first) in [(0, "red"), (7, "blue")] {
        let answer = answers[at].as_ref().expect("an answer");
        assert_eq!(ids(answer)[0], first, "search {at}");
    }
    let status = |at: usize| answers[at].as_ref().expect_err("refused");
    let field = |at: usize| FieldViolation::from_status(status(at)).expect("a field");
    for (at, name, reason) in [
        (1, "searches[1].limit", Reason::OutOfRange),
        (3, "searches[3].query.vector.values", Reason::WrongDimension),
        (4, "searches[4].query.image", Reason::NotAnImage),
    ] {
        assert_eq!((field(at).field.as_str(), field(at).reason), (name, reason), "search {at}");
    }
    assert_eq!(status(2).code(), Code::NotFound, "no such collection");
    assert_eq!(status(5).code(), Code::FailedPrecondition, "no such index");
    assert_eq!(status(6).code(), Code::NotFound, "no such item");

    sandbox.embedder.be_busy();
    let searches = vec![request(words("green")), request(along(&[0.0, 1.0, 0.0, 0.0]))];
    let answers = batch(&mut clients, searches).await.expect("answers");
    let busy = answers[0].as_ref().expect_err("turned away");
    assert_eq!(busy.code(), Code::ResourceExhausted, "{busy:?}");
    assert!(code::retry_after(busy).is_some(), "with the time to wait: {busy:?}");
    assert_eq!(ids(answers[1].as_ref().expect("an answer"))[0], "green", "which needs nobody");
}

#[tokio::test]
async fn the_pictures_and_words_of_a_batch_are_embedded_at_the_same_time() {
    let (sandbox, mut clients) = Sandbox::with_colours().await;
    let before = sandbox.embedder.calls();
    sandbox.embedder.hold();
    let mut searches: Vec<_> =
        (1..=6u8).map(|shade| request(Kind::Image(picture([shade, 40, 40], 5, 5)))).collect();
    searches.push(request(words("red green")));
    searches.push(request(words("red green")));
    let asking = tokio::spawn(async move { batch(&mut clients, searches).await });
    // None is answered before all have come; the words that came twice came once.
    eventually("all arrive", || sandbox.embedder.calls() == before + 7).await;
    sandbox.embedder.let_through();
    let answers = asking.await.expect("no panic").expect("answers");
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(sandbox.embedder.calls(), before + 7, "each once");
}

#[tokio::test]
async fn a_batch_has_one_to_64_searches() {
    let (_sandbox, mut clients) = Sandbox::with_colours().await;
    let search = || request(along(&[1.0, 0.0, 0.0, 0.0]));
    assert_refused(batch(&mut clients, vec![]).await, "searches", Reason::Empty);
    assert_refused(batch(&mut clients, vec![search(); 65]).await, "searches", Reason::TooMany);
    let answers = batch(&mut clients, vec![search(); 64]).await.expect("answers");
    assert_eq!(answers.len(), 64, "as many as may be");
    assert!(answers.iter().all(Result::is_ok), "each with its hits");
}
