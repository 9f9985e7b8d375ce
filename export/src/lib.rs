//! Checkpoint folder to ONNX bundle, without libtorch and without a runtime.
//!
//! A [`Network`] is what an ONNX file will hold: the part of a graph that its outputs need, with its weights. Passes take
//! one to another ([`Network::folded`]), [`emit::emit`] writes it, [`bundle::write`] does all of it for a checkpoint.
//!
//! ```
//! use protoseg_export::{Network, emit::emit};
//! use protoseg_models::arch::{Arch, Preset};
//! use protoseg_models::{form::Form, formula, graph::Tag};
//!
//! let graph = Arch::new(Preset::DeepLabV3PlusEfficientNetLite0, 19)?.graph();
//! let logits = graph.tagged(Tag::Logits).unwrap();
//! let network = Network::new(&graph, &formula::weights(&graph, None), &[(logits, "logits")])?;
//! let file: Vec<u8> = emit(&network.folded()?, &Form::LOGITS, None)?.to_bytes();
//! assert!(file.len() > 10_000_000);
//! # Ok::<(), anyhow::Error>(())
//! ```
//!
//! **Invariant:** nothing here knows libtorch or ONNX Runtime; the same checkpoint gives the same `.onnx` bytes everywhere.

mod body;
mod builder;
pub mod bundle;
pub mod emit;
mod fold;
mod network;
pub mod onnx;
mod ports;

pub use network::{Network, Output};
