//! Why a request has no answer, and what its sender may do about it; each front end says it in its own way.

use std::time::Duration;

use protoseg_images::picture::PictureError;
use protoseg_infer::segmenter::SegmentError;

use super::engine::EngineError;

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// It makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// It lacks the key, or has a wrong one.
    #[error("a valid key is needed: send `Authorization: Bearer KEY`")]
    Unauthorized,
    /// Nothing has that name.
    #[error("{0}")]
    Unknown(String),
    /// The place exists, and takes another method.
    #[error("{method} is not for this address")]
    Method {
        /// The method.
        method: String,
    },
    /// It did not come in time.
    #[error("the request did not come whole within {} s", .0.as_secs_f64())]
    Slow(Duration),
    /// It is larger than ever allowed.
    #[error("{0}")]
    TooLarge(String),
    /// There is no room for it now.
    #[error("too much work waits already; try again in {retry} s")]
    Busy {
        /// Seconds after which there should be room.
        retry: u64,
    },
    /// It took too long.
    #[error("no answer within {} s", .0.as_secs_f64())]
    Deadline(Duration),
    /// The model, or the server, is not ready.
    #[error("{0}")]
    Unavailable(String),
    /// The server failed.
    #[error("{0}")]
    Internal(String),
}

impl ServiceError {
    /// A request that makes no sense.
    pub fn invalid(why: impl Into<String>) -> Self {
        Self::Invalid(why.into())
    }

    /// The word for it in metrics and logs.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Invalid(_) | Self::Method { .. } => "invalid",
            Self::Unauthorized => "unauthorized",
            Self::Unknown(_) => "unknown",
            Self::Slow(_) => "slow",
            Self::TooLarge(_) => "too_large",
            Self::Busy { .. } => "busy",
            Self::Deadline(_) => "deadline",
            Self::Unavailable(_) => "unavailable",
            Self::Internal(_) => "failed",
        }
    }
}

impl From<PictureError> for ServiceError {
    fn from(error: PictureError) -> Self {
        match error {
            PictureError::TooLarge { width, height, limit } => {
                Self::TooLarge(format!("the picture has {width}x{height} pixels, more than the limit of {limit}"))
            }
            PictureError::TooLong { bytes, limit } => {
                Self::TooLarge(format!("{bytes} bytes are more than a picture of {limit} pixels can have"))
            }
            error => Self::Invalid(format!("the picture cannot be read: {error}")),
        }
    }
}

impl From<EngineError> for ServiceError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Closed => Self::Unavailable(error.to_string()),
            EngineError::Panicked => Self::Internal(error.to_string()),
            EngineError::Segment(segment) => match &*segment {
                SegmentError::OneSize { .. }
                | SegmentError::Empty
                | SegmentError::Window(_)
                | SegmentError::NoScores
                | SegmentError::LabelsInWindows => Self::Invalid(segment.to_string()),
                SegmentError::TooLarge { .. } => Self::TooLarge(segment.to_string()),
                error if error.is_lasting() => Self::Unavailable(segment.to_string()),
                _ => Self::Internal(segment.to_string()),
            },
        }
    }
}
