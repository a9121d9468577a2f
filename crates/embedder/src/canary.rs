//! Knows whether the device still computes right, by asking it something whose answer is known.

use std::convert::Infallible;
use std::time::Duration;

use clipmesh_mesh::health;
use clipmesh_proto::embedding::Embedding;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::batcher::{Handle, Input};
use crate::config::CanaryConfig;
use crate::error::CallError;
use crate::metrics;

/// Lowest cosine to the first answer that counts as the same: batches of other sizes round
/// differently, in half precision by about 1e-3.
const SAME: f32 = 0.99;

/// A text and its vector.
#[derive(Debug)]
pub(crate) struct Canary {
    batcher: Handle,
    text: Input,
    expected: Embedding,
    config: CanaryConfig,
}

impl Canary {
    /// Runs a picture and a text, so that no caller pays for the device's first time, and keeps
    /// the text's vector.
    pub(crate) async fn warm_up(
        batcher: Handle,
        picture: Input,
        text: Input,
        config: CanaryConfig,
    ) -> Result<Self, CallError> {
        embed(&batcher, picture).await?;
        let expected = embed(&batcher, text.clone()).await?;
        Ok(Self { batcher, text, expected, config })
    }

    /// Asks again and again while the device has nothing else to do, and reports to `health`.
    /// While it has, its successes are proof enough of life, and the canary must not take its time.
    pub(crate) async fn watch(&self, health: &health::Reporter, service: &str) -> Infallible {
        let mut ticks = interval(self.config.interval);
        // After a stall, one question is enough.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick comes at once, and the warm-up was just now.
        ticks.tick().await;
        let mut was_well = true;
        loop {
            ticks.tick().await;
            let is_well = match self.batcher.unproven() {
                Some(elapsed) if !self.batcher.is_idle() => self.judge(elapsed),
                _ => self.ask(self.config.timeout).await,
            };
            if is_well != was_well {
                health.set(service, is_well).await;
                was_well = is_well;
                if is_well {
                    tracing::info!("the device answers right again");
                }
            }
        }
    }

    /// Judges a device that is busy by how long ago it should have succeeded.
    fn judge(&self, unproven: Duration) -> bool {
        let is_well = unproven < self.config.timeout;
        if !is_well {
            metrics::canary_failed("stuck");
            tracing::error!(?unproven, "the device hangs, or fails on every batch");
        }
        is_well
    }

    async fn ask(&self, patience: Duration) -> bool {
        let what = match timeout(patience, embed(&self.batcher, self.text.clone())).await {
            Ok(Ok(vector)) if vector.dot(&self.expected) >= SAME => return true,
            Ok(Ok(_)) => "wrong",
            // Others came first, which is as good as an answer.
            Ok(Err(CallError::Busy { .. })) => return true,
            Ok(Err(_)) => "error",
            Err(_) => "timeout",
        };
        metrics::canary_failed(what);
        tracing::error!(what, "the device does not answer right");
        false
    }
}

async fn embed(batcher: &Handle, input: Input) -> Result<Embedding, CallError> {
    // A few hundred numbers; what they weigh does not matter.
    let permit = batcher.admit(&[0])?.remove(0);
    Ok(batcher.embed(input, None, permit).await?.vector)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::fake::Fake;
    use crate::backend::thread::Thread;
    use crate::batcher::{self, Bounds};
    use crate::model::Tokens;

    const SERVICE: &str = "test";

    async fn canary(fake: Fake) -> (batcher::Driver, Result<Canary, CallError>) {
        let thread = Thread::start(|| Ok(Box::new(fake))).await.expect("a fake loads");
        let bounds = Bounds { max_batch: 4, max_inputs: 4, max_bytes: 100 };
        let driver = batcher::start(thread, bounds);
        let text = Input::Text(Tokens { ids: vec![3], pool_at: 0 });
        let config =
            CanaryConfig { interval: Duration::from_millis(1), timeout: Duration::from_secs(9) };
        let canary = Canary::warm_up(driver.handle(), Input::Picture(vec![1]), text, config).await;
        (driver, canary)
    }

    #[tokio::test]
    async fn is_well_while_the_answer_is_the_same() {
        let (_driver, canary) = canary(Fake::new(4)).await;
        let mut canary = canary.expect("the fake answers");
        assert!(canary.ask(Duration::from_secs(9)).await, "the same text, the same vector");
        canary.text = Input::Text(Tokens { ids: vec![50], pool_at: 0 });
        assert!(!canary.ask(Duration::from_secs(9)).await, "another vector is a wrong one");
    }

    #[tokio::test]
    async fn a_device_that_is_gone_is_reported() {
        let (driver, canary) = canary(Fake::new(4)).await;
        let canary = canary.expect("the fake answers");
        let health = health::Reporter::new();
        health.set(SERVICE, true).await;
        driver.stop().await.expect("an ordered end");
        tokio::select! {
            _ = canary.watch(&health, SERVICE) => {}
            () = async { while health.is_ready() { tokio::task::yield_now().await } } => {}
        }
        assert!(!health.is_ready(), "the service is not healthy");
    }

    #[tokio::test]
    async fn a_device_that_fails_from_the_start_is_not_served() {
        let (_driver, canary) = canary(Fake::new(4).failing()).await;
        assert!(matches!(canary, Err(CallError::Compute { .. })), "the warm-up fails");
    }
}
