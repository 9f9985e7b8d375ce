//! How images of other sizes get through a file: whole, in windows, or scaled.

use protoseg_models::interface::Fit;
use protoseg_models::window::{LogitGrid, Window};

use super::known_config::{self, KnownConfig};
use super::{ImportError, ImportOptions};

/// The way of images through a file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ImageFit {
    pub(super) fit: Fit,
    /// Square windows.
    pub(super) window: Option<Window>,
    /// Oblong windows, along height and width.
    pub(super) oblong: Option<[Window; 2]>,
    /// Remark on the choice for files of one size.
    pub(super) remark: Option<String>,
}

/// Facts of a file that trials have shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct OutputFacts {
    /// True for labels, which have no mean.
    pub(super) labels: bool,
    /// True where the output lies at no whole stride.
    pub(super) covers: bool,
    /// Height and width of the only images that run.
    pub(super) size: Option<[usize; 2]>,
    pub(super) grid: LogitGrid,
}

/// Chooses the way by the options, by what a known configuration says, and else windows where the
/// file takes them.
pub(super) fn choose(
    options: &ImportOptions,
    known: &KnownConfig,
    facts: OutputFacts,
) -> Result<ImageFit, ImportError> {
    let refused = |message: String| Err(ImportError::Options(message));
    let asked = options.windows();
    if let Some(Some(_)) = asked {
        if facts.labels {
            return refused(
                "the file gives labels, and overlapping windows of labels have no mean: it can run images whole only".to_owned(),
            );
        }
        if facts.covers {
            return refused(
                "the file gives logits at no whole fraction of its pixels, so windows of them cannot be joined: it can run images whole only"
                    .to_owned(),
            );
        }
        if let Some(fit) = options.fit.filter(|fit| *fit != Fit::Window) {
            return refused(format!("--fit {} and --window exclude each other", fit.name()));
        }
    }
    let Some(size @ [height, width]) = facts.size else {
        return match options.fit {
            Some(fit) if fit != Fit::Window => refused(format!(
                "the file takes images of any size: add --size HEIGHTxWIDTH to --fit {}",
                fit.name()
            )),
            _ => placed(Fit::Window, asked.flatten(), facts.grid, unused(known)),
        };
    };
    if let Some(Some([down, right])) = asked {
        if [down.size, right.size] != size {
            return refused(format!(
                "windows of {}x{} do not fit: the file takes {height}x{width} (height x width) and nothing else",
                down.size, right.size
            ));
        }
        return placed(Fit::Window, asked.flatten(), facts.grid, None);
    }
    let windows = size.map(|side| usual_window(side, facts.grid));
    let joinable = !facts.labels
        && !facts.covers
        && windows.iter().all(|window| facts.grid.check(*window).is_ok());
    let configured = known.resizes && known.size.is_none_or(|known| known == size);
    let fit = match options.fit {
        Some(fit) => fit,
        None if asked.is_some() => Fit::Window,
        None if configured || !joinable => Fit::Resize,
        None => Fit::Window,
    };
    let others = format!("images of other sizes than {height}x{width}");
    let remark = match fit {
        Fit::Window if asked.is_some() || !joinable => {
            return placed(fit, None, facts.grid, None);
        }
        Fit::Window => format!(
            "{others} are run in windows of that size; for a network that judges whole scenes say --fit resize or letterbox"
        ),
        Fit::Resize if options.fit.is_none() && configured => format!(
            "{others} are resized to it, as {} says; --fit window, letterbox or pad are the other ways",
            known_config::NAME
        ),
        Fit::Resize => {
            format!("{others} are resized to it; --fit letterbox or pad are other ways")
        }
        Fit::Letterbox => format!("{others} are scaled into it between gray bars"),
        Fit::Pad => format!("smaller images than {height}x{width} are padded, larger ones refused"),
    };
    let windows = (fit == Fit::Window).then_some(windows);
    placed(fit, windows, facts.grid, Some(remark))
}

/// Remark on the size of a known configuration, where it is not followed.
fn unused(known: &KnownConfig) -> Option<String> {
    let [height, width] = known.size.filter(|_| known.resizes)?;
    Some(format!(
        "images are run at their own size; {} resizes them: --fit resize --size {height}x{width} does too",
        known_config::NAME
    ))
}

fn placed(
    fit: Fit,
    windows: Option<[Window; 2]>,
    grid: LogitGrid,
    remark: Option<String>,
) -> Result<ImageFit, ImportError> {
    for window in windows.iter().flatten() {
        grid.check(*window)?;
    }
    let square = windows.filter(|[down, right]| down == right).map(|[window, _]| window);
    let oblong = windows.filter(|_| square.is_none());
    Ok(ImageFit { fit, window: square, oblong, remark })
}

/// A window of a side, two thirds apart, as in protoseg's own bundles.
fn usual_window(side: usize, grid: LogitGrid) -> Window {
    let steps = side * 2 / 3 / grid.stride;
    Window { size: side, stride: steps.max(1) * grid.stride }
}
