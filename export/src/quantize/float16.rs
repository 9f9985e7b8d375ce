//! Range check for 16-bit floats.

use anyhow::{Result, ensure};
use protoseg_models::calibration::{Calibration, NodeRange};

use crate::network::Network;

/// Largest 16-bit float.
const MAX: f32 = 65504.0;

/// Refuses a network whose weights, or values as far as a calibration knows them, exceed the
/// largest 16-bit float: they would become infinite, and the logits NaN.
pub(crate) fn check(network: &Network, calibration: Option<&Calibration>) -> Result<()> {
    for (name, tensor) in network.weights() {
        let largest =
            tensor.data.iter().fold(0.0, |largest: f32, weight| largest.max(weight.abs()));
        ensure!(
            largest <= MAX,
            "fp16 cannot hold the tensor `{name}`: its largest weight is {largest}, and the largest \
             16-bit float {MAX}; leave out fp16"
        );
    }
    let Some(calibration) = calibration else { return Ok(()) };
    for (id, _) in network.graph().iter() {
        let value = network.value_name(id);
        let Some(NodeRange { min, max, .. }) = calibration.nodes.get(value) else { continue };
        ensure!(
            *min >= -MAX && *max <= MAX,
            "fp16 cannot hold the values of `{value}`: over the calibration images they run from \
             {min} to {max}, and the largest 16-bit float is {MAX}; leave out fp16"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use protoseg_models::arch::{Arch, Preset};
    use protoseg_models::calibration::HISTOGRAM_BINS;
    use protoseg_models::formula;
    use protoseg_models::graph::Tag;

    use super::*;

    #[test]
    fn values_beyond_16_bits_are_named() {
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
