//! Frames of one size to labels in one graph: windows are cut, run through the network, stitched
//! and upsampled inside, so that any ONNX Runtime client segments frames without further code.
//!
//! Only operators with a CUDA kernel at opset 17, no control flow, no shapes computed at run time.
//! The batch size stays open. Windows are those of [`WindowPlan`], and overlaps are blended at
//! logit resolution, as outside the graph.

use anyhow::{Context, Result, bail, ensure};
use protoseg_models::bundle::{Dimension, Model};
use protoseg_models::graph::{NodeId, Op};
use protoseg_models::variant::{FrameSpec, Precision, Variant};
use protoseg_models::window::{Tiling, WindowPlan};

use crate::network::{Network, PixelOutput};
use crate::onnx::builder::GraphBuilder;
use crate::onnx::emit::{EmittedModel, to_file};
use crate::onnx::nodes::{NodeWriter, resize_attributes, resize_scale};
use crate::onnx::proto::{AttributeProto, DataType};
use crate::onnx::{pixel_outputs, signature};

/// Largest number of nodes in a graph, which ONNX Runtime opens in half a minute.
const MAX_NODES: usize = 50_000;

/// Nodes for each window beside the network's: cut, pad, add.
const NODES_PER_WINDOW: usize = 3;

/// Refuses a graph that no runtime could open: the network is repeated for small windows on a large
/// frame.
pub(crate) fn check_size(network: &Network, frame: &FrameSpec, model: &Model) -> Result<()> {
    let FrameSpec { height, width, tiling, windows_at_once } = *frame;
    let Tiling::Windows(window) = tiling else { return Ok(()) };
    let windows = WindowPlan::new([height, width], window, model.grid, model.blend)?.count();
    let networks = windows.div_ceil(windows_at_once.max(1));
    let nodes = networks * network.graph.nodes().len() + NODES_PER_WINDOW * windows;
    let larger_batch = if networks > 1 { "a larger :COUNT of --frame, or " } else { "" };
    ensure!(
        nodes <= MAX_NODES,
        "a frame of {height}x{width} pixels has {windows} windows of {tiling}, and a graph with \
         {windows_at_once} at once would have {nodes} nodes, more than {MAX_NODES}; choose \
         {larger_batch}larger windows or strides with --window"
    );
    Ok(())
}

/// Makes a file from bytes `image` `[N, H, W, 3]` of one size to `pixel_outputs` `[N, H, W]`.
pub fn emit(
    network: &Network,
    variant: &Variant,
    frame: &FrameSpec,
    pixel_outputs: &[PixelOutput],
    model: &Model,
) -> Result<EmittedModel> {
    ensure!(!pixel_outputs.is_empty(), "a frame file without outputs cannot be written");
    let float = match variant.precision {
        Precision::Fp32 => DataType::Float,
        Precision::Fp16 => DataType::Float16,
        Precision::Int8 => bail!("a frame file is in fp32 or fp16, not in int8"),
    };
    let builder = GraphBuilder::default();
    let mut writer = FrameWriter { network, frame, model, builder, float };
    let logits = writer.logits()?;
    let mut builder = writer.builder;
    pixel_outputs::write(&mut builder, &logits, model.classes.count(), pixel_outputs);
    let size = || [frame.height, frame.width].map(Dimension::Fixed);
    let outputs =
        pixel_outputs.iter().map(|&output| signature::pixel_output(output, size())).collect();
    to_file(builder, vec![signature::input(size())], outputs, variant, Some(model))
}

struct FrameWriter<'a> {
    network: &'a Network,
    frame: &'a FrameSpec,
    model: &'a Model,
    builder: GraphBuilder,
    float: DataType,
}

impl FrameWriter<'_> {
    /// Writes the logits of the frame at its own size, `[N, C, H, W]` in 32-bit floats. Returns the
    /// name of the value, like all functions below.
    fn logits(&mut self) -> Result<String> {
        let FrameSpec { height, width, tiling, .. } = *self.frame;
        let mut nodes = self.network.graph.iter();
        let normalize = nodes.find(|(_, node)| matches!(node.op, Op::Normalize { .. }));
        let (normalize, _) = normalize.context("the network does not normalize its images")?;
        let mut writer = NodeWriter::new(self.network, &mut self.builder, self.float);
        writer.set_value_name(self.network.graph.input(), signature::IMAGE);
        writer.write(normalize);
        let image = writer.value(normalize).to_owned();
        let size = [height, width];
        let Model { grid, blend, .. } = *self.model;
        let plan = match tiling {
            Tiling::Whole => None,
            Tiling::Windows(window) => Some(WindowPlan::new(size, window, grid, blend)?),
        };
        let (map, map_size, padded) = match plan {
            None => {
                let (map, map_size) = self.network(normalize, &image, size, "")?;
                (map, map_size, size)
            }
            Some(plan) => {
                let padded = plan.padded();
                let image = self.pad(&image, padded);
                (self.windows(normalize, &image, &plan)?, plan.logit_size(), padded)
            }
        };
        Ok(self.upsample(&map, map_size, padded))
    }

    /// Writes the network for normalized images of one size; returns its logits `[N, C, h, w]` in
    /// 32-bit floats, with h and w.
    fn network(
        &mut self,
        normalize: NodeId,
        images: &str,
        size: [usize; 2],
        prefix: &str,
    ) -> Result<(String, [usize; 2])> {
        let shapes = self.network.graph.shapes(1, size[0], size[1])?;
        let side = |shape: &Vec<usize>, axis: usize| shape.get(axis).copied().unwrap_or(1);
        let sizes: Vec<[usize; 2]> =
            shapes.iter().map(|shape| [side(shape, 2), side(shape, 3)]).collect();
        let [output] = self.network.outputs() else {
            bail!("a frame file is made from the logits alone")
        };
        let logits = self.network.required_producer(&output.value)?;
        let logit_size = sizes[logits.0];
        let mut writer = NodeWriter::new(self.network, &mut self.builder, self.float)
            .with_prefix(prefix)
            .with_sizes(sizes);
        writer.set_value_name(normalize, images);
        let nodes = self.network.graph.iter().map(|(id, _)| id);
        nodes.filter(|&id| id > normalize).for_each(|id| writer.write(id));
        let value = writer.value(logits).to_owned();
        let value = match self.float {
            DataType::Float => value,
            _ => self.builder.cast(&format!("{value}.floats"), &value, DataType::Float),
        };
        Ok((value, logit_size))
    }

    /// Pads the image at the bottom and right by edge replication.
    fn pad(&mut self, image: &str, padded: [usize; 2]) -> String {
        let [down, across] = [padded[0] - self.frame.height, padded[1] - self.frame.width];
        if [down, across] == [0, 0] {
            return image.to_owned();
        }
        let pads = [0, 0, 0, 0, 0, 0, down as i64, across as i64];
        let pads = self.builder.int64_constant("frame.pads", &pads);
        let mode = vec![AttributeProto::string("mode", "edge")];
        self.builder.op("frame.padded", "Pad", &[image, &pads], mode)
    }

    /// Runs all windows and stitches their logits to the map of the padded frame, `[N, C, h, w]`.
    fn windows(&mut self, normalize: NodeId, image: &str, plan: &WindowPlan) -> Result<String> {
        let at_once = self.frame.windows_at_once;
        ensure!(at_once > 0, "the network takes at least one window at once");
        let size = plan.tile_size();
        let starts: Vec<[usize; 2]> = plan.starts().collect();
        let mut maps = Vec::new();
        for (chunk, starts) in starts.chunks(at_once).enumerate() {
            let prefix = if chunk == 0 { String::new() } else { format!("part{}.", chunk + 1) };
            let windows = starts
                .iter()
                .zip(chunk * at_once..)
                .map(|(&start, index)| self.slice(&format!("window{index}"), image, start, size));
            let windows = windows.collect();
            let batch = self.concat(&format!("{prefix}windows"), windows, 0);
            let (logits, logit_size) = self.network(normalize, &batch, size, &prefix)?;
            ensure!(
                logit_size == plan.tile_logits(),
                "windows of {}x{} pixels give logits off the network's grid",
                size[0],
                size[1]
            );
            let logits = self.weigh(&format!("{prefix}weighted"), logits, plan);
            maps.extend(self.split(&format!("{prefix}scores"), &logits, starts.len()));
        }
        Ok(self.blend(&maps, plan))
    }

    /// Multiplies the logits of windows, `[n, C, l, m]`, by the weights of their overlaps.
    fn weigh(&mut self, name: &str, logits: String, plan: &WindowPlan) -> String {
        let [rows, columns] = plan.weights();
        if rows.iter().chain(&columns).all(|&weight| weight == 1.0) {
            return logits;
        }
        let weights = products(&rows, &columns);
        let shape = [1, 1, rows.len(), columns.len()];
        let weights = self.builder.float_constant("weights", &shape, &weights);
        self.builder.op(name, "Mul", &[&logits, &weights], vec![])
    }

    /// Blends weighted windows: each map is padded with zeros to the frame, and their sum is
    /// divided by the sum of weights over each position.
    fn blend(&mut self, maps: &[String], plan: &WindowPlan) -> String {
        let [height, width] = plan.logit_size();
        let [rows, columns] = plan.tile_logits();
        let mut sum: Option<String> = None;
        for (index, (map, [top, left])) in maps.iter().zip(plan.logit_starts()).enumerate() {
            let placed = if [height, width] == [rows, columns] {
                map.clone()
            } else {
                let pads = [0, 0, top, left, 0, 0, height - top - rows, width - left - columns]
                    .map(|pad| pad as i64);
                let pads = self.builder.int64_constant(&format!("place{index}.pads"), &pads);
                self.builder.op(&format!("place{index}"), "Pad", &[map, &pads], vec![])
            };
            sum = Some(match sum {
                None => placed,
                Some(sum) => {
                    self.builder.op(&format!("sum{index}"), "Add", &[&sum, &placed], vec![])
                }
            });
        }
        let sum = sum.unwrap_or_default();
        let [rows, columns] = plan.weight_sums();
        if rows.iter().chain(&columns).all(|&sum| sum == 1.0) {
            return sum;
        }
        let cover = products(&rows, &columns);
        let cover = self.builder.float_constant("cover", &[1, 1, height, width], &cover);
        self.builder.op("mean", "Div", &[&sum, &cover], vec![])
    }

    /// Upsamples the logits of the padded frame and removes the padding.
    fn upsample(&mut self, map: &str, map_size: [usize; 2], padded: [usize; 2]) -> String {
        let [down, across] = [0, 1].map(|axis| resize_scale(map_size[axis], padded[axis]));
        let scales =
            self.builder.float_constant("upsample.scales", &[4], &[1.0, 1.0, down, across]);
        let attributes = resize_attributes(self.model.grid.align_corners);
        let full = self.builder.op("upsample", "Resize", &[map, "", &scales], attributes);
        let size = [self.frame.height, self.frame.width];
        if size == padded { full } else { self.slice("cropped", &full, [0, 0], size) }
    }

    /// Cuts a rectangle of the last two dimensions.
    fn slice(&mut self, name: &str, value: &str, start: [usize; 2], size: [usize; 2]) -> String {
        let end = [start[0] + size[0], start[1] + size[1]];
        let [start, end] = [start, end].map(|corner| corner.map(|pixel| pixel as i64));
        let start = self.builder.int64_constant(&format!("{name}.start"), &start);
        let end = self.builder.int64_constant(&format!("{name}.end"), &end);
        let axes = self.builder.int64_constant("rows.columns", &[2, 3]);
        self.builder.op(name, "Slice", &[value, &start, &end, &axes], vec![])
    }

    fn concat(&mut self, name: &str, values: Vec<String>, axis: i64) -> String {
        match <[String; 1]>::try_from(values) {
            Ok([value]) => value,
            Err(values) => {
                let axis = vec![AttributeProto::int("axis", axis)];
                self.builder.node(name, "Concat", values, name, axis);
                name.to_owned()
            }
        }
    }

    /// Splits the first dimension into equal parts.
    fn split(&mut self, name: &str, value: &str, parts: usize) -> Vec<String> {
        if parts == 1 {
            return vec![value.to_owned()];
        }
        let names: Vec<String> = (0..parts).map(|part| format!("{name}.{part}")).collect();
        let axis = vec![AttributeProto::int("axis", 0)];
        self.builder.multi_output_node(name, "Split", vec![value.to_owned()], names.clone(), axis);
        names
    }
}

/// Returns the product of each row's value with each column's, row by row.
fn products(rows: &[f32], columns: &[f32]) -> Vec<f32> {
    rows.iter().flat_map(|row| columns.iter().map(move |column| row * column)).collect()
}
