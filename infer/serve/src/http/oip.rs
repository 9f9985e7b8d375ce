//! The calls of the Open Inference Protocol, with tensors in JSON or behind it as bytes.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use protoseg_infer::{Stage, StageTimes};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::AppState;
use super::body::{PermitBody, receive};
use super::bounded_vec::BoundedVec;
use super::elements::{self, JsonElements, JsonInteger};
use super::guard::{ModelName, milliseconds};
use super::path::PathParams;
use crate::ServiceError;
use crate::oip::{
    Datatype, InferRequest, InferResponse, InputTensor, ModelRef, ServerMetadata, TensorData, run,
};

/// Header with the length of the JSON before the bytes of tensors; 0 where the whole body is one tensor.
const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// Most tensors of a request, and most dimensions of one; a sensible request has fewer of both.
const MOST_TENSORS: usize = 16;
const MOST_SIDES: usize = 8;

/// Bytes of the longest number of a request.
const LONGEST_ID: usize = 1024;

/// A model's name and, where the address has one, its version.
#[derive(Debug, Deserialize)]
pub(super) struct ModelPath {
    model: String,
    version: Option<String>,
}

impl ModelPath {
    fn find(&self, front: &AppState) -> Result<ModelRef, ServiceError> {
        ModelRef::find(&front.service.models, &self.model, self.version.as_deref())
    }
}

pub(super) async fn live() -> Response {
    Json(json!({ "live": true })).into_response()
}

pub(super) async fn server_ready(State(front): State<AppState>) -> Response {
    let ready = front.service.is_ready();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": ready }))).into_response()
}

pub(super) async fn server() -> Response {
    Json(ServerMetadata::default()).into_response()
}

pub(super) async fn metadata(
    State(front): State<AppState>,
    PathParams(address): PathParams<ModelPath>,
) -> Result<Response, ServiceError> {
    Ok(Json(address.find(&front)?.metadata()).into_response())
}

pub(super) async fn ready(
    State(front): State<AppState>,
    PathParams(address): PathParams<ModelPath>,
) -> Result<Response, ServiceError> {
    let ready =
        ModelRef::is_ready(&front.service.models, &address.model, address.version.as_deref())?;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok((status, Json(json!({ "name": address.model, "ready": ready }))).into_response())
}

pub(super) async fn infer(
    State(front): State<AppState>,
    PathParams(address): PathParams<ModelPath>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ServiceError> {
    let named = address.find(&front)?;
    let mut response = match answered(&front, &named, &headers, body).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    };
    response.extensions_mut().insert(ModelName(named.served.name.clone()));
    Ok(response)
}

async fn answered(
    front: &AppState,
    named: &ModelRef,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, ServiceError> {
    let service = &front.service;
    let received = receive(service, headers, body).await?;
    named.served.metrics.record_stage(Stage::Read, received.took);
    let json_length = json_length(headers, received.bytes.len())?;
    let (call, how) = if json_length == Some(0) {
        (
            InferRequest::raw(named, received.bytes)?,
            ResponseFormat { binary: Binary::All, id: None },
        )
    } else {
        let served = ModelRef::clone(named);
        let bytes = received.bytes;
        // JSON with pixels in it takes a while to read.
        service.work(move || parsed(&served, bytes, json_length)).await?
    };
    let answer = run(service, &named.served, call).await?;
    drop(received.share);
    let start = std::time::Instant::now();
    let served = ModelRef::clone(named);
    let response = service.work(move || Ok(written(&served, answer, &how))).await?;
    named.served.metrics.record_stage(Stage::Encode, start.elapsed());
    Ok(response)
}

/// The length of the JSON, where the header is there.
fn json_length(headers: &HeaderMap, body: usize) -> Result<Option<usize>, ServiceError> {
    let Some(value) = headers.get(JSON_LENGTH) else { return Ok(None) };
    let length = value
        .to_str()
        .ok()
        .and_then(|text| text.parse::<usize>().ok())
        .filter(|&length| length <= body);
    let refused = || {
        let value = String::from_utf8_lossy(value.as_bytes());
        ServiceError::bad_request(format!(
            "{JSON_LENGTH} is `{value}`, and the body has {body} bytes"
        ))
    };
    Ok(Some(length.ok_or_else(refused)?))
}

#[derive(Debug, Deserialize)]
struct JsonInferRequest {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    parameters: Parameters,
    inputs: BoundedVec<Input, MOST_TENSORS>,
    #[serde(default)]
    outputs: Option<BoundedVec<RequestedOutput, MOST_TENSORS>>,
}

#[derive(Debug, Default, Deserialize)]
struct Parameters {
    #[serde(default)]
    binary_data_output: bool,
    #[serde(default)]
    binary_data_size: Option<JsonInteger>,
    #[serde(default)]
    binary_data: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct Input {
    name: String,
    shape: BoundedVec<JsonInteger, MOST_SIDES>,
    datatype: String,
    #[serde(default)]
    parameters: Parameters,
    #[serde(default)]
    data: Option<JsonElements>,
}

#[derive(Debug, Deserialize)]
struct RequestedOutput {
    name: String,
    #[serde(default)]
    parameters: Parameters,
}

/// Which outputs are to come as bytes.
#[derive(Debug)]
enum Binary {
    All,
    Named(Vec<String>),
}

/// ResponseFormat an answer is to be written.
#[derive(Debug)]
struct ResponseFormat {
    binary: Binary,
    id: Option<String>,
}

fn parsed(
    named: &ModelRef,
    body: Bytes,
    json_length: Option<usize>,
) -> Result<(InferRequest, ResponseFormat), ServiceError> {
    let mut tail = body;
    let json = tail.split_to(json_length.unwrap_or(tail.len()));
    let request: JsonInferRequest = serde_json::from_slice(&json).map_err(|error| {
        ServiceError::bad_request(format!("the body is not the JSON of a request: {error}"))
    })?;
    let asked = request.outputs.map(|BoundedVec(asked)| asked);
    if request.id.as_ref().is_some_and(|id| id.len() > LONGEST_ID) {
        return Err(ServiceError::bad_request(format!("the id has more than {LONGEST_ID} bytes")));
    }
    let outputs =
        asked.as_ref().map(|asked| asked.iter().map(|output| output.name.clone()).collect());
    let all = request.parameters.binary_data_output;
    let binary = match &asked {
        Some(asked) if !asked.is_empty() => {
            let binary = asked.iter().filter(|output| output.parameters.binary_data.unwrap_or(all));
            Binary::Named(binary.map(|output| output.name.clone()).collect())
        }
        _ if all => Binary::All,
        _ => Binary::Named(Vec::new()),
    };
    let mut inputs = Vec::new();
    for Input { name, shape, datatype, parameters, data } in request.inputs.0 {
        let content = match (parameters.binary_data_size, data) {
            (Some(JsonInteger(size)), None) => {
                let left = tail.len();
                let within = usize::try_from(size).ok().filter(|&size| size <= left);
                let why = || {
                    format!(
                        "the input `{name}` has {size} bytes behind the JSON, where {left} are left"
                    )
                };
                TensorData::Raw(
                    tail.split_to(within.ok_or_else(|| ServiceError::bad_request(why()))?),
                )
            }
            (Some(_), Some(_)) => {
                return Err(ServiceError::bad_request(format!(
                    "the input `{name}` has `data` and `binary_data_size`"
                )));
            }
            (None, Some(elements))
                if elements.texts.is_empty() && datatype != Datatype::Bytes.name() =>
            {
                TensorData::Raw(elements.numbers.into())
            }
            (None, Some(elements)) if datatype == Datatype::Bytes.name() => {
                TensorData::Elements(encoded(&name, elements)?)
            }
            // Texts where there should be numbers: what is wrong with them depends on what was expected.
            (None, Some(_)) => TensorData::Elements(Vec::new()),
            (None, None) => {
                return Err(ServiceError::bad_request(format!("the input `{name}` has no data")));
            }
        };
        let shape = shape.0.into_iter().map(|JsonInteger(side)| side).collect();
        inputs.push(InputTensor { name, datatype, shape, content });
    }
    if !tail.is_empty() {
        let left = tail.len();
        return Err(ServiceError::bad_request(format!(
            "{left} bytes are left over behind the tensors"
        )));
    }
    let how = ResponseFormat { binary, id: request.id };
    Ok((InferRequest::new(named, inputs, outputs)?, how))
}

/// Picture files in JSON, which holds no bytes: as Base64.
fn encoded(name: &str, elements: JsonElements) -> Result<Vec<Bytes>, ServiceError> {
    if !elements.numbers.is_empty() {
        return Err(ServiceError::bad_request(format!(
            "elements of `{name}` are picture files as Base64, not numbers"
        )));
    }
    let decode = |text: String| {
        let bytes = BASE64_STANDARD.decode(text).map(Bytes::from);
        bytes.map_err(|error| {
            ServiceError::bad_request(format!("an element of `{name}` is not Base64: {error}"))
        })
    };
    elements.texts.into_iter().map(decode).collect()
}

#[derive(Serialize)]
struct ResponseHead<'a> {
    model_name: String,
    model_version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    outputs: Vec<Value>,
}

fn written(named: &ModelRef, answer: InferResponse, how: &ResponseFormat) -> Response {
    let is_binary = |name: &str| match &how.binary {
        Binary::All => true,
        Binary::Named(names) => names.iter().any(|known| known == name),
    };
    let mut tail = Vec::new();
    let mut outputs = Vec::new();
    let mut arrays = Vec::new();
    for given in answer.outputs {
        let (name, datatype) = (given.output.name(), given.output.datatype());
        let mut entry = json!({ "name": name, "shape": given.shape, "datatype": datatype });
        if is_binary(name) {
            entry["parameters"] = json!({ "binary_data_size": given.bytes.len() });
            if tail.is_empty() {
                tail = given.bytes;
            } else {
                tail.extend_from_slice(&given.bytes);
            }
            arrays.push(None);
        } else {
            arrays.push(Some((given.bytes, datatype == Datatype::Fp32)));
        }
        outputs.push(entry);
    }
    let head = ResponseHead {
        model_name: named.name(),
        model_version: &named.served.version,
        id: how.id.as_deref(),
        outputs: Vec::new(),
    };
    let mut json = with_outputs(&head, &outputs, &arrays);
    let mut response = if arrays.iter().any(Option::is_none) {
        let length = HeaderValue::from(json.len() as u64);
        json.append(&mut tail);
        let kind = HeaderValue::from_static("application/octet-stream");
        let headers = [(header::CONTENT_TYPE, kind), (JSON_LENGTH, length)];
        (headers, PermitBody::answer(json, answer.shares)).into_response()
    } else {
        (
            [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))],
            PermitBody::answer(json, answer.shares),
        )
            .into_response()
    };
    add_timing_headers(response.headers_mut(), answer.times);
    response
}

/// The JSON of an answer. Arrays of elements are written by hand, as a value for each would take many times their memory.
fn with_outputs(
    head: &ResponseHead<'_>,
    outputs: &[Value],
    arrays: &[Option<(Vec<u8>, bool)>],
) -> Vec<u8> {
    let mut json = serde_json::to_vec(head).unwrap_or_default();
    // What was written ends in an empty list and a brace.
    json.truncate(json.len().saturating_sub(2));
    for (index, (output, array)) in outputs.iter().zip(arrays).enumerate() {
        if index > 0 {
            json.push(b',');
        }
        json.extend_from_slice(output.to_string().as_bytes());
        if let Some((bytes, floats)) = array {
            json.pop();
            json.extend_from_slice(b",\"data\":");
            elements::append(bytes, *floats, &mut json);
            json.push(b'}');
        }
    }
    json.extend_from_slice(b"]}");
    json
}

/// Where the time of a picture went, in milliseconds.
pub(crate) fn add_timing_headers(headers: &mut HeaderMap, times: StageTimes) {
    headers.insert("x-queue-time", milliseconds(times[Stage::Queue]));
    headers.insert("x-inference-time", milliseconds(times.run()));
    headers.insert("x-stitch-time", milliseconds(times[Stage::Stitch]));
}
