//! Streaming writer of an ONNX file: the graph first, then one constant after the other, so that
//! the weights are in memory only once. Weights above the limit of a protobuf message go into a
//! file beside it.

use std::io::{self, Write};

use bytes::Bytes;
use half::f16;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};

use crate::onnx::builder::{Initializer, InitializerData};
use crate::onnx::proto::{DataLocation, ModelProto, StringStringEntryProto, TensorProto};

/// Default limit in bytes above which weights go into a file of their own: a protobuf message has
/// at most 2 GiB, the graph included.
pub const EXTERNAL_FROM: u64 = 2_000_000_000;

/// Constants of fewer bytes (sizes, bounds, scales) stay in the graph's file for shape inference.
const MIN_EXTERNAL: usize = 1024;

/// Alignment of external tensors in bytes, for memory mapping.
const ALIGNMENT: u64 = 4096;

/// Number of values that are converted at once.
const CHUNK: usize = 1 << 14;

/// Numbers of the fields that are encoded by hand.
const GRAPH: u32 = 7;
const INITIALIZER: u32 = 5;
const RAW_DATA: u32 = 9;

impl InitializerData {
    /// Number of bytes.
    fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Floats(tensor) => 4 * tensor.data.len(),
            Self::Halves(tensor) => 2 * tensor.data.len(),
        }
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut chunk = Vec::with_capacity(4 * CHUNK);
        let mut write = |values: &[f32], narrow: bool| {
            chunk.clear();
            if narrow {
                chunk.extend(values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()));
            } else {
                chunk.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            }
            out.write_all(&chunk)
        };
        match self {
            Self::Bytes(bytes) => out.write_all(bytes),
            Self::Floats(tensor) => {
                tensor.data.chunks(CHUNK).try_for_each(|values| write(values, false))
            }
            Self::Halves(tensor) => {
                tensor.data.chunks(CHUNK).try_for_each(|values| write(values, true))
            }
        }
    }
}

impl Initializer {
    /// Returns the message without data.
    fn header(&self) -> TensorProto {
        TensorProto {
            dims: self.shape.iter().map(|&size| size as i64).collect(),
            data_type: Some(self.element.into()),
            name: Some(self.name.clone()),
            ..TensorProto::default()
        }
    }
}

/// A file in memory, ready to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct OnnxFile {
    /// The file without constants.
    pub(crate) skeleton: ModelProto,
    pub(crate) constants: Vec<Initializer>,
}

impl OnnxFile {
    /// Returns the number of bytes of all constants.
    pub fn weight_bytes(&self) -> u64 {
        self.constants.iter().map(|constant| constant.data.len() as u64).sum()
    }

    /// Writes the file with its constants.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut initializers = Vec::with_capacity(self.constants.len());
        for constant in &self.constants {
            let mut head = constant.header().encode_to_vec();
            encode_key(RAW_DATA, WireType::LengthDelimited, &mut head);
            encode_varint(constant.data.len() as u64, &mut head);
            initializers.push((head, Some(constant)));
        }
        self.write_with(initializers, out)
    }

    /// Writes the file without its larger constants, and these into `data`, the file `data_name`
    /// beside it.
    pub fn write_external(
        &self,
        out: &mut dyn Write,
        data_name: &str,
        data: &mut dyn Write,
    ) -> io::Result<()> {
        let mut end = 0;
        let mut initializers = Vec::new();
        for constant in &self.constants {
            let length = constant.data.len();
            let mut header = constant.header();
            if length < MIN_EXTERNAL {
                let mut bytes = Vec::with_capacity(length);
                constant.data.write(&mut bytes)?;
                header.raw_data = Some(Bytes::from(bytes));
            } else {
                let start = u64::next_multiple_of(end, ALIGNMENT);
                data.write_all(&vec![0; (start - end) as usize])?;
                constant.data.write(data)?;
                end = start + length as u64;
                let entry = |key: &str, value: String| StringStringEntryProto {
                    key: Some(key.to_owned()),
                    value: Some(value),
                };
                header.external_data = vec![
                    entry("location", data_name.to_owned()),
                    entry("offset", start.to_string()),
                    entry("length", length.to_string()),
                ];
                header.data_location = Some(DataLocation::External.into());
            }
            initializers.push((header.encode_to_vec(), None));
        }
        self.write_with(initializers, out)
    }

    /// Returns the file with its constants.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // Writing into memory does not fail.
        let _: io::Result<()> = self.write(&mut bytes);
        bytes
    }

    /// Writes the skeleton with encoded initializers, each followed by the data of a constant.
    fn write_with(
        &self,
        initializers: Vec<(Vec<u8>, Option<&Initializer>)>,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let graph = self.skeleton.graph.as_ref().map(Message::encode_to_vec).unwrap_or_default();
        let mut framed = Vec::with_capacity(initializers.len());
        for (head, constant) in initializers {
            let length = head.len() + constant.map_or(0, |constant| constant.data.len());
            let mut frame = Vec::with_capacity(head.len() + 12);
            encode_key(INITIALIZER, WireType::LengthDelimited, &mut frame);
            encode_varint(length as u64, &mut frame);
            let total = frame.len() + length;
            frame.extend(head);
            framed.push((frame, constant, total));
        }
        let length = graph.len() + framed.iter().map(|(_, _, total)| total).sum::<usize>();
        let mut head = ModelProto { graph: None, ..self.skeleton.clone() }.encode_to_vec();
        encode_key(GRAPH, WireType::LengthDelimited, &mut head);
        encode_varint(length as u64, &mut head);
        out.write_all(&head)?;
        out.write_all(&graph)?;
        for (frame, constant, _) in framed {
            out.write_all(&frame)?;
            if let Some(constant) = constant {
                constant.data.write(out)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use protoseg_models::weights::Tensor;

    use super::*;
    use crate::onnx::proto::{DataType, GraphProto};

    fn file() -> OnnxFile {
        let tensor = Arc::new(Tensor::from_fn(&[40, 20], |index| index as f32 / 7.0));
        let constant = |name: &str, element, data| Initializer {
            name: name.to_owned(),
            shape: vec![40, 20],
            element,
            data,
        };
        OnnxFile {
            skeleton: ModelProto {
                ir_version: Some(8),
                graph: Some(GraphProto { name: Some("graph".to_owned()), ..GraphProto::default() }),
                ..ModelProto::default()
            },
            constants: vec![
                constant("floats", DataType::Float, InitializerData::Floats(Arc::clone(&tensor))),
                constant("bytes", DataType::Uint8, InitializerData::Bytes(vec![7; 800])),
                constant("halves", DataType::Float16, InitializerData::Halves(tensor)),
            ],
        }
    }

    fn floats() -> Vec<u8> {
        (0..800).flat_map(|index| (index as f32 / 7.0).to_le_bytes()).collect()
    }

    #[test]
    fn a_streamed_file_decodes_as_one_message() {
        let model = ModelProto::decode(file().to_bytes().as_slice()).unwrap();
        assert_eq!(model.ir_version, Some(8));
        let graph = model.graph.unwrap();
        assert_eq!((graph.name(), graph.initializer.len()), ("graph", 3));
        assert_eq!(graph.initializer[0].raw_data.as_ref().unwrap(), &floats());
        assert_eq!(graph.initializer[1].raw_data.as_ref().unwrap(), &vec![7; 800]);
        let halves = graph.initializer[2].raw_data.as_ref().unwrap();
        assert_eq!(
            (halves.len(), &halves[14..16]),
            (1600, f16::from_f32(1.0).to_le_bytes().as_slice())
        );
    }

    #[test]
    fn large_constants_go_into_a_second_file() {
        let mut out = Vec::new();
        let mut data = Vec::new();
        file().write_external(&mut out, "model.onnx.data", &mut data).unwrap();
        let graph = ModelProto::decode(out.as_slice()).unwrap().graph.unwrap();
        let [floats_at, bytes, halves] = graph.initializer.as_slice() else {
            panic!("three constants")
        };
        assert_eq!(bytes.raw_data.as_ref().unwrap().len(), 800);
        assert!(
            floats_at.raw_data.is_none()
                && halves.data_location == Some(DataLocation::External.into())
        );
        let values: Vec<&str> =
            halves.external_data.iter().map(StringStringEntryProto::value).collect();
        assert_eq!(values, ["model.onnx.data", "4096", "1600"]);
        assert_eq!(data[..3200], floats());
        assert_eq!(data.len(), 4096 + 1600);
    }
}
