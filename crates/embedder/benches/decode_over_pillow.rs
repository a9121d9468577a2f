//! How much faster a JPEG becomes a model's input here than with Pillow: the same files, the same
//! steps, one thread each, in turns, so that whatever else the machine does hits both.
//!
//! `cargo bench --profile dev --bench decode_over_pillow`; `tools/setup test` brings Pillow.
//! Prints a table, and `decode_over_pillow=` with the ratio of the medians.

use std::error::Error;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use clipmesh_embedder::Limits;
use clipmesh_embedder::model::{Filter, Normalisation, Preprocessing, Resize};
use clipmesh_embedder::preprocess::Preprocessor;
use tokio::time::Instant;

use crate::photo::Photo;

#[path = "../tests/common/photo.rs"]
mod photo;

/// Pictures of one size.
struct Case {
    width: u32,
    height: u32,
    files: u64,
    rounds: usize,
}

/// The size that most photographs of ImageNet have.
const SMALL: Case = Case { width: 500, height: 375, files: 16, rounds: 21 };
/// What a camera writes.
const LARGE: Case = Case { width: 4000, height: 3000, files: 1, rounds: 5 };
/// Some 45 kB of a small picture.
const QUALITY: i32 = 88;
/// Edge of ViT-B/32's input.
const EDGE: u32 = 224;

/// Pillow, in a process of its own.
struct Pillow {
    process: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    version: String,
}

#[expect(clippy::print_stdout, reason = "a benchmark's result")]
fn main() -> Result<(), Box<dyn Error>> {
    println!("JPEG to {EDGE} x {EDGE}, one thread");
    println!("{:<40} {:>10} {:>10}", "", "ms each", "images/s");
    let ratio = compare(&SMALL)?;
    compare(&LARGE)?;
    println!("decode_over_pillow={ratio:.2}");
    Ok(())
}

/// Prints how long a picture takes in each way, and returns the ratio of the speeds.
#[expect(clippy::print_stdout, reason = "a benchmark's result")]
fn compare(case: &Case) -> Result<f64, Box<dyn Error>> {
    let &Case { width, height, files, rounds } = case;
    let folder = tempfile::tempdir()?;
    let files: Vec<Vec<u8>> =
        (0..files).map(|seed| Photo::new(width, height, seed).jpeg(QUALITY)).collect();
    for (index, file) in files.iter().enumerate() {
        std::fs::write(folder.path().join(format!("{index:02}.jpg")), file)?;
    }
    let mut pillow = Pillow::start(folder.path())?;
    let [exact, scaling] =
        [false, true].map(|scales| Preprocessor::new(preprocessing(scales), Limits::default()));
    let mut times = [const { Vec::new() }; 3];
    // The first round warms up all and counts for none.
    for round in 0..=rounds {
        let passes = [pass(&exact, &files)?, pass(&scaling, &files)?, pillow.pass()?];
        if round > 0 {
            times.iter_mut().zip(passes).for_each(|(times, time)| times.push(time));
        }
    }
    let medians = times.map(|mut times| median(&mut times).as_secs_f64() / files.len() as f64);
    let pillow = format!("Pillow {}", pillow.version);
    for (name, seconds) in ["clipmesh", "clipmesh, jpeg_scaling", &pillow].iter().zip(medians) {
        let name = format!("{width} x {height}, {name}");
        println!("{name:<40} {:>10.3} {:>10.0}", seconds * 1e3, 1.0 / seconds);
    }
    Ok(medians[2] / medians[0])
}

fn preprocessing(jpeg_scaling: bool) -> Preprocessing {
    Preprocessing {
        resize: Resize::ShortestEdge(EDGE),
        filter: Filter::Bicubic,
        crop: Some(EDGE),
        normalisation: Normalisation { scale: [1.0; 3], offset: [0.0; 3] },
        jpeg_scaling,
    }
}

fn pass(preprocessor: &Preprocessor, files: &[Vec<u8>]) -> Result<Duration, Box<dyn Error>> {
    let started_at = Instant::now();
    for file in files {
        std::hint::black_box(preprocessor.picture(file)?);
    }
    Ok(started_at.elapsed())
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}

// === impl Pillow ===

impl Pillow {
    fn start(folder: &Path) -> Result<Self, Box<dyn Error>> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let ours = root.join("../../.deps/venv/bin/python");
        let python = if ours.exists() { ours } else { PathBuf::from("python3") };
        let mut process = Command::new(python)
            .arg(root.join("benches/decode_over_pillow.py"))
            .args([folder.as_os_str(), EDGE.to_string().as_ref()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let requests = process.stdin.take().ok_or("no way to Pillow's process")?;
        let answers = process.stdout.take().ok_or("no way from Pillow's process")?;
        let mut pillow =
            Self { process, requests, answers: BufReader::new(answers), version: String::new() };
        pillow.version = pillow.line()?;
        Ok(pillow)
    }

    fn pass(&mut self) -> Result<Duration, Box<dyn Error>> {
        writeln!(self.requests, "again")?;
        Ok(Duration::try_from_secs_f64(self.line()?.parse()?)?)
    }

    fn line(&mut self) -> Result<String, Box<dyn Error>> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        match line.trim_end() {
            "" => Err("Pillow's process ended; `tools/setup test` brings Pillow".into()),
            line => Ok(line.to_owned()),
        }
    }
}

impl Drop for Pillow {
    fn drop(&mut self) {
        // It may have ended by itself, and nothing depends on how.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
