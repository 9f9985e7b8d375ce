//! Networks as data, class tables, window geometry, metrics and the file formats of protoseg.
//!
//! Start at [`arch::Arch`], which names a network and builds its [`graph::Graph`]. [`checkpoint`]
//! and [`bundle`] are the two folders through which the programs exchange models.
//!
//! **Invariant:** nothing here depends on libtorch, ONNX, image files or a network connection.

#![warn(missing_docs)]

pub mod adapter;
pub mod analysis;
pub mod arch;
pub mod atomic;
pub mod boundary;
pub mod bundle;
pub mod bundle_output;
pub mod calibration;
pub mod checkpoint;
pub mod classes;
pub mod digest;
pub mod errors;
pub mod formula;
pub mod gate;
pub mod graph;
pub mod interface;
pub mod metrics;
pub mod probe;
pub mod prototypes;
pub mod random;
pub mod reading;
pub mod scaling;
pub mod variant;
pub mod versioned;
pub mod weights;
pub mod window;
