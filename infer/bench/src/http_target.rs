//! A server as a target over HTTP: by the Open Inference Protocol with pixels as bytes (the binary
//! tensor extension), as Triton, KServe and `protoseg serve` speak it, or with image files by the
//! plain API of `protoseg serve`.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::AUTHORIZATION;
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use image::RgbImage;
use serde_json::{Value, json};

use super::images::BenchImages;
use super::load::{RequestError, RequestStages, Target};

/// Number of a body's bytes that are JSON; tensors follow.
const HEADER_LENGTH: &str = "inference-header-content-length";

/// Name of the output that holds labels.
const LABELS: &str = "labels";

/// First bytes of a PNG file; width and height follow at byte 16.
const PNG_SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// Bytes of a response that an error message quotes.
const QUOTED: usize = 300;

/// A server that cannot be measured.
#[derive(Debug, thiserror::Error)]
pub enum HttpTargetError {
    #[error("{0} is not the address of a server; write it as http://HOST:PORT (without TLS)")]
    Url(String),
    #[error("{at} does not answer: {reason}")]
    NoAnswer { at: String, reason: String },
    #[error("{at} answers with status {status}: {body}")]
    Refused { at: String, status: u16, body: String },
    #[error("{at} does not answer as the Open Inference Protocol does")]
    NotJson { at: String, source: serde_json::Error },
    #[error("{0} has no model that is ready; name one with --model")]
    NoModel(String),
    #[error(
        "the model {model} of {url} does not take images as bytes [n, height, width, 3], or gives no labels: {why}"
    )]
    NotImages { model: String, url: String, why: String },
}

/// A model of a server, with the requests for all images.
#[derive(Debug)]
pub struct HttpTarget {
    client: Client<HttpConnector, Full<Bytes>>,
    /// `http://HOST:PORT` and what comes before the server's own paths.
    base: String,
    key: Option<String>,
    model: ModelMetadata,
    path: String,
    queries: Vec<Query>,
    timeout: Duration,
}

/// A request body and what is expected in response.
#[derive(Debug)]
struct Query {
    body: Bytes,
    json_length: Option<usize>,
    expected: ExpectedBody,
}

struct Response {
    status: StatusCode,
    json_length: Option<usize>,
    body: Bytes,
    waited: Duration,
    received: Duration,
}

impl HttpTarget {
    /// Reads the metadata of a server's model, the first one where none is named, and builds the
    /// requests for all images: their pixels, or with `files` their files.
    pub async fn open(
        url: &str,
        model: Option<&str>,
        key: Option<String>,
        images: &BenchImages,
        files: bool,
        timeout: Duration,
    ) -> Result<Self, HttpTargetError> {
        let invalid = || HttpTargetError::Url(url.to_owned());
        let address: Uri = url.parse().map_err(|_| invalid())?;
        let host = address.authority().filter(|_| address.scheme_str() == Some("http"));
        let host = host.ok_or_else(invalid)?;
        let mut connector = HttpConnector::new();
        // Small requests would wait for others to fill a packet.
        connector.set_nodelay(true);
        let mut target = Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            base: format!("http://{host}{}", address.path().trim_end_matches('/')),
            key,
            model: ModelMetadata::default(),
            path: String::new(),
            queries: Vec::new(),
            timeout,
        };
        let name = match model {
            Some(name) => name.to_owned(),
            None => first_ready(&target.json(Method::POST, "/v2/repository/index").await?, url)?,
        };
        let metadata = target.json(Method::GET, &format!("/v2/models/{name}")).await?;
        target.model = ModelMetadata::from_json(&metadata, url)?;
        let name = &target.model.name;
        target.path = if files {
            format!("/v1/models/{name}/segment?as=labels")
        } else {
            format!("/v2/models/{name}/infer")
        };
        for image in images.all() {
            let (width, height) = image.image.dimensions();
            target.queries.push(if files {
                let expected = ExpectedBody::Png([width, height]);
                Query { body: image.file.clone(), json_length: None, expected }
            } else {
                let (body, json_length) = infer_request(&target.model, &image.image);
                let expected = ExpectedBody::Labels(width as usize * height as usize);
                Query { body, json_length: Some(json_length), expected }
            });
        }
        Ok(target)
    }

    /// Name and version of the model.
    pub fn model(&self) -> (&str, &str) {
        (&self.model.name, &self.model.version)
    }

    /// A JSON response to a request without images.
    async fn json(&self, method: Method, path: &str) -> Result<Value, HttpTargetError> {
        let at = format!("{}{path}", self.base);
        let body = if method == Method::POST { Bytes::from_static(b"{}") } else { Bytes::new() };
        let response = match self.send(method, path, body, None).await {
            Ok(response) => response,
            Err(RequestError(reason)) => return Err(HttpTargetError::NoAnswer { at, reason }),
        };
        if !response.status.is_success() {
            let body = quote(&response.body);
            return Err(HttpTargetError::Refused { at, status: response.status.as_u16(), body });
        }
        serde_json::from_slice(&response.body)
            .map_err(|source| HttpTargetError::NotJson { at, source })
    }

    /// Sends a request and receives the whole response, within the timeout.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        json_length: Option<usize>,
    ) -> Result<Response, RequestError> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(length) = json_length {
            request = request.header(HEADER_LENGTH, length);
        }
        if let Some(key) = &self.key {
            request = request.header(AUTHORIZATION, format!("Bearer {key}"));
        }
        let request =
            request.body(Full::new(body)).map_err(|error| RequestError::from_error(&error))?;
        let start = Instant::now();
        let exchange = async {
            let response = self.client.request(request).await;
            let response = response.map_err(|error| RequestError::from_error(&error))?;
            let waited = start.elapsed();
            let (head, body) = response.into_parts();
            let body = body.collect().await.map_err(|error| RequestError::from_error(&error))?;
            let length = head.headers.get(HEADER_LENGTH);
            Ok(Response {
                status: head.status,
                json_length: length.and_then(|value| value.to_str().ok()?.parse().ok()),
                body: body.to_bytes(),
                waited,
                received: start.elapsed() - waited,
            })
        };
        tokio::time::timeout(self.timeout, exchange).await.unwrap_or_else(|_| {
            let seconds = self.timeout.as_secs_f64();
            Err(RequestError(format!("no response within {seconds} s")))
        })
    }
}

impl Target for HttpTarget {
    async fn request(&self, image: usize) -> Result<RequestStages, RequestError> {
        let query = &self.queries[image % self.queries.len()];
        let response =
            self.send(Method::POST, &self.path, query.body.clone(), query.json_length).await?;
        if !response.status.is_success() {
            let status = response.status.as_u16();
            return Err(RequestError(format!("status {status}: {}", quote(&response.body))));
        }
        query.expected.check(&response.body, response.json_length).map_err(RequestError)?;
        Ok(vec![("wait", response.waited), ("receive", response.received)])
    }
}

/// The beginning of a body.
fn quote(body: &[u8]) -> String {
    String::from_utf8_lossy(&body[..body.len().min(QUOTED)]).into_owned()
}

/// Names of a model and of the tensors that are used.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct ModelMetadata {
    name: String,
    version: String,
    input: String,
    output: String,
    /// The input is `[height, width, 3]`, without a batch dimension.
    unbatched: bool,
}

/// The first model of a repository index that is ready.
fn first_ready(index: &Value, url: &str) -> Result<String, HttpTargetError> {
    let is_ready = |model: &&Value| model["state"].as_str().is_none_or(|state| state == "READY");
    let first = index.as_array().into_iter().flatten().find(is_ready);
    let name = first.and_then(|model| model["name"].as_str());
    name.map(ToOwned::to_owned).ok_or_else(|| HttpTargetError::NoModel(url.to_owned()))
}

impl ModelMetadata {
    fn from_json(metadata: &Value, url: &str) -> Result<Self, HttpTargetError> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let name = text(&metadata["name"]);
        let unsuitable = |why: String| HttpTargetError::NotImages {
            model: name.clone(),
            url: url.to_owned(),
            why,
        };
        let tensors = |key: &str| metadata[key].as_array().cloned().unwrap_or_default();
        let inputs = tensors("inputs");
        let is_image = |input: &&Value| {
            let shape = input["shape"].as_array();
            let has_colors = shape.is_some_and(|shape| {
                [3, 4].contains(&shape.len()) && shape.last().and_then(Value::as_i64) == Some(3)
            });
            input["datatype"] == "UINT8" && has_colors
        };
        let Some(input) = inputs.iter().find(is_image) else {
            return Err(unsuitable(format!("it takes {}", Value::from(inputs))));
        };
        let outputs = tensors("outputs");
        let is_labels = |output: &&Value| output["name"] == LABELS && output["datatype"] == "UINT8";
        let Some(output) = outputs.iter().find(is_labels) else {
            return Err(unsuitable(format!("it gives {}", Value::from(outputs))));
        };
        Ok(Self {
            version: text(&metadata["versions"][0]),
            input: text(&input["name"]),
            output: text(&output["name"]),
            unbatched: input["shape"].as_array().is_some_and(|shape| shape.len() == 3),
            name,
        })
    }
}

/// Body of a request for the labels of an image, and the number of its bytes that are JSON.
fn infer_request(model: &ModelMetadata, image: &RgbImage) -> (Bytes, usize) {
    let (width, height) = image.dimensions();
    let shape =
        if model.unbatched { json!([height, width, 3]) } else { json!([1, height, width, 3]) };
    let head = json!({
        "inputs": [{
            "name": model.input,
            "shape": shape,
            "datatype": "UINT8",
            "parameters": {"binary_data_size": image.len()},
        }],
        "outputs": [{"name": model.output, "parameters": {"binary_data": true}}],
    });
    let mut body = head.to_string().into_bytes();
    let length = body.len();
    body.extend_from_slice(image);
    (body.into(), length)
}

/// Content of a successful response; a proxy's error page with status 200 has neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ExpectedBody {
    /// A byte tensor of this many labels.
    Labels(usize),
    /// A PNG file of this width and height.
    Png([u32; 2]),
}

impl ExpectedBody {
    /// Returns what is wrong with a body of which `json_length` bytes are JSON.
    fn check(self, body: &[u8], json_length: Option<usize>) -> Result<(), String> {
        match self {
            Self::Labels(pixels) => {
                let split = json_length.and_then(|length| body.split_at_checked(length));
                let (head, tensors) = split.ok_or("the response has no tensors of bytes")?;
                let head: Value = serde_json::from_slice(head)
                    .map_err(|error| format!("the JSON of the response: {error}"))?;
                let outputs = head["outputs"].as_array();
                let labels = outputs.into_iter().flatten().find(|output| output["name"] == LABELS);
                let size = labels
                    .and_then(|labels| labels["parameters"]["binary_data_size"].as_u64())
                    .unwrap_or(0);
                let found = tensors.len().min(usize::try_from(size).unwrap_or(usize::MAX));
                if found == pixels {
                    return Ok(());
                }
                Err(format!(
                    "the response has labels of {found} pixels where the image has {pixels}"
                ))
            }
            Self::Png([width, height]) => {
                let size = body.starts_with(PNG_SIGNATURE).then(|| body.get(16..24)).flatten();
                if size == Some(&[width.to_be_bytes(), height.to_be_bytes()].concat()) {
                    return Ok(());
                }
                Err(format!("the response is not a PNG file of {width}x{height} pixels"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_ready_model_is_chosen() {
        let index = json!([{"name": "a", "state": "UNAVAILABLE"}, {"name": "b", "version": "1", "state": "READY"}]);
        assert_eq!(first_ready(&index, "u").unwrap(), "b");
        for none in
            [json!([]), json!({"error": "no"}), json!([{"name": "a", "state": "UNAVAILABLE"}])]
        {
            assert!(
                matches!(first_ready(&none, "u"), Err(HttpTargetError::NoModel(url)) if url == "u")
            );
        }
    }

    #[test]
    fn models_without_image_inputs_are_refused() {
        let mut metadata = json!({
            "name": "street", "versions": ["7"],
            "inputs": [{"name": "image", "datatype": "UINT8", "shape": [-1, -1, -1, 3]}],
            "outputs": [{"name": "confidence", "datatype": "UINT8"}, {"name": "labels", "datatype": "UINT8"}],
        });
        let model = ModelMetadata::from_json(&metadata, "u").unwrap();
        let (body, length) =
            infer_request(&model, &RgbImage::from_fn(5, 2, |x, _| image::Rgb([x as u8; 3])));
        let head: Value = serde_json::from_slice(&body[..length]).unwrap();
        assert_eq!(head["inputs"][0]["shape"], json!([1, 2, 5, 3]));
        assert_eq!((body.len() - length, &body[length..length + 6]), (30, &[0, 0, 0, 1, 1, 1][..]));
        assert_eq!((model.name.as_str(), model.version.as_str()), ("street", "7"));
        metadata["inputs"][0]["datatype"] = json!("FP32");
        let message = ModelMetadata::from_json(&metadata, "u").unwrap_err().to_string();
        assert!(message.contains("street") && message.contains("FP32"), "{message}");
    }

    #[test]
    fn unexpected_bodies_are_refused() {
        let answer = |size: usize, bytes: usize| {
            let head =
                json!({"outputs": [{"name": "labels", "parameters": {"binary_data_size": size}}]})
                    .to_string();
            ([head.as_bytes(), &vec![0; bytes]].concat(), Some(head.len()))
        };
        let check =
            |(body, length): (Vec<u8>, Option<usize>)| ExpectedBody::Labels(6).check(&body, length);
        assert_eq!(check(answer(6, 6)), Ok(()));
        for (size, bytes) in [(6, 5), (5, 6), (0, 6), (7, 7)] {
            assert!(
                check(answer(size, bytes)).unwrap_err().contains("where the image has 6"),
                "{size} {bytes}"
            );
        }
        let page = b"<html>a page that is long enough</html>".to_vec();
        assert!(check((page.clone(), None)).unwrap_err().contains("no tensors"));
        assert!(check((page.clone(), Some(1000))).unwrap_err().contains("no tensors"));
        assert!(check((page.clone(), Some(6))).unwrap_err().contains("JSON"));
        let mut png = std::io::Cursor::new(Vec::new());
        RgbImage::new(5, 2).write_to(&mut png, image::ImageFormat::Png).unwrap();
        assert_eq!(ExpectedBody::Png([5, 2]).check(png.get_ref(), None), Ok(()));
        for (size, body) in
            [([2, 5], png.get_ref().as_slice()), ([5, 2], &page), ([5, 2], &png.get_ref()[..20])]
        {
            assert!(
                ExpectedBody::Png(size)
                    .check(body, None)
                    .unwrap_err()
                    .contains("not a PNG file of")
            );
        }
    }
}
