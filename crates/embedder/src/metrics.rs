//! The embedder's metrics.

use std::time::Duration;

use crate::lane::Lane;

/// Inputs that wait for the device, by lane.
const QUEUE_DEPTH: &str = "clipmesh_embedder_queue_inputs";
/// How long they waited, by lane.
const QUEUE_WAIT: &str = "clipmesh_embedder_queue_wait_seconds";
/// Inputs that were dropped before they cost compute, by reason.
const DROPPED: &str = "clipmesh_embedder_dropped_total";
/// Calls that were refused because too much was in hand.
const REFUSED: &str = "clipmesh_embedder_refused_total";
/// Inputs per forward pass: count is passes, sum is inputs.
const BATCH_INPUTS: &str = "clipmesh_embedder_batch_inputs";
/// Time of a forward pass.
const COMPUTE: &str = "clipmesh_embedder_compute_seconds";
/// Time of preprocessing an input, by kind.
const PREPROCESS: &str = "clipmesh_embedder_preprocess_seconds";
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

pub(crate) fn queue_depth(lane: Lane, inputs: usize) {
    metrics::gauge!(QUEUE_DEPTH, "lane" => lane.as_str()).set(inputs as f64);
}

pub(crate) fn waited(lane: Lane, wait: Duration) {
    metrics::histogram!(QUEUE_WAIT, "lane" => lane.as_str()).record(wait);
}

pub(crate) fn device_memory(index: usize, bytes: usize) {
    metrics::gauge!(DEVICE_MEMORY, "device" => format!("cuda:{index}")).set(bytes as f64);
}

pub(crate) fn pass_failed(fault: &'static str) {
    metrics::counter!(FAILED_PASSES, "fault" => fault).increment(1);
}

pub(crate) fn dropped(reason: Drop, count: usize) {
    let reason = match reason {
        Drop::Expired => "expired",
        Drop::Abandoned => "abandoned",
    };
    metrics::counter!(DROPPED, "reason" => reason).increment(count as u64);
}

pub(crate) fn refused() {
    metrics::counter!(REFUSED).increment(1);
}

pub(crate) fn computed(inputs: usize, elapsed: Duration) {
    metrics::histogram!(BATCH_INPUTS).record(inputs as f64);
    metrics::histogram!(COMPUTE).record(elapsed);
}

pub(crate) fn preprocessed(kind: Kind, elapsed: Duration) {
    let kind = match kind {
        Kind::Image => "image",
        Kind::Text => "text",
    };
    metrics::histogram!(PREPROCESS, "kind" => kind).record(elapsed);
}

pub(crate) fn fault(reason: &'static str) {
    metrics::counter!(FAULTS, "reason" => reason).increment(1);
}

pub(crate) fn canary_failed(what: &'static str) {
    metrics::counter!(CANARY_FAILURES, "what" => what).increment(1);
}
