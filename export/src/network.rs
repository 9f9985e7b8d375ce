//! A network on its way into a file: the part of a graph that some outputs need, with its weights.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use protoseg_models::graph::{Graph, NodeId, Op, Rewrite};
use protoseg_models::prototypes::Prototypes;
use protoseg_models::weights::{StateDict, Tensor};

use crate::onnx::pixel_outputs::PixelOutput;

/// Tensors by name, shared between a network and the files that are made of it.
pub type Weights = BTreeMap<String, Arc<Tensor>>;

/// What a file will hold. Passes such as [`Network::fold_batch_norm`] make another one of it that computes the same.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    pub(crate) graph: Graph,
    /// Just the parameters that `graph` has.
    pub(crate) weights: Weights,
    /// What the value that each node makes is called. That is the node's name until the node takes in a later one, whose
    /// value it then makes: a folded convolution keeps its name, and its value has the batch normalisation's.
    pub(crate) values: Vec<String>,
    pub(crate) outputs: Vec<Output>,
    /// What comes out beside them, read off the first of them at the picture's own size.
    pub(crate) pixel_outputs: Vec<PixelOutput>,
    /// How sure the prototypes are of the labels, as one more output.
    pub(crate) prototype_head: Option<PrototypeHead>,
}

/// Prototypes, with the value that they are compared with.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PrototypeHead {
    /// The value; no pass changes what it is called.
    pub(crate) value: String,
    /// The prototypes.
    pub(crate) prototypes: Prototypes,
}

/// A value that the file gives out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The value; no pass changes what it is called.
    pub value: String,
    /// What the file calls it.
    pub name: String,
}

impl Network {
    /// The part of a graph that some nodes need, without dropout; each of those nodes comes out under the name beside it.
    ///
    /// `weights` may hold tensors that this part does not need: the heads that only training uses stay behind here.
    pub fn new(graph: &Graph, weights: &StateDict, outputs: &[(NodeId, &str)]) -> Result<Self> {
        Self::with(
            graph,
            weights.iter().map(|(name, tensor)| (name.clone(), Arc::new(tensor.clone()))).collect(),
            outputs,
        )
    }

    /// The same of weights that it shares.
    pub(crate) fn with(
        graph: &Graph,
        mut weights: Weights,
        outputs: &[(NodeId, &str)],
    ) -> Result<Self> {
        let wanted: Vec<NodeId> =
            outputs.iter().map(|&(id, _)| before_dropout(graph, id)).collect();
        let distinct: BTreeSet<&NodeId> = wanted.iter().collect();
        ensure!(
            distinct.len() == wanted.len(),
            "one node is asked for as two outputs; name each node once"
        );
        for (&id, &(_, name)) in wanted.iter().zip(outputs) {
            ensure!(
                id != graph.input(),
                "`{}` is the picture that goes in, and no output",
                graph.node(id).name
            );
            let free = graph.find(name).is_none_or(|other| before_dropout(graph, other) == id);
            ensure!(free, "an output cannot be called `{name}`, as another node is called so");
        }
        let outputs = wanted.iter().zip(outputs);
        let outputs = outputs
            .map(|(&id, &(_, name))| Output {
                value: graph.node(id).name.clone(),
                name: name.to_owned(),
            })
            .collect();

        let graph = graph.keep(&wanted).filter_map(|_, node| match node.op {
            Op::Dropout2d { .. } => Rewrite::Bypass(node.inputs[0]),
            _ => Rewrite::Keep(node.clone()),
        });
        let needed: BTreeSet<String> =
            graph.parameters().into_iter().map(|parameter| parameter.name).collect();
        weights.retain(|name, _| needed.contains(name));
        graph.check_weights(&weights)?;
        let values = graph.nodes().iter().map(|node| node.name.clone()).collect();
        Ok(Self {
            graph,
            weights,
            values,
            outputs,
            pixel_outputs: Vec::new(),
            prototype_head: None,
        })
    }

    /// The same with pixel_outputs, read off the first output, which is one of class scores.
    pub fn with_pixel_outputs(self, pixel_outputs: &[PixelOutput]) -> Self {
        Self { pixel_outputs: pixel_outputs.to_vec(), ..self }
    }

    /// The same with one more output: how probable prototypes find the labels that the first output gives.
    pub fn with_prototype_head(self, prototypes: Prototypes) -> Result<Self> {
        let value = prototypes.node.clone();
        ensure!(
            self.find(&value).is_some(),
            "the outputs do not need `{value}`, which the prototypes are compared with"
        );
        Ok(Self { prototype_head: Some(PrototypeHead { value, prototypes }), ..self })
    }

    /// The values that are read outside the network.
    pub(crate) fn output_values(&self) -> impl Iterator<Item = &str> {
        let outputs = self.outputs.iter().map(|output| output.value.as_str());
        outputs.chain(self.prototype_head.iter().map(|opinion| opinion.value.as_str()))
    }

    /// How often each node's value is read, by nodes and outside the network.
    pub(crate) fn reader_counts(&self) -> Vec<usize> {
        let mut readers = vec![0; self.values.len()];
        let read = self.graph.nodes().iter().flat_map(|node| node.inputs.iter().copied());
        for id in read.chain(self.output_values().filter_map(|value| self.find(value))) {
            readers[id.0] += 1;
        }
        readers
    }

    /// The same with every node's value as an output, under its own name, in the order of computing.
    pub fn with_taps(self) -> Self {
        let values = self
            .graph
            .iter()
            .filter(|(id, _)| *id != self.graph.input())
            .map(|(id, _)| &self.values[id.0]);
        let outputs =
            values.map(|value| Output { value: value.clone(), name: value.clone() }).collect();
        Self { outputs, pixel_outputs: Vec::new(), prototype_head: None, ..self }
    }

    /// The graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Just the parameters that the graph has.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// What comes out, in order.
    pub fn outputs(&self) -> &[Output] {
        &self.outputs
    }

    /// The part of the network that one of its outputs needs.
    pub(crate) fn keep_output(&self, output: &str) -> Result<Self> {
        let wanted = self.outputs.iter().find(|known| known.name == output);
        let wanted =
            wanted.with_context(|| format!("the network has no output `{output}`"))?.clone();
        let id = self
            .find(&wanted.value)
            .with_context(|| format!("no node makes `{}`", wanted.value))?;
        let mut values = Vec::new();
        let kept = self.graph.keep(&[id]);
        for node in kept.nodes() {
            let old = self
                .graph
                .find(&node.name)
                .with_context(|| format!("no node is called `{}`", node.name))?;
            values.push(self.values[old.0].clone());
        }
        let needed = kept.parameters().into_iter().map(|parameter| parameter.name);
        let weights = needed
            .filter_map(|name| self.weights.get(&name).map(|tensor| (name, tensor.clone())))
            .collect();
        Ok(Self {
            graph: kept,
            weights,
            values,
            outputs: vec![wanted],
            pixel_outputs: Vec::new(),
            prototype_head: None,
        })
    }

    /// What the value that a node makes is called: the name under which the trainer's network has it.
    pub fn value(&self, id: NodeId) -> &str {
        &self.values[id.0]
    }

    /// The node that makes a value.
    pub fn find(&self, value: &str) -> Option<NodeId> {
        self.values.iter().position(|name| name == value).map(NodeId)
    }
}

/// The node whose value a dropout hands on; any other node itself.
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
    fn what_no_output_needs_stays_behind() {
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
    fn outputs_that_cannot_be_are_refused() {
        let graph = Arch::new(Preset::DeepLabV3PlusEfficientNetLite0, 3).unwrap().graph();
        let mut weights = formula::weights(&graph, None);
        let logits = graph.tagged(Tag::Logits).unwrap();
        let node = |name: &str| graph.find(name).unwrap();
        let refuse = |outputs: &[(NodeId, &str)], words: &str| {
            let error = Network::new(&graph, &weights, outputs).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        // The dropout hands on the very value that the other output asks for.
        let twice = [(node("decoder.dropout"), "a"), (node("decoder.refine2.pointwise.relu"), "b")];
        refuse(&twice, "as two outputs");
        refuse(&[(graph.input(), "picture")], "`input` is the picture");
        refuse(&[(logits, "decoder.concat")], "called `decoder.concat`");
        assert!(
            Network::new(&graph, &weights, &[(node("decoder.dropout"), "decoder.dropout")]).is_ok()
        );
        weights.remove("decoder.classifier.bias");
        let error = Network::new(&graph, &weights, &[(logits, "logits")]).unwrap_err().to_string();
        assert_eq!(error, "1 tensor is missing, first `decoder.classifier.bias`");
    }
}
