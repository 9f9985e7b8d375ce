//! HTTP front end: the Open Inference Protocol, and a plain form for people and scripts.

mod json;
mod oip;
mod page;
mod segment;

use axum::extract::{FromRequestParts, Path, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Json, Router};
use tower_http::cors::{AllowOrigin, CorsLayer, ExposeHeaders};

use super::{AppState, ServiceError, middleware};

const OPENAPI_PATH: &str = "/openapi.json";

type Routes = Vec<(&'static str, MethodRouter<AppState>)>;

pub fn router(state: AppState) -> Router {
    build(routes(state.repository), OPENAPI_PATH, state)
}

/// Health and metrics alone, for an operator's own address.
pub fn probes(state: AppState) -> Router {
    build(health_routes(), "/metrics, /v2/health/live and /v2/health/ready", state)
}

/// A router; other paths are answered with a pointer to `see`.
fn build(routes: Routes, see: &'static str, state: AppState) -> Router {
    let router =
        routes.into_iter().fold(Router::new(), |router, (path, method)| router.route(path, method));
    let wrong_method =
        |method: Method| async move { ServiceError::MethodNotAllowed(method.to_string()) };
    let router = router
        .fallback(move |uri: Uri| async move { not_found(&uri, see) })
        .method_not_allowed_fallback(wrong_method)
        .layer(axum::middleware::from_fn_with_state(state.clone(), middleware::http));
    // Outermost, so that errors carry the headers too and a preflight request needs no key.
    let router = if state.origins.is_empty() {
        router
    } else {
        router.layer(cors(&state.origins)).layer(axum::middleware::from_fn(middleware::preflight))
    };
    router.with_state(state)
}

fn cors(origins: &[HeaderValue]) -> CorsLayer {
    let allowed = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::mirror_request()
    } else {
        AllowOrigin::list(origins.iter().cloned())
    };
    CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::ACCEPT,
            oip::JSON_LENGTH,
            HeaderName::from_static("x-request-id"),
        ])
        .expose_headers(ExposeHeaders::any())
}

fn health_routes() -> Routes {
    vec![
        ("/metrics", get(metrics)),
        ("/v2/health/live", get(oip::live)),
        ("/v2/health/ready", get(oip::server_ready)),
    ]
}

/// All routes; `openapi.json` describes the same.
fn routes(repository: bool) -> Routes {
    let mut routes = health_routes();
    routes.extend([
        ("/", get(page::index)),
        ("/page/{file}", get(page::file)),
        (OPENAPI_PATH, get(page::openapi)),
        ("/v1/models", get(segment::models)),
        ("/v1/segment", post(segment::segment)),
        ("/v1/models/{model}/segment", post(segment::segment_with_model)),
        ("/v2", get(oip::server)),
        ("/v2/models/{model}", get(oip::metadata)),
        ("/v2/models/{model}/ready", get(oip::ready)),
        ("/v2/models/{model}/infer", post(oip::infer)),
        ("/v2/models/{model}/versions/{version}", get(oip::metadata)),
        ("/v2/models/{model}/versions/{version}/ready", get(oip::ready)),
        ("/v2/models/{model}/versions/{version}/infer", post(oip::infer)),
        ("/v2/repository/index", post(repository_index)),
    ]);
    if repository {
        routes.push(("/v2/repository/models/{model}/load", post(load)));
        routes.push(("/v2/repository/models/{model}/unload", post(unload)));
    }
    routes
}

/// Parameters of the path, with rejections in JSON.
#[derive(Debug, FromRequestParts)]
#[from_request(via(Path), rejection(ServiceError))]
struct PathParams<T>(T);

fn not_found(uri: &Uri, see: &str) -> ServiceError {
    ServiceError::NotFound(format!("not found: {}; see {see}", uri.path()))
}

async fn metrics(State(state): State<AppState>) -> Response {
    let media_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, media_type)], state.service.metrics_text()).into_response()
}

async fn repository_index(State(state): State<AppState>) -> Response {
    Json(state.service.models.list()).into_response()
}

async fn load(
    State(state): State<AppState>,
    PathParams(model): PathParams<String>,
) -> Result<StatusCode, ServiceError> {
    state.service.load(model).await?;
    Ok(StatusCode::OK)
}

async fn unload(
    State(state): State<AppState>,
    PathParams(model): PathParams<String>,
) -> Result<StatusCode, ServiceError> {
    state.service.unload(&model)?;
    Ok(StatusCode::OK)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;

    use axum::body::Body;
    use axum::http::Request;
    use tower::Service as _;

    use super::*;
    use crate::{ApiKey, Service};

    fn state() -> AppState {
        let service = Arc::new(Service::empty());
        AppState { service, key: None, repository: true, origins: Vec::new() }
    }

    /// Methods of a path, from `Allow` of a 405.
    async fn methods(router: &mut Router, path: &str) -> BTreeSet<String> {
        let request = Request::builder().method(Method::PATCH).uri(path.replace(['{', '}'], ""));
        let response = router.call(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED, "{path}");
        let allow = response.headers().get(header::ALLOW).unwrap().to_str().unwrap().to_lowercase();
        // Implied by GET.
        allow.split(',').filter(|method| *method != "head").map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn routes_and_openapi_document_agree() {
        let document: serde_json::Value = serde_json::from_str(page::OPENAPI).unwrap();
        let described: BTreeMap<String, BTreeSet<String>> = document["paths"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(path, methods)| {
                (path.clone(), methods.as_object().unwrap().keys().cloned().collect())
            })
            .collect();
        let mut router = router(state());
        let mut served = BTreeMap::new();
        for (path, _) in routes(true) {
            served.insert(path.to_owned(), methods(&mut router, path).await);
        }
        assert_eq!(served, described);
    }

    #[tokio::test]
    async fn paths_that_are_not_utf8_are_refused_in_json() {
        for path in ["/v2/models/%ff", "/page/%ff"] {
            let request = Request::builder().uri(path).body(Body::empty()).unwrap();
            let response = router(state()).call(request).await.unwrap();
            assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{path}");
            let body = axum::body::to_bytes(response.into_body(), 1 << 10).await.unwrap();
            assert!(body.starts_with(b"{\"error\":\"the address"), "{path}: {body:?}");
        }
    }

    #[tokio::test]
    async fn allowed_origins_may_read_responses_and_errors() {
        let with_origin = AppState {
            key: ApiKey::new("s3cret"),
            origins: vec![HeaderValue::from_static("https://a.example")],
            ..state()
        };
        let mut router = router(with_origin);
        let mut send = async |method: Method, origin: &'static str| {
            let request = Request::builder()
                .method(method)
                .uri("/v1/models")
                .header("origin", origin)
                .header("access-control-request-method", "POST")
                .header("access-control-request-headers", "authorization")
                .body(Body::empty());
            router.call(request.unwrap()).await.unwrap()
        };
        let header = |response: &Response, name: &str| {
            let value = response.headers().get(name).map(|value| value.to_str().unwrap());
            value.unwrap_or_default().to_lowercase()
        };
        // A preflight request carries no key.
        let preflight = send(Method::OPTIONS, "https://a.example").await;
        assert_eq!(preflight.status(), StatusCode::NO_CONTENT, "{preflight:?}");
        assert_eq!(header(&preflight, "access-control-allow-origin"), "https://a.example");
        for method in ["get", "post"] {
            assert!(header(&preflight, "access-control-allow-methods").contains(method));
        }
        for name in [
            "authorization",
            "content-type",
            "accept",
            "inference-header-content-length",
            "x-request-id",
        ] {
            assert!(header(&preflight, "access-control-allow-headers").contains(name), "{name}");
        }
        // Errors are readable too.
        let refused = send(Method::GET, "https://a.example").await;
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(header(&refused, "access-control-allow-origin"), "https://a.example");
        assert_eq!(header(&refused, "access-control-expose-headers"), "*");
        assert!(header(&refused, "vary").contains("origin"));
        for method in [Method::OPTIONS, Method::GET] {
            let other = send(method, "https://b.example").await;
            assert_eq!(header(&other, "access-control-allow-origin"), "");
        }
        // `*` allows every origin; without origins OPTIONS is a method like others.
        for (origins, allowed, status) in [
            (vec![HeaderValue::from_static("*")], "https://b.example", true),
            (Vec::new(), "", false),
        ] {
            let mut router = super::router(AppState { origins, ..state() });
            let request = Request::builder()
                .method(Method::OPTIONS)
                .uri("/v1/models")
                .header("origin", "https://b.example")
                .header("access-control-request-method", "POST");
            let response = router.call(request.body(Body::empty()).unwrap()).await.unwrap();
            assert_eq!(header(&response, "access-control-allow-origin"), allowed);
            assert_eq!(response.status().is_success(), status);
        }
    }

    #[tokio::test]
    async fn the_page_is_served_with_all_files_that_it_names() {
        let mut router = router(state());
        let mut get = async |path: &str| {
            let request = Request::builder().uri(path).body(Body::empty()).unwrap();
            let response = router.call(request).await.unwrap();
            let status = response.status();
            let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
            (status, String::from_utf8(body.to_vec()).unwrap())
        };
        let (status, page) = get("/").await;
        assert_eq!(status, StatusCode::OK);
        let named = |text: &str, before: &str| {
            let parts =
                text.split(before).skip(1).map(|rest| rest.split('"').next().unwrap().to_owned());
            parts.collect::<BTreeSet<String>>()
        };
        let mut files = named(&page, "\"page/");
        assert!(files.contains("main.js"));
        for (_, _, text) in page::FILES {
            files.extend(named(text, "from \"./"));
        }
        assert_eq!(files, page::FILES.map(|(name, _, _)| name.to_owned()).into());
        for file in files {
            assert_eq!(get(&format!("/page/{file}")).await.0, StatusCode::OK, "{file}");
        }
        assert_eq!(get("/page/other.js").await.0, StatusCode::NOT_FOUND);
    }
}
