//! Configuration of a run: one flat TOML file; `--set key=value` overrides any key.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use protoseg_models::arch::{Arch, Preset, VitOptions};
use protoseg_models::reading::{Channels, ImageReading, SampleRange};
use protoseg_models::window::{Tiling, Window};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

mod check;
pub mod crop_size;
pub mod fidelity;
pub mod options;
pub mod reference;
pub mod resume;
mod warmup;

use crop_size::CropSize;
use options::{
    ClassWeights, DataSource, FeatureSource, Fidelity, PadLabel, PointSampling, Precision,
    PrototypeAverage, SupervisedLoss, TeacherStatistics, TrainingMode, TransformerHead,
    UnlabeledScale, UpdateRule,
};

// The doc comments are user documentation: with the defaults and the ranges they make up the page
// of `reference`, where `group` starts a section. `check` enforces the ranges.
/// Configuration of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Data set and its folder layout.
    #[schemars(extend("group" = "Data"))]
    pub data: DataSource,
    /// Folder of the data set. Needed by every data set but `synthetic`.
    pub root: Option<PathBuf>,
    /// List file of the labeled images, or a folder of them such as `images/train`, relative to
    /// `root`, or else to the current folder. For `folder`, `all` stands for all images there, and
    /// `labeled` for those with a label map. Needed by every data set but `synthetic`.
    pub labeled: Option<PathBuf>,
    /// List file of the unlabeled images, or a folder of them, relative to `root`; a second column
    /// with labels is not read. For `folder`, `unlabeled` stands for the images without a label map.
    /// Needed by the modes `mean-teacher` and `prototype`.
    pub unlabeled: Option<PathBuf>,
    /// List file with the labels of the unlabeled images, relative to `root`. They are used only to
    /// log the accuracy of pseudo-labels and to score the teacher on these images; nothing is
    /// learned from them.
    pub unlabeled_truth: Option<PathBuf>,
    /// List file or folder of the validation images, or `all`, like `labeled`. Without it, the run
    /// is not scored.
    pub validation: Option<PathBuf>,
    /// Channels of image files that are red, green and blue: `color` as they are stored, without
    /// opacity and further bands, `alpha-black` or `alpha-white` for colors over a ground by their
    /// opacity, or the numbers of three channels such as `3,2,1`. Without it as `color`, with a
    /// warning where an image has more. The bundle keeps it.
    #[schemars(with = "Option<String>")]
    pub channels: Option<Channels>,
    /// Values that become black and white in image files of more than 8 bits, such as `0:4080`.
    /// Without it all of 16 bits, with a warning where much is unused. The bundle keeps it.
    #[schemars(with = "Option<String>")]
    pub range: Option<SampleRange>,
    /// Trains even if a class of `data = "folder"` has no labeled pixel.
    pub allow_absent_classes: bool,
    /// Goes without unlabeled images that cannot be read, instead of refusing to begin.
    pub skip_broken: bool,
    /// Number of labeled synthetic scenes, for `data = "synthetic"`.
    #[schemars(range(max = 1_000_000))]
    pub synthetic_labeled: usize,
    /// Number of unlabeled synthetic scenes, for `data = "synthetic"`.
    #[schemars(range(max = 1_000_000))]
    pub synthetic_unlabeled: usize,
    /// Number of synthetic validation scenes, for `data = "synthetic"`.
    #[schemars(range(max = 1_000_000))]
    pub synthetic_validation: usize,
    /// Height and width of synthetic scenes in pixels, 32 to 8192 each.
    pub synthetic_size: [usize; 2],

    /// Network preset.
    #[schemars(with = "String", extend("group" = "Network", "enum" = Preset::ALL))]
    pub network: Preset,
    /// Head of the `vit` presets.
    pub head: TransformerHead,
    /// Pixels of the image that the side of a patch covers, for the `vit` presets: 8, 14 or 16.
    /// Patches have 14 pixels in the encoder, so the image is resized by 14 over this.
    pub patch_pixels: usize,
    /// Registers of the `vit` presets' weights: 4 for files with registers.
    pub registers: usize,
    /// Trains the auxiliary head of the ResNet presets and of `head = "pyramid"` too; its loss has
    /// weight 0.4.
    pub auxiliary: bool,
    /// Initial weights, a `.safetensors` or `.pth` file of the whole network or of its encoder.
    /// Relative to the configuration file, or else to the current folder; with `--set`, to the
    /// current folder. Random without it.
    pub pretrained: Option<PathBuf>,
    /// File with the weights of EfficientNet-Lite0 for `head = "pyramid-lite0"`, such as
    /// `.runtime/weights/efficientnet-lite0.pth`. Without it, that part starts from random weights.
    pub pretrained_stem: Option<PathBuf>,
    /// Sliding window for scoring and labeling, such as `{ size = 769, stride = 512 }` in pixels, or
    /// `"769:512"`. Without it, images are processed whole.
    #[schemars(with = "Option<BTreeMap<String, usize>>")]
    pub window: Option<Window>,

    /// Training method after the supervised warm-up.
    #[schemars(extend("group" = "Training"))]
    pub mode: TrainingMode,
    /// Checkpoint folder of a finished network with the same classes, which labels the unlabeled
    /// images before the first step, whole or in its own windows. The modes `distill` and
    /// `prototype` then learn from its labels instead of the moving average's; `unlabeled_gate` and
    /// `entropy_drop` go by its confidence.
    pub teacher: Option<PathBuf>,
    /// Length of the run in optimizer steps. Give either `steps` or `epochs`.
    pub steps: u64,
    /// Length of the supervised warm-up in optimizer steps; part of `steps`.
    pub warmup_steps: u64,
    /// Length of the run in passes over the unlabeled images, or over the labeled ones where there
    /// are no others. Give either `steps` or `epochs`.
    pub epochs: u64,
    /// Length of the supervised warm-up in passes; part of `epochs`.
    pub warmup_epochs: u64,
    /// Labeled crops of a micro-batch. After the warm-up as many unlabeled crops are added.
    #[schemars(range(min = 1, max = 1024))]
    pub batch: usize,
    /// Micro-batches whose gradients are summed up for one optimizer step. Batch statistics, CutMix
    /// and thresholds are per micro-batch.
    #[schemars(range(min = 1, max = 1024))]
    pub accumulate: usize,
    /// Size of training crops in pixels, 32 to 4096: a side such as `256`, or height and width such
    /// as `[360, 480]`.
    #[schemars(with = "crop_size::Spelling")]
    pub crop: CropSize,
    /// Different crops of each image: its scales, places and flips come again after so many passes.
    /// A frozen encoder then runs through each of them once. 0 draws a new crop every time.
    #[schemars(range(max = 100_000))]
    pub crops_per_image: u64,
    /// Arithmetic of the convolutions.
    pub precision: Precision,
    /// Update rule of the weights.
    pub optimizer: UpdateRule,
    /// Keeps the encoder's weights as they are: only the head is trained.
    pub freeze_encoder: bool,
    /// Gigabytes of disk for outputs of a frozen encoder, in the folder `features` of the run: an
    /// image that comes again, mirrored or not, does not run through it again. They are rounded to
    /// 16-bit floats. 0 keeps none, and rounds nothing.
    #[schemars(range(min = 0, max = 10_000))]
    pub feature_cache_gb: f64,
    /// Initial learning rate of the encoder. It decays as (1 - step / steps)^0.9.
    #[schemars(range(min = 0, max = 10))]
    pub learning_rate: f64,
    /// Labeled crops per step (`batch` times `accumulate`) that `learning_rate` is meant for: with
    /// other numbers the rate is scaled in proportion. Without it, the rate is used as it is.
    #[schemars(range(min = 1))]
    pub learning_rate_for: Option<usize>,
    /// Learning rate of everything but the encoder, as a multiple of the encoder's.
    #[schemars(range(min = 0, max = 1000))]
    pub head_multiplier: f64,
    /// Restarts the decay of the learning rate after the warm-up, over the remaining steps.
    #[serde(alias = "restart")]
    pub restart_learning_rate: bool,
    /// Momentum of SGD. AdamW has 0.9 and 0.999.
    #[schemars(range(min = 0, max = 0.9999))]
    pub momentum: f64,
    /// L2 penalty on every parameter; with AdamW, decay of every parameter per unit of learning rate.
    #[schemars(range(min = 0, max = 1))]
    pub weight_decay: f64,
    /// Loss of the linear head on labeled pixels.
    pub criterion: SupervisedLoss,
    /// OHEM keeps the pixels whose true class has at most this probability.
    #[schemars(range(min = 0, max = 1))]
    pub ohem_threshold: f64,
    /// OHEM keeps at least this share of the labeled pixels.
    #[schemars(range(min = 0, max = 1))]
    pub ohem_kept: f64,
    /// Weight of a soft Dice loss (Milletari et al., 2016) that is added to `criterion` on labeled pixels: rare classes and thin
    /// things count as much as common ones. 0 leaves it out.
    #[schemars(range(min = 0, max = 100))]
    pub dice_weight: f64,
    /// Weights of the classes in the loss.
    pub class_weights: ClassWeights,
    /// Label of the padding where a crop is larger than the image.
    pub pad_label: PadLabel,

    /// Mirrors half of the training crops, left to right. Turn it off, or give `flip_pairs`, where
    /// classes differ by their side (lanes, eyes, kidneys, arrows, text).
    #[schemars(extend("group" = "Augmentation"))]
    pub flip: bool,
    /// Pairs of classes that a mirror swaps, such as `[["left", "right"]]`: mirrored crops of
    /// labeled and unlabeled images have the other label.
    pub flip_pairs: Vec<[String; 2]>,
    /// Smallest and largest scale of an image before a crop is taken, between 0.1 and 10; below and
    /// above 1 are drawn equally often where both are allowed.
    pub scale: [f64; 2],
    /// Applies random color jitter, grayscale and Gaussian blur to the unlabeled images that the
    /// student sees.
    pub photometric: bool,
    /// Applies them to the labeled images too, but for the statistics of precise BatchNorm.
    pub labeled_photometric: bool,
    /// Color jitter, in four of five images: brightness is multiplied by up to 1 plus or minus this.
    #[schemars(range(min = 0, max = 1))]
    pub brightness: f64,
    /// The same for contrast.
    #[schemars(range(min = 0, max = 1))]
    pub contrast: f64,
    /// The same for saturation.
    #[schemars(range(min = 0, max = 1))]
    pub saturation: f64,
    /// Largest rotation of the hue, in turns.
    #[schemars(range(min = 0, max = 0.5))]
    pub hue: f64,
    /// Probability of a gray image.
    #[schemars(range(min = 0, max = 1))]
    pub grayscale: f64,
    /// Probability of a Gaussian blur.
    #[schemars(range(min = 0, max = 1))]
    pub blur: f64,

    /// Preset that reproduces the behavior of published code in eight keys; see the end of this
    /// page.
    #[schemars(extend("group" = "Semi-supervised learning"))]
    pub fidelity: Option<Fidelity>,
    /// Largest decay of the teacher, an exponential moving average (EMA) of the student. After the
    /// warm-up it rises as 1 - 1 / (step + 1), up to this value; in supervised runs, where the
    /// average is only published, to at most 1 - 1 / (1 + a tenth of the steps after the warm-up).
    #[schemars(range(min = 0, max = 0.99999))]
    pub teacher_decay: f64,
    /// Source of the teacher's batch normalization statistics.
    pub teacher_statistics: TeacherStatistics,
    /// Makes the teacher a copy of the student in each step of the first pass over the unlabeled
    /// images.
    pub copy_teacher_each_step: bool,
    /// Batches over which batch normalization statistics are recomputed before the teacher is made
    /// (precise BatchNorm); 0 keeps the running statistics.
    #[serde(alias = "settle_batches")]
    pub precise_bn_batches: u64,
    /// Probability that the unlabeled images of a micro-batch are mixed by CutMix (Yun et al.,
    /// 2019).
    #[schemars(range(min = 0, max = 1))]
    pub cutmix: f64,
    /// Applies CutMix to the outputs of a frozen encoder, along its grid, instead of running the
    /// mixed images through it: a step then costs the head alone where outputs are kept. A head
    /// that reads the image too sees the mixed one.
    pub cutmix_features: bool,
    /// Weight of the loss on pseudo-labels.
    #[schemars(range(min = 0, max = 1000))]
    pub unlabeled_weight: f64,
    /// Share of the steps after the warm-up over which `unlabeled_weight` rises from 0.
    #[schemars(range(min = 0, max = 1))]
    pub unlabeled_ramp: f64,
    /// Percentage of the unlabeled pixels of a micro-batch that are dropped for their high entropy.
    /// Falls linearly to 0 over the steps after the warm-up.
    #[schemars(range(min = 0, max = 100))]
    pub entropy_drop: f64,
    /// Applies `entropy_drop` to each predicted class on its own.
    pub entropy_drop_per_class: bool,
    /// Drops unlabeled pixels whose confidence (largest softmax of the teacher) is not above this
    /// value; 0 keeps all.
    #[schemars(range(min = 0, max = 1))]
    pub unlabeled_gate: f64,
    /// Applies `class_weights` to the loss on pseudo-labels too.
    pub unlabeled_class_weights: bool,
    /// Pixels that N counts in the loss on pseudo-labels: N / kept pixels times the mean over the
    /// kept pixels.
    pub unlabeled_scale: UnlabeledScale,

    /// Prototypes per class.
    #[schemars(range(min = 1, max = 64), extend("group" = "Prototypes"))]
    pub prototypes: usize,
    /// Divisor of the cosine similarities before the softmax over classes.
    #[schemars(range(min = 0.001, max = 100))]
    pub temperature: f64,
    /// Share of the old value that a prototype keeps in an update.
    #[schemars(range(min = 0, max = 1))]
    pub prototype_momentum: f64,
    /// Unlabeled points whose confidence is not above this value do not update prototypes.
    #[schemars(range(min = 0, max = 1))]
    #[serde(alias = "gate")]
    pub prototype_gate: f64,
    /// Leaves the points that `prototype_gate` holds back out of the prototype loss too.
    pub gate_loss: bool,
    /// Weight of the prototype losses.
    #[schemars(range(min = 0, max = 1000))]
    pub prototype_weight: f64,
    /// Weight of the prototype loss on unlabeled points, as a multiple of `prototype_weight`.
    #[schemars(range(min = 0, max = 1000))]
    pub prototype_unlabeled_weight: f64,
    /// Share of the steps after the warm-up over which `prototype_unlabeled_weight` rises from 0.
    #[schemars(range(min = 0, max = 1))]
    pub prototype_ramp: f64,
    /// Selection of the pixels that the prototype predictor sees.
    pub points: PointSampling,
    /// Cells per side of a crop, at most `crop`; each cell gives one point.
    #[schemars(range(min = 1))]
    pub point_cells: usize,
    /// Points per class and image, for `points = "balanced"`.
    #[schemars(range(min = 1, max = 65536))]
    #[serde(alias = "points_a_class")]
    pub points_per_class: usize,
    /// Features that are compared with prototypes.
    pub features: FeatureSource,
    /// Features that a prototype is the moving average of.
    pub average: PrototypeAverage,
    /// Re-initializes a prototype after this many steps without an assigned point; 0 never does.
    pub reseed_after: u64,

    /// Name of the model.
    #[schemars(extend("group" = "Run"))]
    pub name: String,
    /// Seed of every random draw.
    pub seed: u64,
    /// Steps between scores on the validation list; 0 scores only the last step.
    pub eval_every: u64,
    /// Steps between lines of `log.jsonl`.
    #[schemars(range(min = 1))]
    pub log_every: u64,
    /// Steps between saves of the state that `--resume` needs.
    #[schemars(range(min = 1))]
    pub save_every: u64,
    /// Labeled images whose activations are recorded for int8 export; 0 records none. Of images of
    /// more than a million pixels, four windows are taken.
    #[serde(alias = "calibration_pictures")]
    pub calibration_images: usize,
    /// Unlabeled images whose pseudo-labels are written with every score; 0 writes none.
    #[serde(alias = "dumped_pictures")]
    pub dumped_images: usize,
}

/// Keys without a default: every configuration gives them.
pub const REQUIRED: [&str; 9] = [
    "name",
    "data",
    "network",
    "mode",
    "batch",
    "crop",
    "learning_rate",
    "head_multiplier",
    "weight_decay",
];

impl Default for Config {
    /// The defaults; the values of [`REQUIRED`] keys are placeholders that [`Config::parse`] never
    /// leaves in place.
    fn default() -> Self {
        Self {
            data: DataSource::Synthetic,
            root: None,
            labeled: None,
            unlabeled: None,
            unlabeled_truth: None,
            validation: None,
            channels: None,
            range: None,
            allow_absent_classes: false,
            skip_broken: false,
            synthetic_labeled: 200,
            synthetic_unlabeled: 400,
            synthetic_validation: 24,
            synthetic_size: [256, 512],

            network: Preset::DeepLabV3PlusEfficientNetLite0,
            head: TransformerHead::Pyramid,
            patch_pixels: 8,
            registers: 0,
            auxiliary: false,
            pretrained: None,
            pretrained_stem: None,
            window: None,

            mode: TrainingMode::Supervised,
            teacher: None,
            steps: 0,
            warmup_steps: 0,
            epochs: 0,
            warmup_epochs: 0,
            batch: 1,
            accumulate: 1,
            crop: CropSize::square(32),
            crops_per_image: 0,
            precision: Precision::Float32,
            optimizer: UpdateRule::Sgd,
            freeze_encoder: false,
            feature_cache_gb: 10.0,
            learning_rate: 0.0,
            learning_rate_for: None,
            head_multiplier: 1.0,
            restart_learning_rate: false,
            momentum: 0.9,
            weight_decay: 0.0,
            criterion: SupervisedLoss::CrossEntropy,
            ohem_threshold: 0.7,
            ohem_kept: 0.19,
            dice_weight: 0.0,
            class_weights: ClassWeights::None,
            pad_label: PadLabel::Ignore,

            flip: true,
            flip_pairs: Vec::new(),
            scale: [0.5, 2.0],
            photometric: false,
            labeled_photometric: false,
            brightness: 0.5,
            contrast: 0.5,
            saturation: 0.5,
            hue: 0.25,
            grayscale: 0.2,
            blur: 0.5,

            fidelity: None,
            teacher_decay: 0.99,
            teacher_statistics: TeacherStatistics::Average,
            copy_teacher_each_step: false,
            precise_bn_batches: 25,
            cutmix: 0.5,
            cutmix_features: false,
            unlabeled_weight: 1.0,
            unlabeled_ramp: 0.0,
            entropy_drop: 20.0,
            entropy_drop_per_class: false,
            unlabeled_gate: 0.0,
            unlabeled_class_weights: false,
            unlabeled_scale: UnlabeledScale::Valid,

            prototypes: 4,
            temperature: 0.1,
            prototype_momentum: 0.99,
            prototype_gate: 0.8,
            gate_loss: false,
            prototype_weight: 1.0,
            prototype_unlabeled_weight: 1.0,
            prototype_ramp: 0.0,
            points: PointSampling::PerImage,
            point_cells: 32,
            points_per_class: 64,
            features: FeatureSource::Plain,
            average: PrototypeAverage::Normalized,
            reseed_after: 200,

            name: String::new(),
            seed: 0,
            eval_every: 0,
            log_every: 20,
            save_every: 50,
            calibration_images: 8,
            dumped_images: 0,
        }
    }
}

impl Config {
    /// Returns the network for a number of classes.
    pub fn arch(&self, classes: usize) -> Result<Arch> {
        let vit = VitOptions {
            head: self.head.into(),
            patch_pixels: self.patch_pixels,
            registers: self.registers,
        };
        Ok(Arch::new(self.network, classes)?.with_vit(vit)?.with_auxiliary(self.auxiliary)?)
    }

    /// Returns how image files are read.
    pub fn reading(&self) -> ImageReading {
        ImageReading { channels: self.channels, range: self.range }
    }

    /// Reads a TOML file and applies `key=value` settings to it. Values are TOML; what is not TOML
    /// is a string, and `key=` takes a key of the file away, so that its default is used.
    pub fn read(path: &Path, settings: &[String]) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let mut config = Self::parse(&text, settings)
            .with_context(|| format!("invalid configuration {}", path.display()))?;
        let is_set = |key: &str| {
            settings
                .iter()
                .any(|setting| setting.split_once('=').is_some_and(|(name, _)| name.trim() == key))
        };
        for (key, weights) in [
            ("pretrained", &mut config.pretrained),
            ("pretrained_stem", &mut config.pretrained_stem),
            ("teacher", &mut config.teacher),
        ] {
            if let Some(given) = weights.take() {
                *weights = Some(if is_set(key) { given } else { beside(path, &given) });
            }
        }
        Ok(config)
    }

    /// Like [`Config::read`], from TOML text.
    pub fn parse(text: &str, settings: &[String]) -> Result<Self> {
        let mut table: toml::Table = toml::from_str(text)
            .map_err(|error| anyhow!("{}{}", one_line(&error), line(&error, text)))?;
        for (old, current) in RENAMED {
            if let Some(value) = table.remove(old)
                && table.insert(current.to_owned(), value).is_some()
            {
                bail!("`{old}` is the old name of `{current}`; remove one of the two");
            }
        }
        for setting in settings {
            let (key, value) = setting
                .split_once('=')
                .with_context(|| format!("`--set {setting}`: write `--set key=value`"))?;
            let key = current_name(key.trim());
            if value.trim().is_empty() {
                table.remove(key);
                ensure!(is_key(key), "`--set {setting}`: there is no key `{key}`");
                continue;
            }
            let value = match toml::from_str::<toml::Table>(&format!("value = {value}")) {
                Ok(mut parsed) => parsed
                    .remove("value")
                    .with_context(|| format!("`--set {setting}` has no value"))?,
                Err(_) => toml::Value::String(value.to_owned()),
            };
            table.insert(key.to_owned(), value);
        }
        window_from_text(&mut table)?;
        fidelity::apply(&mut table)?;
        for key in REQUIRED {
            ensure!(
                table.contains_key(key),
                "`{key}` is missing: add it to the file, or give `--set {key}=VALUE`"
            );
        }
        let config: Self =
            table.try_into().map_err(|error: toml::de::Error| anyhow!("{}", one_line(&error)))?;
        config.check()?;
        Ok(config)
    }
}

/// A file that a configuration names: beside it, or else in the current folder, which is said where
/// the two differ.
fn beside(config: &Path, file: &Path) -> PathBuf {
    let beside = config.parent().map_or_else(|| file.to_owned(), |folder| folder.join(file));
    let same = beside.canonicalize().ok() == file.canonicalize().ok();
    match (beside.exists(), file.exists()) {
        (true, true) if !same => {
            let (chosen, other) = (beside.display(), file.display());
            eprintln!("note: the weights are read from {chosen}, not {other}");
            beside
        }
        (true, false) => beside,
        // The spelling of the configuration for one file, or for none.
        _ => file.to_owned(),
    }
}

/// Old names of keys, still accepted in files and in `--set`; the serde aliases of [`Config`]
/// accept them in saved states.
const RENAMED: [(&str, &str); 6] = [
    ("restart", "restart_learning_rate"),
    ("settle_batches", "precise_bn_batches"),
    ("gate", "prototype_gate"),
    ("points_a_class", "points_per_class"),
    ("calibration_pictures", "calibration_images"), // old name
    ("dumped_pictures", "dumped_images"),           // old name
];

/// Returns true for the name of a key.
fn is_key(key: &str) -> bool {
    reference::properties().iter().any(|(known, _)| known == key)
}

/// Reads a `window` in the form that export takes: `SIZE:STRIDE`, or `whole`.
fn window_from_text(table: &mut toml::Table) -> Result<()> {
    let text = match table.get("window") {
        Some(toml::Value::String(text)) => text.clone(),
        Some(toml::Value::Integer(number)) => number.to_string(),
        _ => return Ok(()),
    };
    let tiling: Tiling = text.parse().map_err(|error| anyhow!("`window` is {text}: {error}"))?;
    match tiling.window() {
        Some(window) => {
            let window = toml::Value::try_from(window)?;
            table.insert("window".to_owned(), window);
        }
        None => {
            table.remove("window");
        }
    }
    Ok(())
}

fn current_name(key: &str) -> &str {
    RENAMED.iter().find(|(old, _)| *old == key).map_or(key, |(_, current)| current)
}

/// The message of a TOML error with the key it is about, without the excerpt of the file.
fn one_line(error: &toml::de::Error) -> String {
    let text = error.to_string();
    let key = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("in `"))
        .map(|key| format!(" (in `{key})"));
    format!("{}{}", error.message(), key.unwrap_or_default())
}

/// Names the line of an error in a text; empty if it has no place there.
fn line(error: &toml::de::Error, text: &str) -> String {
    let place = error.span().and_then(|span| text.get(..span.start));
    place.map_or_else(String::new, |before| {
        let number = before.matches('\n').count() + 1;
        let line = text.lines().nth(number - 1).unwrap_or_default().trim();
        format!(" (line {number}: `{line}`)")
    })
}

#[cfg(test)]
mod tests;
