//! Finds the weights among all that a checkpoint holds.

use std::collections::BTreeMap;

use super::error::Fault;
use super::pickle::Pickle;
use super::value::{Id, Value};

/// Where averaged weights are. One of these that holds anything must hold weights: silently taking the plain weights
/// instead would give another model.
const AVERAGED: [&str; 3] = ["teacher_state", "teacher", "ema"];
/// Where plain weights are.
const PLAIN: [&str; 5] = ["model_state", "state_dict", "model", "model_state_dict", "net"];
/// How deep weights are looked for: `{"model": {"state_dict": {...}}}` is 2.
const DEPTH: usize = 2;

/// The weights of a checkpoint: names, without a `module.` that all have, and tensors.
pub(super) fn find<'a>(pickle: &Pickle<'a>) -> Result<BTreeMap<&'a str, Id>, Fault> {
    let dict = search(pickle, pickle.object, DEPTH)?.ok_or_else(|| no_weights(pickle, pickle.object))?;
    let mut weights = BTreeMap::new();
    for (key, value) in pickle.heap.pairs(dict) {
        match (key, value) {
            (Value::Text(name), Value::Tensor(tensor)) => drop(weights.insert(*name, *tensor)),
            (Value::Text(name), Value::Object(_)) if !is_extra(name) => {
                return Err(Fault::Tensor { name: (*name).to_owned(), why: "is not a plain tensor" });
            }
            _ => {}
        }
    }
    let prefix = if weights.keys().all(|name| name.starts_with("module.")) { "module." } else { "" };
    Ok(weights.into_iter().map(|(name, tensor)| (&name[prefix.len()..], tensor)).collect())
}

/// The dict of tensors that a value is, or else holds under one of the known keys.
fn search(pickle: &Pickle<'_>, value: Value<'_>, depth: usize) -> Result<Option<Id>, Fault> {
    let Value::Dict(dict) = value else { return Ok(None) };
    let pairs = pickle.heap.pairs(dict);
    let mut has_tensor = false;
    let flat = pairs.iter().all(|(key, value)| match (key, value) {
        (Value::Text(name), _) if is_extra(name) => true,
        (Value::Text(_), Value::Tensor(_)) => {
            has_tensor = true;
            true
        }
        // Quantized, sparse and other tensors.
        (Value::Text(_), Value::Object(class)) => class.name.starts_with("_rebuild_"),
        _ => false,
    });
    if flat && has_tensor {
        return Ok(Some(dict));
    }
    if depth == 0 {
        return Ok(None);
    }
    for name in AVERAGED.into_iter().chain(PLAIN) {
        let Some((_, value)) = pairs.iter().rfind(|(key, _)| *key == Value::Text(name)) else { continue };
        if let Some(found) = search(pickle, *value, depth - 1)? {
            return Ok(Some(found));
        }
        let holds = match value {
            Value::Dict(id) => !pickle.heap.pairs(*id).is_empty(),
            Value::Object(_) => true,
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

fn no_weights(pickle: &Pickle<'_>, value: Value<'_>) -> Fault {
    let found = match value {
        Value::Dict(id) => {
            let keys: Vec<_> = pickle.heap.pairs(id).iter().filter_map(|(key, _)| text(*key)).take(8).collect();
            if keys.is_empty() { "a dict without names".to_owned() } else { format!("a dict of {}", keys.join(", ")) }
        }
        Value::Object(class) | Value::Global(class) => {
            format!("a pickled object of {:?}", shortened(&format!("{}.{}", class.module, class.name)))
        }
        Value::Tensor(_) | Value::Storage(_) => "one unnamed tensor".to_owned(),
        Value::List(_) | Value::Tuple(_) => "a list".to_owned(),
        _ => "a plain value".to_owned(),
    };
    Fault::NoWeights { found }
}

fn text(key: Value<'_>) -> Option<String> {
    let Value::Text(key) = key else { return None };
    Some(format!("{:?}", shortened(key)))
}

fn shortened(text: &str) -> String {
    text.chars().take(60).collect()
}
