//! Open Inference Protocol over HTTP: each way to send an image gives its labels, and invalid
//! requests a 4xx with a message.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use image::{ImageFormat, RgbImage};
use serde_json::{Value, json};

use super::server::{Response, Server};
use crate::common::{fixture, stripe_labels, stripes};

const LENGTH: &str = "inference-header-content-length";
const INFER: &str = "/v2/models/colors/infer";
const ENCODED: &str = "/v2/models/colors.encoded/infer";

pub(super) fn png(image: &RgbImage) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// A request with pixels behind its JSON, and the length of the JSON.
pub(super) fn binary(image: &RgbImage, more: &Value) -> (Vec<u8>, usize) {
    let (width, height) = image.dimensions();
    let mut head = json!({
        "inputs": [{
            "name": "image", "shape": [1, height, width, 3], "datatype": "UINT8",
            "parameters": { "binary_data_size": image.len() },
        }],
    });
    for (key, value) in more.as_object().unwrap() {
        head[key] = value.clone();
    }
    let mut bytes = head.to_string().into_bytes();
    let length = bytes.len();
    bytes.extend_from_slice(image);
    (bytes, length)
}

/// The JSON of a response, and the bytes of its tensors by name.
fn parts(response: &Response) -> (Value, Vec<(String, Vec<u8>)>) {
    assert_eq!(response.status, 200, "{}", response.text());
    let binary = response
        .headers
        .iter()
        .find(|(name, _)| name == LENGTH)
        .map(|(_, value)| value.parse().unwrap());
    let (head, mut tail) = response.body.split_at(binary.unwrap_or(response.body.len()));
    let head: Value = serde_json::from_slice(head).unwrap();
    let mut tensors = Vec::new();
    for output in head["outputs"].as_array().unwrap() {
        let bytes = match output["parameters"]["binary_data_size"].as_u64() {
            Some(size) => {
                let (bytes, rest) = tail.split_at(size as usize);
                tail = rest;
                bytes.to_vec()
            }
            None => output["data"]
                .as_array()
                .unwrap()
                .iter()
                .map(|number| number.as_u64().unwrap() as u8)
                .collect(),
        };
        tensors.push((output["name"].as_str().unwrap().to_owned(), bytes));
    }
    assert!(tail.is_empty());
    (head, tensors)
}

fn labels(response: &Response) -> Vec<u8> {
    let (_, tensors) = parts(response);
    tensors.into_iter().find(|(name, _)| name == "labels").unwrap().1
}

#[test]
fn server_and_models_have_metadata() {
    let server = Server::start(&[]);
    assert_eq!(server.get("/v2/health/live").json(), json!({ "live": true }));
    assert_eq!(server.get("/v2/health/ready").json(), json!({ "ready": true }));
    assert_eq!(
        server.get("/v2").json()["extensions"],
        json!(["binary_tensor_data", "model_repository"])
    );
    let model = server.get("/v2/models/colors").json();
    let version = model["versions"][0].as_str().unwrap();
    assert_eq!(
        model["inputs"],
        json!([{ "name": "image", "datatype": "UINT8", "shape": [-1, -1, -1, 3] }])
    );
    let outputs: Vec<&str> =
        model["outputs"].as_array().unwrap().iter().map(|o| o["name"].as_str().unwrap()).collect();
    assert_eq!(outputs, ["labels", "confidence"]);
    assert_eq!(server.get(&format!("/v2/models/colors/versions/{version}")).json(), model);
    assert_eq!(
        server.get(&format!("/v2/models/colors/versions/{version}/ready")).json()["ready"],
        true
    );
    let encoded = server.get("/v2/models/colors.encoded").json();
    assert_eq!(encoded["inputs"], json!([{ "name": "image", "datatype": "BYTES", "shape": [-1] }]));
    for path in [
        "/v2/models/other",
        "/v2/models/colors/versions/1",
        "/v2/models/other.encoded/ready",
        "/v3",
    ] {
        let response = server.get(path);
        assert_eq!((response.status, response.error().is_empty()), (404, false), "{path}");
    }
    assert_eq!(
        server.send(&super::server::request("DELETE", "/v2", &[], b"")).unwrap().status,
        405
    );
}

#[test]
fn every_way_to_send_an_image_gives_its_labels() {
    let server = Server::start(&["--serve-logits"]);
    let (image, expected) = (stripes(70, 50), stripe_labels(70, 50));
    let nested: Vec<Vec<[u8; 3]>> =
        image.rows().map(|row| row.map(|pixel| pixel.0).collect()).collect();
    let flat = image.as_raw();
    for data in [json!([nested]), json!(flat)] {
        let body = json!({
            "id": "seven",
            "inputs": [{ "name": "image", "shape": [1, 50, 70, 3], "datatype": "UINT8", "data": data }],
            "outputs": [{ "name": "confidence" }, { "name": "labels" }],
        });
        let response = server.post(INFER, &[], body.to_string().as_bytes());
        let (head, tensors) = parts(&response);
        assert_eq!((&head["id"], &head["model_name"]), (&json!("seven"), &json!("colors")));
        assert_eq!(head["outputs"][1]["shape"], json!([1, 50, 70]));
        assert_eq!(tensors[0].0, "confidence");
        assert_eq!(tensors[1], ("labels".to_owned(), expected.clone()));
        for name in
            ["x-queue-time", "x-inference-time", "x-stitch-time", "x-total-time", "x-request-id"]
        {
            assert!(!response.header(name).is_empty());
        }
    }
    // All outputs as bytes, one as bytes, none.
    for (more, binary_count) in [
        (json!({ "parameters": { "binary_data_output": true } }), 3),
        (
            json!({ "outputs": [{ "name": "logits" }, { "name": "labels", "parameters": { "binary_data": true } }] }),
            1,
        ),
        (json!({ "outputs": [{ "name": "labels" }] }), 0),
    ] {
        let (body, length) = binary(&image, &more);
        let response = server.post(INFER, &[(LENGTH, &length.to_string())], &body);
        if binary_count == 1 {
            let length: usize = response.header(LENGTH).parse().unwrap();
            let head: Value = serde_json::from_slice(&response.body[..length]).unwrap();
            assert_eq!(head["outputs"][0]["shape"], json!([1, 3, 13, 18]));
            assert_eq!(head["outputs"][0]["data"].as_array().unwrap().len(), 3 * 13 * 18);
            assert_eq!(&response.body[length..], expected);
        } else {
            assert_eq!(labels(&response), expected, "{more}");
        }
    }
    let file = png(&image);
    let raw = server.post(ENCODED, &[(LENGTH, "0")], &file);
    let (head, tensors) = parts(&raw);
    assert_eq!((&head["model_name"], &tensors[0].1), (&json!("colors.encoded"), &expected));
    assert_eq!(tensors.len(), 3);
    let base64 = BASE64_STANDARD.encode(&file);
    let body = json!({ "inputs": [{ "name": "image", "shape": [2], "datatype": "BYTES", "data": [base64, base64] }],
                       "outputs": [{ "name": "labels" }] });
    let twice = labels(&server.post(ENCODED, &[], body.to_string().as_bytes()));
    assert_eq!(twice, [expected.clone(), expected].concat());
}

#[test]
fn pixels_without_a_shape_need_a_fixed_size() {
    let server = Server::start(&[]);
    let response = server.post(INFER, &[(LENGTH, "0")], &[0; 300]);
    assert_eq!(response.status, 400);
    let error = response.error();
    assert!(
        error.contains("does not say its shape") && error.contains("colors.encoded"),
        "{error}"
    );
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("wide");
    let model = fixture("adopt").join("wide.onnx");
    std::fs::write(folder.path().join("classes.txt"), "0 red\n1 green\n2 blue\n").unwrap();
    let classes = folder.path().join("classes.txt");
    let adopted = crate::common::protoseg([
        "adopt".as_ref(),
        model.as_os_str(),
        "--normalization".as_ref(),
        "unit".as_ref(),
        "--classes".as_ref(),
        classes.as_os_str(),
        // Images of that size alone.
        "--window".as_ref(),
        "whole".as_ref(),
        "--out".as_ref(),
        out.as_os_str(),
    ]);
    assert_eq!(adopted.status, 0, "{}", adopted.stderr);
    let server = Server::of(&out, &[]);
    let shape = server.get("/v2/models/wide").json()["inputs"][0]["shape"].clone();
    let side = |index: usize| shape[index].as_u64().unwrap() as usize;
    let (height, width) = (side(1), side(2));
    let image = stripes(width as u32, height as u32);
    let response = server.post("/v2/models/wide/infer", &[(LENGTH, "0")], &image);
    assert_eq!(labels(&response).len(), height * width);
    let wrong = server.post("/v2/models/wide/infer", &[(LENGTH, "0")], &image.as_raw()[3..]);
    assert_eq!(wrong.status, 400);
    let (body, length) = binary(&stripes(32, 32), &json!({}));
    let wrong = server.post("/v2/models/wide/infer", &[(LENGTH, &length.to_string())], &body);
    assert_eq!(wrong.status, 400, "{}", wrong.text());
    assert!(wrong.error().contains(&format!("{height}x{width}")), "{}", wrong.error());
}

#[test]
fn invalid_requests_are_refused_with_a_message() {
    let server = Server::start(&[]);
    let input = |shape: Value, datatype: &str, data: Value| json!({ "inputs": [{ "name": "image", "shape": shape, "datatype": datatype, "data": data }] });
    let black = json!(vec![0; 12]);
    for (body, said) in [
        (json!({}), "missing field `inputs`"),
        (json!([]), "not the JSON of a request"),
        (json!({ "inputs": [] }), "expected one input, `image`, and got 0"),
        (
            json!({ "inputs": [{ "name": "x", "shape": [1, 2, 2, 3], "datatype": "UINT8", "data": black }] }),
            "no input `x`",
        ),
        (
            input(json!([1, 2, 2, 3]), "FP32", black.clone()),
            "of type UINT8, and the request has FP32",
        ),
        (
            input(json!([1, 2, 2, 3]), "BYTES", json!(["aGk="])),
            "of type UINT8, and the request has BYTES",
        ),
        (input(json!([2, 2, 3]), "UINT8", black.clone()), "is [n, height, width, 3]"),
        (input(json!([1, 2, 2, 4]), "UINT8", black.clone()), "is [n, height, width, 3]"),
        (
            input(json!([1, 2, 3, 3]), "UINT8", black.clone()),
            "has 18 bytes, and the request has 12",
        ),
        (input(json!([0, 2, 2, 3]), "UINT8", json!([])), "the request has 0 images"),
        (input(json!([1, 0, 2, 3]), "UINT8", json!([])), "no pixels"),
        (input(json!([-1, 2, 2, 3]), "UINT8", black.clone()), "has the invalid shape"),
        (input(json!([1, i64::MAX, i64::MAX, 3]), "UINT8", black.clone()), "has the invalid shape"),
        (input(json!([1, 1_u64 << 40, 1, 3]), "UINT8", black.clone()), "and the request has 12"),
        (input(json!([1, 2, 2, 3]), "UINT8", json!([256])), "a number from 0 to 255"),
        (input(json!([1, 2, 2, 3]), "UINT8", json!(["a"])), "numbers from 0 to 255"),
        (
            json!({ "inputs": [{ "name": "image", "shape": [1, 2, 2, 3], "datatype": "UINT8" }] }),
            "has no data",
        ),
        (
            json!({ "inputs": [{ "name": "image", "shape": [1, 2, 2, 3], "datatype": "UINT8", "data": black }], "outputs": [{ "name": "logits" }] }),
            "no output `logits`; there are: labels, confidence",
        ),
        (
            json!({ "inputs": [{ "name": "image", "shape": [1, 2, 2, 3], "datatype": "UINT8", "data": black }], "outputs": [{ "name": "labels" }, { "name": "labels" }] }),
            "asked for twice",
        ),
    ] {
        let response = server.post(INFER, &[], body.to_string().as_bytes());
        assert_eq!(response.status, 400, "{body}: {}", response.text());
        assert!(response.error().contains(said), "{body}: {}", response.error());
    }
    let image = stripes(16, 16);
    let (body, length) = binary(&image, &json!({}));
    for (said_length, body, said) in [
        ("x".to_owned(), body.clone(), "is `x`"),
        ("-1".to_owned(), body.clone(), "is `-1`"),
        ("99999999999999999999".to_owned(), body.clone(), "and the body has"),
        ((body.len() + 1).to_string(), body.clone(), "and the body has"),
        ((length - 1).to_string(), body.clone(), "not the JSON"),
        ((length + 1).to_string(), body.clone(), "not the JSON"),
        (
            length.to_string(),
            body[..body.len() - 1].to_vec(),
            "behind the JSON, where 767 are left",
        ),
        (length.to_string(), [&body[..], b"!"].concat(), "1 bytes are left over"),
    ] {
        let response = server.post(INFER, &[(LENGTH, &said_length)], &body);
        assert_eq!(response.status, 400, "{said_length}: {}", response.text());
        assert!(response.error().contains(said), "{said_length}: {}", response.error());
    }
    let bytes = |texts: &[&str]| input(json!([texts.len()]), "BYTES", json!(texts));
    let (small, large) =
        (BASE64_STANDARD.encode(png(&image)), BASE64_STANDARD.encode(png(&stripes(32, 16))));
    for (body, said) in [
        (bytes(&["%%%"]), "is not Base64"),
        (bytes(&["aGk="]), "not an image of a known format"),
        (bytes(&[&small, &large]), "16x16 and 16x32"),
        (input(json!([1]), "BYTES", json!([1])), "as Base64, not numbers"),
        (input(json!([3]), "BYTES", json!([small])), "of shape [3] has 1 elements"),
    ] {
        let response = server.post(ENCODED, &[], body.to_string().as_bytes());
        assert_eq!(response.status, 400, "{body}: {}", response.text());
        assert!(response.error().contains(said), "{body}: {}", response.error());
    }
    let raw = server.post(ENCODED, &[(LENGTH, "0")], b"not an image");
    assert_eq!(raw.status, 400);
}
