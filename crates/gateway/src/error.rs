//! Why a gateway could not be set up. Faults of calls are `tonic::Status`.

/// A fault of set-up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Mesh(#[from] clipmesh_mesh::Error),
    #[error("`{origin}` is not an origin: {reason}")]
    Origin { origin: String, reason: &'static str },
    #[error("ask the listener for its address: {0}")]
    Listener(#[from] std::io::Error),
}
