//! The one door of clipmesh: gRPC, grpc-web and a page for people, on one port.
//!
//! ```text
//!  gRPC (HTTP/2) ─┐
//!  grpc-web ──────┤►  web  ►  mesh layers  ►  proxy ─┬─ /clipmesh.search.v1.*   ► search
//!  a browser ─────┘    │      trace, metrics,        ├─ /clipmesh.embedder.v1.* ► embedder
//!                      │      panic, deadline        └─ health, reflection      (answered here)
//!                      └─ `/`, 404, CORS
//! ```
//!
//! The gateway forwards calls frame by frame and never decodes a message: a new field or a new
//! method needs no new gateway. What it adds is what a door is for: one address, a limit on the
//! size of messages before anyone spends memory on them, a clear `UNAVAILABLE` when nobody is
//! behind it, and health and reflection for everything that is. It holds no state, retries
//! nothing, and knows nothing of pictures. Start from [`App`].

mod app;
mod config;
mod error;
mod health;
mod metrics;
mod origin;
mod proxy;
mod web;

pub use app::App;
pub use config::{Config, HealthConfig};
pub use error::Error;
