//! `protoseg bench`: refusals, reports, number of requests in this process and of a server, and
//! servers that misbehave.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use protoseg_bench::report::{BenchReport, ScenarioResult};

use super::common::{ProgramOutput, TestDir, answer, expect, fixture, protoseg, stripes};
use super::serve::server::Server;

/// Images of two windows, and few queries.
const QUICK: &str = "--image-size 48x64 --image-count 2 --queries 3 --warm-up 1";

/// Runs the command with the fixture `colors` for `BUNDLE`.
fn bench(words: &str) -> ProgramOutput {
    let bundle = fixture("colors").display().to_string();
    let words =
        words.split_whitespace().map(|word| if word == "BUNDLE" { bundle.as_str() } else { word });
    protoseg(std::iter::once("bench").chain(words))
}

fn report(words: &str) -> BenchReport {
    let answer = bench(&format!("{words} --json"));
    assert_eq!(answer.status, 0, "{words}: {answer:?}");
    serde_json::from_str(&answer.stdout).unwrap()
}

fn points(words: &str) -> Vec<ScenarioResult> {
    report(words).runs.into_iter().flat_map(|run| run.points).collect()
}

#[test]
fn unusable_arguments_are_refused_with_the_way_out() {
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = format!("--url http://{unused}");
    let cases: [(&str, &[&str]); 18] = [
        ("BUNDLE --sweep thread=1,2", &["unknown engine option `thread`", "threads"]),
        ("BUNDLE --sweep threads=1,0", &["from 1 to 1024"]),
        (
            "BUNDLE --against BUNDLE --against-set threads=1,2",
            &["--against-set gives an option one value"],
        ),
        ("BUNDLE --against BUNDLE --scenario server", &["does not support the server scenario"]),
        (
            "BUNDLE --against BUNDLE --scenario server --rate 5",
            &["does not support the server scenario"],
        ),
        ("BUNDLE --time 0", &["--time: 0 s", "--queries"]),
        ("BUNDLE --image-count 0", &["--image-count", "from 1 to 4096"]),
        ("BUNDLE --images nowhere", &["nowhere"]),
        ("no-bundle", &["no-bundle"]),
        (&nobody, &["does not answer", &unused.to_string()]),
        (
            "--url https://127.0.0.1:1",
            &["https://127.0.0.1:1 is not the address", "http://HOST:PORT", "TLS"],
        ),
        ("--url 127.0.0.1:8000", &["is not the address of a server"]),
        ("--url http://127.0.0.1:1 --timeout 0", &["--timeout"]),
        ("--url http://127.0.0.1:1 --threads 2", &["a server has its own options"]),
        (
            "BUNDLE --sweep threads=1 --sweep threads=2",
            &["threads is given twice", "threads=VALUE,VALUE"],
        ),
        ("BUNDLE --model m", &["--model is for a server", "--url"]),
        ("BUNDLE --timeout 3", &["--timeout is for a server", "--url"]),
        ("BUNDLE --no-accuracy --limit 2", &["--limit", "--data"]),
    ];
    for (words, parts) in cases {
        let size = if words.contains("--images") { "" } else { "--image-size 32x32" };
        expect(words, &bench(&format!("{words} {size}")), 2, parts);
    }
    // Refused by clap, with its usage.
    let cases = [
        ("", "<BUNDLE>"),
        ("BUNDLE --rate 0 --scenario server", "a share of the capacity"),
        ("BUNDLE --rate many%", "a share of the capacity"),
        ("BUNDLE --sweep threads", "OPTION=VALUE"),
        ("BUNDLE --against BUNDLE --sweep threads=1,2", "cannot be used with"),
        ("BUNDLE --against-set threads=1", "--against"),
        ("BUNDLE --url http://127.0.0.1:1", "cannot be used with"),
        ("BUNDLE --queries 0", "1"),
        ("BUNDLE --queries 3 --time 3", "cannot be used with"),
        ("BUNDLE --scenario fast", "single-stream"),
    ];
    for (words, part) in cases {
        let answer = bench(words);
        assert!(answer.status == 2 && answer.stderr.contains(part), "{words}: {answer:?}");
    }
}

#[test]
fn reports_hold_every_sample_and_the_subject() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.json");
    let report =
        report(&format!("BUNDLE {QUICK} --scenario single-stream --report {}", path.display()));
    assert_eq!(BenchReport::read(&path).unwrap(), report);
    let [run] = &report.runs[..] else { panic!("{report:?}") };
    let subject = &run.subject;
    assert_eq!(
        (subject.name.as_str(), subject.file.as_deref(), subject.windows),
        ("colors", Some("model.onnx"), Some(2))
    );
    assert_eq!((subject.images.height, subject.images.width, subject.images.count), (48, 64, 2));
    assert_eq!(subject.accuracy.probe_agreement, Some(1.0));
    let [point] = &run.points[..] else { panic!("{run:?}") };
    assert_eq!((point.samples.latency_ms.len(), point.warm_up.queries, point.failed), (3, 1, 0));
    for (index, latency) in point.samples.latency_ms.iter().enumerate() {
        let parts: f64 = point.samples.stages.iter().map(|stage| stage.ms[index]).sum();
        assert!(parts <= *latency && *latency <= 1e3 * point.seconds, "{point:?}");
    }
}

#[test]
fn reports_never_overwrite_the_model_and_one_failed_file_costs_no_other() {
    let place = TestDir::new();
    let run = |options: &str| {
        answer(&mut place.command(&format!("bench bundle {QUICK} --no-accuracy {options}")))
    };
    let manifest = std::fs::read(place.at("bundle/manifest.json")).unwrap();
    for option in ["--report", "--html", "--csv"] {
        for file in ["bundle/manifest.json", "bundle/new.json"] {
            let refused = run(&format!("{option} {file}"));
            expect(
                option,
                &refused,
                2,
                &[&format!("{file} lies in what is measured"), "name another"],
            );
        }
    }
    assert!(!place.at("bundle/new.json").exists());
    assert_eq!(std::fs::read(place.at("bundle/manifest.json")).unwrap(), manifest);
    // Creating a file there fails only when it is written.
    let given =
        run("--scenario single-stream --report /proc/report.json --csv a.csv --html a.html");
    assert_eq!(given.status, 1, "{given:?}");
    assert!(given.stderr.contains("/proc/report.json"), "{given:?}");
    assert!(place.at("a.csv").is_file() && place.at("a.html").is_file());
}

#[test]
fn combinations_are_measured_in_order() {
    let scenarios = "--scenario offline,single-stream,multi-stream,clients --samples 2,3 --clients 2 --no-accuracy";
    let report =
        report(&format!("BUNDLE {QUICK} {scenarios} --sweep batch=1,2 --sweep threads=2,1"));
    let names: Vec<&str> = report.runs.iter().map(|run| run.subject.name.as_str()).collect();
    let expected =
        ["batch 1, threads 2", "batch 1, threads 1", "batch 2, threads 2", "batch 2, threads 1"];
    assert_eq!(names, expected.map(|name| format!("colors, {name}")));
    for run in &report.runs {
        let scenarios: Vec<String> =
            run.points.iter().map(|point| point.scenario.to_string()).collect();
        assert_eq!(
            scenarios,
            ["offline", "single-stream", "multi-stream of 2", "multi-stream of 3", "clients 2"]
        );
        assert!(run.subject.accuracy.probe_agreement.is_none());
        assert_eq!(run.points[1].threads, run.subject.options["threads"].parse().ok());
    }
}

#[test]
fn the_number_of_queries_is_exact() {
    let scenarios =
        "--scenario single-stream,multi-stream,clients,offline,server --rate 200,50% --no-accuracy";
    for (queries, end_to_end) in [(1, ""), (7, "--end-to-end")] {
        let quick = QUICK.replace("--queries 3", &format!("--queries {queries}"));
        let points = points(&format!("BUNDLE {quick} {scenarios} {end_to_end}"));
        assert_eq!(points.len(), 6);
        for point in points {
            assert_eq!(
                (point.samples.due_ms.len(), point.failed),
                (queries, 0),
                "{}",
                point.scenario
            );
            let images = (queries * point.scenario.images_per_query()) as f64;
            assert!(
                (point.images_per_second * point.seconds / images - 1.0).abs() < 1e-9,
                "{}",
                point.scenario
            );
            let encoded = point.samples.stages.iter().any(|stage| stage.name == "encode");
            assert_eq!(encoded, !end_to_end.is_empty(), "{}", point.scenario);
        }
    }
}

#[test]
fn interleaved_subjects_are_both_reported() {
    let report = report(&format!(
        "BUNDLE --against BUNDLE --against-set threads=1 --pairs 8 --no-accuracy {QUICK}"
    ));
    let names: Vec<&str> = report.runs.iter().map(|run| run.subject.name.as_str()).collect();
    assert_eq!(names, ["colors", "colors, threads 1"]);
    let scenarios: Vec<String> =
        report.against.iter().map(|against| against.scenario.to_string()).collect();
    assert_eq!(scenarios, ["single-stream", "offline"]);
    assert!(
        report
            .against
            .iter()
            .all(|against| against.blocks.len() == 16 && against.ratio.interval.is_some())
    );
}

#[test]
fn servers_are_measured_by_protocol_and_with_files() {
    let server = Server::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    stripes(64, 48).save(folder.path().join("a.png")).unwrap();
    let images = format!("--images {}", folder.path().display());
    for end_to_end in ["", "--end-to-end"] {
        let url = format!("--url http://{}/ --model colors {end_to_end}", server.address);
        let words = format!(
            "{url} {images} --scenario single-stream,clients --clients 3 --queries 6 --warm-up 2"
        );
        let before = server.metric("protoseg_windows_total");
        let report = report(&words);
        let [run] = &report.runs[..] else { panic!("{report:?}") };
        assert!(run.subject.model.starts_with("colors") && run.subject.url.is_some());
        for point in &run.points {
            assert_eq!((point.samples.due_ms.len(), point.failed), (6, 0), "{end_to_end}");
            let names: Vec<&str> =
                point.samples.stages.iter().map(|stage| stage.name.as_str()).collect();
            assert_eq!(names, ["wait", "receive"]);
        }
        // Two windows per image. The warm-up takes two queries, or three of the clients that begin
        // together.
        let requested = (server.metric("protoseg_windows_total") - before) / 2.0;
        assert!((16.0..=17.0).contains(&requested), "{requested}");
    }
    expect(
        "a model",
        &bench(&format!("--url http://{} --model none {QUICK}", server.address)),
        2,
        &["none", "404"],
    );
    let answer = bench(&format!("--url http://{}/elsewhere {QUICK}", server.address));
    expect("a path", &answer, 2, &["/elsewhere/v2/repository/index", "404"]);
}

/// A canned response.
#[derive(Clone)]
struct CannedResponse {
    status: u16,
    /// Number of bytes of JSON, where tensors follow.
    json: Option<usize>,
    body: String,
}

impl CannedResponse {
    fn new(status: u16, body: &str) -> Self {
        Self { status, json: None, body: body.to_owned() }
    }
}

/// A server that answers by path and number of the connection; `None` closes it.
fn fake(answer: impl Fn(&str, usize) -> Option<CannedResponse> + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().map_while(Result::ok).enumerate() {
            let Some(path) = read_request(&stream) else { continue };
            if let Some(CannedResponse { status, json, body }) = answer(&path, number) {
                let json =
                    json.map(|length| format!("inference-header-content-length: {length}\r\n"));
                let (json, length) = (json.unwrap_or_default(), body.len());
                let head = format!(
                    "HTTP/1.1 {status} -\r\nconnection: close\r\n{json}content-length: {length}\r\n\r\n"
                );
                drop((&stream).write_all(format!("{head}{body}").as_bytes()));
            }
        }
    });
    address
}

/// Reads a request and returns its path.
fn read_request(stream: &TcpStream) -> Option<String> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let (mut length, mut line) = (0, String::new());
    while reader.read_line(&mut line).ok()? > 2 {
        let header = line.to_ascii_lowercase();
        length = header
            .strip_prefix("content-length:")
            .map_or(length, |value| value.trim().parse().unwrap());
        line.clear();
    }
    reader.read_exact(&mut vec![0; length]).ok()?;
    first.split(' ').nth(1).map(ToOwned::to_owned)
}

const INDEX: &str = r#"[{"name": "m", "version": "1", "state": "READY"}]"#;
const METADATA: &str = r#"{"name": "m", "versions": ["1"],
    "inputs": [{"name": "image", "datatype": "UINT8", "shape": [-1, -1, -1, 3]}],
    "outputs": [{"name": "labels", "datatype": "UINT8", "shape": [-1, -1, -1]}]}"#;

/// A server with valid metadata of a model.
fn described(answer: impl Fn(usize) -> Option<CannedResponse> + Send + 'static) -> SocketAddr {
    fake(move |path, number| match path {
        "/v2/repository/index" => Some(CannedResponse::new(200, INDEX)),
        "/v2/models/m" => Some(CannedResponse::new(200, METADATA)),
        _ => answer(number),
    })
}

#[test]
fn servers_without_a_usable_model_are_refused() {
    let run = |index: &'static str, metadata: &'static str| {
        let address = fake(move |path, _| {
            Some(CannedResponse::new(
                200,
                if path == "/v2/repository/index" { index } else { metadata },
            ))
        });
        bench(&format!("--url http://{address} {QUICK}"))
    };
    let floats: &str = r#"{"name": "m", "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 3, -1, -1]}]}"#;
    let scores: &str = r#"{"name": "m", "inputs": [{"name": "image", "datatype": "UINT8", "shape": [-1, -1, 3]}],
        "outputs": [{"name": "scores", "datatype": "FP32"}]}"#;
    expect(
        "a page",
        &run("<html>", ""),
        2,
        &["does not answer as the Open Inference Protocol does"],
    );
    expect("no model", &run("[]", ""), 2, &["no model that is ready"]);
    expect("floats", &run(INDEX, floats), 2, &["the model m", "does not take images", "FP32"]);
    expect("scores", &run(INDEX, scores), 2, &["gives no labels", "scores"]);
    let error = fake(|_, _| Some(CannedResponse::new(503, "tomorrow")));
    expect(
        "an error",
        &bench(&format!("--url http://{error} {QUICK}")),
        2,
        &["status 503", "tomorrow"],
    );
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("--url http://{} --patience 0.2", silent.local_addr().unwrap());
    expect("silence", &bench(&format!("{url} {QUICK}")), 2, &["does not answer", "within 0.2 s"]);
}

#[test]
fn invalid_responses_are_failures_and_no_valid_response_is_an_error() {
    let answers: [(Option<(u16, &str)>, &str); 4] = [
        (Some((500, "broken")), "status 500: broken"),
        (Some((200, "<html>a page</html>")), "no tensors of bytes"),
        (Some((200, "")), "no tensors of bytes"),
        (None, "connection closed"),
    ];
    for (answer, why) in answers {
        for scenario in ["single-stream", "clients", "offline", "multi-stream"] {
            let address =
                described(move |_| answer.map(|(status, body)| CannedResponse::new(status, body)));
            let found = bench(&format!("--url http://{address} {QUICK} --scenario {scenario}"));
            assert_eq!((found.status, found.stdout.as_str()), (1, ""), "{scenario} {found:?}");
            let error = found.stderr.lines().last().unwrap();
            assert!(
                error.starts_with("error: http://") && error.contains(": no query was answered: "),
                "{found:?}"
            );
            assert!(error.contains(why), "{found:?}");
        }
    }
}

#[test]
fn some_failures_are_counted_and_reported() {
    let head = r#"{"outputs": [{"name": "labels", "parameters": {"binary_data_size": 3072}}]}"#;
    let labels = CannedResponse {
        status: 200,
        json: Some(head.len()),
        body: format!("{head}{}", "\0".repeat(48 * 64)),
    };
    // The first two requests are for metadata, the third warms up.
    let address = described(move |number| {
        Some(if number % 10 == 7 { CannedResponse::new(503, "busy") } else { labels.clone() })
    });
    let words =
        format!("--url http://{address} --image-size 48x64 --image-count 1 --warm-up 1 --json");
    let found = bench(&format!("{words} --scenario server --rate 50 --queries 20"));
    assert_eq!(found.status, 3, "{found:?}");
    let report: BenchReport = serde_json::from_str(&found.stdout).unwrap();
    let point = &report.runs[0].points[0];
    assert_eq!((point.samples.due_ms.len(), point.failed), (18, 2));
    assert_eq!(point.first_error.as_deref(), Some("status 503: busy"));
}
