//! A network in export: the part of a graph that some outputs need, with its weights.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use protoseg_models::graph::{Graph, NodeId, Op, Rewrite};
use protoseg_models::prototypes::Prototypes;
use protoseg_models::weights::{StateDict, Tensor};

/// Tensors by name, shared between a network and the files that are made from it.
pub type Weights = BTreeMap<String, Arc<Tensor>>;

/// The content of a file. Passes such as [`Network::fold_batch_norm`] rewrite it to an equivalent
/// network.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Network {
    pub(crate) graph: Graph,
    /// Exactly the parameters of `graph`.
    pub(crate) weights: Weights,
    /// Name of the value of each node. It is the node's name until the node absorbs a later one and
    /// takes over its value: a folded convolution keeps its name, and its value has the name of the
    /// batch normalization.
    pub(crate) values: Vec<String>,
    pub(crate) outputs: Vec<Output>,
    /// Further outputs, computed from the first of `outputs` at the size of the image.
    pub(crate) pixel_outputs: Vec<PixelOutput>,
    /// Prototypes for an output with their probability of the labels.
    pub(crate) prototype_head: Option<PrototypeHead>,
}

/// Prototypes, with the value that they are compared with.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PrototypeHead {
    /// Name of the value, which no pass changes.
    pub(crate) value: String,
    pub(crate) prototypes: Prototypes,
}

/// An output of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Name of the value, which no pass changes.
    pub value: String,
    /// Name in the file.
    pub name: String,
}

/// An output `[N, H, W]` at the size of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
pub enum PixelOutput {
    /// Train ids as bytes: the class with the largest logit, of equal ones the first
    Labels,
    /// Largest softmax probability c as bytes, `floor(255 c + 0.5)`
    Confidence,
    /// Largest logit minus the second largest, 32-bit floats
    Margin,
}

impl PixelOutput {
    /// Every output.
    pub const ALL: [Self; 3] = [Self::Labels, Self::Confidence, Self::Margin];

    /// Returns the name of the output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Labels => "labels",
            Self::Confidence => "confidence",
            Self::Margin => "margin",
        }
    }

    /// Returns the output with a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|output| output.name() == name)
    }
}

impl Network {
    /// Returns the part of a graph that some nodes need, without dropout. These nodes become
    /// outputs of the given names.
    ///
    /// `weights` may have tensors that this part does not need, such as those of the auxiliary
    /// head.
    pub fn new(graph: &Graph, weights: &StateDict, outputs: &[(NodeId, &str)]) -> Result<Self> {
        let shared = weights.iter().map(|(name, tensor)| (name.clone(), Arc::new(tensor.clone())));
        Self::from_shared(graph, shared.collect(), outputs)
    }

    /// Like [`new`](Self::new), without copying weights.
    pub(crate) fn from_shared(
        graph: &Graph,
        mut weights: Weights,
        outputs: &[(NodeId, &str)],
    ) -> Result<Self> {
        let wanted: Vec<NodeId> =
            outputs.iter().map(|&(id, _)| before_dropout(graph, id)).collect();
        let distinct: BTreeSet<&NodeId> = wanted.iter().collect();
        ensure!(
            distinct.len() == wanted.len(),
            "one node is given as two outputs; name each node once"
        );
        let mut named = Vec::with_capacity(outputs.len());
        for (&id, &(_, name)) in wanted.iter().zip(outputs) {
            let value = &graph.node(id).name;
            ensure!(id != graph.input(), "`{value}` is the input image and cannot be an output");
            let free = graph.find(name).is_none_or(|other| before_dropout(graph, other) == id);
            ensure!(free, "an output cannot be named `{name}`, the name of another node");
            named.push(Output { value: value.clone(), name: name.to_owned() });
        }
        let graph = graph.keep(&wanted).filter_map(|_, node| match node.op {
            Op::Dropout2d { .. } => Rewrite::Bypass(node.inputs[0]),
            _ => Rewrite::Keep(node.clone()),
        });
        let needed: BTreeSet<String> =
            graph.parameters().into_iter().map(|parameter| parameter.name).collect();
        weights.retain(|name, _| needed.contains(name));
        graph.check_weights(&weights)?;
        let values = graph.nodes().iter().map(|node| node.name.clone()).collect();
        Ok(Self { graph, weights, values, outputs: named, ..Self::default() })
    }

    /// Adds outputs at the size of the image, computed from the first output, which must be logits.
    pub fn with_pixel_outputs(self, pixel_outputs: &[PixelOutput]) -> Self {
        Self { pixel_outputs: pixel_outputs.to_vec(), ..self }
    }

    /// Adds an output with the prototypes' probability of the labels of the first output.
    pub fn with_prototype_head(self, prototypes: Prototypes) -> Result<Self> {
        let value = prototypes.node.clone();
        ensure!(
            self.producer(&value).is_some(),
            "no output depends on `{value}`, which the prototypes are compared with"
        );
        Ok(Self { prototype_head: Some(PrototypeHead { value, prototypes }), ..self })
    }

    /// Replaces the outputs by the values of all nodes, under their own names and in node order.
    pub fn with_taps(self) -> Self {
        let output = |value: &String| Output { value: value.clone(), name: value.clone() };
        // All but the input, which is the first node.
        let outputs = self.values.iter().skip(1).map(output).collect();
        Self { outputs, pixel_outputs: Vec::new(), prototype_head: None, ..self }
    }

    /// Returns the part of the network that one of its outputs needs.
    pub(crate) fn keep_output(&self, name: &str) -> Result<Self> {
        let output = self.outputs.iter().find(|output| output.name == name);
        let output = output.with_context(|| format!("the network has no output `{name}`"))?;
        let id = self.required_producer(&output.value)?;
        let graph = self.graph.keep(&[id]);
        let kept: BTreeSet<&str> = graph.nodes().iter().map(|node| node.name.as_str()).collect();
        let nodes = self.graph.nodes().iter().zip(&self.values);
        let values = nodes
            .filter(|(node, _)| kept.contains(node.name.as_str()))
            .map(|(_, value)| value.clone())
            .collect();
        let needed = graph.parameters().into_iter().map(|parameter| parameter.name);
        let weights = needed
            .filter_map(|name| self.weights.get(&name).map(|tensor| (name, tensor.clone())))
            .collect();
        Ok(Self { graph, weights, values, outputs: vec![output.clone()], ..Self::default() })
    }

    /// Iterates over the values that are read outside the network.
    pub(crate) fn output_values(&self) -> impl Iterator<Item = &str> {
        let outputs = self.outputs.iter().map(|output| output.value.as_str());
        outputs.chain(self.prototype_head.iter().map(|head| head.value.as_str()))
    }

    /// Returns the number of readers of each node's value, inside and outside the network.
    pub(crate) fn reader_counts(&self) -> Vec<usize> {
        let mut readers = vec![0; self.values.len()];
        let inside = self.graph.nodes().iter().flat_map(|node| node.inputs.iter().copied());
        let outside = self.output_values().filter_map(|value| self.producer(value));
        for id in inside.chain(outside) {
            readers[id.0] += 1;
        }
        readers
    }

    /// Returns the graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Returns the parameters, exactly those of the graph.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// Returns the outputs in order.
    pub fn outputs(&self) -> &[Output] {
        &self.outputs
    }

    /// Returns the name of a node's value: that of the node in the trainer's network.
    pub fn value_name(&self, id: NodeId) -> &str {
        &self.values[id.0]
    }

    /// Returns the node that computes a value.
    pub fn producer(&self, value: &str) -> Option<NodeId> {
        self.values.iter().position(|name| name == value).map(NodeId)
    }

    pub(crate) fn required_producer(&self, value: &str) -> Result<NodeId> {
        self.producer(value).with_context(|| format!("no node computes `{value}`"))
    }
}

/// Skips dropouts, which are the identity.
fn before_dropout(graph: &Graph, id: NodeId) -> NodeId {
    match graph.node(id).op {
        Op::Dropout2d { .. } => before_dropout(graph, graph.node(id).inputs[0]),
        _ => id,
    }
}

#[cfg(test)]
mod tests {
    use protoseg_models::arch::{Arch, Preset};
    use protoseg_models::formula;
    use protoseg_models::graph::Tag;

    use super::*;

    #[test]
    fn nodes_that_no_output_needs_are_dropped() {
        let graph = Arch::new(Preset::DeepLabV3PlusEfficientNetLite0, 3).unwrap().graph();
        let weights = formula::weights(&graph, None);
        let logits = graph.tagged(Tag::Logits).unwrap();
        let whole = Network::new(&graph, &weights, &[(logits, "logits")]).unwrap();
        assert_eq!(whole.weights().len(), weights.len());
        assert!(whole.weights().iter().all(|(name, tensor)| tensor.as_ref() == &weights[name]));
        assert!(!whole.graph().nodes().iter().any(|node| matches!(node.op, Op::Dropout2d { .. })));
        let stem = graph.find("encoder._bn0.relu").unwrap();
        let stem = Network::new(&graph, &weights, &[(stem, "stem")]).unwrap();
        let names: Vec<&str> = stem.graph().nodes().iter().map(|node| node.name.as_str()).collect();
        assert_eq!(
            names,
            ["input", "normalize", "encoder._conv_stem", "encoder._bn0", "encoder._bn0.relu"]
        );
        assert_eq!(stem.weights().len(), 5);
    }

    #[test]
    fn invalid_outputs_are_refused() {
        let graph = Arch::new(Preset::DeepLabV3PlusEfficientNetLite0, 3).unwrap().graph();
        let mut weights = formula::weights(&graph, None);
        let logits = graph.tagged(Tag::Logits).unwrap();
        let node = |name: &str| graph.find(name).unwrap();
        let refuse = |outputs: &[(NodeId, &str)], words: &str| {
            let error = Network::new(&graph, &weights, outputs).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        // The dropout passes on the value of the other output.
        let twice = [(node("decoder.dropout"), "a"), (node("decoder.refine2.pointwise.relu"), "b")];
        refuse(&twice, "as two outputs");
        refuse(&[(graph.input(), "image")], "`input` is the input image");
        refuse(&[(logits, "decoder.concat")], "named `decoder.concat`");
        assert!(
            Network::new(&graph, &weights, &[(node("decoder.dropout"), "decoder.dropout")]).is_ok()
        );
        weights.remove("decoder.classifier.bias");
        let error = Network::new(&graph, &weights, &[(logits, "logits")]).unwrap_err().to_string();
        assert_eq!(error, "1 tensor is missing, first `decoder.classifier.bias`");
    }
}
