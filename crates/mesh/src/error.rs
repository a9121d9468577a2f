//! Why a server or a client could not be set up.

/// A fault of set-up. Faults of calls are `tonic::Status`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("`{url}` is not an address to call: {source}")]
    Address { url: String, source: tonic::transport::Error },
    #[error("`{url}` must start with `http://`")]
    Scheme { url: String },
    #[error("describe the services for reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}
