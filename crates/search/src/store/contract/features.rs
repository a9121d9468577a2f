//! The part of the suite beyond what a plain list of vectors does.

use std::collections::BTreeMap;

use super::{
    DIMENSION, field, hits, id, ids, must, name, new_collection, number, point, search, string,
    text, with,
};
use crate::filter::{Field, Filter, Range, Test};
use crate::item::{Scalar, Value};
use crate::store::index::{FieldIndex, Indexes, Kind, Quantization, VectorIndex};
use crate::store::{
    Error, Facet, Grouped, IndexState, NewCollection, Ordered, Point, Search, Target,
    VectorIndexChange, VectorStore,
};

pub(super) async fn verify(store: &dyn VectorStore) {
    aliases_stand_for_collections(store).await;
    a_write_can_depend_on_what_is_there(store).await;
    items_come_in_order_of_a_number(store).await;
    values_are_counted(store).await;
    hits_are_grouped(store).await;
    groups_are_of_what_an_index_knows(store).await;
    words_are_ranked(store).await;
    searches_are_answered_in_batches(store).await;
    vectors_come_along_if_asked_for(store).await;
    the_graph_can_be_changed(store).await;
}

fn indexed(text: &str, kind: Kind) -> NewCollection {
    let indexes = Indexes::new([FieldIndex { field: field("f"), kind }]);
    NewCollection { indexes, ..new_collection(text) }
}

async fn aliases_stand_for_collections(store: &dyn VectorStore) {
    store.create(new_collection("blue")).await.expect("made");
    store.create(new_collection("green")).await.expect("made");
    let resolved = async |text: &str| store.resolve(name(text)).await.map(|c| c.name.to_string());
    assert_eq!(store.set_alias(name("live"), name("blue")).await, Ok(None), "a new alias");
    assert_eq!(resolved("live").await.as_deref(), Ok("blue"), "stands for it");
    let before = store.set_alias(name("live"), name("green")).await;
    assert_eq!(before, Ok(Some(name("blue"))), "it stood for another");
    assert_eq!(resolved("live").await.as_deref(), Ok("green"), "and now for this one");
    let all = BTreeMap::from([(name("live"), name("green"))]);
    assert_eq!(store.aliases().await, Ok(all), "one alias");

    let taken = Err(Error::CollectionExists(name("blue")));
    assert_eq!(store.set_alias(name("blue"), name("green")).await, taken, "a collection's name");
    let made = store.create(new_collection("live")).await.map(|c| c.name);
    assert_eq!(made, Err(Error::CollectionExists(name("live"))), "an alias's name");
    let lost = Err(Error::NoCollection(name("nobody")));
    assert_eq!(store.set_alias(name("a"), name("nobody")).await, lost, "nothing to stand for");
    assert_eq!(store.remove(name("live")).await.map(drop), Err(Error::NoCollection(name("live"))));

    store.remove(name("green")).await.expect("removed");
    assert_eq!(store.aliases().await, Ok(BTreeMap::new()), "its aliases go with it");
    assert_eq!(resolved("live").await, Err(Error::NoCollection(name("live"))), "and lead nowhere");
    store.set_alias(name("live"), name("blue")).await.expect("set");
    assert_eq!(store.remove_alias(name("live")).await, Ok(()), "an alias goes");
    assert_eq!(store.remove_alias(name("live")).await, Err(Error::NoAlias(name("live"))), "once");
    assert_eq!(resolved("blue").await.as_deref(), Ok("blue"), "the collection stays");
}

async fn a_write_can_depend_on_what_is_there(store: &dyn VectorStore) {
    store.create(new_collection("etags")).await.expect("made");
    let first = point("a", [1.0, 0.0, 0.0, 0.0]);
    store.upsert(name("etags"), vec![first.clone()]).await.expect("stored");
    let mut second = point("a", [0.0, 1.0, 0.0, 0.0]);
    second.item.uri = "file:///second".to_owned();
    let stored = async || store.point(name("etags"), id("a")).await.expect("an answer");

    let done = store.replace(name("etags"), second.clone(), Some(second.item.etag())).await;
    assert_eq!(done, Ok(false), "it never had that etag");
    assert_eq!(stored().await.map(|point| point.item), Some(first.item.clone()), "as it was");
    let done = store.replace(name("etags"), second.clone(), Some(first.item.etag())).await;
    assert_eq!(done, Ok(true), "it has this one");
    assert_eq!(stored().await.map(|point| point.item), Some(second.item.clone()), "replaced");
    let again = store.replace(name("etags"), first.clone(), Some(first.item.etag())).await;
    assert_eq!(again, Ok(false), "it has another now");
    let delete = async |point: &Point| {
        store.delete_unchanged(name("etags"), point.item.id.clone(), point.item.etag()).await
    };
    assert_eq!(delete(&first).await, Ok(false), "it had that etag once");
    assert_eq!(stored().await.map(|point| point.item), Some(second.item.clone()), "as it was");
    assert_eq!(delete(&second).await, Ok(true), "it has this one");
    assert_eq!(stored().await, None, "it is gone");
    assert_eq!(delete(&second).await, Ok(true), "and stays so");
    let gone = store.replace(name("etags"), first.clone(), Some(second.item.etag())).await;
    assert_eq!(gone, Ok(false), "what is gone has none");
    assert_eq!(stored().await, None, "and does not come back");

    let made = store.replace(name("etags"), first.clone(), None).await;
    assert_eq!(made, Ok(true), "there was none");
    assert_eq!(stored().await.map(|point| point.item), Some(first.item.clone()), "inserted");
    let again = store.replace(name("etags"), second, None).await;
    assert_eq!(again, Ok(false), "there is one");
    assert_eq!(stored().await.map(|point| point.item), Some(first.item), "as it was");
}

async fn items_come_in_order_of_a_number(store: &dyn VectorStore) {
    // Of integers, too: nothing is left out because its number is not whole.
    for kind in [Kind::Float, Kind::Integer] {
        items_come_in_order_by(store, kind).await;
        store.remove(name("ordered")).await.expect("removed");
    }
}

async fn items_come_in_order_by(store: &dyn VectorStore, kind: Kind) {
    store.create(indexed("ordered", kind)).await.expect("made");
    let points = vec![
        with("b", number(2.5), [1.0; DIMENSION]),
        with("a", number(-1.0), [1.0; DIMENSION]),
        with("c", number(2.5), [1.0; DIMENSION]),
        with("d", number(10.0), [1.0; DIMENSION]),
        with("x", text("7"), [1.0; DIMENSION]),
        with("l", Value::Many(vec![Scalar::Number(3.0), Scalar::Number(0.0)]), [1.0; DIMENSION]),
    ];
    store.upsert(name("ordered"), points).await.expect("stored");
    let ordered = async |filter: Filter, descending, limit| {
        let page = Ordered { filter, field: field("f"), descending, limit };
        let found = store.ordered(name("ordered"), page).await.expect("an answer").into_iter();
        found.map(|(record, number)| (record.item.id.to_string(), number)).collect::<Vec<_>>()
    };
    let numbers =
        |found: &[(String, f64)]| found.iter().map(|(_, number)| *number).collect::<Vec<_>>();
    let all = ordered(Filter::default(), false, 10).await;
    assert_eq!(numbers(&all), [-1.0, 0.0, 2.5, 2.5, 3.0, 10.0], "the least first");
    let ids: Vec<_> = all.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!((ids[0], ids[1], ids[4], ids[5]), ("a", "l", "l", "d"), "a list at each element");
    let all = ordered(Filter::default(), true, 3).await;
    assert_eq!(numbers(&all), [10.0, 3.0, 2.5], "the greatest first, as many as asked for");
    let above = Test::Range(Range { gt: Some(2.5), ..Range::default() });
    let above = ordered(must(field("f"), above), false, 10).await;
    assert!(above.iter().any(|(id, number)| (id.as_str(), *number) == ("d", 10.0)), "{above:?}");
    assert!(above.iter().all(|(id, _)| id != "b"), "the filter holds: {above:?}");

    let page = |field| Ordered { filter: Filter::default(), field, descending: false, limit: 1 };
    let times = store.ordered(name("ordered"), page(Field::CreateTime)).await.expect("built in");
    assert_eq!(times[0].1, times[0].0.item.create_time.as_microsecond() as f64, "microseconds");
    let other = store.ordered(name("ordered"), page(field("g"))).await.map(drop);
    assert_eq!(other, Err(Error::NotIndexed("metadata.g".to_owned())), "no index");
    let other = store.ordered(name("ordered"), page(Field::Filename)).await.map(drop);
    assert_eq!(other, Err(Error::NotIndexed("filename".to_owned())), "none of numbers");
}

async fn values_are_counted(store: &dyn VectorStore) {
    store.create(indexed("facets", Kind::Keyword)).await.expect("made");
    let tags = |tags: &[&str]| Value::Many(tags.iter().map(|tag| string(tag)).collect());
    let points = vec![
        with("1", tags(&["a", "b"]), [1.0; DIMENSION]),
        with("2", tags(&["b", "b"]), [1.0; DIMENSION]),
        with("3", text("c"), [1.0; DIMENSION]),
        with("4", text("a"), [1.0; DIMENSION]),
        with("5", number(3.0), [1.0; DIMENSION]),
    ];
    store.upsert(name("facets"), points).await.expect("stored");
    let facet = async |field, filter, limit| {
        store.facet(name("facets"), Facet { field, filter, limit }).await
    };
    let all = facet(field("f"), Filter::default(), 10).await;
    let expected = vec![(string("a"), 2), (string("b"), 2), (string("c"), 1)];
    assert_eq!(all, Ok(expected.clone()), "the most frequent first, each item once a value");
    let two = facet(field("f"), Filter::default(), 2).await;
    assert_eq!(two, Ok(expected[..2].to_vec()), "as many as asked for");
    let filter = must(Field::Id, Test::AnyOf(vec![string("3"), string("4")]));
    let some = facet(field("f"), filter, 10).await;
    assert_eq!(some, Ok(vec![(string("a"), 1), (string("c"), 1)]), "of those that pass");
    let widths = facet(Field::Width, Filter::default(), 10).await;
    assert_eq!(widths, Ok(vec![(Scalar::Number(640.0), 5)]), "numbers can be counted, too");
    let other = facet(field("g"), Filter::default(), 10).await;
    assert_eq!(other, Err(Error::NotIndexed("metadata.g".to_owned())), "no index");
}

async fn hits_are_grouped(store: &dyn VectorStore) {
    store.create(indexed("groups", Kind::Keyword)).await.expect("made");
    let points = vec![
        with("a1", text("a"), [1.0, 0.0, 0.0, 0.0]),
        with("a2", text("a"), [1.0, 0.3, 0.0, 0.0]),
        with("a3", text("a"), [1.0, 0.5, 0.0, 0.0]),
        with("b1", text("b"), [1.0, 0.1, 0.0, 0.0]),
        with("ab", Value::Many(vec![string("a"), string("b")]), [1.0, 0.2, 0.0, 0.0]),
        with("c1", text("c"), [0.0, 1.0, 0.0, 0.0]),
        point("none", [1.0, 0.0, 0.0, 0.0]),
    ];
    store.upsert(name("groups"), points).await.expect("stored");
    let group = async |search, size| {
        let grouped = Grouped { search, field: field("f"), size };
        let groups = store.group(name("groups"), grouped).await.expect("an answer").into_iter();
        let ids = |group: crate::store::Group| {
            let hits: Vec<_> = group.hits.iter().map(|hit| hit.item.id.to_string()).collect();
            (group.value, hits.join(" "))
        };
        groups.map(ids).collect::<Vec<_>>()
    };
    let along = || search([1.0, 0.0, 0.0, 0.0], 10);
    let expected = [("a", "a1 ab"), ("b", "b1 ab"), ("c", "c1")];
    let expected = expected.map(|(value, ids)| (string(value), ids.to_owned()));
    assert_eq!(group(along(), 2).await, expected, "the best of each value");
    assert_eq!(group(Search { limit: 1, ..along() }, 2).await, expected[..1], "of one value");
    let above = Search { threshold: Some(0.5), ..along() };
    assert_eq!(group(above, 2).await, expected[..2], "above a threshold");
    let filtered = Search { filter: must(Field::Id, Test::Match(string("a3"))), ..along() };
    assert_eq!(group(filtered, 2).await, [(string("a"), "a3".to_owned())], "filtered");
}

async fn groups_are_of_what_an_index_knows(store: &dyn VectorStore) {
    let points = vec![
        with("a", number(7.0), [1.0, 0.0, 0.0, 0.0]),
        with("b", text("7"), [1.0, 0.1, 0.0, 0.0]),
        with("c", number(8.0), [1.0, 0.2, 0.0, 0.0]),
        with("d", text("8"), [1.0, 0.3, 0.0, 0.0]),
        with("e", Value::One(Scalar::Bool(true)), [1.0, 0.3, 0.0, 0.0]),
        with("g", text("last in order of id"), [0.0, 1.0, 0.0, 0.0]),
        with("f", text("x"), [0.0, 1.0, 0.0, 0.0]),
    ];
    let strings = vec!["7", "8", "x", "last in order of id"].into_iter().map(string).collect();
    let numbers = [7.0, 8.0].map(Scalar::Number).to_vec();
    for (kind, known) in [(Kind::Keyword, strings), (Kind::Integer, numbers)] {
        let known: Vec<Scalar> = known;
        store.create(indexed("mixed", kind)).await.expect("made");
        store.upsert(name("mixed"), points.clone()).await.expect("stored");
        for limit in [1, 2, 10] {
            let search = search([1.0, 0.0, 0.0, 0.0], limit);
            let grouped = Grouped { search, field: field("f"), size: 3 };
            let groups = store.group(name("mixed"), grouped).await.expect("an answer").into_iter();
            let values: Vec<_> = groups.map(|group| group.value).collect();
            let expected = &known[..limit.min(known.len())];
            assert_eq!(values, expected, "{limit} groups by an index of {kind:?}");
        }
        store.remove(name("mixed")).await.expect("removed");
    }
}

async fn words_are_ranked(store: &dyn VectorStore) {
    let word_fields = vec![field("f"), Field::Filename];
    store.create(NewCollection { word_fields, ..new_collection("words") }).await.expect("made");
    let target = |text: &str| Target::Words(crate::words::of(text));
    let words = |text: &str| Search { target: target(text), ..search([1.0; DIMENSION], 10) };
    assert!(ids(store, "words", words("cat")).await.is_empty(), "nothing yet");
    let mut points = vec![
        with("cats", text("a cat, a Cat and a cat"), [1.0; DIMENSION]),
        with("cat", text("a red cat"), [1.0; DIMENSION]),
        with("dog", text("a red dog"), [1.0; DIMENSION]),
        with(
            "long",
            text("a dog that sits on a wall, and far away from it and the dog a cat"),
            [1.0; DIMENSION],
        ),
        point("file", [1.0; DIMENSION]),
    ];
    points[4].item.filename = "zebra".to_owned();
    store.upsert(name("words"), points).await.expect("stored");
    let found = ids(store, "words", words("CAT")).await;
    assert_eq!(found, ["cats", "cat", "long"], "more of it first, among more words last");
    let found = ids(store, "words", words("red cat")).await;
    assert_eq!(found[0], "cat", "both words: {found:?}");
    assert_eq!(found.len(), 4, "any of the words: {found:?}");
    assert_eq!(ids(store, "words", words("zebra")).await, ["file"], "of every field");
    assert!(ids(store, "words", words("unicorn")).await.is_empty(), "nobody has it");
    let filter = must(Field::Id, Test::Match(string("long")));
    let filtered = Search { filter, ..words("cat") };
    assert_eq!(ids(store, "words", filtered).await, ["long"], "filtered");
    for (id, score) in hits(store, "words", words("cat")).await {
        assert!(score > 0.0 && score < 10.0, "`{id}` scores {score}");
    }
    store.delete(name("words"), vec![id("cats")]).await.expect("deleted");
    assert_eq!(ids(store, "words", words("cat")).await, ["cat", "long"], "deleted");
}

async fn searches_are_answered_in_batches(store: &dyn VectorStore) {
    store.create(new_collection("batch")).await.expect("made");
    let points = vec![point("x", [1.0, 0.0, 0.0, 0.0]), point("y", [0.0, 1.0, 0.0, 0.0])];
    store.upsert(name("batch"), points).await.expect("stored");
    let searches = vec![
        search([1.0, 0.1, 0.0, 0.0], 1),
        Search {
            filter: must(Field::Id, Test::Match(string("x"))),
            ..search([0.0, 1.0, 0.0, 0.0], 5)
        },
        Search { exact: true, ..search([0.1, 1.0, 0.0, 0.0], 2) },
        Search { effort: Some(10), threshold: Some(0.9), ..search([0.0, 0.0, 1.0, 0.0], 2) },
    ];
    let answers = store.search(name("batch"), searches).await.expect("an answer").into_iter();
    let ids = |hits: Vec<crate::store::Hit>| -> Vec<String> {
        hits.into_iter().map(|hit| hit.item.id.to_string()).collect()
    };
    let answers: Vec<_> = answers.map(ids).collect();
    assert_eq!(answers, [vec!["x"], vec!["x"], vec!["y", "x"], vec![]], "each by itself");
    let none = store.search(name("batch"), vec![]).await;
    assert_eq!(none, Ok(vec![]), "no search, no answer");
}

async fn vectors_come_along_if_asked_for(store: &dyn VectorStore) {
    store.create(new_collection("vectors")).await.expect("made");
    let stored = point("x", [1.0, 2.0, 3.0, 4.0]);
    store.upsert(name("vectors"), vec![stored.clone()]).await.expect("stored");
    let get = async |vectors| {
        let records = store.get(name("vectors"), vec![id("y"), id("x")], vectors).await;
        records.expect("an answer").pop().expect("there").vector
    };
    assert_eq!(get(false).await, None, "not asked for");
    let vector = get(true).await.expect("asked for");
    assert!(vector.dot(&stored.vector) > 0.999_999, "its vector");
    let searches =
        vec![Search { vectors: true, ..search([1.0; DIMENSION], 1) }, search([1.0; DIMENSION], 1)];
    let answers = store.search(name("vectors"), searches).await.expect("an answer");
    let vector = answers[0][0].vector.clone().expect("asked for");
    assert!(vector.dot(&stored.vector) > 0.999_999, "a hit's vector");
    assert_eq!(answers[1][0].vector, None, "not asked for");
}

async fn the_graph_can_be_changed(store: &dyn VectorStore) {
    store.create(new_collection("graph")).await.expect("made");
    store.upsert(name("graph"), vec![point("x", [1.0; DIMENSION])]).await.expect("stored");
    let links = VectorIndexChange { links: Some(24), ..VectorIndexChange::default() };
    let changed = store.set_vector_index(name("graph"), links).await.expect("changed");
    let index = VectorIndex { links: 24, ..VectorIndex::default() };
    assert_eq!(changed.vector_index, index, "as asked for, and nothing else");
    let again = store.set_vector_index(name("graph"), links).await;
    assert_eq!(again.map(|graph| graph.vector_index), Ok(index), "twice is once");
    let quantization = Some(Quantization::Scalar);
    let rest = VectorIndexChange { links: None, build_effort: Some(80), quantization };
    let changed = store.set_vector_index(name("graph"), rest).await.expect("changed");
    let index = VectorIndex { links: 24, build_effort: 80, quantization: Quantization::Scalar };
    assert_eq!(changed.vector_index, index, "on top of what it was");
    let resolved = store.resolve(name("graph")).await.expect("there");
    assert_eq!(resolved.vector_index, index, "and so it stays");
    assert_eq!(ids(store, "graph", search([1.0; DIMENSION], 5)).await, ["x"], "it is still found");
    let status = store.status(name("graph")).await.expect("an answer");
    assert!(status.unindexed <= 1, "one item: {status:?}");
    assert_ne!(status.state, IndexState::Failed, "{status:?}");
}
