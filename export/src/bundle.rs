//! A checkpoint as a bundle: ONNX file, probe and manifest in one folder, written whole or not at all.

use std::path::Path;

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
use crate::network::Network;
use crate::request::Request;
use crate::{frame, place};

/// What the class scores are called.
const LOGITS: &str = "logits";

/// An ONNX file that a bundle will hold.
struct Emitted {
    described: ModelFile,
    bytes: Vec<u8>,
}

impl Emitted {
    fn new(name: String, form: Form, emission: Emission) -> Self {
        let Emission { model, inputs, outputs } = emission;
        let bytes = model.to_bytes();
        let sha256 = digest::of_bytes(&bytes);
        Self { described: ModelFile { file: name, form, sha256, inputs, outputs }, bytes }
    }
}

/// Writes the bundle of a checkpoint folder. An older bundle at its place is replaced, anything else is left alone and
/// refused.
pub fn write(checkpoint_folder: &Path, out: &Path, request: &Request) -> Result<Manifest> {
    let checkpoint = Checkpoint::read(checkpoint_folder)?;
    let place = place::resolve(out, checkpoint_folder)?;
    let mut model = model(&checkpoint.header, request)?;
    model.weights_sha256 = Some(Checkpoint::weights_digest(checkpoint_folder)?);
    let network = network(&checkpoint, &request.outputs)?.folded()?;

    let files = files(&network, &model, request)?;
    let probe = (!checkpoint.probe.is_empty())
        .then(|| {
            let path = checkpoint_folder.join(bundle::PROBE);
            std::fs::read(&path).with_context(|| path.display().to_string())
        })
        .transpose()?;
    let manifest = Manifest {
        version: Manifest::VERSION.to_owned(),
        model,
        files: files.iter().map(|file| file.described.clone()).collect(),
        probe_sha256: probe.as_deref().map(digest::of_bytes),
        provenance: Provenance { command: request.command.clone(), protoseg: env!("CARGO_PKG_VERSION").to_owned() },
        metrics: checkpoint.metrics,
        gate: Vec::new(),
    };
    let older = Manifest::read(&place).map(|read| read.value.files).unwrap_or_default();
    let models = older.iter().chain(&manifest.files).map(|file| file.file.as_str());
    let known: Vec<&str> = models.chain([bundle::MANIFEST, bundle::PROBE]).collect();
    atomic::write_folder::<anyhow::Error>(&place, &known, |folder| {
        for file in &files {
            atomic::write(&folder.join(&file.described.file), &file.bytes)?;
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
    let mut files = vec![Emitted::new("model.onnx".to_owned(), form.clone(), emit(network, &form, Some(model))?)];
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
        files.push(Emitted::new(format!("frame-{height}x{width}.onnx"), form, emission));
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
fn network(checkpoint: &Checkpoint, taps: &[String]) -> Result<Network> {
    let graph = checkpoint.header.arch.graph();
    let logits = graph.tagged(Tag::Logits).context("the network has no logits")?;
    let mut outputs = vec![(logits, LOGITS)];
    for tap in taps {
        outputs.push((find(&graph, tap)?, tap));
    }
    Network::new(&graph, &checkpoint.weights, &outputs)
}

fn find(graph: &Graph, name: &str) -> Result<NodeId> {
    graph.find(name).with_context(|| {
        let last = name.rsplit('.').next().unwrap_or(name);
        let near = graph.nodes().iter().find(|node| node.name.rsplit('.').next() == Some(last));
        let example = near.or(graph.nodes().last()).map_or("", |node| &node.name);
        format!("the network has no node `{name}`; node names are those of the weights, such as `{example}`")
    })
}
