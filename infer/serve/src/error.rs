//! Why a request has no answer, and what its sender may do about it; each front end says it in its own way.

use std::time::Duration;

use protoseg_images::image_file::DecodeError;
use protoseg_infer::segmenter::SegmentError;

use super::scheduler::SchedulerError;

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// It makes no sense.
    #[error("{0}")]
    BadRequest(String),
    /// It lacks the key, or has a wrong one.
    #[error("a valid key is needed: send `Authorization: Bearer KEY`")]
    Unauthorized,
    /// Nothing has that name.
    #[error("{0}")]
    NotFound(String),
    /// The place exists, and takes another method.
    #[error("{method} is not for this address")]
    MethodNotAllowed {
        /// The method.
        method: String,
    },
    /// It did not come in time.
    #[error("the request did not come whole within {} s", .0.as_secs_f64())]
    BodyTimeout(Duration),
    /// It is larger than ever allowed.
    #[error("{0}")]
    PayloadTooLarge(String),
    /// There is no room for it now.
    #[error("too much work waits already; try again in {retry} s")]
    Overloaded {
        /// Seconds after which there should be room.
        retry: u64,
    },
    /// It took too long.
    #[error("no answer within {} s", .0.as_secs_f64())]
    DeadlineExceeded(Duration),
    /// The model, or the server, is not ready.
    #[error("{0}")]
    Unavailable(String),
    /// The server failed.
    #[error("{0}")]
    Internal(String),
}

impl ServiceError {
    /// A request that makes no sense.
    pub fn bad_request(why: impl Into<String>) -> Self {
        Self::BadRequest(why.into())
    }

    /// The word for it in metrics and logs.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::BadRequest(_) | Self::MethodNotAllowed { .. } => "invalid",
            Self::Unauthorized => "unauthorized",
            Self::NotFound(_) => "unknown",
            Self::BodyTimeout(_) => "slow",
            Self::PayloadTooLarge(_) => "too_large",
            Self::Overloaded { .. } => "busy",
            Self::DeadlineExceeded(_) => "deadline",
            Self::Unavailable(_) => "unavailable",
            Self::Internal(_) => "failed",
        }
    }
}

impl From<DecodeError> for ServiceError {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::TooLarge { width, height, limit } => Self::PayloadTooLarge(format!(
                "the picture has {width}x{height} pixels, more than the limit of {limit}"
            )),
            DecodeError::TooLong { bytes, limit } => Self::PayloadTooLarge(format!(
                "{bytes} bytes are more than a picture of {limit} pixels can have"
            )),
            error => Self::BadRequest(format!("the picture cannot be read: {error}")),
        }
    }
}

impl From<SchedulerError> for ServiceError {
    fn from(error: SchedulerError) -> Self {
        match error {
            SchedulerError::Closed => Self::Unavailable(error.to_string()),
            SchedulerError::Panicked => Self::Internal(error.to_string()),
            SchedulerError::Segment(segment) => match &*segment {
                SegmentError::OneSize { .. }
                | SegmentError::Empty
                | SegmentError::Window(_)
                | SegmentError::NoLogits
                | SegmentError::LabelsInWindows => Self::BadRequest(segment.to_string()),
                SegmentError::TooLarge { .. } => Self::PayloadTooLarge(segment.to_string()),
                error if error.is_lasting() => Self::Unavailable(segment.to_string()),
                _ => Self::Internal(segment.to_string()),
            },
        }
    }
}
