//! Reasons why a request has no answer, with their HTTP status, gRPC code and outcome in metrics.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use protoseg_images::image_file::DecodeError;
use protoseg_infer::segmenter::SegmentError;
use serde_json::json;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

use super::scheduler::SchedulerError;

#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    #[error("{0}")]
    BadRequest(String),
    #[error("a valid key is needed: send `Authorization: Bearer KEY`")]
    Unauthorized,
    #[error("{0}")]
    NotFound(String),
    #[error("method not allowed: {0}")]
    MethodNotAllowed(String),
    #[error("the body of the request did not arrive within {} s", .0.as_secs_f64())]
    BodyTimeout(Duration),
    /// Larger than is ever admitted.
    #[error("{0}")]
    PayloadTooLarge(String),
    #[error("server overloaded; try again in {retry} s")]
    Overloaded {
        /// Seconds after which there should be room.
        retry: u64,
    },
    #[error("no answer within {} s", .0.as_secs_f64())]
    DeadlineExceeded(Duration),
    /// The model or the server is not ready.
    #[error("{0}")]
    Unavailable(String),
    #[error("{0}")]
    Internal(String),
}

pub(crate) fn bad_request(why: impl Into<String>) -> ServiceError {
    ServiceError::BadRequest(why.into())
}

pub(crate) fn too_large(why: impl Into<String>) -> ServiceError {
    ServiceError::PayloadTooLarge(why.into())
}

impl ServiceError {
    /// Outcome in metrics and logs.
    pub fn outcome(&self) -> &'static str {
        self.kind().0
    }

    fn kind(&self) -> (&'static str, StatusCode, Code) {
        use StatusCode as Http;
        match self {
            Self::BadRequest(_) => ("invalid", Http::BAD_REQUEST, Code::InvalidArgument),
            Self::MethodNotAllowed(_) => ("invalid", Http::METHOD_NOT_ALLOWED, Code::Unimplemented),
            Self::Unauthorized => ("unauthorized", Http::UNAUTHORIZED, Code::Unauthenticated),
            Self::NotFound(_) => ("unknown", Http::NOT_FOUND, Code::NotFound),
            Self::BodyTimeout(_) => ("slow", Http::REQUEST_TIMEOUT, Code::DeadlineExceeded),
            // As gRPC itself answers messages that are too large.
            Self::PayloadTooLarge(_) => {
                ("too_large", Http::PAYLOAD_TOO_LARGE, Code::ResourceExhausted)
            }
            Self::Overloaded { .. } => ("busy", Http::TOO_MANY_REQUESTS, Code::ResourceExhausted),
            Self::DeadlineExceeded(_) => {
                ("deadline", Http::GATEWAY_TIMEOUT, Code::DeadlineExceeded)
            }
            Self::Unavailable(_) => ("unavailable", Http::SERVICE_UNAVAILABLE, Code::Unavailable),
            Self::Internal(_) => ("failed", Http::INTERNAL_SERVER_ERROR, Code::Internal),
        }
    }
}

/// Outcome of a request, as an extension of its HTTP response.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestOutcome(pub(crate) &'static str);

/// Characters of the longest message over HTTP: some quote the request.
const MAX_MESSAGE: usize = 500;

impl IntoResponse for ServiceError {
    fn into_response(self) -> Response {
        let mut message = self.to_string();
        if let Some((end, _)) = message.char_indices().nth(MAX_MESSAGE) {
            message.truncate(end);
            message.push('…');
        }
        let mut response = (self.kind().1, Json(json!({ "error": message }))).into_response();
        let headers = response.headers_mut();
        match &self {
            Self::Overloaded { retry } => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(*retry));
            }
            Self::Unauthorized => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            // The rest of the refused body would be read as the next request.
            Self::PayloadTooLarge(_) | Self::BodyTimeout(_) => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        response.extensions_mut().insert(RequestOutcome(self.outcome()));
        response
    }
}

/// Milliseconds after which gRPC clients retry by themselves; negative: never.
const PUSHBACK: &str = "grpc-retry-pushback-ms";

impl From<ServiceError> for Status {
    fn from(error: ServiceError) -> Self {
        let mut metadata = MetadataMap::new();
        match &error {
            ServiceError::Overloaded { retry } => {
                metadata.insert("retry-after", MetadataValue::from(*retry));
                metadata.insert(PUSHBACK, MetadataValue::from(retry.saturating_mul(1000)));
            }
            ServiceError::PayloadTooLarge(_) => {
                metadata.insert(PUSHBACK, MetadataValue::from_static("-1"));
            }
            _ => {}
        }
        Self::with_metadata(error.kind().2, error.to_string(), metadata)
    }
}

impl From<PathRejection> for ServiceError {
    fn from(rejection: PathRejection) -> Self {
        bad_request(format!("the address: {}", rejection.body_text()))
    }
}

impl From<DecodeError> for ServiceError {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::TooLarge { width, height, limit } => too_large(format!(
                "the image has {width}x{height} pixels, more than the limit of {limit}"
            )),
            DecodeError::TooLong { bytes, limit } => too_large(format!(
                "{bytes} bytes are more than an image of {limit} pixels can have"
            )),
            error => bad_request(format!("cannot decode the image: {error}")),
        }
    }
}

impl From<SchedulerError> for ServiceError {
    fn from(error: SchedulerError) -> Self {
        let SchedulerError::Segment(segment) = &error else {
            return match error {
                SchedulerError::Closed => Self::Unavailable(error.to_string()),
                _ => Self::Internal(error.to_string()),
            };
        };
        let why = segment.to_string();
        match &**segment {
            SegmentError::OneSize { .. }
            | SegmentError::Scaled { .. }
            | SegmentError::Empty
            | SegmentError::Window(_)
            | SegmentError::NoLogits
            | SegmentError::LabelsInWindows => Self::BadRequest(why),
            SegmentError::TooLarge { .. } => Self::PayloadTooLarge(why),
            error if error.is_lasting() => Self::Unavailable(why),
            _ => Self::Internal(why),
        }
    }
}
