//! Where spans go.

use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;

use crate::Error;

/// A source of trace ids that also exports its spans if there is an endpoint.
pub(crate) fn provider(
    service_name: &'static str,
    endpoint: Option<&str>,
) -> Result<SdkTracerProvider, Error> {
    let resource = Resource::builder().with_service_name(service_name).build();
    let builder = SdkTracerProvider::builder().with_resource(resource);
    let Some(endpoint) = endpoint else {
        return Ok(builder.build());
    };
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .build()
        .map_err(|source| Error::Otlp { endpoint: endpoint.to_owned(), source })?;
    Ok(builder.with_batch_exporter(exporter).build())
}
