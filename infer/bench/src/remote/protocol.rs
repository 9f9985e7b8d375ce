//! What the Open Inference Protocol says over HTTP: the models that there are, what one takes, and a request with pixels as
//! bytes (the binary tensor extension).

use bytes::Bytes;
use image::RgbImage;
use serde_json::{Value, json};

/// How many of a body's bytes are JSON; tensors follow.
pub(super) const HEADER_LENGTH: &str = "inference-header-content-length";

/// Name of the output that holds labels.
const LABELS: &str = "labels";

/// What a PNG file begins with; the sides of the picture follow at byte 16.
const PNG_START: &[u8] = b"\x89PNG\r\n\x1a\n";

/// Why a server cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum HttpTargetError {
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
    #[error(
        "the model {model} of {url} takes no pictures of bytes [n, height, width, 3], or gives no labels: {why}"
    )]
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
pub(super) struct ModelMetadata {
    pub(super) name: String,
    pub(super) version: String,
    input: String,
    output: String,
    /// Whether pictures come by themselves, without a dimension for how many.
    single: bool,
}

/// The first model of a repository's index that is ready.
pub(super) fn first_ready(index: &Value, url: &str) -> Result<String, HttpTargetError> {
    let ready = |model: &&Value| model["state"].as_str().is_none_or(|state| state == "READY");
    let first = index.as_array().into_iter().flatten().find(ready);
    let name = first.and_then(|model| model["name"].as_str());
    name.map(ToOwned::to_owned).ok_or_else(|| HttpTargetError::NoModel(url.to_owned()))
}

impl ModelMetadata {
    /// Reads the metadata of a model.
    pub(super) fn from_json(metadata: &Value, url: &str) -> Result<Self, HttpTargetError> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let name = text(&metadata["name"]);
        let wrong = |why: String| HttpTargetError::NotPictures {
            model: name.clone(),
            url: url.to_owned(),
            why,
        };
        let none = Vec::new();
        let tensors = |key: &str| metadata[key].as_array().unwrap_or(&none).clone();
        let inputs = tensors("inputs");
        let picture = |input: &&Value| {
            let shape = input["shape"].as_array();
            let colors = shape.is_some_and(|shape| {
                [3, 4].contains(&shape.len()) && shape.last().and_then(Value::as_i64) == Some(3)
            });
            input["datatype"] == "UINT8" && colors
        };
        let input = inputs
            .iter()
            .find(picture)
            .ok_or_else(|| wrong(format!("it takes {}", Value::from(inputs.clone()))))?;
        let outputs = tensors("outputs");
        let output =
            outputs.iter().find(|output| output["name"] == LABELS && output["datatype"] == "UINT8");
        let output =
            output.ok_or_else(|| wrong(format!("it gives {}", Value::from(outputs.clone()))))?;
        let version =
            metadata["versions"].as_array().and_then(|versions| versions.first()).map(text);
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
pub(super) fn infer_request(described: &ModelMetadata, image: &RgbImage) -> (Bytes, usize) {
    let (width, height) = image.dimensions();
    let shape =
        if described.single { json!([height, width, 3]) } else { json!([1, height, width, 3]) };
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

/// What an answer is to hold: a proxy's page is none, though its status be 200.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExpectedBody {
    /// JSON, which is read by who asked.
    Json,
    /// A label for each of so many pixels, as bytes of a tensor.
    Labels(usize),
    /// A PNG file of this width and height.
    Png([u32; 2]),
}

impl ExpectedBody {
    /// Says what is wrong with the body of an answer, of which so many bytes are JSON where tensors follow.
    pub(super) fn check(self, body: &[u8], header: Option<usize>) -> Result<(), String> {
        match self {
            Self::Json => Ok(()),
            Self::Labels(pixels) => {
                let split = header.and_then(|length| body.split_at_checked(length));
                let (head, tensors) = split.ok_or("the answer has no tensors of bytes")?;
                let head: Value = serde_json::from_slice(head)
                    .map_err(|error| format!("the answer's JSON: {error}"))?;
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
                    "the answer has labels of {found} pixels where the picture has {pixels}"
                ))
            }
            Self::Png([width, height]) => {
                let sides = body.starts_with(PNG_START).then(|| body.get(16..24)).flatten();
                if sides == Some(&[width.to_be_bytes(), height.to_be_bytes()].concat()) {
                    return Ok(());
                }
                Err(format!("the answer is no PNG file of {width}x{height} pixels"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_model_that_is_ready_is_asked() {
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
    fn models_of_pictures_are_told_from_others() {
        let mut metadata = json!({
            "name": "street", "versions": ["7"],
            "inputs": [{"name": "image", "datatype": "UINT8", "shape": [-1, -1, -1, 3]}],
            "outputs": [{"name": "confidence", "datatype": "UINT8"}, {"name": "labels", "datatype": "UINT8"}],
        });
        let described = ModelMetadata::from_json(&metadata, "u").unwrap();
        let (body, length) =
            infer_request(&described, &RgbImage::from_fn(5, 2, |x, _| image::Rgb([x as u8; 3])));
        let head: Value = serde_json::from_slice(&body[..length]).unwrap();
        assert_eq!(head["inputs"][0]["shape"], json!([1, 2, 5, 3]));
        assert_eq!((body.len() - length, &body[length..length + 6]), (30, &[0, 0, 0, 1, 1, 1][..]));
        assert_eq!((described.name.as_str(), described.version.as_str()), ("street", "7"));
        metadata["inputs"][0]["datatype"] = json!("FP32");
        let message = ModelMetadata::from_json(&metadata, "u").unwrap_err().to_string();
        assert!(message.contains("street") && message.contains("FP32"), "{message}");
    }

    #[test]
    fn answers_that_are_none_are_told_from_labels() {
        let answer = |size: usize, bytes: usize| {
            let head =
                json!({"outputs": [{"name": "labels", "parameters": {"binary_data_size": size}}]})
                    .to_string();
            ([head.as_bytes(), &vec![0; bytes]].concat(), Some(head.len()))
        };
        let check =
            |(body, header): (Vec<u8>, Option<usize>)| ExpectedBody::Labels(6).check(&body, header);
        assert_eq!(check(answer(6, 6)), Ok(()));
        for (size, bytes) in [(6, 5), (5, 6), (0, 6), (7, 7)] {
            assert!(
                check(answer(size, bytes)).unwrap_err().contains("where the picture has 6"),
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
                ExpectedBody::Png(size).check(body, None).unwrap_err().contains("no PNG file of")
            );
        }
    }
}
