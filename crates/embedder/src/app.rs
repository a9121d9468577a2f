//! The embedder as a whole: builds its parts, serves, stops in order.

use std::net::SocketAddr;
use std::sync::Arc;

use clipmesh_mesh::{Shutdown, server};
use clipmesh_proto::embedder::v1 as proto;
use clipmesh_proto::embedder::v1::embedder_service_server::{EmbedderServiceServer, SERVICE_NAME};
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::backend::thread::Thread;
use crate::backend::{self, Description, Options};
use crate::batcher::{self, Bounds, Driver, Input};
use crate::canary::Canary;
use crate::config::Config;
use crate::error::Error;
use crate::model::Model;
use crate::preprocess::Preprocessor;
use crate::preprocess::pool::Pool;
use crate::service::Service;

/// How long the device may take with its last batch. The drain is over by then.
const DEVICE_STOP_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// The text that the canary sings.
const CANARY_TEXT: &str = "a photo of a yellow canary";

/// An embedder that is ready to serve.
#[derive(Debug)]
pub struct App {
    server: server::Server,
    listener: TcpListener,
    local_addr: SocketAddr,
    driver: Driver,
    canary: Canary,
}

impl App {
    /// Loads the model, runs it once and prepares to serve on `listener`. Takes minutes where the
    /// model must be downloaded; dropping it gives the wait up, not the download.
    ///
    /// # Errors
    /// A model or a device that can't be used; the message says what is wrong with it.
    pub async fn build(config: Config, listener: TcpListener) -> Result<Self, Error> {
        let local_addr = listener.local_addr()?;
        let started_at = Instant::now();
        let source = config.model.clone();
        let model = Arc::new(blocking(move || Model::open(&source.folder()?)).await?);
        // Both read the same file, the one to identify the weights, the other to use them.
        let identified = {
            let model = Arc::clone(&model);
            blocking(move || Ok::<_, Error>(model.fingerprint()))
        };
        let (fingerprint, thread) = tokio::try_join!(identified, load(&model, &config))?;

        let bounds = Bounds {
            max_batch: config.batch.max_size,
            max_inputs: config.queue.max_inputs,
            max_bytes: config.queue.max_bytes.as_u64(),
        };
        let driver = batcher::start(thread, bounds);
        let canary = warm_up(&driver, &model, &config).await?;
        let card = card(&config, &model, fingerprint.to_string(), driver.description());
        tracing::info!(
            model = card.name,
            fingerprint = card.fingerprint,
            dimension = card.dimension,
            device = card.device,
            dtype = card.dtype,
            elapsed_ms = started_at.elapsed().as_millis() as u64,
            "model ready"
        );

        let preprocessing = model.preprocessing.clone();
        let service = Service {
            preprocessor: Arc::new(Preprocessor::new(preprocessing, config.limits.clone())),
            pool: Pool::new(config.decode_threads)?,
            batcher: driver.handle(),
            card: Arc::new(card),
            model,
        };
        let message_limit = config.server.max_message_len();
        let server = server::Server::new(&config.server).service(
            EmbedderServiceServer::new(service)
                .max_decoding_message_size(message_limit)
                .max_encoding_message_size(message_limit),
        );
        server.health().set(SERVICE_NAME, true).await;
        Ok(Self { server, listener, local_addr, driver, canary })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Serves until `shutdown`, or until the device has died. Then, in order: reports not ready
    /// and drains, stops the batcher, joins the model's thread.
    ///
    /// # Errors
    /// A network that can't be served, or a dead device: the process must end and be replaced.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), Error> {
        let Self { server, listener, local_addr: _, mut driver, canary } = self;
        let health = server.health();
        let stop = Shutdown::new();
        let mut serving = std::pin::pin!(server.serve(listener, stop.clone()));
        let served = tokio::select! {
            served = &mut serving => Some(served),
            () = shutdown.requested() => None,
            () = driver.died() => None,
            never = canary.watch(&health, SERVICE_NAME) => match never {},
        };
        stop.trigger();
        let served = match served {
            Some(served) => served,
            None => serving.await,
        };
        // A device that hangs must not keep the process from being replaced.
        let stopped = tokio::time::timeout(DEVICE_STOP_TIMEOUT, driver.stop()).await;
        stopped.map_err(|_| Error::DeviceStuck)?.map_err(|_died| Error::DeviceGone)?;
        Ok(served?)
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

async fn load(model: &Arc<Model>, config: &Config) -> Result<Thread, Error> {
    let options = Options {
        device: config.device,
        dtype: config.dtype,
        compute_threads: config.compute_threads,
    };
    let model = Arc::clone(model);
    Ok(Thread::start(move || backend::load(&model, &options)).await?)
}

async fn warm_up(driver: &Driver, model: &Model, config: &Config) -> Result<Canary, Error> {
    let size = model.config.vision.image_size;
    // Grey, for which every pixel is a fine one.
    let picture = Input::Picture(vec![128; 3 * size * size]);
    let text = Input::Text(model.tokenizer.encode(CANARY_TEXT)?);
    let canary = Canary::warm_up(driver.handle(), picture, text, config.canary.clone());
    canary.await.map_err(Error::WarmUp)
}

/// What `GetModel` answers.
fn card(
    config: &Config,
    model: &Model,
    fingerprint: String,
    description: &Description,
) -> proto::Model {
    // Sizes of a model that was read fit: see the bounds of its readers.
    let number = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
    let limits = &config.limits;
    proto::Model {
        name: config.model_name(),
        fingerprint,
        dimension: number(model.config.dimension),
        modalities: [proto::Modality::Image, proto::Modality::Text].map(i32::from).to_vec(),
        device: description.device.clone(),
        dtype: description.dtype.as_str().to_owned(),
        max_batch_size: number(config.batch.max_size),
        context_length: number(model.config.text.context_length),
        image_size: number(model.config.vision.image_size),
        limits: Some(proto::Limits {
            max_inputs: number(limits.max_inputs),
            max_image_bytes: limits.max_image_bytes.as_u64(),
            max_image_pixels: limits.max_image_pixels,
            max_text_bytes: limits.max_text_bytes.as_u64(),
        }),
    }
}
