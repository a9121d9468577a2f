//! What to look for, from the options to the message: one thing, or a mix of several.

use std::path::{Path, PathBuf};

use clap::Args;
use clipmesh_proto::code::FieldViolation;
use clipmesh_proto::ids::CollectionName;
use clipmesh_proto::search::v1 as search;
use clipmesh_proto::search::v1::query::Kind;
use clipmesh_proto::search::v1::query_part::Kind as PartKind;
use tonic::Status;

use crate::client::Mesh;
use crate::error::Error;
use crate::input::{self, STDIN};

/// For `--help`.
pub(crate) const HELP: &str = "\
Several queries are one search, for what is like all of them:
  clipmesh search --image chair.jpg --text 'red velvet'
  clipmesh search --image a.jpg --image b.jpg --unlike-text 'a drawing'
  Each weighs the same, unless --text-share says how much the words weigh together. What is unlike
  weighs against them, half as much as they do together.";

/// What leads away weighs this much of what leads there, however many there are of either: the mean
/// of the one less a part of the mean of the other, as J. Rocchio has it for relevance feedback
/// (1971). At 1, whatever the two have in common would be lost.
const UNLIKE_WEIGHT: f32 = 0.5;

/// The options that are a query.
pub(crate) const OPTIONS: [&str; 8] = [
    "images",
    "texts",
    "vectors",
    "ids",
    "unlike_images",
    "unlike_texts",
    "unlike_vectors",
    "unlike_ids",
];

/// What to look for.
#[derive(Debug, Default, Args)]
#[group(skip)]
pub(crate) struct Query {
    /// Look for pictures like this one; `-` reads it from standard input. May be repeated.
    #[arg(long = "image", short, value_name = "FILE")]
    images: Vec<PathBuf>,

    /// Look for pictures of these words. May be repeated.
    #[arg(long = "text", short, value_name = "WORDS")]
    texts: Vec<String>,

    /// Look for pictures near this vector of the model: a JSON list of numbers, or an object that
    /// has it as `vector`, as `items get --vector --json` prints it. `-` reads it from standard
    /// input; what starts with a bracket is the vector itself. May be repeated.
    #[arg(long = "vector", value_name = "FILE")]
    vectors: Vec<PathBuf>,

    /// Look for pictures like this item; the first digits of a long id will do. May be repeated.
    #[arg(long = "id", visible_alias = "item", value_name = "ID")]
    ids: Vec<String>,

    /// Look for pictures unlike this one. May be repeated.
    #[arg(long = "unlike-image", value_name = "FILE")]
    unlike_images: Vec<PathBuf>,

    /// Look for pictures of anything but these words. May be repeated.
    #[arg(long = "unlike-text", value_name = "WORDS")]
    unlike_texts: Vec<String>,

    /// Look for pictures far from this vector. May be repeated.
    #[arg(long = "unlike-vector", value_name = "FILE")]
    unlike_vectors: Vec<PathBuf>,

    /// Look for pictures unlike this item. May be repeated.
    #[arg(long = "unlike-id", visible_alias = "unlike-item", value_name = "ID")]
    unlike_ids: Vec<String>,

    /// What --text weighs of a mix with --image, --vector or --id, from 0.01 to 0.99; by default,
    /// every query weighs the same.
    #[arg(long, value_name = "SHARE", value_parser = parse_text_share)]
    text_share: Option<f32>,
}

/// One of the options, and how much it counts.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Part<'a> {
    weight: f32,
    source: Source<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Source<'a> {
    Image(&'a Path),
    Text(&'a str),
    Vector(&'a Path),
    Id(&'a str),
}

/// The parts of a query as they were typed, in the order in which they are sent.
#[derive(Debug, Default)]
pub(crate) struct Typed(Vec<String>);

// === impl Query ===

impl Query {
    /// The query as it is sent: reads the files and completes the ids. `None` if there is none.
    pub(crate) async fn read(
        &self,
        mesh: &Mesh,
        collection: &CollectionName,
    ) -> Result<(Option<search::Query>, Typed), Error> {
        let parts = self.parts()?;
        if parts.is_empty() {
            return Ok((None, Typed::default()));
        }
        let typed = Typed(parts.iter().map(Part::typed).collect());
        let mut image_bytes = 0;
        let mut read = Vec::with_capacity(parts.len());
        for part in parts {
            let kind = match part.source {
                Source::Image(path) => {
                    let image = input::bytes(path).await?;
                    image_bytes += image.len();
                    check_bytes(image_bytes, mesh.max_message_bytes())?;
                    PartKind::Image(image.into())
                }
                Source::Text(text) => PartKind::Text(text.to_owned()),
                Source::Vector(path) => PartKind::Vector(input::vector(path).await?),
                Source::Id(id) => PartKind::ItemId(mesh.full_id(collection, id).await?),
            };
            read.push((part.weight, kind));
        }
        Ok((Some(search::Query { kind: Some(kind(read)) }), typed))
    }

    /// What to look for, before any of it is read.
    fn parts(&self) -> Result<Vec<Part<'_>>, Error> {
        let images = self.images.iter().chain(&self.unlike_images);
        let files = images.chain(&self.vectors).chain(&self.unlike_vectors);
        if files.filter(|path| *path == Path::new(STDIN)).count() > 1 {
            return Err(Error::Usage("standard input can be only one of the files".to_owned()));
        }
        let examples = self.images.len() + self.vectors.len() + self.ids.len();
        let words = self.texts.len();
        let each = share(1.0, examples + words);
        let (example, word) = match self.text_share {
            None => (each, each),
            Some(of_words) if examples > 0 && words > 0 => {
                (share(1.0 - of_words, examples), share(of_words, words))
            }
            Some(_) => {
                let message = "--text-share weighs --text against examples: it needs both";
                return Err(Error::Usage(message.to_owned()));
            }
        };
        let unlike = self.unlike_images.len() + self.unlike_vectors.len();
        let unlike = unlike + self.unlike_texts.len() + self.unlike_ids.len();
        let unlike = -share(UNLIKE_WEIGHT, unlike);

        let mut parts = weighted(example, &self.images, |path| Source::Image(path));
        parts.extend(weighted(word, &self.texts, |text| Source::Text(text)));
        parts.extend(weighted(example, &self.vectors, |path| Source::Vector(path)));
        parts.extend(weighted(example, &self.ids, |id| Source::Id(id)));
        parts.extend(weighted(unlike, &self.unlike_images, |path| Source::Image(path)));
        parts.extend(weighted(unlike, &self.unlike_texts, |text| Source::Text(text)));
        parts.extend(weighted(unlike, &self.unlike_vectors, |path| Source::Vector(path)));
        parts.extend(weighted(unlike, &self.unlike_ids, |id| Source::Id(id)));
        Ok(parts)
    }
}

fn share(of: f32, count: usize) -> f32 {
    of / count.max(1) as f32
}

fn weighted<'a, T>(
    weight: f32,
    values: &'a [T],
    source: impl Fn(&'a T) -> Source<'a>,
) -> Vec<Part<'a>> {
    values.iter().map(|value| Part { weight, source: source(value) }).collect()
}

// === impl Part ===

impl Part<'_> {
    /// The option that it comes from.
    fn typed(&self) -> String {
        let unlike = if self.weight < 0.0 { "unlike-" } else { "" };
        match self.source {
            Source::Image(path) => format!("--{unlike}image {}", path.display()),
            Source::Text(text) => format!("--{unlike}text {text:?}"),
            Source::Vector(path) => format!("--{unlike}vector {}", path.display()),
            Source::Id(id) => format!("--{unlike}id {id}"),
        }
    }
}

// === impl Typed ===

impl Typed {
    /// The same refusal, with a part of the mix named as it was typed.
    pub(crate) fn explain(&self, status: Status) -> Status {
        let violation = FieldViolation::from_status(&status);
        let typed = violation.as_ref().and_then(|violation| {
            let (index, _) = violation.field.strip_prefix("query.mix.parts[")?.split_once(']')?;
            self.0.get(index.parse::<usize>().ok()?)
        });
        match (violation, typed) {
            (Some(violation), Some(typed)) => violation.renamed(typed).into_status(),
            (_, _) => status,
        }
    }
}

/// One thing alone, or else a mix.
fn kind(mut parts: Vec<(f32, PartKind)>) -> Kind {
    if let [(weight, _)] = parts.as_slice()
        && *weight > 0.0
        && let Some((_, alone)) = parts.pop()
    {
        return match alone {
            PartKind::Image(image) => Kind::Image(image),
            PartKind::Text(text) => Kind::Text(text),
            PartKind::Vector(vector) => Kind::Vector(vector),
            PartKind::ItemId(id) => Kind::ItemId(id),
        };
    }
    let parts = parts.into_iter();
    let parts =
        parts.map(|(weight, kind)| search::QueryPart { weight: Some(weight), kind: Some(kind) });
    Kind::Mix(search::MixQuery { parts: parts.collect() })
}

fn check_bytes(actual: usize, max: usize) -> Result<(), Error> {
    if actual < max {
        return Ok(());
    }
    let size = bytesize::ByteSize(actual as u64);
    Err(Error::Usage(format!("{size} of pictures are too long for a message")))
}

/// What words weigh together, if what they are weighed against makes up for 1.
fn parse_text_share(text: &str) -> Result<f32, String> {
    let share = text.parse::<f32>().ok().filter(|share| (0.01..=0.99).contains(share));
    share.ok_or_else(|| "a share is a number from 0.01 to 0.99".to_owned())
}

#[cfg(test)]
mod tests {
    use clipmesh_proto::code::Reason;

    use super::*;

    fn strings<const N: usize>(texts: [&str; N]) -> Vec<String> {
        texts.map(str::to_owned).into()
    }

    fn image(path: &str) -> Source<'_> {
        Source::Image(Path::new(path))
    }

    fn parts(query: &Query) -> Vec<(f32, Source<'_>)> {
        let parts = query.parts().expect("understood");
        parts.into_iter().map(|part| (part.weight, part.source)).collect()
    }

    #[test]
    fn what_is_wanted_weighs_the_same() {
        let query = Query {
            images: vec!["a.jpg".into(), "b.jpg".into()],
            texts: strings(["red"]),
            vectors: vec!["v.json".into()],
            ids: strings(["42"]),
            ..Query::default()
        };
        let vector = Source::Vector(Path::new("v.json"));
        let each = [image("a.jpg"), image("b.jpg"), Source::Text("red"), vector, Source::Id("42")];
        assert_eq!(parts(&query), each.map(|source| (0.2, source)), "a fifth each");
    }

    #[test]
    fn words_weigh_their_share_together() {
        let query = Query {
            images: vec!["a.jpg".into()],
            texts: strings(["red", "round"]),
            text_share: Some(0.75),
            ..Query::default()
        };
        let expected =
            [(0.25, image("a.jpg")), (0.375, Source::Text("red")), (0.375, Source::Text("round"))];
        assert_eq!(parts(&query), expected, "three quarters for two of them");

        let words = Query { images: Vec::new(), ..query };
        let error = words.parts().expect_err("nothing to weigh them against");
        assert!(error.to_string().contains("--text-share"), "said so: {error}");
        for bad in ["0", "1", "0.995", "-0.5", "nan", "half"] {
            assert!(parse_text_share(bad).is_err(), "{bad} leaves nothing of one of them");
        }
        assert_eq!(parse_text_share("0.7"), Ok(0.7), "a share");
    }

    #[test]
    fn what_is_unlike_weighs_half_of_it_against() {
        let query = Query {
            images: vec!["a.jpg".into()],
            unlike_images: vec!["b.jpg".into()],
            unlike_texts: strings(["green"]),
            unlike_ids: strings(["1", "2"]),
            ..Query::default()
        };
        let unlike = [image("b.jpg"), Source::Text("green"), Source::Id("1"), Source::Id("2")];
        let unlike = unlike.map(|source| (-0.125, source));
        let expected = [vec![(1.0, image("a.jpg"))], unlike.into()].concat();
        assert_eq!(parts(&query), expected, "the half of 1, among four");
    }

    #[test]
    fn one_thing_alone_is_no_mix() {
        let dog = || PartKind::Text("dog".to_owned());
        assert_eq!(kind(vec![(1.0, dog())]), Kind::Text("dog".to_owned()), "words alone");
        let part = |weight| search::QueryPart { weight: Some(weight), kind: Some(dog()) };
        let mix = |parts| Kind::Mix(search::MixQuery { parts });
        assert_eq!(kind(vec![(-0.5, dog())]), mix(vec![part(-0.5)]), "away from something");
        let two = mix(vec![part(1.0), part(-0.5)]);
        assert_eq!(kind(vec![(1.0, dog()), (-0.5, dog())]), two, "towards and away");
    }

    #[test]
    fn standard_input_is_read_once() {
        let images = || vec![STDIN.into()];
        let once = Query { images: images(), ..Query::default() };
        assert!(once.parts().is_ok(), "one picture");
        let twice = Query { unlike_images: images(), ..once };
        let error = twice.parts().expect_err("it has an end");
        assert!(error.to_string().contains("standard input"), "said so: {error}");
    }

    #[test]
    fn a_refused_part_is_named_as_it_was_typed() {
        let query = Query {
            texts: strings(["red"]),
            unlike_images: vec!["notes.txt".into()],
            ..Query::default()
        };
        let parts = query.parts().expect("understood");
        let typed = Typed(parts.iter().map(Part::typed).collect());
        let explained = |field: &str| {
            let violation = FieldViolation::new(field, Reason::NotAnImage, "is no image");
            typed.explain(violation.into_status()).message().to_owned()
        };
        let image = explained("query.mix.parts[1].image");
        assert_eq!(image, "--unlike-image notes.txt: is no image", "the second part");
        assert_eq!(explained("query.mix.parts[0].text"), "--text \"red\": is no image", "quoted");
        assert_eq!(explained("query.mix"), "query.mix: is no image", "all of them");
        assert_eq!(explained("query.mix.parts[7]"), "query.mix.parts[7]: is no image", "none");
    }

    #[test]
    fn pictures_together_fit_into_a_message() {
        assert!(check_bytes(99, 100).is_ok(), "they do");
        assert!(check_bytes(100, 100).is_err(), "something else is in the message, too");
    }
}
