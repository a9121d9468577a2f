//! The gRPC services: each method checks its request, hands it on and writes down the answer.

pub(crate) mod collections;
pub(crate) mod items;
pub(crate) mod search;
