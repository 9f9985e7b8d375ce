//! The program `protoseg` and the library behind it, end to end: [`commands`] that succeed, [`adopt`] for the files of
//! others, [`broken_inputs`] and [`broken_pictures`] that must not, [`refusals`] of work that would be lost or do harm, the
//! [`formats`] that `label` writes, the [`gate`] on a bundle's files, and the [`export`] that ends by it; labelling that goes
//! on ([`resume`]), into folders that are [`occupied`], and is shared ([`shards`]); [`surroundings`] that are hostile or are
//! left alone; [`tune`], and who goes by what it found; the [`pipeline`] as a library, its [`times`], and [`devices`] that are
//! there or not; the service: its [`engine`], over HTTP ([`serve`]) and [`grpc`]; and benchmarks:
//! [`bench`], [`bench_compare`], [`bench_signals`].

#[cfg(test)]
mod adopt;
#[cfg(test)]
mod bench;
#[cfg(test)]
mod bench_compare;
#[cfg(test)]
mod bench_signals;
#[cfg(test)]
mod broken_inputs;
#[cfg(test)]
mod broken_pictures;
#[cfg(test)]
mod commands;
#[cfg(test)]
mod common;
#[cfg(test)]
mod devices;
#[cfg(test)]
mod engine;
#[cfg(test)]
mod export;
#[cfg(test)]
mod formats;
#[cfg(test)]
mod gate;
#[cfg(test)]
mod grpc;
#[cfg(test)]
mod occupied;
#[cfg(test)]
mod pipeline;
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
