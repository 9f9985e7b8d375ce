//! Tensors of a request: datatypes, shapes and elements.

use bytes::{Buf, Bytes};

use crate::ServiceError;
use crate::error::bad_request;

/// A tensor as the request describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct InputTensor {
    pub name: String,
    pub datatype: String,
    pub shape: Vec<i64>,
    pub content: TensorData,
}

#[derive(Debug, Clone, PartialEq)]
pub enum TensorData {
    /// Row-major little-endian elements; those of BYTES each behind its length in four bytes.
    Raw(Bytes),
    /// Elements of BYTES.
    Elements(Vec<Bytes>),
}

impl InputTensor {
    /// Returns the dimensions and their product, or fails where one is negative or the product
    /// overflows.
    pub(super) fn dimensions(&self) -> Result<(Vec<usize>, usize), ServiceError> {
        let Self { name, shape, .. } = self;
        let sides: Option<Vec<usize>> =
            shape.iter().map(|&side| usize::try_from(side).ok()).collect();
        let product = |sides: &Vec<usize>| {
            sides.iter().try_fold(1_usize, |product, &side| product.checked_mul(side))
        };
        sides.and_then(|sides| product(&sides).map(|product| (sides, product))).ok_or_else(|| {
            bad_request(format!("the input `{name}` has the invalid shape {shape:?}"))
        })
    }

    /// Returns the elements of a BYTES tensor, as many as its shape says.
    pub(super) fn elements(self) -> Result<Vec<Bytes>, ServiceError> {
        let (_, count) = self.dimensions()?;
        let Self { name, shape, content, .. } = self;
        let elements = match content {
            TensorData::Elements(elements) => elements,
            TensorData::Raw(mut bytes) => {
                let mut elements = Vec::new();
                while !bytes.is_empty() {
                    let length = bytes.try_get_u32_le().ok().map(|length| length as usize);
                    let length = length.filter(|&length| length <= bytes.len());
                    let length = length.ok_or_else(|| {
                        bad_request(format!(
                            "the input `{name}` ends in the middle of an element; each is its length in four bytes, then its \
                             bytes"
                        ))
                    })?;
                    elements.push(bytes.split_to(length));
                }
                elements
            }
        };
        let found = elements.len();
        if found != count {
            let why = format!("the input `{name}` of shape {shape:?} has {found} elements");
            return Err(bad_request(why));
        }
        Ok(elements)
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
    fn raw_elements_are_split_by_their_lengths() {
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
