//! What happens to every call: it gets a number, must carry the key where there is one, has limits of size and time, and is
//! noted when it ends.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use tonic::{Code, Status};
use tracing::Instrument;

use super::limited_body::LimitedBody;
use super::reply::outcome;
use crate::budget::Permit;
use crate::http::{AppState, PermitBody, REQUEST_ID, milliseconds, request_id};
use crate::{Service, ServiceError, tracing_context};

/// Starts of what needs no key: it holds nothing of any picture.
const OPEN: [&str; 4] = [
    "/grpc.health.",
    "/grpc.reflection.",
    "/inference.GRPCInferenceService/ServerLive",
    "/inference.GRPCInferenceService/ServerReady",
];

/// The call that labels.
const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";

/// Bytes of a request of any other call, which holds a name or two.
const SMALL: u64 = 64 << 10;

/// What becomes known of a call while it is answered.
#[derive(Debug, Clone)]
pub(super) struct CallContext {
    start: Instant,
    entries: Arc<Mutex<CallRecord>>,
}

#[derive(Debug, Default)]
struct CallRecord {
    model: Option<String>,
    outcome: Option<&'static str>,
    request: Option<Permit>,
    answer: Vec<Permit>,
}

impl CallContext {
    fn new() -> Self {
        Self { start: Instant::now(), entries: Arc::default() }
    }

    /// That of a call.
    pub(super) fn from_request<T>(request: &tonic::Request<T>) -> Self {
        request.extensions().get::<Self>().cloned().unwrap_or_else(Self::new)
    }

    fn entries(&self) -> MutexGuard<'_, CallRecord> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long ago its head came.
    pub(super) fn age(&self) -> Duration {
        self.start.elapsed()
    }

    /// It is for this model.
    pub(super) fn of_model(&self, model: &str) {
        self.entries().model = Some(model.to_owned());
    }

    /// It ended so.
    pub(super) fn failed(&self, error: &ServiceError) {
        self.entries().outcome = Some(error.outcome());
    }

    /// Takes room for `more` bytes of its request, of which there are now `sum`.
    pub(super) fn take(&self, service: &Service, sum: u64, more: u64) -> Result<(), ServiceError> {
        let request = &mut self.entries().request;
        match request {
            Some(share) => service.grow_body_bytes(share, sum, more)?,
            None => *request = Some(service.acquire_body_bytes(sum)?),
        }
        Ok(())
    }

    /// Its request is no longer held.
    pub(super) fn release(&self) {
        self.entries().request = None;
    }

    /// What must be kept until the answer has been sent.
    pub(super) fn keep(&self, shares: Vec<Permit>) {
        self.entries().answer = shares;
    }
}

pub(super) async fn guard(
    State(front): State<AppState>,
    mut request: Request,
    next: Next,
) -> Response {
    let ledger = CallContext::new();
    let id = request_id(request.headers());
    let path = request.uri().path().to_owned();
    let (infers, open) = (path == INFER, OPEN.iter().any(|open| path.starts_with(open)));
    let span = tracing::info_span!("request", id = id.to_str().unwrap_or_default(), path);
    tracing_context::set_parent(&span, request.headers());
    request.extensions_mut().insert(ledger.clone());
    let refused = |error: ServiceError| {
        ledger.failed(&error);
        Status::from(error).into_http::<Body>()
    };
    let authorization = request.headers().get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    let closed = front.key.as_ref().is_some_and(|key| !open && !key.opens(authorization));
    let mut response = if closed {
        refused(ServiceError::Unauthorized)
    } else {
        let limits = front.service.limits;
        // To load a model takes as long as it takes.
        let own = infers.then_some(limits.deadline);
        let deadline = own.into_iter().chain(timeout(request.headers())).min();
        let most = if infers { limits.body_bytes } else { SMALL };
        let request = request
            .map(|body| LimitedBody::body(body, Arc::clone(&front.service), ledger.clone(), most));
        let answered = next.run(request).instrument(span.clone());
        match deadline {
            None => answered.await,
            Some(deadline) => match tokio::time::timeout(deadline, answered).await {
                Ok(response) => response,
                Err(_) => refused(ServiceError::DeadlineExceeded(deadline)),
            },
        }
    };
    let code_of = |headers: &HeaderMap| {
        Status::from_header_map(headers).map_or(Code::Ok, |status| status.code())
    };
    if code_of(response.headers()) == Code::Unimplemented
        && !response.headers().contains_key("grpc-message")
    {
        // Of a call that the service does not have.
        response = refused(ServiceError::MethodNotAllowed { method: path });
    }
    let took = ledger.age();
    let code = code_of(response.headers());
    let CallRecord { model, outcome: noted, answer, .. } = std::mem::take(&mut *ledger.entries());
    let outcome = noted.unwrap_or_else(|| outcome(code));
    if infers {
        front.service.metrics.record_request(
            model.as_deref().unwrap_or_default(),
            "grpc",
            outcome,
            took,
        );
    }
    span.in_scope(|| {
        let seconds = took.as_secs_f64();
        if [Code::Internal, Code::Unavailable, Code::DeadlineExceeded, Code::Unknown]
            .contains(&code)
        {
            tracing::warn!(status = ?code, outcome, seconds, "answered");
        } else if open {
            tracing::debug!(status = ?code, outcome, seconds, "answered");
        } else {
            tracing::info!(status = ?code, outcome, seconds, "answered");
        }
    });
    response.headers_mut().insert(REQUEST_ID, id);
    response.headers_mut().insert("x-total-time", milliseconds(took));
    if answer.is_empty() { response } else { response.map(|body| PermitBody::body(body, answer)) }
}

/// The time that the client gives: a number of up to eight digits, and its unit.
fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number =
        digits.parse::<u64>().ok().filter(|_| digits.len() <= 8 && !digits.starts_with('+'))?;
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
    fn clients_say_how_long_they_wait() {
        let read = |text: &str| {
            let value = HeaderValue::from_str(text).unwrap();
            timeout(&HeaderMap::from_iter([(
                header::HeaderName::from_static("grpc-timeout"),
                value,
            )]))
        };
        for (text, seconds) in
            [("2H", 7200.0), ("3M", 180.0), ("4S", 4.0), ("5m", 0.005), ("6u", 6e-6), ("7n", 7e-9)]
        {
            assert_eq!(read(text), Some(Duration::from_secs_f64(seconds)), "{text}");
        }
        assert_eq!(read("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for wrong in ["", "S", "1", "-1S", "+1S", "1.5S", "1s", "999999999S", "1 S"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
