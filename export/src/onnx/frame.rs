//! Frames of one size to labels in one graph: windows are cut, run through the network, put together, upsampled and
//! decided inside, so that any ONNX Runtime client segments frames without code of its own.
//!
//! Only operators with a CUDA kernel at opset 17, no control flow, no shapes computed while running. The number of frames
//! stays open. The windows are those of [`WindowPlan`], overlaps their mean at logit resolution, as where the windows are
//! put together outside.

use anyhow::{Context, Result, ensure};
use protoseg_models::bundle::{Dimension, Model, TensorInfo};
use protoseg_models::graph::{NodeId, Op};
use protoseg_models::variant::{FrameSpec, Precision, Variant};
use protoseg_models::window::{Tiling, WindowPlan};

use crate::network::Network;
use crate::onnx::builder::GraphBuilder;
use crate::onnx::emit::{EmittedModel, file};
use crate::onnx::nodes::{NodeWriter, resize_attributes, resize_scale};
use crate::onnx::pixel_outputs::{self, PixelOutput};
use crate::onnx::proto::{AttributeProto, DataType};
use crate::onnx::signature;

/// Nodes that one graph may have: ONNX Runtime opens as many in half a minute.
const MOST_NODES: usize = 50_000;

/// Nodes for each window beside the network's: cut out, padded to its place, added to the sum.
const NODES_A_WINDOW: usize = 3;

/// Refuses a graph that nothing could load, before it is made: small windows on a large frame, the network written out for
/// each.
pub(crate) fn check_size(network: &Network, frame: &FrameSpec, model: &Model) -> Result<()> {
    let FrameSpec { height, width, tiling: pieces, windows_at_once } = *frame;
    let Tiling::Windows(window) = pieces else { return Ok(()) };
    let windows = WindowPlan::new(height, width, window, model.grid)?.count();
    let networks = windows.div_ceil(windows_at_once.max(1));
    let nodes = networks * network.graph.nodes().len() + NODES_A_WINDOW * windows;
    let more_at_once = if networks > 1 { ":COUNT behind --frame, or for larger " } else { "" };
    ensure!(
        nodes <= MOST_NODES,
        "a frame of {height}x{width} pixels has {windows} windows of {pieces}, and a graph that takes {windows_at_once} at once \
         would have some {nodes} nodes, more than the {MOST_NODES} that runtimes open in good time; ask for larger {more_at_once}\
         windows or steps with --window"
    );
    Ok(())
}

/// The network of `model` over whole frames, as a file of bytes `image` `[N, H, W, 3]` to bytes `labels` and `confidence`
/// `[N, H, W]` and what else is asked for.
pub fn emit(
    network: &Network,
    form: &Variant,
    frame: &FrameSpec,
    pixel_outputs: &[PixelOutput],
    model: &Model,
) -> Result<EmittedModel> {
    ensure!(!pixel_outputs.is_empty(), "a frame file without outputs cannot be written");
    let mut writer = FrameWriter {
        network,
        frame,
        model,
        builder: GraphBuilder::default(),
        float: float(form)?,
    };
    let logits = writer.logits()?;
    let FrameWriter { mut builder, .. } = writer;
    pixel_outputs::write(&mut builder, &logits, model.classes.count(), pixel_outputs);
    let outputs: Vec<TensorInfo> = pixel_outputs
        .iter()
        .map(|decision| decision.port([frame.height, frame.width].map(Dimension::Fixed)))
        .collect();
    file(builder, vec![input(frame)], outputs, form, Some(model))
}

fn float(form: &Variant) -> Result<DataType> {
    match form.precision {
        Precision::Fp32 => Ok(DataType::Float),
        Precision::Fp16 => Ok(DataType::Float16),
        Precision::Int8 => {
            anyhow::bail!("a frame file counts in fp32 or fp16; 8-bit files are of the logits kind")
        }
    }
}

fn input(frame: &FrameSpec) -> TensorInfo {
    let batch = Dimension::Named("N".to_owned());
    let sizes = [frame.height, frame.width, 3].map(Dimension::Fixed);
    let shape = std::iter::once(batch).chain(sizes).collect();
    TensorInfo { name: signature::IMAGE.to_owned(), element: signature::UINT8.to_owned(), shape }
}

struct FrameWriter<'a> {
    network: &'a Network,
    frame: &'a FrameSpec,
    model: &'a Model,
    builder: GraphBuilder,
    float: DataType,
}

impl FrameWriter<'_> {
    /// The frame's class scores at its own size, `[N, C, H, W]` in 32-bit floats; the name of the value.
    fn logits(&mut self) -> Result<String> {
        let FrameSpec { height, width, tiling: pieces, .. } = *self.frame;
        let normalize =
            self.network.graph.iter().find(|(_, node)| matches!(node.op, Op::Normalize { .. }));
        let (normalize, _) = normalize.context("the network does not normalise its pictures")?;
        let mut body = NodeWriter::new(self.network, &mut self.builder, self.float);
        body.set_value_name(self.network.graph.input(), signature::IMAGE);
        body.write(normalize);
        let picture = body.value(normalize).to_owned();
        let (map, map_size, padded) = match pieces {
            Tiling::Whole => {
                let (map, map_size) = self.network(normalize, &picture, [height, width], "")?;
                (map, map_size, [height, width])
            }
            Tiling::Windows(window) => {
                let plan = WindowPlan::new(height, width, window, self.model.grid)?;
                let padded = [plan.rows.padded, plan.columns.padded];
                let picture = self.pad(&picture, padded);
                (self.windows(normalize, &picture, &plan)?, plan.logit_size(), padded)
            }
        };
        Ok(self.upsample(&map, map_size, padded))
    }

    /// The network's class scores for pictures of one size, `[N, C, h, w]` in 32-bit floats, with h and w.
    fn network(
        &mut self,
        normalize: NodeId,
        pictures: &str,
        size: [usize; 2],
        prefix: &str,
    ) -> Result<(String, [usize; 2])> {
        let shapes = self.network.graph.shapes(1, size[0], size[1])?;
        let side = |shape: &Vec<usize>, axis: usize| shape.get(axis).copied().unwrap_or(1);
        let sizes: Vec<[usize; 2]> =
            shapes.iter().map(|shape| [side(shape, 2), side(shape, 3)]).collect();
        let [output] = self.network.outputs() else {
            anyhow::bail!("a frame file is made of the logits alone")
        };
        let logits = self.network.find(&output.value).context("the network has no logits")?;
        let logit_size = sizes[logits.0];
        let mut body = NodeWriter::new(self.network, &mut self.builder, self.float)
            .with_prefix(prefix)
            .with_sizes(sizes);
        body.set_value_name(normalize, pictures);
        let nodes = self.network.graph.iter().map(|(id, _)| id);
        nodes.filter(|&id| id > normalize).for_each(|id| body.write(id));
        let value = body.value(logits).to_owned();
        let value = match self.float {
            DataType::Float => value,
            _ => self.builder.cast(&format!("{value}.floats"), &value, DataType::Float),
        };
        Ok((value, logit_size))
    }

    /// The picture with its last row and column repeated up to a size.
    fn pad(&mut self, picture: &str, padded: [usize; 2]) -> String {
        let [down, across] = [padded[0] - self.frame.height, padded[1] - self.frame.width];
        if [down, across] == [0, 0] {
            return picture.to_owned();
        }
        let pads = self
            .builder
            .int64_constant("frame.pads", &[0, 0, 0, 0, 0, 0, down as i64, across as i64]);
        self.builder.op(
            "frame.padded",
            "Pad",
            &[picture, &pads],
            vec![AttributeProto::string("mode", "edge")],
        )
    }

    /// Runs every window and puts their scores together: the map of the padded frame, `[N, C, h, w]`.
    fn windows(&mut self, normalize: NodeId, picture: &str, plan: &WindowPlan) -> Result<String> {
        let at_once = self.frame.windows_at_once;
        ensure!(at_once > 0, "the network takes at least one window at once");
        let size = plan.window.size;
        let places: Vec<[usize; 2]> = plan.starts().collect();
        let mut scores = Vec::new();
        for (chunk, places) in places.chunks(at_once).enumerate() {
            let prefix = if chunk == 0 { String::new() } else { format!("part{}.", chunk + 1) };
            let windows: Vec<String> = places
                .iter()
                .zip(chunk * at_once..)
                .map(|(&[top, left], index)| {
                    self.slice(&format!("window{index}"), picture, [top, left], [size; 2])
                })
                .collect();
            let together = self.concat(&format!("{prefix}windows"), windows, 0);
            let (logits, logit_size) = self.network(normalize, &together, [size; 2], &prefix)?;
            ensure!(
                logit_size == [plan.window_logits(); 2],
                "windows of {size} pixels give logits off the network's grid"
            );
            scores.extend(self.split(&format!("{prefix}scores"), &logits, places.len()));
        }
        Ok(self.blend(&scores, plan))
    }

    /// The mean of all windows that cover a place: each is set into a frame of zeros, and their sum divided by the cover.
    fn blend(&mut self, scores: &[String], plan: &WindowPlan) -> String {
        let [height, width] = plan.logit_size();
        let side = plan.window_logits();
        let places: Vec<[usize; 2]> = plan.logit_starts().collect();
        let mut sum: Option<String> = None;
        for (index, (scores, &[top, left])) in scores.iter().zip(&places).enumerate() {
            let placed = if [height, width] == [side; 2] {
                scores.clone()
            } else {
                let pads = [0, 0, top, left, 0, 0, height - top - side, width - left - side]
                    .map(|pad| pad as i64);
                let pads = self.builder.int64_constant(&format!("place{index}.pads"), &pads);
                self.builder.op(&format!("place{index}"), "Pad", &[scores, &pads], vec![])
            };
            sum = Some(match sum {
                None => placed,
                Some(sum) => {
                    self.builder.op(&format!("sum{index}"), "Add", &[&sum, &placed], vec![])
                }
            });
        }
        let sum = sum.unwrap_or_default();
        let [rows, columns] = plan.coverage();
        if rows.iter().chain(&columns).all(|&cover| cover == 1) {
            return sum;
        }
        let cover: Vec<f32> = rows
            .iter()
            .flat_map(|&down| columns.iter().map(move |&across| (down * across) as f32))
            .collect();
        let cover = self.builder.float_constant("cover", &[1, 1, height, width], &cover);
        self.builder.op("mean", "Div", &[&sum, &cover], vec![])
    }

    /// The scores of the padded frame at its own size, without the padding.
    fn upsample(&mut self, map: &str, map_size: [usize; 2], padded: [usize; 2]) -> String {
        let [down, across] = [0, 1].map(|axis| resize_scale(map_size[axis], padded[axis]));
        let scales =
            self.builder.float_constant("upsample.scales", &[4], &[1.0, 1.0, down, across]);
        let attributes = resize_attributes(self.model.grid.align_corners);
        let full = self.builder.op("upsample", "Resize", &[map, "", &scales], attributes);
        let size = [self.frame.height, self.frame.width];
        if size == padded { full } else { self.slice("cropped", &full, [0, 0], size) }
    }

    /// A rectangle of the last two dimensions.
    fn slice(&mut self, name: &str, value: &str, start: [usize; 2], size: [usize; 2]) -> String {
        let end = [start[0] + size[0], start[1] + size[1]];
        let [start, end] = [start, end].map(|place| place.map(|place| place as i64));
        let start = self.builder.int64_constant(&format!("{name}.start"), &start);
        let end = self.builder.int64_constant(&format!("{name}.end"), &end);
        let axes = self.builder.int64_constant("rows.columns", &[2, 3]);
        self.builder.op(name, "Slice", &[value, &start, &end, &axes], vec![])
    }

    fn concat(&mut self, name: &str, values: Vec<String>, axis: i64) -> String {
        match <[String; 1]>::try_from(values) {
            Ok([value]) => value,
            Err(values) => {
                self.builder.node(
                    name,
                    "Concat",
                    values,
                    name,
                    vec![AttributeProto::int("axis", axis)],
                );
                name.to_owned()
            }
        }
    }

    /// Equal parts of the first dimension.
    fn split(&mut self, name: &str, value: &str, parts: usize) -> Vec<String> {
        if parts == 1 {
            return vec![value.to_owned()];
        }
        let names: Vec<String> = (0..parts).map(|part| format!("{name}.{part}")).collect();
        self.builder.multi_output_node(
            name,
            "Split",
            vec![value.to_owned()],
            names.clone(),
            vec![AttributeProto::int("axis", 0)],
        );
        names
    }
}
