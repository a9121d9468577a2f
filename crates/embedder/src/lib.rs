//! Pictures and words in, unit vectors out.
//!
//! ```text
//!   gRPC ─► service ─► preprocess ─► batcher ─► backend (one thread, libtorch)
//!           adapter    CPU pool      lanes      forward pass
//! ```
//!
//! The crate reads models as Hugging Face folders ([`model`]), brings files into the form
//! that they take ([`preprocess`]), collects what waits together into batches, and computes
//! ([`backend`]). It keeps no state: no cache, no index, no names of pictures; that is the search
//! service's work. From a network it fetches nothing but models of the Hugging Face hub.
//!
//! Start from [`App`].

mod app;
pub mod backend;
mod batcher;
mod canary;
pub mod command;
mod config;
mod error;
mod lane;
mod metrics;
pub mod model;
pub mod preprocess;
mod service;

pub use app::App;
pub use config::{BatchConfig, CanaryConfig, Config, Limits, PreprocessConfig, QueueConfig};
pub use error::{CallError, Error};
pub use lane::Lane;
