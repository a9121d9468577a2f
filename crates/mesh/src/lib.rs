//! What every clipmesh service shares of the network: one way to serve, one way to call, one way
//! to stop.
//!
//! ```text
//!   caller ── client::channel ──►  server::Server
//!             deadline, trace      trace, metrics, panic, deadline ──► the service
//! ```
//!
//! Only [`client`] and [`server`] compose stacks of layers; each layer is a file of its own. The
//! crate holds no domain knowledge: it never looks into a message. Start from [`server::Server`].

pub mod client;
mod connections;
pub mod deadline;
mod error;
pub mod health;
mod middleware;
mod outcome;
mod rpc_metrics;
pub mod server;
pub mod settings;
pub mod shutdown;
pub mod trace;

pub use error::Error;
pub use shutdown::Shutdown;
