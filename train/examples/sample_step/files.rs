//! The step as files for other implementations: `settings.json`, `inputs.safetensors`, `outputs.safetensors`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use protoseg_train::config::options::PrototypeAverage;
use protoseg_train::data::loader::MicroBatch;
use protoseg_train::method::step::Learner;
use protoseg_train::net::{Net, from_torch};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;
use tch::Tensor;

use super::{STEP, SampleStep};

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

    /// Adds everything that a step changes.
    pub(crate) fn learner(&mut self, learner: &Learner) -> Result<()> {
        self.network("student", &learner.student)?;
        self.network("teacher", &learner.teacher)?;
        for (name, tensor) in learner.optimizer.state_dict()? {
            self.floats(&format!("velocity.{name}"), &tensor.shape, &tensor.data);
        }
        let prototypes = learner.prototypes.as_ref().context("the sample has prototypes")?;
        self.tensor("prototypes", prototypes.values())
    }

    fn network(&mut self, prefix: &str, net: &Net) -> Result<()> {
        net.tensors()
            .iter()
            .try_for_each(|(name, tensor)| self.tensor(&format!("{prefix}.{name}"), tensor))
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

/// Writes `settings.json` and `inputs.safetensors`.
pub(crate) fn write_inputs(
    folder: &Path,
    sample: &SampleStep,
    learner: &Learner,
    batches: &[MicroBatch],
) -> Result<()> {
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot create {}", folder.display()))?;
    let path = folder.join("settings.json");
    std::fs::write(&path, settings(sample, learner))
        .with_context(|| format!("cannot write {}", path.display()))?;
    let mut inputs = Tensors::default();
    inputs.learner(learner)?;
    for ((index, batch), number) in batches.iter().enumerate().zip(sample.numbers()) {
        add_micro_batch(&mut inputs, learner, index, batch, number)?;
    }
    inputs.write(&folder.join("inputs.safetensors"))
}

fn settings(sample: &SampleStep, learner: &Learner) -> String {
    let config = &sample.config;
    // The same bits, as an unsigned number.
    let seeds: Vec<u64> =
        sample.numbers().map(|number| learner.dropout_seed(number, 0) as u64).collect();
    let settings = json!({
        "preset": config.network.name(),
        "classes": learner.classes(),
        "crop": config.crop,
        "batch": config.batch,
        "accumulate": config.accumulate,
        "align_corners": learner.align_corners(),
        "prototypes": config.prototypes,
        "temperature": config.temperature,
        "prototype_momentum": config.prototype_momentum,
        "gate": config.prototype_gate,
        "average": if config.average == PrototypeAverage::Raw { "raw" } else { "normalised" },
        "entropy_drop": config.entropy_drop,
        "progress": sample.schedule.progress(STEP),
        "unlabeled_weight": config.unlabeled_weight,
        "prototype_weight": config.prototype_weight,
        "learning_rate": sample.schedule.learning_rate(STEP),
        "head_multiplier": config.head_multiplier,
        "momentum": config.momentum,
        "weight_decay": config.weight_decay,
        "teacher_decay": sample.decay(),
        "dropout_seeds": seeds,
    });
    format!("{settings:#}\n")
}

fn add_micro_batch(
    inputs: &mut Tensors,
    learner: &Learner,
    index: usize,
    batch: &MicroBatch,
    number: u64,
) -> Result<()> {
    let unlabeled = batch.unlabeled.as_ref().context("a micro-batch without unlabeled images")?;
    let count = learner.config.batch;
    let [height, width] = learner.config.crop.sides();
    let map = [count, height, width];
    let images = [count, height, width, 3];
    inputs.bytes(format!("{index}.labeled.pixels"), &images, &batch.labeled.pixels);
    inputs.bytes(format!("{index}.labeled.labels"), &map, &batch.labeled.labels);
    inputs.bytes(format!("{index}.unlabeled.pixels"), &images, &unlabeled.weak);
    inputs.bytes(format!("{index}.unlabeled.valid"), &map, &unlabeled.valid);

    let boxes = learner.boxes(number)?;
    let edges = boxes.boxes().iter().flat_map(|cut| [cut.top, cut.left, cut.height, cut.width]);
    let mut edges: Vec<i64> = edges.map(|edge| edge as i64).collect();
    // An unmixed micro-batch has boxes of height 0.
    edges.resize(4 * count, 0);
    inputs.integers(format!("{index}.boxes"), &[count, 4], &edges);

    let labels = Tensor::f_zeros([count as i64, 1, 1], (tch::Kind::Int64, tch::Device::Cpu))?;
    for (part, kind) in ["labeled", "unlabeled"].into_iter().enumerate() {
        let points = learner.points(&labels, number, part as u64)?;
        let places = points.places();
        let shape: Vec<usize> = places.size().into_iter().map(|size| size as usize).collect();
        let places: Vec<i64> = Vec::try_from(places.f_flatten(0, -1)?)?;
        inputs.integers(format!("{index}.{kind}.points"), &shape, &places);
    }
    Ok(())
}
