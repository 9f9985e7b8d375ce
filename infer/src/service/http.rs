//! The HTTP front end: the Open Inference Protocol, and a plain form for people and scripts.

mod body;
mod elements;
mod guard;
mod oip;
mod page;
mod reply;
mod repository;
mod segment;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

pub(super) use self::body::Kept;
pub use self::guard::Key;
pub(super) use self::guard::{REQUEST_ID, milliseconds, request_id};
pub(super) use self::oip::add_times;
use super::{Service, ServiceError};

/// What every request is answered with.
#[derive(Debug, Clone)]
pub struct Front {
    /// The models behind their limits.
    pub service: Arc<Service>,
    /// The key that requests must carry, if they must.
    pub key: Option<Key>,
    /// Whether requests may load and unload models.
    pub repository: bool,
    /// Where pages may come from that use the service in a browser, beside its own.
    pub origins: Vec<axum::http::HeaderValue>,
}

/// All addresses.
pub fn router(front: Front) -> Router {
    let mut models = Router::new();
    for prefix in ["/v2/models/{model}", "/v2/models/{model}/versions/{version}"] {
        models = models
            .route(prefix, get(oip::metadata))
            .route(&format!("{prefix}/ready"), get(oip::ready))
            .route(&format!("{prefix}/infer"), post(oip::infer));
    }
    let mut routes = Router::new()
        .route("/v2/health/live", get(oip::live))
        .route("/v2/health/ready", get(oip::server_ready))
        .route("/v2", get(oip::server))
        .merge(models)
        .route("/v1/models", get(segment::models))
        .route("/v1/segment", post(segment::segment))
        .route("/v1/models/{model}/segment", post(segment::segment))
        .route("/v2/repository/index", post(repository::index))
        .route("/metrics", get(metrics))
        .route("/openapi.json", get(page::openapi))
        .route("/", get(page::index));
    if front.repository {
        routes = routes
            .route("/v2/repository/models/{model}/load", post(repository::load))
            .route("/v2/repository/models/{model}/unload", post(repository::unload));
    }
    let fallback = |uri: axum::http::Uri| async move {
        ServiceError::Unknown(format!("there is nothing at {}; see /openapi.json", uri.path())).into_response()
    };
    let method =
        |method: axum::http::Method| async move { ServiceError::Method { method: method.to_string() }.into_response() };
    routes
        .fallback(fallback)
        .method_not_allowed_fallback(method)
        .layer(axum::middleware::from_fn_with_state(front.clone(), guard::guard))
        .with_state(front)
}

async fn metrics(State(front): State<Front>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    (StatusCode::OK, [(header::CONTENT_TYPE, kind)], front.service.metrics_text()).into_response()
}
