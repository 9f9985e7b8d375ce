//! Calibration for 8-bit export: ranges, histograms and sensitivities of a network's values over real images.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use protoseg_images::image_file::MAX_PIXELS;
use protoseg_images::labeled::LabeledDataset;
use protoseg_models::calibration::{Calibration, HISTOGRAM_BINS, NodeRange};
use protoseg_models::graph::{Graph, NodeId, Tag};
use tch::{Kind, Tensor};

use crate::net::{self, ForwardMode, Net};

/// Largest side of the image of the sensitivities: each node costs a forward pass.
const SENSITIVITY_SIDE: i64 = 192;

/// Records range and histogram of every node that the logits depend on, over `count` images spread over the list `source`,
/// and the sensitivity of the logits to rounding each node to 8 bits.
pub fn record(
    net: &Net,
    images: &LabeledDataset,
    count: usize,
    source: &str,
) -> Result<Calibration> {
    let _guard = tch::no_grad_guard();
    let count = count.min(images.count());
    let needed = needed(net.graph())?;
    let chosen: Vec<usize> = (0..count).map(|index| index * images.count() / count).collect();
    let mut ranges: BTreeMap<NodeId, (f64, f64)> = BTreeMap::new();
    for &index in &chosen {
        let values = all_values(net, &read_image(net, images, index)?)?;
        for &id in &needed {
            let min = values[id.0].f_min()?.f_double_value(&[])?;
            let max = values[id.0].f_max()?.f_double_value(&[])?;
            let range = ranges.entry(id).or_insert((min, max));
            *range = (range.0.min(min), range.1.max(max));
        }
    }
    let mut histograms: BTreeMap<NodeId, Vec<u64>> =
        needed.iter().map(|&id| (id, vec![0; HISTOGRAM_BINS])).collect();
    for &index in &chosen {
        let values = all_values(net, &read_image(net, images, index)?)?;
        for (id, totals) in &mut histograms {
            let counts = histogram(&values[id.0], ranges[id])?;
            totals.iter_mut().zip(counts).for_each(|(total, count)| *total += count);
        }
    }
    let sensitivities = sensitivities(net, &read_image(net, images, 0)?, &needed, &ranges)?;
    let nodes = histograms.into_iter().map(|(id, histogram)| {
        let (min, max) = ranges[&id];
        let sensitivity = sensitivities[&id];
        let range = NodeRange { min: min as f32, max: max as f32, histogram, sensitivity };
        (net.graph().node(id).name.clone(), range)
    });
    Ok(Calibration {
        version: Calibration::VERSION.to_owned(),
        source: source.to_owned(),
        count,
        nodes: nodes.collect(),
    })
}

/// Returns the nodes that the logits depend on, without the input.
fn needed(graph: &Graph) -> Result<Vec<NodeId>> {
    let logits = graph.tagged(Tag::Logits).context("the network has no logits")?;
    let kept = graph.keep(&[logits]);
    let nodes = graph.iter().skip(1).filter(|(_, node)| kept.find(&node.name).is_some());
    Ok(nodes.map(|(id, _)| id).collect())
}

fn read_image(net: &Net, images: &LabeledDataset, index: usize) -> Result<Tensor> {
    let sample = images.read(index, MAX_PIXELS)?;
    net::images_to_tensor(sample.image.as_raw(), sample.size(), net.device())
}

/// Computes every node for one image.
fn all_values(net: &Net, image: &Tensor) -> Result<Vec<Tensor>> {
    let ids: Vec<NodeId> = net.graph().iter().map(|(id, _)| id).collect();
    net.forward(image, ForwardMode::Eval, &ids)
}

fn histogram(value: &Tensor, (min, max): (f64, f64)) -> Result<Vec<u64>> {
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

/// Measures, node by node, the error of the logits where this node alone is rounded to 256 steps of its range: root mean
/// square error over root mean square logit, on the center of the first image.
fn sensitivities(
    net: &Net,
    image: &Tensor,
    needed: &[NodeId],
    ranges: &BTreeMap<NodeId, (f64, f64)>,
) -> Result<BTreeMap<NodeId, f32>> {
    let mut center = image.shallow_clone();
    for dimension in [1, 2] {
        let length = image.size()[dimension];
        let kept = length.min(SENSITIVITY_SIDE);
        center = center.f_narrow(dimension as i64, (length - kept) / 2, kept)?;
    }
    let clean: Vec<Option<Tensor>> = all_values(net, &center)?.into_iter().map(Some).collect();
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

/// Computes the logits with a changed value of one node; only the nodes that depend on it are recomputed.
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
