//! The page for browsers and the OpenAPI document.

use axum::http::{HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};

use super::PathParams;
use crate::ServiceError;

pub(super) const OPENAPI: &str = include_str!("openapi.json");
const PAGE: &str = include_str!("page/index.html");

const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Name, media type and content of the page's files.
pub(super) const FILES: [(&str, &str, &str); 7] = [
    ("style.css", CSS, include_str!("page/style.css")),
    ("main.js", SCRIPT, include_str!("page/main.js")),
    ("service.js", SCRIPT, include_str!("page/service.js")),
    ("stage.js", SCRIPT, include_str!("page/stage.js")),
    ("labels.js", SCRIPT, include_str!("page/labels.js")),
    ("scene.js", SCRIPT, include_str!("page/scene.js")),
    ("icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
];

/// Loads nothing from elsewhere, and forbids frames.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' blob:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Files of one version do not fit those of another.
const CACHE: HeaderValue = HeaderValue::from_static("no-cache");

pub(super) async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

pub(super) async fn index() -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (header::CACHE_CONTROL, CACHE),
    ];
    (headers, PAGE).into_response()
}

pub(super) async fn file(
    PathParams(name): PathParams<String>,
    uri: Uri,
) -> Result<Response, ServiceError> {
    let (_, media_type, content) = FILES
        .iter()
        .find(|(known, _, _)| *known == name)
        .ok_or_else(|| super::not_found(&uri, super::OPENAPI_PATH))?;
    let media_type = HeaderValue::from_static(media_type);
    let headers = [(header::CONTENT_TYPE, media_type), (header::CACHE_CONTROL, CACHE)];
    Ok((headers, *content).into_response())
}
