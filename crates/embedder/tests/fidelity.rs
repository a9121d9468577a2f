//! The same answers as the reference implementation, on the same weights and the same bytes.
//!
//! The golden files, how they were made and what the tolerances see is described in
//! `tests/golden/README.md`. Each test runs on CLIP and on the families beside it.
#![cfg(feature = "torch")]

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clipmesh_embedder::Limits;
use clipmesh_embedder::backend::{self, Backend, Batch, Device, DtypeChoice, Options};
use clipmesh_embedder::model::{Model, Tokens};
use clipmesh_embedder::preprocess::{Picture, Preprocessor};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use safetensors::SafeTensors;
use serde_json::Value;

/// Share of the levels of all pictures that may differ by more than one.
const STRAY_LEVELS: f64 = 0.001;

/// Lowest cosine to the reference's vectors.
const SAME: f64 = 0.9999;

/// Largest difference between the values of one input's vectors in different batches.
const SAME_IN_ANY_BATCH: f32 = 1e-4;

/// The highest difference between values of two vectors of length 1 that were computed from the
/// same numbers.
const ROUNDING: f32 = 1e-5;

/// The golden files of one folder.
struct Golden {
    folder: PathBuf,
    index: Value,
    texts: Vec<String>,
    answers: Vec<u8>,
}

/// One of the golden models, loaded.
struct Subject {
    golden: Value,
    model: Arc<Model>,
    backend: Box<dyn Backend>,
    preprocessor: Preprocessor,
}

impl Golden {
    fn clip() -> Self {
        Self::read(folder())
    }

    fn all() -> [Self; 2] {
        [Self::clip(), Self::read(folder().join("families"))]
    }

    fn read(folder: PathBuf) -> Self {
        let json = |name: &str| -> Value {
            let text = fs::read_to_string(folder.join(name)).expect("a golden file");
            serde_json::from_str(&text).expect("JSON")
        };
        let texts = json("texts.json");
        let texts = texts.as_array().expect("a list").iter().map(|entry| text(&entry["text"]));
        Self {
            index: json("index.json"),
            texts: texts.collect(),
            answers: fs::read(folder.join("golden.safetensors")).expect("a golden file"),
            folder,
        }
    }

    fn subjects(&self) -> impl Iterator<Item = Subject> {
        self.index["models"].as_array().expect("a list").iter().map(|golden| {
            let model = Model::open(&self.folder.join(text(&golden["folder"]))).expect("a model");
            let model = Arc::new(model);
            let options = Options {
                device: Device::Cpu,
                dtype: DtypeChoice::F32,
                compute_threads: 1,
                max_batch: 8,
            };
            let backend = backend::load(&model, &options).expect("libtorch takes it");
            let preprocessor = Preprocessor::new(model.preprocessing.clone(), Limits::default());
            Subject { golden: golden.clone(), model, backend, preprocessor }
        })
    }

    fn images(&self) -> Vec<Value> {
        self.index["images"].as_array().expect("a list").clone()
    }

    fn bytes(&self, tensor: &Value) -> (Vec<usize>, Vec<u8>) {
        let answers = SafeTensors::deserialize(&self.answers).expect("a safetensors file");
        let view = answers.tensor(&text(tensor)).expect("a tensor of the index");
        (view.shape().to_vec(), view.data().to_vec())
    }

    fn vectors(&self, tensor: &Value) -> Vec<Vec<f32>> {
        let (shape, bytes) = self.bytes(tensor);
        let values: Vec<f32> = words(&bytes).map(f32::from_le_bytes).collect();
        values.chunks(shape[1]).map(<[f32]>::to_vec).collect()
    }

    fn integers(&self, tensor: &Value) -> (Vec<usize>, Vec<i64>) {
        let (shape, bytes) = self.bytes(tensor);
        (shape, words(&bytes).map(i64::from_le_bytes).collect())
    }
}

impl Subject {
    fn name(&self) -> String {
        text(&self.golden["folder"])
    }

    fn picture(&self, image: &Value) -> Picture {
        let bytes =
            fs::read(folder().join("images").join(text(&image["file"]))).expect("a picture");
        self.preprocessor.picture(&bytes).unwrap_or_else(|fault| panic!("{image}: {fault}"))
    }

    /// Those of all texts; none for a model that takes pictures only.
    fn tokens(&self, golden: &Golden) -> Vec<Tokens> {
        if !self.model.takes_texts() {
            return Vec::new();
        }
        let encode = |text: &String| self.model.encode(text).expect("tokens");
        golden.texts.iter().map(encode).collect()
    }

    fn padding_id(&self) -> u32 {
        self.model.tokenizer.as_ref().expect("it reads texts").padding_id()
    }

    fn embed(&mut self, batch: Batch) -> Vec<Vec<f32>> {
        self.backend.embed(&batch).expect("a forward pass")
    }
}

#[test]
fn levels_are_those_of_the_reference_s_processor() {
    for_each(|golden, subject| {
        // Levels in all, and those that differ by more than one.
        let (mut levels, mut stray) = (0, 0);
        for image in golden.images() {
            let file = text(&image["file"]);
            let picture = subject.picture(&image);
            let (shape, expected) = golden.bytes(&subject.golden["pixels"][&file]);
            assert_eq!(picture.levels.len(), shape.iter().product::<usize>(), "size of {file}");
            let distances = picture.levels.iter().zip(&expected).map(|(a, b)| a.abs_diff(*b));
            let strayed = distances.filter(|&distance| distance > 1).count();
            let is_lossless = !file.ends_with(".jpg") && file != "landscape.webp";
            assert!(
                !is_lossless || strayed == 0,
                "{strayed} levels of {file}, which loses nothing"
            );
            levels += expected.len();
            stray += strayed;
        }
        println!("{}: {stray} of {levels} levels are off by more than one", subject.name());
        let share = stray as f64 / levels as f64;
        assert!(share <= STRAY_LEVELS, "{}: {stray} of {levels} levels are off", subject.name());
    });
}

#[test]
fn sizes_are_those_of_the_upright_picture() {
    let golden = Golden::clip();
    let subject = golden.subjects().next().expect("a model");
    for image in golden.images() {
        let info = subject.picture(&image).info;
        let expected = (image["width"].as_u64(), image["height"].as_u64());
        assert_eq!((Some(info.width.into()), Some(info.height.into())), expected, "{image}");
    }
}

#[test]
fn tokens_are_those_of_the_reference_s_tokenizer() {
    for_each(|golden, subject| {
        if !subject.model.takes_texts() {
            return;
        }
        let (shape, ids) = golden.integers(&subject.golden["token_ids"]);
        let (_, counts) = golden.integers(&subject.golden["token_counts"]);
        assert_eq!(shape, [golden.texts.len(), subject.model.context_length()], "rows");
        for (row, tokens) in subject.tokens(golden).into_iter().enumerate() {
            let (text, name) = (&golden.texts[row], subject.name());
            assert_eq!(tokens.ids.len() as i64, counts[row], "count for {name}: {text:?}");
            let padding = std::iter::repeat(subject.padding_id());
            let padded = tokens.ids.iter().copied().chain(padding).take(shape[1]);
            let padded: Vec<i64> = padded.map(i64::from).collect();
            assert_eq!(padded, ids[row * shape[1]..][..shape[1]], "{name}: {text:?}");
        }
    });
}

#[test]
fn picture_vectors_are_those_of_the_reference() {
    for_each(|golden, mut subject| {
        let images = golden.images();
        let pictures = images.iter().map(|image| subject.picture(image).levels).collect();
        let vectors = subject.embed(Batch::Pictures(pictures));
        let expected = golden.vectors(&subject.golden["image_vectors"]);
        let closeness = compare(&vectors, &expected);
        println!("{}, pictures: {closeness:?}", subject.name());
        assert!(closeness.cosine >= SAME, "{}: {closeness:?}", subject.name());
    });
}

#[test]
fn the_reference_s_own_levels_give_its_own_vectors() {
    for_each(|golden, mut subject| {
        let levels =
            |image: &Value| golden.bytes(&subject.golden["pixels"][&text(&image["file"])]).1;
        let pictures = golden.images().iter().map(levels).collect();
        let vectors = subject.embed(Batch::Pictures(pictures));
        let expected = golden.vectors(&subject.golden["image_vectors"]);
        let closeness = compare(&vectors, &expected);
        println!("{}, the reference's levels: {closeness:?}", subject.name());
        assert!(closeness.difference <= ROUNDING, "{}: {closeness:?}", subject.name());
    });
}

#[test]
fn text_vectors_are_those_of_the_reference() {
    for_each(|golden, mut subject| {
        let tokens = subject.tokens(golden);
        if tokens.is_empty() {
            return;
        }
        let vectors = subject.embed(Batch::Texts(tokens));
        let expected = golden.vectors(&subject.golden["text_vectors"]);
        let closeness = compare(&vectors, &expected);
        println!("{}, texts: {closeness:?}", subject.name());
        assert!(closeness.cosine >= SAME, "{}: {closeness:?}", subject.name());
        assert!(closeness.difference <= ROUNDING, "{}: {closeness:?}", subject.name());
    });
}

#[test]
fn a_vector_does_not_depend_on_the_batch() {
    for_each(|golden, mut subject| {
        let tokens = subject.tokens(golden);
        let texts = tokens.into_iter().map(|tokens| Batch::Texts(vec![tokens]));
        any_batch_gives_the_same(&mut subject, &texts.collect::<Vec<_>>());
        let images = golden.images();
        let pictures = images.iter().map(|image| subject.picture(image).levels);
        let pictures: Vec<_> = pictures.map(|levels| Batch::Pictures(vec![levels])).collect();
        any_batch_gives_the_same(&mut subject, &pictures);
    });
}

/// Compares each input alone with itself in any company, in any order, and more than once.
fn any_batch_gives_the_same(subject: &mut Subject, inputs: &[Batch]) {
    if inputs.is_empty() {
        return;
    }
    let alone: Vec<_> = inputs.iter().map(|input| subject.embed(input.clone()).remove(0)).collect();
    let subject = RefCell::new(subject);
    let picks = proptest::collection::vec(0..inputs.len(), 1..10);
    let mut runner = TestRunner::new(ProptestConfig::with_cases(24));
    let same = runner.run(&picks, |picks| {
        let together = subject.borrow_mut().embed(joined(picks.iter().map(|&pick| &inputs[pick])));
        for (&pick, vector) in picks.iter().zip(&together) {
            let distances = alone[pick].iter().zip(vector).map(|(a, b)| (a - b).abs());
            let farthest = distances.fold(0.0, f32::max);
            prop_assert!(farthest <= SAME_IN_ANY_BATCH, "input {pick} is off by {farthest}");
        }
        Ok(())
    });
    assert!(same.is_ok(), "{}: {same:?}", subject.borrow().name());
}

/// Batches of one kind as one.
fn joined<'a>(batches: impl Iterator<Item = &'a Batch>) -> Batch {
    let (mut pictures, mut texts) = (Vec::new(), Vec::new());
    for batch in batches {
        match batch {
            Batch::Pictures(more) => pictures.extend_from_slice(more),
            Batch::Texts(more) => texts.extend_from_slice(more),
        }
    }
    if texts.is_empty() { Batch::Pictures(pictures) } else { Batch::Texts(texts) }
}

#[test]
fn bad_files_are_refused_for_what_they_are() {
    let golden = Golden::clip();
    let subject = golden.subjects().next().expect("a model");
    for bad in golden.index["bad_images"].as_array().expect("a list") {
        let bytes = fs::read(folder().join("bad-images").join(text(&bad["file"]))).expect("a file");
        let fault = subject.preprocessor.picture(&bytes).expect_err("a bad file");
        // `not an image` is NOT_AN_IMAGE.
        let expected = text(&bad["fault"]).to_uppercase().replace(' ', "_");
        assert_eq!(fault.reason().as_str(), expected, "{bad}: {fault}");
    }
}

/// Runs a test on every golden model.
fn for_each(test: impl Fn(&Golden, Subject)) {
    for golden in Golden::all() {
        golden.subjects().for_each(|subject| test(&golden, subject));
    }
}

/// How close all rows come to the reference's.
#[derive(Debug)]
struct Closeness {
    /// The lowest one.
    cosine: f64,
    /// The highest one between two values.
    difference: f32,
}

/// Compares vectors with the reference's, row by row.
fn compare(vectors: &[Vec<f32>], expected: &[Vec<f32>]) -> Closeness {
    assert_eq!(vectors.len(), expected.len(), "a vector per input");
    let mut worst = Closeness { cosine: 1.0, difference: 0.0 };
    for (vector, expected) in vectors.iter().zip(expected) {
        let differences = vector.iter().zip(expected).map(|(a, b)| (a - b).abs());
        worst.cosine = worst.cosine.min(cosine(vector, expected));
        worst.difference = differences.fold(worst.difference, f32::max);
    }
    worst
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

fn words<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    bytes.chunks_exact(N).map(|word| word.try_into().expect("of this length"))
}

fn cosine(left: &[f32], right: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
    };
    dot(left, right) / (dot(left, left) * dot(right, right)).sqrt()
}
