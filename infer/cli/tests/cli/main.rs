//! The program `protoseg` and its libraries, end to end:
//! - [`commands`] that succeed; [`import`]; [`convert`]; the [`gate`] of `check`; [`export`]
//! - errors: [`broken_inputs`], [`broken_images`], [`masks`], [`refusals`]; the [`reading`] of images
//! - labeling: [`folders`] and lists, [`data_sets`], [`formats`], [`large`] images, [`resume`],
//!   [`occupied`] output folders, [`shards`]
//! - [`surroundings`]: closed pipes, user folders, a damaged runtime, signals, names
//! - the library: [`pipeline`], its [`times`], [`devices`]
//! - the server: its [`engine`], HTTP ([`serve`]) and [`grpc`]
//! - measurements: [`tune`], [`bench`], [`bench_compare`], [`bench_signals`]

#[cfg(test)]
mod bench;
#[cfg(test)]
mod bench_compare;
#[cfg(test)]
mod bench_signals;
#[cfg(test)]
mod broken_images;
#[cfg(test)]
mod broken_inputs;
#[cfg(test)]
mod commands;
#[cfg(test)]
mod common;
#[cfg(test)]
mod convert;
#[cfg(test)]
mod data_sets;
#[cfg(test)]
mod devices;
#[cfg(test)]
mod engine;
#[cfg(test)]
mod export;
#[cfg(test)]
mod folders;
#[cfg(test)]
mod formats;
#[cfg(test)]
mod gate;
#[cfg(test)]
mod grpc;
#[cfg(test)]
mod import;
#[cfg(test)]
mod import_configs;
#[cfg(test)]
mod import_doubts;
#[cfg(test)]
mod import_kinds;
#[cfg(test)]
mod import_refusals;
#[cfg(test)]
mod large;
#[cfg(test)]
mod masks;
#[cfg(test)]
mod occupied;
#[cfg(test)]
mod pipeline;
#[cfg(test)]
mod reading;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod resume;
#[cfg(test)]
mod serve;
#[cfg(test)]
mod shards;
#[cfg(test)]
mod surroundings;
#[cfg(test)]
mod times;
#[cfg(test)]
mod tune;
