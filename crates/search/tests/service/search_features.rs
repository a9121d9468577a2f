use clipmesh_proto::code::Reason;
use clipmesh_proto::search::v1;
use clipmesh_proto::search::v1::condition::Test;
use clipmesh_proto::search::v1::query::Kind;
use prost_types::value::Kind as ValueKind;
use prost_types::{FieldMask, Value};
use tonic::Code;

use crate::sandbox::{
    BLUE, COLLECTION, Clients, GREEN, PINK, RED, Sandbox, along, assert_refused, ids, item,
    picture, request, words,
};

fn string(text: &str) -> Value {
    Value { kind: Some(ValueKind::StringValue(text.to_owned())) }
}

fn number(number: f64) -> Value {
    Value { kind: Some(ValueKind::NumberValue(number)) }
}

async fn search(clients: &mut Clients, request: v1::SearchRequest) -> v1::SearchResponse {
    clients.search.search(request).await.expect("an answer").into_inner()
}

fn condition(key: &str, test: Test) -> Option<v1::Filter> {
    let condition = v1::Condition { key: key.to_owned(), test: Some(test) };
    Some(v1::Filter { must: vec![condition], ..v1::Filter::default() })
}

fn grouped(key: &str) -> v1::SearchRequest {
    let group_by = v1::GroupBy { key: key.to_owned(), size: Some(2) };
    v1::SearchRequest { group_by: Some(group_by), ..request(words("red")) }
}

fn diverse(weight: f32) -> v1::SearchRequest {
    let diversity = v1::Diversity { weight: Some(weight), candidates: None };
    v1::SearchRequest { diversity: Some(diversity), ..request(words("red")) }
}

/// A collection whose items carry captions.
async fn captions(clients: &mut Clients) {
    let create = v1::CreateCollectionRequest {
        name: "captions".to_owned(),
        word_fields: vec!["metadata.caption".to_owned()],
        ..v1::CreateCollectionRequest::default()
    };
    clients.collections.create_collection(create).await.expect("made");
    for (id, colour, caption) in [
        ("sunset", RED, "the sun over a lake"),
        ("meadow", GREEN, "a cow and a red cow"),
        ("lake", BLUE, "a Lake"),
        ("plain", PINK, ""),
    ] {
        let mut item = item(id, colour);
        if !caption.is_empty() {
            let fields = [("caption".to_owned(), string(caption))];
            item.metadata = Some(prost_types::Struct { fields: fields.into() });
        }
        let request = v1::IndexItemRequest { collection: "captions".to_owned(), item: Some(item) };
        clients.items.index_item(request).await.expect("stored");
    }
}

fn worded(text: &str, query: Option<Kind>) -> v1::SearchRequest {
    v1::SearchRequest {
        collection: "captions".to_owned(),
        query: query.map(|kind| v1::Query { kind: Some(kind) }),
        words: Some(v1::WordQuery { text: text.to_owned(), ..v1::WordQuery::default() }),
        ..v1::SearchRequest::default()
    }
}

#[tokio::test]
async fn whatever_changes_an_answer_is_another_question() {
    let (_sandbox, mut clients) = Sandbox::with_colours().await;
    let base = || request(words("red"));
    let fields = Some(FieldMask { paths: vec!["width".to_owned()] });
    let wide = Test::Range(v1::Range { gt: Some(1.0), ..v1::Range::default() });
    let questions = [
        base(),
        v1::SearchRequest { exact: true, ..base() },
        v1::SearchRequest { effort: Some(77), ..base() },
        v1::SearchRequest { include_vectors: true, ..base() },
        v1::SearchRequest { fields, ..base() },
        v1::SearchRequest { limit: Some(9), ..base() },
        v1::SearchRequest { offset: 1, ..base() },
        v1::SearchRequest { score_threshold: Some(0.0), ..base() },
        v1::SearchRequest { filter: condition("width", wide), ..base() },
        diverse(0.4),
        diverse(0.5),
        grouped("width"),
        grouped("height"),
    ];
    let mut first = Vec::new();
    for question in &questions {
        let answer = search(&mut clients, question.clone()).await;
        assert!(!answer.timing.expect("timed").result_cached, "a new question: {question:?}");
        first.push(answer);
    }
    for (question, first) in questions.into_iter().zip(first) {
        let again = search(&mut clients, question).await;
        assert!(again.timing.expect("timed").result_cached, "the same question");
        let untimed = |answer| v1::SearchResponse { timing: None, ..answer };
        assert_eq!(untimed(again), untimed(first), "the same answer, all of it");
    }
}

#[tokio::test]
async fn shows_the_fields_and_vectors_that_were_asked_for() {
    let (_sandbox, mut clients) = Sandbox::with_colours().await;
    let hit = async |clients: &mut Clients, request| {
        search(clients, request).await.hits.into_iter().next().expect("a hit")
    };
    let base = || request(words("green"));
    let plain = hit(&mut clients, base()).await;
    assert!(plain.vector.is_empty(), "no vector unless it is asked for");
    let item = plain.item.expect("an item");
    assert_eq!((item.filename.as_str(), item.width), ("green.png", 600), "and all fields");

    let vectors = v1::SearchRequest { include_vectors: true, ..base() };
    let vector = hit(&mut clients, vectors).await.vector;
    let length: f32 = vector.iter().map(|value| value * value).sum();
    assert!(vector.len() == 4 && (length - 1.0).abs() < 1e-5, "a unit vector: {vector:?}");

    let paths = vec!["width".to_owned(), "metadata.album".to_owned()];
    let masked = v1::SearchRequest { fields: Some(FieldMask { paths }), ..base() };
    let masked = hit(&mut clients, masked).await.item.expect("an item");
    let expected = v1::Item { id: "green".to_owned(), width: 600, ..v1::Item::default() };
    assert_eq!(masked, expected, "the id and what was named");
    let vectors = v1::SearchRequest { include_vectors: true, ..diverse(0.5) };
    assert_eq!(hit(&mut clients, vectors).await.vector.len(), 4, "in any kind of search");
    assert!(hit(&mut clients, diverse(0.5)).await.vector.is_empty(), "and never unasked");
}

#[tokio::test]
async fn tells_which_filters_have_no_index() {
    let (_sandbox, mut clients) = Sandbox::with_colours().await;
    let filtered = |key: &str, test| v1::SearchRequest {
        filter: condition(key, test),
        ..request(words("red"))
    };
    let contains = || filtered("filename", Test::Text("green".to_owned()));
    for attempt in ["found", "cached"] {
        let answer = search(&mut clients, contains()).await;
        assert_eq!(ids(&answer), ["green"], "{attempt}");
        assert_eq!(answer.unindexed_fields, ["filename"], "{attempt}: every item was read");
    }
    let equals = filtered("filename", Test::Match(string("green.png")));
    let answer = search(&mut clients, equals).await;
    assert_eq!(ids(&answer), ["green"], "the same");
    assert!(answer.unindexed_fields.is_empty(), "found by an index");
    let absent = filtered("metadata.album", Test::Exists(false));
    let answer = search(&mut clients, absent).await;
    assert_eq!(answer.unindexed_fields, ["metadata.album"], "the caller's own field");
}

#[tokio::test]
async fn groups_hits_by_a_field_with_an_index() {
    let (sandbox, mut clients) = Sandbox::with_colours().await;
    for (id, colour, width) in [("dark", [120, 5, 5], 10), ("rose", [250, 60, 60], 10)] {
        let small = v1::NewItem { image: picture(colour, width, 10), ..item(id, colour) };
        clients.index(small).await.expect("stored");
    }
    let response = search(&mut clients, grouped("width")).await;
    assert!(response.hits.is_empty(), "in groups alone");
    let groups: Vec<_> = response
        .groups
        .iter()
        .map(|group| {
            let hits = v1::SearchResponse { hits: group.hits.clone(), ..Default::default() };
            (group.value.clone().expect("a value"), ids(&hits))
        })
        .collect();
    let names = |names: [&str; 2]| names.map(str::to_owned).to_vec();
    let expected =
        [(number(600.0), names(["red", "pink"])), (number(10.0), names(["dark", "rose"]))];
    let (mut groups, mut expected) = (groups, expected.to_vec());
    let key = |(value, _): &(Value, Vec<String>)| format!("{value:?}");
    groups.sort_by_key(key);
    expected.sort_by_key(key);
    assert_eq!(groups, expected, "the best two of each width");

    let before = sandbox.embedder.calls();
    let unindexed = v1::SearchRequest {
        query: request(words("blue, and new")).query,
        ..grouped("metadata.album")
    };
    let status = clients.search.search(unindexed).await.expect_err("no index");
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    assert!(status.message().contains("`metadata.album`"), "the field is named: {status:?}");
    assert_eq!(sandbox.embedder.calls(), before, "nothing was embedded for it");
}

#[tokio::test]
async fn diverse_hits_differ_from_one_another() {
    let (_sandbox, mut clients) = Sandbox::with_colours().await;
    for (id, colour) in [("crimson", [255, 12, 12]), ("orange", [250, 160, 10])] {
        clients.index(item(id, colour)).await.expect("stored");
    }
    let two = |weight| v1::SearchRequest {
        query: request(along(&[1.0, 0.3, 0.0, 0.0])).query,
        limit: Some(2),
        ..diverse(weight)
    };
    let plain = ids(&search(&mut clients, two(0.0)).await);
    assert_eq!(plain, ["crimson", "red"], "the nearest are twins");
    let response = search(&mut clients, two(0.3)).await;
    assert_eq!(ids(&response), ["crimson", "orange"], "the twin of the first is left out");
    let plain = search(&mut clients, two(0.0)).await;
    assert!(response.hits[1].score < plain.hits[1].score, "scores are similarities");
}

#[tokio::test]
async fn words_are_found_without_an_embedder() {
    let (mut sandbox, mut clients) = Sandbox::start().await;
    captions(&mut clients).await;
    sandbox.stop_embedder().await;
    let response = search(&mut clients, worded("LAKE sun", None)).await;
    assert_eq!(ids(&response), ["sunset", "lake"], "two words are more than one");
    for hit in &response.hits {
        assert!(hit.word_score > 0.0 && hit.score == 0.0, "ranked by words alone: {hit:?}");
    }
    assert_eq!(response.timing.expect("timed").embed_ms, 0.0, "nobody was asked");
    let response = search(&mut clients, worded("moon", None)).await;
    assert!(response.hits.is_empty(), "nothing so called is no error");
}

#[tokio::test]
async fn words_and_a_picture_are_fused() {
    let (_sandbox, mut clients) = Sandbox::start().await;
    captions(&mut clients).await;
    let by_picture = Kind::Image(picture(BLUE, 20, 20));
    let response = search(&mut clients, worded("lake", Some(by_picture.clone()))).await;
    assert_eq!(ids(&response)[..2], ["lake", "sunset"], "what both speak for is first");
    let scores: Vec<_> = response.hits.iter().map(|hit| hit.fused_score).collect();
    assert!(scores.is_sorted_by(|a, b| a >= b), "in order of what both say: {scores:?}");
    assert_eq!(response.hits.len(), 4, "what has no caption is found by its picture");
    assert!(response.hits[0].score > 0.99, "the score is the similarity");
    let near = v1::SearchRequest { score_threshold: Some(0.9), ..worded("lake", Some(by_picture)) };
    assert_eq!(ids(&search(&mut clients, near).await), ["lake"], "and so is the threshold");
}

#[tokio::test]
async fn words_need_fields_to_look_in() {
    let (sandbox, mut clients) = Sandbox::with_colours().await;
    let before = sandbox.embedder.calls();
    let request = v1::SearchRequest {
        collection: COLLECTION.to_owned(),
        ..worded("lake", Some(words("a lake")))
    };
    let result = clients.search.search(request).await;
    let message = result.as_ref().expect_err("refused").message().to_owned();
    assert!(message.contains("`word_fields`"), "it says how to get them: {message}");
    assert_refused(result, "words", Reason::Conflict);
    assert_eq!(sandbox.embedder.calls(), before, "nothing was embedded for it");
}

#[tokio::test]
async fn classifies_by_the_labels_of_neighbours() {
    let (_sandbox, mut clients) = Sandbox::start().await;
    let labelled = [
        ("r1", RED, vec!["warm", "red"]),
        ("r2", [230, 30, 30], vec!["warm"]),
        ("b1", BLUE, vec!["cold"]),
    ];
    for (id, colour, labels) in labelled {
        let values = labels.into_iter().map(string).collect();
        let list = Value { kind: Some(ValueKind::ListValue(prost_types::ListValue { values })) };
        let metadata = prost_types::Struct { fields: [("mood".to_owned(), list)].into() };
        let new = v1::NewItem { metadata: Some(metadata), ..item(id, colour) };
        clients.index(new).await.expect("stored");
    }
    clients.index(item("unlabelled", RED)).await.expect("stored");
    let ask = |kind| v1::ClassifyRequest {
        collection: COLLECTION.to_owned(),
        query: Some(v1::Query { kind: Some(kind) }),
        field: "metadata.mood".to_owned(),
        ..v1::ClassifyRequest::default()
    };
    let image = || Kind::Image(picture([240, 20, 20], 8, 8));
    let response = clients.search.classify(ask(image())).await.expect("an answer").into_inner();
    let told: Vec<_> = response
        .predictions
        .iter()
        .map(|one| {
            let neighbours: Vec<_> = one.neighbours.iter().map(|one| one.id.as_str()).collect();
            (one.label.clone().expect("a label"), neighbours.len())
        })
        .collect();
    assert_eq!(told, [(string("warm"), 2), (string("red"), 1), (string("cold"), 1)]);
    let total: f32 = response.predictions.iter().map(|one| one.score).sum();
    assert!((total - 1.0).abs() < 1e-5, "shares of one: {total}");
    assert_eq!(response.unindexed_fields, ["metadata.mood"], "items were read to find labels");
    assert!(response.timing.expect("timed").store_ms > 0.0, "the store was asked");

    let nearest = v1::ClassifyRequest {
        k: Some(1),
        weight: v1::VoteWeight::Uniform.into(),
        ..ask(Kind::Image(picture(BLUE, 8, 8)))
    };
    let response = clients.search.classify(nearest).await.expect("an answer").into_inner();
    let [cold] = response.predictions.as_slice() else { panic!("one: {response:?}") };
    assert_eq!((cold.label.clone(), cold.score), (Some(string("cold")), 1.0), "the nearest alone");

    let nothing = v1::ClassifyRequest { field: "metadata.none".to_owned(), ..ask(image()) };
    let response = clients.search.classify(nothing).await.expect("an answer").into_inner();
    assert!(response.predictions.is_empty(), "nobody has such a label");
    let far = v1::ClassifyRequest { score_threshold: Some(1.0), ..ask(along(&[0., 1., 1., 0.])) };
    let response = clients.search.classify(far).await.expect("an answer").into_inner();
    assert!(response.predictions.is_empty(), "nobody is so near");
    let lost = v1::ClassifyRequest { collection: "elsewhere".to_owned(), ..ask(image()) };
    let status = clients.search.classify(lost).await.expect_err("no collection");
    assert_eq!(status.code(), Code::NotFound, "{status:?}");
}

#[tokio::test]
async fn counts_items_by_their_values() {
    let (_sandbox, mut clients) = Sandbox::with_colours().await;
    for id in ["small", "tiny"] {
        let new = v1::NewItem { image: picture(RED, 10, 10), ..item(id, RED) };
        clients.index(new).await.expect("stored");
    }
    let ask = |key: &str| v1::FacetRequest {
        collection: COLLECTION.to_owned(),
        key: key.to_owned(),
        ..v1::FacetRequest::default()
    };
    let mut facet = async |request| clients.search.facet(request).await.map(|it| it.into_inner());
    let told = |response: v1::FacetResponse| -> Vec<_> {
        let values = response.values.into_iter();
        values.map(|one| (one.value.expect("a value"), one.count)).collect()
    };
    let widths = facet(ask("width")).await.expect("counted");
    assert_eq!(told(widths), [(number(600.0), 4), (number(10.0), 2)], "numbers");
    let most = v1::FacetRequest { limit: Some(1), ..ask("width") };
    assert_eq!(told(facet(most).await.expect("counted")), [(number(600.0), 4)], "the first");
    let filter = condition("filename", Test::Text("ti".to_owned()));
    let few = facet(v1::FacetRequest { filter, ..ask("format") }).await.expect("counted");
    assert_eq!(few.unindexed_fields, ["filename"], "every item was read");
    assert_eq!(told(few), [(string("png"), 1)], "of what passes");

    let status = facet(ask("metadata.album")).await.expect_err("no index");
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    assert!(status.message().contains("`metadata.album`"), "the field is named: {status:?}");
    assert_refused(facet(ask("colour")).await, "key", Reason::Malformed);
    let lost = v1::FacetRequest { collection: "elsewhere".to_owned(), ..ask("width") };
    assert_eq!(facet(lost).await.expect_err("no collection").code(), Code::NotFound);
}

#[tokio::test]
async fn an_alias_is_as_good_as_the_name() {
    let (_sandbox, mut clients) = Sandbox::with_colours().await;
    let (alias, collection) = ("live".to_owned(), COLLECTION.to_owned());
    let set = v1::SetAliasRequest { alias: alias.clone(), collection };
    clients.collections.set_alias(set).await.expect("set");
    let named = search(&mut clients, request(words("red"))).await;
    let by_alias = v1::SearchRequest { collection: alias.clone(), ..request(words("red")) };
    let response = search(&mut clients, by_alias).await;
    assert_eq!(response.hits, named.hits, "the same hits");
    assert!(response.timing.expect("timed").result_cached, "of the same question");

    let grouped = v1::SearchRequest { collection: alias.clone(), ..grouped("width") };
    assert_eq!(search(&mut clients, grouped).await.groups.len(), 1, "groups");
    let facet = v1::FacetRequest {
        collection: alias.clone(),
        key: "format".to_owned(),
        ..v1::FacetRequest::default()
    };
    let counted = clients.search.facet(facet).await.expect("counted").into_inner();
    assert_eq!(counted.values[0].count, 4, "counts");
    let classify = v1::ClassifyRequest {
        collection: alias.clone(),
        query: request(words("red")).query,
        field: "filename".to_owned(),
        ..v1::ClassifyRequest::default()
    };
    let verdict = clients.search.classify(classify).await.expect("an answer").into_inner();
    assert_eq!(verdict.predictions[0].label, Some(string("red.png")), "votes");
    let duplicates = v1::FindDuplicatesRequest {
        collection: alias,
        kind: v1::DuplicateKind::Near.into(),
        score_threshold: Some(-1.0),
        ..v1::FindDuplicatesRequest::default()
    };
    let mut groups =
        clients.search.find_duplicates(duplicates).await.expect("a stream").into_inner();
    let group = groups.message().await.expect("a group").expect("one").group.expect("set");
    assert_eq!(group.duplicates.len(), 3, "duplicates");
}
