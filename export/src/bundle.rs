//! A checkpoint as a bundle: ONNX file, probe and manifest in one folder, written whole or not at all.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use protoseg_models::atomic;
use protoseg_models::bundle::{self, Manifest, Model, ModelFile, Provenance, Reference};
use protoseg_models::checkpoint::{Checkpoint, Header};
use protoseg_models::classes::IGNORE;
use protoseg_models::digest;
use protoseg_models::form::Form;
use protoseg_models::graph::{Graph, NodeId, Tag};
use protoseg_models::place;
use protoseg_models::window::{LogitGrid, Pieces};

use crate::emit::emit;
use crate::network::Network;
use crate::ports;

/// What a bundle's maker decides.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Request {
    /// What the model is called; none for the checkpoint's name.
    pub name: Option<String>,
    /// In which pieces pictures are run; none for the checkpoint's.
    pub pieces: Option<Pieces>,
    /// Nodes that come out beside the logits, under their own names.
    pub outputs: Vec<String>,
    /// The command, for the manifest.
    pub command: String,
}

/// Writes the bundle of a checkpoint folder. An older bundle at its place is replaced, anything else is left alone and
/// refused.
pub fn write(checkpoint_folder: &Path, out: &Path, request: &Request) -> Result<Manifest> {
    let checkpoint = Checkpoint::read(checkpoint_folder)?;
    let place = place::for_bundle(out, checkpoint_folder)?;
    let mut model = model(&checkpoint.header, request)?;
    model.weights_sha256 = Some(Checkpoint::weights_digest(checkpoint_folder)?);
    let network = network(&checkpoint, &request.outputs)?.folded()?;

    let form = Form::LOGITS;
    let file = emit(&network, &form, Some(&model))?.to_bytes();
    let model_file = ModelFile {
        file: "model.onnx".to_owned(),
        form,
        sha256: digest::of_bytes(&file),
        inputs: vec![ports::input()],
        outputs: ports::outputs(&network)?,
        adapter: None,
    };
    let probe = (!checkpoint.probe.is_empty())
        .then(|| {
            let path = checkpoint_folder.join(bundle::PROBE);
            std::fs::read(&path).with_context(|| path.display().to_string())
        })
        .transpose()?;
    let manifest = Manifest {
        version: Manifest::VERSION.to_owned(),
        model,
        files: vec![model_file],
        probe_sha256: probe.as_deref().map(digest::of_bytes),
        reference: Reference::Libtorch,
        provenance: Provenance { command: request.command.clone(), protoseg: env!("CARGO_PKG_VERSION").to_owned() },
        metrics: checkpoint.metrics,
        gate: Vec::new(),
    };
    let known = place::known_names(&place, &manifest);
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    atomic::write_folder::<anyhow::Error>(&place, &known, |folder| {
        atomic::write(&folder.join(&manifest.files[0].file), &file)?;
        if let Some(probe) = &probe {
            atomic::write(&folder.join(bundle::PROBE), probe)?;
        }
        Ok(manifest.write(folder)?)
    })
    .with_context(|| format!("{} could not be written", out.display()))?;
    Ok(manifest)
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
    let mut outputs = vec![(logits, "logits")];
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
