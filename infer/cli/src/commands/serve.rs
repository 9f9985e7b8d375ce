//! `protoseg serve`: models behind HTTP and gRPC.

mod logs;
mod run;
mod tuned_models;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use axum::http::HeaderValue;
use clap::ValueEnum;
use protoseg_infer::config::parse_bytes;
use protoseg_infer::session;
use protoseg_serve::listener::{self, ConnectionLimits, Protocol};
use protoseg_serve::registry::{ENCODED_SUFFIX, ModelOptions, name_of};
use protoseg_serve::{ApiKey, BatchLimit, ServiceLimits};

use super::engine_args::EngineArgs;
use super::reading_args::ReadingArgs;
use super::tuned::TuningArgs;
use super::{CommandError, CommandOutcome};

use self::tuned_models::TunedModelOptions;

/// Environment variable with the key; a command line would show it to all users of the machine.
pub(crate) const KEY_VARIABLE: &str = "PROTOSEG_API_KEY";

/// Variables of options that were renamed: the new one, and the old one that is still read.
const RENAMED_VARIABLES: [(&str, &str); 1] =
    [("PROTOSEG_MAX_BATCH_DELAY_MS", "PROTOSEG_MAX_DELAY")];

/// Answer requests over HTTP and gRPC
///
/// Speaks the Open Inference Protocol, version 2 (as Triton and KServe do), and a plain form: `curl
/// --data-binary @photo.jpg http://127.0.0.1:8000/v1/segment`. The path `/` has a page for
/// browsers, `/openapi.json` the description, `/metrics` the Prometheus metrics. Every option can
/// be set in the environment as PROTOSEG_ and its name: PROTOSEG_HTTP for --http; the key that
/// requests must carry is PROTOSEG_API_KEY. SIGHUP reloads every model without a failed request;
/// after SIGTERM the server reports that it is not ready, finishes what it has begun, and ends with
/// status 0.
#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    /// Bundle folders, or NAME=FOLDER; the first answers where a request names no model
    #[arg(required = true, value_name = "[NAME=]BUNDLE")]
    bundles: Vec<String>,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    reading: ReadingArgs,
    #[command(flatten)]
    tuning: TuningArgs,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    logs: LogArgs,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Server")]
struct ServerArgs {
    /// Address for HTTP; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8000")]
    http: SocketAddr,
    /// Address for gRPC, or `off`
    #[arg(long, value_name = "ADDRESS:PORT|off", default_value = "127.0.0.1:8001")]
    grpc: BindAddress,
    /// Separate address for health and metrics, or `off`: without TLS or key, with its own
    /// connections, and up while draining
    #[arg(long, value_name = "ADDRESS:PORT|off", default_value = "off")]
    probes: BindAddress,
    /// Let requests load and unload models
    #[arg(long)]
    repository: bool,
    /// Seconds after SIGTERM for requests in progress to finish
    #[arg(long, value_name = "S", value_parser = seconds, default_value = "30")]
    drain: Duration,
    /// Seconds after SIGTERM in which connections are still accepted and the server reports that it
    /// is not ready: time for load balancers to notice
    #[arg(long, value_name = "S", value_parser = seconds, default_value = "0")]
    drain_delay: Duration,
    /// File with the key that requests must carry
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Certificate chain for TLS, as PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The certificate's key, as PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Origin that browsers may call the server from, or *; repeat for several
    #[arg(long = "cors-origin", value_name = "ORIGIN")]
    cors_origins: Vec<HeaderValue>,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Batches and limits")]
struct LimitArgs {
    /// Let requests ask for logits before upsampling; advertised, they are sent where a request
    /// names no outputs
    #[arg(long)]
    serve_logits: bool,
    /// Maximum megapixels of a batch; a single window may have more
    #[arg(long, value_name = "N", value_parser = positive, default_value = "8")]
    batch_megapixels: f64,
    /// Maximum batching delay in ms: how long a batch that is not full waits for more windows
    #[arg(long, alias = "max-delay", value_name = "MS", value_parser = milliseconds, default_value = "0")]
    max_batch_delay_ms: Duration,
    /// Megapixels of all admitted images: decoded, queued, running, being answered
    #[arg(long, value_name = "N", value_parser = positive, default_value = "64")]
    queue_megapixels: f64,
    /// Refuse images of more pixels
    #[arg(long, value_name = "N", default_value_t = 40_000_000)]
    max_pixels: u64,
    /// Refuse larger requests; four such are read at a time
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, default_value = "64M")]
    max_body: u64,
    /// Seconds from a request's head to its answer
    #[arg(long, value_name = "S", value_parser = positive_seconds, default_value = "30")]
    deadline: Duration,
    /// Seconds for a request's body to arrive, and for a part of an answer to be taken
    #[arg(long, value_name = "S", value_parser = positive_seconds, default_value = "20")]
    body_timeout: Duration,
    /// Seconds for a request's head to arrive, and for an idle connection
    #[arg(long, value_name = "S", value_parser = positive_seconds, default_value = "20")]
    head_timeout: Duration,
    /// Open connections of each front end; others wait to be accepted
    #[arg(long, value_name = "N", default_value_t = 1024)]
    connections: usize,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Logs and traces")]
struct LogArgs {
    /// Format of the log on the standard error
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// Least level of the log: error, warn, info, debug, or a filter such as
    /// `info,protoseg_serve=debug`
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: String,
    /// OpenTelemetry collector that traces of requests are sent to over gRPC, such as
    /// http://127.0.0.1:4317
    #[arg(long, value_name = "URL")]
    otlp_endpoint: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// An address to listen on; none for `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct BindAddress(Option<SocketAddr>);

impl std::str::FromStr for BindAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self(None));
        }
        let address = text
            .parse()
            .map_err(|_| "write an address and a port such as 0.0.0.0:8001, or off".to_owned())?;
        Ok(Self(Some(address)))
    }
}

fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| *number > 0.0 && number.is_finite());
    number.ok_or_else(|| "write a number above 0".to_owned())
}

/// Seconds of at most a day.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds: &f64| (0.0..=86_400.0).contains(seconds));
    seconds
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "write seconds from 0 to 86400, a day".to_owned())
}

fn positive_seconds(text: &str) -> Result<Duration, String> {
    positive(text)?;
    seconds(text)
}

/// Milliseconds of at most a day.
fn milliseconds(text: &str) -> Result<Duration, String> {
    let number = text.parse().ok().filter(|number: &f64| (0.0..=86_400_000.0).contains(number));
    number
        .map(|number| Duration::from_secs_f64(number / 1e3))
        .ok_or_else(|| "write milliseconds from 0 to 86400000, a day".to_owned())
}

/// Lets every option of a command be set in the environment.
pub(crate) fn with_env_vars(command: clap::Command) -> clap::Command {
    command.mut_args(|argument| {
        let Some(long) = argument.get_long().filter(|long| !["help", "version"].contains(long))
        else {
            return argument;
        };
        let mut variable = format!("PROTOSEG_{}", long.replace('-', "_").to_uppercase());
        for (new, old) in RENAMED_VARIABLES {
            let is_set = |name: &str| std::env::var_os(name).is_some();
            if variable == new && !is_set(new) && is_set(old) {
                old.clone_into(&mut variable);
            }
        }
        // Lives as long as the command line: until the program ends.
        argument.env(&*variable.leak()).hide_env_values(true)
    })
}

pub(crate) fn run(arguments: &ServeArgs) -> Result<CommandOutcome, CommandError> {
    let runtime = run::start_runtime().map_err(CommandError::Usage)?;
    let traces =
        runtime.block_on(async { logs::init(&arguments.logs) }).map_err(CommandError::Usage)?;
    session::load_runtime().map_err(CommandError::usage)?;
    let config = arguments.config().map_err(CommandError::Usage)?;
    run::serve(runtime, config, traces)
}

/// Validated options.
struct ServeConfig {
    bundles: Vec<(String, PathBuf)>,
    models: TunedModelOptions,
    limits: ServiceLimits,
    connections: ConnectionLimits,
    http: SocketAddr,
    grpc: Option<SocketAddr>,
    probes: Option<SocketAddr>,
    /// For HTTP and gRPC.
    tls: Option<[listener::TlsAcceptor; 2]>,
    key: Option<ApiKey>,
    repository: bool,
    origins: Vec<HeaderValue>,
    drain: Duration,
    drain_delay: Duration,
}

impl ServeArgs {
    fn config(&self) -> anyhow::Result<ServeConfig> {
        let mut engine = self.engine.config();
        engine.reading = self.reading.reading();
        engine.check()?;
        let limits = self.limits.service()?;
        let plain = ModelOptions {
            engine: engine.clone(),
            limit: BatchLimit {
                pixels: (self.limits.batch_megapixels * 1e6) as u64,
                ..BatchLimit::default_for(engine.batch, engine.is_gpu())
            },
            delay: self.limits.max_batch_delay_ms,
            logits: self.limits.serve_logits,
        };
        self.tuning.check()?;
        let models = TunedModelOptions { tuning: self.tuning.clone(), engine, plain };
        ensure!(self.limits.connections > 0, "--connections 0 would answer nobody");
        let connections = ConnectionLimits {
            max_connections: self.limits.connections,
            header_timeout: self.limits.head_timeout,
            idle_timeout: limits.deadline + limits.body_timeout + Duration::from_secs(30),
            write_timeout: limits.body_timeout,
        };
        let server = &self.server;
        let tls = match (&server.tls_cert, &server.tls_key) {
            (Some(certificate), Some(key)) => Some([
                listener::tls_acceptor(certificate, key, Protocol::Http1)?,
                listener::tls_acceptor(certificate, key, Protocol::Http2)?,
            ]),
            _ => None,
        };
        Ok(ServeConfig {
            bundles: self.named_bundles()?,
            models,
            limits,
            connections,
            http: server.http,
            grpc: server.grpc.0,
            probes: server.probes.0,
            tls,
            key: server.key()?,
            repository: server.repository,
            origins: server.cors_origins.clone(),
            drain: server.drain,
            drain_delay: server.drain_delay,
        })
    }

    /// Returns the bundles under unique names.
    fn named_bundles(&self) -> anyhow::Result<Vec<(String, PathBuf)>> {
        let mut named: Vec<(String, PathBuf)> = Vec::new();
        for text in &self.bundles {
            let (name, path) = match text.split_once('=') {
                Some((name, path)) => (Some(name.to_owned()), PathBuf::from(path)),
                None => (None, PathBuf::from(text)),
            };
            ensure!(path.exists(), "{}: no such bundle", path.display());
            let name = name
                .or_else(|| name_of(&path))
                .with_context(|| format!("{text} gives no name; write NAME={text}"))?;
            let is_allowed =
                |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
            ensure!(
                !name.is_empty()
                    && !name.starts_with('.')
                    && !name.ends_with(ENCODED_SUFFIX)
                    && name.chars().all(is_allowed),
                "`{name}` cannot be the name of a model, as it is part of paths; write NAME={} with letters, digits and \
                 . _ -, without a dot at the start, and without {ENCODED_SUFFIX} at the end, which means image files",
                path.display()
            );
            if let Some((_, other)) = named.iter().find(|(known, _)| *known == name) {
                let (one, two) = (other.display(), path.display());
                bail!("{one} and {two} would both be called {name}; write NAME={two}");
            }
            named.push((name, path));
        }
        Ok(named)
    }
}

impl LimitArgs {
    fn service(&self) -> anyhow::Result<ServiceLimits> {
        let queue_pixels = (self.queue_megapixels * 1e6) as u64;
        ensure!(self.max_pixels > 0, "--max-pixels 0 would refuse every image");
        ensure!(
            self.max_pixels <= queue_pixels,
            "--max-pixels {} allows images that --queue-megapixels {} never admits; raise that or lower this",
            self.max_pixels,
            self.queue_megapixels
        );
        Ok(ServiceLimits {
            image_pixels: self.max_pixels,
            queue_pixels,
            body_bytes: self.max_body,
            bodies_bytes: self.max_body.saturating_mul(4),
            deadline: self.deadline,
            body_timeout: self.body_timeout,
        })
    }
}

impl ServerArgs {
    fn key(&self) -> anyhow::Result<Option<ApiKey>> {
        let key = match &self.api_key_file {
            Some(path) => {
                std::fs::read_to_string(path).with_context(|| path.display().to_string())?
            }
            None => match std::env::var_os(KEY_VARIABLE).map(OsString::into_string) {
                None => return Ok(None),
                Some(Ok(key)) => key,
                Some(Err(_)) => bail!("{KEY_VARIABLE} is not UTF-8"),
            },
        };
        let key = ApiKey::new(&key)
            .context("the key is empty, which would let everybody in; leave it out to need none")?;
        Ok(Some(key))
    }
}
