//! Finds the weights among all that a checkpoint holds.

use std::collections::BTreeMap;

use super::error::TorchFileFault;
use super::pickle::Pickle;
use super::value::{Id, PickleValue};

/// Where averaged weights are. One of these that holds anything must hold weights: silently taking the plain weights
/// instead would give another model.
const AVERAGED: [&str; 3] = ["teacher_state", "teacher", "ema"];
/// Where plain weights are.
const PLAIN: [&str; 5] = ["model_state", "state_dict", "model", "model_state_dict", "net"];
/// How deep weights are looked for: `{"model": {"state_dict": {...}}}` is 2.
const DEPTH: usize = 2;

/// The weights of a checkpoint: names, without a `module.` that all have, and tensors.
pub(super) fn find<'a>(pickle: &Pickle<'a>) -> Result<BTreeMap<&'a str, Id>, TorchFileFault> {
    let dict =
        search(pickle, pickle.object, DEPTH)?.ok_or_else(|| no_weights(pickle, pickle.object))?;
    let mut weights = BTreeMap::new();
    for (key, value) in pickle.heap.pairs(dict) {
        match (key, value) {
            (PickleValue::Text(name), PickleValue::Tensor(tensor)) => {
                drop(weights.insert(*name, *tensor))
            }
            (PickleValue::Text(name), PickleValue::Object(_)) if !is_extra(name) => {
                return Err(TorchFileFault::Tensor {
                    name: (*name).to_owned(),
                    why: "is not a plain tensor",
                });
            }
            _ => {}
        }
    }
    let prefix =
        if weights.keys().all(|name| name.starts_with("module.")) { "module." } else { "" };
    Ok(weights.into_iter().map(|(name, tensor)| (&name[prefix.len()..], tensor)).collect())
}

/// The dict of tensors that a value is, or else holds under one of the known keys.
fn search(
    pickle: &Pickle<'_>,
    value: PickleValue<'_>,
    depth: usize,
) -> Result<Option<Id>, TorchFileFault> {
    let PickleValue::Dict(dict) = value else { return Ok(None) };
    let pairs = pickle.heap.pairs(dict);
    let mut has_tensor = false;
    let flat = pairs.iter().all(|(key, value)| match (key, value) {
        (PickleValue::Text(name), _) if is_extra(name) => true,
        (PickleValue::Text(_), PickleValue::Tensor(_)) => {
            has_tensor = true;
            true
        }
        // Quantized, sparse and other tensors.
        (PickleValue::Text(_), PickleValue::Object(class)) => class.name.starts_with("_rebuild_"),
        _ => false,
    });
    if flat && has_tensor {
        return Ok(Some(dict));
    }
    if depth == 0 {
        return Ok(None);
    }
    for name in AVERAGED.into_iter().chain(PLAIN) {
        let Some((_, value)) = pairs.iter().rfind(|(key, _)| *key == PickleValue::Text(name))
        else {
            continue;
        };
        if let Some(found) = search(pickle, *value, depth - 1)? {
            return Ok(Some(found));
        }
        let holds = match value {
            PickleValue::Dict(id) => !pickle.heap.pairs(*id).is_empty(),
            PickleValue::Object(_) => true,
            _ => false,
        };
        if holds && AVERAGED.contains(&name) {
            return Err(no_weights(pickle, *value));
        }
    }
    Ok(None)
}

/// Whether a state dict's name is of what a module keeps beside its tensors.
fn is_extra(name: &str) -> bool {
    name.ends_with("_extra_state")
}

fn no_weights(pickle: &Pickle<'_>, value: PickleValue<'_>) -> TorchFileFault {
    let found = match value {
        PickleValue::Dict(id) => {
            let keys: Vec<_> =
                pickle.heap.pairs(id).iter().filter_map(|(key, _)| text(*key)).take(8).collect();
            if keys.is_empty() {
                "a dict without names".to_owned()
            } else {
                format!("a dict of {}", keys.join(", "))
            }
        }
        PickleValue::Object(class) | PickleValue::Global(class) => {
            format!(
                "a pickled object of {:?}",
                shortened(&format!("{}.{}", class.module, class.name))
            )
        }
        PickleValue::Tensor(_) | PickleValue::Storage(_) => "one unnamed tensor".to_owned(),
        PickleValue::List(_) | PickleValue::Tuple(_) => "a list".to_owned(),
        _ => "a plain value".to_owned(),
    };
    TorchFileFault::NoWeights { found }
}

fn text(key: PickleValue<'_>) -> Option<String> {
    let PickleValue::Text(key) = key else { return None };
    Some(format!("{:?}", shortened(key)))
}

fn shortened(text: &str) -> String {
    text.chars().take(60).collect()
}
