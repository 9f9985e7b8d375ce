//! Errors as gRPC says them: a code and a sentence, and whether trying again helps.

use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

use crate::ServiceError;

/// Milliseconds after which clients that try again by themselves do so; below zero, they do not.
const RETRY: &str = "grpc-retry-pushback-ms";

impl ServiceError {
    fn code(&self) -> Code {
        match self {
            Self::BadRequest(_) => Code::InvalidArgument,
            Self::Unauthorized => Code::Unauthenticated,
            Self::NotFound(_) => Code::NotFound,
            Self::MethodNotAllowed { .. } => Code::Unimplemented,
            // As gRPC itself has it for messages that are too large; that they stay so is in the metadata.
            Self::PayloadTooLarge(_) | Self::Overloaded { .. } => Code::ResourceExhausted,
            Self::BodyTimeout(_) | Self::DeadlineExceeded(_) => Code::DeadlineExceeded,
            Self::Unavailable(_) => Code::Unavailable,
            Self::Internal(_) => Code::Internal,
        }
    }
}

impl From<ServiceError> for Status {
    fn from(error: ServiceError) -> Self {
        let mut metadata = MetadataMap::new();
        match &error {
            ServiceError::Overloaded { retry } => {
                metadata.insert("retry-after", MetadataValue::from(*retry));
                metadata.insert(RETRY, MetadataValue::from(retry.saturating_mul(1000)));
            }
            ServiceError::PayloadTooLarge(_) => {
                metadata.insert(RETRY, MetadataValue::from_static("-1"));
            }
            _ => {}
        }
        Self::with_metadata(error.code(), error.to_string(), metadata)
    }
}

/// The word in metrics and logs for calls that the server's own code did not see fail.
pub(super) fn outcome(code: Code) -> &'static str {
    match code {
        Code::Ok => "ok",
        Code::InvalidArgument | Code::Unimplemented => "invalid",
        _ => "failed",
    }
}
