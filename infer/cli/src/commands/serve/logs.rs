//! Log of the server on the standard error, as text or JSON, and traces for an OpenTelemetry
//! collector.

use anyhow::{Context, Result};
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use super::{LogArgs, LogFormat};

/// Sends the last traces on drop.
pub(super) struct TraceGuard(Option<SdkTracerProvider>);

impl Drop for TraceGuard {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.0.as_ref().map(SdkTracerProvider::shutdown) {
            tracing::warn!(%error, "cannot send the last traces");
        }
    }
}

/// Starts the log and the export of traces. Needs an async runtime.
pub(super) fn init(arguments: &LogArgs) -> Result<TraceGuard> {
    let LogArgs { log_format, log_level, otlp_endpoint } = arguments;
    let filter = EnvFilter::try_new(filter(log_level))
        .with_context(|| format!("--log-level {log_level}"))?;
    let logs = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false)
        // These would panic where the standard error cannot be written.
        .log_internal_errors(false);
    let logs = match log_format {
        LogFormat::Json => logs.json().flatten_event(true).boxed(),
        LogFormat::Text => logs.with_ansi(false).boxed(),
    };
    let provider = otlp_endpoint.as_deref().map(tracer_provider).transpose()?;
    let spans = provider
        .as_ref()
        .map(|provider| tracing_opentelemetry::layer().with_tracer(provider.tracer("protoseg")));
    tracing_subscriber::registry()
        .with(filter)
        .with(logs)
        .with(spans)
        .try_init()
        .context("cannot start the log")?;
    Ok(TraceGuard(provider))
}

/// Expands a level to one of the server's crates, with warnings of its libraries.
fn filter(level: &str) -> String {
    match level {
        "off" => "off".to_owned(),
        "trace" | "debug" | "info" | "warn" | "error" => {
            format!("warn,protoseg={level},protoseg_serve={level},protoseg_infer={level}")
        }
        filter => filter.to_owned(),
    }
}

/// Exports spans in batches over gRPC, under the service name `protoseg` or that in
/// `OTEL_SERVICE_NAME`.
fn tracer_provider(collector: &str) -> Result<SdkTracerProvider> {
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(collector)
        .build()
        .with_context(|| format!("--otlp-endpoint {collector}"))?;
    let mut resource = Resource::builder();
    if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name("protoseg");
    }
    Ok(SdkTracerProvider::builder()
        .with_resource(resource.build())
        .with_batch_exporter(exporter)
        .build())
}
