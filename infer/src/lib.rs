//! Semantic segmentation with ONNX Runtime: a bundle of `protoseg export` and an image in, a label
//! for every pixel out.
//!
//! ```
//! use protoseg_infer::{Outputs, Segmenter, image_file};
//!
//! # let (bundle, street) = ("tests/fixtures/colors", "tests/fixtures/pictures/cmyk_adobe.jpg");
//! let mut segmenter = Segmenter::open(bundle)?;
//! let file = image_file::ImageFile::read(street.as_ref(), image_file::MAX_PIXELS)?;
//! let image = file.decode_as(segmenter.model().reading)?.image;
//! let prediction = segmenter.predict(&image, Outputs::default())?;
//! let label = prediction.labels[[7, 3]];
//! println!("row 7, column 3 is {}", segmenter.model().classes.classes()[usize::from(label)].name);
//! # assert_eq!(prediction.labels.len(), image.len() / 3);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`session`] opens ONNX files and runs them; [`segmenter`] adds windows, [`stitch`] and
//! [`upsample`]; [`pipeline`] runs many images, as [`machine`] allows; [`config`] holds the options
//! of all of these; [`check`] compares a bundle with libtorch; [`import`] makes bundles of other
//! ONNX files. ONNX Runtime is loaded when the first file is opened: the library that
//! `ORT_DYLIB_PATH` names, else one beside the program or in `../lib`, else the system's.
//!
//! Microsoft's builds of ONNX Runtime send telemetry. This library turns that off, but from 1.30 on
//! only the environment variable `ORT_DISABLE_TELEMETRY=1`, read as ONNX Runtime starts, also keeps
//! it from leaving files in the user's cache (`~/.cache/Microsoft`) and in the folder for temporary
//! files. The program `protoseg` sets it; start your own program with it, or set it before the
//! program has threads.
//!
//! **Invariant:** nothing here knows libtorch, training or how ONNX files are written, and only
//! [`session`] names `ort`.

#![warn(missing_docs)]
#![warn(clippy::print_stderr)]

pub mod check;
pub mod config;
pub mod evaluate;
pub mod import;
mod kernels;
pub mod machine;
pub mod pipeline;
mod preprocess;
pub mod seams;
pub mod segmenter;
pub mod session;
pub mod stage;
pub mod stitch;
pub mod upsample;

pub use protoseg_images::{image_file, label_map, labeled};

pub use self::config::EngineConfig;
pub use self::segmenter::{ImageView, Segmenter};
pub use self::stage::{Stage, StageTimes};
pub use self::upsample::{Outputs, Prediction};
