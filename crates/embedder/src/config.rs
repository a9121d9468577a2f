//! What an operator can set.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytesize::ByteSize;
use clipmesh_mesh::server;
use clipmesh_mesh::settings::Validate;
use serde::{Deserialize, Serialize};

use crate::backend::{Device, DeviceChoice, DtypeChoice};
use crate::model::Source;

/// Room in a message for what stands around an image.
const MESSAGE_OVERHEAD: ByteSize = ByteSize::kib(4);

/// See [`BatchConfig::max_size`]. A picture in a batch of 4 takes a CPU two thirds of what it takes
/// alone, and no less in larger ones (ViT-B/32).
const MAX_SIZE_ON_CPU: usize = 8;
const MAX_SIZE_ON_CUDA: usize = 64;

/// Settings of an embedder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where to listen. Default: `127.0.0.1:8082`, reachable from this machine only.
    pub listen: SocketAddr,
    /// `tiny` (comes with clipmesh), a folder in Hugging Face's form, or `org/name` or
    /// `org/name@revision` of the Hugging Face hub, unless there is such a folder. Pin a commit
    /// where several embedders must agree for years. Default: `openai/clip-vit-base-patch32`.
    pub model: Source,
    /// What to call the model in answers. Default: the folder's name, `org/name`, or `tiny`.
    pub model_name: Option<String>,
    /// `auto` (every CUDA device if CUDA works, else the CPU), `cpu`, `cuda` (every device that the
    /// process can see) or `cuda:N` (one of them). Choose `cuda` where a server without its device
    /// should fail rather than be slow. Default: `auto`.
    pub device: DeviceChoice,
    /// `auto` (on CUDA whichever of `f16` and `bf16` comes closer to `f32` with this model; `f32` on
    /// the CPU), `f32`, `f16` (CUDA only) or `bf16` (CUDA, and CPUs with instructions for it). A
    /// half whose vectors have a cosine below 0.999 to those in `f32` is refused. Default: `auto`.
    pub dtype: DtypeChoice,
    /// Threads of the forward pass on a CPU; 0 takes one for each half a billion multiplications of
    /// a picture, at most one per core: one for a tiny model, up to eight for a ViT-B/32. Choose
    /// fewer where other programs use the cores, too: threads that wait for each other wait for
    /// those as well. Default: 0.
    pub compute_threads: usize,
    /// Threads that decode pictures; 0 takes one per core. With a CUDA device, decoding is the
    /// bottleneck: give it all cores. Default: 0.
    pub decode_threads: usize,
    pub batch: BatchConfig,
    pub queue: QueueConfig,
    pub limits: Limits,
    pub preprocess: PreprocessConfig,
    pub canary: CanaryConfig,
    /// What every server has.
    pub server: server::Config,
    /// Logs and traces.
    pub telemetry: clipmesh_telemetry::Config,
}

/// How inputs share a forward pass.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BatchConfig {
    /// Most inputs in one forward pass. More make better use of a device and delay whoever waits
    /// behind them. 0 takes 8 on a CPU, above which nothing is gained there, and 64 on CUDA, where
    /// up to 256 may pay. Less is taken if the device's memory is too small. Default: 0.
    pub max_size: usize,
}

/// How much may be in hand at a time, from a call's arrival to its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueueConfig {
    /// Most inputs, of which bulk work may take three quarters. Choose what the device does in the
    /// longest time that a caller should wait; whoever comes later is told to come back. Default:
    /// 1024.
    pub max_inputs: usize,
    /// Most bytes of files and prepared pictures, of which bulk work may take three quarters.
    /// Default: 512 MiB.
    pub max_bytes: ByteSize,
    /// Most inputs of one `EmbedStream`. Choose a few times `batch.max_size`, so that batches are
    /// full while others are decoded, and less than `max_inputs`, so that several streams find
    /// room. Default: 128.
    pub stream_window: usize,
}

/// What a caller may send. Each bound is checked before memory is spent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Most inputs in one call. Default: 256.
    pub max_inputs: usize,
    /// Longest image file. Default: 20 MiB.
    pub max_image_bytes: ByteSize,
    /// Most pixels of one picture, width times height. Each thread that decodes may take eight
    /// bytes per pixel. Default: 64,000,000.
    pub max_image_pixels: u64,
    /// Longest time that a picture may take to decode, once its turn has come. Of formats that are
    /// decoded in one go (JPEG, WebP, AVIF), the clock is looked at only before and after; there,
    /// what bounds the time are the pixels. Default: 10 s.
    #[serde(with = "humantime_serde")]
    pub max_decode_time: Duration,
    /// Longest text. Default: 8 KiB.
    pub max_text_bytes: ByteSize,
}

/// How files become the model's input.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PreprocessConfig {
    /// Whether a JPEG at least four times as large as the model's picture is shrunk while it is
    /// decoded: to the smallest half, quarter or eighth that is still twice as large. That takes a
    /// third of the time for a camera's 12 megapixels, and changes nothing for small pictures.
    /// Vectors then differ a little from the exact ones (cosine at least 0.999, and above 0.9999
    /// where it was measured), and levels by more than the one that is promised otherwise. So this
    /// is part of the model's fingerprint: embedders that work together must agree on it. Of a
    /// picture whose facts or thumbnail are asked for, all pixels are decoded anyway, and used.
    /// Choose it where most pictures come from cameras. Default: off.
    pub jpeg_scaling: bool,
}

/// How the device's health is watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CanaryConfig {
    /// How often a text whose vector is known is embedded, while nobody else needs the device.
    /// Default: 10 s.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// How long that, or any batch, may take before the device counts as stuck and the service as
    /// not serving. Choose several times what the largest batch takes. Default: 30 s.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// How long a batch may take before the device is given up and the process ends, so that it
    /// can be replaced. Default: 2 min.
    #[serde(with = "humantime_serde")]
    pub give_up_after: Duration,
}

// === impl Config ===

impl Config {
    /// What the model is called in answers.
    pub(crate) fn model_name(&self) -> String {
        self.model_name.clone().unwrap_or_else(|| self.model.name())
    }
}

impl Validate for Config {
    fn faults(&self) -> Vec<String> {
        let mut faults = self.server.faults("server");
        let mut check = |is_fine: bool, fault: &str| {
            if !is_fine {
                faults.push(fault.to_owned());
            }
        };
        let limits = &self.limits;
        check(limits.max_inputs > 0, "`limits.max_inputs` must be at least 1");
        check(limits.max_image_bytes.as_u64() > 0, "`limits.max_image_bytes` must be at least 1");
        check(limits.max_image_pixels > 0, "`limits.max_image_pixels` must be at least 1");
        check(
            !limits.max_decode_time.is_zero(),
            "`limits.max_decode_time` must be longer than zero",
        );
        check(limits.max_text_bytes.as_u64() > 0, "`limits.max_text_bytes` must be at least 1");
        check(
            (1..=self.queue.max_inputs).contains(&self.queue.stream_window),
            "`queue.stream_window` must be at least 1 and at most `queue.max_inputs`",
        );
        check(!self.canary.interval.is_zero(), "`canary.interval` must be longer than zero");
        check(!self.canary.timeout.is_zero(), "`canary.timeout` must be longer than zero");
        check(
            self.canary.give_up_after > self.canary.timeout,
            "`canary.give_up_after` must be longer than `canary.timeout`",
        );
        // A quarter of the queue is closed to bulk work.
        check(
            self.queue.max_inputs / 4 * 3
                >= limits.max_inputs.max(self.batch.max_size_on(Device::Cuda { index: 0 })),
            "`queue.max_inputs` must be at least 4/3 of `limits.max_inputs` and `batch.max_size`",
        );
        check(
            self.queue.max_bytes.as_u64() / 4 * 3 >= self.server.max_message_bytes.as_u64(),
            "`queue.max_bytes` must be at least 4/3 of `server.max_message_bytes`",
        );
        check(
            limits.max_image_bytes + MESSAGE_OVERHEAD <= self.server.max_message_bytes,
            "`limits.max_image_bytes` must be less than `server.max_message_bytes`, by 4 KiB",
        );
        faults
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8082)),
            model: Source::default(),
            model_name: None,
            device: DeviceChoice::default(),
            dtype: DtypeChoice::default(),
            compute_threads: 0,
            decode_threads: 0,
            batch: BatchConfig::default(),
            queue: QueueConfig::default(),
            limits: Limits::default(),
            preprocess: PreprocessConfig::default(),
            canary: CanaryConfig::default(),
            server: server::Config::default(),
            telemetry: clipmesh_telemetry::Config::default(),
        }
    }
}

// === impl BatchConfig ===

impl BatchConfig {
    /// Most inputs in one forward pass on a device; at least 1.
    pub(crate) fn max_size_on(&self, device: Device) -> usize {
        match (self.max_size, device) {
            (0, Device::Cpu) => MAX_SIZE_ON_CPU,
            (0, Device::Cuda { .. }) => MAX_SIZE_ON_CUDA,
            (size, _) => size,
        }
    }
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self { max_inputs: 1024, max_bytes: ByteSize::mib(512), stream_window: 128 }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_inputs: 256,
            max_image_bytes: ByteSize::mib(20),
            max_image_pixels: 64_000_000,
            max_decode_time: Duration::from_secs(10),
            max_text_bytes: ByteSize::kib(8),
        }
    }
}

impl Default for CanaryConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(30),
            give_up_after: Duration::from_secs(120),
        }
    }
}

#[cfg(test)]
mod tests {
    use clipmesh_mesh::settings::{Error, Sources, load};

    use super::*;

    fn from_env(pairs: &[(&str, &str)]) -> Result<Config, Error> {
        let env = pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
        load(&Sources { env, ..Sources::default() })
    }

    #[test]
    fn the_defaults_are_valid_and_survive_printing() {
        let config = from_env(&[]).expect("the shipped defaults");
        assert_eq!(config, Config::default(), "nothing must be set");
        let printed = toml::to_string(&config).expect("settings have a textual form");
        let again: Config = toml::from_str(&printed).expect("what is printed can be read");
        assert_eq!(again, config, "printing loses nothing");
        assert_eq!(config.model_name(), "openai/clip-vit-base-patch32", "the default model");
    }

    #[test]
    fn a_model_is_named_in_any_of_its_forms_and_survives_printing() {
        for (text, name) in
            [("tiny", "tiny"), ("/models/a", "a"), ("org/name@refs/pr/1", "org/name")]
        {
            let config = from_env(&[("CLIPMESH__MODEL", text)]).expect("a model");
            assert_eq!(config.model_name(), name, "{text}");
            let printed = toml::to_string(&config).expect("settings have a textual form");
            let again: Config = toml::from_str(&printed).expect("what is printed can be read");
            assert_eq!(again.model.to_string(), text, "{printed}");
        }
        let error = from_env(&[("CLIPMESH__MODEL", "")]).expect_err("no model").to_string();
        assert!(error.contains("`model` must name"), "the field and its forms: {error}");
    }

    #[test]
    fn the_environment_sets_every_kind_of_value() {
        let config = from_env(&[
            ("CLIPMESH__MODEL", "m"),
            ("CLIPMESH__LISTEN", "0.0.0.0:9000"),
            ("CLIPMESH__DEVICE", "cuda:1"),
            ("CLIPMESH__DTYPE", "bf16"),
            ("CLIPMESH__BATCH__MAX_SIZE", "8"),
            ("CLIPMESH__LIMITS__MAX_IMAGE_BYTES", "1 MiB"),
            ("CLIPMESH__CANARY__INTERVAL", "250ms"),
        ])
        .expect("valid settings");
        assert_eq!(config.listen, SocketAddr::from(([0, 0, 0, 0], 9000)), "address");
        assert_eq!(config.device, DeviceChoice::CudaDevice { index: 1 }, "device");
        assert_eq!(config.batch.max_size, 8, "number");
        assert_eq!(config.limits.max_image_bytes, ByteSize::mib(1), "size");
        assert_eq!(config.canary.interval, Duration::from_millis(250), "duration");
    }

    #[test]
    fn tells_every_fault_at_once() {
        let Err(Error::Invalid(faults)) = from_env(&[
            ("CLIPMESH__CANARY__GIVE_UP_AFTER", "10s"),
            ("CLIPMESH__QUEUE__MAX_INPUTS", "10"),
            ("CLIPMESH__QUEUE__MAX_BYTES", "1 MiB"),
            ("CLIPMESH__LIMITS__MAX_IMAGE_BYTES", "32 MiB"),
        ]) else {
            panic!("four faults are refused");
        };
        for key in [
            "`canary.give_up_after`",
            "`queue.max_inputs`",
            "`queue.max_bytes`",
            "`limits.max_image_bytes`",
        ] {
            assert!(faults.iter().any(|fault| fault.starts_with(key)), "{key} in {faults:?}");
        }
    }
}
