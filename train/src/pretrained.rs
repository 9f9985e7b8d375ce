//! Initial weights: random, of an encoder, or of a whole network.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use protoseg_models::analysis::Role;
use protoseg_models::arch::vit_head::STEM_PREFIX;
use protoseg_models::checkpoint::Checkpoint;
use protoseg_models::classes::ClassTable;
use protoseg_models::graph::{Graph, Tag};
use protoseg_models::random::Stream;
use protoseg_models::weights::{self, StateDict, Tensor};

use crate::torch_file;

mod dinov2;
mod onnx_file;

/// Id of the random stream.
const INITIAL: u64 = 3;
/// Standard deviation of the last layers' weights, so small that classes start out equally probable.
const CLASSIFIER_DEVIATION: f64 = 0.01;
/// Standard deviation of tokens and positions, as in DINOv2.
const TOKEN_DEVIATION: f64 = 0.02;
/// Parameters of ImageNet heads, which files of encoders hold.
const IMAGENET_HEADS: [&str; 5] = ["_conv_head.", "_bn1.", "_fc.", "fc.", "last_linear."];
/// Parameters of the auxiliary head, which a network may lack.
const AUXILIARY_HEAD: &str = "auxor.";

/// Returns random weights: convolutions normal with variance 2 / fan-out (He et al., 2015), last layers normal with
/// deviation 0.01, tokens and positions with 0.02, scales 1, shifts 0.
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
            Role::ClassToken | Role::Registers | Role::Positions => {
                (TOKEN_DEVIATION * stream.normal(index as u64)) as f32
            }
            Role::NormWeight | Role::RunningVar | Role::LayerScale => 1.0,
            Role::Bias | Role::NormBias | Role::RunningMean => 0.0,
        });
        (parameter.name, tensor)
    });
    parameters.collect()
}

/// Scales the weights of the last layer, so that the confidence of an untrained network differs from pixel to pixel by
/// more than rounding.
pub fn sharpen(weights: &mut StateDict, graph: &Graph, by: f32) -> Result<()> {
    let logits = graph.tagged(Tag::Logits).context("the network has no logits")?;
    let last = weights.get_mut(&format!("{}.weight", graph.node(logits).name));
    for value in &mut last.context("the last layer has no weights")?.data {
        *value *= by;
    }
    Ok(())
}

/// Reads a `.safetensors` or `.onnx` file, or a PyTorch file with any other extension. Encoders of
/// DINOv2 get facebookresearch's names.
pub fn read(path: &Path) -> Result<StateDict> {
    let extension = path.extension().and_then(std::ffi::OsStr::to_str);
    let found = match extension {
        Some("safetensors") => weights::read(path)?,
        Some("onnx") => onnx_file::read(path)?,
        _ => torch_file::read(path)?,
    };
    dinov2::rename(found).with_context(|| path.display().to_string())
}

/// Loads a file into the weights of a network: the whole network, or its whole encoder. Only an ImageNet or auxiliary head
/// of the file may be left out.
///
/// Returns a description for the log.
pub fn load(weights: &mut StateDict, path: &Path) -> Result<String> {
    let found = read_existing(path, "pretrained")?;
    let report = place(weights, found)
        .with_context(|| format!("{} does not fit the network", path.display()))?;
    Ok(format!("{} from {}", report, path.display()))
}

/// Loads EfficientNet-Lite0 into the stem beside a transformer; the later stages of the file are left out.
///
/// Returns a description for the log.
pub fn load_stem(weights: &mut StateDict, path: &Path) -> Result<String> {
    let mut found = read_existing(path, "pretrained_stem")?;
    let mut count = 0;
    for (name, tensor) in weights.iter_mut() {
        let Some(own) = name.strip_prefix(STEM_PREFIX) else { continue };
        let theirs = found.remove(own).with_context(|| {
            format!("{}: it lacks `{own}` of EfficientNet-Lite0", path.display())
        })?;
        ensure!(
            theirs.shape == tensor.shape,
            "{}: `{own}` has shape {:?}, the stem needs {:?}",
            path.display(),
            theirs.shape,
            tensor.shape
        );
        *tensor = theirs;
        count += 1;
    }
    Ok(format!("{count} tensors of the stem from {}", path.display()))
}

fn read_existing(path: &Path, key: &str) -> Result<StateDict> {
    ensure!(
        path.exists(),
        "{} does not exist: run `cargo xtask setup` to fetch the encoders' weights and start in the repository, or set `{key}` to another file",
        path.display()
    );
    read(path)
}

/// Loads a checkpoint folder into the weights of a network for `classes`. In last layers, the rows of a class are those of
/// the class of that name; the others keep their initial weights.
///
/// Returns a description for the log.
pub fn load_checkpoint(
    weights: &mut StateDict,
    graph: &Graph,
    classes: &ClassTable,
    folder: &Path,
) -> Result<String> {
    let checkpoint = Checkpoint::read(folder)?;
    let sources = same_classes(classes, &checkpoint.header.classes);
    let mut found = checkpoint.weights;
    for tag in [Tag::Logits, Tag::Aux] {
        let Some(id) = graph.tagged(tag) else { continue };
        for part in ["weight", "bias"] {
            let name = format!("{}.{part}", graph.node(id).name);
            if let (Some(theirs), Some(ours)) = (found.get(&name), weights.get(&name)) {
                let rows = rows_of(ours, theirs, &sources);
                found.insert(name, rows);
            }
        }
    }
    let report = place(weights, found)
        .with_context(|| format!("{} does not fit the network", folder.display()))?;
    let note = class_note(classes, &checkpoint.header.classes, &sources);
    Ok(format!("{report} from {}{note}", folder.display()))
}

/// The position of each class in another table: the class of that name, in the same upper and lower case if there is one.
fn same_classes(ours: &ClassTable, theirs: &ClassTable) -> Vec<Option<usize>> {
    let find = |is_same: &dyn Fn(&str) -> bool| {
        theirs.classes().iter().position(|class| is_same(&class.name))
    };
    let position = |name: &str| {
        let lower = name.to_lowercase();
        find(&|other| other == name).or_else(|| find(&|other| other.to_lowercase() == lower))
    };
    ours.classes().iter().map(|class| position(&class.name)).collect()
}

/// The rows of the same classes out of `theirs`, the others out of `ours`; `ours` where a row has another size.
fn rows_of(ours: &Tensor, theirs: &Tensor, sources: &[Option<usize>]) -> Tensor {
    let mut rows = ours.clone();
    let (Some(&count), Some(&their_count)) = (ours.shape.first(), theirs.shape.first()) else {
        return rows;
    };
    if ours.shape[1..] != theirs.shape[1..] || count != sources.len() {
        return rows;
    }
    let length: usize = ours.shape[1..].iter().product();
    let from = theirs.data.chunks_exact(length);
    for (row, source) in rows.data.chunks_exact_mut(length).zip(sources) {
        let source = source.filter(|&source| source < their_count);
        if let Some(values) = source.and_then(|source| from.clone().nth(source)) {
            row.copy_from_slice(values);
        }
    }
    rows
}

/// Says which classes differ; nothing if all are the same in the same order.
fn class_note(ours: &ClassTable, theirs: &ClassTable, sources: &[Option<usize>]) -> String {
    let fresh: Vec<String> = ours
        .classes()
        .iter()
        .zip(sources)
        .filter(|(_, source)| source.is_none())
        .map(|(class, _)| format!("`{}`", class.name))
        .collect();
    let in_order = sources.iter().enumerate().all(|(index, source)| *source == Some(index));
    if fresh.len() == sources.len() {
        let names = theirs.classes().iter().take(3).map(|class| format!("`{}`", class.name));
        let names = names.collect::<Vec<_>>().join(", ");
        format!(
            "; the last layer starts from random weights, as no class has the same name (there {names}{})",
            if theirs.count() > 3 { ", ..." } else { "" }
        )
    } else if !fresh.is_empty() {
        format!(
            "; in the last layer, {} of {} classes are new and start from random weights: {}",
            fresh.len(),
            sources.len(),
            fresh.join(", ")
        )
    } else if !in_order || ours.count() != theirs.count() {
        "; the last layer is in the order of the classes here, by their names".to_owned()
    } else {
        String::new()
    }
}

fn place(weights: &mut StateDict, found: StateDict) -> Result<String> {
    let own_encoder =
        |name: &&String| name.starts_with("encoder.") && !name.starts_with(STEM_PREFIX);
    let encoder: Vec<String> = weights.keys().filter(own_encoder).cloned().collect();
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
        bail!("the network has no `{unknown}`");
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
            "`{name}` has shape {:?}, the network needs {expected:?}",
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
    fn initial_weights_have_the_expected_deviation() {
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

    #[test]
    fn rows_of_the_last_layer_follow_the_names_of_classes() {
        let table = |text: &str| ClassTable::parse(text).unwrap();
        let (ours, theirs) = (table("0 Water\n1 bg\n2 roof\n"), table("0 bg\n1 road\n2 water\n"));
        let sources = same_classes(&ours, &theirs);
        assert_eq!(sources, [Some(2), Some(0), None]);
        let start = |first: f32| Tensor::from_fn(&[3, 2, 1, 1], |index| first + index as f32);
        let rows = rows_of(&start(10.0), &start(0.0), &sources);
        assert_eq!(rows.data, [4.0, 5.0, 0.0, 1.0, 14.0, 15.0]);
        // Of another width, nothing can be taken.
        let wide = Tensor::from_fn(&[3, 5, 1, 1], |index| index as f32);
        assert_eq!(rows_of(&start(10.0), &wide, &sources), start(10.0));

        let note = |ours: &str, theirs: &str| {
            let (ours, theirs) = (table(ours), table(theirs));
            class_note(&ours, &theirs, &same_classes(&ours, &theirs))
        };
        assert_eq!(note("0 a\n1 b\n", "0 a\n1 b\n"), "");
        assert!(note("0 a\n1 b\n", "0 b\n1 a\n").contains("in the order of the classes here"));
        assert!(note("0 a\n1 b\n", "0 a\n1 b\n2 c\n").contains("in the order of the classes"));
        assert!(note("0 a\n1 c\n", "0 a\n1 b\n").contains("1 of 2 classes are new"));
        assert!(note("0 x\n1 y\n", "0 a\n1 b\n").contains("no class has the same name"));
    }
}
