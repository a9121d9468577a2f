//! The bounds of histograms, for every clipmesh process.
//!
//! They are the same everywhere, so that one dashboard can add up and compare services. Whatever
//! is not named here gets bounds too: without any, the exporter would write quantiles, which can't
//! be added up over replicas.

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder};

/// Seconds, in steps of 1, 2 and 5: a quantile that is read off them is at most 2.5 times too
/// high. From a cache hit on loopback (below 1 ms) to the slowest call that a caller still waits
/// for (10 s) and a cold start behind it. The service objectives of 50 ms and 1 s are bounds, so
/// that the share of calls within them is exact.
const SECONDS: [f64; 15] =
    [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];

/// Numbers of things, such as the inputs of a batch. Batches are padded to powers of two, so that
/// each bound is a size that is run.
const COUNTS: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

/// Gives every histogram its bounds, by the unit at the end of its name.
pub(crate) fn choose(builder: PrometheusBuilder) -> Result<PrometheusBuilder, BuildError> {
    builder
        .set_buckets(&COUNTS)?
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
}

#[cfg(test)]
mod tests {
    use metrics::{Key, Level, Metadata, Recorder as _};

    use super::*;

    /// What a scrape shows of a histogram that was given one value.
    fn rendered(name: &'static str, value: f64) -> String {
        let builder = choose(PrometheusBuilder::new()).expect("bounds");
        let recorder = builder.build_recorder();
        let metadata = Metadata::new("test", Level::INFO, None);
        recorder.register_histogram(&Key::from_name(name), &metadata).record(value);
        recorder.handle().render()
    }

    #[test]
    fn bounds_grow() {
        for bounds in [&SECONDS[..], &COUNTS[..]] {
            assert!(bounds.windows(2).all(|pair| pair[0] < pair[1]), "{bounds:?}");
        }
    }

    #[test]
    fn seconds_are_counted_by_the_service_objectives() {
        let text = rendered("a_wait_seconds", 0.03);
        for line in [
            "a_wait_seconds_bucket{le=\"0.02\"} 0",
            "a_wait_seconds_bucket{le=\"0.05\"} 1",
            "a_wait_seconds_bucket{le=\"1\"} 1",
        ] {
            assert!(text.contains(line), "`{line}` is not in:\n{text}");
        }
    }

    #[test]
    fn nothing_is_left_to_quantiles() {
        for name in ["a_batch_inputs", "a_thing_without_a_unit"] {
            let text = rendered(name, 3.0);
            assert!(text.contains(&format!("{name}_bucket{{le=\"4\"}} 1")), "bounds in:\n{text}");
            assert!(!text.contains("quantile"), "no quantiles in:\n{text}");
        }
    }
}
