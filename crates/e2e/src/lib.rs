//! A mesh of real processes for tests, and the tools to look into it and to break it.
//!
//! ```text
//!   a test ──► gateway ──► search ──► embedder      each a process of its own on a free port,
//!     │                                             or all three inside `clipmesh up`
//!     ├─ pictures      what is sent
//!     ├─ clients       how it is sent
//!     ├─ fields        what is known of it
//!     ├─ eventually    how long it may take
//!     ├─ hub           where its model comes from
//!     └─ trace_sink    what it left behind
//! ```
//!
//! Nothing here knows how a service works inside: the binaries are started as an operator starts
//! them, and are seen only through their ports, their logs and their exit codes. Start from
//! [`sandbox::Sandbox::builder`].

pub mod clients;
mod eventually;
pub mod fields;
pub mod hub;
pub mod pictures;
pub mod sandbox;
pub mod trace_sink;

pub use eventually::eventually;
