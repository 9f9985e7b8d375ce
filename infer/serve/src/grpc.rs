//! gRPC front end: the Open Inference Protocol of `proto/inference.proto`, health and reflection.

pub(super) mod codec;
mod health;
mod inference;

use axum::Router;
use axum::response::IntoResponse;
use tokio::sync::watch;
use tonic::service::Routes;

use self::inference::InferenceService;
use super::oip::pb::grpc_inference_service_server::GrpcInferenceServiceServer;
use super::{AppState, ServiceError, middleware};

/// `FileDescriptorSet` of `proto/inference.proto`.
const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/inference.binpb"));

#[derive(Debug, thiserror::Error)]
#[error("internal error: the descriptors of the gRPC services cannot be read: {0}")]
pub struct DescriptorError(#[from] tonic_reflection::server::Error);

/// All services. Streams of health end once `stopped` becomes true.
pub fn router(state: AppState, stopped: watch::Receiver<bool>) -> Result<Router, DescriptorError> {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    // `LimitedBody` limits messages before they are read.
    let inference = GrpcInferenceServiceServer::new(InferenceService(state.clone()))
        .max_decoding_message_size(usize::MAX);
    let routes = Routes::new(inference)
        .add_service(health::server(state.service.clone(), stopped))
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?);
    let unknown = |uri: axum::http::Uri| async move {
        let error = ServiceError::MethodNotAllowed(uri.path().to_owned());
        tonic::Status::from(error).into_http::<axum::body::Body>().into_response()
    };
    let middleware = axum::middleware::from_fn_with_state(state, middleware::grpc);
    Ok(routes.into_axum_router().fallback(unknown).layer(middleware))
}
