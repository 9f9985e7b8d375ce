//! The HTTP front end: the Open Inference Protocol, and a plain form for people and scripts.

mod body;
mod bounded_vec;
mod elements;
mod guard;
mod oip;
mod page;
mod path;
mod reply;
mod repository;
mod segment;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};

pub(super) use self::body::PermitBody;
pub use self::guard::ApiKey;
pub(super) use self::guard::{REQUEST_ID, milliseconds, request_id};
pub(super) use self::oip::add_timing_headers;
use super::{Service, ServiceError};

/// Where all addresses are described.
const DESCRIPTION: &str = "/openapi.json";

/// What every request is answered with.
#[derive(Debug, Clone)]
pub struct AppState {
    /// The models behind their limits.
    pub service: Arc<Service>,
    /// The key that requests must carry, if they must.
    pub key: Option<ApiKey>,
    /// Whether requests may load and unload models.
    pub repository: bool,
    /// Where pages may come from that use the service in a browser, beside its own.
    pub origins: Vec<axum::http::HeaderValue>,
}

/// All addresses.
pub fn router(front: AppState) -> Router {
    let addresses = addresses(front.repository);
    answering(addresses, DESCRIPTION, front)
}

/// Those that say how the service is: what an operator may ask where others have no way in.
pub fn probes(front: AppState) -> Router {
    answering(health().to_vec(), "/metrics, /v2/health/live and /v2/health/ready", front)
}

/// Answers at some addresses; who asks elsewhere is told what to see.
fn answering(
    addresses: Vec<(&'static str, MethodRouter<AppState>)>,
    see: &'static str,
    front: AppState,
) -> Router {
    let router = addresses
        .into_iter()
        .fold(Router::new(), |router, (address, method)| router.route(address, method));
    let method = |method: axum::http::Method| async move {
        ServiceError::MethodNotAllowed { method: method.to_string() }.into_response()
    };
    router
        .fallback(move |uri: Uri| async move { nothing_at(&uri, see).into_response() })
        .method_not_allowed_fallback(method)
        .layer(axum::middleware::from_fn_with_state(front.clone(), guard::guard))
        .with_state(front)
}

/// How the service is.
fn health() -> [(&'static str, MethodRouter<AppState>); 3] {
    [
        ("/metrics", get(metrics)),
        ("/v2/health/live", get(oip::live)),
        ("/v2/health/ready", get(oip::server_ready)),
    ]
}

/// What is answered where; `openapi.json` describes the same.
fn addresses(repository: bool) -> Vec<(&'static str, MethodRouter<AppState>)> {
    let mut addresses = health().to_vec();
    addresses.extend([
        ("/", get(page::index)),
        (page::FILES, get(page::part)),
        (DESCRIPTION, get(page::openapi)),
        ("/v1/models", get(segment::models)),
        ("/v1/segment", post(segment::segment)),
        ("/v1/models/{model}/segment", post(segment::segment_named)),
        ("/v2", get(oip::server)),
        ("/v2/models/{model}", get(oip::metadata)),
        ("/v2/models/{model}/ready", get(oip::ready)),
        ("/v2/models/{model}/infer", post(oip::infer)),
        ("/v2/models/{model}/versions/{version}", get(oip::metadata)),
        ("/v2/models/{model}/versions/{version}/ready", get(oip::ready)),
        ("/v2/models/{model}/versions/{version}/infer", post(oip::infer)),
        ("/v2/repository/index", post(repository::index)),
    ]);
    if repository {
        addresses.push(("/v2/repository/models/{model}/load", post(repository::load)));
        addresses.push(("/v2/repository/models/{model}/unload", post(repository::unload)));
    }
    addresses
}

fn nothing_at(uri: &Uri, see: &str) -> ServiceError {
    ServiceError::NotFound(format!("there is nothing at {}; see {see}", uri.path()))
}

async fn metrics(State(front): State<AppState>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    (StatusCode::OK, [(header::CONTENT_TYPE, kind)], front.service.metrics_text()).into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::time::Duration;

    use axum::body::Body;
    use axum::http::{Method, Request};
    use tower::Service as _;

    use super::*;
    use crate::metrics::Metrics;
    use crate::registry::{ModelOptions, ModelRegistry};
    use crate::{BatchLimit, ServiceLimits};
    use protoseg_infer::EngineConfig;

    /// All of it, without a model.
    fn front() -> AppState {
        let options = ModelOptions {
            engine: EngineConfig::default(),
            limit: BatchLimit { windows: 1, pixels: 1 },
            delay: Duration::ZERO,
            logits: false,
        };
        let metrics = Arc::new(Metrics::default());
        let models = ModelRegistry::new(Vec::new(), options, Arc::clone(&metrics));
        let service = Arc::new(Service::new(models, ServiceLimits::default(), metrics));
        AppState { service, key: None, repository: true, origins: Vec::new() }
    }

    /// The methods that an address takes, as the answer to another says.
    async fn methods(router: &mut Router, address: &str) -> BTreeSet<String> {
        let request = Request::builder().method(Method::PATCH).uri(address.replace(['{', '}'], ""));
        let response = router.call(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED, "{address}");
        let allow = response.headers().get(header::ALLOW).unwrap().to_str().unwrap().to_lowercase();
        // GET stands for it.
        allow.split(',').filter(|method| *method != "head").map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn what_is_served_is_described_and_the_other_way_round() {
        let document: serde_json::Value = serde_json::from_str(page::OPENAPI).unwrap();
        let described: BTreeMap<String, BTreeSet<String>> = document["paths"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(address, methods)| {
                (address.clone(), methods.as_object().unwrap().keys().cloned().collect())
            })
            .collect();
        let mut router = router(front());
        let mut served = BTreeMap::new();
        for (address, _) in addresses(true) {
            served.insert(address.to_owned(), methods(&mut router, address).await);
        }
        assert_eq!(served, described);
    }

    #[tokio::test]
    async fn an_address_that_is_no_text_is_refused_in_json() {
        for address in ["/v2/models/%ff", "/page/%ff"] {
            let request = Request::builder().uri(address).body(Body::empty()).unwrap();
            let response = router(front()).call(request).await.unwrap();
            assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{address}");
            let body = axum::body::to_bytes(response.into_body(), 1 << 10).await.unwrap();
            assert!(body.starts_with(b"{\"error\":\"the address"), "{address}: {body:?}");
        }
    }

    #[tokio::test]
    async fn the_page_is_served_with_all_that_it_names() {
        let mut router = router(front());
        let mut get = async |address: &str| {
            let request = Request::builder().uri(address).body(Body::empty()).unwrap();
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
        for (_, _, text) in page::PARTS {
            files.extend(named(text, "from \"./"));
        }
        assert_eq!(files, page::PARTS.map(|(name, _, _)| name.to_owned()).into());
        for file in files {
            assert_eq!(get(&format!("/page/{file}")).await.0, StatusCode::OK, "{file}");
        }
        assert_eq!(get("/page/other.js").await.0, StatusCode::NOT_FOUND);
    }
}
