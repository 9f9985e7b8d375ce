//! What a request asks of a model, and what it gets.

use std::sync::Arc;

use bytes::Bytes;

use super::{Datatype, InputTensor, ModelRef};
use crate::budget::Permit;
use crate::registry::LoadedModel;
use crate::{AdmittedImage, LabeledImage, Service, ServiceError};
use protoseg_infer::upsample::into_vec;
use protoseg_infer::{Outputs, Prediction, Stage, StageTimes};

/// Most pictures of one request.
const MOST_PICTURES: usize = 256;

/// A tensor that comes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputKind {
    /// Train ids `[n, height, width]`.
    Labels,
    /// Largest softmax in steps of 1/255, `[n, height, width]`.
    Confidence,
    /// Scores before upsampling, `[n, classes, h, w]`.
    Logits,
}

impl OutputKind {
    /// Those of a model, in order.
    pub fn available(served: &LoadedModel) -> Vec<Self> {
        let there = [true, served.gives_confidence, served.gives_logits];
        let all = [Self::Labels, Self::Confidence, Self::Logits];
        all.into_iter().zip(there).filter_map(|(output, there)| there.then_some(output)).collect()
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Labels => "labels",
            Self::Confidence => "confidence",
            Self::Logits => "logits",
        }
    }

    /// Its type.
    pub fn datatype(self) -> Datatype {
        match self {
            Self::Labels | Self::Confidence => Datatype::Uint8,
            Self::Logits => Datatype::Fp32,
        }
    }
}

/// The pictures of a request.
#[derive(Debug)]
pub enum InputImages {
    /// Pixels RGB `[count, height, width, 3]`.
    Pixels {
        /// How many pictures.
        count: usize,
        /// Height and width.
        size: [usize; 2],
        /// Their bytes.
        bytes: Bytes,
    },
    /// Picture files.
    Encoded(Vec<Bytes>),
}

/// What a request asks.
#[derive(Debug)]
pub struct InferRequest {
    /// Its pictures.
    pub pictures: InputImages,
    /// What is to come out, in order.
    pub outputs: Vec<OutputKind>,
}

impl InferRequest {
    /// Makes sense of a request's tensors.
    pub fn new(
        named: &ModelRef,
        inputs: Vec<InputTensor>,
        outputs: Option<Vec<String>>,
    ) -> Result<Self, ServiceError> {
        let outputs = Self::outputs(&named.served, outputs)?;
        let [input] = <[InputTensor; 1]>::try_from(inputs).map_err(|inputs| {
            ServiceError::bad_request(format!(
                "one input, `image`, is expected, and {} came",
                inputs.len()
            ))
        })?;
        let InputTensor { name, datatype, shape, .. } = &input;
        let expected = if named.encoded { Datatype::Bytes } else { Datatype::Uint8 };
        if name != "image" {
            return Err(ServiceError::bad_request(format!(
                "there is no input `{name}`; the input is called `image`"
            )));
        }
        if datatype != expected.name() {
            let expected = expected.name();
            return Err(ServiceError::bad_request(format!(
                "the input `image` is of type {expected}, and {datatype} came"
            )));
        }
        let (sides, _) = input.dimensions()?;
        let pictures = match (named.encoded, &sides[..]) {
            (true, &[count]) => {
                check_count(count)?;
                InputImages::Encoded(input.elements()?)
            }
            (false, &[count, height, width, 3]) => {
                check_count(count)?;
                Self::pixels(&named.served, count, [height, width], input)?
            }
            (true, _) => {
                return Err(ServiceError::bad_request(format!(
                    "`image` is [n], and {shape:?} came"
                )));
            }
            (false, _) => {
                return Err(ServiceError::bad_request(format!(
                    "`image` is [n, height, width, 3], and {shape:?} came"
                )));
            }
        };
        Ok(Self { pictures, outputs })
    }

    /// The request whose whole body is one picture: a file, or pixels of a model whose pictures are all of one size.
    pub fn raw(named: &ModelRef, body: Bytes) -> Result<Self, ServiceError> {
        let outputs = Self::outputs(&named.served, None)?;
        if named.encoded {
            return Ok(Self { pictures: InputImages::Encoded(vec![body]), outputs });
        }
        let sizes = &named.served.raw_sizes;
        let size = sizes.iter().find(|[height, width]| height * width * 3 == body.len());
        let Some(&size) = size else {
            let (name, found) = (named.name(), body.len());
            let known =
                sizes.iter().map(|[height, width]| format!("{height}x{width}")).collect::<Vec<_>>();
            let known =
                if known.is_empty() { "of no fixed size".to_owned() } else { known.join(" or ") };
            return Err(ServiceError::bad_request(format!(
                "a body of pixels alone does not say its shape: pictures of {name} are {known}, and {found} bytes came; \
                 name the shape, or send a picture file to {}.encoded",
                named.served.name
            )));
        };
        Ok(Self { pictures: InputImages::Pixels { count: 1, size, bytes: body }, outputs })
    }

    fn pixels(
        served: &LoadedModel,
        count: usize,
        size: [usize; 2],
        input: InputTensor,
    ) -> Result<InputImages, ServiceError> {
        let super::TensorData::Raw(bytes) = input.content else {
            return Err(ServiceError::bad_request(
                "the elements of `image` are numbers from 0 to 255",
            ));
        };
        let expected = size[0] * size[1] * 3 * count;
        if bytes.len() != expected {
            let found = bytes.len();
            let why = format!(
                "`image` of shape {:?} has {expected} bytes, and {found} came",
                input.shape
            );
            return Err(ServiceError::bad_request(why));
        }
        if let Some([height, width]) = served.only_size().filter(|only| *only != size) {
            let why = format!(
                "the model takes pictures of {height}x{width} pixels (height x width) and no others"
            );
            return Err(ServiceError::bad_request(why));
        }
        Ok(InputImages::Pixels { count, size, bytes })
    }

    fn outputs(
        served: &LoadedModel,
        asked: Option<Vec<String>>,
    ) -> Result<Vec<OutputKind>, ServiceError> {
        let all = OutputKind::available(served);
        let Some(asked) = asked.filter(|asked| !asked.is_empty()) else { return Ok(all) };
        let find = |name: &String| {
            all.iter().copied().find(|output| output.name() == name).ok_or_else(|| {
                let known = all.iter().map(|output| output.name()).collect::<Vec<_>>().join(", ");
                ServiceError::bad_request(format!(
                    "there is no output `{name}`; there are: {known}"
                ))
            })
        };
        let mut outputs = Vec::new();
        for output in asked.iter().map(find) {
            let output = output?;
            if outputs.contains(&output) {
                return Err(ServiceError::bad_request(format!(
                    "the output `{}` is asked for twice",
                    output.name()
                )));
            }
            outputs.push(output);
        }
        Ok(outputs)
    }
}

fn check_count(count: usize) -> Result<(), ServiceError> {
    if (1..=MOST_PICTURES).contains(&count) {
        return Ok(());
    }
    Err(ServiceError::bad_request(format!(
        "{count} pictures came; a request has from 1 to {MOST_PICTURES}"
    )))
}

/// A tensor of an answer.
#[derive(Debug)]
pub struct OutputTensor {
    /// Which.
    pub output: OutputKind,
    /// Its dimensions.
    pub shape: Vec<i64>,
    /// Its bytes, row by row, smallest first.
    pub bytes: Vec<u8>,
}

/// What a request gets.
#[derive(Debug)]
pub struct InferResponse {
    /// The tensors, in the order in which they were asked for.
    pub outputs: Vec<OutputTensor>,
    /// Where time went, of the picture that took longest.
    pub times: StageTimes,
    /// What must be kept until the answer has been sent.
    pub shares: Vec<Permit>,
}

/// Does what a request asks.
pub async fn run(
    service: &Arc<Service>,
    served: &Arc<LoadedModel>,
    call: InferRequest,
) -> Result<InferResponse, ServiceError> {
    let wanted = Outputs {
        confidence: call.outputs.contains(&OutputKind::Confidence),
        logits: call.outputs.contains(&OutputKind::Logits),
        ..Outputs::default()
    };
    let admitted = admit(service, served, call.pictures).await?;
    let labels = admitted.into_iter().map(|admitted| service.label(served, admitted, wanted));
    let labelled = futures_util::future::try_join_all(labels).await?;
    let outputs = call.outputs;
    service.work(move || Ok(answer(&outputs, labelled))).await
}

/// The pictures of a request, all or none.
async fn admit(
    service: &Arc<Service>,
    served: &Arc<LoadedModel>,
    pictures: InputImages,
) -> Result<Vec<AdmittedImage>, ServiceError> {
    match pictures {
        InputImages::Pixels { count, size, bytes } => {
            let (sum, limit) =
                ((size[0] * size[1]).saturating_mul(count) as u64, service.limits.queue_pixels);
            if sum > limit {
                let why = format!(
                    "the request has {sum} pixels, more than the {limit} that the server holds; send fewer"
                );
                return Err(ServiceError::PayloadTooLarge(why));
            }
            let shares =
                (0..count).map(|_| service.admit(served, size)).collect::<Result<Vec<_>, _>>()?;
            let one = size[0] * size[1] * 3;
            let picture = |(index, share): (usize, Permit)| {
                let pixels = bytes.slice(index * one..(index + 1) * one);
                service.admitted_image(pixels.into(), size, share)
            };
            shares.into_iter().enumerate().map(picture).collect()
        }
        InputImages::Encoded(files) => {
            let mut admitted: Vec<AdmittedImage> = Vec::new();
            for file in files {
                let next = service.decode(served, file).await?;
                if let Some(first) = admitted.first().filter(|first| first.size() != next.size()) {
                    let [one, other] = [first.size(), next.size()]
                        .map(|[height, width]| format!("{height}x{width}"));
                    return Err(ServiceError::bad_request(format!(
                        "the pictures of a request are of one size, and these are {one} and {other}; send them one by one"
                    )));
                }
                admitted.push(next);
            }
            Ok(admitted)
        }
    }
}

fn answer(outputs: &[OutputKind], labelled: Vec<LabeledImage>) -> InferResponse {
    let side = |side: usize| i64::try_from(side).unwrap_or(i64::MAX);
    let count = labelled.len();
    let mut given: Vec<OutputTensor> = outputs
        .iter()
        .map(|&output| OutputTensor { output, shape: Vec::new(), bytes: Vec::new() })
        .collect();
    let (mut shares, mut times) = (Vec::new(), StageTimes::default());
    for labelled in labelled {
        let (_, made, share) = labelled.into_parts();
        shares.push(share);
        let until_stitched = |times: &StageTimes| times[Stage::Queue] + times.run();
        if until_stitched(&made.times) > until_stitched(&times) {
            times = made.times;
        }
        let Prediction { labels, confidence, logits, .. } = made.prediction;
        let (height, width) = labels.dim();
        let size = [height, width];
        let (mut labels, mut confidence) = (Some(into_vec(labels)), confidence.map(into_vec));
        for OutputTensor { output, shape, bytes } in &mut given {
            let (sides, found) = match output {
                OutputKind::Labels => (size.to_vec(), labels.take().unwrap_or_default()),
                OutputKind::Confidence => (size.to_vec(), confidence.take().unwrap_or_default()),
                OutputKind::Logits => match &logits {
                    Some(logits) => {
                        let bytes = logits.iter().flat_map(|value| value.to_le_bytes()).collect();
                        (logits.shape().to_vec(), bytes)
                    }
                    None => (Vec::new(), Vec::new()),
                },
            };
            *shape = std::iter::once(count).chain(sides).map(side).collect();
            if bytes.is_empty() {
                *bytes = found;
            } else {
                bytes.extend_from_slice(&found);
            }
        }
    }
    InferResponse { outputs: given, times, shares }
}
