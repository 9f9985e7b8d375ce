//! The server's life: sockets, models, signals, and an end in good order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use protoseg_infer::machine::cores;
use protoseg_serve::Service;
use protoseg_serve::grpc;
use protoseg_serve::http::{self, AppState};
use protoseg_serve::listener::{ConnectionLimits, Listener, Protocol, bind};
use protoseg_serve::metrics::Metrics;
use protoseg_serve::registry::{LoadedModel, ModelRegistry};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::ServeConfig;
use super::logs::TraceGuard;
use crate::commands::run_args::describe;
use crate::commands::{CommandError, CommandOutcome};

/// Time for the head of a request from who watches over the server: shorter than the patience of most, so that connections
/// without requests do not keep them out.
const PROBE_HEAD: Duration = Duration::from_secs(1);

/// Threads that wait for the network; what keeps a core busy runs elsewhere.
const THREADS: usize = 4;

/// The threads of the server.
pub(super) fn threads() -> anyhow::Result<Runtime> {
    let threads =
        Builder::new_multi_thread().worker_threads(cores().clamp(2, THREADS)).enable_all().build();
    threads.context("the server's threads cannot be started")
}

pub(super) fn serve(
    threads: Runtime,
    plan: ServeConfig,
    traces: TraceGuard,
) -> Result<CommandOutcome, CommandError> {
    let outcome = threads.block_on(run(plan));
    // While there are threads that can send them.
    drop(traces);
    // What still runs belongs to requests that were given up.
    threads.shutdown_timeout(Duration::from_millis(100));
    outcome
}

/// The signals that a server takes.
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

    /// Waits for one that ends the server, and returns the status of a program that it kills; none where models are to be
    /// loaded anew.
    async fn next(&mut self) -> Option<u8> {
        tokio::select! {
            _ = self.terminate.recv() => Some(143),
            _ = self.interrupt.recv() => Some(130),
            _ = self.reload.recv() => None,
        }
    }

    /// Waits for one that ends the server.
    async fn end(&mut self) -> u8 {
        loop {
            if let Some(status) = self.next().await {
                return status;
            }
        }
    }
}

async fn run(plan: ServeConfig) -> Result<CommandOutcome, CommandError> {
    let mut signals =
        ServerSignals::catch().context("signals cannot be caught").map_err(CommandError::Usage)?;
    let metrics = Arc::new(Metrics::default());
    let models =
        ModelRegistry::new(plan.bundles.clone(), plan.models.clone(), Arc::clone(&metrics));
    let service = Arc::new(Service::new(models, plan.limits, metrics));
    let (stop, stopped) = watch::channel(false);
    let servers = listen(&plan, &service, &stopped).await.map_err(CommandError::Usage)?;
    let loading = Arc::clone(&service);
    let loaded = tokio::task::spawn_blocking(move || load_all(&loading));
    tokio::select! {
        loaded = loaded => loaded.context("the models cannot be loaded").and_then(|loaded| loaded).map_err(CommandError::Usage)?,
        status = signals.end() => return Ok(CommandOutcome::ExitCode(status)),
    }
    tracing::info!("ready");
    loop {
        match signals.next().await {
            None => reload(&service),
            Some(_) => return Ok(drain(&plan, &service, &stop, servers, &mut signals).await),
        }
    }
}

/// Opens the sockets and begins to answer: that it lives, and that it is not ready.
async fn listen(
    plan: &ServeConfig,
    service: &Arc<Service>,
    stopped: &watch::Receiver<bool>,
) -> anyhow::Result<Vec<JoinHandle<()>>> {
    let front = AppState {
        service: Arc::clone(service),
        key: plan.key.clone(),
        repository: plan.repository,
        origins: plan.origins.clone(),
    };
    let [http_tls, grpc_tls] = plan.tls.clone().map_or([None, None], |tls| tls.map(Some));
    if let Some(address) = plan.probes {
        serve_probes(address, plan, front.clone()).await?;
    }
    let mut places =
        vec![(plan.http, "http", Protocol::Http1, http_tls, http::router(front.clone()))];
    if let Some(address) = plan.grpc {
        places.push((
            address,
            "grpc",
            Protocol::Http2,
            grpc_tls,
            grpc::router(front, stopped.clone())?,
        ));
    }
    let mut servers = Vec::new();
    for (address, scheme, protocol, tls, router) in places {
        let socket = bind(address).await?;
        let secure = if tls.is_some() { "s" } else { "" };
        tracing::info!("listening on {scheme}{secure}://{}", socket.local_addr()?);
        let connections = service.metrics.connections.clone();
        let listener = Listener { socket, protocol, tls, limits: plan.connections, connections };
        servers.push(tokio::spawn(listener.serve(router, stopped.clone())));
    }
    Ok(servers)
}

/// Answers how the server is, for as long as it lives: while it drains, too.
async fn serve_probes(
    address: SocketAddr,
    plan: &ServeConfig,
    front: AppState,
) -> anyhow::Result<()> {
    let socket = bind(address).await?;
    tracing::info!("health and metrics on http://{}", socket.local_addr()?);
    let head = plan.connections.header_timeout.min(PROBE_HEAD);
    let (limits, connections) = (
        ConnectionLimits { header_timeout: head, ..plan.connections },
        front.service.metrics.connections.clone(),
    );
    let listener = Listener { socket, protocol: Protocol::Http1, tls: None, limits, connections };
    let (never, stopped) = watch::channel(false);
    tokio::spawn(async move {
        listener.serve(http::probes(front), stopped).await;
        drop(never);
    });
    Ok(())
}

fn load_all(service: &Service) -> anyhow::Result<()> {
    for name in service.models.names() {
        let served = service.models.load(&name)?;
        say(&served);
    }
    Ok(())
}

fn say(served: &LoadedModel) {
    let LoadedModel { name, version, setup, .. } = served;
    tracing::info!(model = name, version, "loaded: {}", describe(setup));
}

/// Loads every model anew, beside answering.
fn reload(service: &Arc<Service>) {
    let service = Arc::clone(service);
    tokio::task::spawn_blocking(move || {
        for name in service.models.names() {
            match service.models.load(&name) {
                Ok(served) => say(&served),
                Err(error) => tracing::error!("{error}; what was loaded before stays"),
            }
        }
    });
}

/// Stops in good order: no longer ready, then no more connections, then the end once all is answered or time is up.
async fn drain(
    plan: &ServeConfig,
    service: &Service,
    stop: &watch::Sender<bool>,
    servers: Vec<JoinHandle<()>>,
    signals: &mut ServerSignals,
) -> CommandOutcome {
    service.drain();
    tracing::info!("stopping: no longer ready");
    let finish = async {
        tokio::time::sleep(plan.drain_delay).await;
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
        () = tokio::time::sleep(plan.drain_delay + plan.drain) => {
            tracing::warn!("stopped: time is up, and what was still open was closed");
            CommandOutcome::Success
        }
        status = signals.end() => CommandOutcome::ExitCode(status),
    }
}
