//! Vectors that are as hard to search as those of pictures, from a seed.
//!
//! Of a real encoder, all vectors lie in a cone, in clusters of very different size, and differ in a
//! few directions much and in most a little. So: a vector is the common direction, plus its cluster's,
//! plus its own, scaled to length 1. Each of the three is drawn with a variance that falls with the
//! number of the coordinate, as 1/(i + 1). One cluster for 500 vectors, sizes by Zipf's law with
//! exponent 0.7. Queries are drawn like the vectors, and are none of them.
//!
//! Beside its vector, each item has tags. Some are drawn by chance: `p50` with one half, `p10`, `p1`
//! and `p01` with 10 %, 1 % and 0.1 %. Others go with the cluster, as what people filter by often
//! does: `c50` is on every second cluster, `c10` on every tenth. Another field has the name of the
//! cluster.

use clipmesh_proto::Embedding;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// How much a cluster and a vector lie off the common direction.
const CLUSTER_SPREAD: f32 = 1.0;
const OWN_SPREAD: f32 = 0.7;
const VECTORS_PER_CLUSTER: usize = 500;
const SIZE_EXPONENT: f64 = 0.7;

/// Tags, and the chance of each.
pub(crate) const TAGS: [(&str, f64); 4] =
    [("p01", 0.001), ("p1", 0.01), ("p10", 0.1), ("p50", 0.5)];

/// Tags of whole clusters, and one of how many clusters has each.
pub(crate) const CLUSTER_TAGS: [(&str, usize); 2] = [("c10", 10), ("c50", 2)];

/// A vector, and the number of the cluster that it was drawn from.
#[derive(Clone, Debug)]
pub(crate) struct Drawn {
    pub(crate) cluster: usize,
    pub(crate) vector: Embedding,
}

/// How many of which length.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recipe {
    pub(crate) vectors: usize,
    pub(crate) dimension: usize,
}

/// A source of vectors.
#[derive(Debug)]
pub(crate) struct Source {
    common: Vec<f32>,
    clusters: Vec<Vec<f32>>,
    /// Sums of the clusters' shares, the last of which is 1.
    shares: Vec<f64>,
    dimension: usize,
}

impl Recipe {
    pub(crate) fn source(&self) -> Source {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let clusters = (self.vectors / VECTORS_PER_CLUSTER).max(20);
        let sizes: Vec<_> = (1..=clusters).map(|k| (k as f64).powf(-SIZE_EXPONENT)).collect();
        let total: f64 = sizes.iter().sum();
        let mut sum = 0.0;
        let shares = sizes.iter().map(|size| {
            sum += size / total;
            sum
        });
        Source {
            shares: shares.collect(),
            common: draw(&mut rng, self.dimension, 1.0),
            clusters: (0..clusters)
                .map(|_| draw(&mut rng, self.dimension, CLUSTER_SPREAD))
                .collect(),
            dimension: self.dimension,
        }
    }
}

impl Source {
    /// The same for the same seed.
    pub(crate) fn vectors(&self, count: usize, seed: u64) -> Vec<Drawn> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        (0..count).map(|_| self.vector(&mut rng)).collect()
    }

    fn vector(&self, rng: &mut ChaCha8Rng) -> Drawn {
        let place: f64 = rng.random();
        let cluster = self.shares.partition_point(|share| *share < place);
        let cluster = cluster.min(self.clusters.len() - 1);
        let own = draw(rng, self.dimension, OWN_SPREAD);
        let center = self.common.iter().zip(&self.clusters[cluster]);
        let sum = center.zip(&own).map(|((a, b), c)| a + b + c);
        let vector = Embedding::new(sum.collect()).expect("no three draws cancel out");
        Drawn { cluster, vector }
    }
}

/// The tags of an item.
pub(crate) fn tags(number: usize, cluster: usize) -> Vec<&'static str> {
    let mut rng = ChaCha8Rng::seed_from_u64(0x7a65 + number as u64);
    let drawn = TAGS.iter().filter(|(_, chance)| rng.random_bool(*chance)).map(|(tag, _)| *tag);
    let drawn: Vec<_> = drawn.collect();
    drawn.into_iter().chain(cluster_tags(cluster)).collect()
}

/// The tags that all items of a cluster have.
pub(crate) fn cluster_tags(cluster: usize) -> impl Iterator<Item = &'static str> {
    CLUSTER_TAGS
        .iter()
        .filter(move |(_, one_of)| cluster.is_multiple_of(*one_of))
        .map(|(tag, _)| *tag)
}

/// Normal numbers whose variance falls with their place.
fn draw(rng: &mut ChaCha8Rng, dimension: usize, scale: f32) -> Vec<f32> {
    let normal = |rng: &mut ChaCha8Rng| {
        // Box and Muller, Annals of Mathematical Statistics 29 (1958).
        let unit = |bits: u32| (f64::from(bits) + 0.5) / 4_294_967_296.0;
        let (u, v) = (unit(rng.next_u32()), unit(rng.next_u32()));
        ((-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
    };
    (0..dimension).map(|i| scale * normal(rng) / ((i + 1) as f32).sqrt()).collect()
}
