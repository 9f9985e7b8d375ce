//! `protoseg bench` ends soon after a signal and keeps its results.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use protoseg_bench::report::BenchReport;

use crate::common::{fixture, signal};
use crate::serve::server::Server;

/// Sends a signal after a scenario has begun. Returns the exit status, the rest of the standard
/// error, and the time until the end.
fn end(arguments: &[&str], begun: &str, name: &str) -> (Option<i32>, String, Duration) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_protoseg"));
    let size =
        ["bench", "--image-size", "48x64", "--image-count", "2", "--warm-up", "1", "--no-accuracy"];
    command.args(size).args(arguments).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.trim_end().ends_with(begun) {
        line.clear();
        assert!(stderr.read_line(&mut line).unwrap() > 0, "it ended before {begun} began");
    }
    // By now it measures, or finds the signal before it does.
    std::thread::sleep(Duration::from_secs(1));
    let sent = Instant::now();
    signal(child.id(), name);
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    (child.wait().unwrap().code(), rest, sent.elapsed())
}

#[test]
fn a_long_measurement_ends_with_the_signal() {
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
            let (status, stderr, took) = end(&arguments, begun, "TERM");
            assert_eq!(status, Some(143), "{target} {scenario}: {stderr}");
            assert!(stderr.contains("stopped by a signal"), "{stderr}");
            // Long on any machine, and short beside an hour.
            assert!(took < Duration::from_secs(60), "{target} {scenario}: {took:?}");
        }
    }
}

#[test]
fn results_before_a_signal_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.json");
    let (bundle, report) = (fixture("colors").display().to_string(), path.display().to_string());
    // A thousand images are fast in a single stream, and take 50 s at 20 per second.
    let words = "--scenario single-stream,server --rate 20 --queries 1000";
    let arguments =
        [vec![bundle.as_str(), "--report", &report], words.split(' ').collect()].concat();
    let (status, stderr, _) = end(&arguments, "server at 20.00/s", "INT");
    assert_eq!(status, Some(130), "{stderr}");
    assert!(stderr.contains("the report holds what was measured until then"), "{stderr}");
    let [before, during] = &BenchReport::read(&path).unwrap().runs[0].points[..] else {
        panic!("{stderr}")
    };
    assert_eq!((before.samples.latency_ms.len(), before.failed), (1000, 0));
    // Answers until then; requests that the signal refused do not count as failures.
    let answered = during.samples.latency_ms.len();
    assert!(
        (1..1000).contains(&answered) && during.failed == 0 && during.first_error.is_none(),
        "{answered}"
    );
    assert!(
        during.unstable.as_ref().unwrap().starts_with("cut short by a signal"),
        "{:?}",
        during.unstable
    );
}
