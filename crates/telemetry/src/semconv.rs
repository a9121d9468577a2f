//! Names of span fields and metrics that several crates use, after OpenTelemetry's conventions
//! (<https://opentelemetry.io/docs/specs/semconv/rpc/>, and `db/` there).

/// The trace that a span belongs to, in the logs.
pub const TRACE_ID: &str = "trace_id";
/// Tells the exporter the span's name.
pub const OTEL_NAME: &str = "otel.name";
/// Tells the exporter whether a span is a `server`'s or a `client`'s.
pub const OTEL_KIND: &str = "otel.kind";
/// `ok` or `error`, for the exporter.
pub const OTEL_STATUS_CODE: &str = "otel.status_code";
/// `grpc`.
pub const RPC_SYSTEM: &str = "rpc.system";
/// The service's full name, as in `clipmesh.search.v1.SearchService`.
pub const RPC_SERVICE: &str = "rpc.service";
/// The method's name, as in `Search`.
pub const RPC_METHOD: &str = "rpc.method";
/// The numeric gRPC status code.
pub const RPC_GRPC_STATUS_CODE: &str = "rpc.grpc.status_code";
/// Which engine a call to a store goes to, as in `qdrant`.
pub const DB_SYSTEM_NAME: &str = "db.system.name";
/// What a store is asked to do.
pub const DB_OPERATION_NAME: &str = "db.operation.name";
/// The collection that a store is asked about.
pub const DB_COLLECTION_NAME: &str = "db.collection.name";
/// How many inputs a batch holds.
pub const BATCH_SIZE: &str = "batch.size";
