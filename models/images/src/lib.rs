//! Image files, label maps, datasets on disk and annotation formats.
//!
//! [`image_file`] decodes to RGB and [`notes`] tell what may not be meant, [`label_map`] reads and writes ids, [`dataset`] lists the samples
//! of a dataset, [`labeled`] reads them, and `formats` writes annotations.
//!
//! **Invariant:** nothing here knows a network or a runtime.

#![warn(missing_docs)]

mod channels;
pub mod dataset;
#[cfg(feature = "annotations")]
pub mod formats;
pub mod geo;
pub mod geo_tiff;
pub mod image_file;
mod jpeg;
pub mod label_map;
pub mod labeled;
pub mod notes;
mod samples;
mod tiff_file;
