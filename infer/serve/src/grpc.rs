//! The gRPC front end: the Open Inference Protocol of `proto/inference.proto`, the health of the server and of each model, and
//! the description of all three for those who ask.

mod calls;
mod codec;
mod guard;
mod health;
mod infer;
mod limited_body;
mod reply;

use axum::Router;
use axum::response::IntoResponse;
use tokio::sync::watch;
use tonic::service::Routes;

use self::calls::InferenceService;
use self::pb::grpc_inference_service_server::GrpcInferenceServiceServer;
use super::ServiceError;
use super::http::AppState;

/// What `build.rs` makes of `proto/inference.proto`.
mod pb {
    #![expect(
        unreachable_pub,
        clippy::allow_attributes,
        clippy::too_many_lines,
        reason = "generated"
    )]

    include!(concat!(env!("OUT_DIR"), "/inference.rs"));
}

/// The description of `proto/inference.proto`, a `FileDescriptorSet`.
const DESCRIPTION: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/inference.binpb"));

/// The services cannot be described.
#[derive(Debug, thiserror::Error)]
#[error("the description of the gRPC services is broken: {0}")]
pub struct DescriptionError(#[from] tonic_reflection::server::Error);

/// All services. Those who watch the health of something hear the last of it once `stopped` becomes true.
pub fn router(front: AppState, stopped: watch::Receiver<bool>) -> Result<Router, DescriptionError> {
    let description = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTION)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    // How long a message may be is decided before it is read.
    let calls = GrpcInferenceServiceServer::new(InferenceService::new(front.clone()))
        .max_decoding_message_size(usize::MAX);
    let routes = Routes::new(calls)
        .add_service(health::server(front.service.clone(), stopped))
        .add_service(description().build_v1()?)
        .add_service(description().build_v1alpha()?);
    let unknown = |uri: axum::http::Uri| async move {
        let error = ServiceError::MethodNotAllowed { method: uri.path().to_owned() };
        tonic::Status::from(error).into_http::<axum::body::Body>().into_response()
    };
    let guard = axum::middleware::from_fn_with_state(front, guard::guard);
    Ok(routes.into_axum_router().fallback(unknown).layer(guard))
}
