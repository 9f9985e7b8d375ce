//! The probe of a checkpoint: synthetic scenes with libtorch's logits, against which other runtimes are checked.

use anyhow::Result;
use protoseg_models::graph::{NodeId, Tag};
use protoseg_models::probe::ProbeCase;
use protoseg_models::window::LogitGrid;

use crate::evaluate::{Predictor, Protocol};
use crate::method::prototypes::Prototypes;
use crate::net::{self, ForwardMode, Net, from_torch};

/// `[height, width]` of the scenes: a multiple of every stride, and a size that no stride divides.
pub const SIZES: [[usize; 2]; 2] = [[128, 192], [163, 227]];

/// Seed of the probe's scenes.
const SCENES: u64 = 2;

/// Predicts whole scenes; with prototypes on the output of a node, also records their confidence in the labels.
pub fn record(
    net: &Net,
    grid: LogitGrid,
    prototypes: Option<(NodeId, &Prototypes)>,
) -> Result<Vec<ProbeCase>> {
    let _guard = tch::no_grad_guard();
    let protocol = Protocol { grid, window: None };
    let case = |(index, size): (u64, [usize; 2])| {
        let [height, width] = size;
        let image = protoseg_synthetic::render_scene(SCENES, index, height, width).image;
        let input = net::images_to_tensor(&image, size, net.device())?;
        let logits = from_torch(&net.forward_tagged(&input, ForwardMode::Eval, Tag::Logits)?)?;
        let labels = Predictor::linear(net, protocol).labels(&image, size)?;
        let prototype_confidence = match prototypes {
            Some((node, prototypes)) => {
                let head = Predictor::prototypes(net, node, prototypes, protocol);
                Some(head.confidence_in(&labels, &image, size)?)
            }
            None => None,
        };
        let name = format!("{height}x{width}");
        Ok(ProbeCase { name, height, width, image, logits, labels, prototype_confidence })
    };
    (0..).zip(SIZES).map(case).collect()
}
