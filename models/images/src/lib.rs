//! Image files, label maps, datasets on disk and annotation formats.
//!
//! [`image_file`] decodes to RGB and [`notes`] tell what may not be meant; [`image_rows`] and
//! [`label_rows`] do so for images that are larger than memory; [`label_map`] reads and writes ids,
//! [`mask`] reads the masks of annotation tools and [`label_mapping`] gives them their meaning,
//! [`id_map`] other ids; [`scan`] finds the images of a folder, [`list`] reads lists of images, [`dataset`] finds
//! the samples of a dataset, [`labeled`] reads them, `formats` writes annotations and `convert` reads
//! them.
//!
//! **Invariant:** nothing here knows a network or a runtime.

#![warn(missing_docs)]

mod animation;
mod channels;
#[cfg(feature = "annotations")]
pub mod convert;
pub mod dataset;
#[cfg(feature = "annotations")]
pub mod formats;
pub mod geo;
pub mod geo_tiff;
pub mod id_map;
pub mod image_file;
pub mod image_rows;
mod jpeg;
pub mod label_census;
pub mod label_map;
pub mod label_mapping;
pub mod label_rows;
pub mod labeled;
pub mod list;
pub mod mask;
pub mod notes;
pub mod overlap;
mod pairing;
pub mod palettes;
mod samples;
pub mod scan;
#[doc(hidden)]
pub mod testing;
pub mod thumbnail;
mod tiff_file;
mod turning;
pub mod world_file;
