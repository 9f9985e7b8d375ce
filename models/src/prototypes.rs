//! Class prototypes: the centers by which the prototype predictor judges the network's labels.

use serde::{Deserialize, Serialize};

use crate::graph::Graph;

/// Name of the prototypes' probability of each label, as an output of a file and in a probe.
pub const PROTOTYPE_CONFIDENCE: &str = "prototype_confidence";

/// Logit of a class without prototypes on a map that is upsampled: infinity times a weight of zero
/// would be NaN.
pub const NO_PROTOTYPE_LOGIT: f32 = -1e30;

/// `prototypes.json`: centers of each class in feature space.
///
/// With f the value of `node` at a position minus `mean`, the logit of a class is the largest
/// cosine of f with one of its prototypes, divided by the temperature. These logits are upsampled
/// like the network's, and a softmax turns them into probabilities.
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
    /// Node whose output holds the features.
    pub node: String,
    /// Divisor of the cosines.
    pub temperature: f64,
    /// Subtracted from the features, one value for each channel.
    pub mean: Vec<f32>,
    /// Prototypes of each class, each with one value for each channel; none for a class that
    /// training has not seen.
    pub classes: Vec<Option<Vec<Vec<f32>>>>,
}

/// Prototypes that do not fit a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}; train the checkpoint again")]
pub struct PrototypesError(String);

impl Prototypes {
    /// Version written, and the newest read.
    pub const VERSION: &str = "1.0";

    /// Checks that the prototypes fit a network with a number of classes.
    pub fn check(&self, graph: &Graph, classes: usize) -> Result<(), PrototypesError> {
        let Self { node, temperature, mean, .. } = self;
        let refuse = |reason: String| Err(PrototypesError(reason));
        let Some(id) = graph.find(node) else {
            return refuse(format!("the network has no node `{node}` for the prototypes"));
        };
        let channels = graph.node(id).channels;
        if self.classes.len() != classes {
            let found = self.classes.len();
            return refuse(format!("prototypes of {found} classes for a network of {classes}"));
        }
        if mean.len() != channels {
            let found = mean.len();
            return refuse(format!(
                "a mean of {found} values for the {channels} channels of `{node}`"
            ));
        }
        for (class, prototypes) in self.classes.iter().enumerate() {
            let Some(prototypes) = prototypes else { continue };
            if prototypes.is_empty() || prototypes.iter().any(|values| values.len() != channels) {
                return refuse(format!(
                    "the prototypes of class {class} must have {channels} values each, one for \
                     each channel of `{node}`"
                ));
            }
        }
        if temperature.is_nan() || *temperature <= 0.0 {
            return refuse(format!("the temperature {temperature} is not above zero"));
        }
        Ok(())
    }

    /// Returns the logit of every class for the features of one position, by the definition; minus
    /// infinity for classes without prototypes.
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

/// Returns the Euclidean norm of a vector, at least [`MIN_NORM`], so that the cosine with a vector
/// of zeros is 0.
pub fn norm(values: &[f64]) -> f64 {
    values.iter().map(|value| value * value).sum::<f64>().sqrt().max(MIN_NORM)
}

/// Smallest divisor in a normalization of vectors.
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
        let refused = |change: &dyn Fn(&mut Prototypes), classes: usize, expected: &str| {
            let mut prototypes = fits.clone();
            change(&mut prototypes);
            let message = prototypes.check(&graph, classes).unwrap_err().to_string();
            assert_eq!(message, format!("{expected}; train the checkpoint again"));
        };
        refused(&|_| {}, 3, "prototypes of 2 classes for a network of 3");
        refused(&|own| own.node.clear(), 2, "the network has no node `` for the prototypes");
        refused(&|own| own.temperature = 0.0, 2, "the temperature 0 is not above zero");
        refused(
            &|own| own.mean = vec![0.0],
            2,
            "a mean of 1 values for the 3 channels of `pixels`",
        );
        for own in [vec![], vec![vec![1.0; 3], vec![1.0; 2]]] {
            refused(
                &|prototypes| prototypes.classes[0] = Some(own.clone()),
                2,
                "the prototypes of class 0 must have 3 values each, one for each channel of `pixels`",
            );
        }
    }
}
