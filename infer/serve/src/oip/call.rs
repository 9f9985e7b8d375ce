//! Inference requests and responses of the protocol.

use std::sync::Arc;

use bytes::Bytes;
use protoseg_infer::upsample::into_vec;
use protoseg_infer::{Outputs, Prediction, Stage, StageTimes};

use super::{BYTES, FP32, InputTensor, ModelRef, TensorData, UINT8};
use crate::budget::Permit;
use crate::error::{bad_request, too_large};
use crate::registry::LoadedModel;
use crate::{AdmittedImage, LabeledImage, Service, ServiceError};

/// Images of one request.
const MAX_IMAGES: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputKind {
    /// Train ids `[n, height, width]`.
    Labels,
    /// Largest softmax in steps of 1/255, `[n, height, width]`.
    Confidence,
    /// Logits before upsampling, `[n, classes, h, w]`.
    Logits,
}

impl OutputKind {
    /// Returns the outputs of a model, in order.
    pub fn available(model: &LoadedModel) -> Vec<Self> {
        let all = [
            (Self::Labels, true),
            (Self::Confidence, model.gives_confidence),
            (Self::Logits, model.gives_logits),
        ];
        all.into_iter().filter_map(|(output, given)| given.then_some(output)).collect()
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Labels => "labels",
            Self::Confidence => "confidence",
            Self::Logits => "logits",
        }
    }

    pub fn datatype(self) -> &'static str {
        match self {
            Self::Labels | Self::Confidence => UINT8,
            Self::Logits => FP32,
        }
    }
}

#[derive(Debug)]
pub enum InputImages {
    /// RGB `[count, height, width, 3]`.
    Pixels { count: usize, size: [usize; 2], bytes: Bytes },
    /// Image files.
    Encoded(Vec<Bytes>),
}

#[derive(Debug)]
pub struct InferRequest {
    pub images: InputImages,
    pub outputs: Vec<OutputKind>,
}

impl InferRequest {
    /// Validates the tensors of a request, and the names of the outputs that it asks for; none
    /// means all.
    pub fn new(
        target: &ModelRef,
        inputs: Vec<InputTensor>,
        outputs: Vec<String>,
    ) -> Result<Self, ServiceError> {
        let outputs = select_outputs(&target.model, outputs)?;
        let [input] = <[InputTensor; 1]>::try_from(inputs).map_err(|inputs| {
            bad_request(format!("expected one input, `image`, and got {}", inputs.len()))
        })?;
        let InputTensor { name, datatype, shape, .. } = &input;
        let expected = if target.encoded { BYTES } else { UINT8 };
        if name != "image" {
            return Err(bad_request(format!("no input `{name}`; the input is called `image`")));
        }
        if datatype != expected {
            return Err(bad_request(format!(
                "the input `image` is of type {expected}, and the request has {datatype}"
            )));
        }
        let (sides, _) = input.dimensions()?;
        let images = match (target.encoded, &sides[..]) {
            (true, &[count]) => {
                check_count(count)?;
                InputImages::Encoded(input.elements()?)
            }
            (false, &[count, height, width, 3]) => {
                check_count(count)?;
                pixel_images(&target.model, count, [height, width], input)?
            }
            (encoded, _) => {
                let expected = if encoded { "[n]" } else { "[n, height, width, 3]" };
                return Err(bad_request(format!(
                    "the shape of `image` is {expected}, and the request has {shape:?}"
                )));
            }
        };
        Ok(Self { images, outputs })
    }

    /// Takes a body that is one image: a file, or pixels for a model whose image size is fixed.
    pub fn raw(target: &ModelRef, body: Bytes) -> Result<Self, ServiceError> {
        let outputs = OutputKind::available(&target.model);
        if target.encoded {
            return Ok(Self { images: InputImages::Encoded(vec![body]), outputs });
        }
        let sizes = &target.model.raw_sizes;
        let size = sizes.iter().find(|[height, width]| height * width * 3 == body.len());
        if let Some(&size) = size {
            let images = InputImages::Pixels { count: 1, size, bytes: body };
            return Ok(Self { images, outputs });
        }
        let known = sizes.iter().map(|[height, width]| format!("{height}x{width}"));
        let known = known.collect::<Vec<_>>().join(" or ");
        let known = if known.is_empty() { "of no fixed size" } else { &known };
        Err(bad_request(format!(
            "a body of pixels alone does not say its shape: images of {} are {known}, and the body has {} bytes; \
             name the shape, or send an image file to {}.encoded",
            target.name(),
            body.len(),
            target.model.name
        )))
    }
}

fn pixel_images(
    model: &LoadedModel,
    count: usize,
    size: [usize; 2],
    input: InputTensor,
) -> Result<InputImages, ServiceError> {
    let TensorData::Raw(bytes) = input.content else {
        return Err(bad_request("the elements of `image` are numbers from 0 to 255"));
    };
    let expected = size[0] * size[1] * 3 * count;
    if bytes.len() != expected {
        return Err(bad_request(format!(
            "`image` of shape {:?} has {expected} bytes, and the request has {}",
            input.shape,
            bytes.len()
        )));
    }
    if let Some([height, width]) = model.only_size.filter(|only| *only != size) {
        return Err(bad_request(format!(
            "the model takes images of {height}x{width} pixels (height x width) and no others"
        )));
    }
    Ok(InputImages::Pixels { count, size, bytes })
}

fn select_outputs(
    model: &LoadedModel,
    names: Vec<String>,
) -> Result<Vec<OutputKind>, ServiceError> {
    let all = OutputKind::available(model);
    if names.is_empty() {
        return Ok(all);
    }
    let mut outputs = Vec::new();
    for name in names {
        let Some(&output) = all.iter().find(|output| output.name() == name) else {
            let known = all.iter().map(|output| output.name()).collect::<Vec<_>>().join(", ");
            return Err(bad_request(format!("no output `{name}`; there are: {known}")));
        };
        if outputs.contains(&output) {
            return Err(bad_request(format!("the output `{name}` is asked for twice")));
        }
        outputs.push(output);
    }
    Ok(outputs)
}

fn check_count(count: usize) -> Result<(), ServiceError> {
    if !(1..=MAX_IMAGES).contains(&count) {
        let why = format!("the request has {count} images; it may have from 1 to {MAX_IMAGES}");
        return Err(bad_request(why));
    }
    Ok(())
}

#[derive(Debug)]
pub struct OutputTensor {
    pub output: OutputKind,
    pub shape: Vec<i64>,
    /// Row-major, little-endian.
    pub bytes: Vec<u8>,
}

#[derive(Debug)]
pub struct InferResponse {
    /// In the order in which they were asked for.
    pub outputs: Vec<OutputTensor>,
    /// Of the image that took longest.
    pub times: StageTimes,
    /// To be kept until the response is sent.
    pub permits: Vec<Permit>,
}

/// Runs a request: all of its images, or none.
pub async fn run(
    service: &Arc<Service>,
    model: &Arc<LoadedModel>,
    request: InferRequest,
) -> Result<InferResponse, ServiceError> {
    let InferRequest { images, outputs } = request;
    let wanted = Outputs {
        confidence: outputs.contains(&OutputKind::Confidence),
        logits: outputs.contains(&OutputKind::Logits),
        ..Outputs::default()
    };
    let admitted = admit(service, model, images).await?;
    let labels = admitted.into_iter().map(|image| service.label(model, image, wanted));
    let labeled = futures_util::future::try_join_all(labels).await?;
    service.run_blocking(move || Ok(collect(&outputs, labeled))).await
}

async fn admit(
    service: &Arc<Service>,
    model: &Arc<LoadedModel>,
    images: InputImages,
) -> Result<Vec<AdmittedImage>, ServiceError> {
    match images {
        InputImages::Pixels { count, size, bytes } => {
            let pixels = (size[0] * size[1]).saturating_mul(count) as u64;
            let limit = service.limits.queue_pixels;
            if pixels > limit {
                return Err(too_large(format!(
                    "the request has {pixels} pixels, more than the {limit} that the server admits; send fewer images"
                )));
            }
            let permits: Vec<Permit> =
                (0..count).map(|_| service.admit(model, size)).collect::<Result<_, _>>()?;
            let image_bytes = size[0] * size[1] * 3;
            let image = |(index, permit): (usize, Permit)| {
                let pixels = bytes.slice(index * image_bytes..(index + 1) * image_bytes);
                AdmittedImage::from_pixels(pixels.into(), size, permit)
            };
            permits.into_iter().enumerate().map(image).collect()
        }
        InputImages::Encoded(files) => {
            let mut admitted: Vec<AdmittedImage> = Vec::new();
            for file in files {
                let next = service.decode(model, file).await?;
                if let Some(first) = admitted.first().filter(|first| first.size() != next.size()) {
                    let [one, other] = [first.size(), next.size()]
                        .map(|[height, width]| format!("{height}x{width}"));
                    return Err(bad_request(format!(
                        "the images of a request have one size, and these are {one} and {other}; send them one by one"
                    )));
                }
                admitted.push(next);
            }
            Ok(admitted)
        }
    }
}

/// Concatenates the predictions along the batch dimension.
fn collect(outputs: &[OutputKind], labeled: Vec<LabeledImage>) -> InferResponse {
    let count = labeled.len();
    let mut tensors: Vec<OutputTensor> = outputs
        .iter()
        .map(|&output| OutputTensor { output, shape: Vec::new(), bytes: Vec::new() })
        .collect();
    let mut permits = Vec::new();
    let mut times = StageTimes::default();
    let until_stitched = |times: &StageTimes| times[Stage::Queue] + times.run();
    for LabeledImage { response, permit, .. } in labeled {
        permits.push(permit);
        if until_stitched(&response.times) > until_stitched(&times) {
            times = response.times;
        }
        let Prediction { labels, confidence, logits, .. } = response.prediction;
        let (height, width) = labels.dim();
        let size = vec![height, width];
        let mut labels = into_vec(labels);
        let mut confidence = confidence.map(into_vec).unwrap_or_default();
        for OutputTensor { output, shape, bytes } in &mut tensors {
            let (sides, data) = match (*output, &logits) {
                (OutputKind::Labels, _) => (size.clone(), std::mem::take(&mut labels)),
                (OutputKind::Confidence, _) => (size.clone(), std::mem::take(&mut confidence)),
                (OutputKind::Logits, Some(logits)) => {
                    let data = logits.iter().flat_map(|logit| logit.to_le_bytes()).collect();
                    (logits.shape().to_vec(), data)
                }
                (OutputKind::Logits, None) => (Vec::new(), Vec::new()),
            };
            let side = |side: usize| i64::try_from(side).unwrap_or(i64::MAX);
            *shape = std::iter::once(count).chain(sides).map(side).collect();
            append(bytes, data);
        }
    }
    InferResponse { outputs: tensors, times, permits }
}

/// Appends without a copy where nothing was there.
pub(crate) fn append(bytes: &mut Vec<u8>, more: Vec<u8>) {
    if bytes.is_empty() {
        *bytes = more;
    } else {
        bytes.extend_from_slice(&more);
    }
}
