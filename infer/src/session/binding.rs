//! Runs on a GPU with buffers that stay: pictures go through pinned memory of the host, which the GPU reads by itself, and
//! answers come back the same way; or input and outputs stay at one address of the GPU, so that its launches can be replayed.

use std::collections::BTreeSet;

use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{IoBinding, RunOptions, Session};
use ort::value::{DynTensor, DynTensorValueType, DynValue, Tensor, TensorElementType, TensorRef};

use super::gpu_lock::{self, GraphRecording};
use super::{GRAPH_KEY, Runner, run_session};
use crate::config::Device;
use crate::stage::{Stage, StageTimes};

/// The buffers of one session.
#[derive(Debug)]
pub(super) struct Buffers {
    device: Device,
    graph: bool,
    keep: bool,
    /// For pictures of the shape that last came twice in a row.
    bound: Option<BoundBuffers>,
    last: Option<[usize; 3]>,
    made: usize,
    /// The shapes for which TensorRT has engines.
    built: BTreeSet<[usize; 3]>,
}

impl Buffers {
    /// None yet; on devices without memory of their own, for ever.
    pub(super) fn new(device: Device, graph: bool) -> Self {
        Self {
            device,
            graph,
            keep: device.is_gpu(),
            bound: None,
            last: None,
            made: 0,
            built: BTreeSet::new(),
        }
    }

    /// Whether a run of pictures of this shape builds an engine.
    pub(super) fn builds(&mut self, shape: [usize; 3]) -> bool {
        matches!(self.device, Device::TensorRt(_)) && self.built.insert(shape)
    }
}

impl Runner {
    /// Runs with buffers that stay if there are some for this shape, and without if not.
    pub(super) fn run_or_bind<T>(
        &mut self,
        images: &[u8],
        shape: [usize; 3],
        names: &[&str],
        read: impl FnOnce(&[&DynValue]) -> ort::Result<T>,
    ) -> ort::Result<T> {
        if let Some(bound) = self.buffers.bound.as_mut().filter(|bound| bound.fits(shape, names)) {
            let records = self.buffers.graph && bound.recording.next_may_record();
            return gpu_lock::with_gpu(self.device, records, || {
                bound.run(&mut self.session, &mut self.times, images, read)
            });
        }
        let builds = self.buffers.builds(shape);
        gpu_lock::with_gpu(self.device, builds, || self.run_and_bind(images, shape, names, read))
    }

    /// Runs without buffers; if the last pictures were of this shape too, makes some.
    fn run_and_bind<T>(
        &mut self,
        images: &[u8],
        shape: [usize; 3],
        names: &[&str],
        read: impl FnOnce(&[&DynValue]) -> ort::Result<T>,
    ) -> ort::Result<T> {
        let again = self.buffers.keep && self.buffers.last.replace(shape) == Some(shape);
        let [count, height, width] = shape;
        let input = TensorRef::from_array_view(([count, height, width, 3], images))?;
        let mut given = Vec::new();
        let result = run_session(&mut self.session, input.into(), names, |outputs| {
            if again {
                given = names
                    .iter()
                    .zip(outputs)
                    .filter_map(|(name, output)| OutputSpec::from_value(name, output))
                    .collect();
            }
            read(outputs)
        })?;
        if again && given.len() == names.len() {
            self.buffers.made += 1;
            self.buffers.bound =
                Some(BoundBuffers::new(&self.session, &self.buffers, shape, &given)?);
        }
        Ok(result)
    }
}

/// Buffers for pictures of one shape.
#[derive(Debug)]
struct BoundBuffers {
    shape: [usize; 3],
    names: Vec<String>,
    input: String,
    binding: IoBinding,
    host: Tensor<u8>,
    /// What lies on the GPU, where launches are replayed.
    resident: Option<Tensor<u8>>,
    /// Tells its recording from others of the session.
    number: String,
    recording: GraphRecording,
}

/// An output as a run without buffers gave it.
#[derive(Debug)]
struct OutputSpec {
    name: String,
    element: TensorElementType,
    shape: Vec<i64>,
}

impl OutputSpec {
    /// None where it is no tensor.
    fn from_value(name: &str, value: &DynValue) -> Option<Self> {
        let element = value.dtype().tensor_type()?;
        Some(Self { name: name.to_owned(), element, shape: value.dtype().tensor_shape()?.to_vec() })
    }
}

impl BoundBuffers {
    /// Buffers for pictures `[n, h, w]` and the outputs that such pictures gave.
    fn new(
        session: &Session,
        buffers: &Buffers,
        shape: [usize; 3],
        outputs: &[OutputSpec],
    ) -> ort::Result<Self> {
        let Buffers { device, graph, made, .. } = *buffers;
        let allocator = |place: Place| Allocator::new(session, place.memory(device)?);
        let [count, height, width] = shape;
        let pictures = [count, height, width, 3];
        let host = Tensor::<u8>::new(&allocator(Place::Upload)?, pictures)?;
        let resident = if graph {
            Some(Tensor::<u8>::new(&allocator(Place::Device)?, pictures)?)
        } else {
            None
        };
        let input =
            session.inputs().first().map(|input| input.name().to_owned()).unwrap_or_default();
        let mut binding = session.create_binding()?;
        if let Some(resident) = &resident {
            binding.bind_input(input.as_str(), resident)?;
        }
        let back = allocator(if graph { Place::Device } else { Place::Download })?;
        for OutputSpec { name, element, shape } in outputs {
            binding
                .bind_output(name.as_str(), DynTensor::new(&back, *element, shape.as_slice())?)?;
        }
        let names = outputs.iter().map(|output| output.name.clone()).collect();
        Ok(Self {
            shape,
            names,
            input,
            binding,
            host,
            resident,
            number: made.to_string(),
            recording: GraphRecording::default(),
        })
    }

    /// Whether it holds what is asked for.
    fn fits(&self, shape: [usize; 3], names: &[&str]) -> bool {
        self.shape == shape && self.names == names
    }

    /// Runs pictures of its shape, and reads the outputs in the order in which they were given.
    fn run<T>(
        &mut self,
        session: &mut Session,
        times: &mut StageTimes,
        images: &[u8],
        read: impl FnOnce(&[&DynValue]) -> ort::Result<T>,
    ) -> ort::Result<T> {
        times.timed(Stage::Upload, || {
            self.host.try_extract_tensor_mut::<u8>()?.1.copy_from_slice(images);
            match &mut self.resident {
                Some(resident) => self.host.copy_into(resident),
                // Binding is what uploads.
                None => self.binding.bind_input(self.input.as_str(), &self.host),
            }
        })?;
        let mut options = RunOptions::new()?;
        options.set(GRAPH_KEY, &self.number)?;
        let mut outputs = session.run_binding_with_options(&self.binding, &options)?;
        times.timed(Stage::Download, || self.binding.synchronize_outputs())?;
        if self.resident.is_none() {
            return read(
                &self.names.iter().map(|name| &outputs[name.as_str()]).collect::<Vec<_>>(),
            );
        }
        let mut fetch = |name: &String| {
            let output = outputs
                .remove(name.as_str())
                .ok_or_else(|| ort::Error::new(format!("no output {name}")))?;
            Ok(output.downcast::<DynTensorValueType>()?.to(AllocationDevice::CPU, 0)?.into_dyn())
        };
        let values = times.timed(Stage::Download, || {
            self.names.iter().map(&mut fetch).collect::<ort::Result<Vec<_>>>()
        })?;
        read(&values.iter().collect::<Vec<_>>())
    }
}

/// Where a buffer lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Upload,
    Download,
    Device,
}

impl Place {
    fn memory(self, device: Device) -> ort::Result<MemoryInfo<'static>> {
        let (Device::Cuda(number) | Device::TensorRt(number)) = device else {
            return MemoryInfo::new(
                AllocationDevice::CPU,
                0,
                AllocatorType::Device,
                MemoryType::Default,
            );
        };
        let (place, kind) = match self {
            Self::Upload => (AllocationDevice::CUDA_PINNED, MemoryType::CPUInput),
            Self::Download => (AllocationDevice::CUDA_PINNED, MemoryType::CPUOutput),
            Self::Device => (AllocationDevice::CUDA, MemoryType::Default),
        };
        MemoryInfo::new(place, number.into(), AllocatorType::Device, kind)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::config::EngineConfig;

    /// On the CPU, whose memory stands for the GPU's: with buffers that stay, and with those of a recording.
    #[test]
    fn buffers_that_stay_change_no_answer() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/colors/model.onnx");
        let mut plain = Runner::open(&path, &EngineConfig::default()).unwrap();
        for graph in [false, true] {
            let config = EngineConfig { cuda_graph: graph, ..EngineConfig::default() };
            let mut runner = Runner::open(&path, &config).unwrap();
            runner.buffers.keep = true;
            let [mut uploaded, mut downloaded] = [Duration::ZERO; 2];
            // The second of a shape gets buffers, which another shape in between leaves alone.
            for (round, shape) in [
                [2, 32, 48],
                [2, 32, 48],
                [2, 32, 48],
                [1, 32, 48],
                [2, 32, 48],
                [1, 16, 16],
                [1, 16, 16],
            ]
            .into_iter()
            .enumerate()
            {
                let size = shape.iter().product::<usize>() * 3;
                let picture: Vec<u8> =
                    (0..size).map(|index| (index * (round + 3) % 251) as u8).collect();
                let found = runner.run(&picture, shape).unwrap();
                assert!(
                    found == plain.run(&picture, shape).unwrap(),
                    "round {round}, graph {graph}"
                );
                assert_eq!(
                    runner.buffers.bound.as_ref().map(|bound| bound.shape[0]),
                    [None, Some(2), Some(2), Some(2), Some(2), Some(2), Some(1)][round]
                );
                // What there are buffers for is uploaded: the third picture is the first, the fifth the next.
                let times = runner.times();
                let [prepare, upload, download] =
                    [Stage::Preprocess, Stage::Upload, Stage::Download].map(|stage| times[stage]);
                let uploads = upload > std::mem::replace(&mut uploaded, upload);
                assert_eq!(
                    (uploads, prepare),
                    ([2, 4].contains(&round), Duration::ZERO),
                    "round {round}"
                );
                assert!(download > std::mem::replace(&mut downloaded, download), "round {round}");
            }
        }
    }
}
