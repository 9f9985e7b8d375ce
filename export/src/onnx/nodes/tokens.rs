//! Nodes of vision transformers, in the forms that ONNX Runtime fuses.

use std::f64::consts::SQRT_2;
use std::sync::Arc;

use protoseg_models::analysis::Role;
use protoseg_models::graph::{Node, NodeId};
use protoseg_models::weights::Tensor;

use crate::bicubic;
use crate::onnx::nodes::{NodeWriter, resize_scale};
use crate::onnx::proto::AttributeProto;
use crate::onnx::qdq;

impl NodeWriter<'_> {
    /// Writes the resizing of an image and a convolution over its patches.
    pub(super) fn patches(
        &mut self,
        node: &Node,
        [patch, pixels]: [usize; 2],
        mut inputs: Vec<String>,
        output: &str,
    ) {
        let name = self.name(node);
        if patch != pixels {
            let part = |part: &str| format!("{name}.{part}");
            let scale = resize_scale(pixels, patch);
            let scales = [1.0, 1.0, scale, scale];
            let scales =
                self.builder.float_constant(&format!("{}.scales", node.name), &[4], &scales);
            let attributes = super::resize_attributes(false);
            inputs[0] =
                self.builder.op(&part("image"), "Resize", &[&inputs[0], "", &scales], attributes);
        }
        let attributes = vec![
            AttributeProto::ints("kernel_shape", &[patch; 2]),
            AttributeProto::ints("strides", &[patch; 2]),
        ];
        self.builder.node(&name, "Conv", inputs, output, attributes);
    }

    /// Writes patches as tokens with their positions, behind class token and registers. The table
    /// of positions is interpolated here where the size is fixed, otherwise by the runtime.
    pub(super) fn embed(&mut self, node: &Node, grid: usize, registers: usize, output: &str) {
        let name = self.name(node);
        let part = |part: &str| format!("{name}.{part}");
        let constant = |part: &str| format!("{}.{part}", node.name);
        let patches = self.values[node.inputs[0].0].clone();
        let channels = node.channels;
        let weights = |role| Arc::clone(&self.network.weights[&node.parameter_name(role)]);
        let positions = weights(Role::Positions);
        let class_token = weights(Role::ClassToken);
        let registers = (registers > 0).then(|| weights(Role::Registers));

        let (own, table) = positions.data.split_at(channels);
        let fixed = self.sizes.as_ref().map(|sizes| sizes[node.inputs[0].0]);
        let flat = self.flatten(&part("patches"), &patches, channels);
        let positions = self.positions(node, &patches, fixed, [grid, channels], table);
        let placed = self.builder.op(&part("placed"), "Add", &[&flat, &positions], vec![]);

        let mut first: Vec<f32> =
            class_token.data.iter().zip(own).map(|(token, position)| token + position).collect();
        first.extend(registers.iter().flat_map(|registers| &registers.data));
        let count = first.len() / channels;
        let first = Arc::new(Tensor { shape: vec![1, count, channels], data: first });
        let first = self.builder.weight(&constant("first"), &first, self.float);
        let batch = vec![AttributeProto::int("start", 0), AttributeProto::int("end", 1)];
        let batch = self.builder.op(&part("batch"), "Shape", &[&patches], batch);
        let rest = [count as i64, channels as i64];
        let rest = self.builder.int64_constant(&constant("first.size"), &rest);
        let axis = || vec![AttributeProto::int("axis", 0)];
        let shape = self.builder.op(&part("first.shape"), "Concat", &[&batch, &rest], axis());
        let first = self.builder.op(&part("first.each"), "Expand", &[&first, &shape], vec![]);
        let axis = vec![AttributeProto::int("axis", 1)];
        self.builder.node(&name, "Concat", vec![first, placed], output, axis);
    }

    /// Writes positions `[1, h w, C]` from a table `[grid^2, C]`.
    ///
    /// Interpolation is a product with a matrix for each axis. The runtime gets the two by resizing
    /// an identity: two matrix products and a cubic resize of one channel, where a resize of all
    /// channels takes ONNX Runtime as long as half a block.
    fn positions(
        &mut self,
        node: &Node,
        patches: &str,
        fixed: Option<[usize; 2]>,
        [grid, channels]: [usize; 2],
        table: &[f32],
    ) -> String {
        let name = self.name(node);
        let part = |part: &str| format!("{name}.{part}");
        let constant = |part: &str| format!("{}.{part}", node.name);
        if let Some([height, width]) = fixed {
            let data = bicubic::resize(table, [grid, grid, channels], [height, width]);
            let tensor = Arc::new(Tensor { shape: vec![1, height * width, channels], data });
            let own = constant(&format!("positions{height}x{width}"));
            return self.builder.weight(&own, &tensor, self.float);
        }
        let identity = Tensor::from_fn(&[1, 1, grid, grid], |index| {
            f32::from(u8::from(index / grid == index % grid))
        });
        let identity = Arc::new(identity);
        let identity = self.builder.weight(&constant("identity"), &identity, self.float);
        let one = self.builder.int64_constant(&constant("identity.batch"), &[1, 1]);
        let side = self.builder.int64_constant(&constant("identity.side"), &[grid as i64]);
        let [rows, columns] = [("rows", 2), ("columns", 3)].map(|(axis, dimension)| {
            let own = |part: &str| format!("{name}.{axis}.{part}");
            let range = vec![
                AttributeProto::int("start", dimension),
                AttributeProto::int("end", dimension + 1),
            ];
            let length = self.builder.op(&own("length"), "Shape", &[patches], range);
            let joined = vec![AttributeProto::int("axis", 0)];
            let sizes = self.builder.op(&own("sizes"), "Concat", &[&one, &length, &side], joined);
            let attributes = vec![
                AttributeProto::string("mode", "cubic"),
                AttributeProto::string("coordinate_transformation_mode", "half_pixel"),
                AttributeProto::float("cubic_coeff_a", -0.75),
            ];
            self.builder.op(&own("shares"), "Resize", &[&identity, "", "", &sizes], attributes)
        });
        let table = Tensor { shape: vec![grid, grid * channels], data: table.to_vec() };
        let table = self.builder.weight(&constant("positions"), &Arc::new(table), self.float);
        let apart = [-1, grid as i64, channels as i64];
        let apart = self.builder.int64_constant(&constant("positions.rows"), &apart);
        let flat = [1, -1, channels as i64];
        let flat = self.builder.int64_constant(&constant("positions.flat"), &flat);
        let down = self.builder.op(&part("down"), "MatMul", &[&rows, &table], vec![]);
        let down = self.builder.op(&part("down.rows"), "Reshape", &[&down, &apart], vec![]);
        let across = self.builder.op(&part("across"), "MatMul", &[&columns, &down], vec![]);
        self.builder.op(&part("interpolated"), "Reshape", &[&across, &flat], vec![])
    }

    /// Writes a map `[N, C, h, w]` as tokens `[N, h w, C]`.
    fn flatten(&mut self, name: &str, map: &str, channels: usize) -> String {
        let size = [0, channels as i64, -1];
        let size = self.builder.int64_constant(&format!("tokens{channels}.size"), &size);
        let flat = self.builder.op(&format!("{name}.flat"), "Reshape", &[map, &size], vec![]);
        self.transpose(&format!("{name}.tokens"), &flat, &[0, 2, 1])
    }

    fn transpose(&mut self, name: &str, input: &str, order: &[usize]) -> String {
        self.builder.op(name, "Transpose", &[input], vec![AttributeProto::ints("perm", order)])
    }

    /// Writes a layer normalization, with its own parameters or those of another.
    pub(super) fn layer_norm(&mut self, node: &Node, eps: f64, output: &str) {
        let graph = &self.network.graph;
        let owner = node.inputs.get(1).map_or(node, |&owner| graph.node(owner)).clone();
        let name = self.name(node);
        let mut inputs = vec![self.values[node.inputs[0].0].clone()];
        for role in [Role::NormWeight, Role::NormBias] {
            let parameter = owner.parameter_name(role);
            let tensor = &self.network.weights[&parameter];
            inputs.push(self.builder.weight(&parameter, tensor, self.float));
        }
        let attributes =
            vec![AttributeProto::int("axis", -1), AttributeProto::float("epsilon", eps as f32)];
        self.builder.node(&name, "LayerNormalization", inputs, output, attributes);
    }

    /// Writes a linear layer on tokens: a product with transposed weights, and a sum.
    pub(super) fn token_linear(&mut self, node: &Node, id: NodeId, output: &str) {
        let name = self.name(node);
        let [weight, bias] = [Role::LinearWeight, Role::Bias].map(|role| node.parameter_name(role));
        let weight = match self.plan.and_then(|plan| plan.linear(id)) {
            Some(linear) => qdq::linear_weights(self.builder, &weight, linear),
            None => {
                let transposed = Arc::new(transposed(&self.network.weights[&weight]));
                self.builder.weight(&weight, &transposed, self.float)
            }
        };
        let bias = self.builder.weight(&bias, &self.network.weights[&bias], self.float);
        let input = self.values[node.inputs[0].0].clone();
        let product =
            self.builder.op(&format!("{name}.product"), "MatMul", &[&input, &weight], vec![]);
        self.builder.node(&name, "Add", vec![product, bias], output, vec![]);
    }

    /// Writes multi-head self-attention.
    pub(super) fn attention(&mut self, node: &Node, heads: usize, output: &str) {
        let name = self.name(node);
        let part = |part: &str| format!("{name}.{part}");
        let size = node.channels / heads;
        let mixed = self.values[node.inputs[0].0].clone();
        let parts = ["query", "key", "value"].map(part);
        let axis = vec![AttributeProto::int("axis", 2)];
        self.builder.multi_output_node(&part("split"), "Split", vec![mixed], parts.to_vec(), axis);
        let by_head = [0, 0, heads as i64, size as i64];
        let by_head = self.builder.int64_constant(&format!("heads{heads}x{size}"), &by_head);
        let [query, key, value] = parts.map(|value| {
            let split = format!("{value}.heads");
            let split = self.builder.op(&split, "Reshape", &[&value, &by_head], vec![]);
            let order: &[usize] =
                if value.ends_with(".key") { &[0, 2, 3, 1] } else { &[0, 2, 1, 3] };
            self.transpose(&format!("{value}.ordered"), &split, order)
        });
        let factor =
            self.scalar(&format!("attention{size}.factor"), (1.0 / (size as f64).sqrt()) as f32);
        let query = self.builder.op(&part("scaled"), "Mul", &[&query, &factor], vec![]);
        let scores = self.builder.op(&part("scores"), "MatMul", &[&query, &key], vec![]);
        let axis = vec![AttributeProto::int("axis", -1)];
        let shares = self.builder.op(&part("shares"), "Softmax", &[&scores], axis);
        let mixed = self.builder.op(&part("mixed"), "MatMul", &[&shares, &value], vec![]);
        let mixed = self.transpose(&part("tokens"), &mixed, &[0, 2, 1, 3]);
        let joined = [0, 0, node.channels as i64];
        let joined = self.builder.int64_constant(&format!("joined{}", node.channels), &joined);
        self.builder.node(&name, "Reshape", vec![mixed, joined], output, vec![]);
    }

    /// Writes `x / 2 (1 + erf(x / sqrt(2)))`.
    pub(super) fn gelu(&mut self, node: &Node, output: &str) {
        let name = self.name(node);
        let part = |part: &str| format!("{name}.{part}");
        let input = self.values[node.inputs[0].0].clone();
        let [root, one, half] =
            [("gelu.root", SQRT_2 as f32), ("gelu.one", 1.0), ("gelu.half", 0.5)]
                .map(|(name, value)| self.scalar(name, value));
        let divided = self.builder.op(&part("divided"), "Div", &[&input, &root], vec![]);
        let error = self.builder.op(&part("erf"), "Erf", &[&divided], vec![]);
        let shifted = self.builder.op(&part("shifted"), "Add", &[&error, &one], vec![]);
        let product = self.builder.op(&part("product"), "Mul", &[&input, &shifted], vec![]);
        self.builder.node(&name, "Mul", vec![product, half], output, vec![]);
    }

    /// Writes the tokens of positions as a map of the second input's shape.
    pub(super) fn token_map(&mut self, node: &Node, id: NodeId, skip: usize, output: &str) {
        let name = self.name(node);
        let part = |part: &str| format!("{name}.{part}");
        let tokens = self.values[node.inputs[0].0].clone();
        let [start, end, axis] =
            [(format!("after{skip}"), skip as i64), ("end".into(), i64::MAX), ("axis".into(), 1)]
                .map(|(name, value)| {
                    self.builder.int64_constant(&format!("positions.{name}"), &[value])
                });
        let inputs = [tokens.as_str(), &start, &end, &axis];
        let kept = self.builder.op(&part("positions"), "Slice", &inputs, vec![]);
        let planes = self.transpose(&part("planes"), &kept, &[0, 2, 1]);
        let shape = match &self.sizes {
            Some(sizes) => {
                let [height, width] = sizes[id.0].map(|length| length as i64);
                let channels = node.channels as i64;
                let shape = [0, channels, height, width];
                let constant = format!("map{channels}x{height}x{width}");
                self.builder.int64_constant(&constant, &shape)
            }
            None => {
                let like = self.measurable(node.inputs[1]);
                self.builder.op(&part("shape"), "Shape", &[&like], vec![])
            }
        };
        self.builder.node(&name, "Reshape", vec![planes, shape], output, vec![]);
    }
}

/// Returns a matrix with rows and columns exchanged.
fn transposed(matrix: &Tensor) -> Tensor {
    let [rows, columns] = [matrix.shape[0], matrix.shape[1]];
    Tensor::from_fn(&[columns, rows], |index| matrix.data[index % rows * columns + index / rows])
}
