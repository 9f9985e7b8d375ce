//! Overhead of the service over the library in the same process, and its throughput relative to the
//! pipeline for folders:
//! `cargo bench --bench service -- BUNDLE [ROUNDS]`. Prints ratios of paired measurements.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark panics where it cannot run, and prints its results"
)]

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use image::RgbImage;
use protoseg_infer::config::ExecutionMode;
use protoseg_infer::pipeline::{DecodedImage, PendingImage, Pipeline, RunControl};
use protoseg_infer::segmenter::SegmentError;
use protoseg_infer::{EngineConfig, Outputs, Segmenter};
use protoseg_serve::http::router;
use protoseg_serve::listener::{ConnectionLimits, Listener, Protocol};
use protoseg_serve::metrics::Metrics;
use protoseg_serve::registry::{ModelOptions, ModelRegistry};
use protoseg_serve::{AppState, BatchLimit, Service, ServiceLimits};

/// Height and width of the images for latency, and of those for throughput.
const SMALL: [u32; 2] = [512, 512];
const FRAME: [u32; 2] = [1024, 2048];

/// Images of a throughput block.
const FRAMES: usize = 24;

fn main() {
    let words: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let Some(bundle) = words.first() else {
        println!(
            "service: skipped, no bundle given; run cargo bench --bench service -- runs/demo/bundle"
        );
        return;
    };
    let rounds = words.get(1).map_or(Ok(3), |word| word.parse()).expect("the number of rounds");
    latency(Path::new(bundle), rounds);
    for mode in [ExecutionMode::Latency, ExecutionMode::Throughput] {
        throughput(Path::new(bundle), mode, rounds);
    }
    crowds(Path::new(bundle), rounds);
}

/// A synthetic image.
fn synthetic([height, width]: [u32; 2]) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        image::Rgb([(x * 7 + y) as u8, (x ^ y) as u8, (y * 3) as u8])
    })
}

/// A service on a free port.
struct Served {
    address: SocketAddr,
    service: Arc<Service>,
    _runtime: tokio::runtime::Runtime,
    _stop: tokio::sync::watch::Sender<bool>,
}

impl Served {
    fn start(bundle: &Path, mode: ExecutionMode) -> Self {
        let options = ModelOptions {
            engine: EngineConfig { mode: Some(mode), ..EngineConfig::default() },
            limit: BatchLimit { windows: 1, pixels: 8_000_000 },
            delay: Duration::ZERO,
            logits: false,
        };
        let metrics = Arc::new(Metrics::default());
        let bundles = vec![("model".to_owned(), bundle.to_owned())];
        let models = ModelRegistry::new(bundles, options, Arc::clone(&metrics));
        let limits = ServiceLimits {
            queue_pixels: 512_000_000,
            deadline: Duration::from_secs(600),
            ..ServiceLimits::default()
        };
        let service = Arc::new(Service::new(models, limits, metrics));
        assert!(service.models.load_all().is_empty(), "the bundle cannot be loaded");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let state = AppState {
            service: Arc::clone(&service),
            key: None,
            repository: false,
            origins: Vec::new(),
        };
        runtime.spawn(async move {
            let second = Duration::from_secs(1);
            let listener = Listener {
                socket: tokio::net::TcpListener::from_std(socket).unwrap(),
                protocol: Protocol::Http1,
                tls: None,
                limits: ConnectionLimits {
                    max_connections: 1024,
                    header_timeout: 600 * second,
                    idle_timeout: 600 * second,
                    write_timeout: 600 * second,
                },
                connections: state.service.metrics.connections.clone(),
            };
            listener.serve(router(state), stopped).await;
        });
        Self { address, service, _runtime: runtime, _stop: stop }
    }
}

/// A connection that repeats one request for labels as bytes.
struct Client {
    stream: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Client {
    fn new(address: SocketAddr, image: &RgbImage) -> Self {
        let (width, height) = image.dimensions();
        let head = format!(
            r#"{{"parameters":{{"binary_data_output":true}},"outputs":[{{"name":"labels"}}],"inputs":[{{"name":"image","shape":[1,{height},{width},3],"datatype":"UINT8","parameters":{{"binary_data_size":{}}}}}]}}"#,
            image.len()
        );
        let mut request = format!(
            "POST /v2/models/model/infer HTTP/1.1\r\nhost: bench\r\ncontent-length: {}\r\ninference-header-content-length: {}\r\n\r\n{head}",
            head.len() + image.len(),
            head.len()
        )
        .into_bytes();
        request.extend_from_slice(image);
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, request, answer: vec![0; 1 << 16] }
    }

    fn send(&mut self) {
        self.stream.write_all(&self.request).unwrap();
        let mut read = 0;
        let whole = loop {
            read += self.stream.read(&mut self.answer[read..]).unwrap();
            let head = &self.answer[..read];
            if let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") {
                let text = String::from_utf8_lossy(&head[..end]).to_ascii_lowercase();
                assert!(text.starts_with("http/1.1 200"), "{text}");
                let length =
                    text.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
                break end + 4 + length.trim().parse::<usize>().unwrap();
            }
        };
        let mut left = whole - read;
        while left > 0 {
            let most = left.min(self.answer.len());
            left -= self.stream.read(&mut self.answer[..most]).unwrap();
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Interleaves one client with the segmenter in process.
fn latency(bundle: &Path, rounds: usize) {
    let image = synthetic(SMALL);
    let served = Served::start(bundle, ExecutionMode::Latency);
    let mut client = Client::new(served.address, &image);
    let mut segmenter = Segmenter::open(bundle).unwrap();
    let (mut inside, mut outside) = (Vec::new(), Vec::new());
    for round in 0..30 * rounds {
        let start = Instant::now();
        black_box(segmenter.predict(&image, Outputs::default()).unwrap());
        let middle = Instant::now();
        client.send();
        if round >= 3 {
            inside.push((middle - start).as_secs_f64() * 1e3);
            outside.push(middle.elapsed().as_secs_f64() * 1e3);
        }
    }
    let pairs: Vec<f64> =
        inside.iter().zip(&outside).map(|(inside, outside)| outside - inside).collect();
    println!(
        "512x512, one client: in process {:.2} ms, over HTTP {:.2} ms; in pairs {:+.2} ms (medians of {})",
        median(inside),
        median(outside),
        median(pairs.clone()),
        pairs.len()
    );
}

/// Returns the seconds of a number of requests from concurrent clients.
fn crowd(address: SocketAddr, image: &RgbImage, clients: usize, requests: usize) -> f64 {
    let next = AtomicUsize::new(0);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                let mut client = Client::new(address, image);
                while next.fetch_add(1, Ordering::Relaxed) < requests {
                    client.send();
                }
            });
        }
    });
    start.elapsed().as_secs_f64()
}

/// Interleaves eight clients with the pipeline on the same frames.
fn throughput(bundle: &Path, mode: ExecutionMode, rounds: usize) {
    let frame = synthetic(FRAME);
    let served = Served::start(bundle, mode);
    let config = EngineConfig { mode: Some(mode), ..EngineConfig::default() };
    let mut pipeline = Pipeline::open(bundle, &config, Some(FRAMES)).unwrap();
    let mut ratios = Vec::new();
    for _ in 0..rounds {
        let start = Instant::now();
        let report = pipeline.run(
            FRAMES,
            &RunControl::<SegmentError>::default(),
            |_| {
                Ok(PendingImage {
                    pixels: u64::from(FRAME[0] * FRAME[1]),
                    decode: || Ok(DecodedImage { image: frame.clone(), extra: () }),
                })
            },
            |_, _, prediction| {
                black_box(prediction);
                Ok(())
            },
        );
        assert_eq!(report.done, FRAMES);
        let inside = start.elapsed().as_secs_f64();
        let outside = crowd(served.address, &frame, 8, FRAMES);
        ratios.push(inside / outside);
        println!(
            "2048x1024, {mode:?}: pipeline {inside:.2} s, 8 clients {outside:.2} s for {FRAMES} frames"
        );
    }
    let rate =
        served.service.models.first().ok().and_then(|served| served.scheduler.pixels_per_second());
    println!(
        "2048x1024, {mode:?}: 8 clients reach {:.3} of the pipeline ({:.1} megapixels/s of windows)",
        median(ratios),
        rate.unwrap_or(0.0) / 1e6
    );
}

/// Compares few clients with many.
fn crowds(bundle: &Path, rounds: usize) {
    let image = synthetic(SMALL);
    let served = Served::start(bundle, ExecutionMode::Throughput);
    let mut ratios = Vec::new();
    for _ in 0..rounds {
        let [few, many] = [4, 32].map(|clients| crowd(served.address, &image, clients, 96));
        ratios.push(few / many);
    }
    println!("512x512: 32 clients reach {:.3} of what 4 do", median(ratios));
}
