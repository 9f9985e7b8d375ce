//! The sizes of images that a file takes, and the grid on which its output lies.

use protoseg_models::window::{LogitGrid, Tiling};

use super::trial::{Candidate, Trial};
use super::{ImportError, ImportOptions};

/// Multiples to which images are padded; by default the first at which the network runs.
const MULTIPLES: [usize; 8] = [1, 2, 4, 8, 16, 32, 64, 128];

/// Further multiples, tried where none of those runs: patches of 14 pixels, and others.
const ODD_MULTIPLES: [usize; 12] = [14, 12, 20, 24, 28, 48, 3, 5, 6, 7, 10, 96];

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
}

/// Finds the sizes that a file takes in one format.
pub(super) fn find(
    candidate: &mut Candidate<'_>,
    options: &ImportOptions,
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
        None => try_all(candidate, options),
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
        Err(error) if options.align_corners => return Err(error),
        Err(_) => (covering(options, 1), true),
    };
    Ok(FoundSizes { trials, grid, covers, only: undeclared.then_some(size) })
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
    let covers = covers && found.is_err() && !align_corners;
    let coarse = match found {
        Ok(grid) => grid,
        Err(_) if covers => covering(options, multiple),
        Err(error) => return Err(error),
    };
    let trials = vec![first, candidate.try_size(fixed(odd_size(coarse)))?];
    let grid = if covers { coarse } else { grid(&trials, align_corners, multiple)? };
    Ok(FoundSizes { trials, grid, covers, only: None })
}

/// The same for the least multiple at which the file runs; else for a size that alone runs.
fn try_all(
    candidate: &mut Candidate<'_>,
    options: &ImportOptions,
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
    let told = failures.iter().flat_map(told_sizes);
    let mut sizes: Vec<[usize; 2]> = windows.into_iter().chain(told).collect();
    sizes.extend(COMMON);
    let sides = candidate.format().sides;
    let fits = |size: &[usize; 2]| {
        size.iter().zip(sides).all(|(size, side)| side.is_none_or(|side| side == *size))
    };
    for size in sizes.into_iter().filter(fits) {
        match one_size(candidate, options, size, true) {
            Err(ImportError::Trial { .. } | ImportError::Grid { .. }) => {}
            result => return result,
        }
    }
    Err(failures.swap_remove(0))
}

fn has_run(error: &ImportError) -> bool {
    matches!(error, ImportError::Stride { .. })
}

/// Sizes that an error of ONNX Runtime may tell: the numbers in it, and the roots of squares.
fn told_sizes(error: &ImportError) -> Vec<[usize; 2]> {
    let ImportError::Trial { source, .. } = error else { return Vec::new() };
    let text = source.to_string();
    let numbers = text.split(|letter: char| !letter.is_ascii_digit());
    let numbers = numbers.filter_map(|digits| digits.parse::<usize>().ok());
    let mut sizes: Vec<[usize; 2]> = Vec::new();
    for number in numbers {
        for side in [number, number.isqrt()] {
            if (16..=2048).contains(&side) && !sizes.contains(&[side; 2]) {
                sizes.push([side; 2]);
            }
        }
    }
    sizes
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
