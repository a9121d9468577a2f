//! Memory and answers over many requests, good and bad.
//!
//! Every kind of request has a share, and an order that is random but the same in every run. A
//! good one must be answered with vectors, a bad one with its reason; whatever else happens fails
//! the run.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use clipmesh_embedder::backend::DeviceChoice;
use clipmesh_embedder::model::Source;
use clipmesh_proto::code::{self, FieldViolation};
use clipmesh_proto::embedder::v1::embed_result::Outcome;
use clipmesh_proto::embedder::v1::{EmbedInput, EmbedRequest, EmbedResult, EmbedStreamRequest};
use futures::{StreamExt as _, stream};
use image::{ImageFormat, RgbImage};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tonic::{Code, Request, Status};

use crate::photo::Photo;
use crate::server::{Client, Server};
use crate::{report, requests};

/// Requests before memory is looked at for the first time: pools and caches fill.
const WARM_UP: u64 = 5_000;
/// Parts of the run after each of which memory is looked at.
const PARTS: u64 = 10;
/// The embedder's default limit is 8 KiB.
const TOO_LONG: usize = 9 << 10;
const MIB: f64 = (1 << 20) as f64;

/// Settings of a soak.
#[derive(Debug, Args)]
pub(crate) struct Soak {
    /// `tiny`, or a model's folder (absolute).
    #[arg(long, default_value = "tiny")]
    model: Source,
    /// Requests that count, after those of the warm-up.
    #[arg(long, default_value_t = 100_000)]
    requests: u64,
    #[arg(long, default_value_t = 16)]
    callers: usize,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// One kind of request.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// One good picture or text.
    Good,
    /// One input with a fault.
    Bad,
    /// Several, good and bad.
    Mixed,
    /// Several through a stream.
    Stream,
    /// Given up by its caller within a few milliseconds.
    Cancelled,
    /// With a deadline of a millisecond.
    Late,
}

/// What requests are made of.
struct Inputs {
    good: Vec<EmbedInput>,
    /// Each with the reason that it must be refused for.
    bad: Vec<(EmbedInput, &'static str)>,
}

/// How often what was answered.
type Tally = BTreeMap<String, u64>;

impl Soak {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let server = Server::start(&self.model.folder()?, DeviceChoice::Cpu, &[])?;
        let inputs = Arc::new(Inputs::new());
        let runtime = Runtime::new()?;
        let (mut tally, began) = (Tally::new(), Instant::now());
        report::head(&["requests", "seconds", "resident MiB"]);
        runtime.block_on(self.part(&server, &inputs, 0..WARM_UP, &mut tally))?;
        tally.clear();
        let start = server.resident_bytes()?;
        let show = |requests: u64, bytes: u64| {
            let seconds = began.elapsed().as_secs_f64();
            let mib = format!("{:.1}", bytes as f64 / MIB);
            report::row(&[requests.to_string(), format!("{seconds:.0}"), mib]);
        };
        show(0, start);
        let mut end = start;
        for part in 0..PARTS {
            let at = |part| WARM_UP + self.requests * part / PARTS;
            let range = at(part)..at(part + 1);
            runtime.block_on(self.part(&server, &inputs, range.clone(), &mut tally))?;
            end = server.resident_bytes()?;
            show(range.end - WARM_UP, end);
        }
        report::head(&["answer", "times"]);
        for (answer, times) in &tally {
            report::row(&[answer.clone(), times.to_string()]);
        }
        let growth = (end as f64 - start as f64) / MIB;
        report::line(format_args!("soak_growth_mib={growth:.1}"));
        Ok(())
    }

    /// Sends the requests of a range and waits for all of them.
    async fn part(
        &self,
        server: &Server,
        inputs: &Arc<Inputs>,
        range: std::ops::Range<u64>,
        tally: &mut Tally,
    ) -> anyhow::Result<()> {
        let next = Arc::new(AtomicU64::new(range.start));
        let mut callers = JoinSet::new();
        for _ in 0..self.callers {
            let (mut client, inputs) = (server.connect()?, Arc::clone(inputs));
            let (next, end, seed) = (Arc::clone(&next), range.end, self.seed);
            callers.spawn(async move {
                let mut tally = Tally::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= end {
                        return Ok(tally);
                    }
                    let mut random = ChaCha8Rng::seed_from_u64(seed.wrapping_add(number));
                    let answer = send(&mut client, &inputs, &mut random).await;
                    let answer = answer.with_context(|| format!("request {number}"))?;
                    *tally.entry(answer).or_default() += 1;
                }
            });
        }
        while let Some(seen) = callers.join_next().await {
            let seen: anyhow::Result<Tally> = seen.context("a caller's task")?;
            for (answer, times) in seen? {
                *tally.entry(answer).or_default() += times;
            }
        }
        Ok(())
    }
}

// === impl Kind ===

impl Kind {
    fn choose(random: &mut ChaCha8Rng) -> Self {
        match random.next_u32() % 100 {
            0..55 => Self::Good,
            55..75 => Self::Bad,
            75..82 => Self::Mixed,
            82..86 => Self::Stream,
            86..94 => Self::Cancelled,
            _ => Self::Late,
        }
    }
}

// === impl Inputs ===

impl Inputs {
    fn new() -> Self {
        let image = |bytes: Vec<u8>| requests::image(&Bytes::from(bytes));
        let photos: Vec<Photo> = (0..8).map(|seed| Photo::new(160, 120, seed)).collect();
        let mut good: Vec<_> = photos.iter().map(|photo| image(photo.jpeg(88))).collect();
        for format in [ImageFormat::Png, ImageFormat::WebP] {
            good.extend(photos[..3].iter().map(|photo| image(write(photo, format))));
        }
        good.push(image(Photo::new(500, 375, 9).jpeg(88)));
        good.extend(requests::captions(6).iter().map(|caption| requests::text(caption)));

        let jpeg = photos[0].jpeg(88);
        let gif = write(&photos[0], ImageFormat::Gif);
        let bad = vec![
            (image(jpeg[..jpeg.len() / 2].to_vec()), "CORRUPT"),
            (image(Vec::new()), "EMPTY"),
            (image(b"neither a picture nor a bomb".to_vec()), "NOT_AN_IMAGE"),
            (image(giant_jpeg(jpeg)), "TOO_MANY_PIXELS"),
            (image(giant_gif(gif)), "TOO_MANY_PIXELS"),
            (requests::text(&"long ".repeat(TOO_LONG / 5 + 1)), "TEXT_TOO_LONG"),
            (requests::text(""), "EMPTY"),
            (EmbedInput { content: None }, "MISSING"),
        ];
        Self { good, bad }
    }

    fn good(&self, random: &mut ChaCha8Rng) -> EmbedInput {
        self.good[random.next_u32() as usize % self.good.len()].clone()
    }

    fn bad(&self, random: &mut ChaCha8Rng) -> (EmbedInput, &'static str) {
        self.bad[random.next_u32() as usize % self.bad.len()].clone()
    }

    /// Good and bad ones, each with the reason that it must be refused for.
    fn mixed(&self, random: &mut ChaCha8Rng) -> Vec<(EmbedInput, Option<&'static str>)> {
        let one = |_| {
            if !random.next_u32().is_multiple_of(4) {
                return (self.good(random), None);
            }
            let (input, reason) = self.bad(random);
            (input, Some(reason))
        };
        (0..8).map(one).collect()
    }
}

/// Sends a request, checks its answer and names it.
async fn send(
    client: &mut Client,
    inputs: &Inputs,
    random: &mut ChaCha8Rng,
) -> anyhow::Result<String> {
    let kind = Kind::choose(random);
    match kind {
        Kind::Good => embed(client, vec![(inputs.good(random), None)]).await,
        Kind::Bad => {
            let (input, reason) = inputs.bad(random);
            embed(client, vec![(input, Some(reason))]).await
        }
        Kind::Mixed => embed(client, inputs.mixed(random)).await,
        Kind::Stream => embed_stream(client, inputs.mixed(random)).await,
        Kind::Cancelled => {
            let patience = Duration::from_micros(u64::from(random.next_u32() % 4_000));
            let call = embed(client, inputs.mixed(random));
            match timeout(patience, call).await {
                Ok(answered) => answered,
                Err(_) => Ok("given up by the caller".to_owned()),
            }
        }
        Kind::Late => late(client, inputs.good(random)).await,
    }
}

async fn embed(
    client: &mut Client,
    asked: Vec<(EmbedInput, Option<&'static str>)>,
) -> anyhow::Result<String> {
    let (inputs, reasons): (Vec<_>, Vec<_>) = asked.into_iter().unzip();
    let request = EmbedRequest { inputs, ..EmbedRequest::default() };
    let results = client.embed(request).await?.into_inner().results;
    anyhow::ensure!(results.len() == reasons.len(), "a result per input");
    for (result, reason) in results.iter().zip(&reasons) {
        check(result, *reason)?;
    }
    Ok(name("embed", &reasons))
}

async fn embed_stream(
    client: &mut Client,
    asked: Vec<(EmbedInput, Option<&'static str>)>,
) -> anyhow::Result<String> {
    let (inputs, reasons): (Vec<_>, Vec<_>) = asked.into_iter().unzip();
    let requests = (0..).zip(inputs).map(|(key, input)| EmbedStreamRequest {
        key,
        input: Some(input),
        ..EmbedStreamRequest::default()
    });
    let requests: Vec<_> = requests.collect();
    let mut answers = client.embed_stream(stream::iter(requests)).await?.into_inner();
    let mut answered = 0;
    while let Some(answer) = answers.next().await {
        let answer = answer?;
        let reason = reasons.get(usize::try_from(answer.key)?).context("a key that was sent")?;
        check(&answer.result.context("a result")?, *reason)?;
        answered += 1;
    }
    anyhow::ensure!(answered == reasons.len(), "an answer per input");
    Ok(name("stream", &reasons))
}

/// A call that may or may not be in time.
async fn late(client: &mut Client, input: EmbedInput) -> anyhow::Result<String> {
    let inputs = vec![input];
    let mut request = Request::new(EmbedRequest { inputs, ..EmbedRequest::default() });
    request.set_timeout(Duration::from_millis(1));
    match client.embed(request).await {
        Ok(_) => Ok("in time for a deadline of 1 ms".to_owned()),
        Err(status) if status.code() == Code::DeadlineExceeded => {
            Ok("deadline of 1 ms exceeded".to_owned())
        }
        Err(status) => Err(status.into()),
    }
}

fn check(result: &EmbedResult, reason: Option<&str>) -> anyhow::Result<()> {
    let actual = match result.outcome.as_ref().context("an outcome")? {
        Outcome::Embedding(_) => None,
        Outcome::Error(error) => {
            let status: Status = code::from_rpc(error);
            let violation = FieldViolation::from_status(&status);
            Some(violation.with_context(|| format!("no fault of the input: {status:?}"))?.reason)
        }
    };
    let actual = actual.map(|reason| reason.as_str());
    anyhow::ensure!(actual == reason, "{actual:?} where {reason:?} was due");
    Ok(())
}

fn name(call: &str, reasons: &[Option<&str>]) -> String {
    match reasons {
        [None] => format!("{call}: a vector"),
        [Some(reason)] => format!("{call}: {reason}"),
        several => format!("{call}: {} results, good and bad", several.len()),
    }
}

fn write(photo: &Photo, format: ImageFormat) -> Vec<u8> {
    let picture = RgbImage::from_raw(photo.width, photo.height, photo.levels.clone());
    let mut file = Cursor::new(Vec::new());
    picture.expect("all levels").write_to(&mut file, format).expect("written to memory");
    file.into_inner()
}

/// A JPEG whose frame header says that it is as large as can be.
fn giant_jpeg(mut file: Vec<u8>) -> Vec<u8> {
    let frame = file.windows(2).position(|marker| marker == [0xFF, 0xC0]).expect("a frame header");
    // Behind the marker: length (2), precision (1), height (2), width (2).
    file[frame + 5..frame + 9].copy_from_slice(&[0xFF, 0xDC, 0xFF, 0xDC]);
    file
}

/// A GIF whose screen and first frame say so.
fn giant_gif(mut file: Vec<u8>) -> Vec<u8> {
    file[6..10].fill(0xFF);
    file
}
