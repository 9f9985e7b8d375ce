//! NVIDIA Triton model repository in a bundle: `triton/NAME/{config.pbtxt, 1/model.onnx,
//! labels.txt}`.
//!
//! The configuration (Triton's `model_config.proto`) has inputs and outputs, dynamic batching, a
//! bounded queue and a warm-up.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use protoseg_models::bundle::{self, Dimension, Manifest, Model, ModelFile, TRITON, TensorInfo};
use protoseg_models::variant::ModelKind;

use crate::onnx::proto::UINT8;
use crate::options::LinkMode;

/// Largest batch. Frames of several megapixels fill a GPU by themselves.
const MAX_BATCH: usize = 8;

/// Maximum batching delay in microseconds, well below the time of a frame.
const MAX_DELAY: u32 = 2_000;

/// Length of the queue, beyond which requests are refused at once.
const QUEUE: usize = 64;
/// Timeout in the queue, in microseconds.
const QUEUE_TIMEOUT: u32 = 5_000_000;

/// Height and width of the warm-up image, for files that take any size.
const WARM_UP: [usize; 2] = [512, 1024];

/// A name for a model that is valid as a folder name and a URL path segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TritonName(String);

impl TritonName {
    /// Replaces all but Latin letters, digits and `-_.` in the model's name.
    pub(crate) fn new(name: &str) -> Result<Self> {
        let plain =
            |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
        let replaced: String =
            name.chars().map(|letter| if plain(letter) { letter } else { '-' }).collect();
        let replaced = replaced.trim_matches(['-', '.']);
        ensure!(
            !replaced.is_empty(),
            "the model name `{}` gives no folder name for Triton; set --name in Latin letters and \
             digits",
            name.escape_debug()
        );
        Ok(Self(replaced.to_owned()))
    }
}

/// The file that Triton serves. Logits need postprocessing in the client, so a frame file comes
/// first.
pub(crate) fn served(manifest: &Manifest) -> Option<&ModelFile> {
    let is_frame = |file: &&ModelFile| file.variant.kind == ModelKind::Frame;
    manifest.files.iter().find(is_frame).or(manifest.files.first())
}

/// Writes the repository of one file into the bundle folder that holds it.
pub(crate) fn write(
    folder: &Path,
    TritonName(name): &TritonName,
    model: &Model,
    file: &ModelFile,
    mode: LinkMode,
) -> Result<()> {
    let place = folder.join(TRITON).join(name);
    let about = || format!("the Triton folder {}", place.display());
    fs::create_dir_all(place.join("1")).with_context(about)?;
    fs::write(place.join("config.pbtxt"), config(name, model, file)).with_context(about)?;
    let labels: String =
        model.classes.classes().iter().map(|class| format!("{}\n", class.name)).collect();
    fs::write(place.join("labels.txt"), labels).with_context(about)?;
    let from = folder.join(&file.file);
    let to = place.join("1/model.onnx");
    let placed = match mode {
        LinkMode::Copy => fs::copy(from, to).map(|_| ()),
        LinkMode::Link => fs::hard_link(from, to),
    };
    placed.with_context(about)?;
    if file.data_sha256.is_some() {
        // Under the name in the ONNX file. Always a copy: ONNX Runtime refuses external data with
        // several hard links.
        let data = bundle::external_data(&file.file);
        fs::copy(folder.join(&data), place.join("1").join(&data)).with_context(about)?;
    }
    Ok(())
}

fn config(name: &str, model: &Model, file: &ModelFile) -> String {
    let mut text = format!(
        "# {} classes, by train id in labels.txt; 255 counts nowhere.\nname: \"{name}\"\nbackend: \"onnxruntime\"\n\
         max_batch_size: {MAX_BATCH}\n",
        model.classes.count()
    );
    let mut tensor = |field: &str, info: &TensorInfo| {
        let _ = write!(
            text,
            "{field} [\n  {{\n    name: \"{}\"\n    data_type: {}\n    dims: [ {} ]\n  }}\n]\n",
            info.name,
            data_type(info),
            dims(info, |_| -1)
        );
    };
    file.inputs.iter().for_each(|info| tensor("input", info));
    file.outputs.iter().for_each(|info| tensor("output", info));
    let _ = write!(
        text,
        "dynamic_batching {{\n  max_queue_delay_microseconds: {MAX_DELAY}\n  default_queue_policy {{\n    timeout_action: \
         REJECT\n    default_timeout_microseconds: {QUEUE_TIMEOUT}\n    allow_timeout_override: true\n    max_queue_size: \
         {QUEUE}\n  }}\n}}\n"
    );
    for info in &file.inputs {
        let size = |axis: usize| WARM_UP.get(axis).map_or(1, |&size| size as i64);
        let _ = write!(
            text,
            "model_warmup [\n  {{\n    name: \"one picture\"\n    batch_size: 1\n    inputs {{\n      key: \"{}\"\n      \
             value: {{\n        data_type: {}\n        dims: [ {} ]\n        zero_data: true\n      }}\n    }}\n  }}\n]\n",
            info.name,
            data_type(info),
            dims(info, size)
        );
    }
    if file.variant.kind == ModelKind::Logits {
        // Images have many sizes, and the exhaustive search would run for each.
        text.push_str("parameters {\n  key: \"cudnn_conv_algo_search\"\n  value: { string_value: \"1\" }\n}\n");
    }
    text
}

fn data_type(info: &TensorInfo) -> &'static str {
    if info.element == UINT8 { "TYPE_UINT8" } else { "TYPE_FP32" }
}

/// Returns all dimensions but the first, which Triton adds itself; `open` sizes the nth open one.
fn dims(info: &TensorInfo, open: impl Fn(usize) -> i64) -> String {
    let dimension = |(axis, dimension): (usize, &Dimension)| match dimension {
        Dimension::Fixed(size) => size.to_string(),
        Dimension::Named(_) => open(axis).to_string(),
    };
    info.shape.iter().skip(1).enumerate().map(dimension).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_valid_folder_names() {
        for (name, expected) in
            [("my street", "my-street"), ("../up", "up"), ("éa", "a"), ("v1.2_b", "v1.2_b")]
        {
            assert_eq!(TritonName::new(name).unwrap().0, expected);
        }
        let error = TritonName::new("é").unwrap_err().to_string();
        assert!(error.contains("`é`") && error.contains("--name"), "{error}");
    }
}
