//! Interpreter of network graphs on libtorch.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use protoseg_models::analysis::Role;
use protoseg_models::graph::{Conv, Graph, Node, NodeId, Op, Tag};
use protoseg_models::weights::{self, StateDict};
use sha2::{Digest, Sha256};
use tch::{Device, Kind, Tensor};

use crate::config::options::Precision;
use crate::interrupt::Interrupt;
use feature_cache::FeatureCache;

pub mod feature_cache;
mod tokens;

/// Behavior of BatchNorm and dropout in a forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardMode {
    /// Batch statistics, which update the running ones; dropout on.
    Train,
    /// As in training, but running statistics become the mean over this batch and the `seen` ones before it.
    PreciseBn { seen: u64 },
    /// Running statistics; dropout off.
    Eval,
}

impl ForwardMode {
    fn trains(self) -> bool {
        self != Self::Eval
    }
}

/// Outputs of frozen nodes by node, each with one row an image.
pub type FrozenOutputs = BTreeMap<NodeId, Tensor>;

/// Returns the same tensors once more.
pub fn shared(outputs: &FrozenOutputs) -> FrozenOutputs {
    outputs.iter().map(|(&id, tensor)| (id, tensor.shallow_clone())).collect()
}

/// Returns the outputs for the images of both.
pub fn concat_outputs(first: &FrozenOutputs, second: &FrozenOutputs) -> Result<FrozenOutputs> {
    let pairs = first.iter().zip(second.values());
    pairs.map(|((&id, first), second)| Ok((id, Tensor::f_cat(&[first, second], 0)?))).collect()
}

/// A network graph with its parameters on a device.
pub struct Net {
    graph: Graph,
    /// Parameters and buffers by name.
    tensors: BTreeMap<String, Tensor>,
    roles: BTreeMap<String, Role>,
    /// Start of the names of nodes whose parameters stay as they are.
    frozen: Option<&'static str>,
    /// Outputs of the frozen nodes, if they are kept.
    cache: Option<FeatureCache>,
    device: Device,
    precision: Precision,
    /// Checked before every node of a forward pass.
    interrupt: Interrupt,
}

impl Net {
    /// Places weights, which must fit the graph, on a device; parameters record gradients.
    pub fn new(graph: Graph, weights: &StateDict, device: Device) -> Result<Self> {
        graph.check_weights(weights)?;
        let parameters = graph.parameters();
        let roles: BTreeMap<_, _> =
            parameters.iter().map(|parameter| (parameter.name.clone(), parameter.role)).collect();
        let tensors = parameters.into_iter().map(|parameter| {
            let tensor = to_torch(&weights[&parameter.name], device)?;
            let tensor =
                if parameter.role == Role::ConvWeight { channels_last(&tensor)? } else { tensor };
            Ok((parameter.name, tensor.f_set_requires_grad(parameter.role.learns())?))
        });
        let tensors = tensors.collect::<Result<_>>()?;
        Ok(Self {
            graph,
            tensors,
            roles,
            frozen: None,
            cache: None,
            device,
            precision: Precision::Float32,
            interrupt: Interrupt::never(),
        })
    }

    /// Returns a network that shares the tensors and computes convolutions in `precision`.
    pub fn with_precision(&self, precision: Precision) -> Self {
        let tensors = self
            .tensors
            .iter()
            .map(|(name, tensor)| (name.clone(), tensor.shallow_clone()))
            .collect();
        Self {
            graph: self.graph.clone(),
            tensors,
            roles: self.roles.clone(),
            frozen: self.frozen,
            cache: self.cache.clone().filter(|_| precision == self.precision),
            device: self.device,
            precision,
            interrupt: self.interrupt.clone(),
        }
    }

    /// Keeps the parameters and statistics of nodes whose names begin with `prefix` as they are.
    pub fn freeze(mut self, prefix: &'static str) -> Result<Self> {
        self.frozen = Some(prefix);
        for (name, tensor) in &self.tensors {
            if self.is_frozen(name) {
                let _ = tensor.f_set_requires_grad(false)?;
            }
        }
        Ok(self)
    }

    /// Keeps outputs of the frozen nodes in a folder, of at most `limit` bytes.
    pub fn with_feature_cache(mut self, folder: &Path, limit: u64) -> Result<Self> {
        let mut digest = Sha256::new();
        digest.update(format!("{:?}", self.precision));
        for (name, tensor) in self.tensors.iter().filter(|(name, _)| self.is_frozen(name)) {
            digest.update(name);
            for value in from_torch(tensor)?.data {
                digest.update(value.to_le_bytes());
            }
        }
        // The same weights give other values in another graph, with other patches.
        for node in self.graph.nodes().iter().filter(|node| self.is_frozen(&node.name)) {
            digest.update(format!("{}{:?}", node.name, node.op));
        }
        self.cache = Some(FeatureCache::open(folder, digest.finalize().into(), limit)?);
        Ok(self)
    }

    /// Shares the kept outputs of a network with the same frozen nodes.
    pub fn sharing_cache(mut self, other: &Self) -> Self {
        self.cache.clone_from(&other.cache);
        self
    }

    /// True if outputs of frozen nodes are kept.
    pub fn has_cache(&self) -> bool {
        self.cache.is_some()
    }

    fn is_frozen(&self, name: &str) -> bool {
        self.frozen.is_some_and(|prefix| name.starts_with(prefix))
    }

    /// Makes forward passes fail with [`Interrupted`](crate::interrupt::Interrupted) once the interrupt says so.
    pub fn interruptible(mut self, interrupt: Interrupt) -> Self {
        self.interrupt = interrupt;
        self
    }

    /// Interrupt of forward passes.
    pub fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    pub fn device(&self) -> Device {
        self.device
    }

    /// Iterates over the parameters that record gradients.
    pub fn trainable(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors
            .iter()
            .filter(|(name, _)| self.is_trainable(name))
            .map(|(name, tensor)| (name.as_str(), tensor))
    }

    pub fn is_trainable(&self, name: &str) -> bool {
        self.roles.get(name).is_some_and(|role| role.learns()) && !self.is_frozen(name)
    }

    /// Returns parameters and buffers by name.
    pub fn tensors(&self) -> &BTreeMap<String, Tensor> {
        &self.tensors
    }

    /// Copies all parameters and buffers to main memory.
    pub fn state_dict(&self) -> Result<StateDict> {
        self.tensors.iter().map(|(name, tensor)| Ok((name.clone(), from_torch(tensor)?))).collect()
    }

    /// Returns the outputs of the `wanted` nodes for images u8 `[N, H, W, 3]`; other values are freed after their last reader.
    pub fn forward(
        &self,
        images: &Tensor,
        mode: ForwardMode,
        wanted: &[NodeId],
    ) -> Result<Vec<Tensor>> {
        let known = match self.cache {
            Some(_) => self.outputs_of_frozen(images, wanted, self.cache.as_ref())?,
            None => FrozenOutputs::new(),
        };
        self.forward_from(images, known, mode, wanted)
    }

    /// Like [`Net::forward`], from outputs of the frozen nodes for these images.
    pub fn forward_from(
        &self,
        images: &Tensor,
        frozen: FrozenOutputs,
        mode: ForwardMode,
        wanted: &[NodeId],
    ) -> Result<Vec<Tensor>> {
        self.run(images, mode, wanted, frozen, |_, _| Ok(()))
    }

    /// Returns the outputs of frozen nodes that others read for images u8 `[N, H, W, 3]`.
    pub fn frozen_outputs(&self, images: &Tensor) -> Result<FrozenOutputs> {
        self.outputs_of_frozen(images, &[], self.cache.as_ref())
    }

    /// Like [`Net::frozen_outputs`], for images that never come again: nothing is kept of them.
    pub fn new_frozen_outputs(&self, images: &Tensor) -> Result<FrozenOutputs> {
        self.outputs_of_frozen(images, &[], None)
    }

    /// Returns outputs of frozen nodes that are read by others or wanted, from a cache if one is
    /// given.
    fn outputs_of_frozen(
        &self,
        images: &Tensor,
        wanted: &[NodeId],
        cache: Option<&FeatureCache>,
    ) -> Result<FrozenOutputs> {
        let frozen = |id: NodeId| self.is_frozen(&self.graph.node(id).name);
        let read = self.graph.nodes().iter().filter(|node| !self.is_frozen(&node.name));
        let ends: BTreeSet<NodeId> = read
            .flat_map(|node| node.inputs.iter().copied())
            .chain(wanted.iter().copied())
            .filter(|&id| frozen(id))
            .collect();
        let ends: Vec<NodeId> = ends.into_iter().collect();
        let Some(cache) = cache else {
            let _guard = tch::no_grad_guard();
            let found =
                self.run(images, ForwardMode::Eval, &ends, FrozenOutputs::new(), |_, _| Ok(()))?;
            return Ok(ends.into_iter().zip(found).collect());
        };
        let size = images.size();
        let shapes = self.graph.shapes(1, size[1] as usize, size[2] as usize)?;
        let shapes: Vec<Vec<i64>> = ends
            .iter()
            .map(|id| shapes[id.0].iter().map(|&length| length as i64).collect())
            .collect();
        let _guard = tch::no_grad_guard();
        let mut outputs: Vec<Vec<Tensor>> = ends.iter().map(|_| Vec::new()).collect();
        for index in 0..size[0] {
            self.interrupt.check()?;
            let image = images.f_narrow(0, index, 1)?;
            let compute =
                || self.run(&image, ForwardMode::Eval, &ends, FrozenOutputs::new(), |_, _| Ok(()));
            let found = cache.outputs(&image, &shapes, self.device, compute)?;
            for (outputs, found) in outputs.iter_mut().zip(found) {
                outputs.push(found);
            }
        }
        ends.into_iter()
            .zip(outputs)
            .map(|(id, parts)| Ok((id, Tensor::f_cat(&parts, 0)?)))
            .collect()
    }

    /// Like [`Net::forward`]; `seen` gets the value of every node up to the last wanted one, in order. Values are freed as in
    /// [`Net::forward`], so that looking at all of them takes no more memory.
    pub fn forward_observed(
        &self,
        images: &Tensor,
        mode: ForwardMode,
        wanted: &[NodeId],
        seen: impl FnMut(NodeId, &Tensor) -> Result<()>,
    ) -> Result<Vec<Tensor>> {
        self.run(images, mode, wanted, FrozenOutputs::new(), seen)
    }

    /// Computes nodes up to the last wanted one; with `known` outputs of frozen nodes, no other
    /// frozen node.
    fn run(
        &self,
        images: &Tensor,
        mode: ForwardMode,
        wanted: &[NodeId],
        mut known: FrozenOutputs,
        mut seen: impl FnMut(NodeId, &Tensor) -> Result<()>,
    ) -> Result<Vec<Tensor>> {
        let skips_frozen = !known.is_empty();
        let mut readers = vec![0_usize; self.graph.nodes().len()];
        for id in wanted.iter().chain(self.graph.nodes().iter().flat_map(|node| &node.inputs)) {
            readers[id.0] += 1;
        }
        let last = wanted.iter().map(|id| id.0).max().unwrap_or(0);
        let mut values: Vec<Option<Tensor>> = Vec::with_capacity(last + 1);
        for (id, node) in self.graph.iter().take(last + 1) {
            self.interrupt.check()?;
            let value = if id == self.graph.input() {
                images.shallow_clone()
            } else if let Some(value) = known.remove(&id) {
                value
            } else if skips_frozen && self.is_frozen(&node.name) {
                values.push(None);
                continue;
            } else if let Some(value) = self.overwrite(node, &mut values, &readers)? {
                value
            } else {
                self.node(node, &values, mode)?
            };
            seen(id, &value)?;
            values.push((readers[id.0] > 0).then_some(value));
            for input in &node.inputs {
                readers[input.0] -= 1;
                if readers[input.0] == 0 {
                    values[input.0] = None;
                }
            }
        }
        let value = |id: &NodeId| {
            values[id.0].as_ref().map(Tensor::shallow_clone).context("a wanted node has no value")
        };
        wanted.iter().map(value).collect()
    }

    pub fn forward_tagged(&self, images: &Tensor, mode: ForwardMode, tag: Tag) -> Result<Tensor> {
        Ok(self.forward(images, mode, &[self.tagged(tag)?])?.remove(0))
    }

    /// Returns the node with a tag, which the network must have.
    pub fn tagged(&self, tag: Tag) -> Result<NodeId> {
        self.graph.tagged(tag).with_context(|| format!("the network has no {tag:?}"))
    }

    /// Computes a node in place of its first input where no other node and no gradient needs that: allocating memory costs
    /// more than these operations.
    fn overwrite(
        &self,
        node: &Node,
        values: &mut [Option<Tensor>],
        readers: &[usize],
    ) -> Result<Option<Tensor>> {
        let first = node.inputs[0];
        let spare = readers[first.0] == 1
            && matches!(self.graph.node(first).op, Op::BatchNorm { .. } | Op::Add);
        if !spare || !matches!(node.op, Op::Relu | Op::Relu6 | Op::Add) {
            return Ok(None);
        }
        let Some(mut value) = values[first.0].take() else { return Ok(None) };
        let _ = match node.op {
            Op::Relu => value.f_relu_()?,
            Op::Relu6 => value.f_relu6_()?,
            _ => value.f_add_(values[node.inputs[1].0].as_ref().context("an addend was freed")?)?,
        };
        Ok(Some(value))
    }

    /// Computes one node from the values of those before it.
    pub fn node(
        &self,
        node: &Node,
        values: &[Option<Tensor>],
        mode: ForwardMode,
    ) -> Result<Tensor> {
        let input = |index: usize| {
            let id = node.inputs[index];
            values[id.0]
                .as_ref()
                .with_context(|| format!("`{}` reads a value that was freed", node.name))
        };
        let parameter = |part: &str| &self.tensors[&format!("{}.{part}", node.name)];
        let mode = if self.is_frozen(&node.name) { ForwardMode::Eval } else { mode };
        let output = match &node.op {
            Op::Input => input(0)?.shallow_clone(),
            Op::Normalize { mean, std } => normalize(input(0)?, mean, std)?,
            Op::Conv(conv) => {
                let bias = conv.bias.then(|| parameter("bias"));
                self.convolve(input(0)?, parameter("weight"), bias, conv)?
            }
            Op::BatchNorm { eps, momentum } => {
                let train = mode.trains();
                let values = input(0)?;
                let momentum = match mode {
                    ForwardMode::PreciseBn { seen } => 1.0 / (seen as f64 + 1.0),
                    ForwardMode::Train | ForwardMode::Eval => *momentum,
                };
                let per_channel = values.numel() / values.size()[1].max(1) as usize;
                ensure!(
                    !train || per_channel > 1,
                    "`{}` would normalize a single value per channel: train with a batch of at least 2",
                    node.name
                );
                let [weight, bias, mean, var] =
                    ["weight", "bias", "running_mean", "running_var"].map(parameter);
                values.f_batch_norm(
                    Some(weight),
                    Some(bias),
                    Some(mean),
                    Some(var),
                    train,
                    momentum,
                    *eps,
                    true,
                )?
            }
            Op::Relu => input(0)?.f_relu()?,
            Op::Relu6 => input(0)?.f_relu6()?,
            Op::MaxPool { kernel, stride, pad, ceil_mode } => {
                let square = |size: usize| [size as i64; 2];
                input(0)?.f_max_pool2d(
                    square(*kernel),
                    square(*stride),
                    square(*pad),
                    [1, 1],
                    *ceil_mode,
                )?
            }
            Op::GlobalAvgPool => input(0)?.f_adaptive_avg_pool2d([1, 1])?,
            Op::Resize { align_corners } => {
                let like = input(1)?.size();
                resize(input(0)?, [like[2], like[3]], *align_corners)?
            }
            Op::Add => input(0)?.f_add(input(1)?)?,
            Op::Concat => {
                let inputs: Vec<&Tensor> =
                    (0..node.inputs.len()).map(input).collect::<Result<_>>()?;
                Tensor::f_cat(&inputs, 1)?
            }
            Op::Linear { .. } => input(0)?
                .f_flatten(1, -1)?
                .f_linear(parameter("weight"), Some(parameter("bias")))?,
            Op::Dropout2d { p } => input(0)?.f_feature_dropout(*p, mode.trains())?,
            Op::PatchEmbed { out, patch, pixels } => {
                let image = scale(input(0)?, *patch, *pixels)?;
                let conv = Conv { kernel: *patch, stride: *patch, ..Conv::new(*out, 1) };
                self.convolve(&image, parameter("weight"), Some(parameter("bias")), &conv)?
            }
            Op::EmbedTokens { .. }
            | Op::LayerNorm { .. }
            | Op::TokenLinear { .. }
            | Op::Attention { .. }
            | Op::Gelu
            | Op::LayerScale
            | Op::TokenMap { .. } => self.token_node(node, &input)?,
        };
        Ok(output)
    }

    /// Computes a node of a vision transformer.
    fn token_node<'a>(
        &self,
        node: &Node,
        input: &impl Fn(usize) -> Result<&'a Tensor>,
    ) -> Result<Tensor> {
        let parameter = |part: &str| &self.tensors[&format!("{}.{part}", node.name)];
        Ok(match &node.op {
            Op::EmbedTokens { grid, .. } => {
                let part = |role| self.tensors.get(&node.parameter_name(role));
                let needed =
                    |role| part(role).with_context(|| format!("`{}` lacks {role:?}", node.name));
                tokens::embed(
                    input(0)?,
                    needed(Role::ClassToken)?,
                    part(Role::Registers),
                    needed(Role::Positions)?,
                    *grid,
                )?
            }
            Op::LayerNorm { eps } => {
                let owner = node.inputs.get(1).map_or(node, |&owner| self.graph.node(owner));
                let [weight, bias] = [Role::NormWeight, Role::NormBias]
                    .map(|role| &self.tensors[&owner.parameter_name(role)]);
                let width = [node.channels as i64];
                input(0)?.f_layer_norm(width, Some(weight), Some(bias), *eps, true)?
            }
            Op::TokenLinear { .. } => {
                self.linear(input(0)?, parameter("weight"), parameter("bias"))?
            }
            Op::Attention { heads } => {
                let narrow = self.narrow(input(0)?)?;
                tokens::attend(&narrow, *heads)?.f_to_kind(Kind::Float)?
            }
            Op::Gelu => input(0)?.f_gelu("none")?,
            Op::LayerScale => input(0)?.f_mul(parameter("gamma"))?,
            Op::TokenMap { skip } => tokens::map(input(0)?, &input(1)?.size(), *skip)?,
            op => anyhow::bail!("`{}` is no node of a transformer: {op:?}", node.name),
        })
    }

    /// Converts values to the network's precision.
    fn narrow(&self, values: &Tensor) -> Result<Tensor> {
        let narrow = self.precision == Precision::Bfloat16;
        Ok(values.f_to_kind(if narrow { Kind::BFloat16 } else { Kind::Float })?)
    }

    /// Maps tokens in the network's precision; input and output are 32-bit floats.
    fn linear(&self, input: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
        let [input, weight, bias] = [input, weight, bias].map(|values| self.narrow(values));
        Ok(input?.f_linear(&weight?, Some(&bias?))?.f_to_kind(Kind::Float)?)
    }

    /// Convolves in the network's precision; input and output are 32-bit floats.
    fn convolve(
        &self,
        input: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        conv: &Conv,
    ) -> Result<Tensor> {
        let [top, left, bottom, right] = conv.pads.map(|pad| pad as i64);
        let square = |size: usize| [size as i64; 2];
        let input = self.narrow(input)?;
        let weight = self.narrow(weight)?;
        let bias = bias.map(|bias| self.narrow(bias)).transpose()?;
        let even = (top, left) == (bottom, right);
        let input =
            if even { input } else { input.f_constant_pad_nd([left, right, top, bottom])? };
        let pads = if even { [top, left] } else { [0, 0] };
        let groups = conv.groups as i64;
        let output = input.f_conv2d(
            &weight,
            bias.as_ref(),
            square(conv.stride),
            pads,
            square(conv.dilation),
            groups,
        )?;
        Ok(output.f_to_kind(Kind::Float)?)
    }
}

/// Converts bytes `[N, H, W, 3]` to floats `[N, 3, H, W]`, channels-last in memory like the bytes.
fn normalize(images: &Tensor, mean: &[f64; 3], std: &[f64; 3]) -> Result<Tensor> {
    let per_channel = |values: &[f64; 3]| {
        let values = Tensor::f_from_slice(values)?.f_to_kind(Kind::Float)?;
        values.f_to_device(images.device())?.f_reshape([1, 3, 1, 1])
    };
    let mut values = images.f_permute([0, 3, 1, 2])?.f_to_kind(Kind::Float)?;
    let _ = values.f_sub_(&per_channel(mean)?)?.f_div_(&per_channel(std)?)?;
    Ok(values)
}

/// Resizes an image so that squares of `pixels` become squares of `patch`; positions follow from
/// the ratio of the two, not from the rounded size.
fn scale(image: &Tensor, patch: usize, pixels: usize) -> Result<Tensor> {
    if patch == pixels {
        return Ok(image.shallow_clone());
    }
    let size = image.size();
    let scaled = [size[2], size[3]].map(|length| length * patch as i64 / pixels as i64);
    let factor = patch as f64 / pixels as f64;
    Ok(image.f_upsample_bilinear2d(scaled, false, factor, factor)?)
}

/// Resizes bilinearly to `[height, width]`; a map of one pixel is broadcast, without rounding.
fn resize(map: &Tensor, [height, width]: [i64; 2], align_corners: bool) -> Result<Tensor> {
    if map.size()[2..] == [1, 1] {
        return channels_last(&map.f_expand([-1, -1, height, width], false)?);
    }
    upsample(map, [height, width], align_corners)
}

/// Resizes bilinearly to `[height, width]`.
pub fn upsample(map: &Tensor, size: [i64; 2], align_corners: bool) -> Result<Tensor> {
    Ok(map.f_upsample_bilinear2d(size, align_corners, None, None)?)
}

/// Lays a map out channels-last in memory, the fastest layout for libtorch's CPU convolutions.
fn channels_last(map: &Tensor) -> Result<Tensor> {
    Ok(map.f_permute([0, 2, 3, 1])?.f_contiguous()?.f_permute([0, 3, 1, 2])?)
}

/// Returns the color that normalization maps to zero.
pub fn mean_color(graph: &Graph) -> [u8; 3] {
    let means = graph.nodes().iter().find_map(|node| match node.op {
        Op::Normalize { mean, .. } => Some(mean),
        _ => None,
    });
    means.unwrap_or_default().map(|mean| mean.round() as u8)
}

/// Copies a tensor to a device.
pub fn to_torch(tensor: &weights::Tensor, device: Device) -> Result<Tensor> {
    let shape: Vec<i64> = tensor.shape.iter().map(|&size| size as i64).collect();
    Ok(Tensor::f_from_slice(&tensor.data)?.f_reshape(shape)?.f_to_device(device)?)
}

/// Copies a tensor to main memory as 32-bit floats.
pub fn from_torch(tensor: &Tensor) -> Result<weights::Tensor> {
    let dense =
        tensor.f_detach()?.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?;
    let mut data = vec![0.0_f32; dense.numel()];
    let count = data.len();
    dense.f_copy_data(&mut data, count)?;
    Ok(weights::Tensor {
        shape: dense.size().into_iter().map(|size| size as usize).collect(),
        data,
    })
}

/// Returns images of one size as a tensor u8 `[N, height, width, 3]`.
pub fn images_to_tensor(
    bytes: &[u8],
    [height, width]: [usize; 2],
    device: Device,
) -> Result<Tensor> {
    let count = bytes.len() / (height * width * 3);
    let shape = [count, height, width, 3].map(|size| size as i64);
    Ok(Tensor::f_from_data_size(bytes, &shape, Kind::Uint8)?.f_to_device(device)?)
}
