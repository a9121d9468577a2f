//! Knows whether a device computes right, by asking it something whose answer is known.

use std::sync::Arc;

use clipmesh_proto::embedding::Embedding;
use tracing::Span;

use crate::backend::sizes::Sizes;
use crate::backend::thread::Thread;
use crate::backend::{self, Batch, Description, Output};
use crate::batcher::Song;
use crate::error::CallError;
use crate::model::Tokens;

/// Lowest cosine to the first answer that counts as the same: batches of other sizes round
/// differently, in half precision by about 1e-3.
const SAME: f32 = 0.99;

/// Inputs that every device is tried with, one of each kind that the model takes.
#[derive(Clone, Debug)]
pub(crate) struct Probes {
    /// RGB levels.
    pub(crate) picture: Vec<u8>,
    pub(crate) text: Option<Tokens>,
}

/// An input and its vector.
#[derive(Debug)]
pub(crate) struct Canary {
    batch: Arc<Batch>,
    expected: Embedding,
}

/// A device that was tried and found well.
#[derive(Debug)]
pub(crate) struct Trained {
    pub(crate) thread: Thread,
    pub(crate) canary: Canary,
    /// Sizes of the batches that it has memory for.
    pub(crate) sizes: Sizes,
}

impl Probes {
    /// Batches of so many inputs, the one last that is cheaper.
    fn batches(&self, inputs: usize) -> Vec<Arc<Batch>> {
        let pictures = Batch::Pictures(vec![self.picture.clone(); inputs]);
        let texts = self.text.as_ref().map(|text| Batch::Texts(vec![text.clone(); inputs]));
        [Some(pictures), texts].into_iter().flatten().map(Arc::new).collect()
    }
}

impl Trained {
    /// Runs each size that batches are padded to, so that no caller pays for a device's first time
    /// with it, finds the largest one that the device has memory for, and learns the canary's song.
    ///
    /// # Errors
    /// A device that fails, or has no memory for a single input.
    pub(crate) async fn warm_up(
        thread: Thread,
        probes: &Probes,
        max_batch: usize,
    ) -> Result<Self, CallError> {
        let canary = Canary::learn(&thread, probes).await?;
        let sizes = match &thread.description().padding {
            Some(padding) => largest(&thread, probes, padding).await?,
            // Any size is as good as the others.
            None => Sizes::up_to(max_batch),
        };
        Ok(Self { thread, canary, sizes })
    }

    pub(crate) fn description(&self) -> &Description {
        self.thread.description()
    }
}

/// The sizes up to the largest one that fits.
async fn largest(thread: &Thread, probes: &Probes, padding: &Sizes) -> Result<Sizes, CallError> {
    let mut fits = 1;
    for &size in padding.steps() {
        for batch in probes.batches(size) {
            match thread.embed(batch, Span::none()).await {
                Ok(_) => {}
                Err(backend::Error::OutOfMemory) if size > 1 => {
                    tracing::warn!(size, fits, "the device has no memory for a batch of this size");
                    return Ok(Sizes::up_to(fits));
                }
                Err(error) => return Err(failed(&error)),
            }
        }
        fits = size;
    }
    Ok(padding.clone())
}

impl Canary {
    async fn learn(thread: &Thread, probes: &Probes) -> Result<Self, CallError> {
        let mut learned = None;
        for batch in probes.batches(1) {
            let sung = thread.embed(Arc::clone(&batch), Span::none()).await;
            let (output, _) = sung.map_err(|error| failed(&error))?;
            let values = output.into_iter().next().unwrap_or_default();
            learned = Some(Self { batch, expected: Embedding::new(values)? });
        }
        learned.ok_or(CallError::Stopped)
    }

    /// Length of the device's vectors.
    pub(crate) fn dimension(&self) -> usize {
        self.expected.dimension()
    }

    /// What it sings.
    pub(crate) fn batch(&self) -> &Arc<Batch> {
        &self.batch
    }

    /// Compares what came of it with what is known.
    pub(crate) fn judge(&self, output: Output) -> Song {
        let vector = output.into_iter().next().map(Embedding::new);
        match vector {
            Some(Ok(vector)) if vector.dot(&self.expected) >= SAME => Song::Right,
            Some(_) | None => Song::Wrong,
        }
    }
}

fn failed(error: &backend::Error) -> CallError {
    CallError::Compute { message: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::fake::{Act, Fake};

    fn probes() -> Probes {
        Probes { picture: vec![1; 4], text: Some(Tokens { ids: vec![3], pool_at: 0 }) }
    }

    async fn warmed_up(fake: Fake) -> Result<Trained, CallError> {
        let thread = Thread::start(|| Ok(Box::new(fake))).await.expect("a fake loads");
        Trained::warm_up(thread, &probes(), 16).await
    }

    #[tokio::test]
    async fn the_same_vector_is_right_and_any_other_wrong() {
        let device = warmed_up(Fake::new(4)).await.expect("the fake answers");
        let output = device.thread.embed(Arc::clone(device.canary.batch()), Span::none()).await;
        let (output, _) = output.expect("the fake answers");
        assert_eq!(device.canary.judge(output), Song::Right, "the same text, the same vector");
        for wrong in [vec![vec![50.0, 1.0, 1.0, 1.0]], vec![vec![f32::NAN; 4]], vec![]] {
            assert_eq!(device.canary.judge(wrong.clone()), Song::Wrong, "{wrong:?}");
        }
    }

    #[tokio::test]
    async fn a_model_without_texts_sings_with_a_picture() {
        let thread = Thread::start(|| Ok(Box::new(Fake::new(4)))).await.expect("a fake loads");
        let probes = Probes { text: None, ..probes() };
        let device = Trained::warm_up(thread, &probes, 4).await.expect("the fake answers");
        assert!(matches!(&**device.canary.batch(), Batch::Pictures(_)), "what it can do");
    }

    #[tokio::test]
    async fn every_padded_size_is_run_and_the_largest_that_fits_is_found() {
        let (fake, gate) = Fake::gated(4);
        for _ in 0..20 {
            gate.open.send(()).expect("the fake lives");
        }
        let device = warmed_up(fake.pipelined(8)).await.expect("the fake answers");
        assert_eq!(device.sizes, Sizes::up_to(8), "all of them");
        let sizes: Vec<usize> = gate.started.try_iter().collect();
        assert_eq!(sizes, [1, 1, 1, 1, 2, 2, 4, 4, 8, 8], "a picture and a text of each");
        let device = warmed_up(Fake::new(4).pipelined(16).with_memory_for(5)).await;
        assert_eq!(device.expect("four fit").sizes, Sizes::up_to(4), "those that fit");
    }

    #[tokio::test]
    async fn a_device_that_fails_from_the_start_is_not_served() {
        for act in [Act::Fail, Act::OutOfMemory, Act::NotANumber] {
            let device = warmed_up(Fake::new(4).script([act])).await;
            assert!(device.is_err(), "{act:?}");
        }
    }
}
