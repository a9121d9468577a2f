//! The part of the suite about filters: what they mean, whatever is indexed.

use clipmesh_proto::ids::ContentHash;

use super::{
    DIMENSION, field, id, ids, item, must, name, new_collection, number, passing, point, search,
    string, text, with,
};
use crate::filter::{Circle, Clause, Condition, Field, Filter, Range, Test};
use crate::item::{Item, Place, Scalar, Value};
use crate::store::index::{FieldIndex, Indexes, Kind};
use crate::store::{Error, MAX_INDEXES, NewCollection, Point, Search, VectorStore};

pub(super) async fn verify(store: &dyn VectorStore) {
    filters_mean_what_they_say(store).await;
    facts_can_be_filtered(store).await;
    filters_nest(store).await;
    times_places_and_words_can_be_filtered(store).await;
    an_item_of_a_ready_vector_has_no_facts(store).await;
    indexes_come_and_go_and_change_no_answer(store).await;
    indexes_are_bounded(store).await;
}

/// A point with metadata.
fn described(text: &str, metadata: &[(&str, Value)]) -> Point {
    let mut point = point(text, [1.0, 0.0, 0.0, 0.0]);
    point.item.metadata =
        metadata.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    point
}

async fn filters_mean_what_they_say(store: &dyn VectorStore) {
    store.create(new_collection("filters")).await.expect("made");
    let one = |scalar| Value::One(scalar);
    let number = |number| Value::One(Scalar::Number(number));
    let points = vec![
        described("s", &[("f", one(string("Rot Grün")))]),
        described("i", &[("f", number(7.0))]),
        described("n", &[("f", number(-0.5))]),
        described("t", &[("f", one(Scalar::Bool(true)))]),
        described("l", &[("f", Value::Many(vec![string("rot"), string("blau")]))]),
        described("m", &[("f", Value::Many(vec![Scalar::Number(1.0), Scalar::Number(9.25)]))]),
        described("e", &[("f", Value::Many(Vec::new()))]),
        described("x", &[("g", one(string("rot")))]),
    ];
    store.upsert(name("filters"), points).await.expect("stored");

    let field = || Field::Metadata("f".to_owned());
    let numbers = |values: &[f64]| values.iter().copied().map(Scalar::Number).collect();
    let range = |gt, gte, lt, lte| Test::Range(Range { gt, gte, lt, lte });
    let cases: Vec<(Test, &[&str])> = vec![
        (Test::Match(string("rot")), &["l"]),
        (Test::Match(string("Rot Grün")), &["s"]),
        (Test::Match(string("rot grün")), &[]),
        (Test::Match(Scalar::Number(7.0)), &["i"]),
        (Test::Match(Scalar::Number(-0.5)), &["n"]),
        (Test::Match(Scalar::Number(9.25)), &["m"]),
        (Test::Match(Scalar::Bool(true)), &["t"]),
        (Test::Match(Scalar::Bool(false)), &[]),
        (Test::AnyOf(vec![string("blau"), string("Rot Grün")]), &["l", "s"]),
        (Test::AnyOf(numbers(&[1.0, -0.5, 7.5])), &["m", "n"]),
        (Test::AnyOf(vec![Scalar::Bool(false), Scalar::Bool(true)]), &["t"]),
        (range(Some(-0.5), None, None, None), &["i", "m"]),
        (range(None, Some(-0.5), None, None), &["i", "m", "n"]),
        (range(None, None, Some(7.0), None), &["m", "n"]),
        (range(None, None, None, Some(7.0)), &["i", "m", "n"]),
        (range(Some(1.0), None, Some(9.25), None), &["i"]),
        (range(None, Some(1.0), None, Some(9.25)), &["i", "m"]),
        (Test::Text("ROT".to_owned()), &["l", "s"]),
        (Test::Text("t grÜ".to_owned()), &["s"]),
        (Test::Text("7".to_owned()), &[]),
        (Test::Exists(true), &["i", "l", "m", "n", "s", "t"]),
        (Test::Exists(false), &["e", "x"]),
    ];
    let all = ["e", "i", "l", "m", "n", "s", "t", "x"];
    for (test, expected) in cases {
        let condition = Clause::Condition(Condition { field: field(), test: test.clone() });
        let must = Filter { must: vec![condition.clone()], ..Filter::default() };
        let should = Filter { should: vec![condition.clone()], ..Filter::default() };
        let must_not = Filter { must_not: vec![condition], ..Filter::default() };
        let rest: Vec<_> = all.iter().copied().filter(|id| !expected.contains(id)).collect();
        assert_eq!(passing(store, &name("filters"), &must, 3).await, expected, "must {test:?}");
        assert_eq!(passing(store, &name("filters"), &should, 3).await, expected, "should {test:?}");
        assert_eq!(passing(store, &name("filters"), &must_not, 3).await, rest, "not {test:?}");
    }

    let condition = |test| Clause::Condition(Condition { field: field(), test });
    let mixed = Filter {
        must: vec![condition(Test::Exists(true))],
        should: vec![
            condition(Test::Text("rot".to_owned())),
            condition(Test::Match(Scalar::Number(7.0))),
        ],
        must_not: vec![condition(Test::Match(string("blau")))],
    };
    assert_eq!(passing(store, &name("filters"), &mixed, 10).await, ["i", "s"], "all three parts");
    let unsatisfied = Filter {
        must: vec![condition(Test::Exists(true))],
        should: vec![condition(Test::Match(string("nobody")))],
        ..Filter::default()
    };
    let none = passing(store, &name("filters"), &unsatisfied, 10).await;
    assert!(none.is_empty(), "one alternative has to hold: {none:?}");
}

async fn facts_can_be_filtered(store: &dyn VectorStore) {
    store.create(new_collection("facts")).await.expect("made");
    let mut points: Vec<_> = ["a", "b", "C c"].iter().map(|id| point(id, [1.0; 4])).collect();
    points[0].item.uri = "s3://Bucket/a".to_owned();
    points[1].item.filename = String::new();
    points[1].item.format = "png".to_owned();
    points[2].item.width = 99;
    points[2].item.byte_size = 1 << 40;
    store.upsert(name("facts"), points).await.expect("stored");

    let least = |bound: f64| Test::Range(Range { gte: Some(bound), ..Range::default() });
    let most = |bound: f64| Test::Range(Range { lte: Some(bound), ..Range::default() });
    let hash = ContentHash::of(b"b").to_string();
    let cases: Vec<(Field, Test, &[&str])> = vec![
        (Field::Id, Test::Match(string("C c")), &["C c"]),
        (Field::Id, Test::AnyOf(vec![string("a"), string("b"), string("c")]), &["a", "b"]),
        (Field::Id, Test::Text("c C".to_owned()), &["C c"]),
        (Field::Id, Test::Exists(true), &["C c", "a", "b"]),
        (Field::Id, Test::Exists(false), &[]),
        (Field::Uri, Test::Match(string("s3://Bucket/a")), &["a"]),
        (Field::Uri, Test::Text("s3://bucket".to_owned()), &["a"]),
        (Field::Uri, Test::Exists(false), &["C c", "b"]),
        (Field::Filename, Test::Exists(true), &["C c", "a"]),
        (Field::Format, Test::Match(string("png")), &["b"]),
        (Field::ContentHash, Test::Match(string(&hash)), &["b"]),
        (Field::ContentHash, Test::Match(Scalar::Bool(true)), &[]),
        (Field::Width, Test::Match(Scalar::Number(640.0)), &["a", "b"]),
        (Field::Width, Test::Match(string("640")), &[]),
        (Field::Width, Test::Match(Scalar::Number(640.5)), &[]),
        (Field::Width, Test::Text("640".to_owned()), &[]),
        (Field::Width, least(639.5), &["a", "b"]),
        (Field::Width, least(640.5), &[]),
        (Field::Width, most(99.5), &["C c"]),
        (Field::Width, most(98.5), &[]),
        (Field::Height, least(480.0), &["C c", "a", "b"]),
        (Field::ByteSize, least(1e9), &["C c"]),
    ];
    for (field, test, expected) in cases {
        let filter = must(field, test);
        let found = passing(store, &name("facts"), &filter, 2).await;
        assert_eq!(found, expected, "{filter:?}");
    }
}

async fn filters_nest(store: &dyn VectorStore) {
    store.create(new_collection("nested")).await.expect("made");
    let points = [("a", 1.0), ("b", 2.0), ("c", 3.0), ("d", 4.0)]
        .map(|(id, value)| with(id, number(value), [1.0; DIMENSION]));
    store.upsert(name("nested"), points.to_vec()).await.expect("stored");
    let is = |value: f64| {
        Clause::Condition(Condition { field: field("f"), test: Test::Match(Scalar::Number(value)) })
    };
    let any =
        |clauses: Vec<Clause>| Clause::Filter(Filter { should: clauses, ..Filter::default() });
    let none =
        |clauses: Vec<Clause>| Clause::Filter(Filter { must_not: clauses, ..Filter::default() });
    let cases: [(Filter, &[&str]); 5] = [
        (
            Filter {
                must: vec![any(vec![is(1.0), is(2.0)]), any(vec![is(2.0), is(3.0)])],
                ..Filter::default()
            },
            &["b"],
        ),
        (Filter { must: vec![none(vec![is(1.0), is(4.0)])], ..Filter::default() }, &["b", "c"]),
        (
            Filter {
                should: vec![is(1.0), none(vec![any(vec![is(1.0), is(2.0), is(3.0)])])],
                ..Filter::default()
            },
            &["a", "d"],
        ),
        (Filter { must_not: vec![none(vec![is(3.0)])], ..Filter::default() }, &["c"]),
        (
            Filter { must: vec![Clause::Filter(Filter::default())], ..Filter::default() },
            &["a", "b", "c", "d"],
        ),
    ];
    for (filter, expected) in cases {
        assert_eq!(passing(store, &name("nested"), &filter, 2).await, expected, "{filter:?}");
    }
}

async fn times_places_and_words_can_be_filtered(store: &dyn VectorStore) {
    store.create(new_collection("kinds")).await.expect("made");
    let place = |lat, lon| Scalar::Place(Place { lat, lon });
    let mut points = vec![
        with("berlin", Value::One(place(52.52, 13.405)), [1.0; DIMENSION]),
        with(
            "two",
            Value::Many(vec![place(48.8566, 2.3522), place(-33.87, 151.21)]),
            [1.0; DIMENSION],
        ),
        with("noon", text("2026-05-01T12:00:00Z"), [1.0; DIMENSION]),
        with("zone", text("2026-05-01T12:30:00.5+02:00"), [1.0; DIMENSION]),
        with("prose", text("A red Cat, 2026-05-01"), [1.0; DIMENSION]),
        with("list", Value::Many(vec![string("red"), string("a small cat")]), [1.0; DIMENSION]),
    ];
    for (i, point) in points.iter_mut().enumerate() {
        let micros = 1_800_000_000_000_000 + i64::try_from(i).expect("small");
        point.item.create_time = jiff::Timestamp::from_microsecond(micros).expect("a time");
    }
    store.upsert(name("kinds"), points).await.expect("stored");

    let near =
        |lat, lon, radius_meters| Test::Near(Circle { center: Place { lat, lon }, radius_meters });
    let micros =
        |text: &str| text.parse::<jiff::Timestamp>().expect("a time").as_microsecond() as f64;
    let from = |text: &str| Test::Time(Range { gte: Some(micros(text)), ..Range::default() });
    let until = |text: &str| Test::Time(Range { lt: Some(micros(text)), ..Range::default() });
    let words = |words: &[&str]| Test::Words(words.iter().map(|word| (*word).to_owned()).collect());
    let created = |gt: f64| Test::Time(Range { gt: Some(1.8e15 + gt), ..Range::default() });
    let cases: Vec<(Field, Test, &[&str])> = vec![
        (field("f"), near(52.5, 13.4, 5_000.0), &["berlin"]),
        (field("f"), near(52.5, 13.4, 1_000.0), &[]),
        (field("f"), near(48.85, 2.35, 10_000.0), &["two"]),
        (field("f"), near(-34.0, 151.0, 50_000.0), &["two"]),
        (field("f"), near(0.0, 0.0, 20_037_509.0), &["berlin", "two"]),
        (field("f"), from("2026-05-01T12:00:00Z"), &["noon"]),
        (field("f"), from("2026-05-01T10:30:00.5Z"), &["noon", "zone"]),
        (field("f"), until("2026-05-01T12:00:00Z"), &["zone"]),
        (field("f"), words(&["cat"]), &["list", "prose"]),
        (field("f"), words(&["cat", "red"]), &["list", "prose"]),
        (field("f"), words(&["ca"]), &[]),
        (field("f"), words(&["small", "cat"]), &["list"]),
        (Field::Filename, words(&["noon.jpg"]), &["noon"]),
        (Field::CreateTime, created(3.0), &["list", "prose"]),
        (Field::CreateTime, created(5.0), &[]),
    ];
    for (field, test, expected) in cases {
        let filter = must(field, test);
        assert_eq!(passing(store, &name("kinds"), &filter, 3).await, expected, "{filter:?}");
    }
}

async fn an_item_of_a_ready_vector_has_no_facts(store: &dyn VectorStore) {
    store.create(new_collection("ready")).await.expect("made");
    let mut ready = point("a", [1.0; DIMENSION]);
    ready.item = Item {
        filename: String::new(),
        width: 0,
        height: 0,
        format: String::new(),
        byte_size: 0,
        content_hash: None,
        pixel_hash: None,
        perceptual_hash: None,
        ..item("a")
    };
    store.upsert(name("ready"), vec![ready.clone()]).await.expect("stored");
    let found = store.point(name("ready"), id("a")).await.expect("an answer").expect("there");
    assert_eq!(found.item, ready.item, "as it was");
    for field in
        [Field::ContentHash, Field::PixelHash, Field::Width, Field::ByteSize, Field::Format]
    {
        let filter = must(field.clone(), Test::Exists(false));
        assert_eq!(passing(store, &name("ready"), &filter, 3).await, ["a"], "no {field:?}");
    }
}

async fn indexes_come_and_go_and_change_no_answer(store: &dyn VectorStore) {
    store.create(new_collection("indexes")).await.expect("made");
    let points = vec![
        with("s", text("Rot"), [1.0; DIMENSION]),
        with("i", number(7.0), [1.0; DIMENSION]),
        with("n", number(0.1), [1.0; DIMENSION]),
        with("b", Value::One(Scalar::Bool(true)), [1.0; DIMENSION]),
        with("t", text("2026-05-01T12:00:00Z"), [1.0; DIMENSION]),
        with("g", Value::One(Scalar::Place(Place { lat: 1.0, lon: 2.0 })), [1.0; DIMENSION]),
        with("l", Value::Many(vec![Scalar::Number(7.0), Scalar::Number(-3.5)]), [1.0; DIMENSION]),
    ];
    store.upsert(name("indexes"), points).await.expect("stored");
    let circle = Circle { center: Place { lat: 1.0, lon: 2.0 }, radius_meters: 10.0 };
    let tests: Vec<(Test, &[&str])> = vec![
        (Test::Match(string("Rot")), &["s"]),
        (Test::Match(Scalar::Number(7.0)), &["i", "l"]),
        (Test::Match(Scalar::Number(0.1)), &["n"]),
        (Test::AnyOf(vec![Scalar::Number(0.1), Scalar::Number(7.0)]), &["i", "l", "n"]),
        (Test::Match(Scalar::Bool(true)), &["b"]),
        (Test::Range(Range { lt: Some(1.0), ..Range::default() }), &["l", "n"]),
        (Test::Text("ro".to_owned()), &["s"]),
        (Test::Words(vec!["rot".to_owned()]), &["s"]),
        (Test::Time(Range::ALL), &["t"]),
        (Test::Near(circle), &["g"]),
        (Test::Exists(true), &["b", "g", "i", "l", "n", "s", "t"]),
        (Test::Exists(false), &[]),
    ];
    let kinds = [
        Kind::Keyword,
        Kind::Integer,
        Kind::Float,
        Kind::Boolean,
        Kind::Time,
        Kind::Words,
        Kind::Geo,
    ];
    for kind in [None].into_iter().chain(kinds.map(Some)) {
        if let Some(kind) = kind {
            let index = FieldIndex { field: field("f"), kind };
            let made = store.create_index(name("indexes"), index.clone()).await.expect("made");
            assert_eq!(made.indexes.kind(&field("f")), Some(kind), "in place of the one before");
            let again = store.create_index(name("indexes"), index).await.map(|c| c.indexes);
            assert_eq!(again, Ok(made.indexes), "twice is once");
        }
        for (test, expected) in &tests {
            let filter = must(field("f"), test.clone());
            let found = passing(store, &name("indexes"), &filter, 10).await;
            assert_eq!(found, *expected, "{test:?} with an index of {kind:?}");
            let search = Search { filter, ..search([1.0; DIMENSION], 10) };
            let mut found = ids(store, "indexes", search).await;
            found.sort();
            assert_eq!(found, *expected, "a search for {test:?} with an index of {kind:?}");
        }
    }
    let removed = store.remove_index(name("indexes"), field("f")).await.expect("removed");
    assert_eq!(removed.indexes, Indexes::default(), "none of its own is left");
    let again = store.remove_index(name("indexes"), field("f")).await.map(drop);
    assert_eq!(again, Err(Error::NotIndexed("metadata.f".to_owned())), "only once");
    let resolved = store.resolve(name("indexes")).await.expect("there");
    assert_eq!(resolved.indexes, Indexes::default(), "and so it stays");
}

async fn indexes_are_bounded(store: &dyn VectorStore) {
    let index = |i: usize, kind| FieldIndex { field: field(&format!("f{i}")), kind };
    let indexes = Indexes::new((0..MAX_INDEXES).map(|i| index(i, Kind::Keyword)));
    store.create(NewCollection { indexes, ..new_collection("bounded") }).await.expect("made");
    let create = async |index: FieldIndex| {
        store.create_index(name("bounded"), index).await.map(|collection| collection.indexes)
    };
    let full = create(index(0, Kind::Keyword)).await.expect("there already");
    assert_eq!(full.chosen().count(), MAX_INDEXES, "as many as there may be");
    let one_more = create(index(MAX_INDEXES, Kind::Keyword)).await;
    assert_eq!(one_more, Err(Error::TooManyIndexes), "one more");
    let other = create(index(0, Kind::Float)).await.expect("in place of another");
    assert_eq!(other.kind(&field("f0")), Some(Kind::Float), "replaced");
    let built_in = FieldIndex { field: Field::Width, kind: Kind::Integer };
    assert_eq!(create(built_in).await, Ok(other), "every collection has it");
}
