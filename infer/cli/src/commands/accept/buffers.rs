//! Ways to run one file against each other: with buffers that stay bound, with launches that are recorded and replayed, and
//! with too little memory.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, ensure};
use protoseg_infer::EngineConfig;
use protoseg_infer::config::Device;
use protoseg_infer::session::{Runner, SessionError};
use protoseg_models::variant::{ModelKind, Precision};

use super::Acceptance;
use super::bundles::TestBundle;
use super::findings::CheckResults;

/// Runs of one picture: the first two are plain, buffers are bound after them, and launches are recorded up to the fifth.
const RUNS: usize = 10;

/// Memory of a GPU in which no network runs: less than the weights of the smallest take.
const TOO_LITTLE: u64 = 4 << 20;

/// A frame file, and a picture for it.
struct Frame {
    path: PathBuf,
    size: [usize; 2],
    pixels: Vec<u8>,
}

impl Acceptance<'_> {
    /// Compares ways to run the bundle's frame file in 32 bits.
    pub(super) fn compare_ways(&self, made: &TestBundle, findings: &mut CheckResults) {
        let names = ["bound buffers", "a CUDA graph", "too little memory"];
        let what = |name: &str| format!("{}/{name}", made.network);
        if !self.device.is_gpu() {
            names.iter().for_each(|name| findings.skipped(what(name), "only GPUs have that"));
            return;
        }
        let frame = match Frame::open(made) {
            Ok(frame) => frame,
            Err(error) => return findings.failed(what("ways to run a frame"), &error),
        };
        for (name, graph) in [(names[0], false), (names[1], true)] {
            match self.replayed(&frame, graph) {
                Ok([plain, later]) => {
                    let detail = format!(
                        "the same labels in all of {RUNS} runs; {plain:.2} ms plain, {later:.2} ms later"
                    );
                    findings.add(
                        what(name),
                        true,
                        detail,
                        [("plain_ms", plain), ("later_ms", later)],
                    );
                }
                Err(error) => findings.failed(what(name), &error),
            }
        }
        match (self.device, self.starved(&frame)) {
            (Device::Cuda(_), Ok(said)) => findings.add(what(names[2]), true, said, []),
            (Device::Cuda(_), Err(error)) => findings.failed(what(names[2]), &error),
            _ => findings.skipped(what(names[2]), "only CUDA takes a limit"),
        }
    }

    /// Milliseconds of the second run, which is plain and warm, and the least of later ones; all must answer alike.
    fn replayed(&self, frame: &Frame, graph: bool) -> anyhow::Result<[f64; 2]> {
        let options =
            EngineConfig { cuda_graph: graph, input_size: Some(frame.size), ..self.options() };
        let mut runner = Runner::open(&frame.path, &options)?;
        let (mut first, mut plain, mut later) = (None, 0.0, f64::INFINITY);
        for run in 0..RUNS {
            let start = Instant::now();
            let found = frame.run(&mut runner)?;
            let took = start.elapsed().as_secs_f64() * 1e3;
            match run {
                0 => {}
                1 => plain = took,
                _ => later = took.min(later),
            }
            let expected = first.get_or_insert_with(|| found.clone());
            ensure!(
                found == *expected,
                "run {} of one picture gives other labels than the first",
                run + 1
            );
        }
        Ok([plain, later])
    }

    /// Runs out of memory on purpose, and then runs with enough.
    fn starved(&self, frame: &Frame) -> anyhow::Result<String> {
        let options = EngineConfig {
            gpu_memory: Some(TOO_LITTLE),
            input_size: Some(frame.size),
            ..self.options()
        };
        let starved = Runner::open(&frame.path, &options)
            .and_then(|mut runner| frame.run(&mut runner).map(drop));
        match starved {
            Err(SessionError::OutOfMemory { .. }) => {}
            Err(other) => {
                return Err(anyhow::Error::from(other)
                    .context("lack of memory is taken for something else"));
            }
            Ok(()) => {
                anyhow::bail!("it runs in {} MiB, or the limit is not kept", TOO_LITTLE >> 20)
            }
        }
        let mut runner = Runner::open(
            &frame.path,
            &EngineConfig { input_size: Some(frame.size), ..self.options() },
        )?;
        frame.run(&mut runner).context("after it ran out of memory once")?;
        Ok(format!(
            "told as such with a limit of {} MiB, and the next session runs",
            TOO_LITTLE >> 20
        ))
    }
}

impl Frame {
    fn open(made: &TestBundle) -> anyhow::Result<Self> {
        let file =
            made.file(ModelKind::Frame, Precision::Fp32).context("the bundle has no frame file")?;
        let form =
            file.variant.frame.context("the manifest does not say which frames the file takes")?;
        let pixels = protoseg_synthetic::render_scene(0, 0, form.height, form.width).image;
        Ok(Self {
            path: made.manifest.verified(&made.folder, file)?,
            size: [form.height, form.width],
            pixels,
        })
    }

    fn run(&self, runner: &mut Runner) -> Result<[Vec<u8>; 2], SessionError> {
        runner.run_frames(&self.pixels, [1, self.size[0], self.size[1]])
    }
}
