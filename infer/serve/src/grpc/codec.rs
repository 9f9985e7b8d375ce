//! Messages and their bytes. What a message takes in memory once it is read has a bound: an empty tensor is two bytes on the
//! wire, and a hundred times as many here.

use std::marker::PhantomData;

use prost::Message;
use prost::bytes::Buf;
use prost::encoding::{WireType, decode_key, decode_varint};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// Most fields of a message, those of the messages in it counted; a request with as many pictures as are allowed has fewer.
const MOST_FIELDS: usize = 4096;

/// Most numbers of a message, each of one byte or more on the wire and of four or eight here.
const MOST_NUMBERS: usize = 16 << 20;

/// Reads and writes messages; the service made of the .proto file uses it for all of them.
#[derive(Debug)]
pub(super) struct BoundedCodec<T, U>(PhantomData<fn(T) -> U>);

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

/// Reads or writes messages of one kind.
#[derive(Debug)]
pub(super) struct BoundedCoder<T>(PhantomData<fn() -> T>);

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
            |why: String| Status::invalid_argument(format!("the message cannot be read: {why}"));
        let mut counts = MessageLimits { fields: MOST_FIELDS, numbers: MOST_NUMBERS };
        // It lies in one piece.
        counts.walk(buffer.chunk(), MessageKind::Request).map_err(refused)?;
        T::decode(buffer).map(Some).map_err(|error| refused(error.to_string()))
    }
}

/// Messages that hold others or many numbers. Requests of other kinds than this have none of either.
#[derive(Clone, Copy)]
enum MessageKind {
    Request,
    Input,
    Contents,
    Other,
}

/// What a message may still have.
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
                .ok_or_else(|| format!("more than {MOST_FIELDS} fields"))?;
            let length = match wire {
                WireType::Varint => decode_varint(&mut message).map(|_| 0),
                WireType::ThirtyTwoBit => Ok(4),
                WireType::SixtyFourBit => Ok(8),
                WireType::LengthDelimited => decode_varint(&mut message),
                WireType::StartGroup | WireType::EndGroup => return Err("it has groups".to_owned()),
            };
            let length = length.map_err(|error| error.to_string())?;
            let length = usize::try_from(length).ok().filter(|&length| length <= message.len());
            let (field, rest) = message.split_at(length.ok_or("it breaks off")?);
            message = rest;
            match (kind, tag) {
                _ if wire != WireType::LengthDelimited => {}
                (MessageKind::Request, 5) => self.walk(field, MessageKind::Input)?,
                (MessageKind::Request, 6) => self.walk(field, MessageKind::Other)?,
                (MessageKind::Input, 5) => self.walk(field, MessageKind::Contents)?,
                (MessageKind::Input, 3) | (MessageKind::Contents, 4) => {
                    self.numbers = self.numbers.checked_sub(field.len()).ok_or_else(|| {
                        format!(
                            "more than {MOST_NUMBERS} numbers; send pixels as raw_input_contents"
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
    use super::super::pb::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
    use super::super::pb::{InferTensorContents, ModelInferRequest};
    use super::*;

    fn walk(message: &[u8]) -> Result<(), String> {
        MessageLimits { fields: MOST_FIELDS, numbers: MOST_NUMBERS }
            .walk(message, MessageKind::Request)
    }

    #[test]
    fn what_would_take_much_memory_is_refused_before() {
        let input = |uint_contents, bytes_contents| InferInputTensor {
            contents: Some(InferTensorContents { uint_contents, bytes_contents }),
            shape: vec![1, 2, 3],
            ..InferInputTensor::default()
        };
        let request =
            |inputs, outputs| ModelInferRequest { inputs, outputs, ..ModelInferRequest::default() };
        // 255 has two bytes there, the numbers of the shape one each.
        let fits = [
            request(vec![input(vec![255; MOST_NUMBERS / 2 - 2], Vec::new())], Vec::new()),
            request(vec![input(Vec::new(), vec![vec![1; 100].into(); 256])], Vec::new()),
        ];
        for request in fits {
            walk(&request.encode_to_vec()).unwrap();
        }
        let too_much = [
            (
                request(vec![input(vec![255; MOST_NUMBERS / 2 - 1], Vec::new())], Vec::new()),
                "numbers",
            ),
            (
                request(
                    vec![InferInputTensor {
                        shape: vec![1; MOST_NUMBERS + 1],
                        ..Default::default()
                    }],
                    vec![],
                ),
                "numbers",
            ),
            (request(vec![InferInputTensor::default(); MOST_FIELDS + 1], Vec::new()), "fields"),
            (
                request(vec![input(Vec::new(), vec![Vec::new().into(); MOST_FIELDS])], Vec::new()),
                "fields",
            ),
            (
                request(Vec::new(), vec![InferRequestedOutputTensor::default(); MOST_FIELDS + 1]),
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
