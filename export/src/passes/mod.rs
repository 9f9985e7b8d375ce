//! Graph-to-graph passes before anything is written.

pub(crate) mod fold;
mod merge;
