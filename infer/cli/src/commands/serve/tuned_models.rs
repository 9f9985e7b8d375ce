//! How the server opens its models: as tuned for this machine where that fits, and nobody asked for something else.

use std::path::Path;

use protoseg_bench::tuning::TuningPurpose;
use protoseg_models::errors::error_chain;
use protoseg_serve::BatchLimit;
use protoseg_serve::registry::{ModelOptions, ModelOptionsSource};

use crate::commands::tuned::{TunedEngine, TuningArgs};
use protoseg_infer::EngineConfig;

/// Bundles as tuned, and as they come where they are not.
#[derive(Debug, Clone)]
pub(super) struct TunedModelOptions {
    pub(super) tuning: TuningArgs,
    pub(super) engine: EngineConfig,
    /// As they come, by the options that were given.
    pub(super) plain: ModelOptions,
}

impl TunedModelOptions {
    fn resolve(&self, bundle: &Path) -> anyhow::Result<ModelOptions> {
        let TunedEngine { engine, used, remark, warning } =
            self.tuning.resolve(bundle, &self.engine, TuningPurpose::Serve)?;
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
pub(super) fn with(options: &ModelOptions, engine: &EngineConfig) -> anyhow::Result<ModelOptions> {
    let limit = BatchLimit {
        pixels: options.limit.pixels,
        ..BatchLimit::default_for(engine.batch, engine.is_gpu())
    };
    engine.check()?;
    Ok(ModelOptions { engine: engine.clone(), limit, ..options.clone() })
}

impl ModelOptionsSource for TunedModelOptions {
    fn options(&self, bundle: &Path) -> ModelOptions {
        self.resolve(bundle).unwrap_or_else(|error| {
            tracing::warn!(
                "{} runs as it comes: {}",
                bundle.display(),
                error_chain(error.as_ref())
            );
            self.plain.clone()
        })
    }
}
