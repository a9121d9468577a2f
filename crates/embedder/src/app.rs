//! The embedder as a whole: builds its parts, serves, stops in order.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use clipmesh_mesh::{Shutdown, health, server};
use clipmesh_proto::embedder::v1 as proto;
use clipmesh_proto::embedder::v1::embedder_service_server::{EmbedderServiceServer, SERVICE_NAME};
use futures::future::try_join_all;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::backend::thread::Thread;
use crate::backend::{self, Device, Options};
use crate::batcher::{self, Bounds, Devices};
use crate::canary::{Probes, Trained};
use crate::config::Config;
use crate::error::Error;
use crate::model::Model;
use crate::preprocess::Preprocessor;
use crate::preprocess::pool::Pool;
use crate::service::{Pipeline, Service};

/// How long the device may take with its last batch. The drain is over by then.
const DEVICE_STOP_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// Texts are split in a moment, but not behind a picture that takes a second.
const TOKENIZE_THREADS: usize = 1;

/// The text that the canary sings.
const CANARY_TEXT: &str = "a photo of a yellow canary";

/// An embedder that is ready to serve.
#[derive(Debug)]
pub struct App {
    server: server::Server,
    listener: TcpListener,
    local_addr: SocketAddr,
    devices: Devices,
    /// Stops the server and its streams.
    stop: Shutdown,
}

impl App {
    /// Loads the model, runs it once and prepares to serve on `listener`. Takes minutes where the
    /// model must be downloaded; dropping it gives the wait up, not the download.
    ///
    /// # Errors
    /// A model or a device that can't be used; the message says what is wrong with it.
    pub async fn build(config: Config, listener: TcpListener) -> Result<Self, Error> {
        let started_at = Instant::now();
        let source = config.model.clone();
        let mut model = blocking(move || Model::open(&source.folder()?)).await?;
        model.preprocessing.jpeg_scaling = config.preprocess.jpeg_scaling;
        let model = Arc::new(model);
        // Both read the same file, the one to identify the weights, the others to use them.
        let identified = {
            let model = Arc::clone(&model);
            blocking(move || Ok::<_, Error>(model.fingerprint()))
        };
        let (fingerprint, devices) = tokio::try_join!(identified, load(&model, &config))?;
        let elapsed_ms = started_at.elapsed().as_millis() as u64;
        tracing::info!(model = config.model_name(), elapsed_ms, "model ready");
        Self::assemble(config, listener, model, fingerprint.to_string(), devices).await
    }

    /// Puts the parts around devices that were tried.
    async fn assemble(
        config: Config,
        listener: TcpListener,
        model: Arc<Model>,
        fingerprint: String,
        devices: Vec<Trained>,
    ) -> Result<Self, Error> {
        let local_addr = listener.local_addr()?;
        let card = card(&config, &model, fingerprint, &devices);
        let bounds = Bounds {
            max_inputs: config.queue.max_inputs,
            max_bytes: config.queue.max_bytes.as_u64(),
        };
        let devices = batcher::start(devices, bounds, &config.canary);
        tracing::info!(
            fingerprint = card.fingerprint,
            dimension = card.dimension,
            device = card.device,
            dtype = card.dtype,
            max_batch_size = card.max_batch_size,
            "ready to serve"
        );

        let preprocessing = model.preprocessing.clone();
        let pipeline = Pipeline {
            preprocessor: Arc::new(Preprocessor::new(preprocessing, config.limits.clone())),
            decoding: Pool::new("decode", config.decode_threads)?,
            tokenizing: Pool::new("tokenize", TOKENIZE_THREADS)?,
            batcher: devices.handle(),
            model,
        };
        let stop = Shutdown::new();
        let service =
            Service { pipeline: Arc::new(pipeline), card: Arc::new(card), stop: stop.clone() };
        let message_limit = config.server.max_message_len();
        let server = server::Server::new(&config.server).service(
            EmbedderServiceServer::new(service)
                .max_decoding_message_size(message_limit)
                .max_encoding_message_size(message_limit),
        );
        server.health().set(SERVICE_NAME, true).await;
        Ok(Self { server, listener, local_addr, devices, stop })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Serves until `shutdown`, or until a device has died. Then, in order: reports not ready and
    /// drains, stops the batcher, joins the devices' threads.
    ///
    /// # Errors
    /// A network that can't be served, or a dead device: the process must end and be replaced.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), Error> {
        let Self { server, listener, local_addr: _, mut devices, stop } = self;
        let health = server.health();
        let watched = devices.health();
        let mut serving = std::pin::pin!(server.serve(listener, stop.clone()));
        let served = tokio::select! {
            served = &mut serving => Some(served),
            () = shutdown.requested() => None,
            () = devices.died() => None,
            never = report(watched, &health) => match never {},
        };
        stop.trigger();
        let served = match served {
            Some(served) => served,
            None => serving.await,
        };
        // A device that hangs must not keep the process from being replaced.
        let stopped = tokio::time::timeout(DEVICE_STOP_TIMEOUT, devices.stop()).await;
        let stopped = stopped.map_err(|_| Error::DeviceStuck)?;
        stopped.map_err(|death| Error::DeviceGone(death.to_string()))?;
        Ok(served?)
    }
}

/// Reports the service as healthy while any device can be relied on.
async fn report(mut devices: watch::Receiver<Vec<bool>>, health: &health::Reporter) -> Infallible {
    let mut was_well = true;
    loop {
        let is_well = devices.borrow_and_update().contains(&true);
        if is_well != was_well {
            health.set(SERVICE_NAME, is_well).await;
            was_well = is_well;
        }
        if devices.changed().await.is_err() {
            // All devices have ended, which is seen elsewhere.
            std::future::pending::<()>().await;
        }
    }
}

/// Runs what blocks on a thread that may.
async fn blocking<T, E, F>(work: F) -> Result<T, Error>
where
    T: Send + 'static,
    E: Send + 'static,
    Error: From<E>,
    F: FnOnce() -> Result<T, E> + Send + 'static,
{
    let joined = tokio::task::spawn_blocking(work).await;
    // It is never cancelled; a panic goes on where it is waited for.
    let result = joined.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
    Ok(result?)
}

/// Loads the model onto every device that was asked for, and tries each of them.
async fn load(model: &Arc<Model>, config: &Config) -> Result<Vec<Trained>, Error> {
    let choice = config.device;
    let devices = blocking(move || backend::devices(choice)).await?;
    let size = model.image_size();
    let probes = Probes {
        // Grey, for which every pixel is a fine one.
        picture: vec![128; 3 * size * size],
        text: match model.takes_texts() {
            true => Some(model.encode(CANARY_TEXT)?),
            false => None,
        },
    };
    let devices = devices.into_iter().map(|device| start(model, config, &probes, device));
    try_join_all(devices).await
}

async fn start(
    model: &Arc<Model>,
    config: &Config,
    probes: &Probes,
    device: Device,
) -> Result<Trained, Error> {
    let max_batch = config.batch.max_size_on(device);
    let Config { dtype, compute_threads, .. } = *config;
    let options = Options { device, dtype, compute_threads, max_batch };
    let model = Arc::clone(model);
    let thread = Thread::start(move || backend::load(&model, &options)).await?;
    Trained::warm_up(thread, probes, max_batch).await.map_err(Error::WarmUp)
}

/// What `GetModel` answers.
fn card(config: &Config, model: &Model, fingerprint: String, devices: &[Trained]) -> proto::Model {
    // Sizes of a model that was read fit: see the bounds of its readers.
    let number = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
    let limits = &config.limits;
    let texts = model.takes_texts().then_some(proto::Modality::Text);
    let modalities = [proto::Modality::Image].into_iter().chain(texts);
    // Of some models it is known only now.
    let dimension = devices.first().map_or(0, |device| device.canary.dimension());
    let names: Vec<_> = devices.iter().map(|device| device.description().device.as_str()).collect();
    let dtype = devices.first().map_or("", |device| device.description().dtype.as_str());
    let max_batch = devices.iter().map(|device| device.sizes.max()).min().unwrap_or(1);
    proto::Model {
        name: config.model_name(),
        fingerprint,
        dimension: number(dimension),
        modalities: modalities.map(i32::from).collect(),
        device: names.join(","),
        dtype: dtype.to_owned(),
        max_batch_size: number(max_batch),
        context_length: number(model.context_length()),
        image_size: number(model.image_size()),
        limits: Some(proto::Limits {
            max_inputs: number(limits.max_inputs),
            max_image_bytes: limits.max_image_bytes.as_u64(),
            max_image_pixels: limits.max_image_pixels,
            max_text_bytes: limits.max_text_bytes.as_u64(),
            stream_window: number(config.queue.stream_window),
        }),
    }
}

#[cfg(test)]
mod tests;
