//! The calls of the service, each on what [`crate::oip`] knows.

use tonic::{Request, Response, Status};

use super::guard::CallContext;
use super::infer::infer;
use super::pb::grpc_inference_service_server::GrpcInferenceService;
use super::pb::model_metadata_response::TensorMetadata;
use super::pb::repository_index_response::ModelIndex;
use super::pb::{
    ModelInferRequest, ModelInferResponse, ModelMetadataRequest, ModelMetadataResponse,
    ModelReadyRequest, ModelReadyResponse, RepositoryIndexRequest, RepositoryIndexResponse,
    RepositoryModelLoadRequest, RepositoryModelLoadResponse, RepositoryModelUnloadRequest,
    RepositoryModelUnloadResponse, ServerLiveRequest, ServerLiveResponse, ServerMetadataRequest,
    ServerMetadataResponse, ServerReadyRequest, ServerReadyResponse,
};
use crate::ServiceError;
use crate::http::AppState;
use crate::oip::{self, ModelRef, ServerMetadata};
use crate::registry::ModelStatus;

/// Answers calls.
#[derive(Debug)]
pub(super) struct InferenceService {
    front: AppState,
}

impl InferenceService {
    pub(super) fn new(front: AppState) -> Self {
        Self { front }
    }

    /// Whether requests may change which models there are.
    fn ensure_repository(&self) -> Result<(), ServiceError> {
        let method = "loading and unloading, without --repository,".to_owned();
        self.front.repository.then_some(()).ok_or(ServiceError::MethodNotAllowed { method })
    }
}

/// A version that is asked for; protobuf has no word for none.
pub(super) fn version(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// An answer; an error is noted.
fn answer<T>(
    ledger: &CallContext,
    result: Result<Response<T>, ServiceError>,
) -> Result<Response<T>, Status> {
    result.map_err(|error| {
        ledger.failed(&error);
        error.into()
    })
}

fn tensors(tensors: Vec<oip::TensorMetadata>) -> Vec<TensorMetadata> {
    let tensor = |oip::TensorMetadata { name, datatype, shape }| TensorMetadata {
        name: str::to_owned(name),
        datatype: datatype.name().to_owned(),
        shape,
    };
    tensors.into_iter().map(tensor).collect()
}

#[tonic::async_trait]
impl GrpcInferenceService for InferenceService {
    async fn server_live(
        &self,
        _: Request<ServerLiveRequest>,
    ) -> Result<Response<ServerLiveResponse>, Status> {
        Ok(Response::new(ServerLiveResponse { live: true }))
    }

    async fn server_ready(
        &self,
        _: Request<ServerReadyRequest>,
    ) -> Result<Response<ServerReadyResponse>, Status> {
        Ok(Response::new(ServerReadyResponse { ready: self.front.service.is_ready() }))
    }

    async fn model_ready(
        &self,
        request: Request<ModelReadyRequest>,
    ) -> Result<Response<ModelReadyResponse>, Status> {
        let ledger = CallContext::from_request(&request);
        let asked = request.into_inner();
        let ready =
            ModelRef::is_ready(&self.front.service.models, &asked.name, version(&asked.version));
        answer(&ledger, ready.map(|ready| Response::new(ModelReadyResponse { ready })))
    }

    async fn server_metadata(
        &self,
        _: Request<ServerMetadataRequest>,
    ) -> Result<Response<ServerMetadataResponse>, Status> {
        let ServerMetadata { name, version, extensions } = ServerMetadata::default();
        let extensions = extensions.map(str::to_owned).to_vec();
        Ok(Response::new(ServerMetadataResponse {
            name: name.to_owned(),
            version: version.to_owned(),
            extensions,
        }))
    }

    async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> Result<Response<ModelMetadataResponse>, Status> {
        let ledger = CallContext::from_request(&request);
        let asked = request.into_inner();
        let named =
            ModelRef::find(&self.front.service.models, &asked.name, version(&asked.version));
        let metadata = named.map(|named| {
            let oip::ModelMetadata { name, versions, platform, inputs, outputs } = named.metadata();
            let (inputs, outputs) = (tensors(inputs), tensors(outputs));
            Response::new(ModelMetadataResponse {
                name,
                versions,
                platform: platform.to_owned(),
                inputs,
                outputs,
            })
        });
        answer(&ledger, metadata)
    }

    async fn model_infer(
        &self,
        request: Request<ModelInferRequest>,
    ) -> Result<Response<ModelInferResponse>, Status> {
        let ledger = CallContext::from_request(&request);
        answer(&ledger, infer(&self.front.service, request.into_inner(), &ledger).await)
    }

    async fn repository_index(
        &self,
        request: Request<RepositoryIndexRequest>,
    ) -> Result<Response<RepositoryIndexResponse>, Status> {
        let only_ready = request.get_ref().ready;
        let listed = self.front.service.models.list().into_iter();
        let listed = listed.filter(|listed| !only_ready || listed.is_ready());
        let index = |ModelStatus { name, version, state, reason }| ModelIndex {
            name,
            version: version.unwrap_or_default(),
            state: str::to_owned(state),
            reason,
        };
        Ok(Response::new(RepositoryIndexResponse { models: listed.map(index).collect() }))
    }

    async fn repository_model_load(
        &self,
        request: Request<RepositoryModelLoadRequest>,
    ) -> Result<Response<RepositoryModelLoadResponse>, Status> {
        let ledger = CallContext::from_request(&request);
        let load = async {
            self.ensure_repository()?;
            self.front.service.load(request.into_inner().model_name).await?;
            Ok(Response::new(RepositoryModelLoadResponse {}))
        };
        answer(&ledger, load.await)
    }

    async fn repository_model_unload(
        &self,
        request: Request<RepositoryModelUnloadRequest>,
    ) -> Result<Response<RepositoryModelUnloadResponse>, Status> {
        let ledger = CallContext::from_request(&request);
        let unload = self
            .ensure_repository()
            .and_then(|()| self.front.service.unload(&request.get_ref().model_name));
        answer(&ledger, unload.map(|()| Response::new(RepositoryModelUnloadResponse {})))
    }
}
