//! Items, collections and search: what a picture is called, where its vector lives, and which
//! pictures are near to it.
//!
//! ```text
//!            service/  gRPC, one thin adapter per service
//!               │
//!  query · items · collections          the use cases
//!     │         │         │
//!  vectors ─► embedder    │             words and pixels become vectors elsewhere
//!     │         │         │
//!   cache     blobs     store           three traits or leaves over existing engines
//! ```
//!
//! It does not look into pixels, except to make thumbnails, and holds no model. Its state lives
//! in the store and in the object store; every other part can be thrown away at any time.
//!
//! Start from [`App`].

mod app;
mod blobs;
mod cache;
mod changes;
mod classify;
mod collections;
pub mod config;
mod convert;
mod duplicates;
mod embedder;
mod error;
mod facets;
pub mod filter;
pub mod item;
mod items;
mod metrics;
mod query;
pub mod secret;
mod service;
pub mod store;
mod thumbnail;
mod vectors;
mod words;

pub use app::{App, Error};
pub use config::Config;
