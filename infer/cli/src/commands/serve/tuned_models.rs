//! Options of each model: as tuned for this machine, or as given.

use std::path::Path;

use protoseg_bench::tuning::TuningPurpose;
use protoseg_infer::EngineConfig;
use protoseg_models::errors::error_chain;
use protoseg_serve::BatchLimit;
use protoseg_serve::registry::{ModelOptions, ModelOptionsSource};

use crate::commands::tuned::{TunedEngine, TuningArgs};

#[derive(Debug, Clone)]
pub(super) struct TunedModelOptions {
    pub(super) tuning: TuningArgs,
    pub(super) engine: EngineConfig,
    /// For bundles that are not tuned.
    pub(super) plain: ModelOptions,
}

impl TunedModelOptions {
    fn resolve(&self, bundle: &Path) -> anyhow::Result<ModelOptions> {
        let TunedEngine { engine, used, remark, warning } =
            self.tuning.resolve(bundle, &self.engine, TuningPurpose::Serve)?;
        if let Some(warning) = warning {
            tracing::warn!("{warning}");
        }
        let mut options = self.plain.clone();
        if used {
            engine.check()?;
            options.engine = engine.clone();
            let default = BatchLimit::default_for(engine.batch, engine.is_gpu());
            options.limit.windows = default.windows;
        }
        if let Some(remark) = remark {
            tracing::info!("{}: {remark}", bundle.display());
        }
        Ok(options)
    }
}

impl ModelOptionsSource for TunedModelOptions {
    fn options(&self, bundle: &Path) -> ModelOptions {
        self.resolve(bundle).unwrap_or_else(|error| {
            let error = error_chain(error.as_ref());
            tracing::warn!("{}: cannot use the tuning: {error}", bundle.display());
            self.plain.clone()
        })
    }
}
