//! Logs of the server on the standard error, for people or as JSON for programs, and traces for a collector.

use anyhow::{Context, Result, anyhow};
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// What must be told when the server ends, so that what was traced last is sent.
pub(super) struct TraceGuard(Option<SdkTracerProvider>);

impl Drop for TraceGuard {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.0.as_ref().map(SdkTracerProvider::shutdown) {
            tracing::warn!(%error, "the last traces could not be sent");
        }
    }
}

/// Writes what is logged from now on, and sends spans of requests to a collector if there is one. Called where tasks can be
/// spawned.
pub(super) fn init(level: &str, json: bool, collector: Option<&str>) -> Result<TraceGuard> {
    // A level alone is that of the server; libraries speak up at warnings.
    let filter = match level {
        "trace" | "debug" | "info" | "warn" | "error" | "off" => {
            format!(
                "{},protoseg={level},protoseg_serve={level},protoseg_infer={level}",
                if level == "off" { "off" } else { "warn" }
            )
        }
        filter => filter.to_owned(),
    };
    let filter = EnvFilter::try_new(&filter).with_context(|| format!("--log-level {level}"))?;
    let logs = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    // Which would panic where the standard error cannot be written.
    let logs = logs.log_internal_errors(false);
    let logs =
        if json { logs.json().flatten_event(true).boxed() } else { logs.with_ansi(false).boxed() };
    let provider = collector.map(exporter).transpose()?;
    let spans = provider
        .as_ref()
        .map(|provider| tracing_opentelemetry::layer().with_tracer(provider.tracer("protoseg")));
    let begun = tracing_subscriber::registry().with(filter).with(logs).with(spans).try_init();
    begun.map_err(|error| anyhow!("logs cannot be written: {error}"))?;
    Ok(TraceGuard(provider))
}

/// Sends spans in batches over gRPC. The service's name can be set by `OTEL_SERVICE_NAME`, as everywhere.
fn exporter(collector: &str) -> Result<SdkTracerProvider> {
    let exporter =
        opentelemetry_otlp::SpanExporter::builder().with_tonic().with_endpoint(collector).build();
    let exporter = exporter.with_context(|| format!("--otlp-endpoint {collector}"))?;
    let mut resource = Resource::builder();
    if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name("protoseg");
    }
    Ok(SdkTracerProvider::builder()
        .with_resource(resource.build())
        .with_batch_exporter(exporter)
        .build())
}
