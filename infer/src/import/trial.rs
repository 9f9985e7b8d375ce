//! Trial runs of a file on synthetic images: of which size, how many at once, and which output.

use protoseg_models::adapter::{Adapter, ChannelOrder};
use protoseg_models::bundle::{TensorInfo, signature};
use protoseg_models::interface::{InputElement, Interface, OutputLayout};

use super::reading::{self, Expected, OutputReading, Unreadable, first_image, image};
use super::signature::InputFormat;
use super::unsteady_nodes::UnsteadyNodes;
use super::{ImportError, ImportOptions, last_operation, other_outputs};
use crate::session::{RawOutput, RawValues, Runner, SessionError};

/// Seed of the images.
const SEED: u64 = 1;

/// How far an image's scores may move when another runs beside it, as a share of the largest.
const BESIDE: f32 = 0.02;

/// Least distance, as a share of an axis, between the effects of changing the bottom and the right of
/// an image: it shows that the axis is one of the two.
const APART: f64 = 0.1;

/// Colors of the fields of a chart.
const FIELDS: [[u8; 3]; 12] = [
    [0, 0, 0],
    [255, 255, 255],
    [230, 20, 20],
    [20, 230, 20],
    [20, 20, 230],
    [230, 230, 20],
    [20, 230, 230],
    [230, 20, 230],
    [128, 128, 128],
    [64, 40, 20],
    [250, 200, 170],
    [90, 160, 220],
];

/// A synthetic image and the output of the file.
#[derive(Clone)]
pub(super) struct Trial {
    /// Height and width.
    pub(super) size: [usize; 2],
    pub(super) image: Vec<u8>,
    pub(super) reading: OutputReading,
    pub(super) output: RawOutput,
}

/// A file that is run in one format.
pub(super) struct Candidate<'a> {
    runner: &'a mut Runner,
    format: InputFormat,
    options: &'a ImportOptions,
    outputs: &'a [TensorInfo],
    /// Name and layout of the output, once a trial has shown it.
    chosen: Option<(String, OutputLayout)>,
    /// Why that output and that order of its dimensions were taken, where there were several.
    pub(super) remarks: Vec<String>,
    /// Task of the network, as YOLO notes it.
    pub(super) task: Option<&'a str>,
    /// The file; empty where they are not known.
    pub(super) bytes: &'a [u8],
}

/// A scene of a size.
pub(super) fn scene([height, width]: [usize; 2]) -> Vec<u8> {
    protoseg_synthetic::render_scene(SEED, 0, height, width).image
}

/// Fields of plain colors above a gray ramp: what scenes lack.
pub(super) fn chart([height, width]: [usize; 2]) -> Vec<u8> {
    let pixel = |row: usize, column: usize| {
        let (row, across) = (row * 4 / height, column * 4 / width);
        match FIELDS.get(row * 4 + across) {
            Some(color) => *color,
            None => [(column * 255 / width) as u8; 3],
        }
    };
    (0..height).flat_map(|row| (0..width).flat_map(move |column| pixel(row, column))).collect()
}

impl<'a> Candidate<'a> {
    pub(super) fn new(
        runner: &'a mut Runner,
        format: InputFormat,
        options: &'a ImportOptions,
        outputs: &'a [TensorInfo],
    ) -> Self {
        let (remarks, bytes) = (Vec::new(), &[]);
        Self { runner, format, options, outputs, chosen: None, remarks, task: None, bytes }
    }

    pub(super) fn into_runner(self) -> &'a mut Runner {
        self.runner
    }

    pub(super) fn format(&self) -> InputFormat {
        self.format
    }

    /// Returns the description of the file as far as it is known.
    pub(super) fn adapter(&self, size: Option<[usize; 2]>, batch: Option<usize>) -> Adapter {
        let InputFormat { layout, gray, element, sides, .. } = self.format;
        let usual = match self.options.normalization {
            Some(_) => InputElement::Float32,
            None => InputElement::Uint8,
        };
        let output = match &self.chosen {
            Some((name, _)) => name.clone(),
            None => self.outputs.first().map(|output| output.name.clone()).unwrap_or_default(),
        };
        let fixed = size.or(self.format.size());
        Adapter {
            layout,
            order: self.options.order.unwrap_or(ChannelOrder::Rgb),
            normalization: self.options.normalization,
            batch,
            size: fixed,
            output,
            interface: Interface {
                element: (element != usual).then_some(element),
                gray,
                sides: if fixed.is_some() { [None; 2] } else { sides },
                ..Interface::default()
            },
        }
    }

    /// Runs images of one size and returns the outputs that may be the segmentation.
    fn run(
        &mut self,
        images: &[u8],
        size @ [height, width]: [usize; 2],
        exaggerated: bool,
    ) -> Result<Vec<(String, RawOutput)>, ImportError> {
        let pixels = (height * width * 3).max(1);
        let count = images.len() / pixels;
        let mut adapter = self.adapter(Some(size), self.format.batch);
        if exaggerated {
            adapter.normalization =
                adapter.normalization.map(|constants| constants.exaggerated(100.0));
        }
        self.runner.adapt(adapter);
        let named = self.chosen.as_ref().map(|(name, _)| name).or(self.options.output.as_ref());
        let names: Vec<String> = match named {
            Some(name) => vec![name.clone()],
            None => self.outputs.iter().map(|output| output.name.clone()).collect(),
        };
        let asked: Vec<&str> = names.iter().map(String::as_str).collect();
        let found = self.runner.run_raw(images, [count, height, width], &asked);
        let found = found.map_err(|error| match error {
            source @ SessionError::Run { .. } => ImportError::Trial { size, source },
            other => other.into(),
        })?;
        Ok(names.into_iter().zip(found).collect())
    }

    /// Runs a scene of a size.
    pub(super) fn try_size(&mut self, size: [usize; 2]) -> Result<Trial, ImportError> {
        self.try_image(scene(size), size)
    }

    /// Runs one image of a size.
    pub(super) fn try_image(
        &mut self,
        image: Vec<u8>,
        size: [usize; 2],
    ) -> Result<Trial, ImportError> {
        let found = self.run(&image, size, false)?;
        let expected = Expected {
            batch: self.format.batch.unwrap_or(1),
            size,
            classes: self.options.classes.count(),
            channels_last: self.format.layout.channels_last(),
            layout: self.options.output_layout.or(self.chosen.as_ref().map(|(_, layout)| *layout)),
        };
        let shapes: Vec<_> =
            found.iter().map(|(name, output)| (name.as_str(), output.shape.as_slice())).collect();
        let said = other_outputs::instances(&shapes, expected.classes, size, self.task)
            .or_else(|| other_outputs::queries_of_classes(&shapes, expected.classes));
        if let Some(said) = said {
            return Err(ImportError::Signature(said));
        }
        let mut readable = Vec::new();
        let mut reasons = Vec::new();
        for (name, output) in found {
            match reading::read(&output, expected) {
                Ok(reading) => readable.push((name, reading, output)),
                Err(reason) => reasons.push((name, reason, output.shape)),
            }
        }
        if let Some((name, _)) = &self.chosen {
            readable.retain(|(found, ..)| found == name);
        }
        let (name, mut reading, output) = self.choose(readable, &reasons, size)?;
        if let Some(other) = reading.other {
            let layout = self.settle(&name, &output.shape, [reading.layout, other], size)?;
            let again = Expected { layout: Some(layout), ..expected };
            reading = reading::read(&output, again).unwrap_or(reading);
        }
        let output = first_image(&output, reading.layout);
        self.chosen = Some((name, reading.layout));
        Ok(Trial { size, image, reading, output })
    }

    /// Tells which of two orders an output has: images that differ at the bottom differ at the end
    /// of the height, those that differ on the right at the end of the width.
    fn settle(
        &mut self,
        name: &str,
        shape: &[usize],
        layouts: [OutputLayout; 2],
        size @ [height, width]: [usize; 2],
    ) -> Result<OutputLayout, ImportError> {
        let axis = shape.len().saturating_sub(2);
        let mut place = |changed: fn([usize; 2], [usize; 2]) -> bool| {
            let mut image = scene(size);
            let base = self.floats_of(name, &image, size)?;
            for (index, pixel) in image.chunks_exact_mut(3).enumerate() {
                if changed([index / width, index % width], [height, width]) {
                    pixel.iter_mut().for_each(|byte| *byte = 255 - *byte);
                }
            }
            let other = self.floats_of(name, &image, size)?;
            Ok::<_, ImportError>(center_of_change(&base, &other, shape, axis))
        };
        let bottom = place(|[row, _], [height, _]| row * 4 >= height * 3)?;
        let right = place(|[_, column], [_, width]| column * 4 >= width * 3)?;
        let named = layouts.map(|layout| format!("{} ({})", layout.name(), layout.text()));
        let height_lies_there = match (bottom, right) {
            (Some(bottom), Some(right)) if bottom > right + APART => true,
            (Some(bottom), Some(right)) if right > bottom + APART => false,
            _ => {
                return Err(ImportError::Options(format!(
                    "the output `{name}` {shape:?} may be {} or {}, and the trials do not tell which: say it by --output-layout",
                    named[0], named[1]
                )));
            }
        };
        let chosen = layouts.into_iter().find(|layout| layout.channels_last() != height_lies_there);
        let chosen = chosen.unwrap_or(layouts[0]);
        self.remarks.push(format!(
            "output {shape:?} taken as {}, as the trials show; --output-layout overrides it",
            chosen.text()
        ));
        Ok(chosen)
    }

    /// Runs an image and returns the values of one output.
    fn floats_of(
        &mut self,
        name: &str,
        image: &[u8],
        size: [usize; 2],
    ) -> Result<Vec<f32>, ImportError> {
        let found = self.run(image, size, false)?;
        let output = found.into_iter().find(|(found, _)| found == name);
        Ok(output.map(|(_, output)| output.into_floats()).unwrap_or_default())
    }

    /// Chooses among the outputs that may be the segmentation.
    fn choose(
        &mut self,
        mut readable: Vec<(String, OutputReading, RawOutput)>,
        reasons: &[(String, Unreadable, Vec<usize>)],
        size: [usize; 2],
    ) -> Result<(String, OutputReading, RawOutput), ImportError> {
        let expected = self.options.classes.count();
        let all: Vec<String> = readable.iter().map(|(name, ..)| name.clone()).collect();
        if readable.len() > 1 {
            // Heads that only training needs.
            let is_auxiliary = |name: &str| name.to_lowercase().contains("aux");
            if readable.iter().any(|(name, ..)| !is_auxiliary(name)) {
                readable.retain(|(name, ..)| !is_auxiliary(name));
            }
            // Scores say more than the labels that were made of them.
            let is_scores = |reading: &OutputReading| reading.channels == expected;
            if readable.iter().any(|(_, reading, _)| is_scores(reading)) {
                readable.retain(|(_, reading, _)| is_scores(reading));
            }
        }
        // One channel of floats beside labels of more than two classes is their confidence.
        let is_labels =
            |output: &RawOutput| matches!(output.values, RawValues::Integers(_)) && expected > 2;
        if readable.len() > 1
            && readable.iter().all(|(_, reading, _)| reading.channels == 1)
            && readable.iter().any(|(.., output)| is_labels(output))
        {
            readable.retain(|(.., output)| is_labels(output));
        }
        if readable.len() > 1 {
            return Err(ImportError::Signature(format!(
                "the file has the outputs {}; name the one with the logits of {expected} classes or the labels with --output",
                signature(self.outputs)
            )));
        }
        if let Some(found) = readable.pop() {
            if all.len() > 1 {
                self.remarks.push(format!(
                    "of the outputs {} `{}` is taken; --output names another",
                    all.join(", "),
                    found.0
                ));
            }
            return Ok(found);
        }
        let shapes: Vec<_> =
            reasons.iter().map(|(name, _, shape)| (name.as_str(), shape.as_slice())).collect();
        if let Some(said) = other_outputs::explain(&shapes, expected) {
            return Err(ImportError::Signature(said));
        }
        match reasons {
            [] => Err(ImportError::Signature("the file has no output".to_owned())),
            [(_, Unreadable::Channels(found), _)] => {
                Err(ImportError::Classes { found: *found, expected })
            }
            [(name, Unreadable::Shape, shape)] => {
                Err(ImportError::Grid { size, found: shape.clone(), output: name.clone() })
            }
            _ => {
                let shapes = reasons.iter().map(|(name, _, shape)| format!("{name} {shape:?}"));
                Err(ImportError::Signature(format!(
                    "no output of the file has {expected} classes or one channel over an image of {}x{}: {}; name as many classes as \
                     one of them has channels, or export the network so that scores or labels of every pixel come out",
                    size[0],
                    size[1],
                    shapes.collect::<Vec<_>>().join(", ")
                )))
            }
        }
    }

    /// Runs the image of a trial again; None where the output has another shape.
    pub(super) fn again(&mut self, trial: &Trial) -> Result<Option<RawOutput>, ImportError> {
        let found = self.run(&trial.image, trial.size, false)?;
        let layout = trial.reading.layout;
        let output = found.into_iter().next().map(|(_, output)| first_image(&output, layout));
        Ok(output.filter(|output| output.shape == trial.output.shape))
    }

    /// Returns the nodes that make the chosen output unsteady.
    pub(super) fn unsteady_nodes(&self) -> UnsteadyNodes {
        match &self.chosen {
            Some((name, _)) => UnsteadyNodes::find(self.bytes, name),
            None => UnsteadyNodes::default(),
        }
    }

    /// Returns the place along the output's height at which a change of a few rows of a trial's image
    /// shows; both places are shares of the height. None where nothing changed.
    pub(super) fn shown_at(
        &mut self,
        trial: &Trial,
        place: f64,
    ) -> Result<Option<f64>, ImportError> {
        let [height, width] = trial.size;
        let thickness = (height / 16).max(2);
        let first = ((place * height as f64 - thickness as f64 / 2.0).round().max(0.0)) as usize;
        let mut image = trial.image.clone();
        let rows = image.chunks_exact_mut(width * 3).skip(first).take(thickness);
        rows.flatten().for_each(|byte| *byte = 255 - *byte);
        let changed = Trial { image, ..trial.clone() };
        let Some(other) = self.again(&changed)? else { return Ok(None) };
        let shape = trial.output.shape.clone();
        let behind = if trial.reading.layout.channels_last() { 3 } else { 2 };
        let axis = shape.len().saturating_sub(behind);
        let base = trial.output.clone().into_floats();
        let moved = (first as f64 + thickness as f64 / 2.0) / height as f64 - place;
        let center = center_of_change(&base, &other.into_floats(), &shape, axis);
        Ok(center.map(|center| center - moved))
    }

    /// Returns the output for values far beyond any image; None where the file takes bytes, or
    /// fails on them.
    pub(super) fn exaggerated(&mut self, size: [usize; 2]) -> Option<RawOutput> {
        self.options.normalization?;
        let (_, layout) = self.chosen.clone()?;
        let (_, output) = self.run(&scene(size), size, true).ok()?.pop()?;
        Some(first_image(&output, layout))
    }

    /// True where the file computes the chosen output by an operation whose values lie between -1 and
    /// 1.
    pub(super) fn lies_between_ones(&self) -> bool {
        let chosen = self.chosen.as_ref();
        chosen.is_some_and(|(name, _)| last_operation::lies_between_ones(self.bytes, name))
    }

    /// Finds how many images the file takes at once: None for any number. Each must get what it
    /// gets alone.
    pub(super) fn batch(&mut self, alone: [&Trial; 2]) -> Option<usize> {
        let size = alone[0].size;
        if self.format.batch.is_some() {
            return self.format.batch;
        }
        let (_, layout) = self.chosen.clone()?;
        let both = [alone[0].image.as_slice(), &alone[1].image].concat();
        let Ok(mut found) = self.run(&both, size, false) else { return Some(1) };
        let Some((_, output)) = found.pop() else { return Some(1) };
        let is_pair = layout.sizes(&output.shape).is_some_and(|[count, ..]| count == 2);
        let same = |index: usize| {
            let (beside, alone) = (image(&output, layout, index), alone[index].output.clone());
            let shapes = beside.shape == alone.shape;
            shapes && are_alike(&beside.into_floats(), &alone.into_floats())
        };
        if is_pair && same(0) && same(1) { None } else { Some(1) }
    }
}

impl Trial {
    /// True where no value is NaN or infinite.
    pub(super) fn is_finite(&self) -> bool {
        match &self.output.values {
            RawValues::Integers(_) => true,
            RawValues::Floats(values) => values.iter().all(|value| value.is_finite()),
        }
    }
}

/// Mean place of the change between two outputs along an axis, from 0 to 1; None where nothing
/// changed.
fn center_of_change(base: &[f32], other: &[f32], shape: &[usize], axis: usize) -> Option<f64> {
    let length = *shape.get(axis)?;
    let after: usize = shape.get(axis + 1..)?.iter().product();
    let (mut total, mut sum) = (0.0, 0.0);
    for (index, (base, other)) in base.iter().zip(other).enumerate() {
        let change = f64::from((base - other).abs());
        if change.is_finite() {
            total += change;
            sum += change * ((index / after.max(1) % length.max(1)) as f64 + 0.5);
        }
    }
    (total > 0.0).then(|| sum / total / length.max(1) as f64)
}

/// True where two outputs differ no more than rounding explains, but for a few places.
fn are_alike(found: &[f32], expected: &[f32]) -> bool {
    let largest = expected.iter().fold(1e-3_f32, |largest, value| largest.max(value.abs()));
    let far = found
        .iter()
        .zip(expected)
        .filter(|(found, expected)| {
            let distance = (*found - *expected).abs();
            distance.is_nan() || distance > BESIDE * largest
        })
        .count();
    found.len() == expected.len() && far * 100 <= found.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_a_change_is_found_along_an_axis() {
        let base = vec![0.0; 2 * 3 * 4];
        let mut other = base.clone();
        // Row 2 of 3, in either channel.
        for index in [8, 9, 10, 11, 20, 21, 22, 23] {
            other[index] = 1.0;
        }
        let center = |axis| center_of_change(&base, &other, &[1, 2, 3, 4], axis).unwrap();
        assert!((center(2) - 2.5 / 3.0).abs() < 1e-9 && (center(3) - 0.5).abs() < 1e-9);
        assert!((center(1) - 0.5).abs() < 1e-9);
        assert_eq!(center_of_change(&base, &base, &[1, 2, 3, 4], 2), None);
    }
}
