//! How the server opens its models: as tuned for this machine where that fits, and nobody asked for something else.

use std::path::Path;

use protoseg_bench::tuning::Use;
use protoseg_models::errors::sentence;
use protoseg_serve::BatchLimit;
use protoseg_serve::models::{Choose, ModelOptions};

use crate::commands::engine_arguments::EngineArguments;
use crate::commands::engine_options::GivenEngine;
use crate::commands::tuned::{Tuned, TuningArguments};

/// Bundles as tuned, and as they come where they are not.
#[derive(Debug, Clone)]
pub(super) struct TunedModels {
    pub(super) tuning: TuningArguments,
    pub(super) engine: GivenEngine,
    /// As they come, by the options that were given.
    pub(super) plain: ModelOptions,
}

impl TunedModels {
    fn of(&self, bundle: &Path) -> anyhow::Result<ModelOptions> {
        let Tuned { engine, used, remark, warning } = self.tuning.of(bundle, &self.engine, Use::Serve)?;
        let shown = bundle.display();
        if let Some(warning) = warning {
            tracing::warn!("{warning}");
        }
        let options = if used { with(&self.plain, &engine)? } else { self.plain.clone() };
        if let Some(remark) = remark {
            tracing::info!("{shown}: {remark}");
        }
        Ok(options)
    }
}

/// The same with other options of the engine.
pub(super) fn with(options: &ModelOptions, engine: &EngineArguments) -> anyhow::Result<ModelOptions> {
    let limit = BatchLimit { pixels: options.limit.pixels, ..BatchLimit::usual(engine.batch(), engine.is_gpu()) };
    Ok(ModelOptions { pipeline: engine.options(0)?, limit, ..options.clone() })
}

impl Choose for TunedModels {
    fn options(&self, bundle: &Path) -> ModelOptions {
        self.of(bundle).unwrap_or_else(|error| {
            tracing::warn!("{} runs as it comes: {}", bundle.display(), sentence(error.as_ref()));
            self.plain.clone()
        })
    }
}
