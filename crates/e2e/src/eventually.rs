//! Waiting for something to become true, without guessing how long it takes.

use std::fmt::Display;
use std::time::Duration;

use anyhow::bail;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

/// How often a condition is looked at. Short against everything that is waited for, long against
/// the cost of a look.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Repeats `attempt` until it succeeds, and returns what it found.
///
/// # Errors
/// After `within`: `what` was waited for, and why the last attempt failed.
pub async fn eventually<T, E: Display>(
    what: &str,
    within: Duration,
    mut attempt: impl AsyncFnMut() -> Result<T, E>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + within;
    let mut ticks = interval(POLL_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = "no attempt came to an end".to_owned();
    while Instant::now() < deadline {
        ticks.tick().await;
        match timeout_at(deadline, attempt()).await {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(error)) => last = error.to_string(),
            Err(_) => break,
        }
    }
    bail!("{what}: not within {within:?}; last: {last}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn returns_the_first_success() {
        let mut attempts = 0;
        let found = eventually("third time lucky", Duration::from_secs(1), async || {
            attempts += 1;
            if attempts < 3 { Err("not yet") } else { Ok(attempts) }
        })
        .await;
        assert_eq!(found.expect("the third attempt succeeds"), 3, "two attempts failed");
    }

    #[tokio::test(start_paused = true)]
    async fn says_why_the_last_attempt_failed() {
        let error = eventually("never", Duration::from_secs(1), async || Err::<(), _>("still no"))
            .await
            .expect_err("it never succeeds")
            .to_string();
        assert!(error.contains("never") && error.contains("still no"), "what and why: {error}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_hangs_is_given_up() {
        let hanging = eventually("hangs", Duration::from_secs(1), async || {
            std::future::pending::<Result<(), &str>>().await
        });
        assert!(hanging.await.is_err(), "the deadline covers the attempt too");
    }
}
