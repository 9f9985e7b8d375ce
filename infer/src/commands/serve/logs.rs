//! Logs of the server, on the standard error: for people, or as JSON for programs.

use anyhow::Context;
use tracing_subscriber::EnvFilter;

/// Writes what is logged from now on.
pub(super) fn begin(level: &str, json: bool) -> anyhow::Result<()> {
    // A level alone is that of the server; libraries speak up at warnings.
    let filter = match level {
        "trace" | "debug" | "info" | "warn" | "error" | "off" => {
            format!("{},protoseg={level},protoseg_infer={level}", if level == "off" { "off" } else { "warn" })
        }
        filter => filter.to_owned(),
    };
    let filter = EnvFilter::try_new(&filter).with_context(|| format!("--log-level {level}"))?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // Which would panic where the standard error cannot be written.
    let logs = logs.log_internal_errors(false);
    let begun = if json { logs.json().flatten_event(true).try_init() } else { logs.with_ansi(false).try_init() };
    begun.map_err(|error| anyhow::anyhow!("logs cannot be written: {error}"))
}
