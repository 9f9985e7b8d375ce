//! How long a model takes, and how sure that is: scenarios that put load on a target, and the [`report`] of what came.

pub mod arrivals;
pub mod in_process;
pub mod load;
pub mod material;
pub mod measure;
pub mod remote;
pub mod report;
pub mod scenario;
pub mod stability;
pub mod statistics;
pub mod target;
