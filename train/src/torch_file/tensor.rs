//! Tensors out of raw storages: elements of any float type, at any offset and strides.

use std::borrow::Cow;
use std::collections::BTreeMap;

use protoseg_models::weights::{StateDict, Tensor};

use super::error::TorchFileFault;
use super::pickle::Pickle;
use super::value::{Heap, Id, PickleValue};

/// What the elements of a storage are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Element {
    Half,
    BFloat,
    Float,
    Double,
    /// Integers and booleans, of which weights are not made.
    Integer,
    /// Complex and quantized numbers.
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
    /// Decodes `("storage", type, key, location, count)`; the legacy format adds `None`.
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

/// A tensor's place in its storage, in elements. Strides of dimensions of size 1 are 0.
#[derive(Debug)]
struct TensorView {
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
    count: usize,
}

/// Reads tensors by name, each storage once. `most` bounds the elements of all of them together, as many tensors may
/// share one storage and strides may repeat an element. `bytes_of` gives a storage by its key.
pub(super) fn gather<'a>(
    pickle: &Pickle<'a>,
    weights: BTreeMap<&'a str, Id>,
    mut most: usize,
    mut bytes_of: impl FnMut(&str) -> Result<Cow<'a, [u8]>, TorchFileFault>,
) -> Result<StateDict, TorchFileFault> {
    let mut by_storage: BTreeMap<&str, Vec<(&str, Element, TensorView)>> = BTreeMap::new();
    for (name, id) in weights {
        let fault = |why| TorchFileFault::Tensor { name: name.to_owned(), why };
        let (storage, view) = decode(&pickle.heap, id).map_err(fault)?;
        match storage.element {
            Element::Integer => continue,
            Element::Other => return Err(fault("is of complex or quantized numbers")),
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
                Element::Half => view.map(bytes.as_chunks().0, half),
                Element::BFloat => view.map(bytes.as_chunks().0, bfloat),
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
        return Err(TorchFileFault::NoWeights { found: "only integers".to_owned() });
    }
    Ok(tensors)
}

/// Decodes the arguments of `_rebuild_tensor_v2`: storage, offset, shape, strides and what does not matter here.
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
    let malformed = "has a shape or strides that no weights have";
    let shape = sizes(heap.items(shape)).ok_or(malformed)?;
    let mut strides = sizes(heap.items(strides))
        .filter(|strides| strides.len() == shape.len())
        .ok_or(malformed)?;
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
    /// The elements in the order of the shape, last dimension fastest; none if one is not in the storage.
    fn map<const N: usize>(
        &self,
        storage: &[[u8; N]],
        value: impl Fn([u8; N]) -> f32,
    ) -> Option<Vec<f32>> {
        if self.count == 0 {
            return Some(Vec::new());
        }
        let last = self.shape.iter().zip(&self.strides).try_fold(
            self.offset,
            |last, (size, stride)| {
                stride.checked_mul(size - 1).and_then(|reach| last.checked_add(reach))
            },
        )?;
        let reached = storage.get(self.offset..last.checked_add(1)?)?;
        if self.is_contiguous() {
            return Some(reached.iter().map(|bytes| value(*bytes)).collect());
        }
        let mut data = Vec::with_capacity(self.count);
        let mut index = vec![0; self.shape.len()];
        let mut at = 0;
        for _ in 0..self.count {
            data.push(value(reached[at]));
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                at += self.strides[axis];
                if index[axis] < self.shape[axis] {
                    break;
                }
                at -= self.strides[axis] * self.shape[axis];
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

/// An IEEE 754 half as a float: the exponent's bias goes from 15 to 127, the mantissa from 10 to 23 bits.
fn half(bytes: [u8; 2]) -> f32 {
    let bits = u32::from(u16::from_le_bytes(bytes));
    let (sign, exponent, mantissa) = ((bits & 0x8000) << 16, (bits >> 10) & 0x1f, bits & 0x3ff);
    let magnitude = match exponent {
        // Zero and subnormals, in units of 2^-24.
        0 => return f32::from_bits((mantissa as f32 / 16_777_216.0).to_bits() | sign),
        0x1f => 0x7f80_0000 | (mantissa << 13),
        _ => ((exponent + 112) << 23) | (mantissa << 13),
    };
    f32::from_bits(sign | magnitude)
}

/// A bfloat16 as a float, of which it is the upper half.
fn bfloat(bytes: [u8; 2]) -> f32 {
    f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16)
}
