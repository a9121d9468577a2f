//! Conditions on items, already checked, and what they mean.
//!
//! [`Filter::accepts`] is the meaning; a store that evaluates filters by itself has to agree with
//! it, and the contract suite compares the two.

use serde::{Deserialize, Serialize};

use crate::item::{self, Item, Place, Scalar, Value};
use crate::words;

/// The mean radius of the earth (IUGG), on which distances are measured.
const EARTH_RADIUS_METERS: f64 = 6_371_008.8;

/// Passes items for which every `must` holds, no `must_not` holds and, if there is any `should`,
/// at least one of them holds. The default passes everything.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Filter {
    pub must: Vec<Clause>,
    pub should: Vec<Clause>,
    pub must_not: Vec<Clause>,
}

/// A part of a filter.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Clause {
    Condition(Condition),
    /// Holds for what the filter passes.
    Filter(Filter),
}

/// A test of one field.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Condition {
    pub field: Field,
    pub test: Test,
}

/// What can be asked about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Field {
    Id,
    Uri,
    Filename,
    Format,
    ContentHash,
    PixelHash,
    Width,
    Height,
    ByteSize,
    CreateTime,
    UpdateTime,
    /// See [`item::lot`]. No caller can name it.
    Lot,
    /// A field of the caller's own, by its name without `metadata.`.
    Metadata(String),
}

/// What can be asked. A list passes when one of its elements does; an absent field passes only
/// `Exists(false)`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Test {
    Match(Scalar),
    /// At least one, all of one type.
    AnyOf(Vec<Scalar>),
    Range(Range),
    /// Contains this text, whatever its letter case.
    Text(String),
    /// There, and not an empty list.
    Exists(bool),
    /// A time, in microseconds since 1970, within these bounds.
    Time(Range),
    /// A place nearer to another than this.
    Near(Circle),
    /// Each of these words occurs in one string; folded and at least one.
    Words(Vec<String>),
}

/// Finite bounds of a number; at least one is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Range {
    pub gt: Option<f64>,
    pub gte: Option<f64>,
    pub lt: Option<f64>,
    pub lte: Option<f64>,
}

/// A circle on the earth.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Circle {
    pub center: Place,
    pub radius_meters: f64,
}

// === impl Filter ===

impl Filter {
    pub fn is_empty(&self) -> bool {
        self.must.is_empty() && self.should.is_empty() && self.must_not.is_empty()
    }

    /// Whether an item passes.
    pub fn accepts(&self, item: &Item) -> bool {
        self.must.iter().all(|clause| clause.holds(item))
            && !self.must_not.iter().any(|clause| clause.holds(item))
            && (self.should.is_empty() || self.should.iter().any(|clause| clause.holds(item)))
    }

    /// The same filter with one more condition that must hold.
    #[must_use]
    pub fn and(mut self, field: Field, test: Test) -> Self {
        // A filter of alternatives alone stays one: `must` and `should` both have to hold.
        self.must.push(Clause::Condition(Condition { field, test }));
        self
    }

    /// The same filter with one more condition that must not hold.
    #[must_use]
    pub fn and_not(mut self, field: Field, test: Test) -> Self {
        self.must_not.push(Clause::Condition(Condition { field, test }));
        self
    }

    /// All conditions, those in filters of the filter too.
    pub fn conditions(&self) -> Vec<&Condition> {
        let clauses = self.must.iter().chain(&self.should).chain(&self.must_not);
        let mut conditions = Vec::new();
        for clause in clauses {
            match clause {
                Clause::Condition(condition) => conditions.push(condition),
                Clause::Filter(filter) => conditions.extend(filter.conditions()),
            }
        }
        conditions
    }
}

// === impl Clause ===

impl Clause {
    fn holds(&self, item: &Item) -> bool {
        match self {
            Self::Condition(condition) => condition.holds(item),
            Self::Filter(filter) => filter.accepts(item),
        }
    }
}

// === impl Condition ===

impl Condition {
    fn holds(&self, item: &Item) -> bool {
        let value = self.field.of(item);
        let elements = value.as_ref().map_or(&[][..], Value::elements);
        let any = |test: &dyn Fn(&Scalar) -> bool| elements.iter().any(test);
        match &self.test {
            Test::Match(wanted) => any(&|scalar| scalar == wanted),
            Test::AnyOf(wanted) => any(&|scalar| wanted.contains(scalar)),
            Test::Range(range) => any(&|scalar| number(scalar).is_some_and(|own| range.holds(own))),
            Test::Text(text) => {
                let text = fold_case(text);
                any(&|scalar| scalar.as_str().is_some_and(|own| fold_case(own).contains(&text)))
            }
            Test::Exists(wanted) => *wanted != elements.is_empty(),
            Test::Time(range) => {
                any(&|scalar| self.field.time(scalar).is_some_and(|own| range.holds(own)))
            }
            Test::Near(circle) => any(&|scalar| circle.holds(scalar)),
            // Of all elements together, as a store keeps them.
            Test::Words(wanted) => {
                let own = words::of_all(elements.iter().filter_map(Scalar::as_str));
                wanted.iter().all(|word| own.contains(word))
            }
        }
    }
}

// === impl Field ===

impl Field {
    /// What an item has there.
    pub fn of(&self, item: &Item) -> Option<Value> {
        let string =
            |text: &str| (!text.is_empty()).then(|| Value::One(Scalar::String(text.to_owned())));
        let number = |number: f64| Some(Value::One(Scalar::Number(number)));
        // An item of a ready vector has none of these.
        let fact = |fact: f64| number(fact).filter(|_| item.content_hash.is_some());
        match self {
            Self::Id => string(item.id.as_str()),
            Self::Uri => string(&item.uri),
            Self::Filename => string(&item.filename),
            Self::Format => string(&item.format),
            Self::ContentHash => item.content_hash.and_then(|hash| string(&hash.to_string())),
            Self::PixelHash => item.pixel_hash.and_then(|hash| string(&hash.to_string())),
            Self::Width => fact(f64::from(item.width)),
            Self::Height => fact(f64::from(item.height)),
            Self::ByteSize => fact(item.byte_size as f64),
            Self::CreateTime => number(item.create_time.as_microsecond() as f64),
            Self::UpdateTime => number(item.update_time.as_microsecond() as f64),
            Self::Lot => number(item::lot(&item.id) as f64),
            Self::Metadata(name) => item.metadata.get(name).cloned(),
        }
    }

    /// The time that one of its elements is, in microseconds since 1970.
    pub fn time(&self, scalar: &Scalar) -> Option<f64> {
        match (self, scalar) {
            (Self::CreateTime | Self::UpdateTime, Scalar::Number(micros)) => Some(*micros),
            (_, Scalar::String(text)) => item::microseconds(text).map(|micros| micros as f64),
            (_, Scalar::Number(_) | Scalar::Bool(_) | Scalar::Place(_)) => None,
        }
    }

    /// Whether it is a time by itself, and not a string that may tell one.
    pub fn is_time(&self) -> bool {
        matches!(self, Self::CreateTime | Self::UpdateTime)
    }

    /// What callers call it.
    pub fn key(&self) -> String {
        let key = match self {
            Self::Id => "id",
            Self::Uri => "uri",
            Self::Filename => "filename",
            Self::Format => "format",
            Self::ContentHash => "content_hash",
            Self::PixelHash => "pixel_hash",
            Self::Width => "width",
            Self::Height => "height",
            Self::ByteSize => "byte_size",
            Self::CreateTime => "create_time",
            Self::UpdateTime => "update_time",
            Self::Lot => "lot",
            Self::Metadata(name) => return format!("{METADATA_PREFIX}{name}"),
        };
        key.to_owned()
    }

    /// The field that a caller means. Whether a name of metadata can be one is checked where
    /// metadata comes in.
    pub fn of_key(key: &str) -> Option<Self> {
        Some(match key {
            "id" => Self::Id,
            "uri" => Self::Uri,
            "filename" => Self::Filename,
            "format" => Self::Format,
            "content_hash" => Self::ContentHash,
            "pixel_hash" => Self::PixelHash,
            "width" => Self::Width,
            "height" => Self::Height,
            "byte_size" => Self::ByteSize,
            "create_time" => Self::CreateTime,
            "update_time" => Self::UpdateTime,
            _ => Self::Metadata(key.strip_prefix(METADATA_PREFIX)?.to_owned()),
        })
    }
}

/// What the keys of the caller's own fields start with.
const METADATA_PREFIX: &str = "metadata.";

impl From<Field> for String {
    fn from(field: Field) -> Self {
        field.key()
    }
}

impl TryFrom<String> for Field {
    type Error = String;

    fn try_from(key: String) -> Result<Self, String> {
        Self::of_key(&key).ok_or_else(|| format!("`{key}` is no field of an item"))
    }
}

// === impl Range ===

impl Range {
    /// Any number at all.
    pub const ALL: Self = Self { gt: None, gte: Some(f64::MIN), lt: None, lte: None };

    /// This number alone.
    pub fn only(number: f64) -> Self {
        Self { gte: Some(number), lte: Some(number), ..Self::default() }
    }

    pub fn holds(&self, number: f64) -> bool {
        self.gt.is_none_or(|bound| number > bound)
            && self.gte.is_none_or(|bound| number >= bound)
            && self.lt.is_none_or(|bound| number < bound)
            && self.lte.is_none_or(|bound| number <= bound)
    }
}

// === impl Circle ===

impl Circle {
    fn holds(&self, scalar: &Scalar) -> bool {
        match scalar {
            Scalar::Place(place) => distance_meters(self.center, *place) < self.radius_meters,
            Scalar::String(_) | Scalar::Number(_) | Scalar::Bool(_) => false,
        }
    }
}

/// Along a sphere, by the haversine formula (R. W. Sinnott, Sky and Telescope 68, 1984).
fn distance_meters(a: Place, b: Place) -> f64 {
    let half_sine = |from: f64, to: f64| ((to - from).to_radians() / 2.0).sin();
    let (lat, lon) = (half_sine(a.lat, b.lat), half_sine(a.lon, b.lon));
    let h = lat * lat + a.lat.to_radians().cos() * b.lat.to_radians().cos() * lon * lon;
    2.0 * EARTH_RADIUS_METERS * h.sqrt().min(1.0).asin()
}

fn number(scalar: &Scalar) -> Option<f64> {
    match scalar {
        Scalar::Number(number) => Some(*number),
        Scalar::String(_) | Scalar::Bool(_) | Scalar::Place(_) => None,
    }
}

/// How letters are compared where their case does not count. Every store uses this one function
/// on both sides of the comparison.
pub(crate) fn fold_case(text: &str) -> String {
    text.to_lowercase()
}
