//! TLS, and traces for an OpenTelemetry collector.

use std::io::{Read, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use protoseg_serve::listener::{ConnectionLimits, Listener, Protocol};
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, Stream};

use super::oip::png;
use super::server::{Response, Server, request};
use crate::common::stripes;

#[test]
fn requests_over_tls_are_answered_if_the_client_trusts_the_certificate() {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("certificate.pem"), folder.path().join("key.pem"));
    std::fs::write(&certificate, own.cert.pem()).unwrap();
    std::fs::write(&key, own.signing_key.serialize_pem()).unwrap();
    let [certificate, key] = [certificate, key].map(|path| path.display().to_string());
    let server = Server::start(&["--tls-cert", &certificate, "--tls-key", &key]);
    let ask = |roots: RootCertStore| {
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(roots).with_no_client_auth();
        let mut connection =
            ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
        let mut socket = server.connect();
        let mut stream = Stream::new(&mut connection, &mut socket);
        stream.write_all(&request("POST", "/v1/segment", &[], &png(&stripes(16, 16))))?;
        let mut answer = Vec::new();
        // The server closes without close_notify.
        drop(stream.read_to_end(&mut answer));
        Ok::<_, std::io::Error>(Response::parse(&answer).unwrap())
    };
    let mut roots = RootCertStore::empty();
    assert!(ask(roots.clone()).unwrap_err().to_string().contains("UnknownIssuer"));
    roots.add(own.cert.der().clone()).unwrap();
    assert_eq!(ask(roots).unwrap().status, 200);
    // Without TLS there is no answer, and no harm to others.
    assert!(server.send(&request("GET", "/v2/health/live", &[], b"")).is_none());
}

#[test]
fn a_collector_gets_a_span_for_each_request_in_the_callers_trace() {
    let threads =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let socket = threads.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = socket.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let collected = Arc::clone(&seen);
    let collect = move |body: Bytes| async move {
        collected.lock().unwrap().extend_from_slice(&body);
        // An empty gRPC message without a status: the server may retry.
        ([(CONTENT_TYPE, "application/grpc")], vec![0_u8; 5]).into_response()
    };
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    let limits = ConnectionLimits {
        max_connections: 8,
        header_timeout: Duration::from_secs(60),
        idle_timeout: Duration::from_secs(60),
        write_timeout: Duration::from_secs(60),
    };
    let connections = protoseg_serve::metrics::Metrics::default().connections;
    let listener = Listener { socket, protocol: Protocol::Http2, tls: None, limits, connections };
    threads.spawn(listener.serve(axum::Router::new().fallback(collect), stopped));

    let collector = format!("http://{address}");
    let mut server = Server::start(&["--otlp-endpoint", &collector]);
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    let headers = [("traceparent", parent.as_str()), ("x-request-id", "the-one-traced")];
    assert_eq!(server.post("/v1/segment", &headers, &png(&stripes(16, 16))).status, 200);
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0), "{}", server.log());
    let seen = seen.lock().unwrap();
    let trace: Vec<u8> = (0..16)
        .map(|byte| u8::from_str_radix(&trace[2 * byte..2 * byte + 2], 16).unwrap())
        .collect();
    for part in [&trace[..], b"the-one-traced", b"/v1/segment", b"protoseg"] {
        assert!(
            seen.windows(part.len()).any(|window| window == part),
            "{}",
            String::from_utf8_lossy(part)
        );
    }
}
