//! Calls that are answered.

use std::io::Cursor;

use image::ImageFormat;
use tonic::Code;

use super::client::pb::model_infer_request::InferRequestedOutputTensor;
use super::client::pb::{
    InferTensorContents, ModelInferRequest, ModelMetadataRequest, ModelReadyRequest,
    RepositoryIndexRequest, RepositoryModelLoadRequest, RepositoryModelUnloadRequest,
    ServerLiveRequest, ServerMetadataRequest, ServerReadyRequest,
};
use super::client::{Server, WINDOW, framed, raw};
use crate::common::{stripe_labels, stripes};

#[tokio::test]
async fn server_and_models_have_metadata() {
    let server = Server::start(&[]);
    let mut client = server.client().await;
    assert!(client.server_live(ServerLiveRequest {}).await.unwrap().into_inner().live);
    assert!(client.server_ready(ServerReadyRequest {}).await.unwrap().into_inner().ready);
    let metadata = client.server_metadata(ServerMetadataRequest {}).await.unwrap().into_inner();
    assert_eq!(
        (metadata.name.as_str(), metadata.version.as_str()),
        ("protoseg", env!("CARGO_PKG_VERSION"))
    );
    assert_eq!(metadata.extensions, ["binary_tensor_data", "model_repository"]);
    for (name, datatype, shape) in
        [("colors", "UINT8", &[-1, -1, -1, 3][..]), ("colors.encoded", "BYTES", &[-1])]
    {
        let model = ModelMetadataRequest { name: name.to_owned(), version: String::new() };
        let metadata = client.model_metadata(model).await.unwrap().into_inner();
        assert_eq!((metadata.name.as_str(), metadata.platform.as_str()), (name, "onnx_onnxv1"));
        let input = &metadata.inputs[0];
        assert_eq!(
            (input.name.as_str(), input.datatype.as_str(), &input.shape[..]),
            ("image", datatype, shape)
        );
        let outputs: Vec<_> = metadata.outputs.iter().map(|output| output.name.as_str()).collect();
        assert_eq!(outputs, ["labels", "confidence"]);
        for version in [String::new(), metadata.versions[0].clone()] {
            let model = ModelReadyRequest { name: name.to_owned(), version };
            assert!(client.model_ready(model).await.unwrap().into_inner().ready);
        }
    }
    let index =
        client.repository_index(RepositoryIndexRequest::default()).await.unwrap().into_inner();
    assert_eq!(
        (index.models.len(), index.models[0].name.as_str(), index.models[0].state.as_str()),
        (1, "colors", "READY")
    );
}

#[tokio::test]
async fn images_are_taken_raw_typed_and_encoded() {
    let server = Server::start(&[]);
    let mut client = server.client().await;
    let (image, labels) = (stripes(48, 32), stripe_labels(48, 32));
    let pixels = image.clone().into_raw();
    let mut file = Cursor::new(Vec::new());
    image.write_to(&mut file, ImageFormat::Png).unwrap();
    let file = file.into_inner();
    let typed = |request: ModelInferRequest, contents: InferTensorContents| {
        let mut request = ModelInferRequest { raw_input_contents: Vec::new(), ..request };
        request.inputs[0].contents = Some(contents);
        request
    };
    let shape = [1, 32, 48, 3];
    let numbers = pixels.iter().map(|&byte| u32::from(byte)).collect();
    let element = [&u32::try_from(file.len()).unwrap().to_le_bytes(), &file[..]].concat();
    let requests = [
        raw("colors", "UINT8", &shape, pixels.clone()),
        typed(
            raw("colors", "UINT8", &shape, ""),
            InferTensorContents { uint_contents: numbers, ..InferTensorContents::default() },
        ),
        raw("colors.encoded", "BYTES", &[1], element),
        typed(
            raw("colors.encoded", "BYTES", &[1], ""),
            InferTensorContents {
                bytes_contents: vec![file.into()],
                ..InferTensorContents::default()
            },
        ),
    ];
    for (index, request) in requests.into_iter().enumerate() {
        let name = request.model_name.clone();
        let mut request =
            tonic::Request::new(ModelInferRequest { id: format!("id {index}"), ..request });
        request.metadata_mut().insert("x-request-id", "mine".parse().unwrap());
        let response = client.model_infer(request).await.unwrap();
        assert_eq!(response.metadata().get("x-request-id").unwrap(), "mine");
        for time in ["x-total-time", "x-queue-time", "x-inference-time", "x-stitch-time"] {
            let milliseconds: f64 =
                response.metadata().get(time).unwrap().to_str().unwrap().parse().unwrap();
            assert!(milliseconds >= 0.0, "{time}");
        }
        let answer = response.into_inner();
        assert_eq!((answer.model_name, answer.id), (name, format!("id {index}")));
        let outputs: Vec<_> =
            answer.outputs.iter().map(|output| (output.name.as_str(), &output.shape[..])).collect();
        assert_eq!(outputs, [("labels", &[1, 32, 48][..]), ("confidence", &[1, 32, 48])]);
        assert_eq!(answer.raw_output_contents[0], labels);
        assert_eq!(answer.raw_output_contents[1].len(), labels.len());
    }
    let two = [&pixels[..], &pixels].concat();
    let mut request = raw("colors", "UINT8", &[2, 32, 48, 3], two);
    request.outputs.push(InferRequestedOutputTensor { name: "labels".to_owned() });
    let answer = client.model_infer(request).await.unwrap().into_inner();
    assert_eq!((answer.outputs.len(), &answer.outputs[0].shape[..]), (1, &[2, 32, 48][..]));
    assert_eq!(answer.raw_output_contents, [[&labels[..], &labels].concat()]);
    assert_eq!(
        server.metric("protoseg_requests_total{model=\"colors\",protocol=\"grpc\",outcome=\"ok\"}"),
        5.0
    );
}

#[tokio::test]
async fn a_response_is_held_until_it_is_sent() {
    let server = Server::start(&[]);
    let side = 512;
    let pixels = stripes(side, side).into_raw();
    let request = raw("colors", "UINT8", &[1, side.into(), side.into(), 3], pixels);
    let message = prost::Message::encode_to_vec(&request);
    let call = framed(u32::try_from(message.len()).unwrap(), &message);
    let response = server.send("/inference.GRPCInferenceService/ModelInfer", call.into()).await;
    let held = || server.metric("protoseg_queue_pixels");
    // Far more than the connection buffers.
    assert!(side * side > 2 * WINDOW);
    // The permit was shrunk to labels and confidence, at ten bytes a pixel of the budget.
    assert_eq!(held(), f64::from(2 * side * side / 10));
    let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
    assert!(body.to_bytes().len() as u32 > 2 * side * side);
    server.until("the permit is released", |_| held() == 0.0);
}

#[tokio::test]
async fn models_are_loaded_and_unloaded_on_request() {
    let server = Server::start(&["--repository"]);
    let mut client = server.client().await;
    let (repository_name, model_name) = (String::new(), "colors".to_owned());
    let unload = RepositoryModelUnloadRequest {
        repository_name: repository_name.clone(),
        model_name: model_name.clone(),
    };
    client.repository_model_unload(unload).await.unwrap();
    assert!(!client.server_ready(ServerReadyRequest {}).await.unwrap().into_inner().ready);
    let error = client.model_infer(raw("colors", "UINT8", &[1, 1, 1, 3], "abc")).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error}");
    let index = RepositoryIndexRequest { ready: true, ..RepositoryIndexRequest::default() };
    assert!(client.repository_index(index).await.unwrap().into_inner().models.is_empty());
    client
        .repository_model_load(RepositoryModelLoadRequest { repository_name, model_name })
        .await
        .unwrap();
    client.model_infer(raw("colors", "UINT8", &[1, 1, 1, 3], "abc")).await.unwrap();
    let gone = RepositoryModelLoadRequest {
        model_name: "gone".to_owned(),
        ..RepositoryModelLoadRequest::default()
    };
    assert_eq!(client.repository_model_load(gone).await.unwrap_err().code(), Code::NotFound);
}
