//! A server started by a test, and a client that sends exactly the bytes it is given.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::fixture;

/// Timeout of everything: a test fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Server {
    /// Serves the fixture `colors`.
    pub(crate) fn start(options: &[&str]) -> Self {
        Self::of(&fixture("colors"), options)
    }

    /// Serves a bundle under the name of its folder, and waits until it is ready.
    pub(crate) fn of(bundle: &Path, options: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_protoseg"));
        command.arg("serve").arg(named(bundle)).args(options);
        Self::with(command)
    }

    /// Runs a `serve` command.
    pub(crate) fn with(mut command: Command) -> Self {
        command.env("PROTOSEG_HTTP", "127.0.0.1:0").env("PROTOSEG_GRPC", "off");
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = Arc::new(Mutex::new(String::new()));
        let mut address = None;
        for line in lines.by_ref().map_while(Result::ok) {
            log.lock().unwrap().push_str(&format!("{line}\n"));
            if let Some((_, after)) = line.split_once("listening on http") {
                let end = after
                    .find(|letter: char| letter == '"' || letter.is_whitespace())
                    .unwrap_or(after.len());
                address = Some(
                    after[..end].trim_start_matches("s").trim_start_matches("://").parse().unwrap(),
                );
            }
            if line.ends_with("ready") || line.contains("\"ready\"") {
                break;
            }
        }
        let more = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                more.lock().unwrap().push_str(&format!("{line}\n"));
            }
        });
        let Some(address) = address else { panic!("no server: {}", log.lock().unwrap()) };
        Self { address, child, log }
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Waits for the process to end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "the server does not end: {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        connect(self.address).unwrap()
    }

    /// Sends bytes, and reads what comes until the server closes.
    pub(crate) fn send(&self, bytes: &[u8]) -> Option<Response> {
        send(self.address, bytes).unwrap()
    }

    pub(crate) fn get(&self, path: &str) -> Response {
        self.send(&request("GET", path, &[], b"")).unwrap()
    }

    pub(crate) fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        self.send(&request("POST", path, headers, body)).unwrap()
    }

    /// The value of a metric, by the start of its line.
    pub(crate) fn metric(&self, start: &str) -> f64 {
        let text = String::from_utf8(self.get("/metrics").body).unwrap();
        let line = text
            .lines()
            .find(|line| line.starts_with(start))
            .unwrap_or_else(|| panic!("{start}\n{text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// Waits until a condition holds.
    pub(crate) fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !holds(self) {
            assert!(start.elapsed() < PATIENCE, "not in time: {what}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        // No test may pass with a panic in the server.
        assert!(std::thread::panicking() || !self.log().contains("panicked"), "{}", self.log());
    }
}

/// `NAME=FOLDER` of a bundle, with the name of its folder.
pub(crate) fn named(bundle: &Path) -> String {
    format!("{}={}", bundle.file_name().unwrap().display(), bundle.display())
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map_or_else(|| panic!("no {name}: {:?}", self.headers), |(_, value)| value)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The message of an error.
    pub(crate) fn error(&self) -> String {
        self.json()["error"].as_str().unwrap().to_owned()
    }

    /// None where the connection ended before an answer; a panic where an answer is cut short.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().unwrap();
        let header = |line: &str| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_ascii_lowercase(), value.to_owned())
        };
        let headers: Vec<(String, String)> = lines.map(header).collect();
        let mut body = bytes[end + 4..].to_vec();
        if status == 100 {
            return Self::parse(&body);
        }
        let length = headers
            .iter()
            .find(|(name, _)| name == "content-length")
            .map(|(_, value)| value.parse().unwrap());
        let length: usize = length.unwrap_or(body.len());
        assert!(length <= body.len(), "cut short at {} of {length}", body.len());
        // The response to what follows the request may come behind it.
        body.truncate(length);
        Some(Self { status, headers, body })
    }
}

/// A request as it goes over the wire, with `connection: close`.
pub(crate) fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut bytes =
        format!("{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n").into_bytes();
    for (name, value) in headers {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    if method == "POST" {
        bytes.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}

pub(crate) fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Sends bytes, and reads until the server closes; none where it closes without an answer.
pub(crate) fn send(address: SocketAddr, bytes: &[u8]) -> std::io::Result<Option<Response>> {
    let mut stream = connect(address)?;
    // The server may close before all is sent.
    drop(stream.write_all(bytes));
    read(&mut stream, Vec::new())
}

/// [`send`] for what may not be a whole request: if nothing arrives for a while, shuts down the
/// sending side.
pub(crate) fn send_broken(address: SocketAddr, bytes: &[u8]) -> std::io::Result<Option<Response>> {
    let mut stream = connect(address)?;
    drop(stream.write_all(bytes));
    stream.set_read_timeout(Some(Duration::from_millis(40)))?;
    let mut first = [0; 4096];
    let start = match stream.read(&mut first) {
        Ok(count) => first[..count].to_vec(),
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            drop(stream.shutdown(Shutdown::Write));
            Vec::new()
        }
        Err(_) => return Ok(None),
    };
    stream.set_read_timeout(Some(PATIENCE))?;
    read(&mut stream, start)
}

fn read(stream: &mut TcpStream, mut answer: Vec<u8>) -> std::io::Result<Option<Response>> {
    match stream.read_to_end(&mut answer) {
        Err(error)
            if !matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) =>
        {
            Err(error)
        }
        _ => Ok(Response::parse(&answer)),
    }
}
