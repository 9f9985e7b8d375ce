//! A checkpoint as a bundle: ONNX files, probe and manifest in one folder, written whole or not at all.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use protoseg_models::atomic;
use protoseg_models::bundle::{self, Manifest, Model, ModelFile, Provenance};
use protoseg_models::checkpoint::{Checkpoint, Header};
use protoseg_models::classes::IGNORE;
use protoseg_models::digest;
use protoseg_models::graph::{Graph, NodeId, Tag};
use protoseg_models::window::{LogitGrid, Pieces};

use crate::network::Network;
use crate::numbers::{Choices, Numbers};
use crate::{place, ports};

/// What a bundle's maker decides.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// What the model is called; none for the checkpoint's name.
    pub name: Option<String>,
    /// In which pieces pictures are run; none for the checkpoint's.
    pub pieces: Option<Pieces>,
    /// Nodes that come out beside the logits, under their own names.
    pub outputs: Vec<String>,
    /// In which numbers the network is written; the first file is the one that runs where nobody says otherwise.
    pub numbers: Vec<Numbers>,
    /// How 8-bit files are made.
    pub choices: Choices,
    /// The command, for the manifest.
    pub command: String,
}

/// Writes the bundle of a checkpoint folder. An older bundle at its place is replaced, anything else is left alone and
/// refused.
pub fn write(checkpoint_folder: &Path, out: &Path, request: &Request) -> Result<Manifest> {
    check(request)?;
    let checkpoint = Checkpoint::read(checkpoint_folder)?;
    let place = place::resolve(out, checkpoint_folder)?;
    let mut model = model(&checkpoint.header, request)?;
    model.weights_sha256 = Some(Checkpoint::weights_digest(checkpoint_folder)?);
    let network = network(&checkpoint, &request.outputs)?.folded()?;

    let mut written = Vec::new();
    for &numbers in &request.numbers {
        let emitted = numbers.emit(&network, checkpoint.calibration.as_ref(), request.choices, &model);
        let (form, file) = emitted.with_context(|| checkpoint_folder.display().to_string())?;
        let bytes = file.to_bytes();
        let file = ModelFile {
            file: numbers.file().to_owned(),
            form,
            sha256: digest::of_bytes(&bytes),
            inputs: vec![ports::input()],
            outputs: ports::outputs(&network)?,
        };
        written.push((file, bytes));
    }
    let probe = (!checkpoint.probe.is_empty())
        .then(|| {
            let path = checkpoint_folder.join(bundle::PROBE);
            std::fs::read(&path).with_context(|| path.display().to_string())
        })
        .transpose()?;
    let manifest = Manifest {
        version: Manifest::VERSION.to_owned(),
        model,
        files: written.iter().map(|(file, _)| file.clone()).collect(),
        probe_sha256: probe.as_deref().map(digest::of_bytes),
        provenance: Provenance { command: request.command.clone(), protoseg: env!("CARGO_PKG_VERSION").to_owned() },
        metrics: checkpoint.metrics,
        gate: Vec::new(),
    };
    let older = Manifest::read(&place).map(|read| read.value.files).unwrap_or_default();
    let models = older.iter().chain(&manifest.files).map(|file| file.file.as_str());
    let known: Vec<&str> = models.chain([bundle::MANIFEST, bundle::PROBE]).collect();
    atomic::write_folder::<anyhow::Error>(&place, &known, |folder| {
        for (file, bytes) in &written {
            atomic::write(&folder.join(&file.file), bytes)?;
        }
        if let Some(probe) = &probe {
            atomic::write(&folder.join(bundle::PROBE), probe)?;
        }
        Ok(manifest.write(folder)?)
    })
    .with_context(|| format!("{} could not be written", out.display()))?;
    Ok(manifest)
}

/// Refuses what cannot be meant.
fn check(request: &Request) -> Result<()> {
    let Request { numbers, choices, .. } = request;
    ensure!(!numbers.is_empty(), "no precision is asked for; ask for one at least, such as fp32");
    for (index, twice) in numbers.iter().enumerate() {
        ensure!(!numbers[..index].contains(twice), "the precision {twice} is asked for twice");
    }
    ensure!(
        choices.weight_bits.is_none() || numbers.contains(&Numbers::Int8),
        "the bits of weights are for int8, which is not asked for; add it to --precision"
    );
    ensure!(
        choices.float_above.is_none() || numbers.iter().any(|numbers| numbers.integers()),
        "the limit of sensitivities is for int8 and int8-trt, which are not asked for; add one to --precision"
    );
    Ok(())
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
