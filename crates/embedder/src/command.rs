//! The commands that look at models and make them. They need no server and no device.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};

use crate::error::Error;
use crate::model::random::{self, Architecture};
use crate::model::{
    Config, Dtype, Filter, Model as ModelFolder, Pooling, Preprocessing, Resize, Source, Tower,
};

/// `model …`.
#[derive(Clone, Debug, Subcommand)]
pub enum Model {
    /// Print what is understood of a model, or what is wrong with it.
    Inspect {
        /// `tiny`, a folder in Hugging Face's form, or `org/name[@revision]` of the Hugging Face
        /// hub, which is downloaded.
        model: Source,
    },
    /// Write a full-size model with seeded random weights, for tests and benchmarks.
    Random(Random),
}

/// What random model to write.
#[derive(Clone, Debug, Args)]
pub struct Random {
    /// The shape to start from.
    #[arg(long, value_enum, default_value = "ViT-B-32")]
    arch: Architecture,
    /// The same seed gives the same model on every machine.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The type of the weights.
    #[arg(long, value_enum, default_value = "f32")]
    dtype: RandomDtype,
    #[command(flatten)]
    changes: Changes,
    /// The folder to write to; made if it is not there.
    dir: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RandomDtype {
    F32,
    F16,
}

/// Changes to the shape, for models that nobody has trained.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Changes to the shape")]
struct Changes {
    /// Length of the vectors.
    #[arg(long)]
    dimension: Option<usize>,
    /// Edge of the pictures in pixels.
    #[arg(long)]
    image_size: Option<usize>,
    /// Edge of the patches in pixels.
    #[arg(long)]
    patch_size: Option<usize>,
    #[arg(long)]
    vision_width: Option<usize>,
    #[arg(long)]
    vision_layers: Option<usize>,
    #[arg(long)]
    vision_heads: Option<usize>,
    #[arg(long)]
    text_width: Option<usize>,
    #[arg(long)]
    text_layers: Option<usize>,
    #[arg(long)]
    text_heads: Option<usize>,
    /// Longest text in tokens.
    #[arg(long)]
    context_length: Option<usize>,
}

// === impl Model ===

impl Model {
    /// Runs the command and writes what it has to say to `out`. Blocks.
    ///
    /// # Errors
    /// A model that can't be read or written.
    pub fn run(&self, out: &mut impl Write) -> Result<(), Error> {
        match self {
            Self::Inspect { model } => inspect(&model.folder()?, out),
            Self::Random(random) => random.write(out),
        }
    }
}

// === impl Random ===

impl Random {
    fn write(&self, out: &mut impl Write) -> Result<(), Error> {
        let mut config = self.arch.config();
        self.changes.apply(&mut config);
        let dtype = match self.dtype {
            RandomDtype::F32 => Dtype::F32,
            RandomDtype::F16 => Dtype::F16,
        };
        random::write(&self.dir, &config, self.seed, dtype)?;
        inspect(&self.dir, out)
    }
}

// === impl Changes ===

impl Changes {
    fn apply(&self, config: &mut Config) {
        let set = |place: &mut usize, value: Option<usize>| *place = value.unwrap_or(*place);
        set(&mut config.dimension, self.dimension);
        set(&mut config.vision.image_size, self.image_size);
        set(&mut config.vision.patch_size, self.patch_size);
        set(&mut config.text.context_length, self.context_length);
        let vision = [self.vision_width, self.vision_layers, self.vision_heads];
        let text = [self.text_width, self.text_layers, self.text_heads];
        for (tower, [width, layers, heads]) in
            [(&mut config.vision.tower, vision), (&mut config.text.tower, text)]
        {
            set(&mut tower.width, width);
            set(&mut tower.layers, layers);
            set(&mut tower.heads, heads);
            set(&mut tower.mlp_width, width.map(|width| 4 * width));
        }
    }
}

fn inspect(dir: &Path, out: &mut impl Write) -> Result<(), Error> {
    let model = ModelFolder::open(dir)?;
    let Config { dimension, vision, text } = &model.config;
    let pooling = match text.pooling {
        Pooling::HighestId => "at the highest token id".to_owned(),
        Pooling::FirstOf(id) => format!("at the first token {id}"),
    };
    let lines = [
        ("folder", dir.display().to_string()),
        ("fingerprint", model.fingerprint().to_string()),
        (
            "parameters",
            format!(
                "{:.1} million, {}",
                model.weights.parameters() as f64 / 1e6,
                model.weights.dtype().as_str()
            ),
        ),
        ("dimension", dimension.to_string()),
        ("vision", tower(&vision.tower)),
        (
            "pictures",
            format!(
                "{0} x {0} pixels in {1} patches of {2} x {2}",
                vision.image_size,
                vision.patches(),
                vision.patch_size
            ),
        ),
        ("preprocessing", preprocessing(&model.preprocessing)),
        ("text", tower(&text.tower)),
        (
            "tokens",
            format!(
                "{} known, {} in a text, pooled {pooling}",
                text.vocabulary, text.context_length
            ),
        ),
    ];
    for (name, value) in lines {
        writeln!(out, "{name:<14} {value}")?;
    }
    Ok(())
}

fn tower(tower: &Tower) -> String {
    let Tower { width, mlp_width, layers, heads, activation, layer_norm_epsilon } = tower;
    format!(
        "{layers} layers of {width} ({mlp_width} inside), {heads} heads, {activation:?}, epsilon {layer_norm_epsilon:e}"
    )
}

fn preprocessing(preprocessing: &Preprocessing) -> String {
    let size = match preprocessing.resize {
        Resize::ShortestEdge(edge) => format!("short edge to {edge}"),
        Resize::Exact { width, height } => format!("to {width} x {height}"),
    };
    let filter = match preprocessing.filter {
        Filter::Lanczos => "Lanczos",
        Filter::Bilinear => "bilinear",
        Filter::Bicubic => "bicubic",
    };
    let crop = match preprocessing.crop {
        Some(edge) => format!("middle {edge} x {edge}"),
        None => "no crop".to_owned(),
    };
    format!("{size} ({filter}), {crop}")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(subcommand)]
        model: Model,
    }

    fn run(args: &[&str]) -> Result<String, Error> {
        let cli = Cli::parse_from([&["model"], args].concat());
        let mut out = Vec::new();
        cli.model.run(&mut out)?;
        Ok(String::from_utf8(out).expect("text"))
    }

    #[test]
    fn a_model_of_any_shape_is_written_and_understood() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().to_str().expect("UTF-8");
        let written = run(&[
            "random",
            "--arch",
            "tiny",
            "--seed",
            "5",
            "--dtype",
            "f16",
            "--vision-width",
            "24",
            "--vision-heads",
            "3",
            "--dimension",
            "10",
            dir,
        ])
        .expect("a random model");
        let inspected = run(&["inspect", dir]).expect("a model");
        assert_eq!(inspected, written, "what was written is what is read");
        assert!(inspected.contains("2 layers of 24 (96 inside), 3 heads"), "changed: {inspected}");
        assert!(inspected.contains("f16"), "the type: {inspected}");
    }

    #[test]
    fn a_folder_that_is_no_model_is_explained() {
        let folder = tempfile::tempdir().expect("a folder");
        let error = run(&["inspect", folder.path().to_str().expect("UTF-8")]).expect_err("empty");
        assert!(error.to_string().contains("config.json"), "the missing file: {error}");
    }
}
