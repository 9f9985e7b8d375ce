//! Listening sockets: a limited number of connections, each with time limits, TLS where configured,
//! and a drain at the end.
//!
//! `axum::serve` and `axum-server` limit neither connections before they are accepted, nor idle
//! ones, nor slow readers.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use prometheus_client::metrics::gauge::Gauge;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_io_timeout::TimeoutStream;
pub use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;

/// Concurrent requests of one HTTP/2 connection.
const MAX_STREAMS: u32 = 64;

/// Bytes of the headers of an HTTP/2 request.
const MAX_HEADERS: u32 = 16 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge: gRPC.
    Http2,
}

#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// Open connections; others wait to be accepted.
    pub max_connections: usize,
    /// For the head of a request, and for the TLS handshake.
    pub header_timeout: Duration,
    /// For the next byte to arrive; longer than any answer takes.
    pub idle_timeout: Duration,
    /// For the next byte to be taken.
    pub write_timeout: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{path}: {source}")]
    File { path: String, source: rustls_pki_types::pem::Error },
    #[error("the certificate and the key cannot be used: {0}")]
    Pair(#[from] tokio_rustls::rustls::Error),
}

/// Builds TLS from PEM files with a certificate chain and its key.
pub fn tls_acceptor(
    certificates: &Path,
    key: &Path,
    protocol: Protocol,
) -> Result<TlsAcceptor, TlsError> {
    let in_file = |path: &Path| {
        let path = path.display().to_string();
        move |source| TlsError::File { path, source }
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificates)
        .and_then(Iterator::collect)
        .map_err(in_file(certificates))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(in_file(key))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    let alpn: &[u8] = match protocol {
        Protocol::Http1 => b"http/1.1",
        Protocol::Http2 => b"h2",
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

pub struct Listener {
    pub socket: TcpListener,
    pub protocol: Protocol,
    pub tls: Option<TlsAcceptor>,
    pub limits: ConnectionLimits,
    /// Counts open connections.
    pub connections: Gauge,
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Listener")
            .field("socket", &self.socket)
            .field("protocol", &self.protocol)
            .finish_non_exhaustive()
    }
}

impl Listener {
    /// Serves until `stop` becomes true, then waits for busy connections.
    pub async fn serve(self, router: Router, mut stop: watch::Receiver<bool>) {
        let graceful = GracefulShutdown::new();
        let permits = Arc::new(Semaphore::new(self.limits.max_connections));
        loop {
            let accepted = async {
                // The semaphore is never closed.
                let permit = Arc::clone(&permits).acquire_owned().await.ok();
                (self.socket.accept().await, permit)
            };
            let (accepted, permit) = tokio::select! {
                accepted = accepted => accepted,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    // With too many open files, say, others may be closed meanwhile.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            drop(stream.set_nodelay(true));
            let tls = self.tls.clone();
            let counted = ConnectionGuard::new(self.connections.clone());
            let connection = Connection {
                router: router.clone(),
                protocol: self.protocol,
                limits: self.limits,
                watcher: graceful.watcher(),
            };
            tokio::spawn(async move {
                let _held = (permit, counted);
                let timeout = connection.limits.header_timeout;
                let result = match tls {
                    None => connection.serve(stream).await,
                    Some(tls) => match tokio::time::timeout(timeout, tls.accept(stream)).await {
                        Ok(Ok(stream)) => connection.serve(stream).await,
                        Ok(Err(error)) => Err(error.to_string()),
                        Err(_) => Err("TLS handshake timed out".to_owned()),
                    },
                };
                if let Err(error) = result {
                    tracing::debug!(error, "a connection failed");
                }
            });
        }
        drop(self.socket);
        graceful.shutdown().await;
    }
}

struct Connection {
    router: Router,
    protocol: Protocol,
    limits: ConnectionLimits,
    watcher: Watcher,
}

impl Connection {
    async fn serve(
        self,
        stream: impl AsyncRead + AsyncWrite + Send + 'static,
    ) -> Result<(), String> {
        let Self { router, protocol, limits, watcher } = self;
        let mut stream = TimeoutStream::new(stream);
        stream.set_read_timeout(Some(limits.idle_timeout));
        stream.set_write_timeout(Some(limits.write_timeout));
        let io = TokioIo::new(Box::pin(stream));
        let service = TowerToHyperService::new(tower::ServiceBuilder::new().service(router));
        let result = match protocol {
            Protocol::Http1 => {
                let mut builder = http1::Builder::new();
                builder.timer(TokioTimer::new()).header_read_timeout(limits.header_timeout);
                watcher.watch(builder.serve_connection(io, service)).await
            }
            Protocol::Http2 => {
                let mut builder = http2::Builder::new(TokioExecutor::new());
                builder
                    .timer(TokioTimer::new())
                    .max_concurrent_streams(MAX_STREAMS)
                    .max_header_list_size(MAX_HEADERS)
                    .keep_alive_interval(limits.header_timeout)
                    .keep_alive_timeout(limits.header_timeout);
                watcher.watch(builder.serve_connection(io, service)).await
            }
        };
        result.map_err(|error| error.to_string())
    }
}

/// Counts a connection while it lives.
struct ConnectionGuard(Gauge);

impl ConnectionGuard {
    fn new(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Binds an address; the error says which flags change it.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let why = format!(
            "cannot listen on {address}: {error}; choose another with --http, --grpc or --probes"
        );
        io::Error::new(error.kind(), why)
    })
}
