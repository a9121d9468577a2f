//! What a cache spares where some pictures are asked for far more often than others.

use std::collections::HashSet;

use bytes::Bytes;
use clipmesh_e2e::clients::{new_item, query};
use clipmesh_e2e::pictures;
use clipmesh_e2e::sandbox::Sandbox;
use clipmesh_proto::search::v1::query::Kind;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tokio::time::Instant;

use crate::report::line;

const COLLECTION: &str = "zipf";
/// What the searches look through; it hardly matters for the caches.
const ITEMS: u32 = 100;

/// Replays searches by pictures whose popularity follows Zipf's law with exponent 1.
pub(crate) async fn measure(pictures: usize, searches: usize) -> anyhow::Result<()> {
    let sandbox = Sandbox::builder().model("tiny").in_one_process().start().await?;
    let mut clients = sandbox.clients()?;
    clients.create_collection(COLLECTION).await?;
    for number in 0..ITEMS {
        clients.index(COLLECTION, new_item(number.to_string(), picture(number as usize))).await?;
    }
    let mut sum = 0.0;
    let sums: Vec<f64> = (1..=pictures)
        .map(|rank| {
            sum += 1.0 / rank as f64;
            sum
        })
        .collect();
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut seen = HashSet::new();
    let (mut answers, mut vectors) = (0_usize, 0_usize);
    let start = Instant::now();
    for _ in 0..searches {
        let place: f64 = rng.random_range(0.0..sum);
        let rank = sums.partition_point(|share| *share < place);
        seen.insert(rank);
        let kind = Kind::Image(picture(ITEMS as usize + rank));
        let answer = clients.search.search(query(COLLECTION, kind)).await?.into_inner();
        let timing = answer.timing.unwrap_or_default();
        answers += usize::from(timing.result_cached);
        vectors += usize::from(timing.result_cached || timing.embedding_cached);
    }
    let share = |count: usize| count as f64 / searches as f64;
    let best = share(searches - seen.len());
    let rate = searches as f64 / start.elapsed().as_secs_f64();
    line(format_args!(
        "cache_hit_share={:.3} (of answers; of vectors {:.3}; a cache that forgets nothing: {best:.3}; \
         {searches} searches over {pictures} pictures, {rate:.0} a second; goal: above 0.75)",
        share(answers),
        share(vectors)
    ));
    Ok(())
}

/// A small picture that differs from all others.
fn picture(number: usize) -> Bytes {
    pictures::png(u64::try_from(number).unwrap_or_default())
}
