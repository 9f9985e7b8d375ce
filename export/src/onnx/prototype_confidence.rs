//! The prototypes' probability of each label of the linear classifier.
//!
//! Cosines with all prototypes are a 1x1 convolution, whose kernels are the prototypes at length 1.
//! Kernels are ordered by number, then class, so that the nearest prototype of each class is the
//! maximum of equal slices.

use protoseg_models::prototypes::{
    MIN_NORM, NO_PROTOTYPE_LOGIT, PROTOTYPE_CONFIDENCE as NAME, Prototypes, norm,
};

use crate::onnx::builder::GraphBuilder;
use crate::onnx::pixel_outputs::{round_to_u8, winner_mask};
use crate::onnx::proto::AttributeProto;

/// Writes the prototypes' logits `[N, C, h, w]` for features `[N, channels, h, w]` in 32-bit
/// floats, and returns their name.
pub(crate) fn logits(
    builder: &mut GraphBuilder,
    features: &str,
    prototypes: &Prototypes,
) -> String {
    let part = |part: &str| format!("prototypes.{part}");
    let classes = prototypes.classes.len();
    let channels = prototypes.mean.len();
    let mean = builder.float_constant(&part("mean"), &[1, channels, 1, 1], &prototypes.mean);
    let centered = builder.op(&part("centred"), "Sub", &[features, &mean], vec![]);
    let axes = vec![AttributeProto::ints("axes", &[1]), AttributeProto::int("keepdims", 1)];
    let measured = builder.op(&part("measured"), "ReduceL2", &[&centered], axes);
    let shortest = builder.float_constant(&part("shortest"), &[], &[MIN_NORM as f32]);
    let lengths = builder.op(&part("lengths"), "Max", &[&measured, &shortest], vec![]);
    let directions = builder.op(&part("directions"), "Div", &[&centered, &lengths], vec![]);

    // A class with fewer prototypes than others repeats its last one, or zeros if it has none.
    let each = prototypes.classes.iter().flatten().map(Vec::len).max().unwrap_or(1).max(1);
    let kernel = |number: usize, class: usize| {
        let own = prototypes.classes[class].as_ref();
        own.and_then(|own| own.get(number).or(own.last()))
            .map_or_else(|| vec![0.0; channels], |values| unit(values))
    };
    let kernels: Vec<f32> = (0..each)
        .flat_map(|number| (0..classes).flat_map(move |class| kernel(number, class)))
        .collect();
    let kernels =
        builder.float_constant(&part("kernels"), &[each * classes, channels, 1, 1], &kernels);
    let cosines = builder.op(&part("cosines"), "Conv", &[&directions, &kernels], vec![]);
    let nearest = if each == 1 {
        cosines
    } else {
        let slices: Vec<String> =
            (0..each).map(|number| part(&format!("cosines.{number}"))).collect();
        let sizes = builder.int64_constant(&part("sizes"), &vec![classes as i64; each]);
        let axis = vec![AttributeProto::int("axis", 1)];
        builder.multi_output_node(
            &part("slices"),
            "Split",
            vec![cosines, sizes],
            slices.clone(),
            axis,
        );
        let slices: Vec<&str> = slices.iter().map(String::as_str).collect();
        builder.op(&part("nearest"), "Max", &slices, vec![])
    };
    let temperature =
        builder.float_constant(&part("temperature"), &[], &[prototypes.temperature as f32]);
    let scores = builder.op(&part("scores"), "Div", &[&nearest, &temperature], vec![]);
    if prototypes.classes.iter().all(Option::is_some) {
        return scores;
    }
    let unmet: Vec<f32> = prototypes
        .classes
        .iter()
        .map(|own| if own.is_some() { 0.0 } else { NO_PROTOTYPE_LOGIT })
        .collect();
    let unmet = builder.float_constant(&part("unmet"), &[1, classes, 1, 1], &unmet);
    builder.op(&part("met"), "Add", &[&scores, &unmet], vec![])
}

/// Writes the output for logits of the linear classifier and of the prototypes, both `[N, C, H,
/// W]`.
pub(crate) fn write(builder: &mut GraphBuilder, linear: &str, prototypes: &str, classes: usize) {
    let part = |part: &str| format!("{NAME}.{part}");
    let own = winner_mask(builder, NAME, linear, classes);
    let along = vec![AttributeProto::int("axis", 1)];
    let probabilities = builder.op(&part("probabilities"), "Softmax", &[prototypes], along);
    let none = builder.float_constant(&part("none"), &[], &[0.0]);
    let chosen = builder.op(&part("chosen"), "Where", &[&own, &probabilities, &none], vec![]);
    let axis = builder.int64_constant(&part("axis"), &[1]);
    let keep = vec![AttributeProto::int("keepdims", 0)];
    let sum = builder.op(&part("sum"), "ReduceSum", &[&chosen, &axis], keep);
    let most = builder.float_constant(&part("most"), &[], &[255.0]);
    let scaled = builder.op(&part("scaled"), "Mul", &[&sum, &most], vec![]);
    round_to_u8(builder, NAME, &scaled);
}

/// Scales a vector to length 1.
fn unit(values: &[f32]) -> Vec<f32> {
    let values: Vec<f64> = values.iter().map(|&value| f64::from(value)).collect();
    let length = norm(&values);
    values.into_iter().map(|value| (value / length) as f32).collect()
}
