//! The true neighbours, by comparing with everything.

use std::num::NonZeroUsize;

use clipmesh_proto::Embedding;

/// Of each query, the numbers of the `k` nearest vectors among those that `passes`, given the number
/// of the query and of the vector, lets through.
pub(crate) fn nearest(
    vectors: &[Embedding],
    queries: &[Embedding],
    k: usize,
    passes: impl Fn(usize, usize) -> bool + Sync,
) -> Vec<Vec<usize>> {
    let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let share = queries.len().div_ceil(threads).max(1);
    let passes = &passes;
    std::thread::scope(|scope| {
        let work = |(part, queries): (usize, _)| {
            let passes = move |at, number| passes(part * share + at, number);
            move || one_by_one(vectors, queries, k, passes)
        };
        let parts = queries.chunks(share).enumerate();
        let running: Vec<_> = parts.map(|part| scope.spawn(work(part))).collect();
        let done = running.into_iter().map(|part| part.join().expect("no comparison panics"));
        done.flatten().collect()
    })
}

fn one_by_one(
    vectors: &[Embedding],
    queries: &[Embedding],
    k: usize,
    passes: impl Fn(usize, usize) -> bool,
) -> Vec<Vec<usize>> {
    let nearest = |(at, query): (usize, &Embedding)| {
        let candidates = (0..vectors.len()).filter(|&number| passes(at, number));
        let mut scored: Vec<_> =
            candidates.map(|number| (number, dot(&vectors[number], query))).collect();
        let k = k.min(scored.len());
        if k < scored.len() {
            scored.select_nth_unstable_by(k, |(_, a), (_, b)| b.total_cmp(a));
        }
        scored.truncate(k);
        scored.into_iter().map(|(number, _)| number).collect()
    };
    queries.iter().enumerate().map(nearest).collect()
}

/// In lanes, which the compiler turns into vector instructions.
fn dot(a: &Embedding, b: &Embedding) -> f32 {
    let mut lanes = [0.0_f32; 16];
    let (a, b) = (a.values().chunks_exact(16), b.values().chunks_exact(16));
    let rest: f32 = a.remainder().iter().zip(b.remainder()).map(|(x, y)| x * y).sum();
    for (a, b) in a.zip(b) {
        for (lane, (x, y)) in lanes.iter_mut().zip(a.iter().zip(b)) {
            *lane += x * y;
        }
    }
    lanes.iter().sum::<f32>() + rest
}

/// The share of what is true that was found, over all queries; 1 where nothing is true.
pub(crate) fn recall(truth: &[Vec<usize>], found: &[Vec<usize>]) -> f64 {
    let wanted: usize = truth.iter().map(Vec::len).sum();
    let hit = |(truth, found): (&Vec<usize>, &Vec<usize>)| {
        truth.iter().filter(|number| found.contains(number)).count()
    };
    let hits: usize = truth.iter().zip(found).map(hit).sum();
    if wanted == 0 { 1.0 } else { hits as f64 / wanted as f64 }
}
