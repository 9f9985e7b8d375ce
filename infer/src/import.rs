//! Import of ONNX files of other programs: their inputs and outputs are checked, they are tried on
//! synthetic images, and what they do not say of themselves goes into the manifest of a bundle.

mod error;
mod signature;
mod trial;

use std::path::Path;

use protoseg_models::adapter::{Adapter, ChannelOrder, Normalization};
use protoseg_models::bundle::{
    BundleError, Manifest, Model, ModelFile, PROBE, ProbeReference, Provenance,
};
use protoseg_models::classes::{ClassTable, IGNORE_INDEX};
use protoseg_models::errors::FileError;
use protoseg_models::probe::ProbeCase;
use protoseg_models::reading::ImageReading;
use protoseg_models::variant::{ModelKind, Precision, Variant};
use protoseg_models::window::{Blend, LogitGrid, Tiling, Window};
use protoseg_models::{atomic, bundle_output, digest, probe};

pub use self::error::ImportError;
use self::signature::InputFormat;
use self::trial::Trial;
use crate::config::EngineConfig;
use crate::session::ExternalModel;

/// Name of the file in its bundle.
const FILE: &str = "model.onnx";

/// Multiples to which images are padded; by default the first at which the network runs.
const MULTIPLES: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];

/// Facts that a file does not tell.
#[derive(Debug, Clone, PartialEq)]
pub struct ImportOptions {
    /// Name of the model.
    pub name: String,
    /// Classes in order of its channels or labels.
    pub classes: ClassTable,
    /// Output to use; by default the only one that can be logits or labels.
    pub output: Option<String>,
    /// Channel order of the input.
    pub order: ChannelOrder,
    /// Normalization; None for files that take bytes.
    pub normalization: Option<Normalization>,
    /// True where corner logits lie on corner pixels; otherwise edges coincide.
    pub align_corners: bool,
    /// Images are padded to multiples of this many pixels; by default the least power of two at
    /// which the network runs. Only where sizes are free.
    pub multiple: Option<usize>,
    /// Windows or whole images; by default windows where the file takes one square size, else
    /// whole.
    pub tiling: Option<Tiling>,
    /// Precision of the weights, which decides the limits of a check.
    pub precision: Precision,
    /// How image files are read for the model.
    pub reading: ImageReading,
    /// Command line, for the manifest.
    pub command: String,
}

/// A file that was checked and tried.
struct InspectedModel {
    model: Model,
    file: ModelFile,
    cases: Vec<ProbeCase>,
}

/// Writes the bundle of an ONNX file. An older bundle at its place is replaced; anything else there
/// is an error.
pub fn write_bundle(
    path: &Path,
    out: &Path,
    request: &ImportOptions,
) -> Result<Manifest, ImportError> {
    let place = bundle_output::resolve(out, path)?;
    let bytes =
        std::fs::read(path).map_err(|source| ImportError::Io { path: path.into(), source })?;
    let InspectedModel { model, mut file, cases } = inspect(path, request)?;
    file.sha256 = digest::sha256_bytes(&bytes);
    let mut manifest = Manifest {
        version: Manifest::VERSION.to_owned(),
        model,
        files: vec![file],
        probe_sha256: None,
        reference: ProbeReference::OwnOutputs,
        provenance: Provenance {
            command: request.command.clone(),
            protoseg: env!("CARGO_PKG_VERSION").to_owned(),
        },
        metrics: None,
        gate: Vec::new(),
    };
    let known = bundle_output::replaceable_names(&place, &manifest);
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    atomic::write_folder(&place, &known, |folder| {
        let (file, probe_file) = (folder.join(FILE), folder.join(PROBE));
        let failed = |source: BundleError| ImportError::Write { out: out.into(), source };
        let io_failed =
            |path: &Path, source| failed(FileError { path: path.into(), source }.into());
        atomic::write(&file, &bytes).map_err(|source| io_failed(&file, source))?;
        // Weights in other files would stay behind.
        ExternalModel::open(&file, &EngineConfig::default())
            .map_err(|_| ImportError::ExternalWeights(path.into()))?;
        probe::write(&probe_file, &cases).map_err(|source| failed(source.into()))?;
        manifest.probe_sha256 = Some(
            digest::sha256_file(&probe_file).map_err(|source| io_failed(&probe_file, source))?,
        );
        manifest.write(folder).map_err(failed)
    })?;
    Ok(manifest)
}

/// Describes a file by what it declares and by trials. Its digest is left open.
fn inspect(path: &Path, request: &ImportOptions) -> Result<InspectedModel, ImportError> {
    let external = ExternalModel::open(path, &EngineConfig::default())?;
    let (inputs, outputs) = (external.inputs(), external.outputs());
    let input = signature::input_format(&inputs)?;
    let (output, kind) =
        signature::choose(&outputs, request.output.as_deref(), request.classes.count())?;
    check(request, &input, kind)?;
    let adapter = Adapter {
        layout: input.layout,
        order: request.order,
        normalization: request.normalization,
        batch: input.batch,
        size: input.size,
        output: output.name.clone(),
    };

    let mut runner = external.with_adapter(adapter.clone());
    let mut try_size = |size| trial::run(&mut runner, kind, request.classes.count(), size);
    let (trials, found) = match (input.size, request.multiple) {
        (Some(size), _) => {
            let trials = vec![try_size(size)?];
            let grid = trial::grid(&trials, request.align_corners, 1)?;
            (trials, grid)
        }
        (None, Some(multiple)) => try_multiple(&mut try_size, request.align_corners, multiple)?,
        (None, None) => try_multiples(&mut try_size, request.align_corners)?,
    };
    let window = window(request, kind, input.size, found)?;
    if let Some(Window { size, .. }) = window.filter(|_| input.size.is_none())
        && !trial::grid(&[try_size([size; 2])?], request.align_corners, 1)
            .is_ok_and(|grid| grid.stride == found.stride)
    {
        return Err(ImportError::Window { size, stride: found.stride });
    }
    let model = Model {
        version: Model::VERSION.to_owned(),
        name: request.name.clone(),
        classes: request.classes.clone(),
        ignore: IGNORE_INDEX,
        grid: found,
        window,
        arch: None,
        blend: Blend::Ramp,
        weights_sha256: None,
        reading: request.reading,
    };
    let form = Variant { kind, precision: request.precision, frame: None, quantization: None };
    let file = ModelFile {
        file: FILE.to_owned(),
        variant: form,
        sha256: String::new(),
        data_sha256: None,
        inputs,
        outputs,
        limits: None,
        adapter: Some(adapter),
    };
    Ok(InspectedModel {
        model,
        file,
        cases: trials.into_iter().map(|trial| trial.into_case(found)).collect(),
    })
}

/// Tries a file at multiples of a number of pixels, and finds the grid.
fn try_multiple(
    try_size: &mut impl FnMut([usize; 2]) -> Result<Trial, ImportError>,
    align_corners: bool,
    multiple: usize,
) -> Result<(Vec<Trial>, LogitGrid), ImportError> {
    let first = try_size(trial::first_size(align_corners, multiple))?;
    let grid = trial::grid(std::slice::from_ref(&first), align_corners, multiple)?;
    let trials = vec![first, try_size(trial::odd_size(grid))?];
    let grid = trial::grid(&trials, align_corners, multiple)?;
    Ok((trials, grid))
}

/// The same for the least multiple at which the file runs.
fn try_multiples(
    try_size: &mut impl FnMut([usize; 2]) -> Result<Trial, ImportError>,
    align_corners: bool,
) -> Result<(Vec<Trial>, LogitGrid), ImportError> {
    let [less @ .., last] = MULTIPLES;
    for multiple in less {
        match try_multiple(try_size, align_corners, multiple) {
            // The network may need a larger one.
            Err(
                ImportError::Trial { .. } | ImportError::Stride { .. } | ImportError::Grid { .. },
            ) => {}
            result => return result,
        }
    }
    try_multiple(try_size, align_corners, last)
}

/// Checks the options against the inputs and outputs of the file.
fn check(request: &ImportOptions, input: &InputFormat, kind: ModelKind) -> Result<(), ImportError> {
    let message = match (request.normalization, input.bytes) {
        (None, false) => {
            "the file takes floats and does not say which: give --normalization imagenet, unit or none, or --mean and --std".to_owned()
        }
        (Some(_), true) => {
            "the file takes bytes, so it normalizes by itself: leave out --normalization, --mean, --std and --scale".to_owned()
        }
        _ if request.align_corners && kind == ModelKind::Labels => {
            "--align-corners says how logits lie over pixels, and this file gives labels: leave it out".to_owned()
        }
        _ => match (input.size, request.multiple) {
            (Some([height, width]), Some(_)) => format!(
                "the file takes images of {height}x{width} (height x width) and nothing else: leave out --multiple"
            ),
            _ => return Ok(()),
        },
    };
    Err(ImportError::Options(message))
}

/// Chooses the windows; None for whole images.
fn window(
    request: &ImportOptions,
    kind: ModelKind,
    size: Option<[usize; 2]>,
    grid: LogitGrid,
) -> Result<Option<Window>, ImportError> {
    let asked = request.tiling.map(Tiling::window);
    let window = match (asked, size) {
        (Some(Some(_)), _) if kind == ModelKind::Labels => {
            return Err(ImportError::Options(
                "the file gives labels, and overlapping windows of labels have no mean: it can run images whole only".to_owned(),
            ));
        }
        (Some(Some(window)), Some([height, width])) if [window.size; 2] != [height, width] => {
            return Err(ImportError::Options(format!(
                "windows of {0}x{0} do not fit: the file takes {height}x{width} (height x width) and nothing else",
                window.size
            )));
        }
        (Some(asked), _) => asked,
        (None, Some([height, width])) if height == width && kind == ModelKind::Logits => {
            // Two thirds apart, as in protoseg's own bundles.
            let steps = height * 2 / 3 / grid.stride;
            Some(Window { size: height, stride: steps.max(1) * grid.stride })
        }
        (None, _) => None,
    };
    if let Some(window) = window {
        grid.check(window)?;
    }
    Ok(window)
}
