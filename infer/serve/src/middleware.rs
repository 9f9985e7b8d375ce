//! Handling that every request has on both front ends: request id, trace context, key, deadline,
//! metrics and access log.
//!
//! The deadline is ours instead of `tower_http::timeout`, as it applies to inference alone and ends
//! in an error of the front end: a JSON message, or a gRPC status within the client's
//! `grpc-timeout`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use protoseg_infer::{Stage, StageTimes};
use subtle::ConstantTimeEq;
use tonic::{Code, Status};
use tracing::{Instrument, Span, field};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use uuid::Uuid;

use super::budget::Permit;
use super::error::RequestOutcome;
use super::{AppState, Service, ServiceError};
use crate::body::PermitBody;
use crate::limited_body::LimitedBody;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Bytes of the longest request id that is taken over from a client.
const MAX_ID: usize = 128;

/// HTTP paths that need no key: they reveal nothing of any image.
const OPEN_PATHS: [&str; 5] =
    ["/v2/health/live", "/v2/health/ready", "/metrics", "/openapi.json", "/"];

/// The page's files need none either.
const OPEN_FOLDER: &str = "/page/";

/// Prefixes of gRPC methods that need no key.
const OPEN_METHODS: [&str; 4] = [
    "/grpc.health.",
    "/grpc.reflection.",
    "/inference.GRPCInferenceService/ServerLive",
    "/inference.GRPCInferenceService/ServerReady",
];

const MODEL_INFER: &str = "/inference.GRPCInferenceService/ModelInfer";

/// Bytes of a request to any other gRPC method, which holds a name or two.
const SMALL_MESSAGE: u64 = 64 << 10;

/// Key that requests must carry as `Authorization: Bearer KEY`.
#[derive(Clone)]
pub struct ApiKey(String);

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("ApiKey(…)")
    }
}

impl ApiKey {
    /// Trims white space; none where nothing is left.
    pub fn new(key: &str) -> Option<Self> {
        let key = key.trim();
        (!key.is_empty()).then(|| Self(key.to_owned()))
    }

    /// Compares the value of `Authorization` in constant time.
    fn accepts(&self, authorization: Option<&[u8]>) -> bool {
        let bearer = |value: &[u8]| {
            let (scheme, key) = value.split_at_checked(b"Bearer ".len())?;
            scheme.eq_ignore_ascii_case(b"Bearer ").then(|| key.trim_ascii().to_vec())
        };
        authorization.and_then(bearer).is_some_and(|key| key.ct_eq(self.0.as_bytes()).into())
    }
}

/// Facts about a request that become known while it is handled: an extension of the request.
#[derive(Debug, Clone)]
pub(crate) struct RequestRecord {
    start: Instant,
    facts: Arc<Mutex<RequestFacts>>,
}

#[derive(Debug, Default)]
struct RequestFacts {
    model: Option<String>,
    outcome: Option<&'static str>,
    request: Option<Permit>,
    response: Vec<Permit>,
}

impl RequestRecord {
    fn new() -> Self {
        Self { start: Instant::now(), facts: Arc::default() }
    }

    /// The record of a gRPC call.
    pub(crate) fn from_call<T>(request: &tonic::Request<T>) -> Self {
        request.extensions().get::<Self>().cloned().unwrap_or_else(Self::new)
    }

    fn facts(&self) -> MutexGuard<'_, RequestFacts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time since the head of the request arrived.
    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    pub(crate) fn set_model(&self, model: &str) {
        self.facts().model = Some(model.to_owned());
    }

    pub(crate) fn set_error(&self, error: &ServiceError) {
        self.facts().outcome = Some(error.outcome());
    }

    /// Takes or grows the permit of a request that has `sum` bytes by now.
    pub(crate) fn grow_request(&self, service: &Service, sum: u64) -> Result<(), ServiceError> {
        let permit = &mut self.facts().request;
        match permit {
            Some(permit) => service.grow_body_bytes(permit, sum)?,
            None => *permit = Some(service.acquire_body_bytes(sum)?),
        }
        Ok(())
    }

    /// Gives the permit of the request back.
    pub(crate) fn release_request(&self) {
        self.facts().request = None;
    }

    /// Keeps permits until the response is sent.
    pub(crate) fn keep(&self, permits: Vec<Permit>) {
        self.facts().response = permits;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FrontEnd {
    Http,
    Grpc,
}

impl FrontEnd {
    /// Label value in metrics.
    fn protocol(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
        }
    }

    fn is_open(self, path: &str) -> bool {
        match self {
            Self::Http => OPEN_PATHS.contains(&path) || path.starts_with(OPEN_FOLDER),
            Self::Grpc => OPEN_METHODS.iter().any(|open| path.starts_with(open)),
        }
    }

    /// True for paths that label images: these are counted and have a deadline.
    fn is_inference(self, path: &str) -> bool {
        match self {
            Self::Http => path.ends_with("/infer") || path.ends_with("/segment"),
            Self::Grpc => path == MODEL_INFER,
        }
    }

    fn error_response(self, error: ServiceError) -> Response {
        match self {
            Self::Http => error.into_response(),
            Self::Grpc => {
                let outcome = RequestOutcome(error.outcome());
                let mut response = Status::from(error).into_http::<Body>();
                response.extensions_mut().insert(outcome);
                response
            }
        }
    }
}

pub(crate) async fn http(state: State<AppState>, request: Request, next: Next) -> Response {
    let mut response = handle(FrontEnd::Http, state, request, next).await;
    let nosniff = HeaderValue::from_static("nosniff");
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}

/// Logs requests for permission that the layer within answers, and gives them the status of an
/// answer without content.
pub(crate) async fn preflight(request: Request, next: Next) -> Response {
    let record = RequestRecord::new();
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let mut response = next.run(request).await;
    if method == Method::OPTIONS {
        *response.status_mut() = StatusCode::NO_CONTENT;
        let status = response.status().as_u16();
        let seconds = record.elapsed().as_secs_f64();
        tracing::info!(%method, path, status, outcome = "ok", seconds, "answered");
    }
    response
}

pub(crate) async fn grpc(state: State<AppState>, request: Request, next: Next) -> Response {
    handle(FrontEnd::Grpc, state, request, next).await
}

/// Counts and logs a request whose client left before it was answered: its future is dropped then.
struct DisconnectGuard<'a> {
    service: &'a Service,
    front_end: FrontEnd,
    record: &'a RequestRecord,
    armed: bool,
}

impl Drop for DisconnectGuard<'_> {
    fn drop(&mut self) {
        if self.armed {
            let elapsed = self.record.elapsed();
            let protocol = self.front_end.protocol();
            self.service.metrics.record_request("", protocol, "left", elapsed);
            tracing::info!(outcome = "left", seconds = elapsed.as_secs_f64(), "not answered");
        }
    }
}

async fn handle(
    front_end: FrontEnd,
    State(state): State<AppState>,
    mut request: Request,
    next: Next,
) -> Response {
    let record = RequestRecord::new();
    let id = request_id(request.headers());
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let is_open = front_end.is_open(&path);
    let is_inference = front_end.is_inference(&path);
    let span = tracing::info_span!("request", id = id.to_str().unwrap_or_default(), %method, path);
    set_trace_parent(&span, request.headers());
    request.extensions_mut().insert(record.clone());
    let service = &state.service;
    let mut guard = DisconnectGuard { service, front_end, record: &record, armed: is_inference };
    let authorization = request.headers().get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    let is_locked = !is_open && state.key.as_ref().is_some_and(|key| !key.accepts(authorization));
    let mut response = if is_locked {
        front_end.error_response(ServiceError::Unauthorized)
    } else {
        respond(front_end, service, is_inference, &record, request, next)
            .instrument(span.clone())
            .await
    };
    guard.armed = false;

    let elapsed = record.elapsed();
    let facts = std::mem::take(&mut *record.facts());
    let noted = response.extensions().get::<RequestOutcome>().map(|outcome| outcome.0);
    let code = Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code());
    let outcome = facts.outcome.or(noted).unwrap_or(match code {
        Code::Ok => "ok",
        Code::InvalidArgument | Code::Unimplemented => "invalid",
        _ => "failed",
    });
    if is_inference {
        let model = facts.model.as_deref().unwrap_or_default();
        service.metrics.record_request(model, front_end.protocol(), outcome, elapsed);
    }
    let http_status = response.status().as_u16();
    let grpc_status = field::debug(code);
    let (status, is_failure): (&dyn field::Value, bool) = match front_end {
        FrontEnd::Http => (&http_status, response.status().is_server_error() && !is_open),
        FrontEnd::Grpc => {
            use Code::{DeadlineExceeded, Internal, Unavailable, Unknown};
            (&grpc_status, matches!(code, Internal | Unavailable | DeadlineExceeded | Unknown))
        }
    };
    let seconds = elapsed.as_secs_f64();
    span.in_scope(|| {
        if is_failure {
            tracing::warn!(status, outcome, seconds, "answered");
        } else if is_open {
            tracing::debug!(status, outcome, seconds, "answered");
        } else {
            tracing::info!(status, outcome, seconds, "answered");
        }
    });
    response.headers_mut().insert(REQUEST_ID, id);
    response.headers_mut().insert("x-total-time", milliseconds(elapsed));
    if facts.response.is_empty() {
        response
    } else {
        response.map(|body| PermitBody::body(body, facts.response))
    }
}

/// Runs the handler within the deadline.
async fn respond(
    front_end: FrontEnd,
    service: &Arc<Service>,
    is_inference: bool,
    record: &RequestRecord,
    mut request: Request,
    next: Next,
) -> Response {
    // Loading a model takes as long as it takes.
    let mut deadline = is_inference.then_some(service.limits.deadline);
    let path = request.uri().path().to_owned();
    if front_end == FrontEnd::Grpc {
        deadline = deadline.into_iter().chain(grpc_timeout(request.headers())).min();
        let limit = if is_inference { service.limits.body_bytes } else { SMALL_MESSAGE };
        request =
            request.map(|body| LimitedBody::body(body, Arc::clone(service), record.clone(), limit));
    }
    let answer = next.run(request);
    let response = match deadline {
        None => answer.await,
        Some(deadline) => tokio::time::timeout(deadline, answer)
            .await
            .unwrap_or_else(|_| front_end.error_response(ServiceError::DeadlineExceeded(deadline))),
    };
    let is_unknown_method = front_end == FrontEnd::Grpc
        && Status::from_header_map(response.headers())
            .is_some_and(|status| status.code() == Code::Unimplemented)
        && !response.headers().contains_key("grpc-message");
    if is_unknown_method {
        return front_end.error_response(ServiceError::MethodNotAllowed(path));
    }
    response
}

/// Takes over the client's request id, or makes a random one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let given = headers.get(REQUEST_ID).filter(|id| id.len() <= MAX_ID && id.to_str().is_ok());
    given.cloned().unwrap_or_else(|| {
        let id = Uuid::new_v4().to_string();
        HeaderValue::try_from(id).unwrap_or(HeaderValue::from_static("none"))
    })
}

pub(crate) fn add_timing_headers(headers: &mut HeaderMap, times: StageTimes) {
    headers.insert("x-queue-time", milliseconds(times[Stage::Queue]));
    headers.insert("x-inference-time", milliseconds(times.run()));
    headers.insert("x-stitch-time", milliseconds(times[Stage::Stitch]));
}

fn milliseconds(time: Duration) -> HeaderValue {
    HeaderValue::from_str(&format!("{:.3}", 1e3 * time.as_secs_f64()))
        .unwrap_or(HeaderValue::from_static("0"))
}

struct HeaderExtractor<'a>(&'a HeaderMap);

impl Extractor for HeaderExtractor<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

/// Makes the span a child of the one in the request's W3C `traceparent`.
fn set_trace_parent(span: &Span, headers: &HeaderMap) {
    if headers.contains_key("traceparent") {
        let parent = TraceContextPropagator::new().extract(&HeaderExtractor(headers));
        // Fails where no exporter is configured.
        drop(span.set_parent(parent));
    }
}

/// Parses `grpc-timeout`: a number of up to eight digits, and its unit.
fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let is_number = digits.len() <= 8 && !digits.starts_with('+');
    let number = digits.parse::<u64>().ok().filter(|_| is_number)?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_key_opens() {
        let key = ApiKey::new(" s3cret\n").unwrap();
        for right in ["Bearer s3cret", "bearer s3cret", "Bearer  s3cret "] {
            assert!(key.accepts(Some(right.as_bytes())), "{right}");
        }
        let wrong = [
            "",
            "s3cret",
            "Bearer",
            "Bearer ",
            "Bearer s3cre",
            "Bearer s3crets",
            "Basic s3cret",
            "Bearer\u{e9}x",
        ];
        for wrong in wrong {
            assert!(!key.accepts(Some(wrong.as_bytes())), "{wrong}");
        }
        assert!(!key.accepts(None));
        assert!(ApiKey::new(" \n").is_none());
        assert!(!format!("{key:?}").contains("s3"));
    }

    #[test]
    fn grpc_timeouts_are_parsed() {
        let parse = |text: &str| {
            let name = HeaderName::from_static("grpc-timeout");
            let value = HeaderValue::from_str(text).unwrap();
            grpc_timeout(&HeaderMap::from_iter([(name, value)]))
        };
        for (text, seconds) in
            [("2H", 7200.0), ("3M", 180.0), ("4S", 4.0), ("5m", 0.005), ("6u", 6e-6), ("7n", 7e-9)]
        {
            assert_eq!(parse(text), Some(Duration::from_secs_f64(seconds)), "{text}");
        }
        assert_eq!(parse("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for wrong in ["", "S", "1", "-1S", "+1S", "1.5S", "1s", "999999999S", "1 S"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn fit_request_ids_are_kept_and_others_replaced() {
        let id = |value: &[u8]| {
            let headers = [(REQUEST_ID, HeaderValue::from_bytes(value).unwrap())];
            request_id(&HeaderMap::from_iter(headers))
        };
        assert_eq!(id(b"mine"), "mine");
        assert_eq!([id(&[b'x'; 129]).len(), id(b"\xff").len()], [36, 36]);
        assert_ne!(request_id(&HeaderMap::new()), request_id(&HeaderMap::new()));
    }
}
