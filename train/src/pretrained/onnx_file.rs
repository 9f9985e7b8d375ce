//! Weights of ONNX files: initializers by name.
//!
//! Exporters fold the transposition of linear layers into matrices without a name of their own.
//! Such a matrix is named by the bias that is added to its product, never by its order.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use prost::Message;
use protoseg_models::weights::{StateDict, Tensor};

/// Data type of 32-bit floats.
const FLOAT: i32 = 1;

/// The part of a file that holds weights; see ONNX's `onnx.proto`.
#[derive(Clone, PartialEq, Message)]
struct ModelProto {
    #[prost(message, optional, tag = "7")]
    graph: Option<GraphProto>,
}

#[derive(Clone, PartialEq, Message)]
struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    node: Vec<NodeProto>,
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<TensorProto>,
}

#[derive(Clone, PartialEq, Message)]
struct NodeProto {
    #[prost(string, repeated, tag = "1")]
    input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    output: Vec<String>,
    #[prost(string, tag = "4")]
    op_type: String,
}

#[derive(Clone, PartialEq, Message)]
struct TensorProto {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(float, repeated, tag = "4")]
    float_data: Vec<f32>,
    #[prost(string, tag = "8")]
    name: String,
    #[prost(bytes = "vec", tag = "9")]
    raw_data: Vec<u8>,
    /// 1 for data in a file of its own.
    #[prost(int32, tag = "14")]
    data_location: i32,
}

/// Reads the 32-bit floats of a file. Matrices of linear layers are `[out, in]`.
pub(super) fn read(path: &Path) -> Result<StateDict> {
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    decode(&bytes).with_context(|| format!("{} cannot be read as ONNX", path.display()))
}

fn decode(bytes: &[u8]) -> Result<StateDict> {
    let GraphProto { node, initializer } =
        ModelProto::decode(bytes)?.graph.context("it holds no graph")?;
    let mut weights = StateDict::new();
    for tensor in initializer.into_iter().filter(|tensor| tensor.data_type == FLOAT) {
        let name = tensor.name.clone();
        let tensor = values(tensor).with_context(|| format!("the tensor `{name}`"))?;
        weights.insert(name, tensor);
    }
    name_matrices(&node, &mut weights)?;
    join_positions(&mut weights)?;
    Ok(weights)
}

fn values(tensor: TensorProto) -> Result<Tensor> {
    ensure!(tensor.data_location == 0, "its data is in another file, which is not read");
    let shape: Vec<usize> = tensor
        .dims
        .iter()
        .map(|&length| usize::try_from(length).context("a negative dimension"))
        .collect::<Result<_>>()?;
    let data = if tensor.raw_data.is_empty() {
        tensor.float_data
    } else {
        let (chunks, rest) = tensor.raw_data.as_chunks::<4>();
        ensure!(rest.is_empty(), "its data ends within a number");
        chunks.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect()
    };
    let count = shape.iter().try_fold(1_usize, |count, &length| count.checked_mul(length));
    ensure!(count == Some(data.len()), "it has {} numbers for {shape:?}", data.len());
    Ok(Tensor { shape, data })
}

/// Gives matrices whose product gets a bias `x.bias` the name `x.weight`, transposed.
fn name_matrices(nodes: &[NodeProto], weights: &mut StateDict) -> Result<()> {
    let mut biases: BTreeMap<&str, &str> = BTreeMap::new();
    for node in nodes.iter().filter(|node| node.op_type == "Add") {
        if let [first, second] = &node.input[..] {
            biases.insert(first, second);
            biases.insert(second, first);
        }
    }
    for node in nodes.iter().filter(|node| node.op_type == "MatMul") {
        let ([_, matrix], [product]) = (&node.input[..], &node.output[..]) else { continue };
        let Some(layer) = biases.get(product.as_str()).and_then(|bias| bias.strip_suffix(".bias"))
        else {
            continue;
        };
        let name = format!("{layer}.weight");
        if *matrix == name {
            continue;
        }
        let Some(Tensor { shape, data }) = weights.remove(matrix) else { continue };
        let [inputs, outputs] = shape[..] else {
            bail!("the matrix of `{layer}` has the shape {shape:?}")
        };
        let transposed = Tensor::from_fn(&[outputs, inputs], |index| {
            data[index % inputs * outputs + index / inputs]
        });
        weights.insert(name, transposed);
    }
    Ok(())
}

/// Joins a table of positions that an exporter has split into the class token's and the others.
fn join_positions(weights: &mut StateDict) -> Result<()> {
    let Some(prefix) = weights
        .keys()
        .find_map(|name| name.strip_suffix("embeddings.cls_token").map(str::to_owned))
    else {
        return Ok(());
    };
    let name = format!("{prefix}embeddings.position_embeddings");
    if weights.contains_key(&name) {
        return Ok(());
    }
    let anonymous = |tokens: fn(usize) -> bool| {
        let mut found = weights.iter().filter(|(name, tensor)| {
            name.starts_with("onnx::") && matches!(tensor.shape[..], [1, count, _] if tokens(count))
        });
        match (found.next(), found.next()) {
            (Some((_, tensor)), None) => Ok(tensor.clone()),
            _ => bail!("it does not hold one table of positions"),
        }
    };
    let class = anonymous(|count| count == 1)?;
    let grid = anonymous(|count| count > 1)?;
    let channels = class.shape[2];
    ensure!(grid.shape[2] == channels, "its positions have other channels than its class token");
    let shape = vec![1, 1 + grid.shape[1], channels];
    let data = [class.data, grid.data].concat();
    weights.insert(name, Tensor { shape, data });
    Ok(())
}
