//! How long a model takes, and how sure that is: a [`scenario`] puts [`load`] on a [`target`], [`measure`] warms up and takes
//! the samples, and the [`report`] says what follows from them: as a [`page`], in a [`terminal`] and as a [`table`].

pub mod ab;
pub mod arrivals;
pub mod blocks;
pub mod bootstrap;
pub mod compare;
pub mod file;
pub mod images;
pub mod in_process;
pub mod load;
pub mod machine;
pub mod measure;
pub mod page;
pub mod paired;
pub mod ratio;
pub mod remote;
pub mod report;
#[cfg(test)]
mod sample;
pub mod scenario;
pub mod stability;
mod stages;
pub mod statistics;
pub mod table;
pub mod target;
pub mod terminal;
pub mod tuning;
mod words;
