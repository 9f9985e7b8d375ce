//! How pictures are run: the arguments that `protoseg label` and `protoseg eval` have in common.

use std::path::PathBuf;

use anyhow::bail;
use protoseg_images::image_file::MAX_PIXELS;
use protoseg_infer::EngineConfig;
use protoseg_infer::pipeline::{Pipeline, PipelineSetup};

use super::engine_args::EngineArgs;
use super::{print_stderr, warn_newer_version};

/// How the pictures of a command are run.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RunArgs {
    /// Bundle folder, or an ONNX file that `protoseg export` wrote (make a bundle of others with `protoseg adopt`)
    pub(crate) bundle: PathBuf,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    /// Refuse pictures of more pixels
    #[arg(long, value_name = "N", default_value_t = MAX_PIXELS, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max_pixels: u64,
    /// Say on the standard error how the model was opened
    #[arg(long, short)]
    pub(crate) verbose: bool,
}

impl RunArgs {
    /// Opens the bundle to run so many pictures.
    pub(crate) fn open(&self, pictures: usize) -> anyhow::Result<Pipeline> {
        self.open_with(&self.engine.config(), pictures)
    }

    /// The same with other options of the engine.
    pub(crate) fn open_with(
        &self,
        engine: &EngineConfig,
        pictures: usize,
    ) -> anyhow::Result<Pipeline> {
        engine.check()?;
        let pipeline = Pipeline::open(&self.bundle, engine, Some(pictures))?;
        warn_newer_version(&self.bundle, pipeline.segmenter().unknown_fields());
        if engine.batch.is_some() && pipeline.segmenter().window().is_none() {
            bail!(
                "--batch counts windows, and pictures are run whole here; leave it out, or add --window SIZE:STRIDE"
            );
        }
        if self.verbose {
            print_stderr(describe(pipeline.setup()));
        }
        Ok(pipeline)
    }
}

/// What a pipeline runs on, as a sentence.
pub(crate) fn describe(setup: &PipelineSetup) -> String {
    let PipelineSetup { mode, devices, sessions, threads, session_bytes, memory, seconds, .. } =
        setup;
    let mode = mode.name();
    let devices = devices.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let mebibytes = |bytes: &u64| bytes.div_ceil(1 << 20);
    let each = session_bytes
        .as_ref()
        .map_or_else(String::new, |bytes| format!(", {} MiB each", mebibytes(bytes)));
    let of =
        memory.as_ref().map_or_else(String::new, |bytes| format!(" of {} MiB", mebibytes(bytes)));
    format!(
        "{devices}, {mode}: sessions {sessions}, threads of each {threads}{each}{of}; opened in {seconds:.2} s"
    )
}
