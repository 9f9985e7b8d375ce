//! Image files, label maps, datasets on disk and annotation formats.
//!
//! [`image_file`] decodes to RGB, [`label_map`] reads and writes ids, [`dataset`] lists the samples
//! of a dataset, [`labeled`] reads them, and `formats` writes annotations. [`scan`] finds the images of
//! a folder, [`list`] reads lists of images.
//!
//! **Invariant:** nothing here knows a network or a runtime.

#![warn(missing_docs)]

pub mod dataset;
#[cfg(feature = "annotations")]
pub mod formats;
pub mod image_file;
mod jpeg;
pub mod label_map;
pub mod labeled;
pub mod list;
pub mod scan;
