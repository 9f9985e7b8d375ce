//! The page for people, and the description for programs.

use axum::http::{HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};

use super::path::PathParams;
use crate::ServiceError;

pub(super) const OPENAPI: &str = include_str!("openapi.json");
const PAGE: &str = include_str!("page/index.html");

/// Where the page's files are.
pub(super) const FILES: &str = "/page/{file}";

/// What the page is made of, with media types.
pub(super) const PARTS: [(&str, &str, &str); 7] = [
    ("style.css", CSS, include_str!("page/style.css")),
    ("main.js", SCRIPT, include_str!("page/main.js")),
    ("service.js", SCRIPT, include_str!("page/service.js")),
    ("stage.js", SCRIPT, include_str!("page/stage.js")),
    ("labels.js", SCRIPT, include_str!("page/labels.js")),
    ("scene.js", SCRIPT, include_str!("page/scene.js")),
    ("icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
];

const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The page loads nothing from elsewhere, and nobody may put it into a frame.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' blob:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], OPENAPI)
        .into_response()
}

pub(super) async fn index() -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (header::CACHE_CONTROL, FRESH),
    ];
    (headers, PAGE).into_response()
}

/// Parts of one version of the page do not fit those of another.
const FRESH: HeaderValue = HeaderValue::from_static("no-cache");

pub(super) async fn part(
    PathParams(file): PathParams<String>,
    uri: Uri,
) -> Result<Response, ServiceError> {
    let part = PARTS.iter().find(|(name, _, _)| *name == file);
    let (_, kind, text) = part.ok_or_else(|| super::nothing_at(&uri, super::DESCRIPTION))?;
    Ok((
        [(header::CONTENT_TYPE, HeaderValue::from_static(kind)), (header::CACHE_CONTROL, FRESH)],
        *text,
    )
        .into_response())
}
