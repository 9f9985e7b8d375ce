//! Runs on GPUs: buffers that stay bound between runs, CUDA graphs, and a lock for work that must
//! run alone.
//!
//! Images go through pinned host memory, which the GPU reads by itself, and outputs come back the
//! same way; for CUDA graphs, which replay launches, input and outputs stay at one address of the
//! GPU.

use std::collections::BTreeSet;
use std::sync::{PoisonError, RwLock};
use std::thread::ThreadId;

use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{IoBinding, RunOptions, Session};
use ort::value::{DynTensor, DynTensorValueType, DynValue, Tensor, TensorElementType, TensorRef};

use super::{GRAPH_KEY, Runner, SessionError, run_error, run_session};
use crate::config::Device;
use crate::stage::{Stage, StageTimes};

/// Runs of a thread by the last of which ONNX Runtime has captured a graph: two that set up memory,
/// then the capture.
const RUNS_TO_CAPTURE: usize = 3;

/// While CUDA captures launches, no other thread of the process may set up or free GPU memory. And
/// TensorRT chooses kernels by timing them, which other work would disturb; engines that it built
/// lie in its cache when the next session looks.
static GPUS: RwLock<()> = RwLock::new(());

/// Runs work on a GPU beside other such work, or alone.
pub(super) fn with_gpu<R>(device: Device, alone: bool, work: impl FnOnce() -> R) -> R {
    if !device.is_gpu() {
        return work();
    }
    if alone {
        let _alone = GPUS.write().unwrap_or_else(PoisonError::into_inner);
        work()
    } else {
        let _shared = GPUS.read().unwrap_or_else(PoisonError::into_inner);
        work()
    }
}

/// Buffers of one session.
#[derive(Debug)]
pub(super) struct Buffers {
    device: Device,
    graph: bool,
    /// True on GPUs.
    enabled: bool,
    /// For images of the shape that last came twice in a row.
    bound: Option<BoundBuffers>,
    last_shape: Option<[usize; 3]>,
    /// Number of bound buffers so far.
    count: usize,
    /// Shapes that TensorRT has engines for.
    built: BTreeSet<[usize; 3]>,
}

impl Buffers {
    pub(super) fn new(device: Device, graph: bool) -> Self {
        let (enabled, built) = (device.is_gpu(), BTreeSet::new());
        Self { device, graph, enabled, bound: None, last_shape: None, count: 0, built }
    }

    /// True where a run of images of this shape builds an engine.
    pub(super) fn builds(&mut self, shape: [usize; 3]) -> bool {
        matches!(self.device, Device::TensorRt(_)) && self.built.insert(shape)
    }
}

impl Runner {
    /// Runs images and reads the named outputs in order: with bound buffers if there are some for
    /// this shape.
    pub(super) fn run_bound<T>(
        &mut self,
        images: &[u8],
        shape: [usize; 3],
        names: &[&str],
        read: impl FnOnce(&[&DynValue]) -> ort::Result<T>,
    ) -> Result<T, SessionError> {
        let bound = self.buffers.bound.as_mut().filter(|bound| bound.fits(shape, names));
        let result = if let Some(bound) = bound {
            let captures = self.buffers.graph && bound.capture.next_may_capture();
            with_gpu(self.device, captures, || {
                bound.run(&mut self.session, &mut self.times, images, read)
            })
        } else {
            let builds = self.buffers.builds(shape);
            with_gpu(self.device, builds, || self.run_and_bind(images, shape, names, read))
        };
        result.map_err(|source| run_error(&self.path, self.device, &source))
    }

    /// Runs without bound buffers; if the last images had this shape too, makes some.
    fn run_and_bind<T>(
        &mut self,
        images: &[u8],
        shape: [usize; 3],
        names: &[&str],
        read: impl FnOnce(&[&DynValue]) -> ort::Result<T>,
    ) -> ort::Result<T> {
        let again = self.buffers.enabled && self.buffers.last_shape.replace(shape) == Some(shape);
        let [count, height, width] = shape;
        let input = TensorRef::from_array_view(([count, height, width, 3], images))?;
        let mut specs = Vec::new();
        let result = run_session(&mut self.session, input.into(), names, |outputs| {
            if again {
                let named = names.iter().zip(outputs);
                specs = named
                    .filter_map(|(name, output)| OutputSpec::from_value(name, output))
                    .collect();
            }
            read(outputs)
        })?;
        if again && specs.len() == names.len() {
            self.buffers.count += 1;
            let bound = BoundBuffers::new(&self.session, &self.buffers, shape, &specs)?;
            self.buffers.bound = Some(bound);
        }
        Ok(result)
    }
}

/// An output of a run without bound buffers.
#[derive(Debug)]
struct OutputSpec {
    name: String,
    element: TensorElementType,
    shape: Vec<i64>,
}

impl OutputSpec {
    /// Returns None where the value is not a tensor.
    fn from_value(name: &str, value: &DynValue) -> Option<Self> {
        let element = value.dtype().tensor_type()?;
        Some(Self { name: name.to_owned(), element, shape: value.dtype().tensor_shape()?.to_vec() })
    }
}

/// Buffers for images of one shape.
#[derive(Debug)]
struct BoundBuffers {
    shape: [usize; 3],
    names: Vec<String>,
    input: String,
    binding: IoBinding,
    host: Tensor<u8>,
    /// The input on the GPU, for CUDA graphs.
    resident: Option<Tensor<u8>>,
    /// Number of the session's CUDA graph.
    number: String,
    capture: GraphCapture,
}

impl BoundBuffers {
    /// Allocates buffers for images `[n, h, w]` and the outputs that such images gave.
    fn new(
        session: &Session,
        buffers: &Buffers,
        shape: [usize; 3],
        outputs: &[OutputSpec],
    ) -> ort::Result<Self> {
        let Buffers { device, graph, count: number, .. } = *buffers;
        let allocator = |place: Place| Allocator::new(session, place.memory(device)?);
        let [count, height, width] = shape;
        let images = [count, height, width, 3];
        let host = Tensor::<u8>::new(&allocator(Place::Upload)?, images)?;
        let resident =
            if graph { Some(Tensor::<u8>::new(&allocator(Place::Device)?, images)?) } else { None };
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
        Ok(Self {
            shape,
            names: outputs.iter().map(|output| output.name.clone()).collect(),
            input,
            binding,
            host,
            resident,
            number: number.to_string(),
            capture: GraphCapture::default(),
        })
    }

    fn fits(&self, shape: [usize; 3], names: &[&str]) -> bool {
        self.shape == shape && self.names == names
    }

    /// Runs images of its shape, and reads the outputs in order.
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
            let outputs: Vec<_> = self.names.iter().map(|name| &outputs[name.as_str()]).collect();
            return read(&outputs);
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

/// Counts the runs that may capture a CUDA graph. Graphs belong to the thread that captured them.
#[derive(Debug, Default)]
struct GraphCapture {
    thread: Option<ThreadId>,
    runs: usize,
}

impl GraphCapture {
    /// True where the next run, on this thread, may capture.
    fn next_may_capture(&mut self) -> bool {
        let thread = std::thread::current().id();
        if self.thread.replace(thread) != Some(thread) {
            self.runs = 0;
        }
        self.runs += 1;
        self.runs <= RUNS_TO_CAPTURE
    }
}

/// Memory of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Upload,
    Download,
    Device,
}

impl Place {
    fn memory(self, device: Device) -> ort::Result<MemoryInfo<'static>> {
        let (Device::Cuda(number) | Device::TensorRt(number)) = device else {
            let (place, kind) = (AllocationDevice::CPU, MemoryType::Default);
            return MemoryInfo::new(place, 0, AllocatorType::Device, kind);
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
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::config::EngineConfig;

    /// On the CPU, whose memory stands for the GPU's: with bound buffers, and with those of a CUDA
    /// graph.
    #[test]
    fn bound_buffers_change_no_output() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/colors/model.onnx");
        let mut plain = Runner::open(&path, &EngineConfig::default()).unwrap();
        for graph in [false, true] {
            let config = EngineConfig { cuda_graph: graph, ..EngineConfig::default() };
            let mut runner = Runner::open(&path, &config).unwrap();
            runner.buffers.enabled = true;
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
                let image: Vec<u8> =
                    (0..size).map(|index| (index * (round + 3) % 251) as u8).collect();
                let found = runner.run(&image, shape).unwrap();
                assert!(found == plain.run(&image, shape).unwrap(), "round {round}, graph {graph}");
                assert_eq!(
                    runner.buffers.bound.as_ref().map(|bound| bound.shape[0]),
                    [None, Some(2), Some(2), Some(2), Some(2), Some(2), Some(1)][round]
                );
                // Only runs with bound buffers upload: the third and the fifth.
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

    #[test]
    fn exclusive_work_runs_alone() {
        let (gpu, at_work) = (Device::Cuda(0), AtomicUsize::new(0));
        // Neither would come through without the other.
        let barrier = Barrier::new(2);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| with_gpu(gpu, false, || barrier.wait()));
            }
        });
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let at_work = &at_work;
                scope.spawn(move || {
                    for round in 0..200 {
                        let alone = (thread + round) % 4 == 0;
                        with_gpu(if thread < 2 { gpu } else { Device::TensorRt(1) }, alone, || {
                            let others = at_work.fetch_add(1, Ordering::SeqCst);
                            std::thread::yield_now();
                            let beside = at_work.fetch_sub(1, Ordering::SeqCst);
                            assert!(
                                !alone || (others, beside) == (0, 1),
                                "{others} others, then {beside}"
                            );
                        });
                    }
                });
            }
        });
        // The CPU takes no lock.
        with_gpu(gpu, true, || with_gpu(Device::Cpu, true, || ()));
    }

    #[test]
    fn each_thread_captures_its_own_graph() {
        let mut capture = GraphCapture::default();
        let runs = |capture: &mut GraphCapture| [(); 5].map(|()| capture.next_may_capture());
        let expected = [true, true, true, false, false];
        assert_eq!(runs(&mut capture), expected);
        assert_eq!(
            std::thread::scope(|scope| scope.spawn(|| runs(&mut capture)).join().unwrap()),
            expected
        );
        assert!(capture.next_may_capture());
    }
}
