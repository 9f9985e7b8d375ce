//! Open Inference Protocol over HTTP, with tensors in the JSON or as bytes behind it.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::PathParams;
use super::json::{BoundedVec, JsonElements, JsonInteger, append_elements};
use crate::body::{PermitBody, receive};
use crate::error::bad_request;
use crate::middleware::{RequestRecord, add_timing_headers};
use crate::oip::{
    BYTES, FP32, InferRequest, InferResponse, InputTensor, ModelRef, TensorData, append, run,
    server_metadata,
};
use crate::{AppState, ServiceError};
use protoseg_infer::Stage;

/// Length of the JSON in front of the tensors' bytes; 0 where the whole body is one tensor.
pub(super) const JSON_LENGTH: HeaderName =
    HeaderName::from_static("inference-header-content-length");

const MAX_TENSORS: usize = 16;
const MAX_DIMENSIONS: usize = 8;

/// Bytes of a request's `id`.
const MAX_ID: usize = 1024;

#[derive(Debug, Deserialize)]
pub(super) struct ModelPath {
    model: String,
    version: Option<String>,
}

impl ModelPath {
    fn find(&self, state: &AppState) -> Result<ModelRef, ServiceError> {
        ModelRef::find(&state.service.models, &self.model, self.version.as_deref())
    }
}

fn ready_status(ready: bool) -> StatusCode {
    if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

pub(super) async fn live() -> Response {
    Json(json!({ "live": true })).into_response()
}

pub(super) async fn server_ready(State(state): State<AppState>) -> Response {
    let ready = state.service.is_ready();
    (ready_status(ready), Json(json!({ "ready": ready }))).into_response()
}

pub(super) async fn server() -> Response {
    Json(server_metadata()).into_response()
}

pub(super) async fn metadata(
    State(state): State<AppState>,
    PathParams(path): PathParams<ModelPath>,
) -> Result<Response, ServiceError> {
    Ok(Json(path.find(&state)?.metadata()).into_response())
}

pub(super) async fn ready(
    State(state): State<AppState>,
    PathParams(ModelPath { model, version }): PathParams<ModelPath>,
) -> Result<Response, ServiceError> {
    let ready = ModelRef::is_ready(&state.service.models, &model, version.as_deref())?;
    Ok((ready_status(ready), Json(json!({ "name": model, "ready": ready }))).into_response())
}

pub(super) async fn infer(
    State(state): State<AppState>,
    PathParams(path): PathParams<ModelPath>,
    Extension(record): Extension<RequestRecord>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ServiceError> {
    let service = &state.service;
    let target = Arc::new(path.find(&state)?);
    let model = &target.model;
    record.set_model(&model.name);
    let body = receive(service, &headers, body).await?;
    model.metrics.record_stage(Stage::Read, body.elapsed);
    let json_length = json_length(&headers, body.bytes.len())?;
    let (request, format) = if json_length == Some(0) {
        (InferRequest::raw(&target, body.bytes)?, ResponseFormat::default())
    } else {
        let parsing = Arc::clone(&target);
        service.run_blocking(move || parse(&parsing, body.bytes, json_length)).await?
    };
    let response = run(service, model, request).await?;
    drop(body.permit);
    let start = Instant::now();
    let encoding = Arc::clone(&target);
    let response = service.run_blocking(move || Ok(encode(&encoding, response, format))).await?;
    model.metrics.record_stage(Stage::Encode, start.elapsed());
    Ok(response)
}

/// Returns the length of the JSON, if the request says one.
fn json_length(headers: &HeaderMap, body: usize) -> Result<Option<usize>, ServiceError> {
    let Some(value) = headers.get(JSON_LENGTH) else { return Ok(None) };
    let length = value.to_str().ok().and_then(|text| text.parse::<usize>().ok());
    match length.filter(|&length| length <= body) {
        Some(length) => Ok(Some(length)),
        None => {
            let value = String::from_utf8_lossy(value.as_bytes());
            Err(bad_request(format!("{JSON_LENGTH} is `{value}`, and the body has {body} bytes")))
        }
    }
}

#[derive(Debug, Deserialize)]
struct JsonRequest {
    id: Option<String>,
    #[serde(default)]
    parameters: Parameters,
    inputs: BoundedVec<JsonInput, MAX_TENSORS>,
    outputs: Option<BoundedVec<JsonOutput, MAX_TENSORS>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Parameters {
    binary_data_output: bool,
    binary_data_size: Option<JsonInteger>,
    binary_data: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct JsonInput {
    name: String,
    shape: BoundedVec<JsonInteger, MAX_DIMENSIONS>,
    datatype: String,
    #[serde(default)]
    parameters: Parameters,
    data: Option<JsonElements>,
}

#[derive(Debug, Deserialize)]
struct JsonOutput {
    name: String,
    #[serde(default)]
    parameters: Parameters,
}

#[derive(Debug, Default)]
struct ResponseFormat {
    /// Outputs sent as bytes behind the JSON; all if none.
    binary: Option<Vec<String>>,
    id: Option<String>,
}

fn parse(
    target: &ModelRef,
    mut body: Bytes,
    json_length: Option<usize>,
) -> Result<(InferRequest, ResponseFormat), ServiceError> {
    let json = body.split_to(json_length.unwrap_or(body.len()));
    let mut tail = body;
    let request: JsonRequest = serde_json::from_slice(&json)
        .map_err(|error| bad_request(format!("the body is not the JSON of a request: {error}")))?;
    if request.id.as_ref().is_some_and(|id| id.len() > MAX_ID) {
        return Err(bad_request(format!("the id has more than {MAX_ID} bytes")));
    }
    let outputs = request.outputs.map(|BoundedVec(outputs)| outputs).unwrap_or_default();
    let all_binary = request.parameters.binary_data_output;
    let binary = if outputs.is_empty() && all_binary {
        None
    } else {
        let is_binary = |output: &&JsonOutput| output.parameters.binary_data.unwrap_or(all_binary);
        Some(outputs.iter().filter(is_binary).map(|output| output.name.clone()).collect())
    };
    let names = outputs.into_iter().map(|output| output.name).collect();
    let mut inputs = Vec::new();
    for JsonInput { name, shape, datatype, parameters, data } in request.inputs.0 {
        let content = match (parameters.binary_data_size, data) {
            (Some(JsonInteger(size)), None) => {
                let left = tail.len();
                let size_in_tail = usize::try_from(size).ok().filter(|&size| size <= left);
                let size_in_tail = size_in_tail.ok_or_else(|| {
                    bad_request(format!(
                        "the input `{name}` has {size} bytes behind the JSON, where {left} are left"
                    ))
                })?;
                TensorData::Raw(tail.split_to(size_in_tail))
            }
            (None, Some(elements)) if datatype == BYTES => {
                TensorData::Elements(decode_base64(&name, elements)?)
            }
            (None, Some(elements)) if elements.strings.is_empty() => {
                TensorData::Raw(elements.numbers.into())
            }
            // Strings in place of numbers: refused later, with the datatype that was expected.
            (None, Some(_)) => TensorData::Elements(Vec::new()),
            (Some(_), Some(_)) => {
                let why = format!("the input `{name}` has `data` and `binary_data_size`");
                return Err(bad_request(why));
            }
            (None, None) => return Err(bad_request(format!("the input `{name}` has no data"))),
        };
        let shape = shape.0.into_iter().map(|JsonInteger(side)| side).collect();
        inputs.push(InputTensor { name, datatype, shape, content });
    }
    if !tail.is_empty() {
        let left = tail.len();
        return Err(bad_request(format!("{left} bytes are left over behind the tensors")));
    }
    let format = ResponseFormat { binary, id: request.id };
    Ok((InferRequest::new(target, inputs, names)?, format))
}

/// Decodes image files.
fn decode_base64(name: &str, elements: JsonElements) -> Result<Vec<Bytes>, ServiceError> {
    if !elements.numbers.is_empty() {
        let why = format!("elements of `{name}` are image files as Base64, not numbers");
        return Err(bad_request(why));
    }
    let decode = |text: String| match BASE64_STANDARD.decode(text) {
        Ok(bytes) => Ok(Bytes::from(bytes)),
        Err(error) => Err(bad_request(format!("an element of `{name}` is not Base64: {error}"))),
    };
    elements.strings.into_iter().map(decode).collect()
}

#[derive(Serialize)]
struct ResponseHead<'a> {
    model_name: String,
    model_version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
}

/// Encodes a response. Elements are written straight into the JSON: a `Value` each would take many
/// times their memory.
fn encode(target: &ModelRef, response: InferResponse, format: ResponseFormat) -> Response {
    let is_binary = |name: &str| match &format.binary {
        None => true,
        Some(names) => names.iter().any(|known| known == name),
    };
    let mut json = open_object(&ResponseHead {
        model_name: target.name(),
        model_version: &target.model.version,
        id: format.id,
    });
    json.extend_from_slice(b",\"outputs\":[");
    let mut tail = Vec::new();
    let mut has_tail = false;
    for (index, tensor) in response.outputs.into_iter().enumerate() {
        let name = tensor.output.name();
        let datatype = tensor.output.datatype();
        let mut entry = json!({ "name": name, "shape": tensor.shape, "datatype": datatype });
        if index > 0 {
            json.push(b',');
        }
        if is_binary(name) {
            has_tail = true;
            entry["parameters"] = json!({ "binary_data_size": tensor.bytes.len() });
            json.append(&mut open_object(&entry));
            append(&mut tail, tensor.bytes);
        } else {
            json.append(&mut open_object(&entry));
            json.extend_from_slice(b",\"data\":");
            append_elements(&tensor.bytes, datatype == FP32, &mut json);
        }
        json.push(b'}');
    }
    json.extend_from_slice(b"]}");
    let mut headers = HeaderMap::new();
    let media_type = if has_tail {
        headers.insert(JSON_LENGTH, HeaderValue::from(json.len() as u64));
        json.append(&mut tail);
        "application/octet-stream"
    } else {
        "application/json"
    };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    add_timing_headers(&mut headers, response.times);
    (headers, PermitBody::from_bytes(json, response.permits)).into_response()
}

/// Returns the JSON of an object without its closing brace.
fn open_object(object: &impl Serialize) -> Vec<u8> {
    // Strings and numbers always serialize.
    let mut json = serde_json::to_vec(object).unwrap_or_default();
    json.pop();
    json
}
