//! The calls of the Open Inference Protocol, with tensors in JSON or behind it as bytes.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Front;
use super::address::At;
use super::body::{Kept, receive};
use super::elements::{self, Elements, Whole};
use super::few::Few;
use super::guard::{OfModel, milliseconds};
use crate::ServiceError;
use crate::engine::Times;
use crate::metrics::Stage;
use crate::oip::{Answer, Call, Content, Datatype, Named, ServerMetadata, Tensor, run};

/// Header with the length of the JSON before the bytes of tensors; 0 where the whole body is one tensor.
const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// Most tensors of a request, and most dimensions of one; a sensible request has fewer of both.
const MOST_TENSORS: usize = 16;
const MOST_SIDES: usize = 8;

/// Bytes of the longest number of a request.
const LONGEST_ID: usize = 1024;

/// A model's name and, where the address has one, its version.
#[derive(Debug, Deserialize)]
pub(super) struct Address {
    model: String,
    version: Option<String>,
}

impl Address {
    fn find(&self, front: &Front) -> Result<Named, ServiceError> {
        Named::find(&front.service.models, &self.model, self.version.as_deref())
    }
}

pub(super) async fn live() -> Response {
    Json(json!({ "live": true })).into_response()
}

pub(super) async fn server_ready(State(front): State<Front>) -> Response {
    let ready = front.service.is_ready();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": ready }))).into_response()
}

pub(super) async fn server() -> Response {
    Json(ServerMetadata::default()).into_response()
}

pub(super) async fn metadata(State(front): State<Front>, At(address): At<Address>) -> Result<Response, ServiceError> {
    Ok(Json(address.find(&front)?.metadata()).into_response())
}

pub(super) async fn ready(State(front): State<Front>, At(address): At<Address>) -> Result<Response, ServiceError> {
    let ready = Named::is_ready(&front.service.models, &address.model, address.version.as_deref())?;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok((status, Json(json!({ "name": address.model, "ready": ready }))).into_response())
}

pub(super) async fn infer(
    State(front): State<Front>,
    At(address): At<Address>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ServiceError> {
    let named = address.find(&front)?;
    let mut response = match answered(&front, &named, &headers, body).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    };
    response.extensions_mut().insert(OfModel(named.served.name.clone()));
    Ok(response)
}

async fn answered(front: &Front, named: &Named, headers: &HeaderMap, body: Body) -> Result<Response, ServiceError> {
    let service = &front.service;
    let received = receive(service, headers, body).await?;
    named.served.metrics.stage(Stage::Read, received.took);
    let json_length = json_length(headers, received.bytes.len())?;
    let (call, how) = if json_length == Some(0) {
        (Call::raw(named, received.bytes)?, How { binary: Binary::All, id: None })
    } else {
        let served = Named::clone(named);
        let bytes = received.bytes;
        // JSON with pixels in it takes a while to read.
        service.work(move || parsed(&served, bytes, json_length)).await?
    };
    let answer = run(service, &named.served, call).await?;
    drop(received.share);
    let start = std::time::Instant::now();
    let served = Named::clone(named);
    let response = service.work(move || Ok(written(&served, answer, &how))).await?;
    named.served.metrics.stage(Stage::Encode, start.elapsed());
    Ok(response)
}

/// The length of the JSON, where the header is there.
fn json_length(headers: &HeaderMap, body: usize) -> Result<Option<usize>, ServiceError> {
    let Some(value) = headers.get(JSON_LENGTH) else { return Ok(None) };
    let length = value.to_str().ok().and_then(|text| text.parse::<usize>().ok()).filter(|&length| length <= body);
    let refused = || {
        let value = String::from_utf8_lossy(value.as_bytes());
        ServiceError::invalid(format!("{JSON_LENGTH} is `{value}`, and the body has {body} bytes"))
    };
    Ok(Some(length.ok_or_else(refused)?))
}

#[derive(Debug, Deserialize)]
struct Request {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    parameters: Parameters,
    inputs: Few<Input, MOST_TENSORS>,
    #[serde(default)]
    outputs: Option<Few<Asked, MOST_TENSORS>>,
}

#[derive(Debug, Default, Deserialize)]
struct Parameters {
    #[serde(default)]
    binary_data_output: bool,
    #[serde(default)]
    binary_data_size: Option<Whole>,
    #[serde(default)]
    binary_data: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct Input {
    name: String,
    shape: Few<Whole, MOST_SIDES>,
    datatype: String,
    #[serde(default)]
    parameters: Parameters,
    #[serde(default)]
    data: Option<Elements>,
}

#[derive(Debug, Deserialize)]
struct Asked {
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

/// How an answer is to be written.
#[derive(Debug)]
struct How {
    binary: Binary,
    id: Option<String>,
}

fn parsed(named: &Named, body: Bytes, json_length: Option<usize>) -> Result<(Call, How), ServiceError> {
    let mut tail = body;
    let json = tail.split_to(json_length.unwrap_or(tail.len()));
    let request: Request = serde_json::from_slice(&json)
        .map_err(|error| ServiceError::invalid(format!("the body is not the JSON of a request: {error}")))?;
    let asked = request.outputs.map(|Few(asked)| asked);
    if request.id.as_ref().is_some_and(|id| id.len() > LONGEST_ID) {
        return Err(ServiceError::invalid(format!("the id has more than {LONGEST_ID} bytes")));
    }
    let outputs = asked.as_ref().map(|asked| asked.iter().map(|output| output.name.clone()).collect());
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
            (Some(Whole(size)), None) => {
                let left = tail.len();
                let within = usize::try_from(size).ok().filter(|&size| size <= left);
                let why = || format!("the input `{name}` has {size} bytes behind the JSON, where {left} are left");
                Content::Raw(tail.split_to(within.ok_or_else(|| ServiceError::invalid(why()))?))
            }
            (Some(_), Some(_)) => {
                return Err(ServiceError::invalid(format!("the input `{name}` has `data` and `binary_data_size`")));
            }
            (None, Some(elements)) if elements.texts.is_empty() && datatype != Datatype::Bytes.name() => {
                Content::Raw(elements.numbers.into())
            }
            (None, Some(elements)) if datatype == Datatype::Bytes.name() => {
                Content::Elements(encoded(&name, elements)?)
            }
            // Texts where there should be numbers: what is wrong with them depends on what was expected.
            (None, Some(_)) => Content::Elements(Vec::new()),
            (None, None) => return Err(ServiceError::invalid(format!("the input `{name}` has no data"))),
        };
        let shape = shape.0.into_iter().map(|Whole(side)| side).collect();
        inputs.push(Tensor { name, datatype, shape, content });
    }
    if !tail.is_empty() {
        let left = tail.len();
        return Err(ServiceError::invalid(format!("{left} bytes are left over behind the tensors")));
    }
    let how = How { binary, id: request.id };
    Ok((Call::new(named, inputs, outputs)?, how))
}

/// Picture files in JSON, which holds no bytes: as Base64.
fn encoded(name: &str, elements: Elements) -> Result<Vec<Bytes>, ServiceError> {
    if !elements.numbers.is_empty() {
        return Err(ServiceError::invalid(format!("elements of `{name}` are picture files as Base64, not numbers")));
    }
    let decode = |text: String| {
        let bytes = BASE64_STANDARD.decode(text).map(Bytes::from);
        bytes.map_err(|error| ServiceError::invalid(format!("an element of `{name}` is not Base64: {error}")))
    };
    elements.texts.into_iter().map(decode).collect()
}

#[derive(Serialize)]
struct Head<'a> {
    model_name: String,
    model_version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    outputs: Vec<Value>,
}

fn written(named: &Named, answer: Answer, how: &How) -> Response {
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
    let head = Head {
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
        (headers, Kept::answer(json, answer.shares)).into_response()
    } else {
        ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], Kept::answer(json, answer.shares))
            .into_response()
    };
    add_times(response.headers_mut(), answer.times);
    response
}

/// The JSON of an answer. Arrays of elements are written by hand, as a value for each would take many times their memory.
fn with_outputs(head: &Head<'_>, outputs: &[Value], arrays: &[Option<(Vec<u8>, bool)>]) -> Vec<u8> {
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
pub(crate) fn add_times(headers: &mut HeaderMap, times: Times) {
    headers.insert("x-queue-time", milliseconds(times.queue));
    headers.insert("x-inference-time", milliseconds(times.run));
    headers.insert("x-stitch-time", milliseconds(times.stitch));
}
