//! A step as files that any implementation of the method can read: settings, inputs, and what came out.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use protoseg_train::config::options::PrototypeAverage;
use protoseg_train::data::loader::MicroBatch;
use protoseg_train::net::{Net, from_torch};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;
use tch::Tensor;

use super::{STEP, SampleState, SampleStep};

/// Tensors by name.
#[derive(Default)]
pub(crate) struct Tensors(BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>);

impl Tensors {
    pub(crate) fn floats(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.0.insert(name.to_owned(), (Dtype::F32, shape.to_vec(), bytes));
    }

    pub(crate) fn tensor(&mut self, name: &str, tensor: &Tensor) -> Result<()> {
        let tensor = from_torch(tensor)?;
        self.floats(name, &tensor.shape, &tensor.data);
        Ok(())
    }

    /// Every parameter and buffer of a network.
    pub(crate) fn network(&mut self, prefix: &str, net: &Net) -> Result<()> {
        net.tensors()
            .iter()
            .try_for_each(|(name, tensor)| self.tensor(&format!("{prefix}.{name}"), tensor))
    }

    /// Velocities of the optimiser.
    pub(crate) fn velocity(&mut self, state: &SampleState) -> Result<()> {
        for (name, tensor) in state.sgd.state_dict()? {
            self.floats(&format!("velocity.{name}"), &tensor.shape, &tensor.data);
        }
        Ok(())
    }

    fn integers(&mut self, name: String, shape: &[usize], values: &[i64]) {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.0.insert(name, (Dtype::I64, shape.to_vec(), bytes));
    }

    fn bytes(&mut self, name: String, shape: &[usize], bytes: &[u8]) {
        self.0.insert(name, (Dtype::U8, shape.to_vec(), bytes.to_vec()));
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let views = self.0.iter().map(|(name, (kind, shape, bytes))| {
            Ok((name, TensorView::new(*kind, shape.clone(), bytes)?))
        });
        let views = views.collect::<Result<Vec<_>>>()?;
        safetensors::serialize_to_file(views, None, path)
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Writes `settings.json` and `inputs.safetensors` of a step that has not been taken.
pub(crate) fn write_inputs(
    folder: &Path,
    setting: &SampleStep,
    state: &SampleState,
    batches: &[MicroBatch],
) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let path = folder.join("settings.json");
    std::fs::write(&path, settings(setting))
        .with_context(|| format!("cannot write {}", path.display()))?;
    let mut inputs = Tensors::default();
    inputs.network("student", &setting.student)?;
    inputs.network("teacher", &setting.teacher)?;
    inputs.velocity(state)?;
    inputs.tensor("prototypes", state.prototypes.values())?;
    for ((index, batch), number) in batches.iter().enumerate().zip(setting.numbers()) {
        add_micro_batch(&mut inputs, setting, index, batch, number)?;
    }
    inputs.write(&folder.join("inputs.safetensors"))
}

fn settings(setting: &SampleStep) -> String {
    let config = &setting.config;
    let learner = setting.learner();
    // As bits, which both sides take to be without a sign.
    let seeds: Vec<u64> =
        setting.numbers().map(|number| learner.dropout_seed(number, 0) as u64).collect();
    let settings = json!({
        "preset": config.network.name(),
        "classes": setting.classes,
        "crop": config.crop,
        "batch": config.batch,
        "accumulate": config.accumulate,
        "align_corners": setting.align_corners(),
        "prototypes": config.prototypes,
        "temperature": config.temperature,
        "prototype_momentum": config.prototype_momentum,
        "gate": config.prototype_gate,
        "average": if config.average == PrototypeAverage::Raw { "raw" } else { "normalised" },
        "entropy_drop": config.entropy_drop,
        "progress": setting.schedule.progress(STEP),
        "unlabeled_weight": config.unlabeled_weight,
        "prototype_weight": config.prototype_weight,
        "learning_rate": setting.schedule.learning_rate(STEP),
        "head_multiplier": config.head_multiplier,
        "momentum": config.momentum,
        "weight_decay": config.weight_decay,
        "teacher_decay": setting.decay(),
        "dropout_seeds": seeds,
    });
    format!("{settings:#}\n")
}

fn add_micro_batch(
    inputs: &mut Tensors,
    setting: &SampleStep,
    index: usize,
    batch: &MicroBatch,
    number: u64,
) -> Result<()> {
    let unlabeled =
        batch.unlabeled.as_ref().context("a micro-batch without unlabelled pictures")?;
    let (count, side) = (setting.config.batch, setting.config.crop);
    let (map, pictures) = ([count, side, side], [count, side, side, 3]);
    inputs.bytes(format!("{index}.labeled.pixels"), &pictures, &batch.labeled.pixels);
    inputs.bytes(format!("{index}.labeled.labels"), &map, &batch.labeled.labels);
    inputs.bytes(format!("{index}.unlabeled.pixels"), &pictures, &unlabeled.weak);
    inputs.bytes(format!("{index}.unlabeled.valid"), &map, &unlabeled.valid);

    let learner = setting.learner();
    let boxes = learner.boxes(number)?;
    let mut sides: Vec<i64> = boxes
        .boxes()
        .iter()
        .flat_map(|place| {
            [place.top, place.left, place.height, place.width].map(|side| side as i64)
        })
        .collect();
    // Boxes without a height where nothing is mixed.
    sides.resize(4 * count, 0);
    inputs.integers(format!("{index}.boxes"), &[count, 4], &sides);

    let labels = Tensor::f_zeros([count as i64, 1, 1], (tch::Kind::Int64, tch::Device::Cpu))?;
    for (part, kind) in ["labeled", "unlabeled"].into_iter().enumerate() {
        let pixels = learner.points(&labels, setting.classes, number, part as u64)?;
        let places = pixels.places();
        let shape: Vec<usize> = places.size().into_iter().map(|size| size as usize).collect();
        let places: Vec<i64> = Vec::try_from(places.f_flatten(0, -1)?)?;
        inputs.integers(format!("{index}.{kind}.points"), &shape, &places);
    }
    Ok(())
}
