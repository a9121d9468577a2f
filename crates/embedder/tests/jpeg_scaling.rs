//! What shrinking a JPEG while it is decoded does to its vector: next to nothing, or the setting
//! could not be offered.
#![cfg(feature = "torch")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clipmesh_embedder::Limits;
use clipmesh_embedder::backend::{self, Backend, Batch, Device, DtypeChoice, Options};
use clipmesh_embedder::model::Model;
use clipmesh_embedder::preprocess::{Facts, Picture, Preprocessor, Wanted};
use image::RgbImage;

use crate::photo::Photo;

#[path = "common/photo.rs"]
mod photo;

/// Lowest cosine to the vector of the whole picture.
const SAME: f64 = 0.999;

/// Pictures of the gallery in one mosaic.
const COLUMNS: u32 = 6;
const ROWS: u32 = 5;

/// A model, and both ways into it.
struct Subject {
    backend: Box<dyn Backend>,
    exact: Preprocessor,
    scaling: Preprocessor,
}

impl Subject {
    fn open(folder: &Path) -> Self {
        let model = Arc::new(Model::open(folder).expect("a model"));
        let options = Options {
            device: Device::Cpu,
            dtype: DtypeChoice::F32,
            compute_threads: 1,
            max_batch: 2,
        };
        let backend = backend::load(&model, &options).expect("libtorch takes it");
        let exact = model.preprocessing.clone();
        let mut scaling = exact.clone();
        scaling.jpeg_scaling = true;
        let [exact, scaling] = [exact, scaling].map(|it| Preprocessor::new(it, Limits::default()));
        Self { backend, exact, scaling }
    }

    /// Cosine between the vectors of a picture read in both ways.
    fn cosine(&mut self, bytes: &[u8]) -> f64 {
        let levels =
            [&self.exact, &self.scaling].map(|way| way.picture(bytes).expect("a picture").levels);
        let vectors = self.backend.embed(&Batch::Pictures(levels.to_vec())).expect("vectors");
        cosine(&vectors[0], &vectors[1])
    }
}

/// JPEGs that are large enough to be shrunk, by name.
fn jpegs() -> Vec<(String, Vec<u8>)> {
    let mut jpegs = Vec::new();
    for (width, height) in [(500, 375), (1600, 1200), (1201, 1799), (3001, 2003)] {
        for seed in 0..4 {
            let photo = Photo::new(width, height, seed);
            jpegs.push((format!("photo {seed} of {width} x {height}"), photo.jpeg(88)));
        }
    }
    let mut files: Vec<PathBuf> = fs::read_dir(root().join("examples/images/gallery"))
        .expect("the gallery")
        .map(|entry| entry.expect("a file").path())
        .filter(|file| file.extension().is_some_and(|extension| extension == "webp"))
        .collect();
    files.sort();
    for (index, files) in files.chunks_exact((COLUMNS * ROWS) as usize).enumerate() {
        jpegs.push((format!("mosaic {index}"), mosaic(files).jpeg(90)));
    }
    jpegs
}

fn mosaic(files: &[PathBuf]) -> Photo {
    let pictures: Vec<RgbImage> =
        files.iter().map(|file| image::open(file).expect("a picture").into_rgb8()).collect();
    let (width, height) = pictures[0].dimensions();
    let mut whole = RgbImage::new(COLUMNS * width, ROWS * height);
    for (index, picture) in (0..).zip(&pictures) {
        let (column, row) = (index % COLUMNS, index / COLUMNS);
        let (x, y) = (i64::from(column * width), i64::from(row * height));
        image::imageops::replace(&mut whole, picture, x, y);
    }
    Photo { width: whole.width(), height: whole.height(), levels: whole.into_raw() }
}

#[test]
fn a_shrunk_jpeg_has_the_vector_of_the_whole() {
    let jpegs = jpegs();
    for folder in ["models/tiny", "crates/embedder/tests/golden/model"] {
        let mut subject = Subject::open(&root().join(folder));
        let mut cosines: Vec<(f64, &str)> =
            jpegs.iter().map(|(name, bytes)| (subject.cosine(bytes), name.as_str())).collect();
        cosines.sort_by(|left, right| left.0.total_cmp(&right.0));
        println!("{folder}: {:.6?} .. {:.6?}", &cosines[..5], &cosines[cosines.len() - 1]);
        let (lowest, name) = cosines[0];
        assert!(lowest >= SAME, "{folder}: {lowest} for {name}");
        assert!(lowest < 1.0, "{folder}: nothing was shrunk");
    }
}

#[test]
fn a_shrunk_jpeg_has_the_size_and_the_facts_of_the_whole() {
    let subject = Subject::open(&root().join("models/tiny"));
    let bytes = Photo::new(1201, 803, 7).jpeg(80);
    let read = |way: &Preprocessor, wanted: &Wanted| -> Picture {
        way.picture_with(&bytes, wanted).expect("a picture")
    };
    let nothing = Wanted::default();
    let info = read(&subject.scaling, &nothing).info;
    assert_eq!((info.width, info.height), (1201, 803), "not the size that was decoded");
    let all = Wanted { facts: true, thumbnail_side: Some(64) };
    let facts: Option<Facts> = read(&subject.exact, &all).info.facts;
    assert!(facts.is_some(), "they were wanted");
    assert_eq!(read(&subject.scaling, &all).info.facts, facts, "of the whole picture");
    assert_eq!(read(&subject.exact, &nothing).info.facts, None, "they were not wanted");
}

#[test]
fn the_choice_is_part_of_the_fingerprint() {
    let mut model = Model::open(&root().join("models/tiny")).expect("a model");
    let exact = model.fingerprint();
    model.preprocessing.jpeg_scaling = true;
    assert_ne!(model.fingerprint(), exact, "other vectors, another fingerprint");
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn cosine(left: &[f32], right: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
    };
    dot(left, right) / (dot(left, left) * dot(right, right)).sqrt()
}
