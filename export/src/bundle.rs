//! A checkpoint as a bundle: ONNX files, probe and manifest in one folder, written whole or not at all.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use protoseg_models::atomic;
use protoseg_models::bundle::{self, Manifest, Model, ProbeReference, Provenance};
use protoseg_models::bundle_output;
use protoseg_models::checkpoint::{Checkpoint, CheckpointHeader};
use protoseg_models::classes::IGNORE_INDEX;
use protoseg_models::digest;
use protoseg_models::graph::{Graph, NodeId, Tag};
use protoseg_models::variant::ModelKind;
use protoseg_models::window::{LogitGrid, Tiling};

use crate::onnx::file::EXTERNAL_FROM;
use crate::onnx::pixel_outputs::PixelOutput;
mod files;
mod triton;
use crate::network::Network;
use crate::options::ExportOptions;
use files::{BundleFile, LOGITS};

/// What the map that prototypes see is called, whatever the node that makes it.
const FEATURES: &str = "features";

/// Writes the bundle of a checkpoint folder. An older bundle at its place is replaced, anything else is left alone and
/// refused.
pub fn write(checkpoint_folder: &Path, out: &Path, request: &ExportOptions) -> Result<Manifest> {
    request.check()?;
    let mut checkpoint = Checkpoint::read(checkpoint_folder)?;
    let place = bundle_output::resolve(out, checkpoint_folder)?;
    let mut model = model(&checkpoint.header, request)?;
    model.weights_sha256 = Some(Checkpoint::weights_digest(checkpoint_folder)?);
    let triton = request.triton.map(|placement| {
        Ok::<_, anyhow::Error>((triton::TritonName::new(&model.name)?, placement))
    });
    let triton = triton.transpose()?;
    let network = network(&mut checkpoint, request)
        .and_then(Network::fold_batch_norm)
        .and_then(Network::merge_affine);
    let network = network.with_context(|| checkpoint_folder.display().to_string())?;

    let files = files::emit(&network, checkpoint.calibration.as_ref(), &model, request)
        .with_context(|| checkpoint_folder.display().to_string())?;
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
        probe_sha256: probe.as_deref().map(digest::sha256_bytes),
        reference: ProbeReference::Libtorch,
        provenance: Provenance {
            command: request.command.clone(),
            protoseg: env!("CARGO_PKG_VERSION").to_owned(),
        },
        metrics: checkpoint.metrics,
        gate: Vec::new(),
    };
    let known = bundle_output::replaceable_names(&place, &manifest)
        .into_iter()
        .chain(files.iter().flat_map(BundleFile::names));
    let known: Vec<String> = known.collect();
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    atomic::write_folder::<anyhow::Error>(&place, &known, |folder| {
        for file in &files {
            let written = file.write(folder, request.external_from.unwrap_or(EXTERNAL_FROM));
            manifest.files.extend(written.with_context(|| format!("the file {}", file.name))?);
        }
        if let Some((name, placement)) = &triton {
            // Labels where there is a file that gives them: scores are for clients with code of their own.
            let frame = manifest.files.iter().find(|file| file.variant.kind == ModelKind::Frame);
            if let Some(file) = frame.or(manifest.files.first()) {
                triton::write(folder, name, &manifest.model, file, *placement)?;
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

/// The facts of the model, but for its weights' digest.
fn model(header: &CheckpointHeader, request: &ExportOptions) -> Result<Model> {
    let grid = LogitGrid::from_arch(header.arch);
    let window = request.window.map_or(header.window, Tiling::window);
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
        name: request.name.clone().unwrap_or_else(|| header.name.clone()),
        classes: header.classes.clone(),
        ignore: IGNORE_INDEX,
        grid,
        window,
        arch: Some(header.arch),
        weights_sha256: None,
    })
}

/// The deployed network: the logits, and the nodes and pixel_outputs asked for beside them.
fn network(checkpoint: &mut Checkpoint, request: &ExportOptions) -> Result<Network> {
    let graph = checkpoint.header.arch.graph();
    let logits = graph.tagged(Tag::Logits).context("the network has no logits")?;
    let mut outputs = vec![(logits, LOGITS)];
    let mut pixel_outputs: Vec<PixelOutput> = Vec::new();
    for tap in &request.outputs {
        match tap.parse() {
            Ok(decision) => {
                ensure!(!pixel_outputs.contains(&decision), "the output {tap} is asked for twice");
                pixel_outputs.push(decision);
            }
            Err(_) if tap == FEATURES => {
                outputs.push((graph.tagged(Tag::Features).context("no features")?, tap))
            }
            Err(_) => outputs.push((find(&graph, tap)?, tap)),
        }
    }
    let weights = std::mem::take(&mut checkpoint.weights);
    let weights = weights.into_iter().map(|(name, tensor)| (name, Arc::new(tensor))).collect();
    let network = Network::with(&graph, weights, &outputs)?.with_pixel_outputs(&pixel_outputs);
    if !request.prototype_confidence {
        return Ok(network);
    }
    let prototypes = checkpoint.prototypes.take().context(
        "it holds no prototypes.json, so how sure prototypes are cannot be told; train with mode = \"prototype\", past the \
         warm-up",
    )?;
    network.with_prototype_head(prototypes)
}

fn find(graph: &Graph, name: &str) -> Result<NodeId> {
    graph.find(name).with_context(|| {
        let last = name.rsplit('.').next().unwrap_or(name);
        let near = graph.nodes().iter().find(|node| node.name.rsplit('.').next() == Some(last));
        let example = near.or(graph.nodes().last()).map_or("", |node| &node.name);
        format!("the network has no node `{name}`; node names are those of the weights, such as `{example}`")
    })
}

#[cfg(test)]
mod tests;
