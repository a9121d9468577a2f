//! The service as its callers see it: over a socket, with its real store on a real disk, and an
//! embedder that is as simple as the contract allows.

mod batch;
mod change;
mod collections;
mod delete;
mod duplicates;
mod durability;
mod embedder;
mod indexes;
mod items;
mod listing;
mod mix;
mod originals;
mod ready;
mod refusals;
mod sandbox;
mod search;
mod search_features;
mod stream;
