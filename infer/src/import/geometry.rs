//! How images of other sizes get through a file: whole, in windows, or scaled.

use protoseg_models::adapter::Normalization;
use protoseg_models::interface::Fit;
use protoseg_models::scaling::{Bars, Resample, Scaling};
use protoseg_models::window::{LogitGrid, Window};

use super::known_config::KnownConfig;
use super::known_geometry::KnownGeometry;
use super::{ImportError, ImportOptions};

/// The way of images through a file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ImageFit {
    pub(super) fit: Fit,
    /// Square windows.
    pub(super) window: Option<Window>,
    /// Oblong windows, along height and width.
    pub(super) oblong: Option<[Window; 2]>,
    pub(super) resample: Resample,
    /// Bars of a letterbox, where they are not the usual ones.
    pub(super) bars: Option<Bars>,
    /// Remarks on the choice.
    pub(super) remarks: Vec<String>,
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
    /// Height or width where one of the two is fixed.
    pub(super) sides: [Option<usize>; 2],
    pub(super) grid: LogitGrid,
}

impl OutputFacts {
    fn joinable(&self, windows: [Window; 2]) -> bool {
        !self.labels
            && !self.covers
            && windows.iter().all(|window| self.grid.check(*window).is_ok())
    }
}

/// Completes options by what a known configuration does to images of files that take any size:
/// resizes them to one, or pads them to multiples. None where it does neither, or options say
/// otherwise.
pub(super) fn configured(
    options: &ImportOptions,
    known: &KnownConfig,
    sides: [Option<usize>; 2],
) -> Option<ImportOptions> {
    let asked = options.fit.is_some() || options.size.is_some() || options.multiple.is_some();
    if asked || options.windows().is_some() || !sides.contains(&None) {
        return None;
    }
    if let Some(size) = known.geometry.plain() {
        let fits = |(side, length): (&Option<usize>, usize)| side.is_none_or(|side| side == length);
        return sides.iter().zip(size).all(fits).then(|| ImportOptions {
            size: Some(size),
            fit: Some(Fit::Resize),
            ..options.clone()
        });
    }
    let KnownGeometry { resize, resizes_otherwise, crops, .. } = &known.geometry;
    let pads_alone = resize.is_none() && !resizes_otherwise && !crops;
    let multiple = known.geometry.divisor.filter(|_| pads_alone && sides == [None; 2]);
    multiple.map(|multiple| ImportOptions { multiple: Some(multiple), ..options.clone() })
}

/// Completes options by the size of windows, where those are asked for and the file fixes one side:
/// a square of it. None where the file or the options say otherwise.
pub(super) fn windows_of_side(
    options: &ImportOptions,
    sides: [Option<usize>; 2],
) -> Option<ImportOptions> {
    let ([Some(side), None] | [None, Some(side)]) = sides else { return None };
    let asked = options.fit == Some(Fit::Window) && options.windows().is_none();
    let size = (asked && options.size.is_none()).then_some([side; 2]);
    size.map(|size| ImportOptions { size: Some(size), ..options.clone() })
}

/// Sides in words, such as `any x 64`.
fn sides_text(sides: [Option<usize>; 2]) -> String {
    let side = |side: Option<usize>| side.map_or("any".to_owned(), |side| side.to_string());
    sides.map(side).join(" x ")
}

/// Sides in words for --size, such as `HEIGHTx64`.
fn sides_to_name([height, width]: [Option<usize>; 2]) -> String {
    let side =
        |side: Option<usize>, name: &str| side.map_or(name.to_owned(), |side| side.to_string());
    format!("{}x{}", side(height, "HEIGHT"), side(width, "WIDTH"))
}

/// Chooses the way by the options, by what a known configuration says, and else windows where the
/// file takes them.
pub(super) fn choose(
    options: &ImportOptions,
    known: &KnownConfig,
    facts: OutputFacts,
) -> Result<ImageFit, ImportError> {
    check_windows(options, facts)?;
    let asked = options.windows();
    let found = match facts.size {
        None => any_size(options, known, facts)?,
        Some(size) if matches!(asked, Some(Some(_))) => windows_of(size, options, facts)?,
        Some(size) => one_size(size, options, known, facts)?,
    };
    scaled(found, options, known)
}

fn refused<T>(message: String) -> Result<T, ImportError> {
    Err(ImportError::Options(message))
}

/// Refuses windows of outputs that cannot be joined.
fn check_windows(options: &ImportOptions, facts: OutputFacts) -> Result<(), ImportError> {
    if !matches!(options.windows(), Some(Some(_))) {
        return Ok(());
    }
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
    match options.fit.filter(|fit| *fit != Fit::Window) {
        Some(Fit::Scale(_)) => refused("--edge and --window exclude each other".to_owned()),
        Some(fit) => refused(format!("--fit {} and --window exclude each other", fit.name())),
        None => Ok(()),
    }
}

/// The way through a file that takes images of any size.
fn any_size(
    options: &ImportOptions,
    known: &KnownConfig,
    facts: OutputFacts,
) -> Result<ImageFit, ImportError> {
    let asked = options.windows();
    match options.fit {
        Some(fit @ Fit::Scale(scaling)) => {
            if facts.sides != [None; 2] {
                return refused(format!(
                    "--edge gives images many sizes, and the file takes {} (height x width) alone: add --size {} to --fit resize or letterbox",
                    sides_text(facts.sides),
                    sides_to_name(facts.sides)
                ));
            }
            let remark = format!("images are scaled {scaling}");
            placed(fit, None, facts.grid, Some(remark))
        }
        Some(fit) if fit != Fit::Window => {
            let takes = match facts.sides {
                [None, None] => "images of any size".to_owned(),
                sides => format!("{} (height x width)", sides_text(sides)),
            };
            let size = sides_to_name(facts.sides);
            refused(format!("the file takes {takes}: add --size {size} to --fit {}", fit.name()))
        }
        None if asked.is_none() && facts.sides == [None; 2] => match known.geometry.scaling() {
            Some(scaling) => {
                let remark = format!(
                    "images are scaled {scaling}, as {} says; --fit window runs them at their own size",
                    known.file
                );
                placed(Fit::Scale(scaling), None, facts.grid, Some(remark))
            }
            None => placed(Fit::Window, None, facts.grid, None),
        },
        _ => {
            let windows = asked.flatten();
            if let Some(windows) = windows {
                check_sides(windows, facts.sides)?;
            }
            let remark = (windows.is_none() && facts.sides != [None; 2]).then(|| half_fixed(facts));
            placed(Fit::Window, windows, facts.grid, remark)
        }
    }
}

/// Refuses windows of another size than the side that the file fixes.
fn check_sides(windows: [Window; 2], sides: [Option<usize>; 2]) -> Result<(), ImportError> {
    let fits =
        |(window, side): (&Window, Option<usize>)| side.is_none_or(|side| side == window.size);
    if windows.iter().zip(sides).all(fits) {
        return Ok(());
    }
    let [down, right] = windows;
    refused(format!(
        "windows of {}x{} do not fit: the file takes {} (height x width) alone",
        down.size,
        right.size,
        sides_text(sides)
    ))
}

/// Says which images a file with one fixed side takes, and the ways of others.
fn half_fixed(facts: OutputFacts) -> String {
    let side = facts.sides.into_iter().flatten().next().unwrap_or_default();
    let name = if facts.sides[0].is_some() { "high" } else { "wide" };
    let windows = if facts.labels || facts.covers {
        String::new()
    } else {
        format!("--fit window runs others in windows of {side}x{side}, ")
    };
    format!(
        "images must be {side} pixels {name}, and are refused else; {windows}--fit resize --size {} scales them",
        sides_to_name(facts.sides)
    )
}

/// Windows that were asked for, through a file of one size.
fn windows_of(
    size @ [height, width]: [usize; 2],
    options: &ImportOptions,
    facts: OutputFacts,
) -> Result<ImageFit, ImportError> {
    let windows = options.windows().flatten();
    if let Some([down, right]) = windows.filter(|[down, right]| [down.size, right.size] != size) {
        return refused(format!(
            "windows of {}x{} do not fit: the file takes {height}x{width} (height x width) and nothing else",
            down.size, right.size
        ));
    }
    placed(Fit::Window, windows, facts.grid, None)
}

/// The way through a file of one size, by options and configuration.
fn one_size(
    size @ [height, width]: [usize; 2],
    options: &ImportOptions,
    known: &KnownConfig,
    facts: OutputFacts,
) -> Result<ImageFit, ImportError> {
    let asked = options.windows();
    let windows = size.map(|side| usual_window(side, facts.grid));
    let joinable = facts.joinable(windows);
    let is_plain = known.geometry.plain() == Some(size);
    let is_letterbox = known.geometry.letterbox() == Some(size);
    let fit = match options.fit {
        Some(Fit::Scale(_)) => {
            return refused(format!(
                "--edge gives images many sizes, and the file takes {height}x{width} (height x width) alone: --fit letterbox keeps their \
                 proportions"
            ));
        }
        Some(fit) => fit,
        None if asked.is_some() => Fit::Window,
        None if is_plain => Fit::Resize,
        None if is_letterbox => Fit::Letterbox,
        None if !joinable => Fit::Resize,
        None => Fit::Window,
    };
    if options.fit == Some(Fit::Window) && asked.is_none() && !joinable {
        let reason = if facts.labels {
            "the file gives labels, and overlapping windows of labels have no mean"
        } else {
            "outputs of the file do not lie on pixels in a way that windows of them could be joined"
        };
        return refused(format!(
            "{reason}: in place of --fit window say --fit resize, letterbox or pad, or --window whole for images of {height}x{width} alone"
        ));
    }
    let windows_or = if joinable { "window, " } else { "" };
    let others = format!("images of other sizes than {height}x{width}");
    let remark = match fit {
        Fit::Window if asked.is_some() || !joinable => {
            return placed(fit, None, facts.grid, None);
        }
        Fit::Window => format!(
            "{others} are run in windows of that size; for a network that judges whole scenes say --fit resize or letterbox"
        ),
        Fit::Resize if is_plain => format!(
            "{others} are resized to it, as {} says; --fit {windows_or}letterbox or pad are the other ways",
            known.file
        ),
        Fit::Resize | Fit::Scale(_) => {
            format!("{others} are resized to it; --fit {windows_or}letterbox or pad are other ways")
        }
        Fit::Letterbox if is_letterbox && options.fit.is_none() => format!(
            "{others} are scaled into it with their proportions kept, as {} says, beside bars; --fit {windows_or}resize or pad are other ways",
            known.file
        ),
        Fit::Letterbox => format!("{others} are scaled into it between gray bars"),
        Fit::Pad => format!(
            "smaller images than {height}x{width} are padded, larger ones refused; --fit {windows_or}resize or letterbox takes those"
        ),
    };
    let windows = (fit == Fit::Window).then_some(windows);
    let found = placed(fit, windows, facts.grid, Some(remark))?;
    let pads = known.geometry.pads;
    let bars = known
        .normalization
        .filter(|_| fit == Fit::Letterbox && is_letterbox && options.fit.is_none())
        .map(|normalization| Bars { color: mean_color(&normalization), corner: pads });
    Ok(ImageFit { bars, ..found })
}

/// The color that a normalization makes 0 of, as that of pixels that are padded after it.
fn mean_color(normalization: &Normalization) -> [u8; 3] {
    normalization.tables().map(|values| {
        let nearest = (0..=u8::MAX).min_by(|one, other| {
            let from_0 = |byte: &u8| values[usize::from(*byte)].abs();
            from_0(one).total_cmp(&from_0(other))
        });
        nearest.unwrap_or_default()
    })
}

/// Adds the filter by which images are scaled.
fn scaled(
    mut found: ImageFit,
    options: &ImportOptions,
    known: &KnownConfig,
) -> Result<ImageFit, ImportError> {
    let stated = known.geometry.filter;
    match (options.resample, found.fit.scales()) {
        (Some(_), false) => {
            return refused(
                "--resample is for images that are scaled: add --fit resize, --fit letterbox or --edge"
                    .to_owned(),
            );
        }
        (Some(filter), true) => found.resample = filter,
        (None, true) => {
            found.resample = stated.unwrap_or_default();
            if let Some(filter) = stated.filter(|filter| *filter != Resample::Bilinear) {
                found.remarks.push(format!(
                    "images are scaled by the {} filter of Pillow, as {} says; --resample overrides it",
                    filter.name(),
                    known.file
                ));
            }
            if let Some(unknown) = &known.geometry.unknown_filter {
                found.remarks.push(format!(
                    "the filter of {}, {unknown}, is not known: images are scaled by the bilinear one; --resample names another",
                    known.file
                ));
            }
        }
        (None, false) => {}
    }
    Ok(found)
}

/// Says where images get their size in another way than a known configuration says, and how near
/// the options come to it.
pub(super) fn untaken(known: &KnownConfig, fit: Fit, size: Option<[usize; 2]>) -> Option<String> {
    let (file, geometry) = (&known.file, &known.geometry);
    let steps = geometry.words.as_ref()?;
    let text = |[height, width]: [usize; 2]| format!("{height}x{width}");
    let (plain, scaling) = (geometry.plain(), geometry.scaling());
    let pads_alone = geometry.resize.is_none() && !geometry.resizes_otherwise && !geometry.crops;
    match fit {
        Fit::Resize if size.is_some() && size == plain => return None,
        Fit::Letterbox
            if matches!(scaling, Some(Scaling::Within(_))) && size == geometry.letterbox() =>
        {
            return None;
        }
        // Images in batches alone need to be padded.
        Fit::Window
            if geometry.resize.is_none()
                && !geometry.resizes_otherwise
                && !geometry.crops
                && geometry.pad_to.is_none() =>
        {
            return geometry.divisor.map(|divisor| {
                format!(
                    "images are padded to multiples of {divisor} by their edge pixels; {file} pads them with 0 after the \
                     normalization (do_pad), so that labels near the edge may differ"
                )
            });
        }
        Fit::Pad if pads_alone && size == geometry.pad_to => {
            return Some(format!(
                "images are padded by their edge pixels; {file} pads them with 0 after the normalization (do_pad), so that \
                 labels near the edge may differ"
            ));
        }
        Fit::Scale(taken) if scaling == Some(taken) => {
            let cut = match geometry.size {
                Some(cut) if geometry.crops => format!(" of {}", text(cut)),
                _ => String::new(),
            };
            if let Some(divisor) = geometry.stretched {
                return Some(format!(
                    "images are scaled {taken} and filled up by their edge pixels to what the network takes; {file} stretches them to \
                     multiples of {divisor} (size_divisor), so that labels may differ near edges of things"
                ));
            }
            let whole = "whole images get labels";
            return geometry.crops.then(|| {
                format!(
                    "the middle{cut} that {file} cuts out (do_center_crop) is not cut out: {whole}"
                )
            });
        }
        _ => {}
    }
    let taken = match (fit, size) {
        (Fit::Scale(scaling), _) => format!("images are scaled {scaling}"),
        (_, None) => "images are run at their own size".to_owned(),
        (Fit::Window, Some(size)) => format!("images are run in windows of {}", text(size)),
        (Fit::Resize, Some(size)) => format!("images are resized to {} alone", text(size)),
        (Fit::Letterbox, Some(size)) => format!("images are scaled into {}", text(size)),
        (Fit::Pad, Some(size)) => format!("images are padded to {}", text(size)),
    };
    let way = match (plain, scaling, size) {
        (Some(known), _, None) => format!(": --fit resize --size {} does so", text(known)),
        (Some(known), _, Some(size)) if known == size => ": --fit resize does so".to_owned(),
        (_, Some(Scaling::Edge { shortest, longest }), None) => {
            let longest = longest.map_or(String::new(), |longest| format!(":{longest}"));
            format!(": --edge {shortest}{longest} does so")
        }
        (_, Some(_), Some(size)) if fit != Fit::Letterbox => {
            format!(
                "; --fit letterbox scales whole images into {} with their proportions kept",
                text(size)
            )
        }
        (_, _, size) if pads_alone && size.is_some() && size == geometry.pad_to => {
            ": --fit pad does so".to_owned()
        }
        (_, _, Some(size)) if fit != Fit::Resize => {
            format!("; --fit resize scales whole images to {}", text(size))
        }
        (_, _, Some(_)) => String::new(),
        (_, _, None) => "; --fit resize --size HEIGHTxWIDTH scales whole images".to_owned(),
    };
    Some(format!("{taken}; {file} {steps}, which is not followed{way}"))
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
    let (resample, bars) = (Resample::default(), None);
    Ok(ImageFit { fit, window: square, oblong, resample, bars, remarks: Vec::from_iter(remark) })
}

/// A window of a side, two thirds apart, as in protoseg's own bundles.
fn usual_window(side: usize, grid: LogitGrid) -> Window {
    let steps = side * 2 / 3 / grid.stride;
    Window { size: side, stride: steps.max(1) * grid.stride }
}

#[cfg(test)]
mod tests {
    use super::super::known_geometry::{KnownGeometry, KnownResize};
    use super::*;

    fn known(resize: KnownResize) -> KnownConfig {
        let words = Some("resizes images".to_owned());
        let geometry = KnownGeometry { words, resize: Some(resize), ..KnownGeometry::default() };
        KnownConfig { file: "c.json".to_owned(), geometry, ..KnownConfig::default() }
    }

    #[test]
    fn what_a_configuration_does_otherwise_is_said() {
        let edge = Scaling::Edge { shortest: 72, longest: None };
        let plain = known(KnownResize::Exact([64; 2]));
        let kept = known(KnownResize::Scaled(Scaling::Near { size: [64; 2], multiple: 32 }));
        let within = known(KnownResize::Scaled(Scaling::Within([64; 2])));
        let shorter = known(KnownResize::Scaled(edge));
        let mut cut = shorter.clone();
        (cut.geometry.crops, cut.geometry.size) = (true, Some([64; 2]));
        for (known, fit, size, said) in [
            (&KnownConfig::default(), Fit::Window, None, None),
            (&plain, Fit::Resize, Some([64; 2]), None),
            (&plain, Fit::Window, None, Some("--fit resize --size 64x64 does so")),
            (&kept, Fit::Resize, Some([64; 2]), Some("resized to 64x64 alone; c.json resizes")),
            (&kept, Fit::Window, None, Some("at their own size; c.json resizes")),
            (&kept, Fit::Letterbox, Some([64; 2]), Some("scaled into 64x64; c.json resizes")),
            (&within, Fit::Letterbox, Some([64; 2]), None),
            (&shorter, Fit::Scale(edge), None, None),
            (&shorter, Fit::Window, None, Some(": --edge 72 does so")),
            (&cut, Fit::Scale(edge), None, Some("the middle of 64x64 that c.json cuts out")),
            (&shorter, Fit::Window, Some([64; 2]), Some("--fit letterbox scales whole images")),
            (&plain, Fit::Window, Some([32; 2]), Some("--fit resize scales whole images to 32x32")),
        ] {
            let found = untaken(known, fit, size);
            assert_eq!(found.is_some(), said.is_some(), "{found:?}");
            let found = found.unwrap_or_default();
            assert!(said.is_none_or(|said| found.contains(said)), "{found}");
        }
    }

    #[test]
    fn pixels_that_are_padded_after_a_normalization_have_its_mean() {
        assert_eq!(mean_color(&Normalization::IMAGENET), [124, 116, 104]);
        assert_eq!(mean_color(&Normalization::NONE), [0; 3]);
    }
}
