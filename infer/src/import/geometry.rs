//! How images of other sizes get through a file: whole, in windows, or scaled.

use protoseg_models::interface::Fit;
use protoseg_models::window::{LogitGrid, Window};

use super::known_config::KnownConfig;
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
            _ => placed(Fit::Window, asked.flatten(), facts.grid, None),
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
            known.file
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

/// Says where images get their size in another way than a known configuration says, and how near
/// the options come to it.
pub(super) fn untaken(known: &KnownConfig, fit: Fit, size: Option<[usize; 2]>) -> Option<String> {
    let (file, steps) = (&known.file, known.geometry.as_ref()?);
    if known.resizes && fit == Fit::Resize && size == known.size {
        return known.filter.map(|filter| {
            format!(
                "{file} resizes by {filter} interpolation, which is not followed: images are resized bilinearly, and labels may differ \
                 along borders"
            )
        });
    }
    let filter = known.filter.map_or(String::new(), |filter| format!(" by {filter} interpolation"));
    let text = |[height, width]: [usize; 2]| format!("{height}x{width}");
    let taken = match (fit, size) {
        (_, None) => "images are run at their own size".to_owned(),
        (Fit::Window, Some(size)) => format!("images are run in windows of {}", text(size)),
        (Fit::Resize, Some(size)) => format!("images are resized to {} alone", text(size)),
        (Fit::Letterbox, Some(size)) => format!("images are scaled into {}", text(size)),
        (Fit::Pad, Some(size)) => format!("images are padded to {}", text(size)),
    };
    let bilinear = if known.filter.is_some() { ", bilinearly" } else { "" };
    let way = match (known.resizes, known.size, size) {
        (true, Some(known), None) => {
            format!(": --fit resize --size {} does so{bilinear}", text(known))
        }
        (true, Some(known), Some(size)) if known == size => {
            format!(": --fit resize does so{bilinear}")
        }
        (_, _, Some(size)) if fit != Fit::Resize => {
            format!("; --fit resize scales whole images to {}", text(size))
        }
        (_, _, Some(_)) => String::new(),
        (_, _, None) => "; --fit resize --size HEIGHTxWIDTH scales whole images".to_owned(),
    };
    Some(format!("{taken}; {file} {steps}{filter}, which is not followed{way}"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_configuration_does_otherwise_is_said() {
        let plain = KnownConfig {
            file: "c.json".to_owned(),
            resizes: true,
            size: Some([64; 2]),
            geometry: Some("resizes images to 64x64".to_owned()),
            ..KnownConfig::default()
        };
        let cubic = KnownConfig { filter: Some("bicubic"), ..plain.clone() };
        let kept = KnownConfig { resizes: false, ..plain.clone() };
        for (known, fit, size, said) in [
            (&KnownConfig::default(), Fit::Window, None, None),
            (&plain, Fit::Resize, Some([64; 2]), None),
            (&cubic, Fit::Resize, Some([64; 2]), Some("c.json resizes by bicubic")),
            (&plain, Fit::Window, None, Some("--fit resize --size 64x64 does so")),
            (&cubic, Fit::Window, None, Some("--fit resize --size 64x64 does so, bilinearly")),
            (&kept, Fit::Resize, Some([64; 2]), Some("resized to 64x64 alone; c.json resizes")),
            (&kept, Fit::Window, None, Some("at their own size; c.json resizes")),
            (&plain, Fit::Window, Some([32; 2]), Some("--fit resize scales whole images to 32x32")),
        ] {
            let found = untaken(known, fit, size);
            assert_eq!(found.is_some(), said.is_some(), "{found:?}");
            let found = found.unwrap_or_default();
            assert!(said.is_none_or(|said| found.contains(said)), "{found}");
        }
    }
}
