//! What is asked: a model in this process, or one behind an address.

use std::path::PathBuf;

use protoseg_infer::benchmark::in_process::InProcess;
use protoseg_infer::benchmark::load::Taken;
use protoseg_infer::benchmark::remote::Remote;
use protoseg_infer::benchmark::target::{AskError, Parts, Target};

use crate::commands::engine_options::Options;

/// What is to be measured.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Wanted {
    /// What tells it from the others.
    pub(super) name: String,
    /// How it is reached.
    pub(super) place: Place,
}

/// Where a model is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Place {
    /// In this process, opened from a bundle or file with some options.
    Here(PathBuf, Options),
    /// Behind an address.
    There(String),
}

/// A model that can be asked.
pub(super) enum Asked {
    Here(InProcess),
    There(Remote),
}

impl Asked {
    /// Sessions and threads of each, where that is known.
    pub(super) fn setup(&self) -> Option<[usize; 2]> {
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
