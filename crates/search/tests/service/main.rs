//! The service as its callers see it: over a socket, with its real store on a real disk, and an
//! embedder that is as simple as the contract allows.

mod collections;
mod durability;
mod embedder;
mod items;
mod mix;
mod refusals;
mod sandbox;
mod search;
mod stream;
