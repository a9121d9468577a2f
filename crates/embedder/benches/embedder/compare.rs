//! Serving, next to the bare model and to decoding.
//!
//! Each round measures all sides, one after the other: the bare loop and the decoders while the
//! server has nothing to do, and the server while they have not.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use clipmesh_embedder::backend::{Batch, DeviceChoice, DtypeChoice};
use clipmesh_proto::embedder::v1::EmbedInput;
use tokio::runtime::Runtime;

use crate::Subject;
use crate::bare::{self, Bare};
use crate::load::{self, Bulk};
use crate::report;
use crate::requests;
use crate::server::Server;
use crate::stats;

/// Files that differ, so that no cache of the machine holds them all decoded.
const FILES: u64 = 256;

/// Settings of the comparison.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    #[command(flatten)]
    subject: Subject,
    /// Callers that send one picture at a time.
    #[arg(long, default_value_t = 64)]
    callers: usize,
    /// How long each side is measured in a round.
    #[arg(long, default_value_t = 15.0)]
    seconds: f64,
    /// Rounds that count; one comes before them to warm up.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Lone requests in a round. The p99 is of those of all rounds.
    #[arg(long, default_value_t = 50)]
    lone: usize,
    /// A setting of the server, as in `BATCH__MAX_SIZE=64`; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_setting)]
    set: Vec<(String, String)>,
    /// Batch sizes among which the bare loop chooses its best.
    #[arg(long, value_delimiter = ',', default_value = "1,4,8,16,32")]
    batches: Vec<usize>,
}

/// What is compared, and with what.
struct Bench {
    settings: Serve,
    runtime: Runtime,
    server: Server,
    bare: Bare,
    files: Arc<[Bytes]>,
    inputs: Arc<[EmbedInput]>,
    captions: Arc<[EmbedInput]>,
    /// A batch of the size that the bare loop is best at, and a lone picture.
    best: Batch,
    lone: Batch,
    texts: Batch,
}

/// All sides of one round. Rates are per second.
struct Round {
    bare: f64,
    decode: f64,
    served: f64,
    mean_batch: f64,
    limit: (&'static str, f64),
    bare_texts: f64,
    served_texts: f64,
    lone_pass: Duration,
    lone_decode: Duration,
    lone: Vec<Duration>,
    beside_bulk: Vec<Duration>,
    bulk_pass: Duration,
}

// === impl Serve ===

impl Serve {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let rounds = self.rounds;
        let mut bench = Bench::prepare(self)?;
        bench.round()?;
        let rounds: anyhow::Result<Vec<_>> = (0..rounds).map(|_| bench.round()).collect();
        bench.report(&rounds?);
        Ok(())
    }

    fn span(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}

// === impl Bench ===

impl Bench {
    fn prepare(settings: Serve) -> anyhow::Result<Self> {
        let folder = settings.subject.folder()?;
        let device = settings.subject.device;
        let files = requests::photos(FILES);
        let captions = requests::captions(FILES as usize);
        let max_batch = settings.batches.iter().copied().max().unwrap_or(1);
        let mut bare = Bare::load(&folder, device, DtypeChoice::Auto, max_batch)?;
        let mut best = (0.0, 1);
        for &size in &settings.batches {
            let batch = bare.pictures(&files, size)?;
            // Once before it counts.
            bare.embed(&batch)?;
            let rate = bare.rate(&batch, settings.span() / 5)?;
            best = if rate > best.0 { (rate, size) } else { best };
        }
        // The second start finds the files of the first in memory.
        drop(Server::start(&folder, device, &settings.set)?);
        Ok(Self {
            server: Server::start(&folder, device, &settings.set)?,
            runtime: Runtime::new()?,
            best: bare.pictures(&files, best.1)?,
            lone: bare.pictures(&files, 1)?,
            texts: bare.texts(&captions[..best.1])?,
            inputs: files.iter().map(requests::image).collect(),
            captions: captions.iter().map(|caption| requests::text(caption)).collect(),
            bare,
            files,
            settings,
        })
    }

    fn round(&mut self) -> anyhow::Result<Round> {
        let Self { settings, runtime, server, bare, files, .. } = self;
        let (span, callers) = (settings.span(), settings.callers);
        let bare_rate = bare.rate(&self.best, span / 2)?;
        let decode = bare::decode_rate(&bare.preprocessor, files, span / 5);
        let served = load::closed_loop(server, callers, &self.inputs, span);
        let served = runtime.block_on(served)?;
        let bare_texts = bare.rate(&self.texts, span / 5)?;
        let texts = load::closed_loop(server, callers, &self.captions, span / 5);
        let texts = runtime.block_on(texts)?;

        let lone_pass = stats::median(&bare.passes(&self.lone, span / 5)?);
        let lone_decode = stats::median(&bare::decode_alone(&bare.preprocessor, files)?);
        let (lone, beside_bulk, bulk_pass) = runtime.block_on(async {
            let mut client = server.connect()?;
            let lone = load::one_by_one(&mut client, files, settings.lone).await?;
            let bulk = Bulk::start(server, files).await?;
            let beside = load::one_by_one(&mut client, files, settings.lone).await?;
            anyhow::Ok((lone, beside, stats::median(&bulk.stop().await?)))
        })?;
        Ok(Round {
            bare: bare_rate,
            decode,
            served: stats::rate(&served.answered),
            mean_batch: served.mean_batch(),
            limit: served.limit(),
            bare_texts,
            served_texts: stats::rate(&texts.answered),
            lone_pass,
            lone_decode,
            lone,
            beside_bulk,
            bulk_pass,
        })
    }

    fn report(&self, rounds: &[Round]) {
        let all = |of: fn(&Round) -> f64| rounds.iter().map(of).collect::<Vec<f64>>();
        let bytes = self.files.iter().map(Bytes::len).sum::<usize>() / self.files.len();
        let (width, height) = requests::SIZE;
        report::line(format_args!(
            "{} rounds of {} s; JPEG of {width} x {height}, {bytes} bytes on average; {} callers; \
             device {}",
            rounds.len(),
            self.settings.seconds,
            self.settings.callers,
            self.settings.subject.device,
        ));
        report::head(&["a second", "median (range)"]);
        let size = self.best.len();
        for (name, of) in [
            (format!("pictures, bare loop, batches of {size}"), (|r| r.bare) as fn(&Round) -> f64),
            ("pictures decoded, all cores".to_owned(), |r| r.decode),
            ("pictures served".to_owned(), |r| r.served),
            (format!("texts, bare loop, batches of {size}"), |r| r.bare_texts),
            ("texts served".to_owned(), |r| r.served_texts),
        ] {
            report::row(&[name, report::spread(&all(of), 1)]);
        }
        self.report_latencies(rounds);
        for round in rounds {
            let (stage, share) = round.limit;
            let share = share * 100.0;
            let batch = round.mean_batch;
            report::line(format_args!("limited by {stage} ({share:.0} %), batches of {batch:.1}"));
        }
        if self.settings.subject.device == DeviceChoice::Cpu {
            report::ratio("served_over_raw", &all(Round::served_over_raw), "at least 0.95");
        } else {
            // Decoding runs beside the device, and limits.
            report::ratio("served_over_decode", &all(|r| r.served / r.decode), "at least 0.90");
            report::ratio("served_a_second", &all(|r| r.served), "at least 2500");
        }
        report::ratio("single_over_raw", &all(Round::single_over_raw), "at most 1.10");
        let (hurt, limit) = bulk_hurts(rounds);
        report::ratio("bulk_hurts_interactive", &[hurt], &format!("at most {limit:.2}"));
        report::line(format_args!("ready_seconds={:.2}", self.server.ready.as_secs_f64()));
    }

    fn report_latencies(&self, rounds: &[Round]) {
        report::head(&["latency", "p50", "p99", "of"]);
        let alone: Vec<_> = rounds.iter().flat_map(|round| round.lone.clone()).collect();
        let beside: Vec<_> = rounds.iter().flat_map(|round| round.beside_bulk.clone()).collect();
        for (name, times) in
            [("a lone picture, served", &alone), ("the same beside two full bulk streams", &beside)]
        {
            let cells = [0.5, 0.99].map(|share| report::millis(stats::quantile(times, share)));
            let [p50, p99] = cells;
            report::row(&[name.to_owned(), p50, p99, times.len().to_string()]);
        }
        for (name, of) in [
            ("the bare pass of one", (|round| round.lone_pass) as fn(&Round) -> Duration),
            ("decoding one, one thread", |round| round.lone_decode),
            ("a pass of the bulk load", |round| round.bulk_pass),
        ] {
            let p50 = stats::median(&rounds.iter().map(of).collect::<Vec<_>>());
            let empty = String::new();
            report::row(&[name.to_owned(), report::millis(p50), empty.clone(), empty]);
        }
    }
}

// === impl Round ===

impl Round {
    /// Decoding takes its share of the cores, so that it is subtracted: what is left of the time of
    /// each picture should be that of the bare loop.
    fn served_over_raw(&self) -> f64 {
        let left = 1.0 / self.served - 1.0 / self.decode;
        1.0 / (left * self.bare)
    }

    fn single_over_raw(&self) -> f64 {
        let served = stats::median(&self.lone).as_secs_f64();
        served / (self.lone_pass + self.lone_decode).as_secs_f64()
    }
}

fn parse_setting(setting: &str) -> Result<(String, String), String> {
    let pair = setting.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
    pair.ok_or_else(|| format!("`{setting}` is not of the form KEY=VALUE"))
}

/// The p99 beside bulk over that alone, and how much is allowed: twice, and one batch.
fn bulk_hurts(rounds: &[Round]) -> (f64, f64) {
    let p99 = |of: fn(&Round) -> &Vec<Duration>| {
        let times: Vec<_> = rounds.iter().flat_map(|round| of(round).clone()).collect();
        stats::quantile(&times, 0.99).as_secs_f64()
    };
    let (alone, beside) = (p99(|round| &round.lone), p99(|round| &round.beside_bulk));
    let passes: Vec<_> = rounds.iter().map(|round| round.bulk_pass).collect();
    (beside / alone, 2.0 + stats::median(&passes).as_secs_f64() / alone)
}
