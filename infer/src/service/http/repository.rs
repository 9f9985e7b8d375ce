//! Triton's extension for model repositories: which models there are, and loading one anew while it answers.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::Front;
use super::address::At;
use crate::service::ServiceError;

pub(super) async fn index(State(front): State<Front>) -> Response {
    Json(front.service.models.list()).into_response()
}

pub(super) async fn load(State(front): State<Front>, At(model): At<String>) -> Result<Response, ServiceError> {
    let service = front.service.clone();
    // Not among the threads that decode pictures: it takes seconds.
    let loaded = tokio::task::spawn_blocking(move || service.models.load(&model)).await;
    let served = loaded.map_err(|_| ServiceError::Internal("the program failed at loading the model".to_owned()))??;
    tracing::info!(model = served.name, version = served.version, "loaded");
    Ok(StatusCode::OK.into_response())
}

pub(super) async fn unload(State(front): State<Front>, At(model): At<String>) -> Result<Response, ServiceError> {
    front.service.models.unload(&model)?;
    tracing::info!(model, "unloaded");
    Ok(StatusCode::OK.into_response())
}
