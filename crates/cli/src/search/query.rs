//! What to look for, from the options to the message: one thing, or a mix of several.

use std::io::Read as _;
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

/// For `--help`.
pub(super) const HELP: &str = "\
Several queries are one search, for what is like all of them:
  clipmesh search --image chair.jpg --text 'red velvet'
  clipmesh search --image a.jpg --image b.jpg --unlike-text 'a drawing'
  Each weighs the same, unless --text-share says how much the words weigh together. What is unlike
  weighs against them, half as much as they do together.";

/// Stands for standard input.
const STDIN: &str = "-";

/// What leads away weighs this much of what leads there, however many there are of either: the mean
/// of the one less a part of the mean of the other, as J. Rocchio has it for relevance feedback
/// (1971). At 1, whatever the two have in common would be lost.
const UNLIKE_WEIGHT: f32 = 0.5;

/// What to look for.
#[derive(Debug, Default, Args)]
#[group(required = true, multiple = true)]
pub(super) struct Query {
    /// Look for pictures like this one; `-` reads it from standard input. May be repeated.
    #[arg(long = "image", short, value_name = "FILE")]
    images: Vec<PathBuf>,

    /// Look for pictures of these words. May be repeated.
    #[arg(long = "text", short, value_name = "WORDS")]
    texts: Vec<String>,

    /// Look for pictures like this item; the first digits of a long id will do. May be repeated.
    #[arg(long = "id", value_name = "ID")]
    ids: Vec<String>,

    /// Look for pictures unlike this one. May be repeated.
    #[arg(long = "unlike-image", value_name = "FILE")]
    unlike_images: Vec<PathBuf>,

    /// Look for pictures of anything but these words. May be repeated.
    #[arg(long = "unlike-text", value_name = "WORDS")]
    unlike_texts: Vec<String>,

    /// Look for pictures unlike this item. May be repeated.
    #[arg(long = "unlike-id", value_name = "ID")]
    unlike_ids: Vec<String>,
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
    Id(&'a str),
}

/// The parts of a query as they were typed, in the order in which they are sent.
#[derive(Debug)]
pub(super) struct Typed(Vec<String>);

// === impl Query ===

impl Query {
    /// The query as it is sent: reads the pictures and completes the ids.
    pub(super) async fn read(
        &self,
        mesh: &Mesh,
        collection: &CollectionName,
        text_share: Option<f32>,
    ) -> Result<(Kind, Typed), Error> {
        let parts = self.parts(text_share)?;
        let typed = Typed(parts.iter().map(Part::typed).collect());
        let mut image_bytes = 0;
        let mut read = Vec::with_capacity(parts.len());
        for part in parts {
            let kind = match part.source {
                Source::Image(path) => {
                    let image = read_image(path).await?;
                    image_bytes += image.len();
                    check_bytes(image_bytes, mesh.max_message_bytes())?;
                    PartKind::Image(image.into())
                }
                Source::Text(text) => PartKind::Text(text.to_owned()),
                Source::Id(id) => PartKind::ItemId(mesh.full_id(collection, id).await?),
            };
            read.push((part.weight, kind));
        }
        Ok((kind(read), typed))
    }

    /// What to look for, before any of it is read.
    fn parts(&self, text_share: Option<f32>) -> Result<Vec<Part<'_>>, Error> {
        let images = self.images.iter().chain(&self.unlike_images);
        if images.filter(|path| *path == Path::new(STDIN)).count() > 1 {
            return Err(Error::Usage("standard input can be only one of the pictures".to_owned()));
        }
        let (pictures, words) = (self.images.len() + self.ids.len(), self.texts.len());
        let each = share(1.0, pictures + words);
        let (picture, word) = match text_share {
            None => (each, each),
            Some(of_words) if pictures > 0 && words > 0 => {
                (share(1.0 - of_words, pictures), share(of_words, words))
            }
            Some(_) => {
                let message = "--text-share weighs --text against --image and --id: it needs both";
                return Err(Error::Usage(message.to_owned()));
            }
        };
        let unlike = self.unlike_images.len() + self.unlike_texts.len() + self.unlike_ids.len();
        let unlike = -share(UNLIKE_WEIGHT, unlike);

        let mut parts = weighted(picture, &self.images, |path| Source::Image(path));
        parts.extend(weighted(word, &self.texts, |text| Source::Text(text)));
        parts.extend(weighted(picture, &self.ids, |id| Source::Id(id)));
        parts.extend(weighted(unlike, &self.unlike_images, |path| Source::Image(path)));
        parts.extend(weighted(unlike, &self.unlike_texts, |text| Source::Text(text)));
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
            Source::Id(id) => format!("--{unlike}id {id}"),
        }
    }
}

// === impl Typed ===

impl Typed {
    /// The same refusal, with a part of the mix named as it was typed.
    pub(super) fn explain(&self, status: Status) -> Status {
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

async fn read_image(path: &Path) -> Result<Vec<u8>, Error> {
    let path = path.to_owned();
    let image = tokio::task::spawn_blocking(move || read(&path)).await;
    image.map_err(|error| Error::Runtime(error.into()))?
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let bytes = if path == Path::new(STDIN) {
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes)
    } else {
        std::fs::read(path)
    };
    bytes.map_err(|source| Error::File { path: path.to_owned(), source })
}

fn check_bytes(actual: usize, max: usize) -> Result<(), Error> {
    if actual < max {
        return Ok(());
    }
    let size = bytesize::ByteSize(actual as u64);
    Err(Error::Usage(format!("{size} of pictures are too long for a message")))
}

/// What words weigh together, if what they are weighed against makes up for 1.
pub(super) fn parse_text_share(text: &str) -> Result<f32, String> {
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

    fn parts(query: &Query, text_share: Option<f32>) -> Vec<(f32, Source<'_>)> {
        let parts = query.parts(text_share).expect("understood");
        parts.into_iter().map(|part| (part.weight, part.source)).collect()
    }

    #[test]
    fn what_is_wanted_weighs_the_same() {
        let query = Query {
            images: vec!["a.jpg".into(), "b.jpg".into()],
            texts: strings(["red"]),
            ids: strings(["42"]),
            ..Query::default()
        };
        let each = [image("a.jpg"), image("b.jpg"), Source::Text("red"), Source::Id("42")];
        assert_eq!(parts(&query, None), each.map(|source| (0.25, source)), "a quarter each");
    }

    #[test]
    fn words_weigh_their_share_together() {
        let query = Query {
            images: vec!["a.jpg".into()],
            texts: strings(["red", "round"]),
            ..Query::default()
        };
        let expected =
            [(0.25, image("a.jpg")), (0.375, Source::Text("red")), (0.375, Source::Text("round"))];
        assert_eq!(parts(&query, Some(0.75)), expected, "three quarters for two of them");

        let words = Query { texts: strings(["red", "round"]), ..Query::default() };
        let error = words.parts(Some(0.75)).expect_err("nothing to weigh them against");
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
        assert_eq!(parts(&query, None), expected, "the half of 1, among four");
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
        assert!(once.parts(None).is_ok(), "one picture");
        let twice = Query { unlike_images: images(), ..once };
        let error = twice.parts(None).expect_err("it has an end");
        assert!(error.to_string().contains("standard input"), "said so: {error}");
    }

    #[test]
    fn a_refused_part_is_named_as_it_was_typed() {
        let query = Query {
            texts: strings(["red"]),
            unlike_images: vec!["notes.txt".into()],
            ..Query::default()
        };
        let parts = query.parts(None).expect("understood");
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
