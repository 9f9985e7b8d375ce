//! What is read off class scores at a picture's own size: labels, how sure they are, and by how much the best class won.

use std::str::FromStr;

use protoseg_models::bundle::{Dimension, TensorInfo};

use crate::onnx::builder::GraphBuilder;
use crate::onnx::proto::{AttributeProto, DataType};
use crate::onnx::signature;

/// Below every score, so that a class that is set aside never wins.
const SET_ASIDE: f32 = f32::MIN;

/// An output at the picture's own size, `[N, H, W]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PixelOutput {
    /// Train ids, bytes: the class with the highest score; of equal ones, the first.
    Labels,
    /// The largest softmax probability c as bytes: `floor(255 c + 0.5)`.
    Confidence,
    /// The highest score less the second highest, 32-bit floats.
    Margin,
}

/// A word that names no decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParsePixelOutputError;

impl std::error::Error for ParsePixelOutputError {}

impl std::fmt::Display for ParsePixelOutputError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = PixelOutput::ALL.map(PixelOutput::name).join(", ");
        write!(formatter, "there are {names}")
    }
}

impl FromStr for PixelOutput {
    type Err = ParsePixelOutputError;

    fn from_str(text: &str) -> Result<Self, ParsePixelOutputError> {
        Self::ALL.into_iter().find(|decision| decision.name() == text).ok_or(ParsePixelOutputError)
    }
}

impl PixelOutput {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Labels, Self::Confidence, Self::Margin];

    /// What the output is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Labels => "labels",
            Self::Confidence => "confidence",
            Self::Margin => "margin",
        }
    }

    /// The output for pictures of a size.
    pub(crate) fn port(self, [height, width]: [Dimension; 2]) -> TensorInfo {
        let element = match self {
            Self::Labels | Self::Confidence => signature::UINT8,
            Self::Margin => signature::FLOAT32,
        };
        let shape = vec![Dimension::Named("N".to_owned()), height, width];
        TensorInfo { name: self.name().to_owned(), element: element.to_owned(), shape }
    }
}

/// Writes pixel_outputs on class scores `[N, C, H, W]` in 32-bit floats.
pub(crate) fn write(
    builder: &mut GraphBuilder,
    scores: &str,
    classes: usize,
    pixel_outputs: &[PixelOutput],
) {
    let largest = |keep: bool| {
        vec![AttributeProto::ints("axes", &[1]), AttributeProto::int("keepdims", i64::from(keep))]
    };
    for decision in pixel_outputs {
        let name = decision.name();
        let part = |part: &str| format!("{name}.{part}");
        match decision {
            PixelOutput::Labels => {
                let wide = builder.op(&part("wide"), "ArgMax", &[scores], along_classes(false));
                builder.cast(name, &wide, DataType::Uint8);
            }
            PixelOutput::Confidence => {
                // The largest probability is 1 / sum(exp(score - largest)): no tensor of probabilities is needed.
                let best = builder.op(&part("best"), "ReduceMax", &[scores], largest(true));
                let below = builder.op(&part("below"), "Sub", &[scores, &best], vec![]);
                let powers = builder.op(&part("powers"), "Exp", &[&below], vec![]);
                let axis = builder.int64_constant(&part("axis"), &[1]);
                let keep = vec![AttributeProto::int("keepdims", 0)];
                let sum = builder.op(&part("sum"), "ReduceSum", &[&powers, &axis], keep);
                let most = builder.float_constant(&part("most"), &[], &[255.0]);
                let scaled = builder.op(&part("scaled"), "Div", &[&most, &sum], vec![]);
                round_to_u8(builder, name, &scaled);
            }
            PixelOutput::Margin => {
                let best = builder.op(&part("best"), "ReduceMax", &[scores], largest(false));
                let won = winner_mask(builder, name, scores, classes);
                let aside = builder.float_constant(&part("aside"), &[], &[SET_ASIDE]);
                let others = builder.op(&part("others"), "Where", &[&won, &aside, scores], vec![]);
                let second = builder.op(&part("second"), "ReduceMax", &[&others], largest(false));
                builder.op(name, "Sub", &[&best, &second], vec![]);
            }
        }
    }
}

/// Where each class has the highest score, of equal ones the first: truth values `[N, C, H, W]`.
pub(crate) fn winner_mask(
    builder: &mut GraphBuilder,
    name: &str,
    scores: &str,
    classes: usize,
) -> String {
    let winner = builder.op(&format!("{name}.winner"), "ArgMax", &[scores], along_classes(true));
    let ids: Vec<u8> = (0..classes as i64).flat_map(i64::to_le_bytes).collect();
    let ids =
        builder.constant(&format!("{name}.ids"), &[1, classes, 1, 1], DataType::Int64, || ids);
    builder.op(&format!("{name}.won"), "Equal", &[&winner, &ids], vec![])
}

/// Rounds values from 0 to 255 to the nearest bytes.
pub(crate) fn round_to_u8(builder: &mut GraphBuilder, name: &str, values: &str) {
    let half = builder.float_constant(&format!("{name}.half"), &[], &[0.5]);
    let shifted = builder.op(&format!("{name}.shifted"), "Add", &[values, &half], vec![]);
    // A cast to bytes cuts off, on every provider alike only where it cuts nothing.
    let whole = builder.op(&format!("{name}.whole"), "Floor", &[&shifted], vec![]);
    builder.cast(name, &whole, DataType::Uint8);
}

fn along_classes(keep: bool) -> Vec<AttributeProto> {
    vec![AttributeProto::int("axis", 1), AttributeProto::int("keepdims", i64::from(keep))]
}
