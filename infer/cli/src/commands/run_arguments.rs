//! How pictures are run: the arguments that `protoseg label` and `protoseg eval` have in common.

use std::path::PathBuf;

use anyhow::bail;
use protoseg_images::picture::MAX_PIXELS;
use protoseg_infer::pipeline::{Mode, Pipeline, Setup};

use super::engine_arguments::EngineArguments;
use super::engine_options::GivenEngine;
use super::{say, warn_of_newer};

/// How the pictures of a command are run.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RunArguments {
    /// Bundle folder, or an ONNX file that `protoseg export` wrote (make a bundle of others with `protoseg adopt`)
    pub(crate) bundle: PathBuf,
    #[command(flatten)]
    pub(crate) engine: GivenEngine,
    /// Refuse pictures of more pixels
    #[arg(long, value_name = "N", default_value_t = MAX_PIXELS, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max_pixels: u64,
    /// Say on the standard error how the model was opened
    #[arg(long, short)]
    pub(crate) verbose: bool,
}

impl RunArguments {
    /// Opens the bundle to run so many pictures.
    pub(crate) fn open(&self, pictures: usize) -> anyhow::Result<Pipeline> {
        self.open_as(&self.engine.arguments, pictures)
    }

    /// The same with other options of the engine.
    pub(crate) fn open_as(&self, engine: &EngineArguments, pictures: usize) -> anyhow::Result<Pipeline> {
        let pipeline = Pipeline::open(&self.bundle, &engine.options(pictures)?)?;
        warn_of_newer(&self.bundle, pipeline.segmenter().passed_over());
        if engine.batch().is_some() && pipeline.segmenter().window().is_none() {
            bail!("--batch counts windows, and pictures are run whole here; leave it out, or add --window SIZE:STRIDE");
        }
        if self.verbose {
            say(describe(pipeline.setup()));
        }
        Ok(pipeline)
    }
}

/// What a pipeline runs on, as a sentence.
pub(crate) fn describe(setup: &Setup) -> String {
    let Setup { mode, devices, sessions, threads, session_bytes, memory, seconds, .. } = setup;
    let mode = match mode {
        Mode::Latency => "latency",
        Mode::Throughput => "throughput",
    };
    let devices = devices.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let mebibytes = |bytes: &u64| bytes.div_ceil(1 << 20);
    let each = session_bytes.as_ref().map_or_else(String::new, |bytes| format!(", {} MiB each", mebibytes(bytes)));
    let of = memory.as_ref().map_or_else(String::new, |bytes| format!(" of {} MiB", mebibytes(bytes)));
    format!("{devices}, {mode}: sessions {sessions}, threads of each {threads}{each}{of}; opened in {seconds:.2} s")
}
