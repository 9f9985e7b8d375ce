//! What is asked: a model in this process, or one behind an address.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use protoseg_bench::in_process::InProcess;
use protoseg_bench::load::Taken;
use protoseg_bench::remote::Remote;
use protoseg_bench::target::{AskError, Parts, Target, ask_together};
use protoseg_infer::session::Device;
use protoseg_serve::models::name_of;

use crate::commands::engine_arguments::EngineArguments;
use crate::commands::engine_options::Options;

/// What is to be measured.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Wanted {
    /// What tells it from the others.
    pub(crate) name: String,
    /// How it is reached.
    pub(crate) place: Place,
}

impl Wanted {
    /// A bundle with some options; `name` tells it from others of the bundle.
    pub(crate) fn here(bundle: &Path, options: Options, name: &str) -> Self {
        let model = name_of(bundle).unwrap_or_default();
        let name = if name.is_empty() { model } else { format!("{model}, {name}") };
        Self { name, place: Place::Here(bundle.to_owned(), options) }
    }

    /// Whether its options are those of an engine.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        match &self.place {
            Place::Here(_, options) => EngineArguments::of(options)?.options(0).map(|_| ()),
            Place::There(_) => Ok(()),
        }
    }
}

/// Where a model is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Place {
    /// In this process, opened from a bundle or file with some options.
    Here(PathBuf, Options),
    /// Behind an address.
    There(String),
}

/// A model that can be asked.
pub(crate) enum Asked {
    Here(Box<InProcess>),
    There(Box<Remote>),
}

impl Asked {
    /// The number of the GPU that computes, if one alone does.
    pub(crate) fn gpu(&self) -> Option<u16> {
        let Self::Here(model) = self else { return None };
        match model.facts().setup.devices[..] {
            [Device::Cuda(number) | Device::TensorRt(number)] => Some(number),
            _ => None,
        }
    }

    /// Sessions and threads of each, where that is known.
    pub(crate) fn setup(&self) -> Option<[usize; 2]> {
        match self {
            Self::Here(model) => Some([model.facts().setup.sessions, model.facts().setup.threads]),
            Self::There(_) => None,
        }
    }
}

impl Target for Asked {
    async fn ask(&self, picture: usize) -> Result<Parts, AskError> {
        match self {
            Self::Here(model) => model.ask(picture).await,
            Self::There(server) => server.ask(picture).await,
        }
    }

    async fn ask_all(&self, first: usize, count: usize) -> Taken {
        match self {
            Self::Here(model) => model.ask_all(first, count).await,
            Self::There(server) => server.ask_all(first, count).await,
        }
    }
}

/// Why nothing was asked any more.
pub(super) const STOPPED: &str = "stopped by a signal";

/// A model that is not asked any more once a signal has come.
pub(super) struct Stoppable<'a> {
    pub(super) asked: &'a Asked,
    pub(super) stop: &'a AtomicBool,
}

impl Target for Stoppable<'_> {
    async fn ask(&self, picture: usize) -> Result<Parts, AskError> {
        if self.is_over() {
            return Err(AskError(STOPPED.to_owned()));
        }
        self.asked.ask(picture).await
    }

    async fn ask_all(&self, first: usize, count: usize) -> Taken {
        if self.is_over() {
            return Taken { failed: count, ..Taken::default() };
        }
        match self.asked {
            // It looks at the signal itself.
            Asked::Here(model) => model.ask_all(first, count).await,
            Asked::There(_) => ask_together(self, first, count).await,
        }
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}
