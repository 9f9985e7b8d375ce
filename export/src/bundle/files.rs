//! The ONNX files of a bundle: which there are, and how they go to disk.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use anyhow::{Context, Result};
use protoseg_models::bundle::{Model, ModelFile, external_data, taps_file_name};
use protoseg_models::calibration::Calibration;
use protoseg_models::digest;
use protoseg_models::gate::GateLimits;
use protoseg_models::variant::{FrameSpec, ModelKind, Precision, Variant};

use crate::network::Network;
use crate::onnx::emit::EmittedModel;
use crate::onnx::frame;
use crate::onnx::pixel_outputs::PixelOutput;
use crate::options::ExportOptions;
use crate::precision::ExportPrecision;

/// What the class scores are called.
pub(crate) const LOGITS: &str = "logits";

/// What every frame file says: whoever runs one relies on both.
const FRAME_OUTPUTS: [PixelOutput; 2] = [PixelOutput::Labels, PixelOutput::Confidence];

/// An ONNX file that a bundle will hold.
pub(crate) struct BundleFile {
    pub(crate) name: String,
    form: Variant,
    pub(crate) emission: EmittedModel,
    /// Whether the manifest lists it, so that programs run it.
    listed: bool,
}

impl BundleFile {
    /// Names of what it may become in a folder.
    pub(crate) fn names(&self) -> [String; 2] {
        [self.name.clone(), external_data(&self.name)]
    }

    /// Writes the file into a folder, and says what it is where that is for the manifest. Weights of `external_from` bytes
    /// and more lie in a file beside.
    pub(crate) fn write(&self, folder: &Path, external_from: u64) -> Result<Option<ModelFile>> {
        let Self { name, form, emission: EmittedModel { file, inputs, outputs }, listed } = self;
        let mut out = BufWriter::new(File::create(folder.join(name))?);
        let mut data_sha256 = None;
        if file.weight_bytes() < external_from {
            file.write(&mut out)?;
        } else {
            let data = external_data(name);
            let mut beside = BufWriter::new(File::create(folder.join(&data))?);
            file.write_external(&mut out, &data, &mut beside)?;
            beside.into_inner()?.sync_all()?;
            data_sha256 = Some(digest::sha256_file(&folder.join(&data))?);
        }
        out.into_inner()?.sync_all()?;
        if !listed {
            return Ok(None);
        }
        Ok(Some(ModelFile {
            file: name.clone(),
            variant: form.clone(),
            sha256: digest::sha256_file(&folder.join(name))?,
            data_sha256,
            inputs: inputs.clone(),
            outputs: outputs.clone(),
            limits: Some(GateLimits::for_precision(form.precision)),
            adapter: None,
        }))
    }
}

/// All ONNX files of a bundle: one for each number format, and one for each frame size and format in floats.
pub(crate) fn emit(
    network: &Network,
    calibration: Option<&Calibration>,
    model: &Model,
    request: &ExportOptions,
) -> Result<Vec<BundleFile>> {
    let frames =
        request.frames.iter().map(|frame| frame.form(model)).collect::<Result<Vec<FrameSpec>>>()?;
    frames.iter().try_for_each(|frame| frame::check_size(network, frame, model))?;
    let mut files = Vec::new();
    for &numbers in &request.precisions {
        let (form, emission) = numbers.emit(network, calibration, request.choices, Some(model))?;
        files.push(BundleFile {
            name: numbers.file_name().to_owned(),
            form,
            emission,
            listed: true,
        });
        if request.taps {
            // Without the model's facts, so that nobody takes it for the model; the form says whose values they are.
            let (form, emission) =
                numbers.emit(&network.clone().with_taps(), calibration, request.choices, None)?;
            files.push(BundleFile {
                name: taps_file_name(numbers.file_name()),
                form,
                emission,
                listed: false,
            });
        }
    }
    if request.frames.is_empty() {
        return Ok(files);
    }
    let logits = network.keep_output(LOGITS)?;
    let pixel_outputs: BTreeSet<PixelOutput> =
        FRAME_OUTPUTS.iter().chain(&request.pixel_outputs).copied().collect();
    let pixel_outputs: Vec<PixelOutput> = pixel_outputs.into_iter().collect();
    let halves = request.precisions.contains(&ExportPrecision::Fp16);
    let singles = request.precisions.contains(&ExportPrecision::Fp32) || !halves;
    let precisions = [(Precision::Fp32, "", singles), (Precision::Fp16, ".fp16", halves)];
    for frame in frames {
        let FrameSpec { height, width, .. } = frame;
        for (precision, suffix, _) in precisions.iter().filter(|(_, _, wanted)| *wanted) {
            let form = Variant {
                kind: ModelKind::Frame,
                precision: *precision,
                frame: Some(frame),
                quantization: None,
            };
            let emission = frame::emit(&logits, &form, &frame, &pixel_outputs, model)
                .with_context(|| format!("frames of {height}x{width} pixels cannot be written"))?;
            files.push(BundleFile {
                name: format!("frame-{height}x{width}{suffix}.onnx"),
                form,
                emission,
                listed: true,
            });
        }
    }
    Ok(files)
}
