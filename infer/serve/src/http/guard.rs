//! What happens to every request: it gets a number, must carry the key where there is one, and is noted when it ends.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;
use tracing::Instrument;

use super::AppState;
use super::reply::RequestOutcome;
use crate::{ServiceError, tracing_context};

/// Header with a request's number, taken over from the client where it sent one.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Addresses that need no key: they hold nothing of any picture.
const OPEN: [&str; 5] = ["/v2/health/live", "/v2/health/ready", "/metrics", "/openapi.json", "/"];

/// Begins the addresses of the page's files, which need none either.
const OPEN_FOLDER: &str = "/page/";

/// A secret word that requests must carry.
#[derive(Clone)]
pub struct ApiKey(String);

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("ApiKey(…)")
    }
}

impl ApiKey {
    /// The word, without spaces around it; none where nothing is left.
    pub fn new(word: &str) -> Option<Self> {
        let word = word.trim();
        (!word.is_empty()).then(|| Self(word.to_owned()))
    }

    /// Whether a value of `Authorization` carries it. How long that takes does not depend on where they differ.
    pub fn opens(&self, authorization: Option<&[u8]>) -> bool {
        let bearer = |value: &[u8]| {
            let (scheme, word) = value.split_at_checked(b"Bearer ".len())?;
            scheme.eq_ignore_ascii_case(b"Bearer ").then(|| word.trim_ascii().to_vec())
        };
        authorization.and_then(bearer).is_some_and(|word| word.ct_eq(self.0.as_bytes()).into())
    }
}

/// A request that is being answered; if it is dropped before it is, its client has left.
struct DisconnectGuard<'a> {
    front: &'a AppState,
    start: Instant,
    left: bool,
}

impl Drop for DisconnectGuard<'_> {
    fn drop(&mut self) {
        if self.left {
            self.front.service.metrics.record_request("", "http", "left", self.start.elapsed());
            tracing::info!(
                outcome = "left",
                seconds = self.start.elapsed().as_secs_f64(),
                "not answered"
            );
        }
    }
}

/// Which model a request was for; set by those who know.
#[derive(Debug, Clone)]
pub(super) struct ModelName(pub(super) String);

pub(super) async fn guard(State(front): State<AppState>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let id = request_id(request.headers());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let origin = allowed(&front.origins, request.headers());
    let span = tracing::info_span!("request", id = id.to_str().unwrap_or_default(), %method, path);
    tracing_context::set_parent(&span, request.headers());
    let asks = path.ends_with("/infer") || path.ends_with("/segment");
    let mut pending = DisconnectGuard { front: &front, start, left: asks };
    let mut response = async {
        let preflight = method == Method::OPTIONS && origin.is_some();
        if preflight {
            return StatusCode::NO_CONTENT.into_response();
        }
        let closed = front.key.as_ref().filter(|_| !is_open(&path));
        let authorization = request.headers().get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        if closed.is_some_and(|key| !key.opens(authorization)) {
            return ServiceError::Unauthorized.into_response();
        }
        let limit = front.service.limits.deadline;
        let answered = next.run(request);
        if !asks {
            return answered.await;
        }
        let answered = tokio::time::timeout(limit, answered).await;
        answered.unwrap_or_else(|_| ServiceError::DeadlineExceeded(limit).into_response())
    }
    .instrument(span.clone())
    .await;
    pending.left = false;
    let took = start.elapsed();
    let outcome = response.extensions().get::<RequestOutcome>().map_or("ok", |outcome| outcome.0);
    if let Some(ModelName(model)) = response.extensions().get::<ModelName>() {
        front.service.metrics.record_request(model, "http", outcome, took);
    } else if asks {
        front.service.metrics.record_request("", "http", outcome, took);
    }
    let status = response.status();
    span.in_scope(|| {
        if status.is_server_error() && !is_open(&path) {
            tracing::warn!(
                status = status.as_u16(),
                outcome,
                seconds = took.as_secs_f64(),
                "answered"
            );
        } else if is_open(&path) {
            tracing::debug!(
                status = status.as_u16(),
                outcome,
                seconds = took.as_secs_f64(),
                "answered"
            );
        } else {
            tracing::info!(
                status = status.as_u16(),
                outcome,
                seconds = took.as_secs_f64(),
                "answered"
            );
        }
    });
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    headers.insert("x-total-time", milliseconds(took));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(origin) = origin {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.append(header::VARY, HeaderValue::from_static("origin"));
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            HeaderValue::from_static(
                "authorization, content-type, accept, inference-header-content-length, x-request-id",
            ),
        );
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("*"));
    }
    response
}

fn is_open(path: &str) -> bool {
    OPEN.contains(&path) || path.starts_with(OPEN_FOLDER)
}

/// The number of a request: the client's own, or the next.
pub(crate) fn request_id(headers: &HeaderMap) -> HeaderValue {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let given =
        headers.get(REQUEST_ID).filter(|id| id.len() <= 128 && id.to_str().is_ok()).cloned();
    given.unwrap_or_else(|| HeaderValue::from(NEXT.fetch_add(1, Ordering::Relaxed)))
}

/// The origin of a page that may use the service.
fn allowed(origins: &[HeaderValue], headers: &HeaderMap) -> Option<HeaderValue> {
    let origin = headers.get(header::ORIGIN)?;
    origins.iter().any(|known| known == "*" || known == origin).then(|| origin.clone())
}

/// A time as headers say it: milliseconds.
pub(crate) fn milliseconds(took: std::time::Duration) -> HeaderValue {
    HeaderValue::from_str(&format!("{:.3}", 1e3 * took.as_secs_f64()))
        .unwrap_or(HeaderValue::from_static("0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_key_opens() {
        let key = ApiKey::new(" s3cret\n").unwrap();
        for right in ["Bearer s3cret", "bearer s3cret", "Bearer  s3cret "] {
            assert!(key.opens(Some(right.as_bytes())), "{right}");
        }
        for wrong in [
            "",
            "s3cret",
            "Bearer",
            "Bearer ",
            "Bearer s3cre",
            "Bearer s3crets",
            "Basic s3cret",
            "Bearer\u{e9}x",
        ] {
            assert!(!key.opens(Some(wrong.as_bytes())), "{wrong}");
        }
        assert!(!key.opens(None));
        assert!(ApiKey::new(" \n").is_none());
        assert!(!format!("{key:?}").contains("s3"));
    }
}
