//! The bare forward pass by batch size and type, next to PyTorch on the same device.
//!
//! Both begin with levels in the machine's memory and end with vectors there. They take turns: a
//! pass of one is followed by those of the other. That both compute the same is checked first.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use clipmesh_embedder::backend::Batch;
use serde_json::{Value, json};

use crate::bare::Bare;
use crate::{Subject, parse_dtype, report, requests};

/// Lowest cosine to PyTorch's vector of the same picture. Both may compute in halves.
const SAME: f32 = 0.99;

/// Settings of the comparison.
#[derive(Debug, Args)]
pub(crate) struct Tower {
    #[command(flatten)]
    subject: Subject,
    /// Types to compute in.
    #[arg(long, value_delimiter = ',', default_value = "f32")]
    dtypes: Vec<String>,
    #[arg(long, value_delimiter = ',', default_value = "1,2,4,8,16,32")]
    batches: Vec<usize>,
    /// How long each is measured.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// A Python that has PyTorch. Without it, PyTorch is left out.
    #[arg(long)]
    python: Option<PathBuf>,
}

/// PyTorch, in a process of its own that is asked line by line.
struct PyTorch {
    process: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// One line of the table. Rates are pictures a second, but the last.
struct Row {
    batch: usize,
    ours: f64,
    eager: Option<f64>,
    compiled: Option<f64>,
    texts: f64,
}

impl Tower {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let folder = self.subject.folder()?;
        let mut torch = self
            .python
            .as_deref()
            .map(|python| PyTorch::start(python, &folder, &self.subject.device.to_string()))
            .transpose()?;
        for dtype in &self.dtypes {
            let max_batch = self.batches.iter().copied().max().unwrap_or(1);
            let choice = parse_dtype(dtype).map_err(anyhow::Error::msg)?;
            match Bare::load(&folder, self.subject.device, choice, max_batch) {
                Ok(bare) => self.measure(bare, dtype, torch.as_mut())?,
                Err(error) => report::line(format_args!("\n{dtype}: left out: {error:#}")),
            }
        }
        Ok(())
    }

    fn measure(
        &self,
        mut bare: Bare,
        dtype: &str,
        mut torch: Option<&mut PyTorch>,
    ) -> anyhow::Result<()> {
        if let Some(torch) = torch.as_deref_mut() {
            torch.check(&mut bare, dtype)?;
        }
        let files = requests::photos(16);
        let captions = requests::captions(self.batches.iter().copied().max().unwrap_or(1));
        let span = Duration::from_secs_f64(self.seconds);
        let mut rows = Vec::new();
        for &batch in &self.batches {
            let pictures = bare.pictures(&files, batch)?;
            let texts = bare.texts(&captions[..batch])?;
            bare.embed(&pictures)?;
            bare.embed(&texts)?;
            let ours = bare.rate(&pictures, span)?;
            let mut ask = |mode| {
                let torch = torch.as_deref_mut();
                torch.map(|torch| torch.rate(mode, dtype, batch, self.seconds)).transpose()
            };
            let (eager, compiled) = (ask("eager")?, ask("compile")?);
            rows.push(Row { batch, ours, eager, compiled, texts: bare.rate(&texts, span)? });
        }
        print(dtype, &rows);
        Ok(())
    }
}

fn print(dtype: &str, rows: &[Row]) {
    let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.0}"));
    report::line(format_args!("\n{dtype}:"));
    report::head(&[
        "batch",
        "pictures/s",
        "PyTorch eager",
        "PyTorch compiled",
        "over compiled",
        "texts/s",
    ]);
    for row in rows {
        let over = row.compiled.map_or("-".to_owned(), |rate| format!("{:.2}", row.ours / rate));
        report::row(&[
            row.batch.to_string(),
            number(Some(row.ours)),
            number(row.eager),
            number(row.compiled),
            over,
            number(Some(row.texts)),
        ]);
    }
    for (name, of) in
        [("eager", (|row| row.eager) as fn(&Row) -> Option<f64>), ("compile", |row| row.compiled)]
    {
        let best = |rates: Vec<f64>| rates.into_iter().fold(0.0, f64::max);
        let theirs = best(rows.iter().filter_map(of).collect());
        if theirs > 0.0 {
            let ours = best(rows.iter().map(|row| row.ours).collect());
            report::line(format_args!("tower_over_{name}_{dtype}={:.3}", ours / theirs));
        }
    }
}

// === impl PyTorch ===

impl PyTorch {
    fn start(python: &Path, model: &Path, device: &str) -> anyhow::Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/tower_torch.py");
        let mut process = Command::new(python)
            .arg(script)
            .arg(model)
            .arg(device)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", python.display()))?;
        let questions = process.stdin.take().context("stdin is piped")?;
        let answers = BufReader::new(process.stdout.take().context("stdout is piped")?);
        let mut torch = Self { process, questions, answers };
        let version = torch.ask(&json!({ "what": "version" }))?;
        let text = |key: &str| version[key].as_str().unwrap_or_default().to_owned();
        report::line(format_args!("PyTorch {} on {}", text("torch"), text("device")));
        Ok(torch)
    }

    /// Makes sure that both compute the same.
    fn check(&mut self, bare: &mut Bare, dtype: &str) -> anyhow::Result<()> {
        let side = bare.model.image_size();
        // Every level occurs.
        let levels: Vec<u8> = (0..3 * side * side).map(|index| (index * 7 % 256) as u8).collect();
        let ours = bare.embed(&Batch::Pictures(vec![levels.clone()]))?.remove(0);
        let answer = self.ask(&json!({ "what": "vector", "dtype": dtype, "levels": levels }))?;
        let theirs: Vec<f32> = serde_json::from_value(answer["vector"].clone())?;
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let cosine = dot(&ours, &theirs) / (dot(&ours, &ours) * dot(&theirs, &theirs)).sqrt();
        anyhow::ensure!(cosine >= SAME, "PyTorch computes something else: a cosine of {cosine}");
        report::line(format_args!("{dtype}: a cosine of {cosine:.6} to PyTorch"));
        Ok(())
    }

    fn rate(&mut self, mode: &str, dtype: &str, batch: usize, seconds: f64) -> anyhow::Result<f64> {
        let question = json!({
            "what": "rate", "mode": mode, "dtype": dtype, "batch": batch, "seconds": seconds,
        });
        self.ask(&question)?["per_second"].as_f64().context("a rate")
    }

    fn ask(&mut self, question: &Value) -> anyhow::Result<Value> {
        writeln!(self.questions, "{question}")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        anyhow::ensure!(!line.is_empty(), "PyTorch's process ended; see above why");
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for PyTorch {
    fn drop(&mut self) {
        // It may have ended by itself, and nothing depends on how.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
