//! The direction of several vectors together.

use clipmesh_proto::Embedding;
use clipmesh_proto::code::{FieldViolation, Reason};

/// A sum that is shorter than this part of what its weights add up to points nowhere: what is left
/// of the vectors is mostly the rounding of an embedder in half precision.
const MIN_LENGTH: f64 = 1e-3;

/// The direction of the sum of weight × vector. All vectors have one dimension.
///
/// # Errors
/// Vectors that cancel each other out.
pub(super) fn combine(mut parts: Vec<(f32, Embedding)>) -> Result<Embedding, FieldViolation> {
    if let [(weight, _)] = parts.as_slice()
        && *weight > 0.0
        && let Some((_, alone)) = parts.pop()
    {
        // As it is, to the bit: a weight alone weighs against nothing.
        return Ok(alone);
    }
    let dimension = parts.first().map_or(0, |(_, vector)| vector.dimension());
    let mut sum = vec![0.0; dimension];
    let mut weights = 0.0;
    for (weight, vector) in &parts {
        debug_assert_eq!(vector.dimension(), dimension, "vectors of two models");
        let weight = f64::from(*weight);
        weights += weight.abs();
        for (total, value) in sum.iter_mut().zip(vector.values()) {
            *total += weight * f64::from(*value);
        }
    }
    let length = sum.iter().map(|total| total * total).sum::<f64>().sqrt();
    if length < MIN_LENGTH * weights {
        return Err(cancels_out());
    }
    // Scaled before it is made single: the weights may be too small for that, their ratio is not.
    let values = sum.into_iter().map(|total| (total / length) as f32).collect();
    Embedding::new(values).map_err(|_| cancels_out())
}

fn cancels_out() -> FieldViolation {
    let message = "the parts cancel each other out, so that no direction is left to look in";
    FieldViolation::new("query.mix", Reason::CancelsOut, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(values: &[f32]) -> Embedding {
        Embedding::new(values.to_vec()).expect("a direction")
    }

    fn mixed(parts: &[(f32, &[f32])]) -> Result<Embedding, FieldViolation> {
        combine(parts.iter().map(|(weight, values)| (*weight, unit(values))).collect())
    }

    #[track_caller]
    fn assert_near(parts: &[(f32, &[f32])], expected: &[f32]) {
        let mixed = mixed(parts).expect("a direction");
        assert_eq!(mixed.dimension(), expected.len(), "as long as its parts");
        for (value, expected) in mixed.values().iter().zip(expected) {
            assert!((value - expected).abs() < 1e-6, "{parts:?}: {mixed:?}, not {expected:?}");
        }
    }

    #[test]
    fn weighs_the_directions_and_not_the_lengths() {
        assert_near(&[(3.0, &[1.0, 0.0]), (4.0, &[0.0, 1.0])], &[0.6, 0.8]);
        assert_near(&[(3.0, &[9.0, 0.0]), (4.0, &[0.0, 0.1])], &[0.6, 0.8]);
        assert_near(&[(0.3, &[1.0, 0.0]), (0.4, &[0.0, 1.0])], &[0.6, 0.8]);
        assert_near(&[(3.0, &[1.0, 0.0]), (-4.0, &[0.0, 1.0])], &[0.6, -0.8]);
        assert_near(&[(1.0, &[1.0, 0.0]), (2.0, &[1.0, 0.0])], &[1.0, 0.0]);
    }

    #[test]
    fn the_smallest_weights_count_as_the_largest() {
        let tiny = f32::MIN_POSITIVE;
        assert_near(&[(3.0 * tiny, &[1.0, 0.0]), (4.0 * tiny, &[0.0, 1.0])], &[0.6, 0.8]);
    }

    #[test]
    fn a_part_alone_is_its_own_vector() {
        let vector = unit(&[0.1, -0.7, 0.3]);
        for weight in [1.0, 0.001, 10.0] {
            assert_eq!(combine(vec![(weight, vector.clone())]), Ok(vector.clone()), "× {weight}");
        }
        assert_near(&[(-2.0, &[3.0, -4.0])], &[-0.6, 0.8]);
    }

    #[test]
    fn what_cancels_out_is_refused() {
        let nearly: &[f32] = &[1.0, 1e-4, 0.0];
        let cases: [&[(f32, &[f32])]; 4] = [
            &[(1.0, &[0.1, 0.7, 0.3]), (-1.0, &[0.1, 0.7, 0.3])],
            &[(10.0, &[1.0, 0.0, 0.0]), (10.0, &[-1.0, 0.0, 0.0])],
            &[(1.0, nearly), (-1.0, &[1.0, 0.0, 0.0])],
            &[(1.0, nearly), (1.0, nearly), (-2.0, nearly)],
        ];
        for parts in cases {
            let violation = mixed(parts).expect_err("no direction");
            assert_eq!(violation.field, "query.mix", "{parts:?}");
            assert_eq!(violation.reason, Reason::CancelsOut, "{parts:?}");
        }
        let hardly: &[f32] = &[1.0, 0.01, 0.0];
        assert!(mixed(&[(1.0, hardly), (-1.0, &[1.0, 0.0, 0.0])]).is_ok(), "a small difference");
    }
}
