//! Tensors as they come: their types, shapes and bytes.

use bytes::{Buf, Bytes};
use serde::{Deserialize, Serialize};

use crate::ServiceError;

/// Types of elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Datatype {
    Bool,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Int8,
    Int16,
    Int32,
    Int64,
    Fp16,
    Fp32,
    Fp64,
    Bytes,
}

impl Datatype {
    /// The protocol's word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::Uint8 => "UINT8",
            Self::Uint16 => "UINT16",
            Self::Uint32 => "UINT32",
            Self::Uint64 => "UINT64",
            Self::Int8 => "INT8",
            Self::Int16 => "INT16",
            Self::Int32 => "INT32",
            Self::Int64 => "INT64",
            Self::Fp16 => "FP16",
            Self::Fp32 => "FP32",
            Self::Fp64 => "FP64",
            Self::Bytes => "BYTES",
        }
    }
}

/// A tensor of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct InputTensor {
    /// Its name.
    pub name: String,
    /// Its type, as the request spells it.
    pub datatype: String,
    /// Its dimensions.
    pub shape: Vec<i64>,
    /// Its elements.
    pub content: TensorData,
}

/// The elements of a tensor.
#[derive(Debug, Clone, PartialEq)]
pub enum TensorData {
    /// As they lie in memory, row by row, smallest byte first; each element of BYTES behind its length in four bytes.
    Raw(Bytes),
    /// Elements of BYTES.
    Elements(Vec<Bytes>),
}

impl InputTensor {
    /// The dimensions, none negative, and their product.
    pub(super) fn dimensions(&self) -> Result<(Vec<usize>, usize), ServiceError> {
        let refused = || {
            let Self { name, shape, .. } = self;
            ServiceError::bad_request(format!(
                "the input `{name}` has the shape {shape:?}, of which no tensor can be"
            ))
        };
        let sides: Option<Vec<usize>> =
            self.shape.iter().map(|&side| usize::try_from(side).ok()).collect();
        let sides = sides.ok_or_else(refused)?;
        let product = sides
            .iter()
            .try_fold(1_usize, |product, &side| product.checked_mul(side))
            .ok_or_else(refused)?;
        Ok((sides, product))
    }

    /// The elements of BYTES, of which there must be as many as the shape says.
    pub(super) fn elements(self) -> Result<Vec<Bytes>, ServiceError> {
        let (_, count) = self.dimensions()?;
        let elements = match self.content {
            TensorData::Elements(elements) => elements,
            TensorData::Raw(mut bytes) => {
                let mut elements = Vec::new();
                while !bytes.is_empty() {
                    let length =
                        bytes.try_get_u32_le().ok().and_then(|length| usize::try_from(length).ok());
                    let length = length.filter(|&length| length <= bytes.len()).ok_or_else(|| {
                        ServiceError::bad_request(format!(
                            "the input `{}` ends in the middle of an element; each is its length in four bytes, then its bytes",
                            self.name
                        ))
                    })?;
                    elements.push(bytes.split_to(length));
                }
                elements
            }
        };
        if elements.len() == count {
            Ok(elements)
        } else {
            let (name, shape, found) = (&self.name, &self.shape, elements.len());
            Err(ServiceError::bad_request(format!(
                "the input `{name}` of shape {shape:?} has {found} elements"
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(shape: &[i64], bytes: &[u8]) -> InputTensor {
        let content = TensorData::Raw(Bytes::copy_from_slice(bytes));
        InputTensor {
            name: "image".to_owned(),
            datatype: "BYTES".to_owned(),
            shape: shape.to_vec(),
            content,
        }
    }

    #[test]
    fn elements_lie_behind_their_lengths() {
        let elements = tensor(&[2], &[1, 0, 0, 0, 9, 2, 0, 0, 0, 7, 8]).elements().unwrap();
        assert_eq!(elements, [&[9][..], &[7, 8]]);
        for (shape, bytes) in [
            (&[2][..], &[1, 0, 0, 0, 9][..]),
            (&[1], &[2, 0, 0, 0, 9]),
            (&[1], &[255, 255, 255, 255, 9]),
            (&[1], &[1, 0]),
            (&[-1], &[1, 0, 0, 0, 9]),
            (&[i64::MAX, i64::MAX], &[]),
        ] {
            assert!(
                matches!(tensor(shape, bytes).elements(), Err(ServiceError::BadRequest(_))),
                "{shape:?} {bytes:?}"
            );
        }
    }
}
