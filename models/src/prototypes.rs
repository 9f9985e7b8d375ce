//! Prototypes on their way out of training: what the prototype predictor needs beside the network.

use serde::{Deserialize, Serialize};

use crate::graph::Graph;

/// What the prototypes' probability of each label is called, as an output of a file and in a probe.
pub const PROTOTYPE_CONFIDENCE: &str = "prototype_confidence";

/// The score of a class without prototypes on a map that is to be upsampled, as infinity times a weight of zero would be no
/// number.
pub const NO_PROTOTYPE_LOGIT: f32 = -1e30;

/// `prototypes.json`: centres of each class among the features, and how features are compared with them.
///
/// With f the value of `node` at a place less `mean`, the score of a class is the largest cosine of f with one of the
/// class's prototypes, over the temperature. Scores are upsampled as logits are, and a softmax makes probabilities of them.
///
/// ```
/// use protoseg_models::prototypes::Prototypes;
///
/// let prototypes = Prototypes {
///     version: Prototypes::VERSION.to_owned(),
///     node: "decoder.refine".to_owned(),
///     temperature: 0.1,
///     mean: vec![0.0, 0.0],
///     classes: vec![Some(vec![vec![1.0, 0.0], vec![0.0, 2.0]]), None],
/// };
/// let scores = prototypes.scores(&[3.0, 4.0]);
/// assert!((scores[0] - 8.0).abs() < 1e-6 && scores[1] == f64::NEG_INFINITY);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prototypes {
    /// Version of the format.
    pub version: String,
    /// Node of the network whose values are compared.
    pub node: String,
    /// What cosines are divided by.
    pub temperature: f64,
    /// Taken off values before they are compared, one for each channel.
    pub mean: Vec<f32>,
    /// For each class its prototypes, each of as many numbers as there are channels; none for a class that training has
    /// not met.
    pub classes: Vec<Option<Vec<Vec<f32>>>>,
}

/// Why prototypes do not belong to a network.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PrototypesError {
    /// Of another number of classes.
    #[error("prototypes of {found} classes for a network of {expected}")]
    Classes {
        /// Classes of the prototypes.
        found: usize,
        /// Classes of the network.
        expected: usize,
    },
    /// Their node is not there.
    #[error("the network has no node `{0}`, with whose values the prototypes are compared")]
    Node(String),
    /// A prototype of another number of channels than its node, or a class without a prototype.
    #[error(
        "the prototypes of class {class} are not each of {channels} numbers, as many as `{node}` has channels"
    )]
    Channels {
        /// Train id.
        class: usize,
        /// Channels of the node.
        channels: usize,
        /// The node.
        node: String,
    },
    /// A mean of another number of channels.
    #[error("the mean has {found} numbers, and `{node}` {channels} channels")]
    Mean {
        /// Numbers of the mean.
        found: usize,
        /// Channels of the node.
        channels: usize,
        /// The node.
        node: String,
    },
    /// Cosines cannot be divided by it.
    #[error("the temperature {0} is not above zero")]
    Temperature(f64),
}

impl Prototypes {
    /// Version written, and the newest read.
    pub const VERSION: &str = "1.0";

    /// Whether they belong to a network of so many classes.
    pub fn check(&self, graph: &Graph, classes: usize) -> Result<(), PrototypesError> {
        let node = || self.node.clone();
        let id = graph.find(&self.node).ok_or_else(|| PrototypesError::Node(node()))?;
        let channels = graph.node(id).channels;
        if self.classes.len() != classes {
            return Err(PrototypesError::Classes { found: self.classes.len(), expected: classes });
        }
        if self.mean.len() != channels {
            return Err(PrototypesError::Mean { found: self.mean.len(), channels, node: node() });
        }
        let fits = |own: &Vec<Vec<f32>>| {
            !own.is_empty() && own.iter().all(|values| values.len() == channels)
        };
        if let Some(class) =
            self.classes.iter().position(|own| own.as_ref().is_some_and(|own| !fits(own)))
        {
            return Err(PrototypesError::Channels { class, channels, node: node() });
        }
        if self.temperature.is_nan() || self.temperature <= 0.0 {
            return Err(PrototypesError::Temperature(self.temperature));
        }
        Ok(())
    }

    /// The score of every class for the values of one place, by the definition; minus infinity for classes without
    /// prototypes.
    pub fn scores(&self, values: &[f32]) -> Vec<f64> {
        let values: Vec<f64> = values
            .iter()
            .zip(&self.mean)
            .map(|(&value, &mean)| f64::from(value) - f64::from(mean))
            .collect();
        let cosine = |prototype: &Vec<f32>| {
            let prototype: Vec<f64> = prototype.iter().map(|&value| f64::from(value)).collect();
            let product: f64 =
                values.iter().zip(&prototype).map(|(value, other)| value * other).sum();
            product / (norm(&values) * norm(&prototype))
        };
        let nearest = |own: &Option<Vec<Vec<f32>>>| {
            own.iter().flatten().map(cosine).fold(f64::NEG_INFINITY, f64::max) / self.temperature
        };
        self.classes.iter().map(nearest).collect()
    }
}

/// The length of a vector, but never zero: one of zeros is at right angles to all others.
pub fn norm(values: &[f64]) -> f64 {
    values.iter().map(|value| value * value).sum::<f64>().sqrt().max(MIN_NORM)
}

/// Vectors shorter than this are divided by it instead of their length.
pub const MIN_NORM: f64 = 1e-12;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Op;

    #[test]
    fn prototypes_of_another_network_are_refused() {
        let mut graph = Graph::new();
        graph.push("pixels", Op::Normalize { mean: [0.0; 3], std: [1.0; 3] }, &[graph.input()]);
        let fits = Prototypes {
            version: Prototypes::VERSION.to_owned(),
            node: "pixels".to_owned(),
            temperature: 0.1,
            mean: vec![0.0; 3],
            classes: vec![Some(vec![vec![1.0; 3]]), None],
        };
        assert_eq!(fits.check(&graph, 2), Ok(()));
        let refused = |change: &dyn Fn(&mut Prototypes), classes: usize| {
            let mut prototypes = fits.clone();
            change(&mut prototypes);
            prototypes.check(&graph, classes).unwrap_err()
        };
        assert_eq!(refused(&|_| {}, 3), PrototypesError::Classes { found: 2, expected: 3 });
        assert_eq!(refused(&|own| own.node.clear(), 2), PrototypesError::Node(String::new()));
        assert_eq!(refused(&|own| own.temperature = 0.0, 2), PrototypesError::Temperature(0.0));
        let mean = refused(&|own| own.mean = vec![0.0], 2);
        assert!(matches!(mean, PrototypesError::Mean { found: 1, channels: 3, .. }), "{mean}");
        for own in [vec![], vec![vec![1.0; 3], vec![1.0; 2]]] {
            let error = refused(&|prototypes| prototypes.classes[0] = Some(own.clone()), 2);
            assert!(
                matches!(error, PrototypesError::Channels { class: 0, channels: 3, .. }),
                "{error}"
            );
        }
    }
}
