//! The ONNX files of a bundle: which there are, and how they go to disk.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use anyhow::{Context, Result};
use protoseg_models::bundle::{Model, ModelFile, external_data, taps_name};
use protoseg_models::calibration::Calibration;
use protoseg_models::digest;
use protoseg_models::form::{Form, FrameForm, Kind, Precision};
use protoseg_models::gate::Limits;

use crate::network::Network;
use crate::onnx::emit::Emission;
use crate::onnx::frame;
use crate::onnx::pixel_outputs::Decision;
use crate::options::Request;
use crate::precision::Numbers;

/// What the class scores are called.
pub(crate) const LOGITS: &str = "logits";

/// What every frame file says: whoever runs one relies on both.
const DECISIONS: [Decision; 2] = [Decision::Labels, Decision::Confidence];

/// An ONNX file that a bundle will hold.
pub(crate) struct Emitted {
    pub(crate) name: String,
    form: Form,
    pub(crate) emission: Emission,
    /// Whether the manifest lists it, so that programs run it.
    listed: bool,
}

impl Emitted {
    /// Names of what it may become in a folder.
    pub(crate) fn names(&self) -> [String; 2] {
        [self.name.clone(), external_data(&self.name)]
    }

    /// Writes the file into a folder, and says what it is where that is for the manifest. Weights of `external_from` bytes
    /// and more lie in a file beside.
    pub(crate) fn write(&self, folder: &Path, external_from: u64) -> Result<Option<ModelFile>> {
        let Self { name, form, emission: Emission { file, inputs, outputs }, listed } = self;
        let mut out = BufWriter::new(File::create(folder.join(name))?);
        let mut data_sha256 = None;
        if file.weight_bytes() < external_from {
            file.write(&mut out)?;
        } else {
            let data = external_data(name);
            let mut beside = BufWriter::new(File::create(folder.join(&data))?);
            file.write_external(&mut out, &data, &mut beside)?;
            beside.into_inner()?.sync_all()?;
            data_sha256 = Some(digest::of_file(&folder.join(&data))?);
        }
        out.into_inner()?.sync_all()?;
        if !listed {
            return Ok(None);
        }
        Ok(Some(ModelFile {
            file: name.clone(),
            form: form.clone(),
            sha256: digest::of_file(&folder.join(name))?,
            data_sha256,
            inputs: inputs.clone(),
            outputs: outputs.clone(),
            limits: Some(Limits::of(form.precision)),
            adapter: None,
        }))
    }
}

/// All ONNX files of a bundle: one for each number format, and one for each frame size and format in floats.
pub(crate) fn emit(
    network: &Network,
    calibration: Option<&Calibration>,
    model: &Model,
    request: &Request,
) -> Result<Vec<Emitted>> {
    let frames = request.frames.iter().map(|frame| frame.form(model)).collect::<Result<Vec<FrameForm>>>()?;
    frames.iter().try_for_each(|frame| frame::check_size(network, frame, model))?;
    let mut files = Vec::new();
    for &numbers in &request.numbers {
        let (form, emission) = numbers.emit(network, calibration, request.choices, Some(model))?;
        files.push(Emitted { name: numbers.file().to_owned(), form, emission, listed: true });
        if request.taps {
            // Without the model's facts, so that nobody takes it for the model; the form says whose values they are.
            let (form, emission) = numbers.emit(&network.clone().tapped(), calibration, request.choices, None)?;
            files.push(Emitted { name: taps_name(numbers.file()), form, emission, listed: false });
        }
    }
    if request.frames.is_empty() {
        return Ok(files);
    }
    let logits = network.only(LOGITS)?;
    let decisions: BTreeSet<Decision> = DECISIONS.iter().chain(&request.decisions).copied().collect();
    let decisions: Vec<Decision> = decisions.into_iter().collect();
    let halves = request.numbers.contains(&Numbers::Fp16);
    let singles = request.numbers.contains(&Numbers::Fp32) || !halves;
    let precisions = [(Precision::Fp32, "", singles), (Precision::Fp16, ".fp16", halves)];
    for frame in frames {
        let FrameForm { height, width, .. } = frame;
        for (precision, suffix, _) in precisions.iter().filter(|(_, _, wanted)| *wanted) {
            let form = Form { kind: Kind::Frame, precision: *precision, frame: Some(frame), quantization: None };
            let emission = frame::emit(&logits, &form, &frame, &decisions, model)
                .with_context(|| format!("frames of {height}x{width} pixels cannot be written"))?;
            files.push(Emitted { name: format!("frame-{height}x{width}{suffix}.onnx"), form, emission, listed: true });
        }
    }
    Ok(files)
}
