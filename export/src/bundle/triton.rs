//! A model repository for NVIDIA Triton beside the bundle's files: `triton/NAME/{config.pbtxt, 1/model.onnx, labels.txt}`.
//!
//! The configuration is that of Triton's `model_config.proto`: what goes in and out, batches that are filled from the
//! queue, a queue that ends, and a run before the model counts as ready.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use protoseg_models::bundle::{self, Dimension, Model, ModelFile, TRITON, TensorInfo};
use protoseg_models::variant::ModelKind;

use crate::onnx::signature;
use crate::options::LinkMode;

/// Pictures that Triton may run at once. Frames of several megapixels fill a GPU by themselves.
const MAX_BATCH: usize = 8;

/// How long the first request of a batch may wait for others, in microseconds: well below what a frame takes.
const MAX_DELAY: u32 = 2_000;

/// Requests that may wait, and how long; more are refused, so that a client learns of it at once.
const QUEUE: usize = 64;
const QUEUE_TIMEOUT: u32 = 5_000_000;

/// Height and width of the picture of the first run, for files that take any size.
const WARM_UP: [usize; 2] = [512, 1024];

/// What Triton calls a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TritonName(String);

impl TritonName {
    /// The model's name where it is a folder on every system and a path segment of an address, else one that is like it.
    pub(crate) fn new(name: &str) -> Result<Self> {
        let plain =
            |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
        let like: String =
            name.chars().map(|letter| if plain(letter) { letter } else { '-' }).collect();
        let like = like.trim_matches(['-', '.']);
        ensure!(
            !like.is_empty(),
            "Triton's folder cannot be called after the model `{}`; name the model with --name, in Latin letters and digits",
            name.escape_debug()
        );
        Ok(Self(like.to_owned()))
    }
}

/// Writes the repository of one file into a bundle folder that already holds it. The model is a hard link, or a copy.
pub(crate) fn write(
    folder: &Path,
    TritonName(name): &TritonName,
    model: &Model,
    file: &ModelFile,
    placement: LinkMode,
) -> Result<()> {
    let place = folder.join(TRITON).join(name);
    let about = || format!("the Triton folder {}", place.display());
    fs::create_dir_all(place.join("1")).with_context(about)?;
    fs::write(place.join("config.pbtxt"), config(name, model, file)).with_context(about)?;
    let labels: String =
        model.classes.classes().iter().map(|class| format!("{}\n", class.name)).collect();
    fs::write(place.join("labels.txt"), labels).with_context(about)?;
    let give = |from: &Path, to: &Path| -> io::Result<()> {
        match placement {
            LinkMode::Copy => fs::copy(from, to).map(|_| ()),
            LinkMode::Link => fs::hard_link(from, to),
        }
    };
    give(&folder.join(&file.file), &place.join("1/model.onnx")).with_context(about)?;
    if file.data_sha256.is_some() {
        // The ONNX file names it so. Always a copy: readers refuse weights that have another link, as a way to reach files
        // that are not theirs.
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
    let mut tensor = |field: &str, port: &TensorInfo| {
        let _ = write!(
            text,
            "{field} [\n  {{\n    name: \"{}\"\n    data_type: {}\n    dims: [ {} ]\n  }}\n]\n",
            port.name,
            data_type(port),
            dims(port, |_| -1)
        );
    };
    file.inputs.iter().for_each(|port| tensor("input", port));
    file.outputs.iter().for_each(|port| tensor("output", port));
    let _ = write!(
        text,
        "dynamic_batching {{\n  max_queue_delay_microseconds: {MAX_DELAY}\n  default_queue_policy {{\n    timeout_action: \
         REJECT\n    default_timeout_microseconds: {QUEUE_TIMEOUT}\n    allow_timeout_override: true\n    max_queue_size: \
         {QUEUE}\n  }}\n}}\n"
    );
    for port in &file.inputs {
        let size = |axis: usize| WARM_UP.get(axis).map_or(1, |&size| size as i64);
        let _ = write!(
            text,
            "model_warmup [\n  {{\n    name: \"one picture\"\n    batch_size: 1\n    inputs {{\n      key: \"{}\"\n      \
             value: {{\n        data_type: {}\n        dims: [ {} ]\n        zero_data: true\n      }}\n    }}\n  }}\n]\n",
            port.name,
            data_type(port),
            dims(port, size)
        );
    }
    if file.variant.kind == ModelKind::Logits {
        // Pictures of many sizes: the exhaustive search for algorithms would run anew for each of them.
        text.push_str("parameters {\n  key: \"cudnn_conv_algo_search\"\n  value: { string_value: \"1\" }\n}\n");
    }
    text
}

fn data_type(port: &TensorInfo) -> &'static str {
    if port.element == signature::UINT8 { "TYPE_UINT8" } else { "TYPE_FP32" }
}

/// All dimensions but the first, which Triton adds itself; `open` says what stands for the nth of any size.
fn dims(port: &TensorInfo, open: impl Fn(usize) -> i64) -> String {
    let dimension = |(axis, dimension): (usize, &Dimension)| match dimension {
        Dimension::Fixed(size) => size.to_string(),
        Dimension::Named(_) => open(axis).to_string(),
    };
    port.shape.iter().skip(1).enumerate().map(dimension).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_plain_folder_names() {
        for (name, expected) in
            [("my street", "my-street"), ("../up", "up"), ("éa", "a"), ("v1.2_b", "v1.2_b")]
        {
            assert_eq!(TritonName::new(name).unwrap().0, expected);
        }
        let error = TritonName::new("é").unwrap_err().to_string();
        assert!(error.contains("`é`") && error.contains("--name"), "{error}");
    }
}
