//! Semantic segmentation with ONNX Runtime: a bundle of `protoseg export` and a picture in, a label for every pixel out.
//!
//! ```
//! use protoseg_infer::{image_file, segmenter::Segmenter};
//!
//! # let (bundle, street) = ("tests/fixtures/colors", "tests/fixtures/pictures/cmyk_adobe.jpg");
//! let mut segmenter = Segmenter::open(bundle)?;
//! let image = image_file::read(street.as_ref(), image_file::MAX_PIXELS)?;
//! let map = segmenter.segment(&image)?;
//! let label = map.labels[7 * map.width + 3];
//! println!("the pixel in row 7, column 3 is {}", segmenter.model().classes.classes()[usize::from(label)].name);
//! # assert_eq!(map.labels.len(), image.len() / 3);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`session`] opens ONNX files and runs them; [`segmenter`] adds windows, [`stitch`] and [`upsample`]; [`pipeline`] runs
//! many pictures, as [`machine`] allows; [`check`] holds a bundle against libtorch; [`image_file`], [`label_map`] and [`labeled`]
//! read and write files. ONNX Runtime is loaded when the first file is opened: the library that `ORT_DYLIB_PATH` names, else one beside the program or in `../lib`, else the system's.
//!
//! The builds of ONNX Runtime that Microsoft gives out send telemetry. This library turns that off, but from 1.30 on only the
//! environment variable `ORT_DISABLE_TELEMETRY=1`, read as ONNX Runtime starts, also keeps it from leaving files in the
//! user's cache (`~/.cache/Microsoft`) and in the folder for temporary files. The program `protoseg` sets it; a program of
//! one's own is to be started with it, or to set it before it has threads.
//!
//! **Invariant:** nothing here knows libtorch, training or how ONNX files are written, and only [`session`] names `ort`.

#![warn(missing_docs)]
#![warn(clippy::print_stderr)]

pub mod check;
mod crop;
pub mod import;
mod kernels;
pub mod machine;
pub mod pipeline;
mod preprocess;
pub mod segmenter;
pub mod session;
pub mod stitch;
pub mod upsample;

pub use protoseg_images::{image_file, label_map, labeled};
