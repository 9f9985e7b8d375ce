//! A checkpoint as a bundle: ONNX file, probe and manifest in one folder, written whole or not at all.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use protoseg_models::atomic;
use protoseg_models::bundle::{self, Manifest, Model, ModelFile, Provenance};
use protoseg_models::checkpoint::{Checkpoint, Header};
use protoseg_models::classes::IGNORE;
use protoseg_models::digest;
use protoseg_models::form::{Form, FrameForm, Kind};
use protoseg_models::graph::{Graph, NodeId, Tag};
use protoseg_models::window::{LogitGrid, Pieces};

use crate::decision::Decision;
use crate::emit::{Emission, emit};
use crate::file::EXTERNAL_FROM;
use crate::network::Network;
use crate::request::Request;
use crate::{frame, place, triton};

/// What the class scores are called.
const LOGITS: &str = "logits";

/// An ONNX file that a bundle will hold.
struct Emitted {
    name: String,
    form: Form,
    emission: Emission,
}

impl Emitted {
    /// Writes the file into a folder, and says what it is. Weights beyond `external_from` bytes lie in a file beside it.
    fn write(&self, folder: &Path, external_from: u64) -> Result<ModelFile> {
        let Self { name, form, emission: Emission { file, inputs, outputs } } = self;
        let mut out = BufWriter::new(File::create(folder.join(name))?);
        let mut data_sha256 = None;
        if file.weight_bytes() < external_from {
            file.write(&mut out)?;
        } else {
            let data = bundle::external_data(name);
            let mut beside = BufWriter::new(File::create(folder.join(&data))?);
            file.write_external(&mut out, &data, &mut beside)?;
            beside.into_inner()?.sync_all()?;
            data_sha256 = Some(digest::of_file(&folder.join(&data))?);
        }
        out.into_inner()?.sync_all()?;
        Ok(ModelFile {
            file: name.clone(),
            form: form.clone(),
            sha256: digest::of_file(&folder.join(name))?,
            data_sha256,
            inputs: inputs.clone(),
            outputs: outputs.clone(),
        })
    }
}

/// Writes the bundle of a checkpoint folder. An older bundle at its place is replaced, anything else is left alone and
/// refused.
pub fn write(checkpoint_folder: &Path, out: &Path, request: &Request) -> Result<Manifest> {
    let mut checkpoint = Checkpoint::read(checkpoint_folder)?;
    let place = place::resolve(out, checkpoint_folder)?;
    let mut model = model(&checkpoint.header, request)?;
    model.weights_sha256 = Some(Checkpoint::weights_digest(checkpoint_folder)?);
    let network = network(&mut checkpoint, &request.outputs)?.folded()?;

    let files = files(&network, &model, request)?;
    let probe = (!checkpoint.probe.is_empty())
        .then(|| {
            let path = checkpoint_folder.join(bundle::PROBE);
            std::fs::read(&path).with_context(|| path.display().to_string())
        })
        .transpose()?;
    let mut manifest = Manifest {
        version: Manifest::VERSION.to_owned(),
        model,
        files: Vec::new(),
        probe_sha256: probe.as_deref().map(digest::of_bytes),
        provenance: Provenance { command: request.command.clone(), protoseg: env!("CARGO_PKG_VERSION").to_owned() },
        metrics: checkpoint.metrics,
        gate: Vec::new(),
    };
    let older = Manifest::read(&place).map(|read| read.value.files).unwrap_or_default();
    let models = older.iter().map(|file| &file.file).chain(files.iter().map(|file| &file.name));
    let models: Vec<String> = models.flat_map(|name| [name.clone(), bundle::external_data(name)]).collect();
    let known: Vec<&str> =
        models.iter().map(String::as_str).chain([bundle::MANIFEST, bundle::PROBE, triton::FOLDER]).collect();
    atomic::write_folder::<anyhow::Error>(&place, &known, |folder| {
        for file in &files {
            let written = file.write(folder, request.external_from.unwrap_or(EXTERNAL_FROM));
            manifest.files.push(written.with_context(|| format!("the file {}", file.name))?);
        }
        if let Some(placement) = request.triton {
            // Labels where there is a file that gives them: scores are for clients with code of their own.
            let frame = manifest.files.iter().find(|file| file.form.kind == Kind::Frame);
            if let Some(file) = frame.or(manifest.files.first()) {
                triton::write(folder, &manifest.model, file, placement)?;
            }
        }
        if let Some(probe) = &probe {
            atomic::write(&folder.join(bundle::PROBE), probe)?;
        }
        Ok(manifest.write(folder)?)
    })
    .with_context(|| format!("{} could not be written", out.display()))?;
    Ok(manifest)
}

/// All ONNX files of a bundle.
fn files(network: &Network, model: &Model, request: &Request) -> Result<Vec<Emitted>> {
    let form = Form::LOGITS;
    let emission = emit(network, &form, Some(model))?;
    let mut files = vec![Emitted { name: "model.onnx".to_owned(), form, emission }];
    if request.frames.is_empty() {
        return Ok(files);
    }
    let logits = network.only(LOGITS)?;
    let decisions: &[Decision] =
        if request.decisions.is_empty() { &[Decision::Labels, Decision::Confidence] } else { &request.decisions };
    for frame in &request.frames {
        let frame = frame.form(model)?;
        let FrameForm { height, width, .. } = frame;
        let form = Form { kind: Kind::Frame, frame: Some(frame), ..Form::LOGITS };
        let emission = frame::emit(&logits, &form, &frame, decisions, model)
            .with_context(|| format!("frames of {height}x{width} pixels cannot be written"))?;
        files.push(Emitted { name: format!("frame-{height}x{width}.onnx"), form, emission });
    }
    Ok(files)
}

/// The facts of the model, but for its weights' digest.
fn model(header: &Header, request: &Request) -> Result<Model> {
    let grid = LogitGrid::of(header.arch);
    let window = request.pieces.map_or(header.window, Pieces::window);
    if let Some(window) = window {
        grid.check(window)?;
        let graph = header.arch.deployed();
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
        name: request.name.clone().unwrap_or_else(|| header.name.clone()),
        classes: header.classes.clone(),
        ignore: IGNORE,
        grid,
        window,
        arch: Some(header.arch),
        weights_sha256: None,
    })
}

/// The deployed network: the logits, and the nodes asked for beside them.
fn network(checkpoint: &mut Checkpoint, taps: &[String]) -> Result<Network> {
    let graph = checkpoint.header.arch.graph();
    let logits = graph.tagged(Tag::Logits).context("the network has no logits")?;
    let mut outputs = vec![(logits, LOGITS)];
    for tap in taps {
        outputs.push((find(&graph, tap)?, tap));
    }
    let weights = std::mem::take(&mut checkpoint.weights);
    Network::with(&graph, weights.into_iter().map(|(name, tensor)| (name, Arc::new(tensor))).collect(), &outputs)
}

fn find(graph: &Graph, name: &str) -> Result<NodeId> {
    graph.find(name).with_context(|| {
        let last = name.rsplit('.').next().unwrap_or(name);
        let near = graph.nodes().iter().find(|node| node.name.rsplit('.').next() == Some(last));
        let example = near.or(graph.nodes().last()).map_or("", |node| &node.name);
        format!("the network has no node `{name}`; node names are those of the weights, such as `{example}`")
    })
}
