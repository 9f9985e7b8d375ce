//! The probe that travels with a checkpoint: drawn scenes with what libtorch makes of them.

use anyhow::Result;
use protoseg_models::graph::{NodeId, Tag};
use protoseg_models::probe::ProbeCase;
use protoseg_models::window::LogitGrid;

use crate::evaluate::{self, Predictor, Protocol};
use crate::method::prototypes::Prototypes;
use crate::net::{self, ForwardMode, Net, from_torch};

/// Heights and widths of the probe's scenes: one that every network likes, and an odd one that is on no network's grid.
pub const SIZES: [[usize; 2]; 2] = [[128, 192], [163, 227]];

/// Probes come from a set of scenes of their own.
const SCENES: u64 = 2;

/// Runs whole scenes through a network and keeps logits and labels, and how sure the prototypes are of those: prototypes
/// on the values of a node.
pub fn record(
    net: &Net,
    grid: LogitGrid,
    prototypes: Option<(NodeId, &Prototypes)>,
) -> Result<Vec<ProbeCase>> {
    let _guard = tch::no_grad_guard();
    let case = |(index, [height, width]): (u64, [usize; 2])| {
        let image = protoseg_synthetic::render_scene(SCENES, index, height, width).image;
        let picture = net::images_to_tensor(&image, [height, width], net.device())?;
        let logits = from_torch(&net.forward_tagged(&picture, ForwardMode::Eval, Tag::Logits)?)?;
        let (size, protocol) = ([height, width], Protocol { grid, window: None });
        let labels = evaluate::predict_labels(Predictor::Linear(net), &image, size, protocol)?;
        let sure = |(node, prototypes): (NodeId, &Prototypes)| {
            evaluate::label_confidence(
                Predictor::Prototypes(net, node, prototypes),
                &image,
                size,
                protocol,
                &labels,
            )
        };
        let prototype_confidence = prototypes.map(sure).transpose()?;
        let name = format!("{height}x{width}");
        Ok(ProbeCase { name, height, width, image, logits, labels, prototype_confidence })
    };
    (0..).zip(SIZES).map(case).collect()
}
