//! What a device can do at best, as this program reaches it: products of large matrices, and copies to the device and back.
//! Beside them one sees how much of a device a network uses.

use std::path::Path;
use std::time::Instant;

use ort::session::SessionInputValue;
use ort::value::TensorRef;
use protoseg_models::variant::Precision;
use serde::{Deserialize, Serialize};

use super::engines::ModelSource;
use super::{Runner, SessionError, commit, failure, run_session};
use crate::config::EngineConfig;

/// What a device reached.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DevicePeak {
    /// Multiplications and additions in a second, in products of square matrices.
    pub operations_a_second: f64,
    /// Side of these matrices.
    pub side: usize,
    /// Bytes in a second that come to the network and that come back, both counted, in the buffers that pictures go through.
    pub copied_bytes_a_second: f64,
}

/// Products in the shorter and the longer of two chains. What they differ in is products alone: starting a run and copying are
/// the same in both.
const CHAINS: [usize; 2] = [4, 20];

/// Runs of each; the quickest counts, as a ceiling is asked for.
const RUNS: usize = 7;

/// Elements of tensors, by their numbers in ONNX.
const FLOAT: u64 = 1;
const UINT8: u64 = 2;
const FLOAT16: u64 = 10;

/// Height and width of the picture that is copied.
const COPIED: usize = 2048;

impl DevicePeak {
    /// Measures them in 32- or 16-bit floats, as options say; 8 bits are not measured, and count as 32.
    pub fn measure(config: &EngineConfig, precision: Precision) -> Result<Self, SessionError> {
        let side = if config.first_device().is_gpu() { 4096 } else { 768 };
        let half = precision == Precision::Fp16;
        let [short, long] = CHAINS.map(|products| products_take(config, half, side, products));
        let products = (CHAINS[1] - CHAINS[0]) as f64;
        let operations = products * 2.0 * (side as f64).powi(3);
        Ok(Self {
            operations_a_second: operations / (long? - short?).max(f64::EPSILON),
            side,
            copied_bytes_a_second: copies(config)?,
        })
    }
}

/// Seconds of the quickest run of a chain of products.
fn products_take(
    config: &EngineConfig,
    half: bool,
    side: usize,
    products: usize,
) -> Result<f64, SessionError> {
    let name = Path::new("a chain of products of matrices");
    let mut session = commit(name, config, ModelSource::Bytes(&chain(half, side, products)))?;
    // Powers of a matrix whose rows sum to one are matrices of the same size of numbers.
    let values = vec![1.0 / side as f32; side * side];
    let mut run = || {
        let input =
            SessionInputValue::from(TensorRef::from_array_view(([side, side], &values[..]))?);
        run_session(&mut session, input, &["y"], |_| Ok(()))
    };
    quickest(|| run().map_err(|source| failure::run_error(name, config.first_device(), &source)))
}

/// Bytes in a second of a network that gives back the picture it gets.
fn copies(config: &EngineConfig) -> Result<f64, SessionError> {
    let config = EngineConfig { input_size: Some([COPIED; 2]), ..config.clone() };
    let mut runner = Runner::from_bytes("a network that only copies", &copy(), &config)?;
    let picture = vec![7; COPIED * COPIED * 3];
    let seconds = quickest(|| runner.run_bytes(&picture, [1, COPIED, COPIED], &["y"]).map(drop))?;
    Ok(2.0 * picture.len() as f64 / seconds)
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

/// An ONNX file: a matrix of 32-bit floats to a power of it, counted in 32 or 16 bits.
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

/// An ONNX file: a picture to the same picture.
fn copy() -> Vec<u8> {
    model(&[node("Identity", &["x"], "y", &[])], UINT8, &[1, COPIED as u64, COPIED as u64, 3])
}

/// A message of ONNX: its graph and the version of its operators.
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

/// The attribute of Cast: to which elements. An integer has the kind 2.
fn cast(element: u64) -> Vec<u8> {
    part(5, &[part(1, b"to"), number(3, element), number(20, 2)].concat())
}

/// A field of a protobuf message that has a length.
fn part(field: u64, bytes: &[u8]) -> Vec<u8> {
    [variable(field << 3 | 2), variable(bytes.len() as u64), bytes.to_vec()].concat()
}

/// A field of a protobuf message that is a number.
fn number(field: u64, value: u64) -> Vec<u8> {
    [variable(field << 3), variable(value)].concat()
}

/// A number in as many bytes as it needs, seven bits in each.
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
    fn the_processor_has_ceilings_in_both_formats() {
        for precision in [Precision::Fp32, Precision::Fp16] {
            let found = DevicePeak::measure(&EngineConfig::default(), precision).unwrap();
            // No processor is slower than a million, and none faster than what a rack of GPUs does.
            assert!((1e6..1e16).contains(&found.operations_a_second), "{found:?}");
            assert!((1e6..1e13).contains(&found.copied_bytes_a_second), "{found:?}");
        }
    }

    #[test]
    fn a_chain_is_the_power_it_says() {
        for half in [false, true] {
            let mut session = commit(
                Path::new("chain"),
                &EngineConfig::default(),
                ModelSource::Bytes(&chain(half, 2, 3)),
            )
            .unwrap();
            let values = [0.5_f32, 0.25, 0.0, 1.0];
            let input = SessionInputValue::from(
                TensorRef::from_array_view(([2_usize, 2], &values[..])).unwrap(),
            );
            let read = |outputs: &[&ort::value::DynValue]| {
                Ok(outputs[0].try_extract_tensor::<f32>()?.1.to_vec())
            };
            // The fourth power of [[1/2, 1/4], [0, 1]], exact in 16 bits too.
            assert_eq!(
                run_session(&mut session, input, &["y"], read).unwrap(),
                [0.0625, 0.46875, 0.0, 1.0]
            );
        }
    }
}
