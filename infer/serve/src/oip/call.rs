//! What a request asks of a model, and what it gets.

use std::sync::Arc;

use bytes::Bytes;

use super::{Datatype, Named, Tensor};
use crate::admission::Share;
use crate::engine::Times;
use crate::models::Served;
use crate::{Admitted, Labelled, Service, ServiceError};
use protoseg_infer::upsample::Wanted;

/// Most pictures of one request.
const MOST_PICTURES: usize = 256;

/// A tensor that comes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Train ids `[n, height, width]`.
    Labels,
    /// Largest softmax in steps of 1/255, `[n, height, width]`.
    Confidence,
    /// Scores before upsampling, `[n, classes, h, w]`.
    Logits,
}

impl Output {
    /// Those of a model, in order.
    pub fn of(served: &Served) -> Vec<Self> {
        let there = [true, served.gives_confidence, served.gives_scores];
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
pub enum Pictures {
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
pub struct Call {
    /// Its pictures.
    pub pictures: Pictures,
    /// What is to come out, in order.
    pub outputs: Vec<Output>,
}

impl Call {
    /// Makes sense of a request's tensors.
    pub fn new(named: &Named, inputs: Vec<Tensor>, outputs: Option<Vec<String>>) -> Result<Self, ServiceError> {
        let outputs = Self::outputs(&named.served, outputs)?;
        let [input] = <[Tensor; 1]>::try_from(inputs).map_err(|inputs| {
            ServiceError::invalid(format!("one input, `image`, is expected, and {} came", inputs.len()))
        })?;
        let Tensor { name, datatype, shape, .. } = &input;
        let expected = if named.encoded { Datatype::Bytes } else { Datatype::Uint8 };
        if name != "image" {
            return Err(ServiceError::invalid(format!("there is no input `{name}`; the input is called `image`")));
        }
        if datatype != expected.name() {
            let expected = expected.name();
            return Err(ServiceError::invalid(format!("the input `image` is of type {expected}, and {datatype} came")));
        }
        let (sides, _) = input.dimensions()?;
        let pictures = match (named.encoded, &sides[..]) {
            (true, &[count]) => {
                few(count)?;
                Pictures::Encoded(input.elements()?)
            }
            (false, &[count, height, width, 3]) => {
                few(count)?;
                Self::pixels(&named.served, count, [height, width], input)?
            }
            (true, _) => return Err(ServiceError::invalid(format!("`image` is [n], and {shape:?} came"))),
            (false, _) => {
                return Err(ServiceError::invalid(format!("`image` is [n, height, width, 3], and {shape:?} came")));
            }
        };
        Ok(Self { pictures, outputs })
    }

    /// The request whose whole body is one picture: a file, or pixels of a model whose pictures are all of one size.
    pub fn raw(named: &Named, body: Bytes) -> Result<Self, ServiceError> {
        let outputs = Self::outputs(&named.served, None)?;
        if named.encoded {
            return Ok(Self { pictures: Pictures::Encoded(vec![body]), outputs });
        }
        let sizes = &named.served.raw_sizes;
        let size = sizes.iter().find(|[height, width]| height * width * 3 == body.len());
        let Some(&size) = size else {
            let (name, found) = (named.name(), body.len());
            let known = sizes.iter().map(|[height, width]| format!("{height}x{width}")).collect::<Vec<_>>();
            let known = if known.is_empty() { "of no fixed size".to_owned() } else { known.join(" or ") };
            return Err(ServiceError::invalid(format!(
                "a body of pixels alone does not say its shape: pictures of {name} are {known}, and {found} bytes came; \
                 name the shape, or send a picture file to {}.encoded",
                named.served.name
            )));
        };
        Ok(Self { pictures: Pictures::Pixels { count: 1, size, bytes: body }, outputs })
    }

    fn pixels(served: &Served, count: usize, size: [usize; 2], input: Tensor) -> Result<Pictures, ServiceError> {
        let super::Content::Raw(bytes) = input.content else {
            return Err(ServiceError::invalid("the elements of `image` are numbers from 0 to 255"));
        };
        let expected = size[0] * size[1] * 3 * count;
        if bytes.len() != expected {
            let found = bytes.len();
            let why = format!("`image` of shape {:?} has {expected} bytes, and {found} came", input.shape);
            return Err(ServiceError::invalid(why));
        }
        if let Some([height, width]) = served.only_size().filter(|only| *only != size) {
            let why = format!("the model takes pictures of {height}x{width} pixels (height x width) and no others");
            return Err(ServiceError::invalid(why));
        }
        Ok(Pictures::Pixels { count, size, bytes })
    }

    fn outputs(served: &Served, asked: Option<Vec<String>>) -> Result<Vec<Output>, ServiceError> {
        let all = Output::of(served);
        let Some(asked) = asked.filter(|asked| !asked.is_empty()) else { return Ok(all) };
        let find = |name: &String| {
            all.iter().copied().find(|output| output.name() == name).ok_or_else(|| {
                let known = all.iter().map(|output| output.name()).collect::<Vec<_>>().join(", ");
                ServiceError::invalid(format!("there is no output `{name}`; there are: {known}"))
            })
        };
        let mut outputs = Vec::new();
        for output in asked.iter().map(find) {
            let output = output?;
            if outputs.contains(&output) {
                return Err(ServiceError::invalid(format!("the output `{}` is asked for twice", output.name())));
            }
            outputs.push(output);
        }
        Ok(outputs)
    }
}

fn few(count: usize) -> Result<(), ServiceError> {
    if (1..=MOST_PICTURES).contains(&count) {
        return Ok(());
    }
    Err(ServiceError::invalid(format!("{count} pictures came; a request has from 1 to {MOST_PICTURES}")))
}

/// A tensor of an answer.
#[derive(Debug)]
pub struct Given {
    /// Which.
    pub output: Output,
    /// Its dimensions.
    pub shape: Vec<i64>,
    /// Its bytes, row by row, smallest first.
    pub bytes: Vec<u8>,
}

/// What a request gets.
#[derive(Debug)]
pub struct Answer {
    /// The tensors, in the order in which they were asked for.
    pub outputs: Vec<Given>,
    /// Where time went, of the picture that took longest.
    pub times: Times,
    /// What must be kept until the answer has been sent.
    pub shares: Vec<Share>,
}

/// Does what a request asks.
pub async fn run(service: &Arc<Service>, served: &Arc<Served>, call: Call) -> Result<Answer, ServiceError> {
    let wanted = Wanted { confidence: call.outputs.contains(&Output::Confidence), margin: false };
    let scores = call.outputs.contains(&Output::Logits);
    let admitted = admit(service, served, call.pictures).await?;
    let labels = admitted.into_iter().map(|admitted| service.label(served, admitted, wanted, scores));
    let labelled = futures_util::future::try_join_all(labels).await?;
    let outputs = call.outputs;
    service.work(move || Ok(answer(&outputs, labelled))).await
}

/// The pictures of a request, all or none.
async fn admit(
    service: &Arc<Service>,
    served: &Arc<Served>,
    pictures: Pictures,
) -> Result<Vec<Admitted>, ServiceError> {
    match pictures {
        Pictures::Pixels { count, size, bytes } => {
            let (sum, limit) = ((size[0] * size[1]).saturating_mul(count) as u64, service.limits.queue_pixels);
            if sum > limit {
                let why =
                    format!("the request has {sum} pixels, more than the {limit} that the server holds; send fewer");
                return Err(ServiceError::TooLarge(why));
            }
            let shares = (0..count).map(|_| service.admit(served, size)).collect::<Result<Vec<_>, _>>()?;
            let one = size[0] * size[1] * 3;
            let picture = |(index, share): (usize, Share)| {
                let pixels = bytes.slice(index * one..(index + 1) * one);
                service.picture_of(pixels.into(), size, share)
            };
            shares.into_iter().enumerate().map(picture).collect()
        }
        Pictures::Encoded(files) => {
            let mut admitted: Vec<Admitted> = Vec::new();
            for file in files {
                let next = service.decode(served, file).await?;
                if let Some(first) = admitted.first().filter(|first| first.size() != next.size()) {
                    let [one, other] = [first.size(), next.size()].map(|[height, width]| format!("{height}x{width}"));
                    return Err(ServiceError::invalid(format!(
                        "the pictures of a request are of one size, and these are {one} and {other}; send them one by one"
                    )));
                }
                admitted.push(next);
            }
            Ok(admitted)
        }
    }
}

fn answer(outputs: &[Output], labelled: Vec<Labelled>) -> Answer {
    let side = |side: usize| i64::try_from(side).unwrap_or(i64::MAX);
    let count = labelled.len();
    let mut given: Vec<Given> =
        outputs.iter().map(|&output| Given { output, shape: Vec::new(), bytes: Vec::new() }).collect();
    let (mut shares, mut times) = (Vec::new(), Times::default());
    for labelled in labelled {
        let (_, made, share) = labelled.into_parts();
        shares.push(share);
        if made.times.queue + made.times.run > times.queue + times.run {
            times = made.times;
        }
        let size = [made.decided.height, made.decided.width];
        let (mut labels, mut confidence) = (Some(made.decided.labels), made.decided.confidence);
        for Given { output, shape, bytes } in &mut given {
            let (sides, found) = match output {
                Output::Labels => (size.to_vec(), labels.take().unwrap_or_default()),
                Output::Confidence => (size.to_vec(), confidence.take().unwrap_or_default()),
                Output::Logits => match &made.scores {
                    Some(map) => {
                        let bytes = map.data.iter().flat_map(|score| score.to_le_bytes()).collect();
                        (vec![map.classes, map.height, map.width], bytes)
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
    Answer { outputs: given, times, shares }
}
