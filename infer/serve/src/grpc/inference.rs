//! The inference service: the calls of the Open Inference Protocol.

use std::sync::Arc;

use axum::http::HeaderMap;
use bytes::Bytes;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use crate::budget::shrink_permits;
use crate::error::bad_request;
use crate::middleware::{RequestRecord, add_timing_headers};
use crate::oip::pb::grpc_inference_service_server::GrpcInferenceService;
use crate::oip::pb::model_infer_request::InferInputTensor;
use crate::oip::pb::model_infer_response::InferOutputTensor;
use crate::oip::pb::repository_index_response::ModelIndex;
use crate::oip::pb::{
    InferTensorContents, ModelInferRequest, ModelInferResponse, ModelMetadataRequest,
    ModelMetadataResponse, ModelReadyRequest, ModelReadyResponse, RepositoryIndexRequest,
    RepositoryIndexResponse, RepositoryModelLoadRequest, RepositoryModelLoadResponse,
    RepositoryModelUnloadRequest, RepositoryModelUnloadResponse, ServerLiveRequest,
    ServerLiveResponse, ServerMetadataRequest, ServerMetadataResponse, ServerReadyRequest,
    ServerReadyResponse,
};
use crate::oip::{
    BYTES, InferRequest, InferResponse, InputTensor, ModelRef, TensorData, UINT8, run,
    server_metadata,
};
use crate::registry::ModelStatus;
use crate::{AppState, Service, ServiceError};
use protoseg_infer::Stage;

#[derive(Debug)]
pub(super) struct InferenceService(pub(super) AppState);

impl InferenceService {
    fn check_repository(&self) -> Result<(), ServiceError> {
        if self.0.repository {
            return Ok(());
        }
        let why = "loading and unloading, unless the server is started with --repository";
        Err(ServiceError::MethodNotAllowed(why.to_owned()))
    }
}

/// A version of a request; protobuf has the empty string for none.
fn version(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// Converts a result, and records an error.
fn reply<T>(
    record: &RequestRecord,
    result: Result<T, ServiceError>,
) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(|error| {
        record.set_error(&error);
        error.into()
    })
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
        Ok(Response::new(ServerReadyResponse { ready: self.0.service.is_ready() }))
    }

    async fn model_ready(
        &self,
        request: Request<ModelReadyRequest>,
    ) -> Result<Response<ModelReadyResponse>, Status> {
        let record = RequestRecord::from_call(&request);
        let request = request.into_inner();
        let models = &self.0.service.models;
        let ready = ModelRef::is_ready(models, &request.name, version(&request.version));
        reply(&record, ready.map(|ready| ModelReadyResponse { ready }))
    }

    async fn server_metadata(
        &self,
        _: Request<ServerMetadataRequest>,
    ) -> Result<Response<ServerMetadataResponse>, Status> {
        Ok(Response::new(server_metadata()))
    }

    async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> Result<Response<ModelMetadataResponse>, Status> {
        let record = RequestRecord::from_call(&request);
        let request = request.into_inner();
        let models = &self.0.service.models;
        let target = ModelRef::find(models, &request.name, version(&request.version));
        reply(&record, target.map(|target| target.metadata()))
    }

    async fn model_infer(
        &self,
        request: Request<ModelInferRequest>,
    ) -> Result<Response<ModelInferResponse>, Status> {
        let record = RequestRecord::from_call(&request);
        let mut headers = HeaderMap::new();
        let response = infer(&self.0.service, request.into_inner(), &record, &mut headers).await;
        let (_, message, extensions) = reply(&record, response)?.into_parts();
        Ok(Response::from_parts(MetadataMap::from_headers(headers), message, extensions))
    }

    async fn repository_index(
        &self,
        request: Request<RepositoryIndexRequest>,
    ) -> Result<Response<RepositoryIndexResponse>, Status> {
        let only_ready = request.get_ref().ready;
        let mut models = self.0.service.models.list();
        models.retain(|status| !only_ready || status.is_ready());
        let index = |ModelStatus { name, version, state, reason }| ModelIndex {
            name,
            version: version.unwrap_or_default(),
            state: str::to_owned(state),
            reason,
        };
        let models = models.into_iter().map(index).collect();
        Ok(Response::new(RepositoryIndexResponse { models }))
    }

    async fn repository_model_load(
        &self,
        request: Request<RepositoryModelLoadRequest>,
    ) -> Result<Response<RepositoryModelLoadResponse>, Status> {
        let record = RequestRecord::from_call(&request);
        let load = async {
            self.check_repository()?;
            self.0.service.load(request.into_inner().model_name).await?;
            Ok(RepositoryModelLoadResponse {})
        };
        reply(&record, load.await)
    }

    async fn repository_model_unload(
        &self,
        request: Request<RepositoryModelUnloadRequest>,
    ) -> Result<Response<RepositoryModelUnloadResponse>, Status> {
        let record = RequestRecord::from_call(&request);
        let unload = || {
            self.check_repository()?;
            self.0.service.unload(&request.get_ref().model_name)?;
            Ok(RepositoryModelUnloadResponse {})
        };
        reply(&record, unload())
    }
}

async fn infer(
    service: &Arc<Service>,
    request: ModelInferRequest,
    record: &RequestRecord,
    headers: &mut HeaderMap,
) -> Result<ModelInferResponse, ServiceError> {
    let arrived = record.elapsed();
    let ModelInferRequest { model_name, model_version, id, inputs, outputs, raw_input_contents } =
        request;
    let target = ModelRef::find(&service.models, &model_name, version(&model_version))?;
    record.set_model(&target.model.name);
    target.model.metrics.record_stage(Stage::Read, arrived);
    let inputs = tensors(inputs, raw_input_contents)?;
    let outputs = outputs.into_iter().map(|output| output.name).collect();
    let request = InferRequest::new(&target, inputs, outputs)?;
    let InferResponse { outputs, times, permits } = run(service, &target.model, request).await?;
    record.release_request();
    let bytes = outputs.iter().map(|output| output.bytes.len()).sum();
    record.keep(shrink_permits(permits, bytes));
    add_timing_headers(headers, times);
    let mut response = ModelInferResponse {
        model_name,
        model_version: target.model.version.clone(),
        id,
        outputs: Vec::new(),
        raw_output_contents: Vec::new(),
    };
    for tensor in outputs {
        response.outputs.push(InferOutputTensor {
            name: tensor.output.name().to_owned(),
            datatype: tensor.output.datatype().to_owned(),
            shape: tensor.shape,
        });
        response.raw_output_contents.push(tensor.bytes.into());
    }
    Ok(response)
}

/// Returns the tensors of a request, whose elements are all in `raw`, or each in its own tensor.
fn tensors(
    inputs: Vec<InferInputTensor>,
    raw: Vec<Bytes>,
) -> Result<Vec<InputTensor>, ServiceError> {
    if raw.is_empty() {
        let tensor = |InferInputTensor { name, datatype, shape, contents }| {
            let content = typed(&name, &datatype, contents.unwrap_or_default())?;
            Ok(InputTensor { name, datatype, shape, content })
        };
        return inputs.into_iter().map(tensor).collect();
    }
    if raw.len() != inputs.len() {
        return Err(bad_request(format!(
            "there are {} raw_input_contents for {} inputs; each input has one",
            raw.len(),
            inputs.len()
        )));
    }
    let tensor = |(input, bytes): (InferInputTensor, Bytes)| {
        let InferInputTensor { name, datatype, shape, contents } = input;
        if contents.is_some_and(|contents| contents != InferTensorContents::default()) {
            let why = format!("the input `{name}` has contents and raw_input_contents");
            return Err(bad_request(why));
        }
        Ok(InputTensor { name, datatype, shape, content: TensorData::Raw(bytes) })
    };
    inputs.into_iter().zip(raw).map(tensor).collect()
}

fn typed(
    name: &str,
    datatype: &str,
    contents: InferTensorContents,
) -> Result<TensorData, ServiceError> {
    let InferTensorContents { uint_contents, bytes_contents } = contents;
    match (uint_contents.is_empty(), bytes_contents.is_empty()) {
        (false, true) if datatype == UINT8 => {
            let bytes: Result<Vec<u8>, _> = uint_contents.into_iter().map(u8::try_from).collect();
            let bytes = bytes.map_err(|_| {
                bad_request(format!("the elements of the input `{name}` are numbers from 0 to 255"))
            })?;
            Ok(TensorData::Raw(bytes.into()))
        }
        (true, false) if datatype == BYTES => Ok(TensorData::Elements(bytes_contents)),
        (true, true) => Err(bad_request(format!(
            "the input `{name}` has no elements; they belong in raw_input_contents, or in its uint_contents (of UINT8) or \
             bytes_contents (of BYTES)"
        ))),
        _ => Err(bad_request(format!(
            "the input `{name}` is of type {datatype}, and its contents are of another; those of UINT8 belong in \
             uint_contents, those of BYTES in bytes_contents"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(
        datatype: &str,
        uint_contents: &[u32],
        bytes_contents: &[&'static [u8]],
    ) -> InferInputTensor {
        let bytes_contents = bytes_contents.iter().map(|bytes| Bytes::from_static(bytes)).collect();
        let contents =
            InferTensorContents { uint_contents: uint_contents.to_vec(), bytes_contents };
        InferInputTensor {
            name: "image".to_owned(),
            datatype: datatype.to_owned(),
            shape: vec![2],
            contents: Some(contents),
        }
    }

    #[test]
    fn elements_are_in_one_place_and_of_their_datatype() {
        let content = |input, raw: &[&'static [u8]]| {
            let raw = raw.iter().map(|bytes| Bytes::from_static(bytes)).collect();
            tensors(vec![input], raw).map(|mut tensors| tensors.remove(0).content)
        };
        let (one, two): (&'static [u8], &'static [u8]) = (&[7, 255], b"ab");
        assert_eq!(
            content(input("UINT8", &[7, 255], &[]), &[]).unwrap(),
            TensorData::Raw(one.into())
        );
        assert_eq!(content(input("UINT8", &[], &[]), &[one]).unwrap(), TensorData::Raw(one.into()));
        let elements = vec![Bytes::from_static(two), Bytes::new()];
        assert_eq!(
            content(input("BYTES", &[], &[two, b""]), &[]).unwrap(),
            TensorData::Elements(elements)
        );
        let nothing = InferInputTensor { contents: None, ..input("UINT8", &[], &[]) };
        for (input, raw, why) in [
            (nothing, vec![], "no elements"),
            (input("UINT8", &[], &[]), vec![], "no elements"),
            (input("UINT8", &[256], &[]), vec![], "from 0 to 255"),
            (input("UINT8", &[], &[two]), vec![], "of another"),
            (input("BYTES", &[1], &[]), vec![], "of another"),
            (input("UINT8", &[1], &[two]), vec![], "of another"),
            (input("UINT8", &[1], &[]), vec![one], "contents and raw_input_contents"),
            (input("UINT8", &[], &[]), vec![one, two], "2 raw_input_contents for 1 inputs"),
        ] {
            let error = content(input, &raw).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
