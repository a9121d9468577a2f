//! What is sent.

use std::sync::Arc;

use bytes::Bytes;
use clipmesh_proto::embedder::v1::embed_input::Content;
use clipmesh_proto::embedder::v1::{EmbedInput, EmbedRequest, Priority, VectorEncoding};

use crate::photo::Photo;

/// The size that most photographs of ImageNet have.
pub(crate) const SIZE: (u32, u32) = (500, 375);
/// About what they are compressed to: some 60 kB each.
const QUALITY: i32 = 88;

/// Files that are all different.
pub(crate) fn photos(count: u64) -> Arc<[Bytes]> {
    let seeds = (0..count).collect::<Vec<_>>();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = seeds.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let workers: Vec<_> = seeds
            .chunks(share)
            .map(|seeds| scope.spawn(|| seeds.iter().map(|&seed| photo(seed)).collect::<Vec<_>>()))
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("no panic")).collect()
    })
}

fn photo(seed: u64) -> Bytes {
    Photo::new(SIZE.0, SIZE.1, seed).jpeg(QUALITY).into()
}

/// Sentences of about the length of a caption.
pub(crate) fn captions(count: usize) -> Vec<String> {
    let animals = ["cat", "dog", "owl", "fox", "whale", "zebra", "penguin"];
    let places = ["on a red sofa", "in the snow", "behind a fence", "at the sea", "under a tree"];
    let caption = |index: usize| {
        let (animal, place) = (animals[index % animals.len()], places[index / 7 % places.len()]);
        format!("a photo of a {animal} {place}, number {index}")
    };
    (0..count).map(caption).collect()
}

pub(crate) fn image(file: &Bytes) -> EmbedInput {
    EmbedInput { content: Some(Content::Image(file.clone())) }
}

pub(crate) fn text(text: &str) -> EmbedInput {
    EmbedInput { content: Some(Content::Text(text.to_owned())) }
}

/// One input, answered in the form that costs least.
pub(crate) fn single(input: EmbedInput, priority: Priority) -> EmbedRequest {
    EmbedRequest {
        inputs: vec![input],
        encoding: VectorEncoding::RawF32.into(),
        priority: priority.into(),
        ..EmbedRequest::default()
    }
}
