//! Writes models with random weights: full in size, understood by every tool, wise in nothing.
//!
//! They serve where no trained model can be had: for tests, benchmarks and demonstrations. The
//! same seed gives the same bytes on every machine. Their tokenizer is our own: one token per byte.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use half::f16;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use rayon::prelude::*;
use serde_json::{Map, Value, json};

use super::Error;
use super::config::{self, Activation, Config, Family, Pooling, Text, Tower, Vision};
use super::layout::{self, Init, Spec};
use super::preprocessing::{self, Preprocessing};
use super::tokenizer::{self, END, START, byte_characters};
use super::weights::{self, Dtype};

/// One token per byte, one per byte at the end of a word, the start and the end token.
const TOKENS: u32 = 514;
const START_ID: u32 = TOKENS - 2;
const END_ID: u32 = TOKENS - 1;

/// Numbers that one task makes at a time.
const BLOCK: usize = 1 << 16;
/// Blocks that are held in memory at a time.
const BLOCKS_AT_ONCE: usize = 64;

/// Standard deviation of [`irwin_hall`]: four times the variance of a uniform 16-bit number.
const IRWIN_HALL_DEVIATION: f64 = 37_837.227_2;

/// Shapes of well-known models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Architecture {
    /// CLIP: 151 million parameters, pictures of 224 in patches of 32.
    #[value(name = "ViT-B-32")]
    VitB32,
    /// CLIP: 150 million parameters, pictures of 224 in patches of 16.
    #[value(name = "ViT-B-16")]
    VitB16,
    /// CLIP: 428 million parameters, pictures of 224 in patches of 14.
    #[value(name = "ViT-L-14")]
    VitL14,
    /// CLIP: the same for pictures of 336.
    #[value(name = "ViT-L-14-336")]
    VitL14Of336,
    /// CLIP of LAION: 986 million parameters, pictures of 224 in patches of 14.
    #[value(name = "ViT-H-14")]
    VitH14,
    /// CLIP of LAION: 2.5 billion parameters, pictures of 224 in patches of 14.
    #[value(name = "ViT-bigG-14")]
    VitBigG14,
    /// SigLIP: 203 million parameters, pictures of 224 in patches of 16.
    #[value(name = "ViT-B-16-SigLIP")]
    SiglipB16,
    /// SigLIP: 878 million parameters, pictures of 384 in patches of 14.
    #[value(name = "ViT-SO400M-14-SigLIP-384")]
    SiglipSo400m,
    /// DINOv2, pictures only: 87 million parameters, pictures of 224 in patches of 14.
    #[value(name = "DINOv2-B-14")]
    DinoB14,
    /// Plain vision transformer, pictures only: 86 million parameters, pictures of 224 in patches
    /// of 16.
    #[value(name = "ViT-B-16-plain")]
    PlainB16,
    /// CLIP: a hundred thousand parameters, pictures of 32 in patches of 8: for tests.
    #[value(name = "tiny")]
    Tiny,
}

// === impl Architecture ===

impl Architecture {
    /// The architecture in full, to be changed at will before it is written.
    pub fn config(self) -> Config {
        let b = tower(768, 12, 12);
        match self {
            Self::VitB32 => clip(512, vision(b, 224, 32), tower(512, 12, 8)),
            Self::VitB16 => clip(512, vision(b, 224, 16), tower(512, 12, 8)),
            Self::VitL14 => clip(768, vision(tower(1024, 24, 16), 224, 14), b),
            Self::VitL14Of336 => clip(768, vision(tower(1024, 24, 16), 336, 14), b),
            Self::VitH14 => {
                let text = with_gelu(tower(1024, 24, 16));
                clip(1024, vision(with_gelu(tower(1280, 32, 16)), 224, 14), text)
            }
            Self::VitBigG14 => {
                let wide = Tower { mlp_width: 8192, ..with_gelu(tower(1664, 48, 16)) };
                clip(1280, vision(wide, 224, 14), with_gelu(tower(1280, 32, 20)))
            }
            Self::SiglipB16 => siglip(vision(b, 224, 16)),
            Self::SiglipSo400m => {
                let tower = Tower { mlp_width: 4304, ..tower(1152, 27, 16) };
                siglip(vision(tower, 384, 14))
            }
            Self::DinoB14 => {
                let tower = Tower { layer_norm_epsilon: 1e-6, ..with_gelu(b) };
                let vision = Vision { trained_size: Some(518), ..vision(tower, 224, 14) };
                pictures_only(Family::Dinov2, vision)
            }
            Self::PlainB16 => {
                let tower = Tower { layer_norm_epsilon: 1e-12, ..with_gelu(b) };
                pictures_only(Family::Vit, vision(tower, 224, 16))
            }
            Self::Tiny => {
                let text = tower(32, 2, 2);
                let mut config = clip(32, vision(tower(48, 2, 4), 32, 8), text);
                config.text.iter_mut().for_each(|text| text.vocabulary = TOKENS as usize);
                config
            }
        }
    }
}

fn tower(width: usize, layers: usize, heads: usize) -> Tower {
    let activation = Activation::QuickGelu;
    Tower { width, mlp_width: 4 * width, layers, heads, activation, layer_norm_epsilon: 1e-5 }
}

fn with_gelu(tower: Tower) -> Tower {
    Tower { activation: Activation::Gelu, ..tower }
}

fn vision(tower: Tower, image_size: usize, patch_size: usize) -> Vision {
    Vision { tower, image_size, patch_size, trained_size: None, registers: 0 }
}

fn clip(dimension: usize, vision: Vision, text: Tower) -> Config {
    let pooling = Pooling::FirstOf(END_ID);
    let text = Text { tower: text, vocabulary: 49_408, context_length: 77, pooling };
    Config { family: Family::Clip, dimension, vision, text: Some(text) }
}

/// Both towers of the same shape.
fn siglip(mut vision: Vision) -> Config {
    vision.tower.activation = Activation::GeluTanh;
    vision.tower.layer_norm_epsilon = 1e-6;
    let (tower, pooling) = (vision.tower.clone(), Pooling::Last);
    let text = Text { tower, vocabulary: 32_000, context_length: 64, pooling };
    Config { family: Family::Siglip, dimension: vision.tower.width, vision, text: Some(text) }
}

fn pictures_only(family: Family, vision: Vision) -> Config {
    Config { family, dimension: vision.tower.width, vision, text: None }
}

/// Writes a model's folder. `config.json` comes last, so that a folder that has one is complete.
///
/// # Errors
/// A shape that is none, or a folder that can't be written to.
pub fn write(folder: &Path, config: &Config, seed: u64, dtype: Dtype) -> Result<(), Error> {
    check(folder, config)?;
    let failed = |name: &str, cause| Error::Write { file: folder.join(name), cause };
    fs::create_dir_all(folder).map_err(|cause| failed("", cause))?;
    // Under another name until it is whole: a model in use is mapped, and must not change.
    let partial = format!("{}.partial", weights::FILE);
    let (from, to) = (folder.join(&partial), folder.join(weights::FILE));
    write_weights(&from, &layout::tensors(config), seed, dtype)
        .and_then(|()| fs::rename(from, to))
        .map_err(|cause| failed(&partial, cause))?;
    let mut documents = vec![(
        preprocessing::FILE,
        Preprocessing::to_json(config.family, config.vision.image_size),
    )];
    documents.extend(tokenizer_documents(config));
    documents.push((config::FILE, config.to_json(START_ID, END_ID)));
    for (name, mut document) in documents {
        // Whatever order the map keeps: the same bytes however this was built.
        document.sort_all_objects();
        fs::write(folder.join(name), format!("{document:#}\n"))
            .map_err(|cause| failed(name, cause))?;
    }
    Ok(())
}

/// Refuses a shape that [`Config::read`] would refuse.
fn check(folder: &Path, config: &Config) -> Result<(), Error> {
    let fault = |key: &str, message: &str| {
        let message = message.to_owned();
        Err(Error::Key { file: folder.join(config::FILE), key: key.to_owned(), message })
    };
    let vision = &config.vision;
    if let Some(text) = &config.text {
        if text.vocabulary < TOKENS as usize {
            return fault("vocab_size", "must be at least 514, which the tokenizer has");
        }
        if text.context_length < 2 {
            return fault("max_position_embeddings", "must be at least 2");
        }
    }
    if config.family != Family::Clip && config.dimension != vision.tower.width {
        return fault("hidden_size", "of the pictures' tower must be the length of the vectors");
    }
    if vision.patch_size == 0 || vision.patch_size > vision.image_size {
        return fault("patch_size", "must be from 1 to the picture's size");
    }
    for tower in [&vision.tower].into_iter().chain(config.text.as_ref().map(|text| &text.tower)) {
        if tower.heads == 0 || tower.width == 0 || !tower.width.is_multiple_of(tower.heads) {
            return fault("num_attention_heads", "must divide the width");
        }
    }
    Ok(())
}

/// Writes a safetensors file: the length of the header, the header, the values.
fn write_weights(path: &Path, specs: &[Spec], seed: u64, dtype: Dtype) -> io::Result<()> {
    let mut file = File::create(path)?;
    let mut header = header(specs, dtype);
    header.sort_all_objects();
    let mut header = serde_json::to_vec(&header)?;
    // Values start at a multiple of eight bytes.
    header.resize(header.len().next_multiple_of(8), b' ');
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(&header)?;
    let mut bytes = Vec::new();
    for (index, spec) in specs.iter().enumerate() {
        let numbers = Numbers { spec, seed, stream: index as u64 };
        let count = spec.shape.iter().product::<usize>();
        let step = BLOCK * BLOCKS_AT_ONCE;
        for start in (0..count).step_by(step) {
            bytes.resize((count - start).min(step) * dtype.size(), 0);
            bytes.par_chunks_mut(BLOCK * dtype.size()).enumerate().for_each(|(block, bytes)| {
                numbers.fill(start + block * BLOCK, dtype, bytes);
            });
            file.write_all(&bytes)?;
        }
    }
    file.sync_all()
}

fn header(specs: &[Spec], dtype: Dtype) -> Value {
    let mut header = Map::from_iter([("__metadata__".to_owned(), json!({ "format": "pt" }))]);
    let mut end = 0;
    for spec in specs {
        let start = end;
        end += spec.shape.iter().product::<usize>() * dtype.size();
        let entry = json!({
            "dtype": dtype.as_str().to_uppercase(),
            "shape": spec.shape,
            "data_offsets": [start, end],
        });
        header.insert(spec.name.clone(), entry);
    }
    Value::Object(header)
}

/// The values of one tensor. Each depends on the seed, the tensor and its place alone.
struct Numbers<'a> {
    spec: &'a Spec,
    seed: u64,
    stream: u64,
}

impl Numbers<'_> {
    /// Writes the values from index `start` on.
    fn fill(&self, start: usize, dtype: Dtype, bytes: &mut [u8]) {
        let (deviation, zeros) = match self.spec.init {
            Init::Constant(value) => {
                return put(dtype, bytes, std::iter::repeat(value));
            }
            Init::Normal(deviation) => (deviation, 0),
            Init::NormalBelowFirstRow(deviation) => {
                (deviation, self.spec.shape.last().copied().unwrap_or(0))
            }
        };
        let mut random = self.random_at(start);
        let scale = (deviation / IRWIN_HALL_DEVIATION) as f32;
        let values = (start..).map(|index| {
            let value = irwin_hall(random.next_u64()) * scale;
            if index < zeros { 0.0 } else { value }
        });
        put(dtype, bytes, values);
    }

    fn random_at(&self, start: usize) -> ChaCha8Rng {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&self.seed.to_le_bytes());
        let mut random = ChaCha8Rng::from_seed(key);
        random.set_stream(self.stream);
        // Two words of 32 bits per value.
        random.set_word_pos(2 * start as u128);
        random
    }
}

/// The sum of four uniform numbers about zero, near enough to a normal distribution for weights.
/// In whole numbers: logarithms differ in the last bit from machine to machine.
fn irwin_hall(bits: u64) -> f32 {
    let quarter = |i: u32| ((bits >> (16 * i)) & 0xFFFF) as i32;
    (quarter(0) + quarter(1) + quarter(2) + quarter(3) - 2 * 0xFFFF) as f32
}

fn put(dtype: Dtype, bytes: &mut [u8], values: impl Iterator<Item = f32>) {
    match dtype {
        Dtype::F32 => {
            for (place, value) in bytes.chunks_exact_mut(4).zip(values) {
                place.copy_from_slice(&value.to_le_bytes());
            }
        }
        Dtype::F16 => {
            for (place, value) in bytes.chunks_exact_mut(2).zip(values) {
                place.copy_from_slice(&f16::from_f32(value).to_le_bytes());
            }
        }
        Dtype::Bf16 => {
            for (place, value) in bytes.chunks_exact_mut(2).zip(values) {
                place.copy_from_slice(&half::bf16::from_f32(value).to_le_bytes());
            }
        }
    }
}

/// The files of a tokenizer with a token per byte, in the family's form; none without texts.
fn tokenizer_documents(config: &Config) -> Vec<(&'static str, Value)> {
    match (&config.text, config.family) {
        (None, _) => Vec::new(),
        (Some(_), Family::Siglip) => vec![
            (tokenizer::FILE, tokenizer::siglip_bytes()),
            (
                tokenizer::SPECIAL_TOKENS_FILES[0],
                json!({ "tokenizer_class": "SiglipTokenizer", "pad_token": "</s>" }),
            ),
        ],
        (Some(_), Family::Clip | Family::Dinov2 | Family::Vit) => {
            vec![(tokenizer::FILE, byte_tokenizer())]
        }
    }
}

/// A tokenizer without merges: every byte is a token.
fn byte_tokenizer() -> Value {
    let characters = byte_characters();
    let inner = characters.iter().map(char::to_string);
    let last = characters.iter().map(|character| format!("{character}</w>"));
    let special = [START, END].map(str::to_owned);
    let tokens = inner.chain(last).chain(special);
    let vocabulary: Map<String, Value> =
        tokens.zip(0..).map(|(token, id)| (token, json!(id))).collect();
    tokenizer::document(&Value::Object(vocabulary), &json!([]), START_ID, END_ID)
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;
    use crate::model::{Model, Network};

    fn model(seed: u64, dtype: Dtype) -> (tempfile::TempDir, Model) {
        let folder = tempfile::tempdir().expect("a folder");
        write(folder.path(), &Architecture::Tiny.config(), seed, dtype).expect("a random model");
        let model = Model::open(folder.path()).expect("what is written can be read");
        (folder, model)
    }

    #[test]
    fn a_random_model_is_what_was_asked_for() {
        let (_folder, model) = model(7, Dtype::F16);
        assert_eq!(model.config(), Some(&Architecture::Tiny.config()), "the architecture");
        let Network::Towers { weights, .. } = &model.network else { panic!("a family") };
        assert_eq!(weights.dtype(), Dtype::F16, "the type of the weights");
        let tokens = model.encode("Ab c").expect("bytes");
        // `a`, `b` at the end of a word, `c` at the end of a word: `!` is the first of each kind.
        let expected = [512, 64, 256 + 65, 256 + 66, 513];
        assert_eq!(tokens.ids, expected, "lower case, a token per byte, start and end");
        assert_eq!(tokens.pool_at, 4, "pooled at the end");
    }

    #[test]
    fn every_architecture_is_read_back_as_it_was_written() {
        for architecture in Architecture::value_variants() {
            let folder = tempfile::tempdir().expect("a folder");
            let mut config = architecture.config();
            // What is left is small, and every rule of its family still holds.
            config.vision.tower.layers = 1;
            shrink(&mut config.vision.tower);
            if let Some(text) = &mut config.text {
                text.tower.layers = 1;
                shrink(&mut text.tower);
                text.vocabulary = 600;
            }
            if config.family != Family::Clip {
                config.dimension = config.vision.tower.width;
            }
            write(folder.path(), &config, 1, Dtype::F16).expect("a random model");
            let model = Model::open(folder.path()).expect("what is written can be read");
            assert_eq!(model.config(), Some(&config), "{architecture:?}");
            assert_eq!(model.takes_texts(), config.text.is_some(), "{architecture:?}");
        }
    }

    fn shrink(tower: &mut Tower) {
        let width = 2 * tower.heads;
        (tower.width, tower.mlp_width) = (width, 4 * width);
    }

    #[test]
    fn a_random_siglip_reads_bytes_and_pads_every_text() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut config = siglip(vision(tower(8, 1, 2), 32, 8));
        config.text.iter_mut().for_each(|text| text.vocabulary = TOKENS as usize);
        write(folder.path(), &config, 1, Dtype::F32).expect("a random model");
        let model = Model::open(folder.path()).expect("what is written can be read");
        let tokens = model.encode("A, b").expect("bytes");
        // A space is written as one character of three bytes; ids start behind three others.
        let byte = |byte: u8| u32::from(byte) + 3;
        let space = [0xE2, 0x96, 0x81].map(byte);
        let words = [&space[..], &[byte(b'a')], &space, &[byte(b'b'), 1]].concat();
        assert_eq!(tokens.ids[..words.len()], words, "lower case, no comma, end token");
        assert_eq!(tokens.ids[words.len()..], vec![1; 64 - words.len()], "padded to the end");
        assert_eq!(tokens.pool_at, 63, "pooled at the last");
    }

    #[test]
    fn the_seed_decides_the_fingerprint() {
        let fingerprint = |seed, dtype| model(seed, dtype).1.fingerprint();
        let first = fingerprint(1, Dtype::F32);
        assert_eq!(fingerprint(1, Dtype::F32), first, "the same seed, the same model");
        assert_ne!(fingerprint(2, Dtype::F32), first, "another seed, another model");
        assert_ne!(fingerprint(1, Dtype::F16), first, "other values, another model");
    }

    #[test]
    fn values_have_the_deviation_that_was_asked_for_wherever_a_block_starts() {
        let spec = Spec {
            name: String::new(),
            shape: vec![1000, 100],
            init: Init::NormalBelowFirstRow(0.5),
        };
        let numbers = Numbers { spec: &spec, seed: 3, stream: 0 };
        let mut bytes = vec![0; 4 * 100_000];
        numbers.fill(0, Dtype::F32, &mut bytes);
        let values: Vec<f32> = bytes
            .chunks_exact(4)
            .map(|bytes| f32::from_le_bytes(bytes.try_into().expect("four bytes")))
            .collect();
        assert!(values[..100].iter().all(|&value| value == 0.0), "the first row is zero");
        let below = &values[100..];
        let mean = below.iter().sum::<f32>() / below.len() as f32;
        let variance =
            below.iter().map(|value| (value - mean).powi(2)).sum::<f32>() / below.len() as f32;
        assert!(mean.abs() < 0.01, "mean {mean}");
        assert!((variance.sqrt() - 0.5).abs() < 0.01, "deviation {}", variance.sqrt());

        let mut rest = vec![0; 4 * 10];
        numbers.fill(50_000, Dtype::F32, &mut rest);
        assert_eq!(rest, bytes[4 * 50_000..4 * 50_010], "a block in the middle is the same");
    }

    #[test]
    fn an_impossible_shape_is_refused() {
        let mut config = Architecture::Tiny.config();
        config.text.as_mut().expect("it reads texts").tower.heads = 5;
        let folder = tempfile::tempdir().expect("a folder");
        let error =
            write(folder.path(), &config, 1, Dtype::F32).expect_err("32 is no multiple of 5");
        assert!(error.to_string().contains("num_attention_heads"), "the key is named: {error}");
    }
}
