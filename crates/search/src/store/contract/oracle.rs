//! Random items, filters and indexes, on which a store has to agree with the exact one.

use clipmesh_proto::Embedding;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tokio::runtime::Runtime;

use super::{DIMENSION, id, item, name, new_collection, passing, point, search};
use crate::filter::{Circle, Clause, Condition, Field, Filter, Range, Test};
use crate::item::{Item, Metadata, Place, Scalar, Value};
use crate::store::exact::Exact;
use crate::store::index::{FieldIndex, Kind};
use crate::store::{
    Error, Facet, Group, Grouped, Hit, NewCollection, Ordered, Point, Search, Target, VectorStore,
};

const KINDS: [Kind; 7] =
    [Kind::Keyword, Kind::Integer, Kind::Float, Kind::Boolean, Kind::Time, Kind::Words, Kind::Geo];

/// Noon of a day in 2026, in microseconds since 1970.
const NOON: f64 = 1_777_636_800_000_000.0;

fn fields() -> Vec<Field> {
    ["f", "g-1"].map(|name| Field::Metadata(name.to_owned())).to_vec()
}

/// Berlin, Paris, and the antipodes of Berlin: far from each other's circles' edges.
fn places() -> Vec<Place> {
    [(52.52, 13.405), (48.8566, 2.3522), (-52.52, -166.595)]
        .map(|(lat, lon)| Place { lat, lon })
        .to_vec()
}

fn scalars() -> impl Strategy<Value = Vec<Scalar>> {
    let strings = ["a", "A", "ab c", "Äb", "7", "true", "c a"];
    let times = ["2026-05-01T12:00:00Z", "2026-05-01T13:00:00.000001+02:00"];
    let strings = [&strings[..], &times[..]].concat();
    let strings: Vec<_> = strings.into_iter().map(|text| Scalar::String(text.to_owned())).collect();
    let numbers = [-1.5, 0.0, 1.0, 7.0, 7.25, 1e18, 0.1].map(Scalar::Number);
    let places: Vec<_> = places().into_iter().map(Scalar::Place).collect();
    prop_oneof![
        prop::collection::vec(prop::sample::select(strings), 1..3),
        prop::collection::vec(prop::sample::select(numbers.to_vec()), 1..3),
        prop::collection::vec(any::<bool>().prop_map(Scalar::Bool), 1..3),
        prop::collection::vec(prop::sample::select(places), 1..3),
    ]
}

fn metadata() -> impl Strategy<Value = Metadata> {
    let value = (scalars(), 0..3_u8).prop_map(|(mut scalars, shape)| match shape {
        0 => Value::Many(scalars),
        1 => Value::Many(Vec::new()),
        _ => Value::One(scalars.remove(0)),
    });
    prop::collection::btree_map(
        prop::sample::select(vec!["f".to_owned(), "g-1".to_owned()]),
        value,
        0..3,
    )
}

fn range(bounds: Vec<f64>) -> impl Strategy<Value = Range> {
    let bound = move || prop::option::of(prop::sample::select(bounds.clone()));
    (bound(), bound(), bound(), bound())
        .prop_map(|(gt, gte, lt, lte)| Range { gt, gte, lt, lte })
        .prop_filter("a bound", |range| *range != Range::default())
}

fn condition() -> impl Strategy<Value = Clause> {
    let facts = [Field::Id, Field::Uri, Field::Filename, Field::Format, Field::Width];
    let others = [Field::Metadata("h".to_owned()), Field::CreateTime];
    let field = prop::sample::select([fields(), facts.to_vec(), others.to_vec()].concat());
    let comparable = |scalar: &Scalar| !matches!(scalar, Scalar::Place(_));
    let wanted = move || {
        scalars().prop_filter("nobody asks for one place", move |all| all.iter().all(comparable))
    };
    let text = prop::sample::select(vec!["a", "B", "ä", "jp", "7", "b c"]);
    let words = prop::collection::vec(prop::sample::select(vec!["a", "c", "äb", "ab"]), 1..3);
    let circle = (prop::sample::select(places()), prop::sample::select(vec![10.0, 9e5, 1.5e7]));
    let test = prop_oneof![
        wanted().prop_map(|mut scalars| Test::Match(scalars.remove(0))),
        wanted().prop_map(Test::AnyOf),
        range(vec![-1.5, 0.0, 1.0, 7.0, 7.2, 640.0]).prop_map(Test::Range),
        range(vec![0.0, NOON - 3.6e9, NOON - 1.0, NOON, NOON + 1.0]).prop_map(Test::Time),
        text.prop_map(|text| Test::Text(text.to_owned())),
        words.prop_map(|words| Test::Words(words.into_iter().map(str::to_owned).collect())),
        circle.prop_map(|(center, radius_meters)| Test::Near(Circle { center, radius_meters })),
        any::<bool>().prop_map(Test::Exists),
    ];
    (field, test).prop_map(|(field, test)| Clause::Condition(Condition { field, test }))
}

fn filter() -> impl Strategy<Value = Filter> {
    let clause = condition().prop_recursive(2, 12, 3, |inner| {
        let clauses = move || prop::collection::vec(inner.clone(), 0..3);
        filter_of(clauses(), clauses(), clauses()).prop_map(Clause::Filter)
    });
    let clauses = move || prop::collection::vec(clause.clone(), 0..3);
    filter_of(clauses(), clauses(), clauses())
}

fn filter_of(
    must: impl Strategy<Value = Vec<Clause>>,
    should: impl Strategy<Value = Vec<Clause>>,
    must_not: impl Strategy<Value = Vec<Clause>>,
) -> impl Strategy<Value = Filter> {
    (must, should, must_not).prop_map(|(must, should, must_not)| Filter { must, should, must_not })
}

fn points() -> impl Strategy<Value = Vec<Point>> {
    let vector = prop::collection::vec(-4_i8..4, DIMENSION)
        .prop_filter("a direction", |values| values.iter().any(|value| *value != 0));
    let uri = prop::sample::select(vec!["", "a", "AB"]);
    let point = (metadata(), vector, uri).prop_map(|(metadata, vector, uri)| {
        let vector = vector.into_iter().map(f32::from).collect();
        let item = Item { metadata, uri: uri.to_owned(), ..item("a") };
        Point { item, vector: Embedding::new(vector).expect("a direction") }
    });
    prop::collection::vec(point, 1..20).prop_map(|mut points| {
        for (i, point) in points.iter_mut().enumerate() {
            point.item.id = id(&format!("a{i}"));
        }
        points
    })
}

/// Scores of the two stores differ in the last bits, so order is compared where scores differ; those
/// of words differ by more, since the engine counts what was deleted among the words of all until
/// it builds anew.
fn assert_same_hits(own: &[Hit], exact: &[Hit], target: &Target) {
    let scores = |hits: &[Hit]| hits.iter().map(|hit| hit.score).collect::<Vec<_>>();
    assert_eq!(own.len(), exact.len(), "as many hits");
    let tolerance = if let Target::Vector(_) = target { 1e-5 } else { f32::INFINITY };
    for (one, other) in scores(own).iter().zip(scores(exact)) {
        assert!((one - other).abs() < tolerance, "equal scores: {own:?} and {exact:?}");
    }
    let mut ids = [own, exact].map(|hits| hits.iter().map(|hit| &hit.item.id).collect::<Vec<_>>());
    ids.iter_mut().for_each(|ids| ids.sort());
    assert_eq!(ids[0], ids[1], "the same hits");
}

fn values_and_ids(group: Group) -> (Option<String>, Vec<String>) {
    let mut ids: Vec<_> = group.hits.iter().map(|hit| hit.item.id.to_string()).collect();
    ids.sort();
    (group.value.as_str().map(str::to_owned), ids)
}

/// What both find of all that can be asked about a filter.
async fn compare(stores: [&dyn VectorStore; 2], filter: &Filter, kind: Kind) {
    let random = name("random");
    let [one, other] = [
        passing(stores[0], &random, filter, 4).await,
        passing(stores[1], &random, filter, 4).await,
    ];
    assert_eq!(one, other, "they disagree on {filter:?} with an index of {kind:?}");
    let vector = Search { filter: filter.clone(), ..search([1.0, 2.0, -1.0, 0.5], 50) };
    let words = Target::Words(vec!["a".to_owned(), "c".to_owned()]);
    for search in [vector.clone(), Search { target: words, ..vector }] {
        let one = stores[0].search(random.clone(), vec![search.clone()]).await.expect("an answer");
        let other = stores[1].search(random.clone(), vec![search.clone()]).await;
        assert_same_hits(&one[0], &other.expect("an answer")[0], &search.target);
    }
    let [field, _] = &fields()[..] else { unreachable!("there are two") };
    let facet = Facet { field: field.clone(), filter: filter.clone(), limit: 5 };
    let [one, other] = [
        stores[0].facet(random.clone(), facet.clone()).await,
        stores[1].facet(random.clone(), facet).await,
    ];
    assert_eq!(one, other, "values of what passes {filter:?}");
    if kind != Kind::Integer {
        // By numbers, the engine passes over items that have others beside the whole ones.
        let grouped = Grouped {
            search: Search { filter: filter.clone(), ..search([1.0, 2.0, -1.0, 0.5], 50) },
            field: field.clone(),
            size: 50,
        };
        let groups = async |store: &dyn VectorStore| {
            let found = store.group(random.clone(), grouped.clone()).await?.into_iter();
            let mut groups: Vec<_> = found.map(values_and_ids).collect();
            groups.sort();
            Ok::<_, Error>(groups)
        };
        let [one, other] = [groups(stores[0]).await, groups(stores[1]).await];
        assert_eq!(one, other, "groups of what passes {filter:?}");
    }
    let page = |descending| Ordered {
        filter: filter.clone(),
        field: field.clone(),
        descending,
        limit: 50,
    };
    for descending in [false, true] {
        let numbers = async |store: &dyn VectorStore| {
            let found = store.ordered(random.clone(), page(descending)).await?;
            Ok::<_, Error>(found.into_iter().map(|(_, number)| number).collect::<Vec<_>>())
        };
        let [one, other] = [numbers(stores[0]).await, numbers(stores[1]).await];
        assert_eq!(one, other, "numbers of what passes {filter:?}");
    }
}

/// Compares what a store makes of words with what the oracle does, as long as nothing was deleted.
pub(crate) async fn weighs_words_alike(store: &dyn VectorStore) {
    let texts = ["a c", "c", "a a b", "b d e f g h i j k l m n o p q r s t u", "", "c a b"];
    let points = texts.iter().enumerate().map(|(i, text)| {
        let mut point = point(&format!("p{i}"), [1.0; 4]);
        let text = Value::One(Scalar::String((*text).to_owned()));
        point.item.metadata = Metadata::from([("f".to_owned(), text)]);
        point
    });
    let points: Vec<_> = points.collect();
    let target = Target::Words(vec!["a".to_owned(), "c".to_owned(), "q".to_owned()]);
    let mut answers = Vec::new();
    for store in [store, &Exact::default()] {
        let new = NewCollection { word_fields: fields(), ..new_collection("weights") };
        store.create(new).await.expect("made");
        store.upsert(name("weights"), points.clone()).await.expect("stored");
        let search = Search { target: target.clone(), ..search([1.0; 4], 10) };
        answers.extend(store.search(name("weights"), vec![search]).await.expect("an answer"));
    }
    let scored = |hits: &[Hit]| -> Vec<_> {
        hits.iter().map(|hit| (hit.item.id.to_string(), (hit.score * 1e4).round())).collect()
    };
    assert_eq!(scored(&answers[0]), scored(&answers[1]), "to four digits");
    assert_eq!(answers[0].len(), 5, "all but the one without a word");
}

/// What becomes of the collection between two cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Between {
    /// Its items are deleted, which takes less time than to make another.
    Emptied,
    /// It is made anew. A debug build of Qdrant asserts estimates that deleted items upset.
    Renewed,
}

/// Asks a store and the oracle the same of random items.
pub(crate) fn agrees_on_random_items(runtime: &Runtime, store: &dyn VectorStore, between: Between) {
    let new = || NewCollection { word_fields: fields(), ..new_collection("random") };
    runtime.block_on(store.create(new())).expect("made");
    let random = name("random");
    let kind = prop::sample::select(KINDS.to_vec());
    let cases = (points(), prop::collection::vec(filter(), 8), kind);
    let config = ProptestConfig { cases: 40, failure_persistence: None, ..Default::default() };
    let outcome = TestRunner::new(config).run(&cases, |(points, filters, kind)| {
        runtime.block_on(async {
            let exact = Exact::default();
            exact.create(new()).await.expect("made");
            let stores: [&dyn VectorStore; 2] = [store, &exact];
            for store in stores {
                store.upsert(random.clone(), points.clone()).await.expect("stored");
                let index = FieldIndex { field: fields()[0].clone(), kind };
                store.create_index(random.clone(), index).await.expect("made");
            }
            for filter in &filters {
                compare(stores, filter, kind).await;
            }
            match between {
                Between::Emptied => {
                    let ids = points.iter().map(|point| point.item.id.clone()).collect();
                    store.delete(random.clone(), ids).await.expect("emptied");
                }
                Between::Renewed => {
                    store.remove(random.clone()).await.expect("removed");
                    store.create(new()).await.expect("made anew");
                }
            }
        });
        Ok(())
    });
    outcome.expect("the stores agree");
}
