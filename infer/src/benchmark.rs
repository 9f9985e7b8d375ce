//! How long a model takes, and how sure that is: scenarios that ask a model for labels, and the [`report`] of what came.

pub mod against;
pub mod arrivals;
pub mod bootstrap;
pub mod compare;
pub mod file;
pub mod paired;
pub mod ratio;
pub mod report;
pub mod scenario;
pub mod stability;
pub mod statistics;
