//! Latency and throughput of segmentation models, with confidence intervals.
//!
//! A [`measure::Measurement`] warms a [`load::Target`] up, puts a [`load::Scenario`] on it, and
//! returns the samples and statistics of a [`report::BenchReport`], which is shown as a [`page`],
//! in a [`terminal`] and as CSV ([`perf_analyzer`]). [`compare`] finds regressions between two
//! reports, and [`tuning`] searches for the fastest engine options.

pub mod ab;
pub mod acceptance;
pub mod arrivals;
pub mod bootstrap;
pub mod compare;
pub mod http_target;
pub mod images;
pub mod in_process;
mod latency_bound;
pub mod load;
pub mod machine;
pub mod measure;
pub mod page;
pub mod perf_analyzer;
pub mod report;
pub mod run;
#[cfg(test)]
mod sample;
pub mod session;
pub mod stability;
pub mod statistics;
pub mod sweep;
pub mod terminal;
pub mod tuning;
mod words;
