//! What is asked: a model in this process, or one behind an address.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use protoseg_bench::http_target::HttpTarget;
use protoseg_bench::in_process::InProcessTarget;
use protoseg_bench::load::LoadResult;
use protoseg_bench::load::{RequestError, RequestStages, Target, request_concurrently};
use protoseg_infer::EngineConfig;
use protoseg_infer::config::Device;
use protoseg_serve::registry::name_of;

/// What is to be measured.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TargetSpec {
    /// What tells it from the others.
    pub(crate) name: String,
    /// How it is reached.
    pub(crate) place: TargetLocation,
}

impl TargetSpec {
    /// A bundle with some options; `name` tells it from others of the bundle.
    pub(crate) fn bundle(bundle: &Path, options: EngineConfig, name: &str) -> Self {
        let model = name_of(bundle).unwrap_or_default();
        let name = if name.is_empty() { model } else { format!("{model}, {name}") };
        Self { name, place: TargetLocation::InProcess(bundle.to_owned(), options) }
    }

    /// Whether its options are those of an engine.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        match &self.place {
            TargetLocation::InProcess(_, options) => Ok(options.check()?),
            TargetLocation::Http(_) => Ok(()),
        }
    }
}

/// Where a model is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum TargetLocation {
    /// In this process, opened from a bundle or file with some options.
    InProcess(PathBuf, EngineConfig),
    /// Behind an address.
    Http(String),
}

/// A model that can be asked.
pub(crate) enum OpenTarget {
    InProcess(Box<InProcessTarget>),
    Http(Box<HttpTarget>),
}

impl OpenTarget {
    /// The number of the GPU that computes, if one alone does.
    pub(crate) fn gpu(&self) -> Option<u16> {
        let Self::InProcess(model) = self else { return None };
        match model.facts().setup.devices[..] {
            [Device::Cuda(number) | Device::TensorRt(number)] => Some(number),
            _ => None,
        }
    }

    /// Sessions and threads of each, where that is known.
    pub(crate) fn setup(&self) -> Option<[usize; 2]> {
        match self {
            Self::InProcess(model) => {
                Some([model.facts().setup.sessions, model.facts().setup.threads])
            }
            Self::Http(_) => None,
        }
    }
}

impl Target for OpenTarget {
    async fn request(&self, picture: usize) -> Result<RequestStages, RequestError> {
        match self {
            Self::InProcess(model) => model.request(picture).await,
            Self::Http(server) => server.request(picture).await,
        }
    }

    async fn request_all(&self, first: usize, count: usize) -> LoadResult {
        match self {
            Self::InProcess(model) => model.request_all(first, count).await,
            Self::Http(server) => server.request_all(first, count).await,
        }
    }
}

/// Why nothing was asked any more.
pub(super) const STOPPED: &str = "stopped by a signal";

/// A model that is not asked any more once a signal has come.
pub(super) struct StoppableTarget<'a> {
    pub(super) asked: &'a OpenTarget,
    pub(super) stop: &'a AtomicBool,
}

impl Target for StoppableTarget<'_> {
    async fn request(&self, picture: usize) -> Result<RequestStages, RequestError> {
        if self.is_stopped() {
            return Err(RequestError(STOPPED.to_owned()));
        }
        self.asked.request(picture).await
    }

    async fn request_all(&self, first: usize, count: usize) -> LoadResult {
        if self.is_stopped() {
            return LoadResult { failed: count, ..LoadResult::default() };
        }
        match self.asked {
            // It looks at the signal itself.
            OpenTarget::InProcess(model) => model.request_all(first, count).await,
            OpenTarget::Http(_) => request_concurrently(self, first, count).await,
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}
