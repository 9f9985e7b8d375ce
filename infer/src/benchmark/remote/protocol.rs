//! What the Open Inference Protocol says over HTTP: the models that there are, what one takes, and a request with pixels as
//! bytes (the binary tensor extension).

use bytes::Bytes;
use image::RgbImage;
use serde_json::{Value, json};

/// How many of a body's bytes are JSON; tensors follow.
pub(super) const LABELS_HEADER: &str = "inference-header-content-length";

/// Why a server cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// No address that can be asked.
    #[error("{0} is no address of a server; write it as http://HOST:PORT (without TLS)")]
    Url(String),
    /// Nobody answers.
    #[error("{at} does not answer: {reason}")]
    NoAnswer {
        /// What was asked for.
        at: String,
        /// Why not.
        reason: String,
    },
    /// It does not want to.
    #[error("{at} answers with status {status}: {said}")]
    Refused {
        /// What was asked for.
        at: String,
        /// The status.
        status: u16,
        /// What it says.
        said: String,
    },
    /// Something else than JSON.
    #[error("{at} does not answer as the Open Inference Protocol does")]
    NotJson {
        /// What was asked for.
        at: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// No model, or none that answers.
    #[error("{0} has no model that is ready; name one with --model, if it has")]
    NoModel(String),
    /// A model that takes something else than pictures.
    #[error("the model {model} of {url} takes no pictures of bytes [n, height, width, 3], or gives no labels: {why}")]
    NotPictures {
        /// The model.
        model: String,
        /// The server.
        url: String,
        /// What it takes or gives.
        why: String,
    },
}

/// What a model is called, takes and gives.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Described {
    pub(super) name: String,
    pub(super) version: String,
    input: String,
    output: String,
    /// Whether pictures come by themselves, without a dimension for how many.
    single: bool,
}

/// The first model of a repository's index that is ready.
pub(super) fn first_ready(index: &Value, url: &str) -> Result<String, RemoteError> {
    let ready = |model: &&Value| model["state"].as_str().is_none_or(|state| state == "READY");
    let first = index.as_array().into_iter().flatten().find(ready);
    let name = first.and_then(|model| model["name"].as_str());
    name.map(ToOwned::to_owned).ok_or_else(|| RemoteError::NoModel(url.to_owned()))
}

impl Described {
    /// Reads the metadata of a model.
    pub(super) fn of(metadata: &Value, url: &str) -> Result<Self, RemoteError> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let name = text(&metadata["name"]);
        let wrong = |why: String| RemoteError::NotPictures { model: name.clone(), url: url.to_owned(), why };
        let none = Vec::new();
        let tensors = |key: &str| metadata[key].as_array().unwrap_or(&none).clone();
        let inputs = tensors("inputs");
        let picture = |input: &&Value| {
            let shape = input["shape"].as_array();
            let colors = shape
                .is_some_and(|shape| [3, 4].contains(&shape.len()) && shape.last().and_then(Value::as_i64) == Some(3));
            input["datatype"] == "UINT8" && colors
        };
        let input =
            inputs.iter().find(picture).ok_or_else(|| wrong(format!("it takes {}", Value::from(inputs.clone()))))?;
        let outputs = tensors("outputs");
        let output = outputs.iter().find(|output| output["name"] == "labels" && output["datatype"] == "UINT8");
        let output = output.ok_or_else(|| wrong(format!("it gives {}", Value::from(outputs.clone()))))?;
        let version = metadata["versions"].as_array().and_then(|versions| versions.first()).map(text);
        Ok(Self {
            version: version.unwrap_or_default(),
            input: text(&input["name"]),
            output: text(&output["name"]),
            single: input["shape"].as_array().is_some_and(|shape| shape.len() == 3),
            name: name.clone(),
        })
    }
}

/// The body of a request for the labels of a picture, and how many of its bytes are JSON.
pub(super) fn request_of(described: &Described, image: &RgbImage) -> (Bytes, usize) {
    let (width, height) = image.dimensions();
    let shape = if described.single { json!([height, width, 3]) } else { json!([1, height, width, 3]) };
    let binary = json!({"binary_data": true});
    let head = json!({
        "inputs": [{
            "name": described.input,
            "shape": shape,
            "datatype": "UINT8",
            "parameters": {"binary_data_size": image.len()},
        }],
        "outputs": [{"name": described.output, "parameters": binary}],
    });
    let mut body = head.to_string().into_bytes();
    let length = body.len();
    body.extend_from_slice(image);
    (body.into(), length)
}

/// Bytes of the tensors in an answer; of one without a header, all bytes.
pub(super) fn answered_bytes(body: &[u8], header: Option<usize>) -> usize {
    body.len().saturating_sub(header.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_model_that_is_ready_is_asked() {
        let index = json!([{"name": "a", "state": "UNAVAILABLE"}, {"name": "b", "version": "1", "state": "READY"}]);
        assert_eq!(first_ready(&index, "u").unwrap(), "b");
        for none in [json!([]), json!({"error": "no"}), json!([{"name": "a", "state": "UNAVAILABLE"}])] {
            assert!(matches!(first_ready(&none, "u"), Err(RemoteError::NoModel(url)) if url == "u"));
        }
    }

    #[test]
    fn models_of_pictures_are_told_from_others() {
        let mut metadata = json!({
            "name": "street", "versions": ["7"],
            "inputs": [{"name": "image", "datatype": "UINT8", "shape": [-1, -1, -1, 3]}],
            "outputs": [{"name": "confidence", "datatype": "UINT8"}, {"name": "labels", "datatype": "UINT8"}],
        });
        let described = Described::of(&metadata, "u").unwrap();
        let (body, length) = request_of(&described, &RgbImage::from_fn(5, 2, |x, _| image::Rgb([x as u8; 3])));
        let head: Value = serde_json::from_slice(&body[..length]).unwrap();
        assert_eq!(head["inputs"][0]["shape"], json!([1, 2, 5, 3]));
        assert_eq!((body.len() - length, &body[length..length + 6]), (30, &[0, 0, 0, 1, 1, 1][..]));
        assert_eq!((described.name.as_str(), described.version.as_str()), ("street", "7"));
        metadata["inputs"][0]["datatype"] = json!("FP32");
        let message = Described::of(&metadata, "u").unwrap_err().to_string();
        assert!(message.contains("street") && message.contains("FP32"), "{message}");
    }
}
