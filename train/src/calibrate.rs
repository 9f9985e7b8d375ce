//! Calibration for 8-bit export: ranges, histograms and sensitivities of a network's values over real images.
//!
//! Images of up to [`tiles::WHOLE_PIXELS`] pixels are processed whole, larger ones by a few of their windows, and values are
//! freed once they are counted, so that memory does not grow with the images.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use protoseg_images::image_file::MAX_PIXELS;
use protoseg_images::labeled::LabeledDataset;
use protoseg_models::calibration::{Calibration, HISTOGRAM_BINS, NodeRange};
use protoseg_models::graph::{Graph, NodeId, Tag};
use protoseg_models::window::{MIN_SIDE, WindowPlan};
use tch::{Kind, Tensor};

use crate::evaluate::Protocol;
use crate::net::{self, ForwardMode, Net};
use crate::progress::Progress;
use crate::tiles;

/// Largest side of the image of the sensitivities: each node costs a forward pass.
const SENSITIVITY_SIDE: usize = 192;
/// Most windows of one image.
const WINDOWS: usize = 4;

/// Range of every node by its id, so far.
type Ranges = BTreeMap<NodeId, (f64, f64)>;

/// A network and the images that it is calibrated on.
#[derive(Clone, Copy)]
pub struct Calibrator<'a> {
    pub net: &'a Net,
    pub images: &'a LabeledDataset,
    /// Windows of images that are too large to be processed whole.
    pub protocol: Protocol,
}

impl Calibrator<'_> {
    /// Records range and histogram of every node that the logits depend on, over `count` images spread over the list
    /// `source`, and the sensitivity of the logits to rounding each node to 8 bits.
    pub fn record(&self, count: usize, source: &str, progress: &Progress) -> Result<Calibration> {
        let _guard = tch::no_grad_guard();
        let chosen = self.chosen(count);
        let needed = needed(self.net.graph())?;
        let mut ranges = Ranges::new();
        for &index in &chosen {
            for tile in self.tiles(index)? {
                self.extend_ranges(&tile, &needed, &mut ranges)?;
            }
            progress.done();
        }
        let mut histograms: BTreeMap<NodeId, Vec<u64>> =
            needed.iter().map(|&id| (id, vec![0; HISTOGRAM_BINS])).collect();
        for &index in &chosen {
            for tile in self.tiles(index)? {
                self.count(&tile, &ranges, &mut histograms)?;
            }
            progress.done();
        }
        let sensitivities = self.sensitivities(&self.center(0)?, &needed, &ranges)?;
        progress.done();
        let nodes = histograms.into_iter().map(|(id, histogram)| {
            let (min, max) = ranges[&id];
            let sensitivity = sensitivities[&id];
            let range = NodeRange { min: min as f32, max: max as f32, histogram, sensitivity };
            (self.net.graph().node(id).name.clone(), range)
        });
        Ok(Calibration {
            version: Calibration::VERSION.to_owned(),
            source: source.to_owned(),
            count: chosen.len(),
            nodes: nodes.collect(),
        })
    }

    /// Takes the first steps of a calibration on an image, for their time and memory; returns the pixels that went through
    /// the network twice.
    pub fn rehearse(&self, index: usize) -> Result<usize> {
        let _guard = tch::no_grad_guard();
        let needed = needed(self.net.graph())?;
        let mut ranges = Ranges::new();
        let tile = self.tiles(index)?.swap_remove(0);
        self.extend_ranges(&tile, &needed, &mut ranges)?;
        let mut histograms = needed.iter().map(|&id| (id, vec![0; HISTOGRAM_BINS])).collect();
        self.count(&tile, &ranges, &mut histograms)?;
        Ok((tile.size()[1] * tile.size()[2]) as usize)
    }

    /// Computes all values of the image of the sensitivities; returns the number of nodes, each of which takes at most as long
    /// again.
    pub fn rehearse_sensitivities(&self) -> Result<usize> {
        let _guard = tch::no_grad_guard();
        let values = all_values(self.net, &self.center(0)?)?;
        Ok(values.len())
    }

    /// Returns the pixels of an image of this size that a calibration looks at.
    pub fn pixels(&self, [height, width]: [usize; 2]) -> Result<usize> {
        Ok(match self.windows([height, width])? {
            Some((plan, chosen)) => chosen.len() * plan.tile_size().iter().product::<usize>(),
            None => height * width,
        })
    }

    /// Returns the chosen images: `count` spread over the list.
    pub fn chosen(&self, count: usize) -> Vec<usize> {
        let count = count.min(self.images.count());
        (0..count).map(|index| index * self.images.count() / count).collect()
    }

    /// Number of parts that [`Calibrator::record`] counts as done.
    pub fn parts(count: usize) -> usize {
        2 * count + 1
    }

    /// Returns the windows of an image of this size that are looked at; None for the whole image.
    fn windows(&self, size: [usize; 2]) -> Result<Option<(WindowPlan, Vec<usize>)>> {
        let plan = tiles::plan(size, self.protocol.window, self.protocol.grid)?;
        Ok(plan.map(|plan| {
            let chosen = tiles::spread(plan.count(), WINDOWS);
            (plan, chosen)
        }))
    }

    /// Returns the tiles u8 `[1, h, w, 3]` of an image.
    fn tiles(&self, index: usize) -> Result<Vec<Tensor>> {
        let sample = self.images.read(index, MAX_PIXELS)?;
        let (pixels, size, device) = (sample.image.as_raw(), sample.size(), self.net.device());
        let Some((plan, chosen)) = self.windows(size)? else {
            return Ok(vec![net::images_to_tensor(pixels, size, device)?]);
        };
        let tile_size = plan.tile_size();
        let starts: Vec<[usize; 2]> = plan.starts().collect();
        let tile = |&index: &usize| {
            let tile = tiles::cut(pixels, size, starts[index], tile_size);
            net::images_to_tensor(&tile, tile_size, device)
        };
        chosen.iter().map(tile).collect()
    }

    /// Returns the center of an image; a side below [`MIN_SIDE`] is padded.
    fn center(&self, index: usize) -> Result<Tensor> {
        let sample = self.images.read(index, MAX_PIXELS)?;
        let [height, width] = sample.size().map(|length| length.min(SENSITIVITY_SIDE) as u32);
        let left = (sample.image.width() - width) / 2;
        let top = (sample.image.height() - height) / 2;
        let center = image::imageops::crop_imm(&sample.image, left, top, width, height).to_image();
        let size = [height, width].map(|length| length as usize);
        let padded = size.map(|side| side.max(MIN_SIDE));
        let tile = tiles::cut(center.as_raw(), size, [0, 0], padded);
        net::images_to_tensor(&tile, padded, self.net.device())
    }

    fn logits(&self) -> Result<NodeId> {
        self.net.graph().tagged(Tag::Logits).context("the network has no logits")
    }

    fn extend_ranges(&self, tile: &Tensor, needed: &[NodeId], ranges: &mut Ranges) -> Result<()> {
        self.net.forward_observed(tile, ForwardMode::Eval, &[self.logits()?], |id, value| {
            if needed.binary_search(&id).is_ok() {
                let min = value.f_min()?.f_double_value(&[])?;
                let max = value.f_max()?.f_double_value(&[])?;
                let range = ranges.entry(id).or_insert((min, max));
                *range = (range.0.min(min), range.1.max(max));
            }
            Ok(())
        })?;
        Ok(())
    }

    fn count(
        &self,
        tile: &Tensor,
        ranges: &Ranges,
        histograms: &mut BTreeMap<NodeId, Vec<u64>>,
    ) -> Result<()> {
        self.net.forward_observed(tile, ForwardMode::Eval, &[self.logits()?], |id, value| {
            if let Some(totals) = histograms.get_mut(&id) {
                add_histogram(value, ranges[&id], totals)?;
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Measures, node by node, the error of the logits where this node alone is rounded to 256 steps of its range: root mean
    /// square error over root mean square logit.
    fn sensitivities(
        &self,
        image: &Tensor,
        needed: &[NodeId],
        ranges: &Ranges,
    ) -> Result<BTreeMap<NodeId, f32>> {
        let clean: Vec<Option<Tensor>> =
            all_values(self.net, image)?.into_iter().map(Some).collect();
        let logits = self.logits()?;
        let reference = clean[logits.0].as_ref().context("no logits")?;
        let square_mean = |tensor: &Tensor| -> Result<f64> {
            Ok(tensor.f_square()?.f_mean(Kind::Double)?.f_double_value(&[])?)
        };
        let scale = square_mean(reference)?.sqrt().max(f64::from(f32::MIN_POSITIVE));
        let mut errors = BTreeMap::new();
        for &id in needed {
            self.net.interrupt().check()?;
            let (min, max) = ranges[&id];
            let step = (max - min) / 255.0;
            if is_constant(step) {
                errors.insert(id, 0.0);
                continue;
            }
            let value = clean[id.0].as_ref().context("no value")?;
            let steps =
                value.f_sub_scalar(min)?.f_div_scalar(step)?.f_round()?.f_clamp(0.0, 255.0)?;
            let rounded = steps.f_mul_scalar(step)?.f_add_scalar(min)?;
            let disturbed = rerun(self.net, &clean, id, rounded, logits)?;
            let error = square_mean(&disturbed.f_sub(reference)?)?.sqrt() / scale;
            errors.insert(id, error as f32);
        }
        Ok(errors)
    }
}

/// Returns the nodes that the logits depend on, without the input, in order.
fn needed(graph: &Graph) -> Result<Vec<NodeId>> {
    let logits = graph.tagged(Tag::Logits).context("the network has no logits")?;
    let kept = graph.keep(&[logits]);
    let nodes = graph.iter().skip(1).filter(|(_, node)| kept.find(&node.name).is_some());
    Ok(nodes.map(|(id, _)| id).collect())
}

/// Computes every node for one image.
fn all_values(net: &Net, image: &Tensor) -> Result<Vec<Tensor>> {
    let ids: Vec<NodeId> = net.graph().iter().map(|(id, _)| id).collect();
    net.forward(image, ForwardMode::Eval, &ids)
}

/// Adds the histogram of a value to the counts, a slice of it at a time, as bins take more memory than values.
fn add_histogram(value: &Tensor, (min, max): (f64, f64), totals: &mut [u64]) -> Result<()> {
    const SLICE: i64 = 1 << 20;
    let step = (max - min) / HISTOGRAM_BINS as f64;
    if is_constant(step) {
        totals[0] += value.numel() as u64;
        return Ok(());
    }
    let flat = value.f_permute(channels_last_order(value))?.f_flatten(0, -1)?;
    let mut counts = vec![0_i64; HISTOGRAM_BINS];
    for slice in flat.f_split(SLICE, 0)? {
        let bins = slice
            .f_sub_scalar(min)?
            .f_div_scalar(step)?
            .f_clamp(0.0, (HISTOGRAM_BINS - 1) as f64)?
            .f_to_kind(Kind::Int64)?
            .f_bincount(None::<Tensor>, HISTOGRAM_BINS as i64)?;
        bins.f_to_device(tch::Device::Cpu)?.f_copy_data(&mut counts, HISTOGRAM_BINS)?;
        totals.iter_mut().zip(&counts).for_each(|(total, &count)| *total += count as u64);
    }
    Ok(())
}

/// True if a step between values is nothing in 32-bit floats: an image of one color gives such maps.
fn is_constant(step: f64) -> bool {
    (step as f32) < f32::MIN_POSITIVE
}

/// Order of dimensions in which a map lies in memory, so that flattening it copies nothing.
fn channels_last_order(value: &Tensor) -> Vec<i64> {
    if value.size().len() == 4 { vec![0, 2, 3, 1] } else { (0..value.dim() as i64).collect() }
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
