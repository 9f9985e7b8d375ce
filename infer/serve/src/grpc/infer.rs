//! The call that labels: tensors out of its message, and an answer of bytes.

use protoseg_infer::Stage;
use std::sync::Arc;

use axum::http::HeaderMap;
use bytes::Bytes;
use tonic::Response;
use tonic::metadata::MetadataMap;

use super::guard::CallContext;
use super::pb::model_infer_request::InferInputTensor;
use super::pb::model_infer_response::InferOutputTensor;
use super::pb::{InferTensorContents, ModelInferRequest, ModelInferResponse};
use crate::budget;
use crate::http::add_timing_headers;
use crate::oip::{Datatype, InferRequest, InferResponse, InputTensor, ModelRef, TensorData, run};
use crate::{Service, ServiceError};

pub(super) async fn infer(
    service: &Arc<Service>,
    request: ModelInferRequest,
    ledger: &CallContext,
) -> Result<Response<ModelInferResponse>, ServiceError> {
    let arrived = ledger.age();
    let ModelInferRequest { model_name, model_version, id, inputs, outputs, raw_input_contents } =
        request;
    let named =
        ModelRef::find(&service.models, &model_name, super::calls::version(&model_version))?;
    ledger.of_model(&named.served.name);
    named.served.metrics.record_stage(Stage::Read, arrived);
    let inputs = tensors(inputs, raw_input_contents)?;
    let outputs = outputs.into_iter().map(|output| output.name).collect();
    let call = InferRequest::new(&named, inputs, Some(outputs))?;
    let InferResponse { outputs, times, shares } = run(service, &named.served, call).await?;
    ledger.release();
    ledger
        .keep(budget::shrink_permits(shares, outputs.iter().map(|given| given.bytes.len()).sum()));
    let mut answer = ModelInferResponse {
        model_name,
        model_version: named.served.version.clone(),
        id,
        outputs: Vec::new(),
        raw_output_contents: Vec::new(),
    };
    for given in outputs {
        let (name, datatype) =
            (given.output.name().to_owned(), given.output.datatype().name().to_owned());
        answer.outputs.push(InferOutputTensor { name, datatype, shape: given.shape });
        answer.raw_output_contents.push(given.bytes.into());
    }
    let mut headers = HeaderMap::new();
    add_timing_headers(&mut headers, times);
    Ok(Response::from_parts(
        MetadataMap::from_headers(headers),
        answer,
        axum::http::Extensions::default(),
    ))
}

/// The tensors of a request, whose elements all lie beside them, or each in its own tensor.
fn tensors(
    inputs: Vec<InferInputTensor>,
    raw: Vec<Bytes>,
) -> Result<Vec<InputTensor>, ServiceError> {
    if raw.is_empty() {
        let tensor = |InferInputTensor { name, datatype, shape, contents }| {
            let content = typed(&name, &datatype, contents)?;
            Ok(InputTensor { name, datatype, shape, content })
        };
        return inputs.into_iter().map(tensor).collect();
    }
    if raw.len() != inputs.len() {
        let (raw, inputs) = (raw.len(), inputs.len());
        let why =
            format!("there are {raw} raw_input_contents for {inputs} inputs; each input has one");
        return Err(ServiceError::bad_request(why));
    }
    let tensor = |(input, bytes): (InferInputTensor, Bytes)| {
        let InferInputTensor { name, datatype, shape, contents } = input;
        if contents.is_some_and(|contents| contents != InferTensorContents::default()) {
            return Err(ServiceError::bad_request(format!(
                "the input `{name}` has contents and raw_input_contents"
            )));
        }
        Ok(InputTensor { name, datatype, shape, content: TensorData::Raw(bytes) })
    };
    inputs.into_iter().zip(raw).map(tensor).collect()
}

fn typed(
    name: &str,
    datatype: &str,
    contents: Option<InferTensorContents>,
) -> Result<TensorData, ServiceError> {
    let InferTensorContents { uint_contents, bytes_contents } = contents.unwrap_or_default();
    match (uint_contents.is_empty(), bytes_contents.is_empty()) {
        (false, true) if datatype == Datatype::Uint8.name() => {
            let bytes = uint_contents.into_iter().map(u8::try_from).collect::<Result<Vec<_>, _>>();
            let bytes = bytes.map_err(|_| {
                ServiceError::bad_request(format!(
                    "the elements of the input `{name}` are numbers from 0 to 255"
                ))
            })?;
            Ok(TensorData::Raw(bytes.into()))
        }
        (true, false) if datatype == Datatype::Bytes.name() => {
            Ok(TensorData::Elements(bytes_contents))
        }
        (true, true) => Err(ServiceError::bad_request(format!(
            "the input `{name}` has no elements; they stand in raw_input_contents, or in its uint_contents (of UINT8) or \
             bytes_contents (of BYTES)"
        ))),
        _ => Err(ServiceError::bad_request(format!(
            "the input `{name}` is of type {datatype}, and its contents are of another; those of UINT8 stand in \
             uint_contents, those of BYTES in bytes_contents"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(
        datatype: &str,
        uint_contents: &[u32],
        bytes_contents: &[&'static [u8]],
    ) -> InferInputTensor {
        let bytes_contents = bytes_contents.iter().map(|bytes| Bytes::from_static(bytes)).collect();
        let contents =
            InferTensorContents { uint_contents: uint_contents.to_vec(), bytes_contents };
        InferInputTensor {
            name: "image".to_owned(),
            datatype: datatype.to_owned(),
            shape: vec![2],
            contents: Some(contents),
        }
    }

    #[test]
    fn elements_stand_in_one_place_and_have_their_type() {
        let content = |input, raw: &[&'static [u8]]| {
            let raw = raw.iter().map(|bytes| Bytes::from_static(bytes)).collect();
            tensors(vec![input], raw).map(|mut tensors| tensors.remove(0).content)
        };
        let (one, two): (&'static [u8], &'static [u8]) = (&[7, 255], b"ab");
        assert_eq!(
            content(input("UINT8", &[7, 255], &[]), &[]).unwrap(),
            TensorData::Raw(one.into())
        );
        assert_eq!(content(input("UINT8", &[], &[]), &[one]).unwrap(), TensorData::Raw(one.into()));
        let elements = vec![Bytes::from_static(two), Bytes::new()];
        assert_eq!(
            content(input("BYTES", &[], &[two, b""]), &[]).unwrap(),
            TensorData::Elements(elements)
        );
        let nothing = InferInputTensor { contents: None, ..input("UINT8", &[], &[]) };
        for (input, raw, why) in [
            (nothing, vec![], "no elements"),
            (input("UINT8", &[], &[]), vec![], "no elements"),
            (input("UINT8", &[256], &[]), vec![], "from 0 to 255"),
            (input("UINT8", &[], &[two]), vec![], "of another"),
            (input("BYTES", &[1], &[]), vec![], "of another"),
            (input("UINT8", &[1], &[two]), vec![], "of another"),
            (input("UINT8", &[1], &[]), vec![one], "contents and raw_input_contents"),
            (input("UINT8", &[], &[]), vec![one, two], "2 raw_input_contents for 1 inputs"),
        ] {
            let error = content(input, &raw).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
