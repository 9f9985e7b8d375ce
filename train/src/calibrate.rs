//! What a network's values look like over real pictures, recorded for 8-bit export.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use protoseg_images::image_file::MAX_PIXELS;
use protoseg_images::labeled::LabeledDataset;
use protoseg_models::calibration::{Calibration, HISTOGRAM_BINS, NodeRange};
use protoseg_models::graph::{Graph, NodeId, Tag};
use tch::{Kind, Tensor};

use crate::net::{self, ForwardMode, Net};

/// Pixels a side, at the most, of the picture that sensitivities are measured on: each node costs a forward pass.
const SENSITIVITY_SIDE: usize = 192;

/// Records the range and histogram of every node that the logits need, over `count` pictures spread over the list, and
/// the sensitivity of the logits to rounding each to 8 bits.
pub fn record(
    net: &Net,
    samples: &LabeledDataset,
    count: usize,
    pictures: &str,
) -> Result<Calibration> {
    let _guard = tch::no_grad_guard();
    let count = count.min(samples.count());
    let needed = needed(net.graph())?;
    let mut ranges: BTreeMap<NodeId, (f64, f64)> = BTreeMap::new();
    let mut histograms: BTreeMap<NodeId, Vec<u64>> =
        needed.iter().map(|&id| (id, vec![0; HISTOGRAM_BINS])).collect();
    let chosen: Vec<usize> = (0..count).map(|index| index * samples.count() / count).collect();
    for &index in &chosen {
        for (id, value) in
            values(net, samples, index)?.into_iter().filter(|(id, _)| needed.contains(id))
        {
            let (min, max) =
                (value.f_min()?.f_double_value(&[])?, value.f_max()?.f_double_value(&[])?);
            let range = ranges.entry(id).or_insert((min, max));
            *range = (range.0.min(min), range.1.max(max));
        }
    }
    for &index in &chosen {
        for (id, value) in
            values(net, samples, index)?.into_iter().filter(|(id, _)| needed.contains(id))
        {
            let (min, max) = ranges[&id];
            for (total, more) in
                histograms.entry(id).or_default().iter_mut().zip(histogram(&value, min, max)?)
            {
                *total += more;
            }
        }
    }
    let sensitivities = sensitivities(net, samples, &needed, &ranges)?;
    let node = |id: &NodeId| {
        let (min, max) = ranges[id];
        let histogram = histograms.remove(id).unwrap_or_default();
        let range = NodeRange {
            min: min as f32,
            max: max as f32,
            histogram,
            sensitivity: sensitivities[id],
        };
        (net.graph().node(*id).name.clone(), range)
    };
    let nodes = needed.iter().map(node).collect();
    Ok(Calibration {
        version: Calibration::VERSION.to_owned(),
        source: pictures.to_owned(),
        count,
        nodes,
    })
}

/// The nodes that the logits need, but for the input.
fn needed(graph: &Graph) -> Result<Vec<NodeId>> {
    let logits = graph.tagged(Tag::Logits).context("the network has no logits")?;
    let kept = graph.keep(&[logits]);
    Ok(graph
        .iter()
        .skip(1)
        .filter(|(_, node)| kept.find(&node.name).is_some())
        .map(|(id, _)| id)
        .collect())
}

/// Every node's output for one picture.
fn values(net: &Net, samples: &LabeledDataset, index: usize) -> Result<Vec<(NodeId, Tensor)>> {
    let sample = samples.read(index, MAX_PIXELS)?;
    let picture = net::images_to_tensor(sample.image.as_raw(), sample.size(), net.device())?;
    all(net, &picture)
}

fn all(net: &Net, picture: &Tensor) -> Result<Vec<(NodeId, Tensor)>> {
    let ids: Vec<NodeId> = net.graph().iter().map(|(id, _)| id).collect();
    Ok(ids.iter().copied().zip(net.forward(picture, ForwardMode::Eval, &ids)?).collect())
}

fn histogram(value: &Tensor, min: f64, max: f64) -> Result<Vec<u64>> {
    let step = ((max - min) / HISTOGRAM_BINS as f64).max(f64::MIN_POSITIVE);
    let bins =
        value.f_sub_scalar(min)?.f_div_scalar(step)?.f_clamp(0.0, (HISTOGRAM_BINS - 1) as f64)?;
    let counts = bins
        .f_flatten(0, -1)?
        .f_to_kind(Kind::Int64)?
        .f_bincount(None::<Tensor>, HISTOGRAM_BINS as i64)?;
    let mut histogram = vec![0_i64; HISTOGRAM_BINS];
    counts.f_to_device(tch::Device::Cpu)?.f_copy_data(&mut histogram, HISTOGRAM_BINS)?;
    Ok(histogram.into_iter().map(|count| count as u64).collect())
}

/// Error of the logits where only one node's output is rounded to 256 steps of its range, node by node: root mean square
/// error over root mean square logit, on the first picture's middle.
fn sensitivities(
    net: &Net,
    samples: &LabeledDataset,
    needed: &[NodeId],
    ranges: &BTreeMap<NodeId, (f64, f64)>,
) -> Result<BTreeMap<NodeId, f32>> {
    let sample = samples.read(0, MAX_PIXELS)?;
    let mut picture = net::images_to_tensor(sample.image.as_raw(), sample.size(), net.device())?;
    for (dimension, length) in (1..).zip(sample.size()) {
        let kept = length.min(SENSITIVITY_SIDE);
        picture = picture.f_narrow(dimension, ((length - kept) / 2) as i64, kept as i64)?;
    }
    let clean: Vec<Option<Tensor>> =
        all(net, &picture)?.into_iter().map(|(_, value)| Some(value)).collect();
    let logits = net.graph().tagged(Tag::Logits).context("the network has no logits")?;
    let reference = clean[logits.0].as_ref().context("no logits")?;
    let square_mean = |tensor: &Tensor| -> Result<f64> {
        Ok(tensor.f_square()?.f_mean(Kind::Double)?.f_double_value(&[])?)
    };
    let scale = square_mean(reference)?.sqrt().max(f64::MIN_POSITIVE);
    let mut errors = BTreeMap::new();
    for &id in needed {
        let (min, max) = ranges[&id];
        let step = ((max - min) / 255.0).max(f64::MIN_POSITIVE);
        let value = clean[id.0].as_ref().context("no value")?;
        let steps = value.f_sub_scalar(min)?.f_div_scalar(step)?.f_round()?.f_clamp(0.0, 255.0)?;
        let rounded = steps.f_mul_scalar(step)?.f_add_scalar(min)?;
        let disturbed = rerun(net, &clean, id, rounded, logits)?;
        let error = square_mean(&disturbed.f_sub(reference)?)?.sqrt() / scale;
        errors.insert(id, error as f32);
    }
    Ok(errors)
}

/// The logits where one node's output is another: only what depends on it is computed again.
fn rerun(
    net: &Net,
    clean: &[Option<Tensor>],
    changed: NodeId,
    value: Tensor,
    logits: NodeId,
) -> Result<Tensor> {
    let mut values: Vec<Option<Tensor>> =
        clean.iter().map(|value| value.as_ref().map(Tensor::shallow_clone)).collect();
    let mut stale = vec![false; values.len()];
    values[changed.0] = Some(value);
    stale[changed.0] = true;
    for (id, node) in net.graph().iter().take(logits.0 + 1).skip(changed.0 + 1) {
        if node.inputs.iter().any(|input| stale[input.0]) {
            values[id.0] = Some(net.node(node, &values, ForwardMode::Eval)?);
            stale[id.0] = true;
        }
    }
    values[logits.0].take().context("no logits")
}
