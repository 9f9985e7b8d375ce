//! An ONNX file that somebody else made as a bundle: its inputs and outputs are judged, it is tried on drawn scenes, and what
//! it does not say of itself goes into the manifest.

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
use protoseg_models::variant::{ModelKind, Precision, Variant};
use protoseg_models::window::{LogitGrid, Tiling, Window};
use protoseg_models::{atomic, bundle_output, digest, probe};

pub use self::error::ImportError;
use self::signature::InputFormat;
use self::trial::Trial;
use crate::config::EngineConfig;
use crate::session::ExternalModel;

/// Name of the file in its bundle.
const FILE: &str = "model.onnx";

/// To multiples of how many pixels pictures are padded: the first at which the network runs, where nobody says otherwise.
const MULTIPLES: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];

/// What a file does not say of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct ImportOptions {
    /// What the model is called.
    pub name: String,
    /// Its classes, in order of its channels or labels.
    pub classes: ClassTable,
    /// The output that counts; none for the only one that can be logits or labels.
    pub output: Option<String>,
    /// Order in which colours go in.
    pub order: ChannelOrder,
    /// What becomes of a byte; none for files that take bytes.
    pub normalization: Option<Normalization>,
    /// Whether corner logits lie on corner pixels; otherwise edges coincide.
    pub align_corners: bool,
    /// Pictures are padded to multiples of this many pixels; none for the least power of two at which the network runs. Only
    /// where sizes are free.
    pub multiple: Option<usize>,
    /// In which pieces pictures are run; none for windows where the file takes one square size, else whole.
    pub pieces: Option<Tiling>,
    /// Number format of the weights, which decides what a check lets pass.
    pub precision: Precision,
    /// The command, for the manifest.
    pub command: String,
}

/// A file that was judged and tried.
struct InspectedModel {
    model: Model,
    file: ModelFile,
    cases: Vec<ProbeCase>,
}

/// Writes the bundle of an ONNX file. An older bundle at its place is replaced, anything else is left alone and refused.
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
        // Weights beside the file would stay behind.
        ExternalModel::open(&file, &EngineConfig::default())
            .map_err(|_| ImportError::Parts(path.into()))?;
        probe::write(&probe_file, &cases).map_err(|source| failed(source.into()))?;
        manifest.probe_sha256 = Some(
            digest::sha256_file(&probe_file).map_err(|source| io_failed(&probe_file, source))?,
        );
        manifest.write(folder).map_err(failed)
    })?;
    Ok(manifest)
}

/// What the file is, from what it declares and from a trial. Its digest is left open.
fn inspect(path: &Path, request: &ImportOptions) -> Result<InspectedModel, ImportError> {
    let foreign = ExternalModel::open(path, &EngineConfig::default())?;
    let (inputs, outputs) = (foreign.inputs(), foreign.outputs());
    let intake = signature::input_format(&inputs)?;
    let (output, kind) =
        signature::choose(&outputs, request.output.as_deref(), request.classes.count())?;
    check(request, &intake, kind)?;
    let adapter = Adapter {
        layout: intake.layout,
        order: request.order,
        normalization: request.normalization,
        batch: intake.batch,
        size: intake.size,
        output: output.name.clone(),
    };

    let mut runner = foreign.with_adapter(adapter.clone());
    let mut try_size = |size| trial::run(&mut runner, kind, request.classes.count(), size);
    let (trials, found) = match (intake.size, request.multiple) {
        (Some(size), _) => {
            let trials = vec![try_size(size)?];
            let grid = trial::grid(&trials, request.align_corners, 1)?;
            (trials, grid)
        }
        (None, Some(multiple)) => try_multiple(&mut try_size, request.align_corners, multiple)?,
        (None, None) => try_multiples(&mut try_size, request.align_corners)?,
    };
    let window = window(request, kind, intake.size, found)?;
    if let Some(Window { size, .. }) = window.filter(|_| intake.size.is_none())
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
        weights_sha256: None,
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

/// Trials of a file that is said to take all multiples of a number of pixels, and the grid that they show.
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

/// The same for the least multiple of which that is true.
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
            settled => return settled,
        }
    }
    try_multiple(try_size, align_corners, last)
}

/// Whether what was asked for fits what the file takes and gives.
fn check(
    request: &ImportOptions,
    intake: &InputFormat,
    kind: ModelKind,
) -> Result<(), ImportError> {
    match (request.normalization, intake.bytes) {
        (None, false) => return Err(ImportError::NormalizationMissing),
        (Some(_), true) => return Err(ImportError::NormalizationNeedless),
        _ => {}
    }
    if request.align_corners && kind == ModelKind::Labels {
        return Err(ImportError::LabelsAligned);
    }
    match (intake.size, request.multiple) {
        (Some([height, width]), Some(_)) => Err(ImportError::FixedMultiple { height, width }),
        _ => Ok(()),
    }
}

/// The windows in which pictures are run; none for whole pictures.
fn window(
    request: &ImportOptions,
    kind: ModelKind,
    size: Option<[usize; 2]>,
    grid: LogitGrid,
) -> Result<Option<Window>, ImportError> {
    let asked = request.pieces.map(Tiling::window);
    let window = match (asked, size) {
        (Some(Some(_)), _) if kind == ModelKind::Labels => {
            return Err(ImportError::LabelsInWindows);
        }
        (Some(Some(window)), Some([height, width])) if [window.size; 2] != [height, width] => {
            return Err(ImportError::FixedWindow { size: window.size, height, width });
        }
        (Some(asked), _) => asked,
        (None, Some([height, width])) if height == width && kind == ModelKind::Logits => {
            // Two thirds apart, as the windows of protoseg's own networks are.
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
