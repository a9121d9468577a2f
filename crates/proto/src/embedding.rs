//! Unit vectors.

/// A finite vector of Euclidean length 1, so that a dot product is a cosine.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding(Vec<f32>);

/// Why some numbers are not a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the vector is empty")]
    Empty,
    #[error("the vector holds a value that is not finite at position {position}")]
    NotFinite { position: usize },
    #[error("the vector is all zeros and points nowhere")]
    Zero,
}

impl Embedding {
    /// Scales `values` to length 1.
    ///
    /// # Errors
    /// Refuses an empty vector, one with a NaN or an infinity, and one of length zero.
    pub fn new(mut values: Vec<f32>) -> Result<Self, Error> {
        if values.is_empty() {
            return Err(Error::Empty);
        }
        if let Some(position) = values.iter().position(|value| !value.is_finite()) {
            return Err(Error::NotFinite { position });
        }
        // In double precision, where no square of a float overflows.
        let length = values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
        if length == 0.0 {
            return Err(Error::Zero);
        }
        for value in &mut values {
            *value = (f64::from(*value) / length) as f32;
        }
        Ok(Self(values))
    }

    pub fn values(&self) -> &[f32] {
        &self.0
    }

    pub fn into_values(self) -> Vec<f32> {
        self.0
    }

    /// How many floats it has.
    pub fn dimension(&self) -> usize {
        self.0.len()
    }

    /// Cosine similarity, in [-1, 1] up to rounding. Both must come from one model.
    pub fn dot(&self, other: &Self) -> f32 {
        debug_assert_eq!(self.dimension(), other.dimension(), "vectors of two models");
        self.0.iter().zip(&other.0).map(|(a, b)| a * b).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_to_unit_length() {
        let embedding = Embedding::new(vec![3.0, 4.0]).expect("a direction");
        assert_eq!(embedding.values(), [0.6, 0.8], "3-4-5 triangle");
        assert!((embedding.dot(&embedding) - 1.0).abs() < 1e-6, "cosine with itself is 1");
    }

    #[test]
    fn survives_the_largest_and_smallest_floats() {
        let large = Embedding::new(vec![f32::MAX, f32::MAX]).expect("a direction");
        let expected = std::f32::consts::FRAC_1_SQRT_2;
        assert!((large.values()[0] - expected).abs() < 1e-6, "no overflow: {large:?}");
        let small = Embedding::new(vec![f32::MIN_POSITIVE, 0.0]).expect("a direction");
        assert_eq!(small.values(), [1.0, 0.0], "no underflow");
    }

    #[test]
    fn refuses_what_has_no_direction() {
        assert_eq!(Embedding::new(vec![]), Err(Error::Empty), "no values");
        assert_eq!(Embedding::new(vec![0.0; 4]), Err(Error::Zero), "all zeros");
        let nan = Embedding::new(vec![0.0, f32::NAN]);
        assert_eq!(nan, Err(Error::NotFinite { position: 1 }), "a NaN");
        let infinite = Embedding::new(vec![f32::INFINITY]);
        assert_eq!(infinite, Err(Error::NotFinite { position: 0 }), "an infinity");
    }
}
