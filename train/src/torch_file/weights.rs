//! Finds the weights in a checkpoint's object and decodes their tensors: any float type, offset and
//! strides.

use std::borrow::Cow;
use std::collections::BTreeMap;

use half::{bf16, f16};
use protoseg_models::weights::{StateDict, Tensor};

use super::TorchFileFault;
use super::pickle::{Heap, Id, Pickle, PickleValue};

/// Keys of averaged weights. One of these that holds anything must hold weights: falling back to
/// the plain weights would silently give another model.
const AVERAGED: [&str; 3] = ["teacher_state", "teacher", "ema"];
const PLAIN: [&str; 5] = ["model_state", "state_dict", "model", "model_state_dict", "net"];
/// Depth of the search: `{"model": {"state_dict": {...}}}` has 2.
const DEPTH: usize = 2;

/// Reads the weights. `most` bounds the elements of all tensors together, as many tensors may share
/// one storage and strides may repeat an element. `bytes_of` returns a storage by its key and is
/// called once for each.
pub(super) fn read<'a>(
    pickle: &Pickle<'a>,
    mut most: usize,
    mut bytes_of: impl FnMut(&str) -> Result<Cow<'a, [u8]>, TorchFileFault>,
) -> Result<StateDict, TorchFileFault> {
    let mut by_storage: BTreeMap<&str, Vec<(&str, Element, TensorView)>> = BTreeMap::new();
    for (name, id) in find(pickle)? {
        let fault = |why| TorchFileFault::Tensor { name: name.to_owned(), why };
        let (storage, view) = decode(&pickle.heap, id).map_err(fault)?;
        match storage.element {
            Element::Integer => continue,
            Element::Other => return Err(fault("has complex or quantized elements")),
            _ => {}
        }
        most = most.checked_sub(view.count).ok_or(TorchFileFault::TooLarge)?;
        by_storage.entry(storage.key).or_default().push((name, storage.element, view));
    }
    let mut tensors = StateDict::new();
    for (key, views) in by_storage {
        let bytes = bytes_of(key)?;
        for (name, element, view) in views {
            let data = match element {
                Element::Half => {
                    view.map(bytes.as_chunks().0, |bytes| f16::from_le_bytes(bytes).to_f32())
                }
                Element::BFloat => {
                    view.map(bytes.as_chunks().0, |bytes| bf16::from_le_bytes(bytes).to_f32())
                }
                Element::Double => {
                    view.map(bytes.as_chunks().0, |bytes| f64::from_le_bytes(bytes) as f32)
                }
                _ => view.map(bytes.as_chunks().0, f32::from_le_bytes),
            };
            let why = "reaches past the end of its storage";
            let data = data.ok_or_else(|| TorchFileFault::Tensor { name: name.to_owned(), why })?;
            tensors.insert(name.to_owned(), Tensor { shape: view.shape, data });
        }
    }
    if tensors.is_empty() {
        return Err(TorchFileFault::NoWeights { found: "integer tensors alone".to_owned() });
    }
    Ok(tensors)
}

/// Names, without a common prefix `module.`, and tensors of the weights.
fn find<'a>(pickle: &Pickle<'a>) -> Result<BTreeMap<&'a str, Id>, TorchFileFault> {
    let dict =
        search(pickle, pickle.object, DEPTH)?.ok_or_else(|| no_weights(pickle, pickle.object))?;
    let mut weights = BTreeMap::new();
    for (key, value) in pickle.heap.pairs(dict) {
        match (key, value) {
            (PickleValue::Text(name), PickleValue::Tensor(tensor)) => {
                weights.insert(*name, *tensor);
            }
            (PickleValue::Text(name), PickleValue::Object(_)) if !is_extra_state(name) => {
                let name = (*name).to_owned();
                return Err(TorchFileFault::Tensor { name, why: "is not a plain tensor" });
            }
            _ => {}
        }
    }
    let wrapped = weights.keys().all(|name| name.starts_with("module."));
    let prefix = if wrapped { "module.".len() } else { 0 };
    Ok(weights.into_iter().map(|(name, tensor)| (&name[prefix..], tensor)).collect())
}

/// The dict of tensors that a value is, or holds under one of the known keys.
fn search(
    pickle: &Pickle<'_>,
    value: PickleValue<'_>,
    depth: usize,
) -> Result<Option<Id>, TorchFileFault> {
    let PickleValue::Dict(dict) = value else { return Ok(None) };
    let pairs = pickle.heap.pairs(dict);
    let mut has_tensor = false;
    let mut is_flat = true;
    for pair in pairs {
        match pair {
            (PickleValue::Text(name), _) if is_extra_state(name) => {}
            (PickleValue::Text(_), PickleValue::Tensor(_)) => has_tensor = true,
            // Quantized, sparse and other tensors.
            (PickleValue::Text(_), PickleValue::Object(class))
                if class.name.starts_with("_rebuild_") => {}
            _ => is_flat = false,
        }
    }
    if is_flat && has_tensor {
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
        let holds_something = match value {
            PickleValue::Dict(id) => !pickle.heap.pairs(*id).is_empty(),
            PickleValue::Object(_) => true,
            _ => false,
        };
        if holds_something && AVERAGED.contains(&name) {
            return Err(no_weights(pickle, *value));
        }
    }
    Ok(None)
}

/// Tells if an entry of a state dict is what a module keeps beside its tensors.
fn is_extra_state(name: &str) -> bool {
    name.ends_with("_extra_state")
}

/// The error for a value that holds no weights; names what it is.
fn no_weights(pickle: &Pickle<'_>, value: PickleValue<'_>) -> TorchFileFault {
    let shortened = |text: &str| text.chars().take(60).collect::<String>();
    let found = match value {
        PickleValue::Dict(id) => {
            let keys: Vec<String> = pickle
                .heap
                .pairs(id)
                .iter()
                .filter_map(|(key, _)| match key {
                    PickleValue::Text(key) => Some(format!("{:?}", shortened(key))),
                    _ => None,
                })
                .take(8)
                .collect();
            if keys.is_empty() {
                "a dict without names".to_owned()
            } else {
                format!("a dict of {}", keys.join(", "))
            }
        }
        PickleValue::Object(class) | PickleValue::Global(class) => {
            let name = format!("{}.{}", class.module, class.name);
            format!("a pickled object of {:?}", shortened(&name))
        }
        PickleValue::Tensor(_) | PickleValue::Storage(_) => "one unnamed tensor".to_owned(),
        PickleValue::List(_) | PickleValue::Tuple(_) => "a list".to_owned(),
        _ => "a plain value".to_owned(),
    };
    TorchFileFault::NoWeights { found }
}

/// Element type of a storage.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Element {
    Half,
    BFloat,
    Float,
    Double,
    /// Integers and booleans, which are skipped.
    Integer,
    /// Complex and quantized numbers, which are refused.
    Other,
}

/// A storage as the pickle describes it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Storage<'a> {
    pub(super) key: &'a str,
    pub(super) element: Element,
    /// Bytes of one element.
    pub(super) size: usize,
}

impl<'a> Storage<'a> {
    /// Decodes `("storage", type, key, location, count)`; the legacy format appends `None`.
    pub(super) fn decode(heap: &Heap<'a>, id: Id) -> Result<Self, &'static str> {
        let &[
            _,
            PickleValue::Global(class),
            PickleValue::Text(key),
            _,
            PickleValue::Int(_),
            ref view @ ..,
        ] = heap.items(id)
        else {
            return Err("has a storage of an unknown form");
        };
        if !matches!(view, [] | [PickleValue::None]) {
            return Err("is a view of another storage");
        }
        let (element, size) = match class.name {
            "HalfStorage" => (Element::Half, 2),
            "BFloat16Storage" => (Element::BFloat, 2),
            "FloatStorage" => (Element::Float, 4),
            "DoubleStorage" => (Element::Double, 8),
            "LongStorage" => (Element::Integer, 8),
            "IntStorage" => (Element::Integer, 4),
            "ShortStorage" => (Element::Integer, 2),
            "CharStorage" | "ByteStorage" | "BoolStorage" | "UntypedStorage" => {
                (Element::Integer, 1)
            }
            "ComplexDoubleStorage" => (Element::Other, 16),
            "ComplexFloatStorage" => (Element::Other, 8),
            "QInt32Storage" => (Element::Other, 4),
            "QInt8Storage" | "QUInt8Storage" | "QUInt4x2Storage" | "QUInt2x4Storage" => {
                (Element::Other, 1)
            }
            _ => return Err("has elements of an unknown type"),
        };
        Ok(Self { key, element, size })
    }
}

/// Position of a tensor in its storage, in elements. Strides of dimensions of size 1 are 0.
#[derive(Debug)]
struct TensorView {
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
    count: usize,
}

/// Decodes the arguments of `_rebuild_tensor_v2`: storage, offset, shape, strides; the others do
/// not matter here.
fn decode<'a>(heap: &Heap<'a>, id: Id) -> Result<(Storage<'a>, TensorView), &'static str> {
    let &[
        PickleValue::Storage(storage),
        PickleValue::Int(offset),
        PickleValue::Tuple(shape) | PickleValue::List(shape),
        PickleValue::Tuple(strides) | PickleValue::List(strides),
        ..,
    ] = heap.items(id)
    else {
        return Err("is of an unknown form");
    };
    let malformed = "has an impossible shape or strides";
    let shape = sizes(heap.items(shape)).ok_or(malformed)?;
    let mut strides = sizes(heap.items(strides)).ok_or(malformed)?;
    if strides.len() != shape.len() {
        return Err(malformed);
    }
    for (stride, size) in strides.iter_mut().zip(&shape) {
        if *size == 1 {
            *stride = 0;
        }
    }
    let count =
        shape.iter().try_fold(1, |count: usize, size| count.checked_mul(*size)).ok_or(malformed)?;
    let offset = usize::try_from(offset).map_err(|_| malformed)?;
    Ok((Storage::decode(heap, storage)?, TensorView { offset, shape, strides, count }))
}

fn sizes(values: &[PickleValue<'_>]) -> Option<Vec<usize>> {
    const MOST_DIMENSIONS: usize = 8;
    let size = |value: &PickleValue<'_>| match value {
        PickleValue::Int(size) => usize::try_from(*size).ok(),
        _ => None,
    };
    if values.len() > MOST_DIMENSIONS { None } else { values.iter().map(size).collect() }
}

impl TensorView {
    /// The elements in row-major order; none if one lies outside the storage.
    fn map<const N: usize>(
        &self,
        storage: &[[u8; N]],
        value: impl Fn([u8; N]) -> f32,
    ) -> Option<Vec<f32>> {
        if self.count == 0 {
            return Some(Vec::new());
        }
        let mut last = self.offset;
        for (size, stride) in self.shape.iter().zip(&self.strides) {
            last = last.checked_add(stride.checked_mul(size - 1)?)?;
        }
        let reached = storage.get(self.offset..last.checked_add(1)?)?;
        if self.is_contiguous() {
            return Some(reached.iter().map(|bytes| value(*bytes)).collect());
        }
        let mut data = Vec::with_capacity(self.count);
        let mut index = vec![0; self.shape.len()];
        let mut position = 0;
        for _ in 0..self.count {
            data.push(value(reached[position]));
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                position += self.strides[axis];
                if index[axis] < self.shape[axis] {
                    break;
                }
                position -= self.strides[axis] * self.shape[axis];
                index[axis] = 0;
            }
        }
        Some(data)
    }

    fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        self.shape.iter().zip(&self.strides).rev().all(|(size, stride)| {
            let fits = *size == 1 || *stride == expected;
            expected *= size;
            fits
        })
    }
}
