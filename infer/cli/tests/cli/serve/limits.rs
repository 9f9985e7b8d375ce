//! Requests that are too large, too slow or too many are refused, at no cost to others.

use std::io::{Read, Write};
use std::net::SocketAddr;

use serde_json::json;

use super::oip::{binary, png};
use super::server::{Response, Server, connect, request, send};
use crate::common::{stripe_labels, stripes};

const LENGTH: &str = "inference-header-content-length";

#[test]
fn large_requests_are_refused_before_they_are_read_or_decoded() {
    let server = Server::start(&[
        "--max-pixels",
        "10000",
        "--max-body",
        "100K",
        "--queue-megapixels",
        "0.02",
    ]);
    let large = server.post("/v1/segment", &[], &png(&stripes(101, 100)));
    assert_eq!(large.status, 413);
    assert!(
        large.error().contains("101x100 pixels, more than the limit of 10000"),
        "{}",
        large.error()
    );
    assert_eq!(server.post("/v1/segment", &[], &png(&stripes(100, 100))).status, 200);
    // A decompression bomb: a few bytes that claim 60000x60000 pixels.
    let mut bomb = png(&stripes(16, 16));
    bomb[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
    let crc = crc(&bomb[12..29]);
    bomb[29..33].copy_from_slice(&crc.to_be_bytes());
    let refused = server.post("/v1/segment", &[], &bomb);
    assert_eq!(refused.status, 413, "{}", refused.text());
    assert!(refused.error().contains("60000x60000"), "{}", refused.error());
    // By the head alone.
    let head = b"POST /v1/segment HTTP/1.1\r\nhost: test\r\ncontent-length: 200000\r\n\r\n";
    let refused = server.send(head).unwrap();
    assert_eq!((refused.status, refused.header("connection")), (413, "close"));
    // By the bytes that arrived, where the head says no length.
    let mut chunked =
        b"POST /v1/segment HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..40 {
        chunked.extend_from_slice(b"1000\r\n");
        chunked.extend_from_slice(&[7; 4096]);
        chunked.extend_from_slice(b"\r\n");
    }
    assert_eq!(server.send(&chunked).unwrap().status, 413);
    let (body, length) = binary(&stripes(120, 90), &json!({}));
    let refused = server.post("/v2/models/colors/infer", &[(LENGTH, &length.to_string())], &body);
    assert_eq!(refused.status, 413, "{}", refused.text());
    // More images than are ever admitted.
    let three = json!({ "inputs": [{ "name": "image", "shape": [3, 100, 100, 3], "datatype": "UINT8",
                                     "parameters": { "binary_data_size": 90_000 } }] });
    let mut body = three.to_string().into_bytes();
    let length = body.len();
    body.resize(length + 90_000, 0);
    let refused = server.post("/v2/models/colors/infer", &[(LENGTH, &length.to_string())], &body);
    assert_eq!(refused.status, 413, "{}", refused.text());
}

/// CRC-32 of a PNG chunk.
fn crc(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _: u32| if crc & 1 == 1 { 0xedb8_8320 ^ (crc >> 1) } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), step))
}

#[test]
fn a_response_holds_its_pixels_until_it_is_sent_and_others_get_a_retry_time() {
    let server = Server::start(&["--max-pixels", "1000000", "--queue-megapixels", "1.1"]);
    let image = stripes(1000, 1000);
    let (body, length) = binary(&image, &json!({}));
    let first = request("POST", "/v2/models/colors/infer", &[(LENGTH, &length.to_string())], &body);
    let mut stream = server.connect();
    stream.write_all(&first).unwrap();
    server.until("the response is encoded", |server| {
        let stage = "protoseg_stage_seconds_count{model=\"colors\",stage=\"encode\"}";
        server.metric("protoseg_queue_pixels ") > 5e5 && server.metric(stage) == 1.0
    });
    // The permit was shrunk to the response, which is smaller than the image.
    assert!(server.metric("protoseg_queue_pixels ") < 9e5);
    let small = png(&stripes(800, 800));
    for path in ["/v1/segment", "/v2/models/colors.encoded/infer"] {
        let refused = server.post(path, &[(LENGTH, "0")], &small);
        assert_eq!(refused.status, 429, "{path}: {}", refused.text());
        let retry: u64 = refused.header("retry-after").parse().unwrap();
        assert!(
            (1..=30).contains(&retry) && refused.error().contains(&format!("in {retry} s")),
            "{}",
            refused.error()
        );
    }
    // Small images are still admitted.
    assert_eq!(server.post("/v1/segment", &[], &png(&stripes(100, 100))).status, 200);
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = Response::parse(&answer).unwrap().json();
    let expected = stripe_labels(1000, 1000);
    let found = answer["outputs"][0]["data"].as_array().unwrap();
    assert!(
        found
            .iter()
            .zip(&expected)
            .all(|(found, expected)| found.as_u64() == Some(u64::from(*expected)))
    );
    server.until("the permit is released", |server| server.metric("protoseg_queue_pixels ") == 0.0);
    assert_eq!(server.post("/v1/segment", &[], &small).status, 200);
}

#[test]
fn images_that_would_miss_the_deadline_are_refused_at_once() {
    let server = Server::start(&["--deadline", "1"]);
    // A file of a few kilobytes, whose windows have seventy times its pixels.
    let thin = png(&image::RgbImage::new(1, 6_000_000));
    let small = png(&stripes(64, 48));
    for _ in 0..2 {
        let refused = server.post("/v1/segment", &[], &thin);
        assert_eq!(refused.status, 413, "{}", refused.text());
        assert!(refused.error().contains("takes this server about"), "{}", refused.error());
        assert_eq!(server.post("/v1/segment", &[], &small).status, 200);
    }
    assert_eq!(server.metric("protoseg_pictures_total{"), 2.0);
}

#[test]
fn announced_lengths_take_no_memory() {
    let server = Server::start(&[]);
    let head = b"POST /v1/segment HTTP/1.1\r\nhost: test\r\ncontent-length: 60000000\r\n\r\n";
    let silent: Vec<_> = (0..8)
        .map(|_| {
            let mut stream = server.connect();
            stream.write_all(head).unwrap();
            stream
        })
        .collect();
    server.until("all are connected", |server| server.metric("protoseg_connections ") == 9.0);
    assert_eq!(server.post("/v1/segment", &[], &png(&stripes(64, 48))).status, 200);
    drop(silent);
}

#[test]
fn json_that_would_expand_is_refused_with_a_short_message() {
    let server = Server::start(&[]);
    let many = |entry: &str, count: usize| vec![entry; count].join(",");
    let input = |shape: &str, data: &str| {
        format!(
            r#"{{"inputs":[{{"name":"image","datatype":"BYTES","shape":[{shape}],"data":[{data}]}}]}}"#
        )
    };
    for (body, said) in [
        (input("1", &many("\"\"", 300_000)), "more than 256 strings"),
        (input(&many("1", 300_000), "1"), "a list of more than 8"),
        (
            format!(
                r#"{{"inputs":[{}]}}"#,
                many("{\"name\":\"a\",\"shape\":[],\"datatype\":\"\"}", 100_000)
            ),
            "more than 16",
        ),
        (
            format!(r#"{{"id":"{}","inputs":[]}}"#, "x".repeat(100_000)),
            "the id has more than 1024 bytes",
        ),
        (
            format!(
                r#"{{"inputs":[{{"name":"{}","shape":[1],"datatype":"BYTES","data":[]}}]}}"#,
                "x".repeat(100_000)
            ),
            "xxx…",
        ),
    ] {
        let refused = server.post("/v2/models/colors.encoded/infer", &[], body.as_bytes());
        assert_eq!(refused.status, 400, "{}", refused.text());
        let error = refused.error();
        assert!(error.contains(said) && error.len() < 600, "{said}: {error}");
    }
    let coded = server.post("/v1/segment", &[("content-encoding", "gzip")], b"x");
    assert!(
        coded.status == 400 && coded.error().contains("unsupported content coding `gzip`"),
        "{}",
        coded.text()
    );
}

#[test]
fn slow_clients_are_disconnected() {
    let server =
        Server::start(&["--head-timeout", "0.3", "--body-timeout", "0.3", "--connections", "3"]);
    // All connections that there may be: were they kept, nobody else would be answered.
    let mut slow: Vec<_> = (0..3).map(|_| server.connect()).collect();
    slow[0].write_all(b"POST /v1/segment HT").unwrap();
    slow[1]
        .write_all(b"POST /v1/segment HTTP/1.1\r\nhost: test\r\ncontent-length: 100\r\n\r\nabc")
        .unwrap();
    let mut answers = slow.into_iter().map(|mut stream| {
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer));
        answer
    });
    drop(answers.next());
    let body = Response::parse(&answers.next().unwrap()).unwrap();
    assert_eq!(body.status, 408);
    assert!(body.error().contains("within 0.3 s"), "{}", body.error());
    assert!(answers.next().unwrap().is_empty());
    assert_eq!(server.get("/v2/health/live").status, 200);
    server.until("connections are closed", |server| server.metric("protoseg_connections ") == 1.0);
}

#[test]
fn probes_are_answered_when_all_connections_are_taken_and_while_draining() {
    let mut server = Server::start(&["--connections", "1", "--probes", "127.0.0.1:0"]);
    let log = server.log();
    let probes = log
        .split("health and metrics on http://")
        .nth(1)
        .and_then(|rest| rest.split_whitespace().next());
    let probes: SocketAddr = probes.unwrap().parse().unwrap();
    let get = |path: &str| send(probes, &request("GET", path, &[], b"")).unwrap().unwrap();
    // The only connection that there may be.
    let mut only = server.connect();
    only.write_all(b"POST /v1/segment HTTP/1.1\r\nhost: test\r\ncontent-length: 100\r\n\r\nabc")
        .unwrap();
    let metric = |name: &str| get("/metrics").text().lines().any(|line| line == name);
    server.until("it is connected", |_| metric("protoseg_connections 2"));
    assert_eq!((get("/v2/health/live").status, get("/v2/health/ready").status), (200, 200));
    let elsewhere = get("/v1/models");
    assert_eq!(elsewhere.status, 404);
    assert!(
        elsewhere.error().ends_with("see /metrics, /v2/health/live and /v2/health/ready"),
        "{elsewhere:?}"
    );
    // While draining, too, when no other connection is accepted.
    server.signal("TERM");
    server.until("the socket is closed", |server| connect(server.address).is_err());
    assert_eq!((get("/v2/health/live").status, get("/v2/health/ready").status), (200, 503));
    drop(only);
    assert_eq!(server.wait().code(), Some(0), "{}", server.log());
}
