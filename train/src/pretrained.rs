//! Weights to start from: a whole network's, or an encoder's.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use protoseg_models::analysis::Role;
use protoseg_models::checkpoint::Checkpoint;
use protoseg_models::graph::{Graph, Tag};
use protoseg_models::random::Stream;
use protoseg_models::weights::{self, StateDict, Tensor};

use crate::torch_file;

/// Purpose of the random draws.
const INITIAL: u64 = 3;
/// Deviation of the last layer's weights, as small as that class scores start out even.
const CLASSIFIER_DEVIATION: f64 = 0.01;
/// Encoders come with an ImageNet head, which a segmentor has no use for.
const IMAGENET_HEADS: [&str; 5] = ["_conv_head.", "_bn1.", "_fc.", "fc.", "last_linear."];
/// Networks trained with an auxiliary head do for one without.
const AUXILIARY_HEAD: &str = "auxor.";

/// Weights as PyTorch starts them for such networks: convolutions normal of variance 2 / fan-out (Kaiming), the
/// classifiers' last layers normal of deviation 0.01, scales 1, shifts 0.
pub fn initial(graph: &Graph, seed: u64) -> StateDict {
    let lasts: Vec<String> =
        graph.tags().values().map(|&id| format!("{}.weight", graph.node(id).name)).collect();
    let parameters = graph.parameters().into_iter().map(|parameter| {
        let stream = Stream::named(&parameter.name).child(INITIAL).child(seed);
        let spatial: usize = parameter.shape.iter().skip(2).product();
        let deviation = if lasts.contains(&parameter.name) {
            CLASSIFIER_DEVIATION
        } else {
            (2.0 / (parameter.shape[0] * spatial) as f64).sqrt()
        };
        let tensor = Tensor::from_fn(&parameter.shape, |index| match parameter.role {
            Role::ConvWeight | Role::LinearWeight => {
                (deviation * stream.normal(index as u64)) as f32
            }
            Role::NormWeight | Role::RunningVar => 1.0,
            Role::Bias | Role::NormBias | Role::RunningMean => 0.0,
        });
        (parameter.name, tensor)
    });
    parameters.collect()
}

/// Puts the class scores of untrained weights further apart, so that some pixels are surer than others by more than rounding.
pub fn sharpen(weights: &mut StateDict, graph: &Graph, by: f32) -> Result<()> {
    let logits = graph.tagged(Tag::Logits).context("the network has no logits")?;
    let last = weights.get_mut(&format!("{}.weight", graph.node(logits).name));
    for value in &mut last.context("the last layer has no weights")?.data {
        *value *= by;
    }
    Ok(())
}

/// Reads `.safetensors` by its ending, and PyTorch's files by every other.
pub fn read(path: &Path) -> Result<StateDict> {
    if path.extension().is_some_and(|extension| extension == "safetensors") {
        Ok(weights::read(path)?)
    } else {
        Ok(torch_file::read(path)?)
    }
}

/// Puts a file's weights into a network's: all of them where the file is of a whole network, else the encoder. A file that
/// does neither whole is refused, and nothing is left out but a head that the network
/// has no use for: ImageNet's, or the auxiliary one.
///
/// Returns what was loaded, for the log.
pub fn load(weights: &mut StateDict, path: &Path) -> Result<String> {
    ensure!(
        path.exists(),
        "{} is missing; `cargo xtask setup` fetches the encoders' weights, or set `pretrained` to another file",
        path.display()
    );
    let found = read(path)?;
    let report = place(weights, found)
        .with_context(|| format!("{} does not fit the network", path.display()))?;
    Ok(format!("{} from {}", report, path.display()))
}

/// Puts the weights of a checkpoint folder into a network's. The last layers start anew where they are for another number
/// of classes.
///
/// Returns what was loaded, for the log.
pub fn load_checkpoint(weights: &mut StateDict, graph: &Graph, folder: &Path) -> Result<String> {
    let mut found = Checkpoint::read(folder)?.weights;
    let lasts = graph.tags().values().map(|&id| &graph.node(id).name);
    let lasts = lasts.flat_map(|name| ["weight", "bias"].map(|part| format!("{name}.{part}")));
    let mut anew = 0;
    for name in lasts {
        if let (Some(theirs), Some(ours)) = (found.get(&name), weights.get(&name))
            && theirs.shape != ours.shape
        {
            found.insert(name, ours.clone());
            anew += 1;
        }
    }
    let report = place(weights, found)
        .with_context(|| format!("{} does not fit the network", folder.display()))?;
    let anew = if anew > 0 { ", its last layer anew for other classes" } else { "" };
    Ok(format!("{report} from {}{anew}", folder.display()))
}

fn place(weights: &mut StateDict, found: StateDict) -> Result<String> {
    let encoder: Vec<String> =
        weights.keys().filter(|name| name.starts_with("encoder.")).cloned().collect();
    let prefixed = found.keys().any(|name| name.starts_with("encoder."));
    let auxiliary = weights.keys().any(|name| name.starts_with(AUXILIARY_HEAD));
    let useful = |name: &str| match prefixed {
        true => auxiliary || !name.starts_with(AUXILIARY_HEAD),
        false => !IMAGENET_HEADS.iter().any(|head| name.starts_with(head)),
    };
    let renamed: StateDict = found
        .into_iter()
        .filter(|(name, _)| useful(name))
        .map(|(name, tensor)| (if prefixed { name } else { format!("encoder.{name}") }, tensor))
        .collect();
    if let Some(unknown) = renamed.keys().find(|name| !weights.contains_key(*name)) {
        bail!("it holds `{unknown}`, which the network has not");
    }
    let whole = renamed.keys().any(|name| !name.starts_with("encoder."));
    let wanted: Vec<String> = if whole { weights.keys().cloned().collect() } else { encoder };
    if let Some(missing) = wanted.iter().find(|name| !renamed.contains_key(*name)) {
        bail!("it lacks `{missing}`");
    }
    let count = renamed.len();
    for (name, tensor) in renamed {
        let expected = weights[&name].shape.clone();
        ensure!(
            tensor.shape == expected,
            "`{name}` is {:?} in it, where the network needs {expected:?}",
            tensor.shape
        );
        weights.insert(name, tensor);
    }
    Ok(format!("{count} tensors of the {}", if whole { "whole network" } else { "encoder" }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use protoseg_models::arch::efficientnet_lite::{self, LITE0};
    use protoseg_models::arch::{Arch, Preset};
    use protoseg_models::formula;

    fn lite0() -> StateDict {
        initial(&Arch::new(Preset::DeepLabV3PlusEfficientNetLite0, 5).unwrap().graph(), 1)
    }

    #[test]
    fn an_imagenet_classifier_gives_its_encoder() {
        let classifier = formula::weights(&efficientnet_lite::classifier(LITE0), None);
        let mut weights = lite0();
        let before = weights["decoder.classifier.weight"].clone();
        assert_eq!(place(&mut weights, classifier.clone()).unwrap(), "240 tensors of the encoder");
        assert_eq!(weights["encoder._blocks.3._bn1.bias"], classifier["_blocks.3._bn1.bias"]);
        assert_eq!(weights["decoder.classifier.weight"], before);
    }

    #[test]
    fn weights_that_do_not_fit_are_refused_by_name() {
        let refused = |change: &dyn Fn(&mut StateDict), says: &str| {
            let mut found = lite0();
            change(&mut found);
            let error = format!("{:#}", place(&mut lite0(), found).unwrap_err());
            assert!(error.contains(says), "{error}");
        };
        let tensor = Tensor { shape: vec![2], data: vec![0.0; 2] };
        refused(
            &|found| drop(found.insert("decoder.extra".into(), tensor.clone())),
            "decoder.extra",
        );
        refused(
            &|found| drop(found.remove("decoder.low.conv.weight")),
            "lacks `decoder.low.conv.weight`",
        );
        refused(
            &|found| drop(found.insert("decoder.classifier.bias".into(), tensor.clone())),
            "[2]",
        );
        place(&mut lite0(), lite0()).unwrap();
    }

    #[test]
    fn initial_weights_have_the_spread_they_should() {
        let weights = lite0();
        let deviation = |name: &str| {
            let data = &weights[name].data;
            (data.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>() / data.len() as f64)
                .sqrt()
        };
        let ratio = deviation("decoder.aspp.project.conv.weight") / (2.0_f64 / 128.0).sqrt();
        assert!((0.97..1.03).contains(&ratio), "{ratio}");
        assert!((0.0085..0.0115).contains(&deviation("decoder.classifier.weight")));
    }
}
