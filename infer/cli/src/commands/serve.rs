//! `protoseg serve`: models behind HTTP and gRPC.

mod logs;
mod run;
mod tuned_models;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use axum::http::HeaderValue;
use clap::ValueEnum;
use protoseg_infer::config::parse_bytes;
use protoseg_infer::session;
use protoseg_serve::http::ApiKey;
use protoseg_serve::listener::{self, ConnectionLimits, Protocol};
use protoseg_serve::registry::{ENCODED_SUFFIX, ModelOptions, name_of};
use protoseg_serve::{BatchLimit, ServiceLimits};

use super::engine_args::EngineArgs;
use super::tuned::TuningArgs;
use super::{CommandError, CommandOutcome};

use self::tuned_models::TunedModelOptions;

/// Environment variable that holds the key itself; a command line would show it to everybody on the machine.
pub(crate) const KEY_VARIABLE: &str = "PROTOSEG_API_KEY";

/// Answer requests over HTTP and gRPC
///
/// Speaks the Open Inference Protocol, version 2 (as Triton and KServe do), and a plain form: `curl --data-binary @photo.jpg
/// http://127.0.0.1:8000/v1/segment`. The address `/` holds a page for a browser, `/openapi.json` the description, `/metrics`
/// what Prometheus reads. Every option may also stand in the environment, as PROTOSEG_ and its name: PROTOSEG_HTTP for
/// --http; a key that requests must carry in PROTOSEG_API_KEY. SIGHUP loads every model anew while it answers; after SIGTERM
/// the server is no longer ready, finishes what it has begun, and ends with status 0.
#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    /// Bundle folders, or NAME=FOLDER; the first answers where a request names no model
    #[arg(required = true, value_name = "[NAME=]BUNDLE")]
    bundles: Vec<String>,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    tuning: TuningArgs,
    /// Address for HTTP; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8000")]
    http: SocketAddr,
    /// Address for gRPC, or `off`
    #[arg(long, value_name = "ADDRESS:PORT|off", default_value = "127.0.0.1:8001")]
    grpc: BindAddress,
    /// Another address for health and metrics alone, or `off`: without TLS or a key, with connections of its own, so that
    /// crowds on the others hide the server from nobody who watches over it, and answered until its very end
    #[arg(long, value_name = "ADDRESS:PORT|off", default_value = "off")]
    probes: BindAddress,
    /// Let requests ask for scores before upsampling; advertised, they come where a request names no outputs
    #[arg(long)]
    serve_logits: bool,
    /// Let requests load and unload models
    #[arg(long)]
    repository: bool,
    /// Most megapixels that one run of the network takes; a single window may have more
    #[arg(long, value_name = "N", default_value_t = 8.0)]
    batch_megapixels: f64,
    /// Milliseconds that a run that is not full waits for more windows
    #[arg(long, value_name = "MS", default_value_t = 0.0)]
    max_delay: f64,
    /// Megapixels of the pictures that are held: read, waiting, running, being answered
    #[arg(long, value_name = "N", default_value_t = 64.0)]
    queue_megapixels: f64,
    /// Refuse pictures of more pixels
    #[arg(long, value_name = "N", default_value_t = 40_000_000)]
    max_pixels: u64,
    /// Refuse larger requests; four such are read at a time
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, default_value = "64M")]
    max_body: u64,
    /// Seconds from a request's head to its answer
    #[arg(long, value_name = "S", default_value_t = 30.0)]
    deadline: f64,
    /// Seconds for a request's body to arrive, and for a part of an answer to be taken
    #[arg(long, value_name = "S", default_value_t = 20.0)]
    body_timeout: f64,
    /// Seconds for a request's head to arrive, and for an idle connection
    #[arg(long, value_name = "S", default_value_t = 20.0)]
    head_timeout: f64,
    /// Connections at a time, of each kind; others wait to be accepted
    #[arg(long, value_name = "N", default_value_t = 1024)]
    connections: usize,
    /// Seconds after SIGTERM for what has begun to finish
    #[arg(long, value_name = "S", default_value_t = 30.0)]
    drain: f64,
    /// Seconds after SIGTERM in which connections are still accepted, while the server says that it is not ready: time for
    /// load balancers to notice
    #[arg(long, value_name = "S", default_value_t = 0.0)]
    drain_delay: f64,
    /// File with a key that requests must carry
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Certificate chain for TLS, as PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The certificate's key, as PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Origin of pages that may use the service in a browser, or *; repeat for several
    #[arg(long = "cors-origin", value_name = "ORIGIN")]
    cors_origins: Vec<HeaderValue>,
    /// How logs are written
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// Least level of logs: error, warn, info, debug, or a filter such as `info,protoseg_serve=debug`
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: String,
    /// Collector of OpenTelemetry that requests' traces are sent to over gRPC, such as http://127.0.0.1:4317
    #[arg(long, value_name = "URL")]
    otlp_endpoint: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// Where to listen, if at all.
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
            .map_err(|_| "write an address and a port such as 0.0.0.0:8001, or off".to_owned());
        address.map(|address| Self(Some(address)))
    }
}

/// Lets every option of a command stand in the environment.
pub(crate) fn with_env_vars(command: clap::Command) -> clap::Command {
    command.mut_args(|argument| {
        let Some(long) = argument.get_long().filter(|long| !["help", "version"].contains(long))
        else {
            return argument;
        };
        let variable = format!("PROTOSEG_{}", long.replace('-', "_").to_uppercase());
        // Lives as long as the program, as does the command line.
        argument.env(&*variable.leak()).hide_env_values(true)
    })
}

pub(crate) fn run(arguments: &ServeArgs) -> Result<CommandOutcome, CommandError> {
    let threads = run::threads().map_err(CommandError::Usage)?;
    let (json, collector) =
        (arguments.log_format == LogFormat::Json, arguments.otlp_endpoint.as_deref());
    let traces = threads.block_on(async { logs::init(&arguments.log_level, json, collector) });
    let traces = traces.map_err(CommandError::Usage)?;
    session::load_runtime().map_err(CommandError::usage)?;
    let plan = arguments.plan().map_err(CommandError::Usage)?;
    run::serve(threads, plan, traces)
}

/// What is to be served, and how.
struct ServeConfig {
    bundles: Vec<(String, PathBuf)>,
    models: TunedModelOptions,
    limits: ServiceLimits,
    connections: ConnectionLimits,
    http: SocketAddr,
    grpc: Option<SocketAddr>,
    probes: Option<SocketAddr>,
    tls: Option<[listener::TlsAcceptor; 2]>,
    key: Option<ApiKey>,
    repository: bool,
    origins: Vec<HeaderValue>,
    drain: Duration,
    drain_delay: Duration,
}

impl ServeArgs {
    fn plan(&self) -> anyhow::Result<ServeConfig> {
        let engine = self.engine.config();
        engine.check()?;
        let limits = self.limits()?;
        let limit = BatchLimit::default_for(engine.batch, engine.is_gpu());
        let pixels = positive("--batch-megapixels", self.batch_megapixels)? * 1e6;
        let plain = ModelOptions {
            engine: engine.clone(),
            limit: BatchLimit { pixels: pixels as u64, ..limit },
            delay: time("--max-delay", self.max_delay / 1e3)?,
            logits: self.serve_logits,
        };
        self.tuning.check()?;
        let models = TunedModelOptions { tuning: self.tuning.clone(), engine, plain };
        ensure!(self.connections > 0, "--connections 0 would answer nobody");
        let connections = ConnectionLimits {
            max_connections: self.connections,
            header_timeout: time("--head-timeout", positive("--head-timeout", self.head_timeout)?)?,
            idle_timeout: limits.deadline + limits.body_timeout + Duration::from_secs(30),
            write_timeout: limits.body_timeout,
        };
        let tls = match (&self.tls_cert, &self.tls_key) {
            (Some(certificate), Some(key)) => Some([
                listener::tls_acceptor(certificate, key, Protocol::Http1)?,
                listener::tls_acceptor(certificate, key, Protocol::Http2)?,
            ]),
            _ => None,
        };
        Ok(ServeConfig {
            bundles: self.named()?,
            models,
            limits,
            connections,
            http: self.http,
            grpc: self.grpc.0,
            probes: self.probes.0,
            tls,
            key: self.key()?,
            repository: self.repository,
            origins: self.cors_origins.clone(),
            drain: time("--drain", self.drain)?,
            drain_delay: time("--drain-delay", self.drain_delay)?,
        })
    }

    fn limits(&self) -> anyhow::Result<ServiceLimits> {
        let queue_pixels = (positive("--queue-megapixels", self.queue_megapixels)? * 1e6) as u64;
        ensure!(self.max_pixels > 0, "--max-pixels 0 would refuse every picture");
        ensure!(
            self.max_pixels <= queue_pixels,
            "--max-pixels {} allows pictures that --queue-megapixels {} never has room for; raise that or lower this",
            self.max_pixels,
            self.queue_megapixels
        );
        Ok(ServiceLimits {
            image_pixels: self.max_pixels,
            queue_pixels,
            body_bytes: self.max_body,
            bodies_bytes: self.max_body.saturating_mul(4),
            deadline: time("--deadline", positive("--deadline", self.deadline)?)?,
            body_timeout: time("--body-timeout", positive("--body-timeout", self.body_timeout)?)?,
        })
    }

    /// The bundles and their names, no name twice.
    fn named(&self) -> anyhow::Result<Vec<(String, PathBuf)>> {
        let mut named: Vec<(String, PathBuf)> = Vec::new();
        for text in &self.bundles {
            let (name, path) = match text.split_once('=') {
                Some((name, path)) => (Some(name.to_owned()), PathBuf::from(path)),
                None => (None, PathBuf::from(text)),
            };
            ensure!(path.exists(), "{}: there is no such bundle", path.display());
            let name = name.or_else(|| name_of(&path));
            let name = name.with_context(|| format!("{text} gives no name; write NAME={text}"))?;
            let fit = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
            ensure!(
                !name.is_empty()
                    && !name.starts_with('.')
                    && !name.ends_with(ENCODED_SUFFIX)
                    && name.chars().all(fit),
                "`{name}` cannot be a model's name: it stands in addresses; write NAME={} with letters, digits and . _ -, \
                 none of the dots first, and without {ENCODED_SUFFIX} at the end, which means picture files",
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

    fn key(&self) -> anyhow::Result<Option<ApiKey>> {
        let word = match &self.api_key_file {
            Some(path) => {
                Some(std::fs::read_to_string(path).with_context(|| path.display().to_string())?)
            }
            None => match std::env::var(KEY_VARIABLE) {
                Ok(word) => Some(word),
                Err(std::env::VarError::NotPresent) => None,
                Err(std::env::VarError::NotUnicode(_)) => bail!("{KEY_VARIABLE} is no text"),
            },
        };
        let empty = || {
            anyhow!("the key is empty, which would let everybody in; leave it out to ask for none")
        };
        word.map(|word| ApiKey::new(&word).ok_or_else(empty)).transpose()
    }
}

/// A number above zero.
fn positive(option: &str, number: f64) -> anyhow::Result<f64> {
    ensure!(number > 0.0 && number.is_finite(), "{option} {number} is no number above zero");
    Ok(number)
}

/// Seconds, of which there are at most as many as a day has.
fn time(option: &str, seconds: f64) -> anyhow::Result<Duration> {
    ensure!(
        (0.0..=86_400.0).contains(&seconds),
        "{option}: {seconds} s is no time from 0 to a day"
    );
    Ok(Duration::from_secs_f64(seconds))
}
