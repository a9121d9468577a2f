//! The same answers as the reference implementation, on the same weights and the same bytes.
//!
//! The golden files, how they were made and what the tolerances see is described in
//! `tests/golden/README.md`.
#![cfg(feature = "torch")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clipmesh_embedder::Limits;
use clipmesh_embedder::backend::{self, Backend, Batch, Device, DtypeChoice, Options};
use clipmesh_embedder::model::{Model, Tokens};
use clipmesh_embedder::preprocess::{Picture, Preprocessor};
use safetensors::SafeTensors;
use serde_json::Value;

/// Share of the levels of all pictures that may differ by more than one.
const STRAY_LEVELS: f64 = 0.001;

/// Lowest cosine to the reference's vectors.
const SAME: f64 = 0.9999;

/// Lowest cosine between the vectors of one input in different batches.
const SAME_IN_ANY_BATCH: f64 = 0.999_999;

/// All golden files.
struct Golden {
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
    fn read() -> Self {
        let json = |name: &str| -> Value {
            let text = fs::read_to_string(folder().join(name)).expect("a golden file");
            serde_json::from_str(&text).expect("JSON")
        };
        let texts = json("texts.json");
        let texts = texts.as_array().expect("a list").iter().map(|entry| text(&entry["text"]));
        Self {
            index: json("index.json"),
            texts: texts.collect(),
            answers: fs::read(folder().join("golden.safetensors")).expect("a golden file"),
        }
    }

    fn subjects(&self) -> impl Iterator<Item = Subject> {
        self.index["models"].as_array().expect("a list").iter().map(|golden| {
            let model = Model::open(&folder().join(text(&golden["folder"]))).expect("a model");
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

    fn tokens(&self, golden: &Golden) -> Vec<Tokens> {
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
    let golden = Golden::read();
    for subject in golden.subjects() {
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
    }
}

#[test]
fn sizes_are_those_of_the_upright_picture() {
    let golden = Golden::read();
    let subject = golden.subjects().next().expect("a model");
    for image in golden.images() {
        let info = subject.picture(&image).info;
        let expected = (image["width"].as_u64(), image["height"].as_u64());
        assert_eq!((Some(info.width.into()), Some(info.height.into())), expected, "{image}");
    }
}

#[test]
fn tokens_are_those_of_the_reference_s_tokenizer() {
    let golden = Golden::read();
    for subject in golden.subjects() {
        let (shape, ids) = golden.integers(&subject.golden["token_ids"]);
        let (_, counts) = golden.integers(&subject.golden["token_counts"]);
        assert_eq!(shape, [golden.texts.len(), subject.model.context_length()], "rows");
        for (row, tokens) in subject.tokens(&golden).into_iter().enumerate() {
            let (text, name) = (&golden.texts[row], subject.name());
            assert_eq!(tokens.ids.len() as i64, counts[row], "count for {name}: {text:?}");
            let padding = std::iter::repeat(subject.padding_id());
            let padded = tokens.ids.iter().copied().chain(padding).take(shape[1]);
            let padded: Vec<i64> = padded.map(i64::from).collect();
            assert_eq!(padded, ids[row * shape[1]..][..shape[1]], "{name}: {text:?}");
        }
    }
}

#[test]
fn picture_vectors_are_those_of_the_reference() {
    let golden = Golden::read();
    let images = golden.images();
    for mut subject in golden.subjects() {
        let pictures = images.iter().map(|image| subject.picture(image).levels).collect();
        let vectors = subject.embed(Batch::Pictures(pictures));
        let expected = golden.vectors(&subject.golden["image_vectors"]);
        assert_eq!(vectors.len(), expected.len(), "a vector per picture");
        for ((vector, expected), image) in vectors.iter().zip(&expected).zip(&images) {
            let cosine = cosine(vector, expected);
            assert!(cosine >= SAME, "{}: cosine {cosine} for {image}", subject.name());
        }
    }
}

#[test]
fn text_vectors_are_those_of_the_reference() {
    let golden = Golden::read();
    for mut subject in golden.subjects() {
        let tokens = subject.tokens(&golden);
        let vectors = subject.embed(Batch::Texts(tokens));
        let expected = golden.vectors(&subject.golden["text_vectors"]);
        assert_eq!(vectors.len(), expected.len(), "a vector per text");
        for ((vector, expected), text) in vectors.iter().zip(&expected).zip(&golden.texts) {
            let cosine = cosine(vector, expected);
            assert!(cosine >= SAME, "{}: cosine {cosine} for {text:?}", subject.name());
        }
    }
}

#[test]
fn a_vector_does_not_depend_on_the_batch() {
    let golden = Golden::read();
    for mut subject in golden.subjects() {
        let tokens = subject.tokens(&golden);
        let together = subject.embed(Batch::Texts(tokens.clone()));
        for (tokens, vector) in tokens.into_iter().zip(together) {
            let alone = subject.embed(Batch::Texts(vec![tokens.clone()])).remove(0);
            let cosine = cosine(&alone, &vector);
            assert!(cosine >= SAME_IN_ANY_BATCH, "cosine {cosine} for {:?}", tokens.ids);
        }
        let pictures: Vec<_> =
            golden.images().iter().map(|image| subject.picture(image).levels).collect();
        let together = subject.embed(Batch::Pictures(pictures.clone()));
        for (levels, vector) in pictures.into_iter().zip(together) {
            let alone = subject.embed(Batch::Pictures(vec![levels])).remove(0);
            let cosine = cosine(&alone, &vector);
            assert!(cosine >= SAME_IN_ANY_BATCH, "cosine {cosine}");
        }
    }
}

#[test]
fn bad_files_are_refused_for_what_they_are() {
    let golden = Golden::read();
    let subject = golden.subjects().next().expect("a model");
    for bad in golden.index["bad_images"].as_array().expect("a list") {
        let bytes = fs::read(folder().join("bad-images").join(text(&bad["file"]))).expect("a file");
        let fault = subject.preprocessor.picture(&bytes).expect_err("a bad file");
        // `not an image` is NOT_AN_IMAGE.
        let expected = text(&bad["fault"]).to_uppercase().replace(' ', "_");
        assert_eq!(fault.reason().as_str(), expected, "{bad}: {fault}");
    }
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
