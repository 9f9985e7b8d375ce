//! `protoseg bench` ends soon after a signal, however long it was to measure, and keeps what it had.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use protoseg_bench::report::BenchReport;

use crate::common::{fixture, signal};
use crate::serve::server::Server;

/// Sends a signal once a scenario has begun, and returns the exit status, what was said after, and how long that took.
fn end(arguments: &[&str], begun: &str, name: &str) -> (Option<i32>, String, Duration) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_protoseg"));
    let size = [
        "bench",
        "--picture-size",
        "48x64",
        "--picture-count",
        "2",
        "--warm-up",
        "1",
        "--no-accuracy",
    ];
    command.args(size).args(arguments).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.trim_end().ends_with(begun) {
        line.clear();
        assert!(said.read_line(&mut line).unwrap() > 0, "it ended before {begun} began");
    }
    // It is at work by then, or will find the signal before it is.
    std::thread::sleep(Duration::from_secs(1));
    let sent = Instant::now();
    signal(child.id(), name);
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    (child.wait().unwrap().code(), rest, sent.elapsed())
}

#[test]
fn a_measurement_of_an_hour_ends_with_the_signal() {
    let bundle = fixture("colors").display().to_string();
    let server = Server::start(&[]);
    let url = format!("--url=http://{}", server.address);
    for target in [&bundle, &url] {
        for (scenario, begun) in [
            ("single-stream", "single-stream"),
            ("offline", "offline"),
            ("server", "server at 20.00/s"),
        ] {
            let mut arguments = vec![target.as_str(), "--scenario", scenario, "--time", "3600"];
            if scenario == "server" {
                arguments.extend(["--rate", "20"]);
            }
            let (status, said, took) = end(&arguments, begun, "TERM");
            assert_eq!(status, Some(143), "{target} {scenario}: {said}");
            assert!(said.contains("stopped by a signal"), "{said}");
            // A minute is long on any machine, and short beside an hour.
            assert!(took < Duration::from_secs(60), "{target} {scenario}: {took:?}");
        }
    }
}

#[test]
fn what_was_measured_before_a_signal_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.json");
    let (bundle, report) = (fixture("colors").display().to_string(), path.display().to_string());
    // A thousand pictures are soon done one after the other, and not where twenty come in a second.
    let words = "--scenario single-stream,server --rate 20 --queries 1000";
    let arguments =
        [vec![bundle.as_str(), "--report", &report], words.split(' ').collect()].concat();
    let (status, said, _) = end(&arguments, "server at 20.00/s", "INT");
    assert_eq!(status, Some(130), "{said}");
    assert!(said.contains("the report holds what was measured until then"), "{said}");
    let [before, during] = &BenchReport::read(&path).unwrap().runs[0].points[..] else {
        panic!("{said}")
    };
    assert_eq!((before.samples.latency_ms.len(), before.failed), (1000, 0));
    // What came until then, and nothing that the signal kept from being answered.
    let came = during.samples.latency_ms.len();
    assert!(
        (1..1000).contains(&came) && during.failed == 0 && during.first_error.is_none(),
        "{came}"
    );
    assert!(
        during.unstable.as_ref().unwrap().starts_with("cut short by a signal"),
        "{:?}",
        during.unstable
    );
}
