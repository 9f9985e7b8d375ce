//! Labels, confidence and margin as ONNX nodes, at the size of the image.

use crate::network::PixelOutput;
use crate::onnx::builder::GraphBuilder;
use crate::onnx::proto::{AttributeProto, DataType};

/// Below every logit, so that an excluded class never wins.
const EXCLUDED: f32 = f32::MIN;

/// Writes outputs for logits `[N, C, H, W]` in 32-bit floats.
pub(crate) fn write(
    builder: &mut GraphBuilder,
    logits: &str,
    classes: usize,
    pixel_outputs: &[PixelOutput],
) {
    let largest = |keep: bool| {
        vec![AttributeProto::ints("axes", &[1]), AttributeProto::int("keepdims", i64::from(keep))]
    };
    for output in pixel_outputs {
        let name = output.name();
        let part = |part: &str| format!("{name}.{part}");
        match output {
            PixelOutput::Labels => {
                let wide = builder.op(&part("wide"), "ArgMax", &[logits], along_classes(false));
                builder.cast(name, &wide, DataType::Uint8);
            }
            PixelOutput::Confidence => {
                // The largest probability is 1 / sum(exp(logit - largest)), without a softmax.
                let best = builder.op(&part("best"), "ReduceMax", &[logits], largest(true));
                let below = builder.op(&part("below"), "Sub", &[logits, &best], vec![]);
                let powers = builder.op(&part("powers"), "Exp", &[&below], vec![]);
                let axis = builder.int64_constant(&part("axis"), &[1]);
                let keep = vec![AttributeProto::int("keepdims", 0)];
                let sum = builder.op(&part("sum"), "ReduceSum", &[&powers, &axis], keep);
                let most = builder.float_constant(&part("most"), &[], &[255.0]);
                let scaled = builder.op(&part("scaled"), "Div", &[&most, &sum], vec![]);
                round_to_u8(builder, name, &scaled);
            }
            PixelOutput::Margin => {
                let best = builder.op(&part("best"), "ReduceMax", &[logits], largest(false));
                let won = winner_mask(builder, name, logits, classes);
                let aside = builder.float_constant(&part("aside"), &[], &[EXCLUDED]);
                let others = builder.op(&part("others"), "Where", &[&won, &aside, logits], vec![]);
                let second = builder.op(&part("second"), "ReduceMax", &[&others], largest(false));
                builder.op(name, "Sub", &[&best, &second], vec![]);
            }
        }
    }
}

/// Writes the mask `[N, C, H, W]` of the class with the largest logit, of equal ones the first.
pub(crate) fn winner_mask(
    builder: &mut GraphBuilder,
    name: &str,
    logits: &str,
    classes: usize,
) -> String {
    let winner = builder.op(&format!("{name}.winner"), "ArgMax", &[logits], along_classes(true));
    let ids: Vec<u8> = (0..classes as i64).flat_map(i64::to_le_bytes).collect();
    let ids =
        builder.constant(&format!("{name}.ids"), &[1, classes, 1, 1], DataType::Int64, || ids);
    builder.op(&format!("{name}.won"), "Equal", &[&winner, &ids], vec![])
}

/// Writes the rounding of values from 0 to 255 to bytes.
pub(crate) fn round_to_u8(builder: &mut GraphBuilder, name: &str, values: &str) {
    let half = builder.float_constant(&format!("{name}.half"), &[], &[0.5]);
    let shifted = builder.op(&format!("{name}.shifted"), "Add", &[values, &half], vec![]);
    // Providers truncate fractions differently in a cast to bytes.
    let whole = builder.op(&format!("{name}.whole"), "Floor", &[&shifted], vec![]);
    builder.cast(name, &whole, DataType::Uint8);
}

fn along_classes(keep: bool) -> Vec<AttributeProto> {
    vec![AttributeProto::int("axis", 1), AttributeProto::int("keepdims", i64::from(keep))]
}
