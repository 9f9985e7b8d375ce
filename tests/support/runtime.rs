//! Direct use of ONNX Runtime, as a reference for upsampling: its Resize, ArgMax and Cast of
//! logits, and the logits of a model file. Not for programs that open files with `protoseg-infer`:
//! a process has one environment.

#![allow(dead_code, clippy::allow_attributes, reason = "each test program uses a part")]

use std::path::Path;
use std::sync::OnceLock;

use ort::environment::Environment;
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use ort::value::TensorRef;
use protoseg_export::onnx::proto::{AttributeProto, DataType, GraphProto};
use protoseg_infer::stitch::LogitMap;
use protoseg_infer::upsample::LogitGeometry;

use crate::messages::{constant, file, node, value};

fn builder() -> ort::session::builder::SessionBuilder {
    static ENVIRONMENT: OnceLock<Environment> = OnceLock::new();
    let environment = ENVIRONMENT.get_or_init(|| {
        let library =
            std::env::var_os("ORT_DYLIB_PATH").expect("cargo names ONNX Runtime's library");
        ort::init_from(Path::new(&library))
            .expect("the library")
            .build()
            .expect("the first environment")
    });
    let builder = Session::builder(environment).expect("a session builder");
    let builder = builder
        .with_optimization_level(GraphOptimizationLevel::All)
        .expect("an optimization level");
    builder.with_intra_threads(1).expect("one thread").with_inter_threads(1).expect("one thread")
}

/// Logits to labels in ONNX Runtime: Resize to the padded frame, ArgMax, Cast to bytes; one thread.
pub(crate) struct Tail {
    session: Session,
    frame: LogitGeometry,
}

impl Tail {
    /// Builds the session for logits `[classes, height, width]` of a frame.
    pub(crate) fn new([classes, height, width]: [usize; 3], frame: LogitGeometry) -> Self {
        let mode = if frame.align_corners { "align_corners" } else { "half_pixel" };
        let [rows, columns] = frame.padded;
        let sizes = [1, classes, rows, columns]
            .into_iter()
            .flat_map(|size| (size as i64).to_le_bytes())
            .collect();
        let resize = vec![
            AttributeProto::string("mode", "linear"),
            AttributeProto::string("coordinate_transformation_mode", mode),
        ];
        let argmax = vec![AttributeProto::int("axis", 1), AttributeProto::int("keepdims", 0)];
        let cast = vec![AttributeProto::int("to", i32::from(DataType::Uint8).into())];
        let graph = GraphProto {
            node: vec![
                node("Resize", &["logits", "", "", "sizes"], "scores", resize),
                node("ArgMax", &["scores"], "wide", argmax),
                node("Cast", &["wide"], "labels", cast),
            ],
            name: Some("tail".to_owned()),
            initializer: vec![constant("sizes", DataType::Int64, &[4], sizes)],
            input: vec![value("logits", DataType::Float, &[1, classes, height, width])],
            output: vec![value("labels", DataType::Uint8, &[1, rows, columns])],
        };
        let session = builder().commit_from_memory(&file(graph, None)).expect("the tail");
        Self { session, frame }
    }

    /// Returns the labels of the frame without padding.
    pub(crate) fn labels(&mut self, logits: &LogitMap) -> Vec<u8> {
        let LogitGeometry { height, width, padded, .. } = self.frame;
        let shape = [1, logits.classes, logits.height, logits.width];
        let input =
            TensorRef::from_array_view((shape, &logits.data[..])).expect("logits of the shape");
        let outputs = self.session.run(ort::inputs![input]).expect("labels");
        let (_, labels) = outputs["labels"].try_extract_tensor::<u8>().expect("bytes");
        let rows = labels.chunks_exact(padded[1]).take(height);
        rows.flat_map(|row| &row[..width]).copied().collect()
    }
}

/// Returns the logits of a whole image, RGB `[height, width, 3]`, from a file of the `logits` kind.
pub(crate) fn logits(model: &Path, image: &[u8], [height, width]: [usize; 2]) -> LogitMap {
    let mut session = builder().commit_from_file(model).expect("the model");
    let input =
        TensorRef::from_array_view(([1, height, width, 3], image)).expect("pixels of the shape");
    let outputs = session.run(ort::inputs![input]).expect("logits");
    let (shape, data) = outputs["logits"].try_extract_tensor::<f32>().expect("floats");
    let [classes, height, width] = [1, 2, 3].map(|dimension| shape[dimension] as usize);
    LogitMap { classes, height, width, data: data.to_vec() }
}
