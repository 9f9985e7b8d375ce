//! The ways in which a model is asked: what MLPerf calls scenarios, and the concurrency of perf_analyzer.

use serde::{Deserialize, Serialize};

/// How requests come.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Scenario {
    /// One picture at a time: the next is asked for when the one before is there.
    SingleStream,
    /// So many pictures at a time: a query is done when the last of them is, and the next is then asked.
    MultiStream {
        /// Pictures of a query.
        samples: usize,
    },
    /// So many clients, each of which asks for its next picture when the one before is there.
    Clients {
        /// How many.
        clients: usize,
    },
    /// All pictures are there from the start, and only the time for all of them counts.
    Offline,
    /// Pictures come by themselves, at random moments, so many in a second on average (a Poisson process). Their latency
    /// counts from the moment for which they were scheduled.
    Server {
        /// Pictures in a second.
        rate: f64,
    },
}

impl Scenario {
    /// The name in files and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::SingleStream => "single-stream",
            Self::MultiStream { .. } => "multi-stream",
            Self::Clients { .. } => "clients",
            Self::Offline => "offline",
            Self::Server { .. } => "server",
        }
    }

    /// Pictures that one query asks for.
    pub fn images_per_query(self) -> usize {
        match self {
            Self::MultiStream { samples } => samples,
            _ => 1,
        }
    }
}

impl std::fmt::Display for Scenario {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name())?;
        match self {
            Self::MultiStream { samples } => write!(formatter, " of {samples}"),
            Self::Clients { clients } => write!(formatter, " {clients}"),
            Self::Server { rate } => write!(formatter, " at {rate:.2}/s"),
            Self::SingleStream | Self::Offline => Ok(()),
        }
    }
}
