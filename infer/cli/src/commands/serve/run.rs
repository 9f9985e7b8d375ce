//! Life of the server: sockets, models, signals, and the drain at the end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use protoseg_infer::machine::cores;
use protoseg_serve::listener::{ConnectionLimits, Listener, Protocol, bind};
use protoseg_serve::metrics::Metrics;
use protoseg_serve::registry::{LoadedModel, ModelRegistry};
use protoseg_serve::{AppState, Service, grpc, http};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::ServeConfig;
use super::logs::TraceGuard;
use crate::commands::run_args::describe;
use crate::commands::{CommandError, CommandOutcome};

/// For the head of a probe: short, so that idle connections do not keep probes out.
const PROBE_HEAD_TIMEOUT: Duration = Duration::from_secs(1);

/// Async threads; CPU-bound work runs elsewhere.
const MAX_THREADS: usize = 4;

pub(super) fn start_runtime() -> anyhow::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(cores().clamp(2, MAX_THREADS))
        .enable_all()
        .build()
        .context("cannot start the server's threads")
}

pub(super) fn serve(
    runtime: Runtime,
    config: ServeConfig,
    traces: TraceGuard,
) -> Result<CommandOutcome, CommandError> {
    let outcome = runtime.block_on(run(config));
    // Sends the last traces, for which it needs the runtime.
    drop(traces);
    // What still runs belongs to requests that were given up.
    runtime.shutdown_timeout(Duration::from_millis(100));
    outcome
}

struct ServerSignals {
    terminate: Signal,
    interrupt: Signal,
    reload: Signal,
}

impl ServerSignals {
    fn catch() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reload: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for a signal: none for SIGHUP, else the exit status of a program that it kills.
    async fn next(&mut self) -> Option<u8> {
        tokio::select! {
            _ = self.terminate.recv() => Some(143),
            _ = self.interrupt.recv() => Some(130),
            _ = self.reload.recv() => None,
        }
    }

    /// Waits for a signal that ends the server.
    async fn end(&mut self) -> u8 {
        loop {
            if let Some(status) = self.next().await {
                return status;
            }
        }
    }
}

async fn run(config: ServeConfig) -> Result<CommandOutcome, CommandError> {
    let mut signals =
        ServerSignals::catch().context("cannot catch signals").map_err(CommandError::Usage)?;
    let metrics = Arc::new(Metrics::default());
    let models =
        ModelRegistry::new(config.bundles.clone(), config.models.clone(), Arc::clone(&metrics));
    let service = Arc::new(Service::new(models, config.limits, metrics));
    let (stop, stopped) = watch::channel(false);
    let servers = listen(&config, &service, &stopped).await.map_err(CommandError::Usage)?;
    let loading = Arc::clone(&service);
    let loaded = tokio::task::spawn_blocking(move || load_all(&loading));
    tokio::select! {
        loaded = loaded => {
            loaded.context("cannot load the models").flatten().map_err(CommandError::Usage)?;
        }
        status = signals.end() => return Ok(CommandOutcome::ExitCode(status)),
    }
    tracing::info!("ready");
    while signals.next().await.is_none() {
        reload(&service);
    }
    Ok(drain(&config, &service, &stop, servers, &mut signals).await)
}

/// Opens the sockets; until the models are loaded, the server is live and not ready.
async fn listen(
    config: &ServeConfig,
    service: &Arc<Service>,
    stopped: &watch::Receiver<bool>,
) -> anyhow::Result<Vec<JoinHandle<()>>> {
    let state = AppState {
        service: Arc::clone(service),
        key: config.key.clone(),
        repository: config.repository,
        origins: config.origins.clone(),
    };
    let [http_tls, grpc_tls] = config.tls.clone().map_or([None, None], |tls| tls.map(Some));
    if let Some(address) = config.probes {
        serve_probes(address, config, state.clone()).await?;
    }
    let router = http::router(state.clone());
    let mut front_ends = vec![(config.http, "http", Protocol::Http1, http_tls, router)];
    if let Some(address) = config.grpc {
        let router = grpc::router(state, stopped.clone())?;
        front_ends.push((address, "grpc", Protocol::Http2, grpc_tls, router));
    }
    let mut servers = Vec::new();
    for (address, scheme, protocol, tls, router) in front_ends {
        let socket = bind(address).await?;
        let secure = if tls.is_some() { "s" } else { "" };
        tracing::info!("listening on {scheme}{secure}://{}", socket.local_addr()?);
        let connections = service.metrics.connections.clone();
        let listener = Listener { socket, protocol, tls, limits: config.connections, connections };
        servers.push(tokio::spawn(listener.serve(router, stopped.clone())));
    }
    Ok(servers)
}

/// Serves health and metrics until the process ends.
async fn serve_probes(
    address: SocketAddr,
    config: &ServeConfig,
    state: AppState,
) -> anyhow::Result<()> {
    let socket = bind(address).await?;
    tracing::info!("health and metrics on http://{}", socket.local_addr()?);
    let header_timeout = config.connections.header_timeout.min(PROBE_HEAD_TIMEOUT);
    let listener = Listener {
        socket,
        protocol: Protocol::Http1,
        tls: None,
        limits: ConnectionLimits { header_timeout, ..config.connections },
        connections: state.service.metrics.connections.clone(),
    };
    let (never, stopped) = watch::channel(false);
    tokio::spawn(async move {
        listener.serve(http::probes(state), stopped).await;
        drop(never);
    });
    Ok(())
}

fn load_all(service: &Service) -> anyhow::Result<()> {
    for name in service.models.names() {
        log_loaded(&*service.models.load(&name)?);
    }
    Ok(())
}

fn log_loaded(LoadedModel { name, version, setup, .. }: &LoadedModel) {
    tracing::info!(model = name, version, "loaded: {}", describe(setup));
}

/// Reloads every model in the background.
fn reload(service: &Arc<Service>) {
    let service = Arc::clone(service);
    tokio::task::spawn_blocking(move || {
        for name in service.models.names() {
            match service.models.load(&name) {
                Ok(model) => log_loaded(&model),
                Err(error) => tracing::error!("{error}; the model loaded before stays"),
            }
        }
    });
}

/// Reports not ready, then closes the sockets, then waits until all is answered or time is up.
async fn drain(
    config: &ServeConfig,
    service: &Service,
    stop: &watch::Sender<bool>,
    servers: Vec<JoinHandle<()>>,
    signals: &mut ServerSignals,
) -> CommandOutcome {
    service.drain();
    tracing::info!("stopping: no longer ready");
    let finish = async {
        tokio::time::sleep(config.drain_delay).await;
        stop.send_replace(true);
        for server in servers {
            drop(server.await);
        }
    };
    tokio::select! {
        () = finish => {
            tracing::info!("stopped: all requests were answered");
            CommandOutcome::Success
        }
        () = tokio::time::sleep(config.drain_delay + config.drain) => {
            tracing::warn!("stopped: time is up, open requests were closed");
            CommandOutcome::Success
        }
        status = signals.end() => CommandOutcome::ExitCode(status),
    }
}
