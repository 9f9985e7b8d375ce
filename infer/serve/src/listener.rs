//! Connections: so many at a time, each with limits of time, over TLS where there is a certificate; when the server stops,
//! those that are busy finish.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
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

/// Requests that one HTTP/2 connection may have open.
const STREAMS: u32 = 64;

/// Bytes of the heads of an HTTP/2 request.
const HEAD: u32 = 16 << 10;

/// What a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, from the first byte on: gRPC.
    Http2,
}

/// What connections may do.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// How many there may be; others wait to be accepted.
    pub max_connections: usize,
    /// Time for the head of a request, and for the handshake of TLS.
    pub header_timeout: Duration,
    /// Time in which a connection must bring a byte; longer than any answer takes.
    pub idle_timeout: Duration,
    /// Time in which it must take a byte.
    pub write_timeout: Duration,
}

/// Why there can be no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that is no certificate, or no key.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// What is wrong with it.
        source: rustls_pki_types::pem::Error,
    },
    /// A certificate and a key that do not fit.
    #[error("the certificate and the key cannot be used: {0}")]
    Pair(#[from] tokio_rustls::rustls::Error),
}

/// TLS with a chain of certificates and a key, both PEM files.
pub fn tls_acceptor(
    certificates: &Path,
    key: &Path,
    protocol: Protocol,
) -> Result<TlsAcceptor, TlsError> {
    let at = |path: &Path| {
        let path = path.display().to_string();
        move |source| TlsError::File { path, source }
    };
    let chain = CertificateDer::pem_file_iter(certificates).and_then(Iterator::collect);
    let chain: Vec<CertificateDer<'static>> = chain.map_err(at(certificates))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(at(key))?;
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = config.with_no_client_auth().with_single_cert(chain, key)?;
    config.alpn_protocols = match protocol {
        Protocol::Http1 => vec![b"http/1.1".to_vec()],
        Protocol::Http2 => vec![b"h2".to_vec()],
    };
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// A place where connections come in.
pub struct Listener {
    /// The socket.
    pub socket: TcpListener,
    /// What is spoken there.
    pub protocol: Protocol,
    /// TLS, if it is spoken.
    pub tls: Option<TlsAcceptor>,
    /// What connections may do.
    pub limits: ConnectionLimits,
    /// Counts them.
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
    /// Answers until `stop` becomes true; then no connection is accepted any more, and it returns once those that are busy
    /// are done.
    pub async fn serve(self, router: Router, mut stop: watch::Receiver<bool>) {
        let graceful = GracefulShutdown::new();
        let room = Arc::new(Semaphore::new(self.limits.max_connections));
        loop {
            let accepted = async {
                // The semaphore is never closed.
                let permit = Arc::clone(&room).acquire_owned().await.ok();
                (self.socket.accept().await, permit)
            };
            let (accepted, permit) = tokio::select! {
                accepted = accepted => accepted,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    // Of too many open files, say: others may be closed meanwhile.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            drop(stream.set_nodelay(true));
            let (tls, router, limits, protocol) =
                (self.tls.clone(), router.clone(), self.limits, self.protocol);
            let (watcher, counted) =
                (graceful.watcher(), ConnectionGuard::new(self.connections.clone()));
            tokio::spawn(async move {
                let _held = (permit, counted);
                let ended = match tls {
                    None => connection(stream, router, protocol, limits, watcher).await,
                    Some(tls) => {
                        match tokio::time::timeout(limits.header_timeout, tls.accept(stream)).await
                        {
                            Ok(Ok(stream)) => {
                                connection(stream, router, protocol, limits, watcher).await
                            }
                            Ok(Err(error)) => Err(error.to_string()),
                            Err(_) => Err("no handshake in time".to_owned()),
                        }
                    }
                };
                if let Err(error) = ended {
                    tracing::debug!(error, "a connection broke off");
                }
            });
        }
        drop(self.socket);
        graceful.shutdown().await;
    }
}

/// Answers the requests of one connection.
async fn connection(
    stream: impl AsyncRead + AsyncWrite + Send + 'static,
    router: Router,
    protocol: Protocol,
    limits: ConnectionLimits,
    watcher: hyper_util::server::graceful::Watcher,
) -> Result<(), String> {
    let mut stream = TimeoutStream::new(stream);
    stream.set_read_timeout(Some(limits.idle_timeout));
    stream.set_write_timeout(Some(limits.write_timeout));
    let io = TokioIo::new(Box::pin(stream));
    let service = TowerToHyperService::new(tower::ServiceBuilder::new().service(router));
    let ended = match protocol {
        Protocol::Http1 => {
            let mut builder = hyper::server::conn::http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(limits.header_timeout);
            watcher.watch(builder.serve_connection(io, service)).await
        }
        Protocol::Http2 => {
            let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            builder
                .timer(TokioTimer::new())
                .max_concurrent_streams(STREAMS)
                .max_header_list_size(HEAD)
                .keep_alive_interval(limits.header_timeout)
                .keep_alive_timeout(limits.header_timeout);
            watcher.watch(builder.serve_connection(io, service)).await
        }
    };
    ended.map_err(|error| error.to_string())
}

/// Counts a connection for as long as it lives.
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

/// Opens a socket, with a message that says what to do where it is taken.
pub async fn bind(address: std::net::SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        io::Error::new(
            error.kind(),
            format!(
                "cannot listen on {address}: {error}; name another with --http, --grpc or --probes"
            ),
        )
    })
}
