//! A server as a target, over HTTP: by the Open Inference Protocol with pixels as bytes, as Triton, KServe and `protoseg serve`
//! speak it, or by the plain form of `protoseg serve` with picture files.

mod protocol;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, CONNECTION, HOST};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

pub use self::protocol::HttpTargetError;
use self::protocol::{ExpectedBody, HEADER_LENGTH, ModelMetadata, infer_request};
use super::images::{BenchImage, BenchImages};
use super::target::{RequestError, RequestStages, Target};

/// A server that labels pictures.
#[derive(Debug)]
pub struct HttpTarget {
    base: Uri,
    host: String,
    key: Option<String>,
    described: ModelMetadata,
    bodies: Vec<Query>,
    path: String,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
    patience: Duration,
}

/// What is sent for a picture, how many of its bytes are a header, and what is to be answered.
#[derive(Debug)]
struct Query {
    body: Bytes,
    header: Option<usize>,
    expected: ExpectedBody,
}

/// An answer.
struct Answer {
    status: StatusCode,
    header: Option<usize>,
    body: Bytes,
    waited: Duration,
    received: Duration,
}

impl HttpTarget {
    /// Asks a server, such as `http://127.0.0.1:8000` or with a path before its own addresses, what its model is, the first
    /// one where none is named, and makes the requests for all pictures: their pixels, or with `files` their files.
    pub async fn open(
        url: &str,
        model: Option<&str>,
        key: Option<String>,
        images: &BenchImages,
        files: bool,
        patience: Duration,
    ) -> Result<Self, HttpTargetError> {
        let base: Uri = url.parse().map_err(|_| HttpTargetError::Url(url.to_owned()))?;
        let host = base.authority().filter(|_| base.scheme_str() == Some("http"));
        let host = host.ok_or_else(|| HttpTargetError::Url(url.to_owned()))?.to_string();
        let described = ModelMetadata::default();
        let (bodies, idle, path) = (Vec::new(), Mutex::default(), String::new());
        let mut remote = Self { base, host, key, described, bodies, path, idle, patience };
        let name = match model {
            Some(name) => name.to_owned(),
            None => protocol::first_ready(
                &remote.look(Method::POST, "/v2/repository/index").await?,
                url,
            )?,
        };
        let metadata = remote.look(Method::GET, &format!("/v2/models/{name}")).await?;
        remote.described = ModelMetadata::from_json(&metadata, url)?;
        let sheets = images.all();
        if files {
            remote.path = format!("/v1/models/{}/segment?as=labels", remote.described.name);
            let expected = |sheet: &BenchImage| ExpectedBody::Png(sheet.image.dimensions().into());
            let query = |sheet: &BenchImage| Query {
                body: sheet.file.clone(),
                header: None,
                expected: expected(sheet),
            };
            remote.bodies = sheets.iter().map(query).collect();
        } else {
            remote.path = format!("/v2/models/{}/infer", remote.described.name);
            let query = |sheet: &BenchImage| {
                let (body, header) = infer_request(&remote.described, &sheet.image);
                let pixels = sheet.image.width() as usize * sheet.image.height() as usize;
                Query { body, header: Some(header), expected: ExpectedBody::Labels(pixels) }
            };
            remote.bodies = sheets.iter().map(query).collect();
        }
        Ok(remote)
    }

    /// The model's name, and the version that the server tells.
    pub fn model(&self) -> (&str, &str) {
        (&self.described.name, &self.described.version)
    }

    /// What a server answers to a question without pictures.
    async fn look(&self, method: Method, path: &str) -> Result<serde_json::Value, HttpTargetError> {
        let at = format!("http://{}{}{path}", self.host, self.prefix());
        let body = if method == Method::POST { Bytes::from_static(b"{}") } else { Bytes::new() };
        let answer = self
            .send(method, path, &Query { body, header: None, expected: ExpectedBody::Json })
            .await;
        let answer = answer
            .map_err(|RequestError(reason)| HttpTargetError::NoAnswer { at: at.clone(), reason })?;
        if !answer.status.is_success() {
            let said = said(&answer.body);
            return Err(HttpTargetError::Refused { at, status: answer.status.as_u16(), said });
        }
        serde_json::from_slice(&answer.body)
            .map_err(|source| HttpTargetError::NotJson { at, source })
    }

    /// What comes before a server's own paths.
    fn prefix(&self) -> &str {
        self.base.path().trim_end_matches('/')
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        query: &Query,
    ) -> Result<Answer, RequestError> {
        let sent = self.exchange(method, path, query);
        let late = |_| {
            RequestError(format!("there was no answer within {} s", self.patience.as_secs_f64()))
        };
        tokio::time::timeout(self.patience, sent).await.map_err(late)?
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        query: &Query,
    ) -> Result<Answer, RequestError> {
        let failed = |error: hyper::Error| RequestError::from_error(&error);
        let request = self.build_request(method, path, query)?;
        while let Some(mut idle) = self.idle() {
            // Whoever closed it meanwhile has not heard of this request, and is asked on another.
            if idle.ready().await.is_ok() {
                match self.ask_on(idle, request.clone()).await {
                    Err(error) if error.is_canceled() => {}
                    answered => return answered.map_err(failed),
                }
            }
        }
        let mut fresh = self.connect().await?;
        fresh.ready().await.map_err(failed)?;
        self.ask_on(fresh, request).await.map_err(failed)
    }

    fn build_request(
        &self,
        method: Method,
        path: &str,
        query: &Query,
    ) -> Result<Request<Full<Bytes>>, RequestError> {
        let mut request = Request::builder().method(method).header(HOST, &self.host);
        request = request.uri(format!("{}{path}", self.prefix()));
        if let Some(header) = query.header {
            request = request.header(HEADER_LENGTH, header);
        }
        if let Some(key) = &self.key {
            request = request.header(AUTHORIZATION, format!("Bearer {key}"));
        }
        request
            .body(Full::new(query.body.clone()))
            .map_err(|error| RequestError::from_error(&error))
    }

    fn idle(&self) -> Option<SendRequest<Full<Bytes>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    async fn ask_on(
        &self,
        mut connection: SendRequest<Full<Bytes>>,
        request: Request<Full<Bytes>>,
    ) -> hyper::Result<Answer> {
        let start = Instant::now();
        let response = connection.send_request(request).await?;
        let waited = start.elapsed();
        let (head, body) = response.into_parts();
        let header =
            head.headers.get(HEADER_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let body = body.collect().await?.to_bytes();
        let received = start.elapsed() - waited;
        if head.headers.get(CONNECTION).is_none_or(|value| value != "close") {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
        Ok(Answer { status: head.status, header, body, waited, received })
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, RequestError> {
        let place = (self.base.host().unwrap_or_default(), self.base.port_u16().unwrap_or(80));
        let stream = TcpStream::connect((place.0.trim_matches(['[', ']']), place.1)).await;
        let stream = stream.map_err(|error| RequestError::from_error(&error))?;
        // Small requests would wait for others to fill a packet.
        stream.set_nodelay(true).map_err(|error| RequestError::from_error(&error))?;
        let (sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(|error| RequestError::from_error(&error))?;
        tokio::spawn(connection);
        Ok(sender)
    }
}

impl Target for HttpTarget {
    async fn request(&self, picture: usize) -> Result<RequestStages, RequestError> {
        let query = &self.bodies[picture % self.bodies.len()];
        let answer = self.send(Method::POST, &self.path, query).await?;
        if !answer.status.is_success() {
            return Err(RequestError(format!(
                "status {}: {}",
                answer.status.as_u16(),
                said(&answer.body)
            )));
        }
        query.expected.check(&answer.body, answer.header).map_err(RequestError)?;
        Ok(vec![("wait", answer.waited), ("receive", answer.received)])
    }
}

/// The start of what a server says.
fn said(body: &[u8]) -> String {
    String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned()
}
