//! Start to end: options that are refused, keys, models reloaded under load, SIGTERM and kill -9
//! under load.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::oip::{binary, png};
use super::server::{Server, named, request, send};
use crate::common::{TestDir, answer, fixture, protoseg, stripe_labels, stripes};

const LENGTH: &str = "inference-header-content-length";

#[test]
fn invalid_options_are_refused_before_anything_starts() {
    let place = TestDir::new();
    let bundle = named(&place.at("bundle"));
    let broken = TestDir::new();
    std::fs::write(broken.at("bundle/model.onnx"), "x").unwrap();
    let broken = format!("broken={}", broken.at("bundle").display());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (arguments, said) in [
        (vec!["nowhere"], "nowhere: no such bundle"),
        (vec![&bundle[..], &bundle], "would both be called"),
        (vec!["a/b=/"], "cannot be the name of a model"),
        (vec![".hidden=/"], "cannot be the name of a model"),
        (vec!["x.encoded=/"], "which means image files"),
        (vec![&broken], "model.onnx"),
        (vec![&bundle, "--http", &taken], "cannot listen on"),
        (vec![&bundle, "--max-pixels", "65000000"], "never admits"),
        (vec![&bundle, "--deadline", "0"], "'0' for '--deadline <S>': write a number above 0"),
        (vec![&bundle, "--drain", "nan"], "--drain"),
        (vec![&bundle, "--max-delay", "nan"], "--max-batch-delay-ms"),
        (vec![&bundle, "--connections", "0"], "--connections 0"),
        (vec![&bundle, "--tls-cert", "x.pem"], "--tls-key"),
        (vec![&bundle, "--tls-cert", "x.pem", "--tls-key", "y.pem"], "x.pem"),
        (vec![&bundle, "--device", "cuda:0", "--mode", "latency"], "--mode is for CPUs"),
        (vec![&bundle, "--log-level", "a=b=c"], "--log-level"),
        (vec![&bundle, "--api-key-file", "/dev/null"], "the key is empty"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_protoseg"));
        command.arg("serve").args(&arguments).env("PROTOSEG_GRPC", "off");
        if !arguments.contains(&"--http") {
            command.env("PROTOSEG_HTTP", "127.0.0.1:0");
        }
        let answer = answer(&mut command);
        assert_eq!(answer.status, 2, "{arguments:?}: {}", answer.stderr);
        assert!(answer.stderr.contains(said), "{arguments:?}: {}", answer.stderr);
    }
    let mut renamed = Command::new(env!("CARGO_BIN_EXE_protoseg"));
    let renamed = answer(renamed.args(["serve", &bundle]).env("PROTOSEG_MAX_DELAY", "nan"));
    assert!(renamed.stderr.contains("--max-batch-delay-ms"), "{}", renamed.stderr);
    let help = protoseg(["serve", "--help"]).stdout;
    assert!(
        help.contains("[env: PROTOSEG_MAX_BODY]") && help.contains("[env: PROTOSEG_THREADS]"),
        "{help}"
    );
}

#[test]
fn a_key_is_required_if_configured_and_never_logged() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_protoseg"));
    command.arg("serve").arg(fixture("colors")).args([
        "--log-format",
        "json",
        "--log-level",
        "trace",
    ]);
    command.env("PROTOSEG_API_KEY", "s3cret-word").env("PROTOSEG_MAX_BODY", "1M");
    let server = Server::with(command);
    let file = png(&stripes(16, 16));
    for path in ["/v2/health/live", "/v2/health/ready", "/metrics", "/", "/openapi.json"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    for path in ["/v2", "/v1/models", "/v2/models/colors", "/nowhere"] {
        let refused = server.get(path);
        assert_eq!((refused.status, refused.header("www-authenticate")), (401, "Bearer"), "{path}");
    }
    let with = |word: &str| {
        server.post("/v1/segment", &[("authorization", word), ("x-request-id", "mine")], &file)
    };
    assert_eq!(with("Bearer wrong").status, 401);
    let right = with("Bearer s3cret-word");
    assert_eq!((right.status, right.header("x-request-id")), (200, "mine"));
    assert_eq!(server.get("/v1/models?key=s3cret-word").status, 401);
    let logged = |line: &Value| line["span"]["id"] == "mine" && line["status"] == 200;
    let parsed = |log: &str| {
        log.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()
    };
    server.until("the request is logged", |server| parsed(&server.log()).iter().any(logged));
    let log = server.log();
    assert!(!log.replace("key=s3cret-word", "").contains("s3cret"), "{log}");
    let lines = parsed(&log);
    let line = lines.iter().find(|line| logged(line)).unwrap();
    assert_eq!((&line["span"]["path"], &line["outcome"]), (&json!("/v1/segment"), &json!("ok")));
}

/// Responses that a client got.
#[derive(Debug, Default)]
struct Seen {
    right: usize,
    /// Refused, or cut off before the first byte of a response.
    unanswered: usize,
    /// 503: the model is not ready.
    unready: usize,
    versions: Vec<String>,
}

/// Sends requests until told to stop; every response must be right.
fn ask(address: SocketAddr, stop: &AtomicBool, width: u32) -> Seen {
    let (body, length) = binary(&stripes(width, 40), &json!({ "outputs": [{ "name": "labels" }] }));
    let sent = request("POST", "/v2/models/bundle/infer", &[(LENGTH, &length.to_string())], &body);
    let mut seen = Seen::default();
    while !stop.load(Ordering::Relaxed) {
        let Ok(Some(response)) = send(address, &sent) else {
            seen.unanswered += 1;
            std::thread::sleep(Duration::from_millis(2));
            continue;
        };
        let mut answer = response.json();
        if response.status == 503 {
            assert!(response.error().contains("not ready"), "{}", response.text());
            seen.unready += 1;
            continue;
        }
        let found: Vec<u8> =
            serde_json::from_value(answer["outputs"][0]["data"].take()).unwrap_or_default();
        assert_eq!(
            (response.status, &found),
            (200, &stripe_labels(width, 40)),
            "{}",
            response.text()
        );
        let version = answer["model_version"].as_str().unwrap().to_owned();
        if seen.versions.last() != Some(&version) {
            seen.versions.push(version);
        }
        seen.right += 1;
    }
    seen
}

/// Runs clients while something happens.
fn under_load(address: SocketAddr, happens: impl FnOnce(&AtomicBool)) -> Vec<Seen> {
    let stop = AtomicBool::new(false);
    let stop = &stop;
    std::thread::scope(|scope| {
        let clients: Vec<_> =
            (0..4).map(|index| scope.spawn(move || ask(address, stop, 50 + 7 * index))).collect();
        std::thread::sleep(Duration::from_millis(300));
        happens(stop);
        stop.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    })
}

/// Makes the model another file that computes the same: with a description at its end.
fn change_file(place: &TestDir) {
    let model = place.at("bundle/model.onnx");
    // Field 6 is the description of the model.
    let other = [&std::fs::read(&model).unwrap()[..], &[0x32, 1, b'x']].concat();
    std::fs::write(model, other).unwrap();
    place.sign();
}

#[test]
fn a_bundle_is_served_as_tuned_until_it_is_replaced() {
    let place = TestDir::new();
    crate::tune::tune(&place, "", &[("window", "whole"), ("mode", "throughput")]);
    let server = Server::of(&place.at("bundle"), &[]);
    // A mode tuned for labeling says nothing of serving.
    assert!(server.log().contains("tuned: window whole ("), "{}", server.log());
    assert!(server.log().contains("cpu, latency"), "{}", server.log());
    let off = Server::of(&place.at("bundle"), &["--tuning", "off"]);
    let given = Server::of(&place.at("bundle"), &["--threads", "1"]);
    assert!(!off.log().contains("tuned"), "{}", off.log());
    assert!(given.log().contains("tuned: not used, as --threads was given"), "{}", given.log());
    place.edit("bundle/manifest.json", "\"red\"", "\"crimson\"");
    server.signal("HUP");
    server.until("the other bundle", |server| {
        server.log().contains("holds nothing for this machine")
    });
    let absent = Command::new(env!("CARGO_BIN_EXE_protoseg"))
        .args([
            "serve",
            &named(&place.at("bundle")),
            "--tuning",
            "gone.json",
            "--http",
            "127.0.0.1:0",
            "--grpc",
            "off",
        ])
        .output();
    let absent = absent.unwrap();
    assert_eq!(absent.status.code(), Some(2), "{absent:?}");
    assert!(
        String::from_utf8_lossy(&absent.stderr).contains("gone.json is not a file"),
        "{absent:?}"
    );
}

#[test]
fn models_are_reloaded_under_load_without_a_failed_request() {
    let place = TestDir::new();
    let server = Server::of(&place.at("bundle"), &["--repository"]);
    let version =
        || server.get("/v2/models/bundle").json()["versions"][0].as_str().unwrap().to_owned();
    let first = version();
    // Class names are part of the identity of a model.
    let rename = |from: &str, to: &str| {
        let path = place.at("bundle/manifest.json");
        let text = std::fs::read_to_string(&path).unwrap().replace(from, to);
        std::fs::write(path, text).unwrap();
    };
    let seen = under_load(server.address, |_| {
        rename("\"red\"", "\"crimson\"");
        let broken = server.post("/v2/repository/models/bundle/load", &[], b"");
        // The file itself still says red.
        assert_eq!(broken.status, 503, "{}", broken.text());
        assert!(broken.error().contains("describe different models"), "{}", broken.error());
        assert_eq!(version(), first);
        rename("\"crimson\"", "\"red\"");
        change_file(&place);
        for _ in 0..5 {
            assert_eq!(server.post("/v2/repository/models/bundle/load", &[], b"").status, 200);
        }
        server.signal("HUP");
        server.until("the second load", |server| server.log().matches("loaded:").count() >= 2);
        std::thread::sleep(Duration::from_millis(100));
    });
    let second = version();
    assert_ne!(first, second);
    for seen in &seen {
        assert!(seen.right > 10 && seen.unanswered + seen.unready == 0, "{seen:?}");
        assert_eq!(seen.versions, [first.clone(), second.clone()]);
    }
    assert_eq!(server.post("/v2/repository/models/bundle/unload", &[], b"").status, 200);
    assert_eq!(server.get("/v2/models/bundle/ready").status, 503);
    assert_eq!(server.get("/v2/health/ready").status, 503);
    assert_eq!(server.post("/v2/repository/index", &[], b"").json()[0]["state"], "UNAVAILABLE");
    assert_eq!(server.post("/v1/segment", &[], &png(&stripes(16, 16))).status, 503);
    assert_eq!(server.post("/v2/repository/models/bundle/load", &[], b"").status, 200);
    assert_eq!(server.get("/v2/health/ready").status, 200);
    // Without --repository the path does not exist.
    let closed = Server::of(&place.at("bundle"), &[]);
    assert_eq!(closed.post("/v2/repository/models/bundle/unload", &[], b"").status, 404);
}

#[test]
fn after_sigterm_requests_in_progress_are_answered() {
    let place = TestDir::new();
    let mut server = Server::of(&place.at("bundle"), &["--drain-delay", "0.5"]);
    let address = server.address;
    let seen = under_load(address, |stop| {
        server.signal("TERM");
        // Like a load balancer: no more requests once the server is not ready.
        let start = Instant::now();
        while send(address, &request("GET", "/v2/health/ready", &[], b"")).unwrap().unwrap().status
            == 200
        {
            assert!(start.elapsed() < Duration::from_secs(10));
        }
        stop.store(true, Ordering::Relaxed);
    });
    for seen in &seen {
        assert!(seen.right > 10 && seen.unanswered + seen.unready == 0, "{seen:?}");
    }
    assert_eq!(server.wait().code(), Some(0), "{}", server.log());
    assert!(server.log().contains("all requests were answered"), "{}", server.log());
}

#[test]
fn a_killed_server_gives_no_wrong_answers_and_can_be_replaced() {
    let place = TestDir::new();
    let mut server = Server::of(&place.at("bundle"), &[]);
    let address = server.address;
    let mut second = None;
    let seen = under_load(address, |_| {
        server.signal("KILL");
        server.wait();
        let mut command = Command::new(env!("CARGO_BIN_EXE_protoseg"));
        command.arg("serve").arg(named(&place.at("bundle"))).args(["--http", &address.to_string()]);
        second = Some(Server::with(command));
        std::thread::sleep(Duration::from_millis(300));
    });
    for seen in &seen {
        assert!(seen.right > 10 && seen.unanswered > 0, "{seen:?}");
    }
    assert!(second.unwrap().metric("protoseg_pictures_total") > 10.0);
}
