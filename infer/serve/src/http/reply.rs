//! Errors as HTTP says them: a status and a sentence in JSON.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::ServiceError;

/// The outcome of a request, for metrics and logs.
#[derive(Debug, Clone, Copy)]
pub(super) struct RequestOutcome(pub(super) &'static str);

impl ServiceError {
    fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTimeout(_) => StatusCode::REQUEST_TIMEOUT,
            Self::PayloadTooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Overloaded { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::DeadlineExceeded(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// Characters of the longest sentence: some repeat what a request said.
const LONGEST: usize = 500;

fn short(mut sentence: String) -> String {
    if let Some((end, _)) = sentence.char_indices().nth(LONGEST) {
        sentence.truncate(end);
        sentence.push('…');
    }
    sentence
}

impl IntoResponse for ServiceError {
    fn into_response(self) -> Response {
        let mut response =
            (self.status(), Json(json!({ "error": short(self.to_string()) }))).into_response();
        let headers = response.headers_mut();
        match &self {
            Self::Overloaded { retry } => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(*retry));
            }
            Self::Unauthorized => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            // What is left of a body that was refused would be read as the next request.
            Self::PayloadTooLarge(_) | Self::BodyTimeout(_) => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        response.extensions_mut().insert(RequestOutcome(self.outcome()));
        response
    }
}
