//! Protobuf codec that bounds the memory of a message before decoding it, which prost does not: an
//! empty tensor is 2 bytes on the wire and 200 here.

use std::marker::PhantomData;

use prost::Message;
use prost::bytes::Buf;
use prost::encoding::{WireType, decode_key, decode_varint};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// Fields of a message and its nested messages; a request with all images that it may have has fewer.
const MAX_FIELDS: usize = 4096;

/// Numbers of a message, each one byte or more on the wire and four or eight here.
const MAX_NUMBERS: usize = 16 << 20;

/// Codec of all messages of the generated service.
#[derive(Debug)]
pub(crate) struct BoundedCodec<T, U>(PhantomData<fn(T) -> U>);

impl<T, U> Default for BoundedCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: Message + Default + 'static, U: Message + Default + 'static> Codec for BoundedCodec<T, U> {
    type Encode = T;
    type Decode = U;
    type Encoder = BoundedCoder<T>;
    type Decoder = BoundedCoder<U>;

    fn encoder(&mut self) -> BoundedCoder<T> {
        BoundedCoder(PhantomData)
    }

    fn decoder(&mut self) -> BoundedCoder<U> {
        BoundedCoder(PhantomData)
    }
}

#[derive(Debug)]
pub(crate) struct BoundedCoder<T>(PhantomData<fn() -> T>);

impl<T: Message> Encoder for BoundedCoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, message: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(message.encoded_len());
        message.encode(buffer).map_err(|error| Status::internal(error.to_string()))
    }
}

impl<T: Message + Default> Decoder for BoundedCoder<T> {
    type Item = T;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<T>, Status> {
        let refused =
            |why: String| Status::invalid_argument(format!("cannot decode the message: {why}"));
        let mut limits = MessageLimits { fields: MAX_FIELDS, numbers: MAX_NUMBERS };
        // tonic hands a message over in one chunk.
        limits.walk(buffer.chunk(), MessageKind::Request).map_err(refused)?;
        T::decode(buffer).map(Some).map_err(|error| refused(error.to_string()))
    }
}

/// Messages that hold others or many numbers; those of other calls hold neither.
#[derive(Clone, Copy)]
enum MessageKind {
    Request,
    Input,
    Contents,
    Other,
}

/// Budget left for the rest of a message.
struct MessageLimits {
    fields: usize,
    numbers: usize,
}

impl MessageLimits {
    fn walk(&mut self, mut message: &[u8], kind: MessageKind) -> Result<(), String> {
        while !message.is_empty() {
            let (tag, wire) = decode_key(&mut message).map_err(|error| error.to_string())?;
            self.fields = self
                .fields
                .checked_sub(1)
                .ok_or_else(|| format!("more than {MAX_FIELDS} fields"))?;
            let length = match wire {
                WireType::Varint => decode_varint(&mut message).map(|_| 0),
                WireType::ThirtyTwoBit => Ok(4),
                WireType::SixtyFourBit => Ok(8),
                WireType::LengthDelimited => decode_varint(&mut message),
                WireType::StartGroup | WireType::EndGroup => {
                    return Err("groups are unsupported".to_owned());
                }
            };
            let length = length.map_err(|error| error.to_string())?;
            let length = usize::try_from(length).ok().filter(|&length| length <= message.len());
            let (field, rest) = message.split_at(length.ok_or("unexpected end")?);
            message = rest;
            match (kind, tag) {
                _ if wire != WireType::LengthDelimited => {}
                (MessageKind::Request, 5) => self.walk(field, MessageKind::Input)?,
                (MessageKind::Request, 6) => self.walk(field, MessageKind::Other)?,
                (MessageKind::Input, 5) => self.walk(field, MessageKind::Contents)?,
                (MessageKind::Input, 3) | (MessageKind::Contents, 4) => {
                    self.numbers = self.numbers.checked_sub(field.len()).ok_or_else(|| {
                        format!(
                            "more than {MAX_NUMBERS} numbers; send pixels as raw_input_contents"
                        )
                    })?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oip::pb::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
    use crate::oip::pb::{InferTensorContents, ModelInferRequest};

    fn walk(message: &[u8]) -> Result<(), String> {
        MessageLimits { fields: MAX_FIELDS, numbers: MAX_NUMBERS }
            .walk(message, MessageKind::Request)
    }

    #[test]
    fn messages_that_would_take_much_memory_are_refused() {
        let input = |uint_contents, bytes_contents| InferInputTensor {
            contents: Some(InferTensorContents { uint_contents, bytes_contents }),
            shape: vec![1, 2, 3],
            ..InferInputTensor::default()
        };
        let request =
            |inputs, outputs| ModelInferRequest { inputs, outputs, ..ModelInferRequest::default() };
        // 255 takes two bytes on the wire, the sides of the shape one each.
        let fits = [
            request(vec![input(vec![255; MAX_NUMBERS / 2 - 2], Vec::new())], Vec::new()),
            request(vec![input(Vec::new(), vec![vec![1; 100].into(); 256])], Vec::new()),
        ];
        for request in fits {
            walk(&request.encode_to_vec()).unwrap();
        }
        let too_much = [
            (
                request(vec![input(vec![255; MAX_NUMBERS / 2 - 1], Vec::new())], Vec::new()),
                "numbers",
            ),
            (
                request(
                    vec![InferInputTensor {
                        shape: vec![1; MAX_NUMBERS + 1],
                        ..Default::default()
                    }],
                    vec![],
                ),
                "numbers",
            ),
            (request(vec![InferInputTensor::default(); MAX_FIELDS + 1], Vec::new()), "fields"),
            (
                request(vec![input(Vec::new(), vec![Vec::new().into(); MAX_FIELDS])], Vec::new()),
                "fields",
            ),
            (
                request(Vec::new(), vec![InferRequestedOutputTensor::default(); MAX_FIELDS + 1]),
                "fields",
            ),
        ];
        for (request, what) in too_much {
            let why = walk(&request.encode_to_vec()).unwrap_err();
            assert!(why.contains(what), "{why}");
        }
        for broken in [&[0x2a, 5, 0][..], &[0x2a], &[0x0b], &[0x0d, 1], &[0x80; 11], &[0]] {
            assert!(walk(broken).is_err(), "{broken:?}");
        }
    }
}
