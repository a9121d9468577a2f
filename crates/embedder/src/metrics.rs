//! The embedder's metrics: their names, and the only place that measures. What each is for is in
//! `docs/operations/metrics.md`.
//!
//! Labels are closed sets: lanes, kinds of inputs, reasons. The bounds of histograms are those of
//! `clipmesh_telemetry`, by the unit at the end of the name.

use std::time::Duration;

use crate::lane::Lane;

/// Inputs that wait for the device, by lane.
const QUEUE_DEPTH: &str = "clipmesh_embedder_queue_inputs";
/// How long they waited, by lane.
const QUEUE_WAIT: &str = "clipmesh_embedder_queue_wait_seconds";
/// Inputs that were dropped before they cost compute, by reason.
const DROPPED: &str = "clipmesh_embedder_dropped_total";
/// Calls that were refused because too much was in hand, by lane.
const REFUSED: &str = "clipmesh_embedder_refused_total";
/// Inputs per forward pass, by kind: count is passes, sum is inputs.
const BATCH_INPUTS: &str = "clipmesh_embedder_batch_inputs";
/// Time of a forward pass, by kind.
const COMPUTE: &str = "clipmesh_embedder_compute_seconds";
/// Inputs that got their vectors, by kind.
const EMBEDDED: &str = "clipmesh_embedder_embedded_total";
/// Time of preprocessing an input, by kind.
const PREPROCESS: &str = "clipmesh_embedder_preprocess_seconds";
/// How long an input waited for a thread to preprocess it, by kind.
const PREPROCESS_WAIT: &str = "clipmesh_embedder_preprocess_wait_seconds";
/// Inputs that could not be taken, by the reason that their caller was told.
const FAULTS: &str = "clipmesh_embedder_faults_total";
/// Memory of a CUDA device that is taken, by this process or another, by device.
const DEVICE_MEMORY: &str = "clipmesh_embedder_device_memory_bytes";
/// Forward passes that failed, by how.
const FAILED_PASSES: &str = "clipmesh_embedder_failed_passes_total";
/// Canaries that did not sing, by what was wrong.
const CANARY_FAILURES: &str = "clipmesh_embedder_canary_failures_total";

/// Why an input was dropped.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Drop {
    Expired,
    Abandoned,
}

/// What an input is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Image,
    Text,
}

// === impl Kind ===

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Text => "text",
        }
    }
}

pub(crate) fn queue_depth(lane: Lane, inputs: usize) {
    metrics::gauge!(QUEUE_DEPTH, "lane" => lane.as_str()).set(inputs as f64);
}

pub(crate) fn waited(lane: Lane, wait: Duration) {
    metrics::histogram!(QUEUE_WAIT, "lane" => lane.as_str()).record(wait);
}

pub(crate) fn dropped(reason: Drop, count: usize) {
    let reason = match reason {
        Drop::Expired => "expired",
        Drop::Abandoned => "abandoned",
    };
    metrics::counter!(DROPPED, "reason" => reason).increment(count as u64);
}

pub(crate) fn refused(lane: Lane) {
    metrics::counter!(REFUSED, "lane" => lane.as_str()).increment(1);
}

/// A forward pass that went well.
pub(crate) fn computed(kind: Kind, inputs: usize, elapsed: Duration) {
    let kind = kind.as_str();
    metrics::histogram!(BATCH_INPUTS, "kind" => kind).record(inputs as f64);
    metrics::histogram!(COMPUTE, "kind" => kind).record(elapsed);
    metrics::counter!(EMBEDDED, "kind" => kind).increment(inputs as u64);
}

pub(crate) fn preprocessed(kind: Kind, waited: Duration, elapsed: Duration) {
    let kind = kind.as_str();
    metrics::histogram!(PREPROCESS_WAIT, "kind" => kind).record(waited);
    metrics::histogram!(PREPROCESS, "kind" => kind).record(elapsed);
}

pub(crate) fn fault(reason: &'static str) {
    metrics::counter!(FAULTS, "reason" => reason).increment(1);
}

pub(crate) fn device_memory(device: &str, bytes: usize) {
    metrics::gauge!(DEVICE_MEMORY, "device" => device.to_owned()).set(bytes as f64);
}

pub(crate) fn pass_failed(fault: &'static str) {
    metrics::counter!(FAILED_PASSES, "fault" => fault).increment(1);
}

pub(crate) fn canary_failed(what: &'static str) {
    metrics::counter!(CANARY_FAILURES, "what" => what).increment(1);
}
