//! Trial runs of a file on synthetic images of sizes that it should take.

use protoseg_models::probe::ProbeCase;
use protoseg_models::variant::ModelKind;
use protoseg_models::weights::Tensor;
use protoseg_models::window::LogitGrid;

use super::ImportError;
use crate::session::{Runner, SessionError};
use crate::stitch::LogitMap;
use crate::upsample::{self, LogitGeometry};

/// Seed of the images.
const SEED: u64 = 1;

/// Logits of an image beyond which the probe keeps its labels only: 16 MiB of them.
const MAX_LOGITS: usize = 1 << 22;

/// A synthetic image, and its logits or labels.
pub(super) struct Trial {
    size: [usize; 2],
    image: Vec<u8>,
    output: TrialOutput,
}

enum TrialOutput {
    Logits(Tensor),
    Labels(Vec<u8>),
}

/// First size to try where sizes are free: one that most networks take, and from which their stride
/// shows.
pub(super) fn first_size(align_corners: bool, multiple: usize) -> [usize; 2] {
    [128, 192].map(|side: usize| side.next_multiple_of(multiple) + usize::from(align_corners))
}

/// Second size to try: odd multiples of what the network should take, and so multiples of nothing
/// more.
pub(super) fn odd_size(grid: LogitGrid) -> [usize; 2] {
    let steps = 96_usize.div_ceil(grid.encoder_stride) | 1;
    [steps, steps + 2].map(|steps| grid.round_up(steps * grid.encoder_stride))
}

/// Runs a synthetic image of a size.
pub(super) fn run(
    runner: &mut Runner,
    kind: ModelKind,
    classes: usize,
    size @ [height, width]: [usize; 2],
) -> Result<Trial, ImportError> {
    let image = protoseg_synthetic::render_scene(SEED, 0, height, width).image;
    let failed = |error| match error {
        source @ SessionError::Run { .. } => ImportError::Trial { size, source },
        other => other.into(),
    };
    let output = if kind == ModelKind::Labels {
        let found = runner.run_labels(&image, [1, height, width], classes).map_err(failed)?;
        if !found.covers(size) {
            return Err(ImportError::Grid { size, found: found.shape, what: "labels" });
        }
        TrialOutput::Labels(found.data)
    } else {
        let found = runner.run(&image, [1, height, width]).map_err(failed)?;
        match found.shape[..] {
            [1, channels, _, _] if channels != classes => {
                return Err(ImportError::Classes { found: channels, expected: classes });
            }
            [1, _, h, w] if h * w > 0 => {}
            _ => {
                return Err(ImportError::Grid { size, found: found.shape, what: "logits" });
            }
        }
        if !found.data.iter().all(|logit| logit.is_finite()) {
            return Err(ImportError::NotFinite(size));
        }
        TrialOutput::Logits(found)
    };
    Ok(Trial { size, image, output })
}

/// Finds the grid on which the logits of all trials lie; labels lie on that of the pixels.
pub(super) fn grid(
    trials: &[Trial],
    align_corners: bool,
    multiple: usize,
) -> Result<LogitGrid, ImportError> {
    let mut counts = Vec::new();
    for Trial { size, output, .. } in trials {
        match output {
            TrialOutput::Logits(logits) => {
                counts.extend(size.iter().copied().zip(logits.shape[2..].iter().copied()));
            }
            TrialOutput::Labels(_) => counts.extend(size.map(|side| (side, side))),
        }
    }
    LogitGrid::from_measurements(&counts, align_corners, multiple).ok_or_else(|| {
        let described = trials.iter().map(|Trial { size, output, .. }| match output {
            TrialOutput::Logits(logits) => {
                format!("{}x{} for {}x{}", logits.shape[2], logits.shape[3], size[0], size[1])
            }
            TrialOutput::Labels(_) => format!("{}x{}", size[0], size[1]),
        });
        ImportError::Stride { found: described.collect::<Vec<_>>().join(", ") }
    })
}

impl Trial {
    /// Makes the trial a case of the probe.
    pub(super) fn into_case(self, grid: LogitGrid) -> ProbeCase {
        let Self { size: [height, width], image, output } = self;
        let (logits, labels) = match output {
            TrialOutput::Labels(labels) => (ProbeCase::no_logits(), labels),
            TrialOutput::Logits(Tensor { shape, data }) => {
                let map = LogitMap { classes: shape[1], height: shape[2], width: shape[3], data };
                let frame = LogitGeometry {
                    height,
                    width,
                    padded: [height, width],
                    align_corners: grid.align_corners,
                };
                let labels = upsample::labels(&map, &frame);
                let few = map.data.len() <= MAX_LOGITS;
                (
                    if few { Tensor { shape, data: map.data } } else { ProbeCase::no_logits() },
                    labels,
                )
            }
        };
        ProbeCase {
            name: format!("{height}x{width}"),
            height,
            width,
            image,
            logits,
            labels,
            prototype_confidence: None,
        }
    }
}
