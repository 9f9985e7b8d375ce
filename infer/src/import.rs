//! Import of ONNX files of other programs. What a file declares leaves some ways to read it; each
//! is tried on synthetic images, and what the trials show goes into the manifest of a bundle.

mod border;
mod class_list;
mod error;
mod external_data;
mod file_kind;
mod geometry;
mod known_config;
mod known_geometry;
mod last_operation;
mod meaning;
mod notes;
mod other_outputs;
mod reading;
mod signature;
mod sizes;
mod steadiness;
mod told_sizes;
mod trial;
mod unsteady_nodes;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use protoseg_models::adapter::{Adapter, ChannelOrder, Normalization};
use protoseg_models::bundle::{
    BundleError, Manifest, Model, ModelFile, PROBE, ProbeReference, Provenance, TensorInfo,
};
use protoseg_models::classes::{ClassTable, IGNORE_INDEX};
use protoseg_models::errors::FileError;
use protoseg_models::interface::{
    Fit, InputElement, Interface, LabelValues, OutputLayout, ScoreKind,
};
use protoseg_models::probe::ProbeCase;
use protoseg_models::reading::ImageReading;
use protoseg_models::scaling::Resample;
use protoseg_models::variant::{ModelKind, Precision, Variant};
use protoseg_models::weights::Tensor;
use protoseg_models::window::{Blend, Tiling, Window};
use protoseg_models::{atomic, bundle, bundle_output, digest, probe};

pub use self::class_list::{ClassList, load_classes};
pub use self::error::ImportError;
use self::external_data::ExternalData;
use self::geometry::OutputFacts;
use self::known_config::{ConfigFault, KnownConfig};
use self::meaning::UnclearScale;
use self::sizes::FoundSizes;
use self::trial::{Candidate, Trial, chart};
use crate::config::EngineConfig;
use crate::session::{ExternalModel, RawOutput, RawValues, Runner, class_planes};
use crate::stitch::LogitMap;
use crate::upsample::{self, LogitGeometry};

/// Name of the file in its bundle.
const FILE: &str = "model.onnx";

/// Logits of an image beyond which the probe keeps its labels only: 16 MiB of them.
const MAX_LOGITS: usize = 1 << 22;

/// Facts that a file does not tell, and those in which trials are not to be trusted.
#[derive(Debug, Clone, PartialEq)]
pub struct ImportOptions {
    /// Name of the model.
    pub name: String,
    /// Classes in order of its channels or labels.
    pub classes: ClassTable,
    /// Output to use; by default the only one that can be scores or labels.
    pub output: Option<String>,
    /// Order of the output's dimensions; by default what its shape and the trials show.
    pub output_layout: Option<OutputLayout>,
    /// Channel order of the input; by default what a configuration with the file says, else RGB.
    pub order: Option<ChannelOrder>,
    /// Normalization; None for files that take bytes.
    pub normalization: Option<Normalization>,
    /// True where corner logits lie on corner pixels; otherwise edges coincide.
    pub align_corners: bool,
    /// Images are padded to multiples of this many pixels; by default the least power of two at
    /// which the network runs. Only where sizes are free.
    pub multiple: Option<usize>,
    /// Height and width of the images that the network takes, where the file leaves them open.
    pub size: Option<[usize; 2]>,
    /// How images get that size; by default windows where the file takes them.
    pub fit: Option<Fit>,
    /// Filter by which images are scaled; by default what a configuration with the file says, else
    /// the bilinear one.
    pub resample: Option<Resample>,
    /// Windows or whole images; by default windows where the file takes one size, else whole.
    pub tiling: Option<Tiling>,
    /// Windows along height and width, if they are oblong.
    pub oblong: Option<[Window; 2]>,
    /// Meaning of the scores; by default what the trials show.
    pub scores: Option<ScoreKind>,
    /// Of one channel: the score above which a pixel is of class 1; by default that of one half.
    pub threshold: Option<f32>,
    /// Values of labels; by default what the trials show.
    pub labels: Option<LabelChoice>,
    /// Precision of the weights, which decides the limits of a check.
    pub precision: Precision,
    /// How image files are read for the model.
    pub reading: ImageReading,
    /// Command line, for the manifest.
    pub command: String,
}

/// Values that labels have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LabelChoice {
    /// The positions of the classes, from 0.
    Positions,
    /// The ids of the classes in their data set.
    Ids,
    /// One for each class.
    Values(Vec<i64>),
}

/// A bundle that was written, and what the file was taken for.
#[derive(Debug, Clone, PartialEq)]
pub struct ImportedBundle {
    /// Its manifest.
    pub manifest: Manifest,
    /// Choices that trials decided and options can change, a sentence each.
    pub remarks: Vec<String>,
}

/// A file that was checked and tried.
struct InspectedModel {
    model: Model,
    file: ModelFile,
    cases: Vec<ProbeCase>,
    remarks: Vec<String>,
}

impl ImportOptions {
    /// The windows that are asked for, along height and width; Some(None) for whole images.
    fn windows(&self) -> Option<Option<[Window; 2]>> {
        let square = || self.tiling.map(|tiling| tiling.window().map(|window| [window; 2]));
        self.oblong.map(Some).or_else(square)
    }
}

/// Writes the bundle of an ONNX file. An older bundle at its place is replaced; anything else there
/// is an error.
pub fn write_bundle(
    path: &Path,
    out: &Path,
    options: &ImportOptions,
) -> Result<ImportedBundle, ImportError> {
    let place = bundle_output::resolve(out, path)?;
    let bytes =
        std::fs::read(path).map_err(|source| ImportError::Io { path: path.into(), source })?;
    file_kind::check(path, &bytes)?;
    let external = ExternalData::find(&bytes);
    external.check(path)?;
    let opened = ExternalModel::open(path, &EngineConfig::default())
        .map_err(|error| file_kind::with_way(error, &bytes))?;
    let InspectedModel { model, mut file, cases, remarks } =
        inspect(path, &bytes, opened, options)?;
    file.sha256 = digest::sha256_bytes(&bytes);
    file.weights = external.names();
    let mut manifest = Manifest {
        version: Manifest::VERSION.to_owned(),
        model,
        files: vec![file],
        probe_sha256: None,
        reference: ProbeReference::OwnOutputs,
        provenance: Provenance {
            command: options.command.clone(),
            window: None,
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
        let weights = external.copy(path, folder);
        let weights = weights.map_err(|(path, source)| io_failed(&path, source))?;
        manifest.files.iter_mut().for_each(|file| file.weights.clone_from(&weights));
        // Whatever else the file needs would stay behind.
        ExternalModel::open(&file, &EngineConfig::default())
            .map_err(|source| ImportError::Alone { path: path.into(), source })?;
        probe::write(&probe_file, &cases).map_err(|source| failed(source.into()))?;
        manifest.probe_sha256 = Some(
            digest::sha256_file(&probe_file).map_err(|source| io_failed(&probe_file, source))?,
        );
        manifest.write(folder).map_err(failed)
    })?;
    Ok(ImportedBundle { manifest, remarks })
}

/// Describes a file by what it declares and by trials. Its digests are left open.
fn inspect(
    path: &Path,
    bytes: &[u8],
    external: ExternalModel,
    options: &ImportOptions,
) -> Result<InspectedModel, ImportError> {
    let (inputs, outputs) = (external.inputs(), external.outputs());
    if let Some(name) = &options.output
        && !outputs.iter().any(|output| output.name == *name)
    {
        let known = bundle::signature(&outputs);
        return Err(ImportError::Signature(format!(
            "the file has no output `{name}`; it has {known}"
        )));
    }
    let formats = signature::input_formats(&inputs)?;
    let mut remarks = Vec::new();
    let known = match KnownConfig::with_model(path) {
        // Options that say the same are followed.
        Err(fault) if options.normalization.is_some() => {
            remarks.push(format!("not followed: {fault}"));
            KnownConfig::default()
        }
        known => known.map_err(ConfigFault::with_way)?,
    };
    let element = formats.first().map_or(InputElement::Float32, |format| format.element);
    let options = &completed(options, &known, element, &mut remarks)?;

    let task = notes::yolo_task(bytes);
    let mut runner: Option<Runner> = None;
    let mut external = Some(external);
    let mut failure: Option<ImportError> = None;
    for (format, doubtful) in formats
        .iter()
        .map(|format| (*format, false))
        .chain(signature::with_batches(&formats).map(|format| (format, true)))
    {
        let windowed = geometry::windows_of_side(options, format.sides);
        let options = windowed.as_ref().unwrap_or(options);
        let runner = match (&mut runner, external.take()) {
            (Some(runner), _) => runner,
            (None, Some(external)) => runner.insert(external.into_runner()),
            (None, None) => break,
        };
        let mut candidate = Candidate::new(runner, format, options, &outputs);
        candidate.task = task.as_deref();
        candidate.bytes = bytes;
        if doubtful {
            let runs = matches!(failure, Some(ImportError::Trial { .. }))
                && candidate.try_size(sizes::any_size(&candidate, options)).is_ok();
            if !runs {
                continue;
            }
        }
        let tried = |inputs| TriedModel { inputs, outputs: outputs.clone(), declared: formats[0] };
        if let Some(options) = &geometry::configured(options, &known, format.sides)
            && let Ok(found) = sizes::find(&mut candidate, options, &known)
        {
            return describe(candidate, found, tried(inputs), &known, options, remarks);
        }
        match sizes::find(&mut candidate, options, &known) {
            Ok(found) => {
                return describe(candidate, found, tried(inputs), &known, options, remarks);
            }
            Err(error) if error.is_final() => return Err(error),
            // Another number of classes tells more than a run that failed.
            Err(error @ ImportError::Classes { .. })
                if !matches!(failure, Some(ImportError::Classes { .. })) =>
            {
                failure = Some(error);
            }
            Err(error) => {
                failure.get_or_insert(error);
            }
        }
    }
    Err(failure.unwrap_or_else(|| ImportError::Signature("the file has no input".to_owned())))
}

/// Declarations of a file that was tried.
struct TriedModel {
    inputs: Vec<TensorInfo>,
    outputs: Vec<TensorInfo>,
    declared: signature::InputFormat,
}

/// Completes the options by a known configuration, and checks them against the input's type.
fn completed(
    options: &ImportOptions,
    known: &KnownConfig,
    element: InputElement,
    remarks: &mut Vec<String>,
) -> Result<ImportOptions, ImportError> {
    let mut options = options.clone();
    let file = &known.file;
    match (options.normalization, known.normalization) {
        (None, Some(found)) if element.is_float() => {
            options.normalization = Some(found);
            remarks.push(format!("normalization of {file}, {found}; --normalization overrides it"));
        }
        (None, Some(found)) => remarks.push(format!(
            "the normalization of {file}, {found}, is left to the file, which takes bytes"
        )),
        (Some(asked), Some(found)) if asked != found => remarks.push(format!(
            "the normalization is {asked}, as the options say; that of {file} is {found}"
        )),
        _ => {}
    }
    match (options.order, known.order) {
        (None, Some(ChannelOrder::Bgr)) if element.is_float() => {
            options.order = Some(ChannelOrder::Bgr);
            remarks.push(format!("channel order bgr, as {file} says; --order overrides it"));
        }
        (None, Some(ChannelOrder::Bgr)) => remarks.push(format!(
            "the channel order is rgb, as the file takes bytes and may flip them itself; {file} says bgr, which --order bgr follows"
        )),
        (Some(asked), Some(found)) if asked != found => {
            let name = |order| if order == ChannelOrder::Bgr { "bgr" } else { "rgb" };
            remarks.push(format!(
                "the channel order is {}, as --order says; that of {file} is {}",
                name(asked),
                name(found)
            ));
        }
        _ => {}
    }
    let message = match (options.normalization, element.is_float()) {
        (None, true) => {
            "the file takes floats and does not say which: give --normalization imagenet, unit or none, or --mean and --std"
        }
        (Some(_), false) => {
            "the file takes bytes, so it normalizes by itself: leave out --normalization, --mean, --std and --scale"
        }
        _ => return Ok(options),
    };
    Err(ImportError::Options(message.to_owned()))
}

/// Settles what the output means and how images get through the file.
fn describe(
    mut candidate: Candidate<'_>,
    FoundSizes { trials, grid, covers, only, searched, rounded }: FoundSizes,
    TriedModel { inputs, outputs, declared }: TriedModel,
    known: &KnownConfig,
    options: &ImportOptions,
    mut remarks: Vec<String>,
) -> Result<InspectedModel, ImportError> {
    let Some(size) = trials.first().map(|trial| trial.size) else {
        return Err(ImportError::Signature("the file could not be tried".to_owned()));
    };
    let colors = candidate.try_image(chart(size), size)?;
    if let Some(trial) = trials.iter().chain([&colors]).find(|trial| !trial.is_finite()) {
        return Err(ImportError::NotFinite(trial.size));
    }
    if let Some(first) = trials.first() {
        remarks.extend(steadiness::check(&mut candidate, [first, &colors])?);
    }
    if covers {
        border::check(&mut candidate, &trials)?;
    }
    remarks.append(&mut candidate.remarks);
    let batch = trials.first().map_or(Some(1), |scene| candidate.batch([scene, &colors]));
    let format = candidate.format();
    if !format.declared {
        let channels = if format.gray { 1 } else { 3 };
        remarks.push(format!("input taken as {} of {channels} channels", format.layout.text()));
    }
    if let Some(gray) = options.normalization.filter(|_| format.gray)
        && gray != gray.gray()
    {
        remarks.push(format!(
            "one channel: the constants of red, green and blue are averaged, {}; --mean and --std take one number for another",
            gray.gray()
        ));
    }
    if let Some(only) = only.filter(|_| options.size.is_none()) {
        remarks.push(sizes::only_remark(only, rounded));
    }
    if searched {
        remarks.push(sizes::rule_remark(grid));
    }
    let open_batch = declared.batch.is_none() && format.layout.has_batch();
    remarks.extend(batch.filter(|_| open_batch).map(batch_remark));
    let mut adapter = candidate.adapter(only, batch);
    let meaning = Meaning::find(&mut candidate, &trials, &colors, options, &mut remarks)?;
    meaning.write(&mut adapter);
    let facts = OutputFacts {
        labels: meaning.kind == ModelKind::Labels,
        covers: covers && meaning.kind != ModelKind::Labels,
        size: adapter.size,
        sides: adapter.interface.sides,
        grid,
    };
    let fit = geometry::choose(options, known, facts)?;
    adapter.interface.fit = fit.fit;
    adapter.interface.windows = fit.oblong;
    adapter.interface.covers = facts.covers;
    adapter.interface.resample = fit.resample;
    adapter.interface.bars = fit.bars;
    if let Some(Window { size, .. }) = fit.window.filter(|_| adapter.size.is_none())
        && !sizes::grid(&[candidate.try_size([size; 2])?], grid.align_corners, 1)
            .is_ok_and(|found| found.stride == grid.stride)
    {
        return Err(ImportError::Window { size, stride: grid.stride });
    }
    remarks.extend(fit.remarks);
    remarks.extend(geometry::untaken(known, fit.fit, adapter.size));
    if facts.covers {
        remarks.push(sizes::covering_remark(&trials, &colors, grid.align_corners));
    }
    let model = Model {
        version: Model::VERSION.to_owned(),
        name: options.name.clone(),
        classes: options.classes.clone(),
        ignore: IGNORE_INDEX,
        grid,
        window: fit.window,
        arch: None,
        blend: Blend::Ramp,
        weights_sha256: None,
        reading: options.reading,
    };
    let kind = meaning.kind;
    let runner = candidate.into_runner();
    runner.adapt(adapter.clone());
    let cases = trials
        .into_iter()
        .map(|trial| probe_case(runner, trial, kind, &model))
        .collect::<Result<_, _>>()?;
    let file = ModelFile {
        file: FILE.to_owned(),
        variant: Variant { kind, precision: options.precision, frame: None, quantization: None },
        sha256: String::new(),
        data_sha256: None,
        weights: BTreeMap::new(),
        inputs,
        outputs,
        limits: None,
        adapter: Some(adapter),
    };
    Ok(InspectedModel { model, file, cases, remarks })
}

/// Says how many images a file takes at once that leaves the number open.
fn batch_remark(batch: usize) -> String {
    match batch {
        1 => "one image at a time: two at once fail, or get other outputs".to_owned(),
        batch => format!("{batch} images at a time, as no other number runs"),
    }
}

/// Meaning of an output's values.
struct Meaning {
    kind: ModelKind,
    layout: OutputLayout,
    scores: ScoreKind,
    threshold: Option<f32>,
    labels: Option<LabelValues>,
}

impl Meaning {
    fn find(
        candidate: &mut Candidate<'_>,
        trials: &[Trial],
        colors: &Trial,
        options: &ImportOptions,
        remarks: &mut Vec<String>,
    ) -> Result<Self, ImportError> {
        let refused = |message: String| Err(ImportError::Options(message));
        let (layout, one) = (colors.reading.layout, colors.reading.channels == 1);
        let all = || trials.iter().chain([colors]);
        let asked_scores = options.scores.is_some() || options.threshold.is_some();
        let values: Option<BTreeSet<i64>> =
            if one && !asked_scores { label_set(all().map(|trial| &trial.output)) } else { None };
        let count = options.classes.count();
        if let Some(values) = values {
            if options.align_corners {
                return refused("--align-corners says how logits lie over pixels, and this file gives labels: leave it out".to_owned());
            }
            let (labels, said) =
                meaning::label_values(&values, &options.classes, options.labels.as_ref())?;
            remarks.push(said);
            let floats = matches!(colors.output.values, RawValues::Floats(_));
            let same = meaning::same_label(&values, &labels, &options.classes, floats);
            remarks.extend(same.or_else(|| steadiness::blind(trials.first()?, colors)));
            let (scores, threshold, kind) = (ScoreKind::Logits, None, ModelKind::Labels);
            return Ok(Self { kind, layout, scores, threshold, labels: Some(labels) });
        }
        if options.labels.is_some() {
            return refused("--label-values is for files that give labels, and this one gives scores: leave it out".to_owned());
        }
        if one && count != 2 {
            return Err(ImportError::Signature(format!(
                "the file gives one channel of scores, which tells two classes apart, and --classes names {count}"
            )));
        }
        if !one && options.threshold.is_some() {
            return refused(format!(
                "--threshold is for one channel, and this file gives scores of {count} classes: leave it out"
            ));
        }
        let planes = |output: RawOutput| {
            let interface = Interface { output: Some(layout), ..Interface::default() };
            class_planes(output, &interface)
        };
        let scores: Vec<Tensor> = all().map(|trial| planes(trial.output.clone())).collect();
        let far = candidate.exaggerated(colors.size).map(planes);
        let between_ones = candidate.lies_between_ones();
        let found = || meaning::score_kind(&scores, far.as_ref(), between_ones);
        let mut kind = options.scores.unwrap_or_else(found);
        let unclear = meaning::unclear_scale(&scores, far.as_ref(), kind);
        if let Some(UnclearScale { found, .. }) =
            unclear.as_ref().filter(|_| options.scores.is_none() && options.threshold.is_some())
        {
            kind = ScoreKind::Unscaled;
            remarks.push(format!(
                "{found}: the labels follow --threshold, and nothing tells how sure they are, so that confidence, margin and \
                 pseudo-labels are refused; let the file give probabilities or logits for those, or name the kind with --scores"
            ));
        }
        if one && kind == ScoreKind::LogSigmoid {
            kind = ScoreKind::LogProbabilities;
        }
        if kind == ScoreKind::Unscaled && options.scores.is_none() && options.threshold.is_none() {
            remarks.push(
                "the scores lie between -1 and 1, as those of tanh or of unit vectors: labels are right, and nothing tells how sure they are, so that \
                 confidence, margin and pseudo-labels are refused"
                    .to_owned(),
            );
        }
        let asked_unscaled = options.scores == Some(ScoreKind::Unscaled);
        if one && asked_unscaled && options.threshold.is_none() {
            return refused("--scores unscaled does not tell which score of one channel is a half: add --threshold".to_owned());
        }
        let threshold = one.then(|| options.threshold.unwrap_or(meaning::usual_threshold(kind)));
        let origin = if options.scores.is_some() {
            "as --scores says"
        } else {
            "as the trials show; --scores overrides it"
        };
        remarks.push(format!("scores are {}, {origin}", kind.name()));
        let integers = matches!(colors.output.values, RawValues::Integers(_));
        let colored = if integers { meaning::colored(&scores) } else { None };
        if let Some(colored) = colored.filter(|_| options.scores.is_none()) {
            return refused(colored);
        }
        let blind = || steadiness::blind(trials.first()?, colors);
        let winner = || meaning::one_winner(&scores, threshold, &options.classes);
        remarks.extend(meaning::constant(&scores).or_else(blind).or_else(winner));
        let settled = kind == ScoreKind::Unscaled || options.scores == Some(ScoreKind::Logits);
        if let Some(UnclearScale { found, way }) = unclear.filter(|_| !settled) {
            return refused(format!("{found}: {way}"));
        }
        if !one {
            remarks.extend(meaning::doubtful_order(&options.classes));
        }
        if let Some(threshold) = threshold {
            let class = options.classes.classes().get(1).map_or("", |class| &class.name);
            remarks.push(format!(
                "one channel: pixels above {threshold} are `{class}`; --threshold sets another"
            ));
        }
        Ok(Self { kind: ModelKind::Logits, layout, scores: kind, threshold, labels: None })
    }

    /// Writes what differs from the usual.
    fn write(&self, adapter: &mut Adapter) {
        let usual = match self.kind {
            ModelKind::Labels => matches!(self.layout, OutputLayout::Nchw | OutputLayout::Nhw),
            ModelKind::Logits | ModelKind::Frame => self.layout == OutputLayout::Nchw,
        };
        adapter.interface.output = (!usual).then_some(self.layout);
        adapter.interface.scores = self.scores;
        adapter.interface.threshold = self.threshold;
        adapter.interface.labels.clone_from(&self.labels);
    }
}

/// The different values of outputs of integers, or of floats that are all whole.
fn label_set<'a>(outputs: impl Iterator<Item = &'a RawOutput>) -> Option<BTreeSet<i64>> {
    let mut found = BTreeSet::new();
    for output in outputs {
        match &output.values {
            RawValues::Integers(values) => found.extend(values),
            RawValues::Floats(_) => {
                let whole = output.clone().into_integers()?;
                // Scores may be whole by chance, but hardly all of them numbers of classes.
                if whole.iter().any(|value| !(0..=255).contains(value)) {
                    return None;
                }
                found.extend(whole);
            }
        }
    }
    Some(found)
}

/// Runs the image of a trial as the bundle will, and makes it a case of the probe.
fn probe_case(
    runner: &mut Runner,
    trial: Trial,
    kind: ModelKind,
    model: &Model,
) -> Result<ProbeCase, ImportError> {
    let Trial { size: size @ [height, width], image, .. } = trial;
    let frame = LogitGeometry::new(size, size, model.grid.align_corners);
    let unreadable =
        |found: Vec<usize>| ImportError::Grid { size, found, output: model.name.clone() };
    let (logits, labels) = if kind == ModelKind::Labels {
        let found = runner.run_labels(&image, [1, height, width], model.classes.count())?;
        let labels = match found.shape[..] {
            [1, rows, columns] => frame.spread_labels(&found.data, [rows, columns]),
            _ => None,
        };
        (ProbeCase::no_logits(), labels.ok_or_else(|| unreadable(found.shape))?)
    } else {
        let Tensor { shape, data } = runner.run(&image, [1, height, width])?;
        let [1, classes, rows, columns] = shape[..] else { return Err(unreadable(shape)) };
        let map = LogitMap { classes, height: rows, width: columns, data };
        let labels = upsample::labels(&map, &frame);
        let few = map.data.len() <= MAX_LOGITS;
        let logits = if few { Tensor { shape, data: map.data } } else { ProbeCase::no_logits() };
        (logits, labels)
    };
    Ok(ProbeCase {
        name: format!("{height}x{width}"),
        height,
        width,
        image,
        logits,
        labels,
        prototype_confidence: None,
    })
}
