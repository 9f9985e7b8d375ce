//! A server that a test starts, and clients of it.

use std::future::Future;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::pin::Pin;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{Request, Response, Uri};
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};

use self::pb::ModelInferRequest;
use self::pb::grpc_inference_service_client::GrpcInferenceServiceClient;
use self::pb::model_infer_request::InferInputTensor;
use crate::common::fixture;

/// What `build.rs` makes of the .proto file for clients.
pub(super) mod pb {
    #![expect(unreachable_pub, reason = "generated")]

    include!(concat!(env!("OUT_DIR"), "/client/inference.rs"));
}

/// Longer than anything takes here, so that a test fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes of an answer that a connection takes before somebody reads them.
pub(super) const WINDOW: u32 = 1 << 16;

/// A running server of the fixture `colors`.
pub(super) struct Server {
    http: SocketAddr,
    grpc: SocketAddr,
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Server {
    /// Starts it, and waits until it is ready.
    pub(super) fn start(options: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_protoseg"));
        command.arg("serve").arg(fixture("colors")).args([
            "--http",
            "127.0.0.1:0",
            "--grpc",
            "127.0.0.1:0",
        ]);
        let mut child =
            command.args(options).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let log = Arc::new(Mutex::new(String::new()));
        for line in lines.by_ref() {
            log.lock().unwrap().push_str(&format!("{line}\n"));
            if line.ends_with(" ready") {
                break;
            }
        }
        let text = log.lock().unwrap().clone();
        let address = |scheme: &str| {
            let (_, rest) = text
                .split_once(&format!("listening on {scheme}://"))
                .unwrap_or_else(|| panic!("{text}"));
            rest.lines().next().unwrap().parse().unwrap()
        };
        let (http, grpc) = (address("http"), address("grpc"));
        let more = Arc::clone(&log);
        std::thread::spawn(move || {
            lines.for_each(|line| more.lock().unwrap().push_str(&format!("{line}\n")))
        });
        Self { http, grpc, child, log }
    }

    pub(super) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub(super) fn origin(&self) -> Uri {
        format!("http://{}", self.grpc).parse().unwrap()
    }

    /// A connection of its own.
    pub(super) async fn connect(&self) -> Connection {
        let stream = tokio::net::TcpStream::connect(self.grpc).await.unwrap();
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(WINDOW).initial_connection_window_size(WINDOW);
        let (send, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Connection(send)
    }

    pub(super) async fn client(&self) -> GrpcInferenceServiceClient<Connection> {
        let client = GrpcInferenceServiceClient::with_origin(self.connect().await, self.origin());
        client.max_decoding_message_size(usize::MAX)
    }

    /// Sends the bytes of a call as they are; the answer comes once its head has.
    pub(super) async fn send(&self, path: &str, body: Body) -> Response<Incoming> {
        let request = Request::post(format!("{}{path}", self.origin()).replace("//inf", "/inf"));
        let request = request.header("content-type", "application/grpc").header("te", "trailers");
        self.connect().await.0.send_request(request.body(body).unwrap()).await.unwrap()
    }

    /// The value of a metric, by the start of its line.
    pub(super) fn metric(&self, start: &str) -> f64 {
        let mut stream = TcpStream::connect(self.http).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let line = text
            .lines()
            .find(|line| line.starts_with(start))
            .unwrap_or_else(|| panic!("{start}\n{text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// Waits until something holds.
    pub(super) fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !holds(self) {
            assert!(start.elapsed() < PATIENCE, "not in time: {what}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(super) fn terminate(&self) {
        assert!(Command::new("kill").arg(self.child.id().to_string()).status().unwrap().success());
    }

    pub(super) fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A connection to the server.
#[derive(Clone)]
pub(super) struct Connection(http2::SendRequest<Body>);

impl tower::Service<Request<tonic::body::Body>> for Connection {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = hyper::Result<Response<Incoming>>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.0.send_request(request.map(Body::new)))
    }
}

/// A request for a model with one raw input.
pub(super) fn raw(
    model: &str,
    datatype: &str,
    shape: &[i64],
    bytes: impl Into<Bytes>,
) -> ModelInferRequest {
    ModelInferRequest {
        model_name: model.to_owned(),
        inputs: vec![InferInputTensor {
            name: "image".to_owned(),
            datatype: datatype.to_owned(),
            shape: shape.to_vec(),
            contents: None,
        }],
        raw_input_contents: vec![bytes.into()],
        ..ModelInferRequest::default()
    }
}

/// The bytes of a call with one message, of which the head says how long it is.
pub(super) fn framed(length: u32, message: &[u8]) -> Vec<u8> {
    [&[0], &length.to_be_bytes()[..], message].concat()
}
