//! Calls that are refused, each with its code, a message and a pushback.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream::{StreamExt, iter, pending};
use tonic::{Code, Status};

use super::client::pb::model_infer_request::InferRequestedOutputTensor;
use super::client::pb::{
    InferTensorContents, ModelInferRequest, RepositoryModelLoadRequest, ServerMetadataRequest,
    ServerReadyRequest,
};
use super::client::{Server, framed, raw};

const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";

fn expect(row: &str, error: &Status, code: Code, part: &str) {
    assert_eq!(error.code(), code, "{row}: {error}");
    assert!(error.message().contains(part), "{row}: `{part}` is not in {}", error.message());
}

#[tokio::test]
async fn every_error_has_its_code_and_a_message() {
    let server = Server::start(&["--max-pixels", "10000"]);
    let mut client = server.client().await;
    let right = || raw("colors", "UINT8", &[1, 1, 1, 3], "abc");
    let output = |name: &str| InferRequestedOutputTensor { name: name.to_owned() };
    let mut both = right();
    both.inputs[0].contents =
        Some(InferTensorContents { uint_contents: vec![1], ..InferTensorContents::default() });
    let many = (0..5000).map(|_| output("labels")).collect();
    let rows = [
        (raw("gone", "UINT8", &[1, 1, 1, 3], "abc"), Code::NotFound, "there are: colors"),
        (
            ModelInferRequest { model_version: "7".to_owned(), ..right() },
            Code::NotFound,
            "and no other",
        ),
        (raw("colors", "FP32", &[1, 1, 1, 3], "abc"), Code::InvalidArgument, "UINT8"),
        (
            raw("colors", "UINT8", &[1, 1, 2, 3], "abc"),
            Code::InvalidArgument,
            "6 bytes, and the request has 3",
        ),
        (raw("colors", "UINT8", &[1, -1, 1, 3], "abc"), Code::InvalidArgument, "[1, -1, 1, 3]"),
        (
            raw("colors.encoded", "BYTES", &[1], "abc"),
            Code::InvalidArgument,
            "the middle of an element",
        ),
        (
            raw("colors.encoded", "BYTES", &[1], &b"\x01\0\0\0a"[..]),
            Code::InvalidArgument,
            "cannot decode the image",
        ),
        (
            raw("colors", "UINT8", &[1, 101, 100, 3], vec![0; 30300]),
            Code::ResourceExhausted,
            "100x101 pixels",
        ),
        (
            ModelInferRequest { outputs: vec![output("depth")], ..right() },
            Code::InvalidArgument,
            "no output `depth`",
        ),
        (
            ModelInferRequest { outputs: many, ..right() },
            Code::InvalidArgument,
            "more than 4096 fields",
        ),
        (
            ModelInferRequest { raw_input_contents: Vec::new(), ..right() },
            Code::InvalidArgument,
            "has no elements",
        ),
        (both, Code::InvalidArgument, "contents and raw_input_contents"),
    ];
    for (row, (request, code, part)) in rows.into_iter().enumerate() {
        let error = client.model_infer(request).await.unwrap_err();
        expect(&row.to_string(), &error, code, part);
        let pushback =
            error.metadata().get("grpc-retry-pushback-ms").map(|value| value.to_str().unwrap());
        assert_eq!(pushback, (code == Code::ResourceExhausted).then_some("-1"), "{row}");
    }
    let load =
        client.repository_model_load(RepositoryModelLoadRequest::default()).await.unwrap_err();
    expect("load", &load, Code::Unimplemented, "--repository");
    // The connection is still good.
    client.model_infer(right()).await.unwrap();
    let count = |outcome: &str, model: &str| {
        server.metric(&format!(
            "protoseg_requests_total{{model=\"{model}\",protocol=\"grpc\",outcome=\"{outcome}\"}}"
        ))
    };
    assert_eq!(
        (count("unknown", ""), count("too_large", "colors"), count("invalid", "")),
        (2.0, 1.0, 1.0)
    );

    for (path, body, code) in [
        (INFER, framed(2, &[0x2a, 5]), "3"),
        (INFER, framed(9, &[]), "13"),
        ("/inference.GRPCInferenceService/ModelStatistics", framed(0, &[]), "12"),
        ("/other.Service/Call", framed(0, &[]), "12"),
    ] {
        let response = server.send(path, body.into()).await;
        assert_eq!(response.headers()["grpc-status"], code, "{path}");
        assert!(!response.headers()["grpc-message"].is_empty(), "{path}");
    }
}

#[tokio::test]
async fn a_key_is_required() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("key");
    std::fs::write(&file, "s3cret\n").unwrap();
    let server = Server::start(&["--api-key-file", file.to_str().unwrap()]);
    let mut client = server.client().await;
    for (key, opens) in
        [(None, false), (Some("Bearer other"), false), (Some("Bearer s3cret"), true)]
    {
        let mut metadata = tonic::Request::new(ServerMetadataRequest {});
        let mut infer = tonic::Request::new(raw("colors", "UINT8", &[1, 1, 1, 3], "abc"));
        for metadata in [metadata.metadata_mut(), infer.metadata_mut()] {
            key.map(|key| metadata.insert("authorization", key.parse().unwrap()));
        }
        let answers = [
            client.server_metadata(metadata).await.map(drop),
            client.model_infer(infer).await.map(drop),
        ];
        for answer in answers {
            match answer {
                Ok(()) => assert!(opens, "{key:?}"),
                Err(error) => expect(
                    "key",
                    &error,
                    if opens { Code::Ok } else { Code::Unauthenticated },
                    "Bearer KEY",
                ),
            }
        }
    }
    client.server_ready(ServerReadyRequest {}).await.unwrap();
    let mut health = tonic_health::pb::health_client::HealthClient::with_origin(
        server.connect().await,
        server.origin(),
    );
    health.check(tonic_health::pb::HealthCheckRequest::default()).await.unwrap();
}

/// A body that announces its length, and never arrives.
fn endless(length: u32) -> Body {
    let head = iter([Ok::<_, std::io::Error>(Bytes::from(framed(length, &[])))]);
    Body::from_stream(head.chain(pending()))
}

#[tokio::test]
async fn permits_are_taken_before_a_message_is_read() {
    let most = 1 << 20;
    let server = Server::start(&["--max-body", "1M", "--body-timeout", "2"]);
    let refused = server.send(INFER, endless(most - 4)).await;
    assert_eq!(
        (&refused.headers()["grpc-status"], &refused.headers()["grpc-retry-pushback-ms"]),
        (&"8".parse().unwrap(), &"-1".parse().unwrap())
    );
    let small = server.send("/inference.GRPCInferenceService/ModelReady", endless(1 << 16)).await;
    assert_eq!(small.headers()["grpc-status"], "8");

    // As many as fit the budget; one more is told to retry.
    let open = || server.send(INFER, endless(most - 5));
    let all = futures_util::future::join_all((0..5).map(|_| open())).await;
    let codes = |code: &str| {
        all.iter().filter(|response| response.headers()["grpc-status"] == code).count()
    };
    assert_eq!((codes("8"), codes("4")), (1, 4));
    let busy = all.iter().find(|response| response.headers()["grpc-status"] == "8").unwrap();
    assert!(
        busy.headers().contains_key("retry-after")
            && busy.headers()["grpc-retry-pushback-ms"] != "-1"
    );
    let answered =
        server.client().await.model_infer(raw("colors", "UINT8", &[1, 1, 1, 3], "abc")).await;
    answered.unwrap();
}

#[tokio::test]
async fn the_clients_timeout_is_kept() {
    let server = Server::start(&[]);
    let side = 2000;
    let mut request =
        tonic::Request::new(raw("colors", "UINT8", &[1, side, side, 3], vec![9; 12_000_000]));
    request.set_timeout(Duration::from_millis(1));
    let error = server.client().await.model_infer(request).await.unwrap_err();
    expect("timeout", &error, Code::DeadlineExceeded, "no answer within 0.001 s");
    server.until("its image is dropped", |server| server.metric("protoseg_queue_pixels") == 0.0);
}
