//! Traces that reach beyond the server: a request's span becomes a child of the one that its headers name.

use axum::http::HeaderMap;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Headers, as those who look for a trace context see them.
struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(axum::http::HeaderName::as_str).collect()
    }
}

/// Makes a span a child of the one that a `traceparent` of the W3C names, if there is one and spans are exported.
pub(super) fn set_parent(span: &Span, headers: &HeaderMap) {
    if headers.contains_key("traceparent") {
        // Without an exporter there is no place for it, which is no fault of the request.
        drop(span.set_parent(TraceContextPropagator::new().extract(&Headers(headers))));
    }
}
