//! Numbers of a few measurements.

use std::time::Duration;

/// The value that a `share` of all are at most, by nearest rank; `share` is above 0 and at most 1.
/// Zero of nothing.
pub(crate) fn quantile(values: &[Duration], share: f64) -> Duration {
    let mut sorted = values.to_vec();
    sorted.sort();
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

pub(crate) fn median(values: &[Duration]) -> Duration {
    quantile(values, 0.5)
}

/// The middle of numbers, and the lowest and highest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Spread {
    /// NaN of nothing.
    pub(crate) fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        let last = sorted.len().saturating_sub(1);
        Self { median: (at(last / 2) + at(sorted.len() / 2)) / 2.0, low: at(0), high: at(last) }
    }
}

/// Events per second: the slope of the line that runs nearest to the count of events over time.
/// Answers come in bursts, one per batch, so that counting them between two moments would depend
/// on where in a burst those lie.
pub(crate) fn rate(times: &[Duration]) -> f64 {
    let mut seconds: Vec<f64> = times.iter().map(Duration::as_secs_f64).collect();
    seconds.sort_by(f64::total_cmp);
    let count = seconds.len() as f64;
    let mean_time = seconds.iter().sum::<f64>() / count;
    let mean_index = (count - 1.0) / 2.0;
    let (mut covariance, mut variance) = (0.0, 0.0);
    for (index, time) in seconds.iter().enumerate() {
        covariance += (index as f64 - mean_index) * (time - mean_time);
        variance += (time - mean_time).powi(2);
    }
    covariance / variance
}
