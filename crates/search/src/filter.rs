//! Conditions on items, already checked, and what they mean.
//!
//! [`Filter::accepts`] is the meaning; a store that evaluates filters by itself has to agree with
//! it, and the contract suite compares the two.

use serde::Serialize;

use crate::item::{Item, Scalar, Value};

/// Passes items for which every `must` holds, no `must_not` holds and, if there is any `should`,
/// at least one of them holds. The default passes everything.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Filter {
    pub must: Vec<Condition>,
    pub should: Vec<Condition>,
    pub must_not: Vec<Condition>,
}

/// A test of one field.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Condition {
    pub field: Field,
    pub test: Test,
}

/// What can be asked about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Field {
    Id,
    Uri,
    Filename,
    Format,
    ContentHash,
    Width,
    Height,
    ByteSize,
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
}

/// Finite bounds of a number; at least one is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Range {
    pub gt: Option<f64>,
    pub gte: Option<f64>,
    pub lt: Option<f64>,
    pub lte: Option<f64>,
}

// === impl Filter ===

impl Filter {
    pub fn is_empty(&self) -> bool {
        self.must.is_empty() && self.should.is_empty() && self.must_not.is_empty()
    }

    /// Whether an item passes.
    pub fn accepts(&self, item: &Item) -> bool {
        self.must.iter().all(|condition| condition.holds(item))
            && !self.must_not.iter().any(|condition| condition.holds(item))
            && (self.should.is_empty() || self.should.iter().any(|condition| condition.holds(item)))
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
            Test::Range(range) => any(&|scalar| range.holds(scalar)),
            Test::Text(text) => {
                let text = fold_case(text);
                any(&|scalar| scalar.as_str().is_some_and(|own| fold_case(own).contains(&text)))
            }
            Test::Exists(wanted) => *wanted != elements.is_empty(),
        }
    }
}

// === impl Field ===

impl Field {
    fn of(&self, item: &Item) -> Option<Value> {
        let string =
            |text: &str| (!text.is_empty()).then(|| Value::One(Scalar::String(text.to_owned())));
        let number = |number: f64| Some(Value::One(Scalar::Number(number)));
        match self {
            Self::Id => string(item.id.as_str()),
            Self::Uri => string(&item.uri),
            Self::Filename => string(&item.filename),
            Self::Format => string(&item.format),
            Self::ContentHash => string(&item.content_hash.to_string()),
            Self::Width => number(f64::from(item.width)),
            Self::Height => number(f64::from(item.height)),
            Self::ByteSize => number(item.byte_size as f64),
            Self::Metadata(name) => item.metadata.get(name).cloned(),
        }
    }
}

// === impl Range ===

impl Range {
    fn holds(&self, scalar: &Scalar) -> bool {
        let Scalar::Number(number) = scalar else {
            return false;
        };
        self.gt.is_none_or(|bound| *number > bound)
            && self.gte.is_none_or(|bound| *number >= bound)
            && self.lt.is_none_or(|bound| *number < bound)
            && self.lte.is_none_or(|bound| *number <= bound)
    }
}

/// How letters are compared where their case does not count. Every store uses this one function
/// on both sides of the comparison.
pub(crate) fn fold_case(text: &str) -> String {
    text.to_lowercase()
}
