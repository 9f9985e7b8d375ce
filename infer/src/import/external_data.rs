//! Files with weights that an ONNX file names: which they are, whether they are whole, and their
//! copies in the bundle.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use prost::Message;
use protoseg_models::bundle::{MANIFEST, PROBE, TRITON, TUNING, is_inside};
use protoseg_models::digest;

use super::ImportError;

/// Value of `TensorProto.data_location` for weights in another file.
const EXTERNAL: i32 = 1;

/// Depth of graphs inside nodes beyond which nothing is read; ONNX Runtime takes no more.
const MAX_DEPTH: usize = 32;

// The parts of `onnx.proto` that tell where weights lie; everything else is skipped.

#[derive(Clone, PartialEq, Message)]
struct ModelProto {
    #[prost(message, optional, tag = "7")]
    graph: Option<GraphProto>,
    #[prost(message, repeated, tag = "25")]
    functions: Vec<FunctionProto>,
}

#[derive(Clone, PartialEq, Message)]
struct FunctionProto {
    #[prost(message, repeated, tag = "7")]
    node: Vec<NodeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    node: Vec<NodeProto>,
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<TensorProto>,
    #[prost(message, repeated, tag = "15")]
    sparse_initializer: Vec<SparseTensorProto>,
}

#[derive(Clone, PartialEq, Message)]
struct NodeProto {
    #[prost(message, repeated, tag = "5")]
    attribute: Vec<AttributeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct AttributeProto {
    #[prost(message, optional, tag = "5")]
    t: Option<TensorProto>,
    #[prost(message, optional, tag = "6")]
    g: Option<GraphProto>,
    #[prost(message, repeated, tag = "10")]
    tensors: Vec<TensorProto>,
    #[prost(message, repeated, tag = "11")]
    graphs: Vec<GraphProto>,
}

#[derive(Clone, PartialEq, Message)]
struct SparseTensorProto {
    #[prost(message, optional, tag = "1")]
    values: Option<TensorProto>,
    #[prost(message, optional, tag = "2")]
    indices: Option<TensorProto>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorProto {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, optional, tag = "2")]
    data_type: Option<i32>,
    #[prost(message, repeated, tag = "13")]
    external_data: Vec<StringStringEntryProto>,
    #[prost(int32, optional, tag = "14")]
    data_location: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct StringStringEntryProto {
    #[prost(string, optional, tag = "1")]
    key: Option<String>,
    #[prost(string, optional, tag = "2")]
    value: Option<String>,
}

/// False where the bytes end within a field, as those of a file that was cut short, or are none of
/// protobuf.
pub(super) fn is_whole(bytes: &[u8]) -> bool {
    ModelProto::decode(bytes).is_ok()
}

/// Files that an ONNX file names, each with the bytes that it must hold at least.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ExternalData(BTreeMap<String, u64>);

impl ExternalData {
    /// Finds the files that the bytes of an ONNX file name. Bytes that are no ONNX file name none;
    /// ONNX Runtime says what is wrong with them.
    pub(super) fn find(bytes: &[u8]) -> Self {
        let mut found = Self::default();
        let Ok(model) = ModelProto::decode(bytes) else { return found };
        if let Some(graph) = &model.graph {
            found.add_graph(graph, 0);
        }
        model.functions.iter().for_each(|function| found.add_nodes(&function.node, 0));
        found
    }

    fn add_graph(&mut self, graph: &GraphProto, depth: usize) {
        if depth > MAX_DEPTH {
            return;
        }
        graph.initializer.iter().for_each(|tensor| self.add(tensor));
        let sparse = graph.sparse_initializer.iter();
        sparse.flat_map(|sparse| sparse.values.iter().chain(&sparse.indices)).for_each(|tensor| {
            self.add(tensor);
        });
        self.add_nodes(&graph.node, depth);
    }

    fn add_nodes(&mut self, nodes: &[NodeProto], depth: usize) {
        for attribute in nodes.iter().flat_map(|node| &node.attribute) {
            attribute.t.iter().chain(&attribute.tensors).for_each(|tensor| self.add(tensor));
            let graphs = attribute.g.iter().chain(&attribute.graphs);
            graphs.for_each(|graph| self.add_graph(graph, depth + 1));
        }
    }

    fn add(&mut self, tensor: &TensorProto) {
        if tensor.data_location != Some(EXTERNAL) {
            return;
        }
        let value = |key: &str| {
            let entry = tensor.external_data.iter().find(|entry| entry.key.as_deref() == Some(key));
            entry.and_then(|entry| entry.value.as_deref())
        };
        let Some(location) = value("location") else { return };
        let number = |key: &str| value(key).and_then(|text| text.parse::<u64>().ok());
        let length = number("length").unwrap_or_else(|| tensor.bytes());
        let end = number("offset").unwrap_or(0).saturating_add(length);
        let least = self.0.entry(location.to_owned()).or_default();
        *least = end.max(*least);
    }

    /// Returns the names, without digests.
    pub(super) fn names(&self) -> BTreeMap<String, String> {
        self.0.keys().map(|name| (name.clone(), String::new())).collect()
    }

    /// Checks that every file lies beside or below the ONNX file, and is long enough.
    pub(super) fn check(&self, model: &Path) -> Result<(), ImportError> {
        let folder = model.parent().unwrap_or(Path::new(""));
        for (name, &expected) in &self.0 {
            let refused =
                |reason: String| Err(ImportError::ExternalData { name: name.clone(), reason });
            if !is_inside(name) {
                return refused(
                    "lies elsewhere; files with weights must lie beside the ONNX file or below it, by a relative path without `..`"
                        .to_owned(),
                );
            }
            let first = name.trim_start_matches("./").split('/').next().unwrap_or_default();
            if [MANIFEST, PROBE, TRITON, TUNING, super::FILE].contains(&first) {
                return refused(
                    "has a name that bundles use for other files; save the model with another"
                        .to_owned(),
                );
            }
            match std::fs::metadata(folder.join(name)) {
                Err(error) => return refused(format!("cannot be read: {error}")),
                Ok(data) if !data.is_file() => return refused("is not a file".to_owned()),
                Ok(data) if data.len() < expected => {
                    return refused(format!(
                        "is too short: {expected} bytes are called for, {} are there; copy it again",
                        data.len()
                    ));
                }
                Ok(_) => {}
            }
        }
        Ok(())
    }

    /// Copies the files into the bundle, and returns their digests by their names.
    pub(super) fn copy(
        &self,
        model: &Path,
        bundle: &Path,
    ) -> Result<BTreeMap<String, String>, (PathBuf, std::io::Error)> {
        let folder = model.parent().unwrap_or(Path::new(""));
        let mut digests = BTreeMap::new();
        for name in self.0.keys() {
            let (from, to) = (folder.join(name), bundle.join(name));
            let failed = |path: &Path| {
                let path = path.to_owned();
                move |source| (path, source)
            };
            if let Some(parent) = to.parent() {
                std::fs::create_dir_all(parent).map_err(failed(parent))?;
            }
            std::fs::copy(&from, &to).map_err(failed(&to))?;
            let digest = digest::sha256_file(&to).map_err(failed(&to))?;
            digests.insert(name.clone(), digest);
        }
        Ok(digests)
    }
}

impl TensorProto {
    /// Bytes of the elements, by the numbers of types in `onnx.proto`; 0 for others.
    fn bytes(&self) -> u64 {
        let size = match self.data_type {
            Some(2 | 3 | 9 | 17..=20) => 1,
            Some(4 | 5 | 10 | 16) => 2,
            Some(1 | 6 | 12) => 4,
            Some(7 | 11 | 13 | 14) => 8,
            Some(15) => 16,
            _ => 0,
        };
        let sides = self.dims.iter().map(|&side| u64::try_from(side).unwrap_or(0));
        sides.fold(size, u64::saturating_mul)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(entries: &[(&str, &str)]) -> TensorProto {
        let entry = |(key, value): &(&str, &str)| StringStringEntryProto {
            key: Some((*key).to_owned()),
            value: Some((*value).to_owned()),
        };
        TensorProto {
            dims: vec![2, 3],
            data_type: Some(1),
            external_data: entries.iter().map(entry).collect(),
            data_location: Some(EXTERNAL),
        }
    }

    fn found(tensors: Vec<TensorProto>) -> ExternalData {
        let inner = GraphProto { initializer: tensors, ..GraphProto::default() };
        let branch = AttributeProto { g: Some(inner), ..AttributeProto::default() };
        let node = NodeProto { attribute: vec![branch] };
        let graph = GraphProto { node: vec![node], ..GraphProto::default() };
        let model = ModelProto { graph: Some(graph), functions: Vec::new() };
        ExternalData::find(&model.encode_to_vec())
    }

    #[test]
    fn the_files_and_their_least_length_are_found() {
        let files = found(vec![
            tensor(&[("location", "w.bin"), ("offset", "100"), ("length", "24")]),
            tensor(&[("location", "w.bin"), ("length", "7")]),
            tensor(&[("location", "sub/v.bin")]),
            TensorProto { data_location: None, ..tensor(&[("location", "none")]) },
        ]);
        let expected = [("sub/v.bin".to_owned(), 24), ("w.bin".to_owned(), 124)];
        assert_eq!(files, ExternalData(expected.into()));
        assert_eq!(ExternalData::find(b"hello"), ExternalData::default());
    }

    #[test]
    fn files_elsewhere_missing_and_short_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("m.onnx");
        std::fs::write(folder.path().join("w.bin"), [0; 20]).unwrap();
        let refusal = |name: &str| {
            let files = found(vec![tensor(&[("location", name)])]);
            files.check(&model).unwrap_err().to_string()
        };
        for (name, part) in [
            ("../w.bin", "lies elsewhere"),
            ("/tmp/w.bin", "lies elsewhere"),
            ("a/../w.bin", "lies elsewhere"),
            ("./gone.bin", "cannot be read"),
            ("w.bin", "24 bytes are called for, 20 are there"),
            ("manifest.json", "other files"),
        ] {
            let message = refusal(name);
            assert!(message.contains(name) && message.contains(part), "{message}");
        }
        let whole = found(vec![tensor(&[("location", "w.bin"), ("length", "20")])]);
        whole.check(&model).unwrap();
        let bundle = tempfile::tempdir().unwrap();
        let digests = whole.copy(&model, bundle.path()).unwrap();
        assert_eq!(digests["w.bin"], digest::sha256_bytes(&[0; 20]));
    }
}
