//! The model without anything around it: a loop on one thread, with what it computes on at hand.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use clipmesh_embedder::Limits;
use clipmesh_embedder::backend::{self, Backend, Batch, DeviceChoice, DtypeChoice, Options};
use clipmesh_embedder::model::Model;
use clipmesh_embedder::preprocess::Preprocessor;
use tokio::time::Instant;

use crate::stats;

/// A model on a device.
pub(crate) struct Bare {
    backend: Box<dyn Backend>,
    pub(crate) model: Model,
    pub(crate) preprocessor: Preprocessor,
}

impl Bare {
    pub(crate) fn load(
        folder: &Path,
        device: DeviceChoice,
        dtype: DtypeChoice,
        max_batch: usize,
    ) -> anyhow::Result<Self> {
        let model = Model::open(folder).context("open the model")?;
        let devices = backend::devices(device).context("find the device")?;
        let device = devices.first().copied().context("a device")?;
        let options = Options { device, dtype, compute_threads: 0, max_batch };
        let backend = backend::load(&model, &options).context("load the model")?;
        let preprocessor = Preprocessor::new(model.preprocessing.clone(), Limits::default());
        Ok(Self { backend, model, preprocessor })
    }

    /// What the device is given of these files, as many as there are and again from the first.
    pub(crate) fn pictures(&self, files: &[Bytes], count: usize) -> anyhow::Result<Batch> {
        let picture = |file: &Bytes| Ok(self.preprocessor.picture(file)?.levels);
        let pictures: anyhow::Result<Vec<_>> =
            files.iter().cycle().take(count).map(picture).collect();
        Ok(Batch::Pictures(pictures?))
    }

    pub(crate) fn texts(&self, captions: &[String]) -> anyhow::Result<Batch> {
        let tokens: Result<Vec<_>, _> =
            captions.iter().map(|caption| self.model.encode(caption)).collect();
        Ok(Batch::Texts(tokens?))
    }

    /// The vectors of a batch.
    pub(crate) fn embed(&mut self, batch: &Batch) -> anyhow::Result<Vec<Vec<f32>>> {
        self.backend.embed(batch).context("a forward pass")
    }

    /// The times of passes over a batch, for at least so long and at least three times.
    pub(crate) fn passes(
        &mut self,
        batch: &Batch,
        at_least: Duration,
    ) -> anyhow::Result<Vec<Duration>> {
        let began = Instant::now();
        let mut times = Vec::new();
        while times.len() < 3 || began.elapsed() < at_least {
            let started_at = Instant::now();
            std::hint::black_box(self.embed(batch)?);
            times.push(started_at.elapsed());
        }
        Ok(times)
    }

    /// Inputs a second, by the median pass.
    pub(crate) fn rate(&mut self, batch: &Batch, at_least: Duration) -> anyhow::Result<f64> {
        let times = self.passes(batch, at_least)?;
        Ok(batch.len() as f64 / stats::median(&times).as_secs_f64())
    }
}

/// The time that one thread takes for each file.
pub(crate) fn decode_alone(
    preprocessor: &Preprocessor,
    files: &[Bytes],
) -> anyhow::Result<Vec<Duration>> {
    let one = |file: &Bytes| {
        let started_at = Instant::now();
        std::hint::black_box(preprocessor.picture(file)?);
        Ok(started_at.elapsed())
    };
    files.iter().map(one).collect()
}

/// Files decoded a second with a thread per core.
pub(crate) fn decode_rate(preprocessor: &Preprocessor, files: &[Bytes], at_least: Duration) -> f64 {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let began = Instant::now();
    let decoded: usize = std::thread::scope(|scope| {
        let work = |offset: usize| {
            let files = files.iter().cycle().skip(offset);
            let decoded = files.take_while(|_| began.elapsed() < at_least).map(|file| {
                std::hint::black_box(preprocessor.picture(file).is_ok());
            });
            decoded.count()
        };
        let offset = |thread| thread * files.len() / threads;
        let workers: Vec<_> =
            (0..threads).map(|thread| scope.spawn(move || work(offset(thread)))).collect();
        workers.into_iter().map(|worker| worker.join().expect("no panic")).sum()
    });
    decoded as f64 / began.elapsed().as_secs_f64()
}
