//! The engine of Qdrant in this process.

mod config;

pub use config::Config;
