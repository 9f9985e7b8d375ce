//! Common arguments of `protoseg label` and `protoseg eval`.

use std::path::PathBuf;

use anyhow::bail;
use protoseg_images::image_file::MAX_PIXELS;
use protoseg_infer::EngineConfig;
use protoseg_infer::pipeline::{Pipeline, PipelineSetup};

use super::engine_args::EngineArgs;
use super::reading_args::ReadingArgs;
use super::{print_stderr, warn_newer_version};

/// Model and engine of a command.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RunArgs {
    /// Bundle folder, or an ONNX file of `protoseg export` (others: `protoseg import`)
    pub(crate) bundle: PathBuf,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    #[command(flatten)]
    pub(crate) reading: ReadingArgs,
    /// Refuse images with more pixels [default: 200000000, and no limit where `label` reads rows
    /// from disk]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max_pixels: Option<u64>,
    /// Print devices, mode and sessions to the standard error
    #[arg(long, short)]
    pub(crate) verbose: bool,
}

impl RunArgs {
    /// Most pixels of an image that is decoded at once.
    pub(crate) fn max_pixels(&self) -> u64 {
        self.max_pixels.unwrap_or(MAX_PIXELS)
    }

    /// Opens the bundle for a number of images.
    pub(crate) fn open(&self, images: usize) -> anyhow::Result<Pipeline> {
        self.open_with(&self.engine.config(), images)
    }

    /// Opens the bundle with other engine options.
    pub(crate) fn open_with(
        &self,
        engine: &EngineConfig,
        images: usize,
    ) -> anyhow::Result<Pipeline> {
        engine.check()?;
        let engine = &EngineConfig { reading: self.reading.reading(), ..engine.clone() };
        let pipeline = Pipeline::open(&self.bundle, engine, Some(images))?;
        warn_newer_version(&self.bundle, pipeline.segmenter().unknown_fields());
        if engine.batch.is_some() && pipeline.segmenter().windows().is_none() {
            bail!(
                "--batch is a number of windows, but images are run whole; leave it out, or add --window SIZE:STRIDE"
            );
        }
        if self.verbose {
            print_stderr(describe(pipeline.setup()));
        }
        Ok(pipeline)
    }
}

/// Devices, mode, sessions and memory of a pipeline, in one line.
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
