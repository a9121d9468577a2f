//! The commands that look at models and make them. They need no server and no device.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};

use crate::error::Error;
use crate::model::random::{self, Architecture};
use crate::model::{
    self, Config, Dtype, Family, Filter, Model as ModelFolder, Network, Pooling, Preprocessing,
    Resize, Source, Text, Tower, Vision,
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
        self.changes.apply(&mut config).map_err(|option| {
            let (file, key) = (self.dir.clone(), option.to_owned());
            let message = "can't be set: the model takes pictures only".to_owned();
            model::Error::Key { file, key, message }
        })?;
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
    /// Fails with the option that the architecture has no place for.
    fn apply(&self, config: &mut Config) -> Result<(), &'static str> {
        let set = |place: &mut usize, value: Option<usize>| *place = value.unwrap_or(*place);
        let shape = |tower: &mut Tower, [width, layers, heads]: [Option<usize>; 3]| {
            set(&mut tower.width, width);
            set(&mut tower.layers, layers);
            set(&mut tower.heads, heads);
            set(&mut tower.mlp_width, width.map(|width| 4 * width));
        };
        set(&mut config.vision.image_size, self.image_size);
        set(&mut config.vision.patch_size, self.patch_size);
        let vision = [self.vision_width, self.vision_layers, self.vision_heads];
        shape(&mut config.vision.tower, vision);
        if config.family != Family::Clip {
            config.dimension = config.vision.tower.width;
        }
        set(&mut config.dimension, self.dimension);
        if let Some(text) = &mut config.text {
            set(&mut text.context_length, self.context_length);
            shape(&mut text.tower, [self.text_width, self.text_layers, self.text_heads]);
            return Ok(());
        }
        let of_texts = [
            ("--text-width", self.text_width),
            ("--text-layers", self.text_layers),
            ("--text-heads", self.text_heads),
            ("--context-length", self.context_length),
        ];
        match of_texts.into_iter().find(|(_, value)| value.is_some()) {
            Some((option, _)) => Err(option),
            None => Ok(()),
        }
    }
}

fn inspect(dir: &Path, out: &mut impl Write) -> Result<(), Error> {
    let model = ModelFolder::open(dir)?;
    let mut lines = vec![
        ("folder", dir.display().to_string()),
        ("fingerprint", model.fingerprint().to_string()),
        ("family", model.family().to_owned()),
    ];
    match &model.network {
        Network::Towers { config, weights } => {
            let (millions, dtype) = (weights.parameters() as f64 / 1e6, weights.dtype().as_str());
            lines.push(("parameters", format!("{millions:.1} million, {dtype}")));
            lines.push(("dimension", config.dimension.to_string()));
            lines.extend(pictures(&config.vision));
        }
        Network::Script(script) => {
            lines.push(("program", script.file().display().to_string()));
            let size = model.image_size();
            lines.push(("pictures", format!("{size} x {size} pixels")));
        }
    }
    lines.push(("preprocessing", preprocessing(&model.preprocessing)));
    match model.config().and_then(|config| config.text.as_ref()) {
        Some(text) => lines.extend(texts(text)),
        None => lines.push(("text", "none: the model takes pictures only".to_owned())),
    }
    for (name, value) in lines {
        writeln!(out, "{name:<14} {value}")?;
    }
    Ok(())
}

fn pictures(vision: &Vision) -> [(&'static str, String); 2] {
    let Vision { tower: _, image_size: size, patch_size: patch, trained_size, registers } = vision;
    let mut pictures =
        format!("{size} x {size} pixels in {} patches of {patch} x {patch}", vision.patches());
    if let Some(trained) = trained_size.filter(|trained| trained != size) {
        pictures += &format!(", positions trained for {trained} x {trained}");
    }
    if *registers > 0 {
        pictures += &format!(", {registers} registers");
    }
    [("vision", tower(&vision.tower)), ("pictures", pictures)]
}

fn texts(text: &Text) -> [(&'static str, String); 2] {
    let pooling = match text.pooling {
        Pooling::HighestId => "at the highest token id".to_owned(),
        Pooling::FirstOf(id) => format!("at the first token {id}"),
        Pooling::Last => "at the last, padding included".to_owned(),
    };
    let tokens =
        format!("{} known, {} in a text, pooled {pooling}", text.vocabulary, text.context_length);
    [("text", tower(&text.tower)), ("tokens", tokens)]
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
    fn a_model_of_pictures_only_is_told_as_such() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().to_str().expect("UTF-8");
        let small = ["--vision-width", "24", "--vision-heads", "2", "--vision-layers", "1"];
        let random = [&["random", "--arch", "DINOv2-B-14"][..], &small, &[dir]].concat();
        let inspected = run(&random).expect("a random model");
        for part in ["DINOv2", "positions trained for 518 x 518", "none: the model takes pictures"]
        {
            assert!(inspected.contains(part), "{part} in: {inspected}");
        }
        let error = run(&[&random[..], &["--text-heads", "2"]].concat()).expect_err("no texts");
        assert!(error.to_string().contains("--text-heads"), "the option is named: {error}");
    }

    #[test]
    fn a_program_is_told_with_its_file() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/families/script");
        let inspected = run(&["inspect", dir]).expect("a program");
        for part in ["TorchScript", "model.pt", "28 x 28 pixels", "short edge to 35"] {
            assert!(inspected.contains(part), "{part} in: {inspected}");
        }
    }

    #[test]
    fn a_folder_that_is_no_model_is_explained() {
        let folder = tempfile::tempdir().expect("a folder");
        let error = run(&["inspect", folder.path().to_str().expect("UTF-8")]).expect_err("empty");
        assert!(error.to_string().contains("config.json"), "the missing file: {error}");
    }
}
