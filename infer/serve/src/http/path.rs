//! What the names in braces of an address stand for.

use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;

use crate::ServiceError;

/// The names' values; what is no text is refused as every other request that makes no sense.
#[derive(Debug)]
pub(super) struct PathParams<T>(pub(super) T);

impl<S, T> FromRequestParts<S> for PathParams<T>
where
    S: Send + Sync,
    Path<T>: FromRequestParts<S, Rejection = PathRejection>,
{
    type Rejection = ServiceError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ServiceError> {
        let path = Path::from_request_parts(parts, state).await;
        let refused = |error: PathRejection| {
            ServiceError::bad_request(format!("the address: {}", error.body_text()))
        };
        path.map(|Path(values)| Self(values)).map_err(refused)
    }
}
