//! How long a model takes, and how sure that is: scenarios that ask a model for labels, and the [`report`] of what came, which
//! is shown as a [`page`], in a [`terminal`] and as a [`table`].

pub mod page;
pub mod report;
#[cfg(test)]
mod sample;
pub mod scenario;
mod stages;
pub mod table;
pub mod terminal;
mod words;
