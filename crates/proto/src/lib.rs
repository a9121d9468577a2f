//! The contracts of clipmesh in Rust: messages, clients and servers generated from `proto/`, the
//! types that make invalid ids and vectors unrepresentable, and the one vocabulary of errors.
//!
//! It knows nothing of transports, engines or configuration. Start from
//! [`search::v1::search_service_client::SearchServiceClient`].

mod catalog;
pub mod code;
pub mod embedding;
pub mod ids;

pub use catalog::Catalog;
pub use embedding::Embedding;

/// Messages and services of `clipmesh.embedder`.
pub mod embedder {
    pub mod v1 {
        tonic::include_proto!("clipmesh.embedder.v1");
    }
}

/// Messages and services of `clipmesh.search`.
pub mod search {
    #[expect(clippy::large_enum_variant, reason = "generated, and an item is what is usual")]
    pub mod v1 {
        tonic::include_proto!("clipmesh.search.v1");
    }
}

/// The error of one element of an answer.
pub mod google {
    pub mod rpc {
        pub use tonic_types::pb::Status;
    }
}

/// Every contract as an encoded `google.protobuf.FileDescriptorSet`, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("clipmesh");
