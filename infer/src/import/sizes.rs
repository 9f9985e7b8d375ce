//! The sizes of images that a file takes, and the grid on which its output lies.

use protoseg_models::window::{LogitGrid, Tiling};

use super::known_config::KnownConfig;
use super::trial::{Candidate, Trial};
use super::{ImportError, ImportOptions, told_sizes};

/// Multiples to which images are padded; by default the first at which the network runs.
const MULTIPLES: [usize; 8] = [1, 2, 4, 8, 16, 32, 64, 128];

/// Further multiples, tried where none of those runs: patches of 14 pixels, and others.
const ODD_MULTIPLES: [usize; 12] = [14, 12, 20, 24, 28, 48, 3, 5, 6, 7, 10, 96];

/// Largest divisor of a size that is tried as a multiple.
const MOST_MULTIPLE: usize = 512;

/// Sizes that networks are often fixed to, tried where no multiple runs.
const COMMON: [[usize; 2]; 30] = [
    [512, 512],
    [256, 256],
    [224, 224],
    [1024, 1024],
    [640, 640],
    [384, 384],
    [320, 320],
    [128, 128],
    [64, 64],
    [96, 96],
    [160, 160],
    [192, 192],
    [288, 288],
    [416, 416],
    [448, 448],
    [480, 480],
    [513, 513],
    [520, 520],
    [572, 572],
    [768, 768],
    [800, 800],
    [32, 32],
    [48, 48],
    [512, 1024],
    [256, 512],
    [480, 640],
    [360, 480],
    [384, 640],
    [720, 1280],
    [1024, 2048],
];

/// Sizes that a file takes, with the trials that showed it.
pub(super) struct FoundSizes {
    pub(super) trials: Vec<Trial>,
    pub(super) grid: LogitGrid,
    /// True where the output covers the image at no whole stride.
    pub(super) covers: bool,
    /// Height and width, where only those run.
    pub(super) only: Option<[usize; 2]>,
    /// True where a search beyond the usual multiples found the rule of sizes.
    pub(super) searched: bool,
    /// Least and largest height and width that run with the same output, where the network rounds
    /// them down to [`only`](Self::only), or up.
    pub(super) rounded: Option<[[usize; 2]; 2]>,
}

/// Finds the sizes that a file takes in one format.
pub(super) fn find(
    candidate: &mut Candidate<'_>,
    options: &ImportOptions,
    known: &KnownConfig,
) -> Result<FoundSizes, ImportError> {
    let declared = candidate.format().size();
    let sides = candidate.format().sides;
    let asked = options.size;
    if let Some(size) = asked
        && !sides.iter().zip(size).all(|(side, asked)| side.is_none_or(|side| side == asked))
    {
        let side = |side: Option<usize>| side.map_or("any".to_owned(), |side| side.to_string());
        return Err(ImportError::Options(format!(
            "--size {}x{} does not fit the file, which takes {} (height x width)",
            size[0],
            size[1],
            sides.map(side).join(" x ")
        )));
    }
    if let Some(size) = declared.or(asked) {
        if options.multiple.is_some() {
            return Err(ImportError::Options(format!(
                "the file takes images of {}x{} (height x width) and nothing else: leave out --multiple",
                size[0], size[1]
            )));
        }
        return one_size(candidate, options, size, declared.is_none());
    }
    match options.multiple {
        Some(multiple) => try_multiple(candidate, options, multiple, true),
        None => try_all(candidate, options, known),
    }
}

/// A size that the declaration and the options allow.
pub(super) fn any_size(candidate: &Candidate<'_>, options: &ImportOptions) -> [usize; 2] {
    let sides = candidate.format().sides;
    let size = options
        .size
        .unwrap_or_else(|| first_size(options.align_corners, options.multiple.unwrap_or(1)));
    [0, 1].map(|axis| sides[axis].unwrap_or(size[axis]))
}

/// Tries a single size.
fn one_size(
    candidate: &mut Candidate<'_>,
    options: &ImportOptions,
    size: [usize; 2],
    undeclared: bool,
) -> Result<FoundSizes, ImportError> {
    let trials = vec![candidate.try_size(size)?];
    let (grid, covers) = match grid(&trials, options.align_corners, 1) {
        Ok(grid) => (grid, false),
        Err(error) if options.align_corners && aligned(&trials).is_none() => return Err(error),
        Err(_) => (covering(options, 1), true),
    };
    let only = undeclared.then_some(size);
    Ok(FoundSizes { trials, grid, covers, only, searched: false, rounded: None })
}

/// Grid of an output without a whole stride.
fn covering(options: &ImportOptions, multiple: usize) -> LogitGrid {
    LogitGrid { stride: 1, encoder_stride: multiple, align_corners: options.align_corners }
}

/// Tries a file at multiples of a number of pixels, and finds the grid. With `covers` an output at
/// no whole stride will do.
fn try_multiple(
    candidate: &mut Candidate<'_>,
    options: &ImportOptions,
    multiple: usize,
    covers: bool,
) -> Result<FoundSizes, ImportError> {
    let align_corners = options.align_corners;
    let sides = candidate.format().sides;
    let fixed = |size: [usize; 2]| [0, 1].map(|axis| sides[axis].unwrap_or(size[axis]));
    let first = candidate.try_size(fixed(first_size(align_corners, multiple)))?;
    let found = grid(std::slice::from_ref(&first), align_corners, multiple);
    let may_cover = !align_corners || aligned(std::slice::from_ref(&first)).is_some();
    let covers = covers && found.is_err() && may_cover;
    let coarse = match found {
        Ok(grid) => grid,
        Err(_) if covers => covering(options, multiple),
        Err(error) => return Err(error),
    };
    let trials = vec![first, candidate.try_size(fixed(odd_size(coarse)))?];
    let grid = if covers { coarse } else { grid(&trials, align_corners, multiple)? };
    Ok(FoundSizes { trials, grid, covers, only: None, searched: false, rounded: None })
}

/// The same for the least multiple at which the file runs; else for a size that alone runs.
fn try_all(
    candidate: &mut Candidate<'_>,
    options: &ImportOptions,
    known: &KnownConfig,
) -> Result<FoundSizes, ImportError> {
    let mut failures = Vec::new();
    let all = [(false, &MULTIPLES[..]), (true, &MULTIPLES), (false, &ODD_MULTIPLES)];
    for (covers, multiples) in all {
        // Where nothing ran, other strides do not help; where something ran, other multiples.
        if !failures.is_empty() && covers != failures.iter().any(has_run) {
            continue;
        }
        for &multiple in multiples {
            match try_multiple(candidate, options, multiple, covers) {
                // The network may need a larger one.
                Err(
                    error @ (ImportError::Trial { .. }
                    | ImportError::Stride { .. }
                    | ImportError::Grid { .. }),
                ) => failures.push(error),
                result => return result,
            }
        }
    }
    // A file that ran has no need of a single size.
    if let Some(index) = failures.iter().position(has_run) {
        return Err(failures.swap_remove(index));
    }
    let windows = options.tiling.and_then(Tiling::window).map(|window| [window.size; 2]);
    let stated: Vec<[usize; 2]> =
        windows.into_iter().chain(known.geometry.size).chain(known.native).collect();
    let told = told_sizes::told_sizes(failures.iter().filter_map(|error| match error {
        ImportError::Trial { size, source } => Some((*size, source.to_string())),
        _ => None,
    }));
    let guessed = told.into_iter().chain(COMMON);
    let sides = candidate.format().sides;
    let fits = |size: &[usize; 2]| {
        size.iter().zip(sides).all(|(size, side)| side.is_none_or(|side| side == *size))
    };
    for size in stated.into_iter().filter(fits) {
        match one_size(candidate, options, size, true) {
            Err(ImportError::Trial { .. } | ImportError::Grid { .. }) => {}
            result => return result,
        }
    }
    if let Some(found) = one_more(candidate, options) {
        return Ok(found);
    }
    for size in guessed.filter(fits) {
        match one_size(candidate, options, size, true) {
            Err(ImportError::Trial { .. } | ImportError::Grid { .. }) => {}
            Ok(found) => {
                let found = exact(candidate, options, found, size)?;
                let rule =
                    if found.rounded.is_none() { divisor(candidate, options, size) } else { None };
                return Ok(rule.unwrap_or(found));
            }
            Err(error) => return Err(error),
        }
    }
    Err(failures.swap_remove(0))
}

/// Tries sizes of a multiple and one pixel more, as of networks whose corners lie on corner pixels.
fn one_more(candidate: &mut Candidate<'_>, options: &ImportOptions) -> Option<FoundSizes> {
    if options.align_corners || candidate.format().sides != [None; 2] {
        return None;
    }
    let options = ImportOptions { align_corners: true, ..options.clone() };
    let mut multiples = MULTIPLES.into_iter().skip(1);
    let found =
        multiples.find_map(|multiple| try_multiple(candidate, &options, multiple, true).ok());
    found.map(|found| FoundSizes { searched: true, ..found })
}

/// Tries multiples of the divisors of a size that runs.
fn divisor(
    candidate: &mut Candidate<'_>,
    options: &ImportOptions,
    size: [usize; 2],
) -> Option<FoundSizes> {
    if candidate.format().sides != [None; 2] {
        return None;
    }
    let is_new = |step: &usize| {
        let divides = size.iter().all(|side| side.is_multiple_of(*step));
        divides && !MULTIPLES.contains(step) && !ODD_MULTIPLES.contains(step)
    };
    let mut steps = (2..=MOST_MULTIPLE).filter(is_new);
    let found = steps.find_map(|step| try_multiple(candidate, options, step, true).ok());
    found.map(|found| FoundSizes { searched: true, ..found })
}

/// Corrects a size that was guessed: networks of patches take those too that fill no whole patches,
/// and lose the rest of them.
fn exact(
    candidate: &mut Candidate<'_>,
    options: &ImportOptions,
    found: FoundSizes,
    size: [usize; 2],
) -> Result<FoundSizes, ImportError> {
    let Some(shape) = found.trials.first().map(|trial| trial.reading.size) else {
        return Ok(found);
    };
    let sides = candidate.format().sides;
    let (mut least, mut largest, mut whole) = (size, size, size);
    for axis in [0, 1] {
        if sides[axis].is_some() {
            continue;
        }
        let mut runs = |side: usize| {
            let mut tried = size;
            tried[axis] = side;
            candidate.try_size(tried).is_ok_and(|trial| trial.reading.size == shape)
        };
        least[axis] = size[axis] - reach(|step| size[axis] > step && runs(size[axis] - step));
        largest[axis] = size[axis] + reach(|step| runs(size[axis] + step));
        // As many sides as a patch has pixels: one of them is a multiple of that.
        let patch = largest[axis] - least[axis] + 1;
        whole[axis] = largest[axis] / patch * patch;
        if whole[axis] < least[axis] {
            whole[axis] = size[axis];
        }
    }
    if least == largest {
        return Ok(found);
    }
    let found = if whole == size { found } else { one_size(candidate, options, whole, true)? };
    Ok(FoundSizes { rounded: Some([least, largest]), ..found })
}

/// Largest number of steps that hold, up to 63, where those of fewer hold too.
fn reach(mut holds: impl FnMut(usize) -> bool) -> usize {
    // Of most networks none does.
    if !holds(1) {
        return 0;
    }
    let mut sure = 0;
    for step in [32, 16, 8, 4, 2, 1] {
        if holds(sure + step) {
            sure += step;
        }
    }
    sure
}

fn has_run(error: &ImportError) -> bool {
    matches!(error, ImportError::Stride { .. })
}

/// First size to try where sizes are free: one that most networks take, and from which their stride
/// shows.
fn first_size(align_corners: bool, multiple: usize) -> [usize; 2] {
    [128, 192].map(|side: usize| side.next_multiple_of(multiple) + usize::from(align_corners))
}

/// Second size to try: odd multiples of what the network should take, and so multiples of nothing
/// more.
fn odd_size(grid: LogitGrid) -> [usize; 2] {
    let steps = 96_usize.div_ceil(grid.encoder_stride) | 1;
    [steps, steps + 2].map(|steps| grid.round_up(steps * grid.encoder_stride))
}

/// Says that one size was found to be the only one, and which others it stands for.
pub(super) fn only_remark([height, width]: [usize; 2], rounded: Option<[[usize; 2]; 2]>) -> String {
    let runs = match rounded {
        None => {
            format!("of those tried only {height}x{width} runs: it is taken to be the only one")
        }
        Some([[least_height, least_width], [largest_height, largest_width]]) => format!(
            "those from {least_height}x{least_width} to {largest_height}x{largest_width} alone run, with the same output, as of whole \
             patches: {height}x{width} is taken to be the only one"
        ),
    };
    format!(
        "the file leaves sizes open, but {runs}; --size names another, --multiple N multiples of N, and with --align-corners those and \
         one pixel more"
    )
}

/// Says which rule of sizes was found.
pub(super) fn rule_remark(grid: LogitGrid) -> String {
    let multiple = grid.encoder_stride;
    if grid.align_corners {
        return format!(
            "the file leaves sizes open, and of those tried multiples of {multiple} and one pixel more run, as of networks whose corner \
             logits lie on corner pixels (--align-corners); --multiple and --size override it"
        );
    }
    format!(
        "the file leaves sizes open, and of those tried multiples of {multiple} run; --multiple and --size override it"
    )
}

/// Says how outputs lie over images where that is at no whole stride.
pub(super) fn covering_remark(trials: &[Trial], colors: &Trial, align_corners: bool) -> String {
    let ([height, width], shape) = (colors.size, &colors.output.shape);
    let outputs = format!("outputs {shape:?} for images of {height}x{width} pixels");
    match aligned(trials) {
        Some(_) if align_corners => {
            format!("{outputs} are taken to lie with their corners on corner pixels")
        }
        Some(step) => format!(
            "{outputs} are taken to cover the whole image from edge to edge; {step}, as where corners lie on corner pixels: \
             then say --align-corners"
        ),
        None => format!(
            "{outputs} lie at no whole stride and are taken to cover the whole image: \
             where convolutions without padding cut its border off, labels would be shifted"
        ),
    }
}

/// Says in numbers that the outputs of all trials have a whole number of pixels between neighbors,
/// or pixels of them, if corners lie on corners; None where they do not.
fn aligned(trials: &[Trial]) -> Option<String> {
    let counts: Vec<(usize, usize)> = trials
        .iter()
        .flat_map(|trial| trial.size.into_iter().zip(trial.reading.size))
        .filter(|(pixels, outputs)| pixels.min(outputs) > &1)
        .collect();
    let (pixels, outputs) = *counts.first()?;
    let all = |fits: &dyn Fn(usize, usize) -> bool| {
        counts.iter().all(|&(pixels, outputs)| fits(pixels - 1, outputs - 1))
    };
    let coarser = (2..=64).find(|step| all(&|pixels, outputs| pixels == outputs * step));
    let finer = (2..=4).find(|step| all(&|pixels, outputs| outputs == pixels * step));
    match (coarser, finer) {
        (Some(step), _) => Some(format!("{outputs} is ({pixels} - 1) / {step} + 1")),
        (None, Some(step)) => Some(format!("{outputs} is ({pixels} - 1) * {step} + 1")),
        (None, None) => None,
    }
}

/// Finds the grid on which the outputs of all trials lie.
pub(super) fn grid(
    trials: &[Trial],
    align_corners: bool,
    multiple: usize,
) -> Result<LogitGrid, ImportError> {
    let counts: Vec<(usize, usize)> = trials
        .iter()
        .flat_map(|Trial { size, reading, .. }| size.iter().copied().zip(reading.size))
        .collect();
    LogitGrid::from_measurements(&counts, align_corners, multiple).ok_or_else(|| {
        let described = trials.iter().map(|Trial { size: [height, width], reading, .. }| {
            format!("{}x{} for {height}x{width}", reading.size[0], reading.size[1])
        });
        ImportError::Stride { found: described.collect::<Vec<_>>().join(", ") }
    })
}

#[cfg(test)]
mod tests {
    use super::reach;

    #[test]
    fn steps_are_counted_as_far_as_they_hold() {
        for most in [0, 1, 2, 7, 15, 31, 32, 63] {
            assert_eq!(reach(|step| step <= most), most);
        }
        assert_eq!(reach(|_| true), 63);
    }
}
