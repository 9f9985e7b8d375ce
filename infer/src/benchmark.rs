//! How long a model takes, and how sure that is: a [`scenario`] puts [`load`] on a [`target`], [`measure`] warms up and takes
//! the samples, and the [`report`] says what follows from them.

pub mod against;
pub mod arrivals;
pub mod blocks;
pub mod bootstrap;
pub mod compare;
pub mod file;
pub mod in_process;
pub mod load;
pub mod material;
pub mod measure;
pub mod paired;
pub mod ratio;
pub mod remote;
pub mod report;
pub mod scenario;
pub mod stability;
pub mod statistics;
pub mod target;
