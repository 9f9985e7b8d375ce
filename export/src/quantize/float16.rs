//! What a file of 16-bit floats can hold.

use anyhow::{Result, ensure};
use protoseg_models::calibration::Calibration;

use crate::network::Network;

/// The largest 16-bit float.
const LARGEST: f32 = 65504.0;

/// Refuses a network that has larger weights than a 16-bit float can be, or makes larger values as far as a calibration
/// knows. They would become infinite, and the logits no numbers.
pub(crate) fn check(network: &Network, calibration: Option<&Calibration>) -> Result<()> {
    for (name, tensor) in network.weights() {
        let largest =
            tensor.data.iter().fold(0.0, |largest: f32, weight| largest.max(weight.abs()));
        ensure!(
            largest <= LARGEST,
            "fp16 cannot hold the tensor `{name}`: its largest weight is {largest}, and the largest 16-bit float {LARGEST}; leave \
             fp16 out"
        );
    }
    let Some(calibration) = calibration else { return Ok(()) };
    for (id, _) in network.graph().iter() {
        let Some((value, range)) = calibration.nodes.get_key_value(network.value(id)) else {
            continue;
        };
        ensure!(
            range.min >= -LARGEST && range.max <= LARGEST,
            "fp16 cannot hold the values of `{value}`: over the calibration pictures they run from {} to {}, and the largest 16-bit \
             float is {LARGEST}; leave fp16 out",
            range.min,
            range.max
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use protoseg_models::arch::{Arch, Preset};
    use protoseg_models::calibration::{HISTOGRAM_BINS, NodeRange};
    use protoseg_models::formula;
    use protoseg_models::graph::Tag;

    use super::*;

    #[test]
    fn what_16_bits_cannot_hold_is_named() {
        let graph = Arch::new(Preset::DeepLabV3PlusEfficientNetLite0, 3).unwrap().graph();
        let logits = graph.tagged(Tag::Logits).unwrap();
        let network =
            Network::new(&graph, &formula::weights(&graph, None), &[(logits, "logits")]).unwrap();
        let mut network = network.fold_batch_norm().unwrap();
        let range = |max: f32| NodeRange {
            min: -1.0,
            max,
            histogram: vec![1; HISTOGRAM_BINS],
            sensitivity: 0.0,
        };
        let mut calibration = Calibration {
            version: Calibration::VERSION.to_owned(),
            source: "none".to_owned(),
            count: 1,
            nodes: BTreeMap::from([("encoder._bn0".to_owned(), range(65504.0))]),
        };
        check(&network, Some(&calibration)).unwrap();
        calibration.nodes.insert("encoder._blocks.0._bn1".to_owned(), range(65505.0));
        let refused =
            |network: &Network, calibration| check(network, calibration).unwrap_err().to_string();
        let error = refused(&network, Some(&calibration));
        assert!(
            error.contains("the values of `encoder._blocks.0._bn1`") && error.contains("to 65505"),
            "{error}"
        );
        check(&network, None).unwrap();
        let bias = network.weights.get_mut("decoder.classifier.bias").unwrap();
        std::sync::Arc::make_mut(bias).data[1] = -7e4;
        let error = refused(&network, None);
        assert!(
            error.contains("tensor `decoder.classifier.bias`") && error.contains("70000"),
            "{error}"
        );
    }
}
