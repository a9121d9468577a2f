//! An item as the payload of a point in Qdrant's engine.
//!
//! ```text
//! id, uri?, filename?, format?, content_hash?, pixel_hash?, perceptual_hash?,
//! width?, height?, byte_size?    of a picture
//! create_time, update_time       microseconds since 1970
//! etag, lot                      what conditional writes and random samples go by
//! metadata { NAME: value }       the caller's own fields; a place is { lat, lon }
//! folded { .. }                  all strings once more without letter case, for `text`
//! words { .. }                   the different words of all strings, for `words`
//! times { .. }                   strings that are times, in microseconds, for `time_range`
//! numbers { .. }                 all numbers of metadata once more, for bounds and order
//! bits { NAME: integer }         numbers that decimal notation would change
//! ```
//!
//! The engine has its own ideas of words and of times. It is given ours, so that an answer does not
//! depend on the store, nor on whether there is an index.
//!
//! Whole numbers are kept as integers, so that they can be matched. An index of integers knows no
//! other numbers, so bounds and order go by another beside it, which knows all. The engine writes
//! payloads as JSON and reads floats back faster than exactly: some come back one unit in the last
//! place off. So a float is kept in a form that survives, filters are translated to the same form, and the
//! float itself is kept beside it as the integer that has its bits.

use std::str::FromStr;

use clipmesh_proto::ids::{ItemId, PerceptualHash};
use jiff::Timestamp;
use serde_json::{Map, Number, Value as Json, json};

use crate::filter::fold_case;
use crate::item::{self, Item, Metadata, Place, Scalar, Shape, Value};
use crate::store::Error;
use crate::words;

/// Up to here every whole number is a float, and a float a whole number.
const MAX_EXACT_INTEGER: f64 = 9_007_199_254_740_992.0;

/// Rereadings until a float no longer changes; one or two are needed where any are.
const MAX_REREADINGS: usize = 8;

/// Where the caller's fields are.
pub(super) const METADATA: &str = "metadata";
/// Where strings without letter case are.
pub(super) const FOLDED: &str = "folded";
/// Where the words of strings are.
pub(super) const WORDS: &str = "words";
/// Where strings that are times are, as numbers.
pub(super) const TIMES: &str = "times";
/// Where all numbers of metadata are once more.
pub(super) const NUMBERS: &str = "numbers";
/// What conditional writes go by.
pub(super) const ETAG: &str = "etag";
const BITS: &str = "bits";

/// Writes an item down.
pub(super) fn write(item: &Item) -> Map<String, Json> {
    let content_hash = item.content_hash.map(|hash| hash.to_string()).unwrap_or_default();
    let pixel_hash = item.pixel_hash.map(|hash| hash.to_string()).unwrap_or_default();
    let texts = [
        ("id", item.id.as_str()),
        ("uri", &item.uri),
        ("filename", &item.filename),
        ("format", &item.format),
        ("content_hash", &content_hash),
        ("pixel_hash", &pixel_hash),
    ];
    let mut payload = Map::new();
    let mut forms = Forms::default();
    // An empty text is absent, so that `exists` is right.
    for (key, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
        payload.insert(key.to_owned(), json!(text));
        forms.add(key, &Value::One(Scalar::String(text.to_owned())));
    }
    if let Some(hash) = item.perceptual_hash {
        // As text: the engine's numbers have a sign.
        payload.insert("perceptual_hash".to_owned(), json!(format!("{:016x}", u64::from(hash))));
    }
    if item.content_hash.is_some() {
        payload.insert("width".to_owned(), json!(item.width));
        payload.insert("height".to_owned(), json!(item.height));
        payload.insert("byte_size".to_owned(), json!(item.byte_size));
    }
    payload.insert("create_time".to_owned(), json!(item.create_time.as_microsecond()));
    payload.insert("update_time".to_owned(), json!(item.update_time.as_microsecond()));
    payload.insert(ETAG.to_owned(), json!(item.etag().as_str()));
    payload.insert("lot".to_owned(), json!(item::lot(&item.id)));

    let mut metadata = Map::new();
    let mut metadata_forms = Forms::default();
    let mut bits = Map::new();
    for (name, value) in &item.metadata {
        metadata.insert(name.clone(), array(value.map(plain)));
        metadata_forms.add(name, value);
        if value.elements().iter().any(is_changed_by_json) {
            bits.insert(name.clone(), array(value.map(as_bits)));
        }
    }
    payload.insert(METADATA.to_owned(), Json::Object(metadata));
    for ((key, mut own), (_, inner)) in forms.named().into_iter().zip(metadata_forms.named()) {
        if !inner.is_empty() {
            own.insert(METADATA.to_owned(), Json::Object(inner));
        }
        if !own.is_empty() {
            payload.insert(key.to_owned(), Json::Object(own));
        }
    }
    if !bits.is_empty() {
        payload.insert(BITS.to_owned(), Json::Object(bits));
    }
    payload
}

/// Values in the forms that are searched.
#[derive(Debug, Default)]
struct Forms {
    folded: Map<String, Json>,
    words: Map<String, Json>,
    times: Map<String, Json>,
    numbers: Map<String, Json>,
}

impl Forms {
    fn add(&mut self, key: &str, value: &Value) {
        let numbers: Vec<_> = value.elements().iter().filter_map(number).collect();
        if !numbers.is_empty() {
            self.numbers.insert(key.to_owned(), json!(numbers));
        }
        let texts: Vec<_> = value.elements().iter().filter_map(Scalar::as_str).collect();
        if texts.is_empty() {
            return;
        }
        let folded: Vec<_> = texts.iter().map(|text| fold_case(text)).collect();
        self.folded.insert(key.to_owned(), json!(folded));
        let words = words::of_all(texts.iter().copied());
        if !words.is_empty() {
            self.words.insert(key.to_owned(), json!(words));
        }
        let times: Vec<_> = texts.iter().filter_map(|text| item::microseconds(text)).collect();
        if !times.is_empty() {
            self.times.insert(key.to_owned(), json!(times));
        }
    }

    fn named(self) -> [(&'static str, Map<String, Json>); 4] {
        [(FOLDED, self.folded), (WORDS, self.words), (TIMES, self.times), (NUMBERS, self.numbers)]
    }
}

/// Reads back what [`write`] wrote.
///
/// # Errors
/// [`Error::Failed`] when it was written by something else.
pub(super) fn read(payload: &Map<String, Json>) -> Result<Item, Error> {
    let text = |key: &str| payload.get(key).and_then(Json::as_str).unwrap_or_default().to_owned();
    let number = |key: &str| match payload.get(key) {
        Some(number) => number.as_u64().ok_or_else(|| missing(key)),
        // As in an item of a ready vector.
        None => Ok(0),
    };
    let time = |key: &str| {
        let micros = payload.get(key).and_then(Json::as_i64).ok_or_else(|| missing(key))?;
        Timestamp::from_microsecond(micros).map_err(|_| missing(key))
    };
    let pixels = |key: &str| u32::try_from(number(key)?).map_err(|_| missing(key));
    Ok(Item {
        id: ItemId::try_from(text("id")).map_err(|_| missing("id"))?,
        uri: text("uri"),
        filename: text("filename"),
        width: pixels("width")?,
        height: pixels("height")?,
        format: text("format"),
        byte_size: number("byte_size")?,
        content_hash: read_hash(payload, "content_hash")?,
        pixel_hash: read_hash(payload, "pixel_hash")?,
        perceptual_hash: read_perceptual_hash(payload)?,
        create_time: time("create_time")?,
        update_time: time("update_time")?,
        metadata: read_metadata(payload)?,
    })
}

fn read_hash<T: FromStr>(payload: &Map<String, Json>, key: &str) -> Result<Option<T>, Error> {
    let Some(hash) = payload.get(key) else {
        return Ok(None);
    };
    let hash = hash.as_str().and_then(|text| text.parse().ok());
    hash.map(Some).ok_or_else(|| missing(key))
}

fn read_perceptual_hash(payload: &Map<String, Json>) -> Result<Option<PerceptualHash>, Error> {
    let key = "perceptual_hash";
    let Some(hash) = payload.get(key) else {
        return Ok(None);
    };
    let bits = hash.as_str().and_then(|text| u64::from_str_radix(text, 16).ok());
    bits.map(|bits| Some(bits.into())).ok_or_else(|| missing(key))
}

/// The integer that a number is kept as, if it is a whole one.
pub(super) fn integer(number: f64) -> Option<i64> {
    let is_whole = number.fract() == 0.0 && number.abs() <= MAX_EXACT_INTEGER;
    // In range by the test before.
    is_whole.then_some(number as i64)
}

/// The float that a number is kept as, if it is not kept as an integer.
fn number(scalar: &Scalar) -> Option<f64> {
    match scalar {
        Scalar::Number(number) => Some(lasting(*number)),
        Scalar::String(_) | Scalar::Bool(_) | Scalar::Place(_) => None,
    }
}

/// The nearest float that JSON does not change, which most are.
pub(super) fn lasting(number: f64) -> f64 {
    let mut lasting = number;
    for _ in 0..MAX_REREADINGS {
        match reread(lasting) {
            Some(again) if again.to_bits() != lasting.to_bits() => lasting = again,
            Some(_) | None => break,
        }
    }
    lasting
}

fn reread(number: f64) -> Option<f64> {
    let text = serde_json::to_string(&number).ok()?;
    serde_json::from_str(&text).ok()
}

fn is_changed_by_json(scalar: &Scalar) -> bool {
    match scalar {
        Scalar::Number(number) => {
            integer(*number).is_none() && lasting(*number).to_bits() != number.to_bits()
        }
        Scalar::String(_) | Scalar::Bool(_) | Scalar::Place(_) => false,
    }
}

fn plain(scalar: &Scalar) -> Json {
    match scalar {
        Scalar::String(text) => json!(text),
        Scalar::Bool(flag) => json!(flag),
        Scalar::Number(number) => match integer(*number) {
            Some(integer) => json!(integer),
            None => Number::from_f64(lasting(*number)).map_or(Json::Null, Json::Number),
        },
        Scalar::Place(Place { lat, lon }) => json!({ "lat": lasting(*lat), "lon": lasting(*lon) }),
    }
}

fn as_bits(scalar: &Scalar) -> Json {
    match scalar {
        // With a sign: a server knows no other integers.
        Scalar::Number(number) => json!(number.to_bits().cast_signed()),
        Scalar::String(_) | Scalar::Bool(_) | Scalar::Place(_) => Json::Null,
    }
}

fn array(shape: Shape<Json>) -> Json {
    match shape {
        Shape::One(value) => value,
        Shape::Many(values) => Json::Array(values),
    }
}

fn read_metadata(payload: &Map<String, Json>) -> Result<Metadata, Error> {
    let fields =
        payload.get(METADATA).and_then(Json::as_object).ok_or_else(|| missing(METADATA))?;
    let bits = payload.get(BITS).and_then(Json::as_object);
    let mut metadata = Metadata::new();
    for (name, value) in fields {
        let bits = bits.and_then(|bits| bits.get(name));
        let value = match bits {
            Some(bits) => read_value(bits, |bits| {
                let bits = bits.as_i64()?.cast_unsigned();
                Some(Scalar::Number(f64::from_bits(bits)))
            }),
            None => read_value(value, read_plain),
        };
        metadata.insert(name.clone(), value.ok_or_else(|| missing(name))?);
    }
    Ok(metadata)
}

fn read_value(value: &Json, read: impl Fn(&Json) -> Option<Scalar>) -> Option<Value> {
    match value.as_array() {
        Some(elements) => elements.iter().map(read).collect::<Option<_>>().map(Value::Many),
        None => read(value).map(Value::One),
    }
}

fn read_plain(value: &Json) -> Option<Scalar> {
    match value {
        Json::String(text) => Some(Scalar::String(text.clone())),
        Json::Bool(flag) => Some(Scalar::Bool(*flag)),
        Json::Number(number) => number.as_f64().map(Scalar::Number),
        Json::Object(place) => {
            let degrees = |key: &str| place.get(key).and_then(Json::as_f64);
            Some(Scalar::Place(Place { lat: degrees("lat")?, lon: degrees("lon")? }))
        }
        Json::Null | Json::Array(_) => None,
    }
}

fn missing(key: &str) -> Error {
    Error::Failed(format!("a stored item has no usable `{key}`"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::contract::item;

    #[test]
    fn an_item_survives_the_payload_as_json_text() {
        let mut item = item("photos/Été.jpg");
        item.uri = "file:///Été.jpg".to_owned();
        let list = vec![Scalar::Number(0.1), Scalar::Number(-7.0), Scalar::Number(1e300)];
        item.metadata = Metadata::from([
            ("rating".to_owned(), Value::One(Scalar::Number(4.5))),
            ("list".to_owned(), Value::Many(list)),
            ("empty".to_owned(), Value::Many(Vec::new())),
            ("flag".to_owned(), Value::One(Scalar::Bool(false))),
            ("Title".to_owned(), Value::One(Scalar::String("Straße".to_owned()))),
        ]);
        let text = serde_json::to_string(&write(&item)).expect("JSON");
        let payload: Map<String, Json> = serde_json::from_str(&text).expect("an object");
        assert_eq!(read(&payload), Ok(item), "nothing is lost on disk");
    }

    #[test]
    fn floats_come_back_bit_by_bit_however_odd() {
        // Sums of powers with long decimal notations, among which JSON changes some.
        let odd =
            (-2_000..2_000).filter(|i| *i != 0).map(|i| f64::from(i) * 1.1e-7 + 1.0 / f64::from(i));
        let mut changed = 0;
        for number in odd.chain([f64::MAX, f64::MIN_POSITIVE, 5e-324, 9_007_199_254_740_994.0]) {
            changed += usize::from(reread(number).map(f64::to_bits) != Some(number.to_bits()));
            let kept = lasting(number);
            assert_eq!(reread(kept).map(f64::to_bits), Some(kept.to_bits()), "{number:e} lasts");

            let mut item = item("a");
            let value = Value::One(Scalar::Number(number));
            item.metadata = Metadata::from([("n".to_owned(), value)]);
            let text = serde_json::to_string(&write(&item)).expect("JSON");
            let payload = serde_json::from_str(&text).expect("an object");
            assert_eq!(read(&payload), Ok(item), "{number:e} comes back");
        }
        assert!(changed > 0, "the test has numbers that JSON alone would change");
    }

    #[test]
    fn refuses_a_payload_that_is_none_of_ours() {
        assert!(matches!(read(&Map::new()), Err(Error::Failed(_))), "no panic, no made-up item");
    }
}
