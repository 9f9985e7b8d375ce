//! What protoseg's programs agree on: networks as data, class tables, window geometry, scores and file formats.
//!
//! Start at [`arch::Arch`], which names a network and makes its [`graph::Graph`]; [`checkpoint`] and [`bundle`] are the
//! two folders through which the programs meet.
//!
//! **Invariant:** nothing here knows libtorch, ONNX, image files or the network.

#![warn(missing_docs)]

pub mod adapter;
pub mod arch;
pub mod atomic;
pub mod boundary;
pub mod bundle;
pub mod calibration;
pub mod checkpoint;
pub mod class_file;
pub mod classes;
mod cost;

pub mod bundle_output;
mod deeplab;
pub mod digest;
pub mod efficientnet_lite;
pub mod errors;
pub mod formula;
pub mod gate;
pub mod graph;
mod grid;
pub mod metrics;
pub mod parameters;
pub mod probe;
pub mod prototypes;
pub mod random;
pub mod resnet;
mod shape;
pub mod variant;
pub mod versioned;
pub mod weights;
pub mod window;

pub use shape::InputTooSmall;
