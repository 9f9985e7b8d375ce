//! Export of a checkpoint folder to a bundle folder, written atomically.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use protoseg_models::atomic;
use protoseg_models::bundle::{
    self, Manifest, Model, ModelFile, ProbeReference, Provenance, external_data, taps_file_name,
};
use protoseg_models::bundle_output;
use protoseg_models::calibration::Calibration;
use protoseg_models::checkpoint::{Checkpoint, CheckpointHeader};
use protoseg_models::classes::IGNORE_INDEX;
use protoseg_models::digest;
use protoseg_models::gate::GateLimits;
use protoseg_models::graph::{Graph, NodeId, Tag};
use protoseg_models::reading::ImageReading;
use protoseg_models::variant::{FrameSpec, ModelKind, Precision, Variant};
use protoseg_models::window::{Blend, LogitGrid, Tiling, Window};

use crate::network::{Network, PixelOutput};
use crate::onnx::LOGITS;
use crate::onnx::emit::{EmittedModel, emit, emit_quantized};
use crate::onnx::file::EXTERNAL_FROM;
use crate::onnx::frame;
use crate::options::{ExportOptions, ExportPrecision, LinkMode};
use crate::quantize::float16;
use crate::quantize::plan::{QuantizationPlan, QuantizeConfig};

mod triton;

/// Name of the features output, whichever node computes them.
const FEATURES: &str = "features";

/// Outputs of every frame file, which all programs rely on.
const FRAME_OUTPUTS: [PixelOutput; 2] = [PixelOutput::Labels, PixelOutput::Confidence];

/// A bundle that is ready to be written.
pub struct PreparedBundle {
    out: PathBuf,
    /// `out` without links in its path.
    place: PathBuf,
    files: Vec<BundleFile>,
    probe: Option<Vec<u8>>,
    /// Without its files.
    manifest: Manifest,
    triton: Option<(triton::TritonName, LinkMode)>,
    external_from: u64,
    /// How training read image files.
    trained: ImageReading,
}

/// Writes the bundle of a checkpoint folder. Replaces an older bundle, and refuses other folders.
pub fn write(checkpoint_folder: &Path, out: &Path, options: &ExportOptions) -> Result<Manifest> {
    prepare(checkpoint_folder, out, options)?.write(|_, _| Ok(Vec::new()))
}

/// Makes the bundle of a checkpoint folder, all but writing it. Refuses other folders than new ones,
/// empty ones and older bundles.
pub fn prepare(
    checkpoint_folder: &Path,
    out: &Path,
    options: &ExportOptions,
) -> Result<PreparedBundle> {
    options.check()?;
    let mut checkpoint = Checkpoint::read(checkpoint_folder)?;
    let place = bundle_output::resolve(out, checkpoint_folder)?;
    let trained = checkpoint.header.reading;
    let mut model = model(&checkpoint.header, options)?;
    model.weights_sha256 = Some(Checkpoint::weights_digest(checkpoint_folder)?);
    let triton = match options.triton {
        Some(mode) => Some((triton::TritonName::new(&model.name)?, mode)),
        None => None,
    };
    let files = network(&mut checkpoint, options)
        .and_then(Network::fold_batch_norm)
        .and_then(Network::fold_layer_scale)
        .and_then(Network::merge_affine)
        .and_then(|network| emit_all(&network, checkpoint.calibration.as_ref(), &model, options))
        .with_context(|| checkpoint_folder.display().to_string())?;
    let probe = if checkpoint.probe.is_empty() {
        None
    } else {
        let path = checkpoint_folder.join(bundle::PROBE);
        Some(std::fs::read(&path).with_context(|| path.display().to_string())?)
    };
    let window = window_reason(&checkpoint.header, model.window, options);
    let manifest = Manifest {
        version: Manifest::VERSION.to_owned(),
        model,
        files: Vec::new(),
        probe_sha256: probe.as_deref().map(digest::sha256_bytes),
        reference: ProbeReference::Libtorch,
        provenance: Provenance {
            command: options.command.clone(),
            window: Some(window),
            protoseg: env!("CARGO_PKG_VERSION").to_owned(),
        },
        metrics: checkpoint.metrics,
        gate: Vec::new(),
    };
    let external_from = options.external_from.unwrap_or(EXTERNAL_FROM);
    let out = out.into();
    Ok(PreparedBundle { out, place, files, probe, manifest, triton, external_from, trained })
}

impl PreparedBundle {
    /// Returns true if the checkpoint has a probe, which every check needs.
    pub fn has_probe(&self) -> bool {
        self.probe.is_some()
    }

    /// Says where image files will be read in another way than in training; None where they are not.
    pub fn other_reading(&self) -> Option<String> {
        let (trained, read) = (self.trained, self.manifest.model.reading);
        (read != trained).then(|| {
            format!(
                "the bundle reads image files by {read}, and training read its own {}: right where the files themselves differ so",
                if trained.is_default() { "as they say".to_owned() } else { format!("by {trained}") }
            )
        })
    }

    /// Says which windows are the default, and why.
    pub fn window_reason(&self) -> &str {
        self.manifest.provenance.window.as_deref().unwrap_or_default()
    }

    /// Writes a hidden folder, hands it with its manifest to `judge`, and puts it into place, in
    /// exchange for an older bundle, without the files that `judge` names. On an error nothing
    /// changes.
    pub fn write(
        self,
        judge: impl FnOnce(&Path, &Manifest) -> Result<Vec<String>>,
    ) -> Result<Manifest> {
        let Self { out, place, files, probe, mut manifest, triton, external_from, .. } = self;
        let mut known = bundle_output::replaceable_names(&place, &manifest);
        known.extend(files.iter().flat_map(|file| [file.name.clone(), external_data(&file.name)]));
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        atomic::write_folder::<anyhow::Error>(&place, &known, |folder| {
            for file in &files {
                let written = file.write(folder, external_from);
                manifest.files.extend(written.with_context(|| format!("the file {}", file.name))?);
            }
            let write_triton = |manifest: &Manifest| match &triton {
                Some((name, mode)) => match triton::served(manifest) {
                    Some(file) => triton::write(folder, name, &manifest.model, file, *mode),
                    None => Ok(()),
                },
                None => Ok(()),
            };
            write_triton(&manifest)?;
            if let Some(probe) = &probe {
                atomic::write(&folder.join(bundle::PROBE), probe)?;
            }
            manifest.write(folder)?;
            let left_out = judge(folder, &manifest)?;
            if !left_out.is_empty() {
                leave_out(folder, &mut manifest, &left_out)?;
                write_triton(&manifest)?;
            }
            Ok(())
        })
        .with_context(|| format!("{} could not be written", out.display()))?;
        Ok(manifest)
    }
}

/// Removes files from a bundle's folder and its manifest, which keeps what a check has recorded of
/// the others, and the Triton repository, which may hold one of them.
fn leave_out(folder: &Path, manifest: &mut Manifest, names: &[String]) -> Result<()> {
    *manifest = Manifest::read(folder)?.value;
    manifest.files.retain(|file| !names.contains(&file.file));
    manifest.gate.retain(|result| !names.contains(&result.file));
    manifest.write(folder)?;
    for name in names {
        for name in [name.clone(), taps_file_name(name)] {
            for path in [folder.join(external_data(&name)), folder.join(&name)] {
                if path.exists() {
                    std::fs::remove_file(&path).with_context(|| path.display().to_string())?;
                }
            }
        }
    }
    let triton = folder.join(bundle::TRITON);
    if triton.exists() {
        std::fs::remove_dir_all(&triton).with_context(|| triton.display().to_string())?;
    }
    Ok(())
}

/// Describes the model, except for the digest of its weights.
fn model(header: &CheckpointHeader, options: &ExportOptions) -> Result<Model> {
    let grid = LogitGrid::from_arch(header.arch);
    let window = options.window.map_or(header.window, Tiling::window);
    if let Some(window) = window {
        grid.check(window)?;
        let graph = header.arch.inference_graph();
        let logits = graph.tagged(Tag::Logits).context("the network has no logits")?;
        let shape = &graph.shapes(1, window.size, window.size)?[logits.0];
        ensure!(
            shape[2..] == [grid.logits(window.size); 2],
            "windows of {} pixels give logits of {}x{}, off the network's grid",
            window.size,
            shape[2],
            shape[3]
        );
    }
    Ok(Model {
        version: Model::VERSION.to_owned(),
        name: options.name.clone().unwrap_or_else(|| header.name.clone()),
        classes: header.classes.clone(),
        ignore: IGNORE_INDEX,
        grid,
        window,
        arch: Some(header.arch),
        blend: Blend::Ramp,
        weights_sha256: None,
        reading: header.reading.overlaid(options.reading()),
    })
}

/// Says which windows are the default and why, and how to compare them with the others.
fn window_reason(
    header: &CheckpointHeader,
    window: Option<Window>,
    options: &ExportOptions,
) -> String {
    let trained = Tiling::from(header.window);
    let origin = match options.window {
        Some(asked) if asked != trained => format!("as --window says; training scored {trained}"),
        Some(_) => "as --window says and as training scored".to_owned(),
        None => "as training scored".to_owned(),
    };
    match window {
        Some(Window { size, stride }) => format!(
            "windows of {size}:{stride}, {origin}; whole images take more memory and less time where windows overlap: compare \
             `protoseg eval --window whole`"
        ),
        None => format!(
            "whole images, {origin}; where they do not fit into memory, --window SIZE:STRIDE at export or at a run divides them"
        ),
    }
}

/// Returns the inference network with logits and the further outputs of model files.
fn network(checkpoint: &mut Checkpoint, options: &ExportOptions) -> Result<Network> {
    let graph = checkpoint.header.arch.graph();
    let logits = graph.tagged(Tag::Logits).context("the network has no logits")?;
    let mut outputs = vec![(logits, LOGITS)];
    let mut pixel_outputs: Vec<PixelOutput> = Vec::new();
    for name in &options.outputs {
        if let Some(output) = PixelOutput::from_name(name) {
            ensure!(!pixel_outputs.contains(&output), "the output {name} is given twice");
            pixel_outputs.push(output);
        } else if name == FEATURES {
            outputs.push((graph.tagged(Tag::Features).context("no features")?, name));
        } else {
            outputs.push((find(&graph, name)?, name));
        }
    }
    let weights = std::mem::take(&mut checkpoint.weights);
    let weights = weights.into_iter().map(|(name, tensor)| (name, Arc::new(tensor))).collect();
    let network =
        Network::from_shared(&graph, weights, &outputs)?.with_pixel_outputs(&pixel_outputs);
    if !options.prototype_confidence {
        return Ok(network);
    }
    let prototypes = checkpoint.prototypes.take().context(
        "no prototypes.json, which --prototype-confidence needs; train with mode = \"prototype\", \
         past the warm-up",
    )?;
    network.with_prototype_head(prototypes)
}

fn find(graph: &Graph, name: &str) -> Result<NodeId> {
    graph.find(name).with_context(|| {
        let last = name.rsplit('.').next().unwrap_or(name);
        let near = graph.nodes().iter().find(|node| node.name.rsplit('.').next() == Some(last));
        let example = near.or(graph.nodes().last()).map_or("", |node| &node.name);
        format!(
            "the network has no node `{name}`; node names are those of the weights, such as \
             `{example}`"
        )
    })
}

/// An ONNX file of a bundle.
struct BundleFile {
    name: String,
    variant: Variant,
    model: EmittedModel,
    /// Listed in the manifest, so that programs run it.
    listed: bool,
}

impl BundleFile {
    /// Writes the file into a folder, with weights of at least `external_from` bytes in a file of
    /// their own. Returns its entry in the manifest, if it is listed.
    fn write(&self, folder: &Path, external_from: u64) -> Result<Option<ModelFile>> {
        let Self { name, variant, model: EmittedModel { file, inputs, outputs }, listed } = self;
        let path = folder.join(name);
        let mut out = BufWriter::new(File::create(&path)?);
        let mut data_sha256 = None;
        if file.weight_bytes() < external_from {
            file.write(&mut out)?;
        } else {
            let data_name = external_data(name);
            let data_path = folder.join(&data_name);
            let mut data = BufWriter::new(File::create(&data_path)?);
            file.write_external(&mut out, &data_name, &mut data)?;
            data.into_inner()?.sync_all()?;
            data_sha256 = Some(digest::sha256_file(&data_path)?);
        }
        out.into_inner()?.sync_all()?;
        if !listed {
            return Ok(None);
        }
        Ok(Some(ModelFile {
            file: name.clone(),
            variant: variant.clone(),
            sha256: digest::sha256_file(&path)?,
            data_sha256,
            inputs: inputs.clone(),
            outputs: outputs.clone(),
            limits: Some(GateLimits::for_precision(variant.precision)),
            weights: BTreeMap::new(),
            adapter: None,
        }))
    }
}

/// Makes all ONNX files: one for each precision, and one for each frame size and float precision.
fn emit_all(
    network: &Network,
    calibration: Option<&Calibration>,
    model: &Model,
    options: &ExportOptions,
) -> Result<Vec<BundleFile>> {
    let frames =
        options.frames.iter().map(|frame| frame.spec(model)).collect::<Result<Vec<FrameSpec>>>()?;
    frames.iter().try_for_each(|frame| frame::check_size(network, frame, model))?;
    let mut files = Vec::new();
    for &precision in &options.precisions {
        let mut push = |name: String, network: &Network, model: Option<&Model>, listed: bool| {
            let (variant, model) = emit_logits(network, precision, calibration, options, model)?;
            files.push(BundleFile { name, variant, model, listed });
            anyhow::Ok(())
        };
        let name = precision.file_name();
        push(name.to_owned(), network, Some(model), true)?;
        if options.taps {
            // Without the model's description, so that no program takes it for the model.
            push(taps_file_name(name), &network.clone().with_taps(), None, false)?;
        }
    }
    if frames.is_empty() {
        return Ok(files);
    }
    let logits = network.keep_output(LOGITS)?;
    let pixel_outputs: BTreeSet<PixelOutput> =
        FRAME_OUTPUTS.iter().chain(&options.pixel_outputs).copied().collect();
    let pixel_outputs: Vec<PixelOutput> = pixel_outputs.into_iter().collect();
    let fp16 = options.precisions.contains(&ExportPrecision::Fp16);
    let fp32 = options.precisions.contains(&ExportPrecision::Fp32) || !fp16;
    let precisions = [(Precision::Fp32, "", fp32), (Precision::Fp16, ".fp16", fp16)];
    for frame in frames {
        let FrameSpec { height, width, .. } = frame;
        for (precision, suffix, _) in precisions.iter().filter(|(_, _, wanted)| *wanted) {
            let variant = Variant {
                kind: ModelKind::Frame,
                precision: *precision,
                frame: Some(frame),
                quantization: None,
            };
            let model = frame::emit(&logits, &variant, &frame, &pixel_outputs, model)
                .with_context(|| format!("frames of {height}x{width} pixels cannot be written"))?;
            let name = format!("frame-{height}x{width}{suffix}.onnx");
            files.push(BundleFile { name, variant, model, listed: true });
        }
    }
    Ok(files)
}

/// Makes the file from images to logits in one precision.
fn emit_logits(
    network: &Network,
    precision: ExportPrecision,
    calibration: Option<&Calibration>,
    options: &ExportOptions,
    model: Option<&Model>,
) -> Result<(Variant, EmittedModel)> {
    let mut config = match precision {
        ExportPrecision::Fp32 | ExportPrecision::Fp16 => {
            let mut variant = Variant::LOGITS;
            if precision == ExportPrecision::Fp16 {
                float16::check(network, calibration)?;
                variant.precision = Precision::Fp16;
            }
            let emitted = emit(network, &variant, model)?;
            return Ok((variant, emitted));
        }
        ExportPrecision::Int8 => QuantizeConfig {
            weight_bits: options.weight_bits.unwrap_or(QuantizeConfig::CPU.weight_bits),
            ..QuantizeConfig::CPU
        },
        ExportPrecision::Int8Trt => QuantizeConfig::TENSORRT,
    };
    config.max_sensitivity = options.max_sensitivity.unwrap_or(config.max_sensitivity);
    let calibration = calibration.with_context(|| {
        format!(
            "{precision} needs value ranges, and the checkpoint has no calibration.json; record \
             them by `protoseg train calibrate CHECKPOINT`, or train with calibration_images above 0"
        )
    })?;
    let plan = QuantizationPlan::new(network, calibration, config)?;
    let emitted = emit_quantized(network, &plan, model)?;
    Ok((plan.variant().clone(), emitted))
}

#[cfg(test)]
mod tests;
