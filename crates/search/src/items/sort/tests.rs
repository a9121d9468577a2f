use futures::FutureExt as _;
use proptest::prelude::*;

use super::*;
use crate::items::listing::{Listing, list};
use crate::store::contract::{self, id, name, new_collection, point, string};
use crate::store::exact::Exact;
use crate::store::index::{FieldIndex, Indexes};
use crate::store::{NewCollection, Point};

fn field() -> Field {
    Field::Metadata("f".to_owned())
}

fn number(number: f64) -> Scalar {
    Scalar::Number(number)
}

fn with(text: &str, value: Option<Value>) -> Point {
    let mut point = point(text, [1.0; contract::DIMENSION]);
    point.item.metadata = value.map(|value| ("f".to_owned(), value)).into_iter().collect();
    point
}

fn at(text: &str, number: f64) -> (Record, f64) {
    (Record { item: contract::item(text), vector: None }, number)
}

fn names(items: &[(Item, f64)]) -> Vec<(&str, f64)> {
    items.iter().map(|(item, number)| (item.id.as_str(), *number)).collect()
}

#[test]
fn an_item_stands_at_its_first_number_only() {
    let ordered = || vec![at("a", 1.0), at("b", 2.0), at("a", 2.0), at("c", 3.0)];
    let (whole, open) = split(ordered(), true);
    assert_eq!(names(&whole), [("a", 1.0), ("b", 2.0), ("c", 3.0)], "a list stands once");
    assert_eq!(open, None, "there are no more");
    let (whole, open) = split(ordered(), false);
    assert_eq!(names(&whole), [("a", 1.0), ("b", 2.0)], "there may be others at the last number");
    assert_eq!(open, Some(3.0), "which has to be listed");
    assert_eq!(split(Vec::new(), false).1, None, "nothing");
}

#[test]
fn items_of_one_number_take_their_places() {
    let (items, _) =
        split(vec![at("a", 1.0), at("b", 2.0), at("c", 2.0), at("d", 2.0), at("e", 3.0)], true);
    let ties: Vec<_> = tied(&items).map(ItemId::as_str).collect();
    assert_eq!(ties, ["b", "c", "d"], "those alone have to be asked for");
    let places = HashMap::from([(id("d"), 0), (id("b"), 1)]);
    let arranged = arranged(items, &places);
    let expected = [("a", 1.0), ("d", 2.0), ("b", 2.0), ("c", 2.0), ("e", 3.0)];
    assert_eq!(names(&arranged), expected, "and what is gone comes last");
}

#[test]
fn places_survive_being_written_down() {
    let places = [
        Place::Number((0.1_f64 + 0.2).to_bits(), "a".to_owned()),
        Place::Number((-0.0_f64).to_bits(), "\"".to_owned()),
        Place::String("grün".to_owned(), "b".to_owned()),
        Place::Other("c".to_owned()),
        Place::None("d".to_owned()),
    ];
    for place in places {
        assert_eq!(Place::read(&place.write()), Some(place.clone()), "{place:?}");
    }
    assert_eq!(Place::read("a"), None, "no place");
}

/// What a store holds, with an index on the field.
fn store(kind: Kind, points: Vec<Point>) -> (Exact, Collection) {
    let store = Exact::default();
    let indexes = Indexes::new([FieldIndex { field: field(), kind }]);
    let new = NewCollection { indexes, ..new_collection("c") };
    let collection = store.create(new).now_or_never().expect("at once").expect("made");
    store.upsert(name("c"), points).now_or_never().expect("at once").expect("stored");
    (store, collection)
}

/// The ids of everything, found page by page.
fn listed(store: &Exact, collection: &Collection, order: &Order, limit: usize) -> Vec<String> {
    let mut ids = Vec::new();
    let mut after = None;
    loop {
        let order = Some(order.clone());
        let listing = Listing { filter: Filter::default(), order, after, limit };
        let page = list(store, collection, listing).now_or_never().expect("at once");
        let page = page.expect("a page");
        assert!(page.items.len() <= limit, "a page holds at most its limit");
        ids.extend(page.items.iter().map(|(item, _)| item.id.to_string()));
        assert!(ids.len() <= 1_000, "it never ends: {ids:?}");
        match page.next() {
            Some(next) => after = Some(next),
            None => return ids,
        }
    }
}

/// The same by sorting all there is in memory; the store lists equal ones by id.
fn sorted(points: &[Point], order: &Order, kind: Kind) -> Vec<String> {
    let number = |scalar: &Scalar| match (scalar, kind) {
        (Scalar::Number(number), Kind::Float) => Some(*number),
        (Scalar::String(_), Kind::Time) => order.field.time(scalar),
        (_, _) => None,
    };
    let key = |point: &Point| {
        let value = order.field.of(&point.item);
        let elements = value.as_ref().map_or(&[][..], Value::elements).to_vec();
        let numbers = elements.iter().filter_map(number);
        let numbers: Vec<_> =
            numbers.map(|number| if order.descending { -number } else { number }).collect();
        let least = numbers.into_iter().min_by(f64::total_cmp);
        let strings = elements.iter().filter_map(Scalar::as_str).filter(|_| kind == Kind::Keyword);
        let string = if order.descending { strings.max() } else { strings.min() };
        (least, string.map(str::to_owned), !elements.is_empty() && kind == Kind::Keyword)
    };
    let mut all: Vec<_> =
        points.iter().map(|point| (key(point), point.item.id.to_string())).collect();
    all.sort_by(|((a, a_string, a_other), a_id), ((b, b_string, b_other), b_id)| {
        let by_number = match (a, b) {
            (Some(a), Some(b)) => a.partial_cmp(b).expect("finite"),
            (a, b) => a.is_none().cmp(&b.is_none()),
        };
        let by_string = match (a_string, b_string) {
            (Some(a), Some(b)) if order.descending => b.cmp(a),
            (Some(a), Some(b)) => a.cmp(b),
            (a, b) => a.is_none().cmp(&b.is_none()),
        };
        by_number.then(by_string).then(b_other.cmp(a_other)).then(a_id.cmp(b_id))
    });
    all.into_iter().map(|(_, id)| id).collect()
}

fn scalar(kind: Kind) -> BoxedStrategy<Scalar> {
    // A few values, so that many items share one.
    match kind {
        Kind::Float => prop_oneof![
            (-3..4_i32).prop_map(|n| number(f64::from(n) / 2.0)),
            Just(number(-0.0)),
            Just(number(1e300)),
        ]
        .boxed(),
        Kind::Time => (0..5_u8).prop_map(|s| string(&format!("2026-01-01T00:00:0{s}Z"))).boxed(),
        Kind::Keyword | Kind::Integer | Kind::Boolean | Kind::Words | Kind::Geo => {
            "[a-cß]{0,2}".prop_map(Scalar::String).boxed()
        }
    }
}

fn value(kind: Kind) -> BoxedStrategy<Option<Value>> {
    prop_oneof![
        5 => scalar(kind).prop_map(|scalar| Some(Value::One(scalar))),
        3 => prop::collection::vec(scalar(kind), 0..4).prop_map(|all| Some(Value::Many(all))),
        1 => Just(None),
        1 => Just(Some(Value::One(Scalar::Bool(true)))),
        1 => Just(Some(Value::One(string("none of times")))),
    ]
    .boxed()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn pages_put_together_are_everything_in_order(
        (kind, values) in prop::sample::select(vec![Kind::Float, Kind::Time, Kind::Keyword])
            .prop_flat_map(|kind| (Just(kind), prop::collection::vec(value(kind), 0..24))),
        descending in any::<bool>(),
        limit in 1..9_usize,
    ) {
        let points: Vec<_> = values
            .into_iter()
            .enumerate()
            .map(|(i, value)| with(&format!("{:02}", (i * 7) % 24), value))
            .collect();
        let order = Order { field: field(), descending };
        let (store, collection) = store(kind, points.clone());
        let found = listed(&store, &collection, &order, limit);
        prop_assert_eq!(found, sorted(&points, &order, kind));
    }
}

#[test]
fn fields_of_the_item_itself_can_be_sorted_by() {
    let mut points = vec![with("b", None), with("a", None), with("c", None)];
    points[0].item.width = 9;
    points[1].item.create_time = jiff::Timestamp::UNIX_EPOCH;
    let (store, collection) = store(Kind::Float, points);
    let by = |field, descending| listed(&store, &collection, &Order { field, descending }, 2);
    assert_eq!(by(Field::Width, false), ["b", "a", "c"], "a number");
    assert_eq!(by(Field::CreateTime, true), ["b", "c", "a"], "a time");
    assert_eq!(by(Field::Filename, true), ["c", "b", "a"], "a string");
    assert_eq!(by(Field::Id, true), ["c", "b", "a"], "the id");
}

#[test]
fn what_cant_be_sorted_by_is_refused() {
    let (store, collection) = store(Kind::Geo, vec![with("a", None)]);
    for field in [field(), Field::Metadata("absent".to_owned())] {
        let order = Some(Order { field: field.clone(), descending: false });
        let listing = Listing { filter: Filter::default(), order, after: None, limit: 1 };
        let error = list(&store, &collection, listing).now_or_never().expect("at once");
        let error = error.map(drop).expect_err("refused");
        assert!(matches!(&error, Error::NotIndexed(key) if *key == field.key()), "{error}");
    }
}

#[test]
fn a_place_of_another_index_is_refused() {
    let (store, collection) = store(Kind::Keyword, vec![with("a", None)]);
    let order = Some(Order { field: field(), descending: false });
    for after in [Place::Number(0, "a".to_owned()).write(), "a".to_owned()] {
        let after = Some(after);
        let listing = Listing { filter: Filter::default(), order: order.clone(), after, limit: 1 };
        let page = list(&store, &collection, listing).now_or_never().expect("at once");
        let error = page.map(drop).expect_err("refused");
        assert!(matches!(error, Error::Invalid(_)), "{error}");
    }
}

#[test]
fn a_page_goes_on_after_an_item_that_is_gone() {
    let points = (0..6).map(|i| with(&format!("{i}"), Some(Value::One(number(f64::from(i / 3))))));
    let (store, collection) = store(Kind::Float, points.collect());
    let order = Some(Order { field: field(), descending: false });
    let page = |after| {
        let listing = Listing { filter: Filter::default(), order: order.clone(), after, limit: 2 };
        let page = list(&store, &collection, listing).now_or_never().expect("at once");
        let page = page.expect("a page");
        let ids: Vec<_> = page.items.iter().map(|(item, _)| item.id.to_string()).collect();
        (ids, page.next())
    };
    let (ids, next) = page(None);
    assert_eq!(ids, ["0", "1"], "the first page ends among equals");
    let gone = ["1", "2"].map(id).to_vec();
    store.delete(name("c"), gone).now_or_never().expect("at once").expect("deleted");
    let (ids, _) = page(next);
    assert_eq!(ids, ["3", "4"], "the next goes on behind them");
}
