//! Devices as ONNX Runtime reaches them: whether they work, and their peak throughput.

use std::path::{Path, PathBuf};
use std::time::Instant;

use ort::session::{Session, SessionInputValue};
use ort::value::{DynValue, TensorRef};
use protoseg_models::variant::Precision;
use serde::{Deserialize, Serialize};

use super::provider::{ModelSource, is_built_in};
use super::{Runner, SessionError, environment, open_session, run_error, run_session};
use crate::config::{Device, EngineConfig};

/// An ONNX file: y = Relu(x), of two 32-bit floats.
const RELU: &[u8] =
    b"\x08\x08:3\n\x0c\n\x01x\x12\x01y\"\x04Relu\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x02b\x0f\n\
\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x02B\x02\x10\x11";

/// The ONNX Runtime that this process has loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runtime {
    /// Its file; None where the system does not say.
    pub path: Option<PathBuf>,
    /// Its release, commit and kind of build.
    pub build: String,
}

/// Loads ONNX Runtime, if that has not happened yet, and describes it.
pub fn runtime() -> Result<Runtime, SessionError> {
    environment()?;
    let build = ort::info();
    // Hundreds of compiler flags follow.
    let build = build.split(", cmake").next().unwrap_or(build);
    let build = build.trim_start_matches("ORT Build Info: ").to_owned();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let mut files = maps.lines().filter_map(|line| Some(Path::new(&line[line.find('/')?..])));
    let ours = |path: &&Path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libonnxruntime.so"))
    };
    Ok(Runtime { path: files.find(ours).map(Path::to_owned), build })
}

impl Device {
    /// True where ONNX Runtime can be loaded and was built with the provider of this device, which
    /// may still fail here.
    pub fn is_built_in(self) -> bool {
        environment().is_ok() && is_built_in(self)
    }

    /// Runs a network of one operator on this device: an error where its libraries do not load or
    /// it computes wrongly.
    pub fn check(self) -> Result<(), SessionError> {
        let name = Path::new("a test network of one operator");
        let config = EngineConfig::on(self);
        let mut session = open_session(name, &config, ModelSource::Bytes(RELU), None)?;
        let found = run_floats(&mut session, &[2], &[-1.0, 2.0]);
        let found = found.map_err(|source| run_error(name, self, &source))?;
        if found == [0.0, 2.0] {
            return Ok(());
        }
        Err(SessionError::Device {
            device: self,
            reason: format!("it computes {found:?} where [0.0, 2.0] is right"),
            help: "look for a newer driver".to_owned(),
        })
    }
}

/// Runs a test network on its input `x`, and returns its output `y`.
fn run_floats(session: &mut Session, shape: &[usize], values: &[f32]) -> ort::Result<Vec<f32>> {
    let input = SessionInputValue::from(TensorRef::from_array_view((shape, values))?);
    let read = |outputs: &[&DynValue]| Ok(outputs[0].try_extract_tensor::<f32>()?.1.to_vec());
    run_session(session, input, &["y"], read)
}

/// Peak throughput of a device: products of large matrices, and copies to the device and back.
/// Beside it one sees how much of the device a network uses.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DevicePeak {
    /// Multiplications and additions per second, in products of square matrices.
    pub operations_a_second: f64,
    /// Side of these matrices.
    pub side: usize,
    /// Bytes per second to the network and back, both counted, in the buffers that images go
    /// through.
    pub copied_bytes_a_second: f64,
}

/// Products in the shorter and the longer of two chains. They differ in products alone: starting a
/// run and copying take the same time in both.
const CHAINS: [usize; 2] = [4, 20];

/// Runs of each; the quickest counts.
const RUNS: usize = 7;

/// Element types by their numbers in ONNX.
const FLOAT: u64 = 1;
const UINT8: u64 = 2;
const FLOAT16: u64 = 10;

/// Height and width of the image that is copied.
const COPIED: usize = 2048;

impl DevicePeak {
    /// Measures in 32- or 16-bit floats; 8 bits are not measured, and count as 32.
    pub fn measure(config: &EngineConfig, precision: Precision) -> Result<Self, SessionError> {
        let side = if config.first_device().is_gpu() { 4096 } else { 768 };
        let half = precision == Precision::Fp16;
        let [short, long] = CHAINS.map(|products| time_chain(config, half, side, products));
        let products = (CHAINS[1] - CHAINS[0]) as f64;
        let operations = products * 2.0 * (side as f64).powi(3);
        Ok(Self {
            operations_a_second: operations / (long? - short?).max(f64::EPSILON),
            side,
            copied_bytes_a_second: copy_rate(config)?,
        })
    }
}

/// Seconds of the quickest run of a chain of products.
fn time_chain(
    config: &EngineConfig,
    half: bool,
    side: usize,
    products: usize,
) -> Result<f64, SessionError> {
    let name = Path::new("a chain of matrix products");
    let source = chain(half, side, products);
    let mut session = open_session(name, config, ModelSource::Bytes(&source), None)?;
    // Powers of a matrix whose rows sum to one keep the magnitude of their values.
    let values = vec![1.0 / side as f32; side * side];
    let mut run = || {
        let input = TensorRef::from_array_view(([side, side], &values[..]))?;
        run_session(&mut session, input.into(), &["y"], |_| Ok(()))
    };
    quickest(|| run().map_err(|source| run_error(name, config.first_device(), &source)))
}

/// Bytes per second of a network that returns its image.
fn copy_rate(config: &EngineConfig) -> Result<f64, SessionError> {
    let config = EngineConfig { input_size: Some([COPIED; 2]), ..config.clone() };
    let mut runner = Runner::from_bytes("a network that only copies", &copy(), &config)?;
    let image = vec![7; COPIED * COPIED * 3];
    let seconds = quickest(|| runner.run_bytes(&image, [1, COPIED, COPIED], &["y"]).map(drop))?;
    Ok(2.0 * image.len() as f64 / seconds)
}

fn quickest(mut run: impl FnMut() -> Result<(), SessionError>) -> Result<f64, SessionError> {
    let mut best = f64::INFINITY;
    for _ in 0..RUNS {
        let start = Instant::now();
        run()?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(best)
}

/// An ONNX file: a power of a matrix of 32-bit floats, computed in 32 or 16 bits.
fn chain(half: bool, side: usize, products: usize) -> Vec<u8> {
    let mut nodes = Vec::new();
    let first = if half {
        nodes.push(node("Cast", &["x"], "t", &cast(FLOAT16)));
        "t"
    } else {
        "x"
    };
    let mut last = first.to_owned();
    for product in 0..products {
        let next =
            if product + 1 == products && !half { "y".to_owned() } else { format!("p{product}") };
        nodes.push(node("MatMul", &[&last, first], &next, &[]));
        last = next;
    }
    if half {
        nodes.push(node("Cast", &[&last], "y", &cast(FLOAT)));
    }
    model(&nodes, FLOAT, &[side as u64, side as u64])
}

/// An ONNX file: an image to the same image.
fn copy() -> Vec<u8> {
    model(&[node("Identity", &["x"], "y", &[])], UINT8, &[1, COPIED as u64, COPIED as u64, 3])
}

/// The message `ModelProto`: graph and opset 17.
fn model(nodes: &[Vec<u8>], element: u64, shape: &[u64]) -> Vec<u8> {
    let value = |name: &str| {
        let sizes: Vec<u8> = shape.iter().flat_map(|&size| part(1, &number(1, size))).collect();
        let tensor = [number(1, element), part(2, &sizes)].concat();
        [part(1, name.as_bytes()), part(2, &part(1, &tensor))].concat()
    };
    let nodes: Vec<u8> = nodes.iter().flat_map(|node| part(1, node)).collect();
    let graph = [nodes, part(2, b"g"), part(11, &value("x")), part(12, &value("y"))].concat();
    [number(1, 8), part(7, &graph), part(8, &number(2, 17))].concat()
}

fn node(operator: &str, inputs: &[&str], output: &str, attribute: &[u8]) -> Vec<u8> {
    let inputs: Vec<u8> = inputs.iter().flat_map(|input| part(1, input.as_bytes())).collect();
    [inputs, part(2, output.as_bytes()), part(4, operator.as_bytes()), attribute.to_vec()].concat()
}

/// The attribute `to` of Cast; 2 is the attribute type of integers.
fn cast(element: u64) -> Vec<u8> {
    part(5, &[part(1, b"to"), number(3, element), number(20, 2)].concat())
}

/// A length-delimited protobuf field.
fn part(field: u64, bytes: &[u8]) -> Vec<u8> {
    [variable(field << 3 | 2), variable(bytes.len() as u64), bytes.to_vec()].concat()
}

/// A protobuf field that is a varint.
fn number(field: u64, value: u64) -> Vec<u8> {
    [variable(field << 3), variable(value)].concat()
}

/// A protobuf varint: seven bits per byte.
fn variable(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7F {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_has_a_peak_in_both_precisions() {
        for precision in [Precision::Fp32, Precision::Fp16] {
            let found = DevicePeak::measure(&EngineConfig::default(), precision).unwrap();
            // Between a slow CPU and a rack of GPUs.
            assert!((1e6..1e16).contains(&found.operations_a_second), "{found:?}");
            assert!((1e6..1e13).contains(&found.copied_bytes_a_second), "{found:?}");
        }
    }

    #[test]
    fn a_chain_is_the_power_it_says() {
        for half in [false, true] {
            let source = chain(half, 2, 3);
            let (name, config) = (Path::new("chain"), EngineConfig::default());
            let mut session =
                open_session(name, &config, ModelSource::Bytes(&source), None).unwrap();
            // The fourth power of [[1/2, 1/4], [0, 1]], exact in 16 bits too.
            let found = run_floats(&mut session, &[2, 2], &[0.5, 0.25, 0.0, 1.0]).unwrap();
            assert_eq!(found, [0.0625, 0.46875, 0.0, 1.0]);
        }
    }
}
