//! The few sizes that batches are padded to: 1, 2, 4 and so on up to the largest.
//!
//! A GPU's libraries choose and prepare their programs for each shape that they see for the first
//! time, which takes far longer than a pass. With few sizes, each can be run before anyone waits.

/// Sizes of batches, ascending, the first one 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes {
    steps: Vec<usize>,
}

impl Sizes {
    /// Powers of two below `max`, and `max`, which is at least 1.
    pub fn up_to(max: usize) -> Self {
        let powers = std::iter::successors(Some(1_usize), |size| size.checked_mul(2));
        let below = powers.take_while(|&size| size < max);
        Self { steps: below.chain([max.max(1)]).collect() }
    }

    /// All of them, ascending.
    pub fn steps(&self) -> &[usize] {
        &self.steps
    }

    /// The largest one.
    pub fn max(&self) -> usize {
        self.steps.last().copied().unwrap_or(1)
    }

    /// What a batch of so many is padded to.
    pub fn padded(&self, inputs: usize) -> usize {
        self.steps.iter().copied().find(|&size| size >= inputs).unwrap_or(inputs)
    }

    /// How many of `waiting` inputs to take: all, unless more than a quarter of the pass would be
    /// spent on padding. Then it's the next smaller size, and the others come next.
    pub fn worthwhile(&self, waiting: usize) -> usize {
        let padded = self.padded(waiting);
        if 4 * waiting >= 3 * padded { waiting } else { self.floor(waiting) }
    }

    /// The largest one that is at most half of `size`; 1 is not halved.
    pub fn halved(&self, size: usize) -> usize {
        self.floor(size / 2)
    }

    /// The next one above `size`, if there is one.
    pub fn above(&self, size: usize) -> Option<usize> {
        self.steps.iter().copied().find(|&step| step > size)
    }

    fn floor(&self, size: usize) -> usize {
        self.steps.iter().copied().take_while(|&step| step <= size).last().unwrap_or(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_two_and_the_largest() {
        assert_eq!(Sizes::up_to(1).steps(), [1], "one");
        assert_eq!(Sizes::up_to(8).steps(), [1, 2, 4, 8], "a power of two");
        assert_eq!(Sizes::up_to(12).steps(), [1, 2, 4, 8, 12], "any other");
        assert_eq!(Sizes::up_to(0).steps(), [1], "never none");
    }

    #[test]
    fn a_batch_is_padded_a_little_or_split() {
        let sizes = Sizes::up_to(64);
        for (waiting, expected) in [(1, 1), (2, 2), (3, 3), (5, 4), (6, 6), (33, 32), (48, 48)] {
            assert_eq!(sizes.worthwhile(waiting), expected, "{waiting} wait");
        }
        assert_eq!((sizes.padded(3), sizes.padded(48), sizes.padded(64)), (4, 64, 64), "padded");
    }

    #[test]
    fn halves_and_steps_are_sizes_themselves() {
        let sizes = Sizes::up_to(12);
        let halves: Vec<_> = [12, 8, 2, 1].map(|size| sizes.halved(size)).into();
        assert_eq!(halves, [4, 4, 1, 1], "down, and no further than one");
        assert_eq!((sizes.above(4), sizes.above(8), sizes.above(12)), (Some(8), Some(12), None));
    }
}
