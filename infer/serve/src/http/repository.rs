//! Triton's extension for model repositories: which models there are, and loading one anew while it answers.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::AppState;
use super::path::PathParams;
use crate::ServiceError;

pub(super) async fn index(State(front): State<AppState>) -> Response {
    Json(front.service.models.list()).into_response()
}

pub(super) async fn load(
    State(front): State<AppState>,
    PathParams(model): PathParams<String>,
) -> Result<Response, ServiceError> {
    front.service.load(model).await?;
    Ok(StatusCode::OK.into_response())
}

pub(super) async fn unload(
    State(front): State<AppState>,
    PathParams(model): PathParams<String>,
) -> Result<Response, ServiceError> {
    front.service.unload(&model)?;
    Ok(StatusCode::OK.into_response())
}
