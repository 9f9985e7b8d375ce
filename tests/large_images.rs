//! Images in windows, predicted row by row of windows: the same bits as all at once, in little
//! memory.

#[path = "support/messages.rs"]
mod messages;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use image::RgbImage;
use messages::{constant, file, node, value};
use ndarray::{Array2, Axis, concatenate};
use protoseg_export::onnx::proto::{AttributeProto, DataType, GraphProto};
use protoseg_infer::segmenter::{RowStream, SegmentError};
use protoseg_infer::{EngineConfig, Outputs, Prediction, Segmenter};
use protoseg_models::bundle::{METADATA_KEY, Model};
use protoseg_models::classes::ClassTable;
use protoseg_models::random::Stream;
use protoseg_models::reading::ImageReading;
use protoseg_models::window::{Blend, LogitGrid, Tiling, Window};

const HALF_PIXEL: LogitGrid = LogitGrid { stride: 4, encoder_stride: 16, align_corners: false };
const ALIGNED: LogitGrid = LogitGrid { stride: 4, encoder_stride: 8, align_corners: true };
const FULL: LogitGrid = LogitGrid { stride: 1, encoder_stride: 16, align_corners: false };
const ALL: Outputs = Outputs { confidence: true, margin: true, logits: false };

/// Writes a network of one convolution with random weights, from which a window's mean is
/// subtracted: so the logits of a pixel differ from window to window, as those of networks with
/// image-level pooling do.
fn write_network(folder: &Path, grid: LogitGrid) -> PathBuf {
    let (classes, stream) = (ClassTable::cityscapes(), Stream::named("convolution"));
    let kernel = if grid.align_corners { 1 } else { grid.stride };
    let shape = [classes.count(), 3, kernel, kernel];
    let weight = |index: u64| (stream.signed_unit(index) * 0.2 / (kernel * kernel) as f64) as f32;
    let weights = (0..shape.iter().product::<usize>() as u64)
        .flat_map(|index| weight(index).to_le_bytes())
        .collect();
    let graph = GraphProto {
        node: vec![
            node(
                "Cast",
                &["image"],
                "floats",
                vec![AttributeProto::int("to", i32::from(DataType::Float).into())],
            ),
            node(
                "Transpose",
                &["floats"],
                "planes",
                vec![AttributeProto::ints("perm", &[0, 3, 1, 2])],
            ),
            node(
                "Conv",
                &["planes", "weights"],
                "own",
                vec![AttributeProto::ints("strides", &[grid.stride; 2])],
            ),
            node("GlobalAveragePool", &["own"], "mean", vec![]),
            node("Sub", &["own", "mean"], "logits", vec![]),
        ],
        name: Some("network".to_owned()),
        initializer: vec![constant("weights", DataType::Float, &shape, weights)],
        input: vec![value("image", DataType::Uint8, &[0, 0, 0, 3])],
        output: vec![value("logits", DataType::Float, &[0, classes.count(), 0, 0])],
    };
    let model = Model {
        version: Model::VERSION.to_owned(),
        name: "convolution".to_owned(),
        classes,
        ignore: 255,
        grid,
        window: None,
        arch: None,
        blend: Blend::Ramp,
        weights_sha256: None,
        reading: ImageReading::default(),
    };
    let model = serde_json::to_string(&model).expect("JSON");
    let path = folder.join("network.onnx");
    std::fs::write(&path, file(graph, Some((METADATA_KEY, model)))).expect("the network");
    path
}

fn open(network: &Path, window: Window, batch: usize) -> Segmenter {
    let config = EngineConfig {
        window: Some(Tiling::Windows(window)),
        batch: NonZeroUsize::new(batch),
        ..EngineConfig::default()
    };
    Segmenter::open_with(network, &config).expect("a network")
}

/// Blotches of color with some noise, so that there are cells of every kind.
fn blotches(height: usize, width: usize) -> RgbImage {
    let stream = Stream::named("blotches");
    let byte = |index: usize| {
        let (row, column, channel) = (index / (width * 3), index / 3 % width, index % 3);
        let blotch = ((row / 37 * 31) ^ (column / 53 * 17)) * 3 + channel;
        (stream.below(blotch as u64, 224) + stream.below((1 << 32) + index as u64, 32)) as u8
    };
    let bytes = (0..height * width * 3).map(byte).collect();
    RgbImage::from_raw(width as u32, height as u32, bytes).expect("pixels of the size")
}

/// Calls a function with networks of several grids, windows and batches, and images from one pixel
/// to some rows and columns of windows.
fn each_image(check: impl Fn(&mut Segmenter, &RgbImage, &str)) {
    let folder = tempfile::tempdir().expect("a folder");
    for (grid, window) in [
        (HALF_PIXEL, Window { size: 48, stride: 32 }),
        (HALF_PIXEL, Window { size: 64, stride: 64 }),
        (HALF_PIXEL, Window { size: 64, stride: 12 }),
        (HALF_PIXEL, Window { size: 32, stride: 4 }),
        (ALIGNED, Window { size: 33, stride: 20 }),
        (ALIGNED, Window { size: 65, stride: 64 }),
        (FULL, Window { size: 48, stride: 33 }),
        (FULL, Window { size: 32, stride: 3 }),
    ] {
        let network = write_network(folder.path(), grid);
        for batch in [1, 3, 50] {
            let mut segmenter = open(&network, window, batch);
            for (height, width) in
                [(1, 1), (7, 301), (33, 20), (48, 48), (65, 129), (200, 131), (133, 900), (301, 7)]
            {
                let case = format!("{grid:?} {window:?} {batch} {height}x{width}");
                check(&mut segmenter, &blotches(height, width), &case);
            }
        }
    }
}

#[test]
fn row_by_row_gives_the_same_bits_as_all_at_once() {
    each_image(|segmenter, image, case| {
        for outputs in [ALL, Outputs::default()] {
            let kept = Outputs { logits: true, ..outputs };
            let mut expected = segmenter.predict(image, kept).expect("logits");
            assert!(expected.logits.take().is_some());
            let prediction = segmenter.predict(image, outputs).expect("a prediction");
            let size = (image.height() as usize, image.width() as usize);
            assert_eq!(prediction.labels.dim(), size);
            assert!(prediction == expected, "{case} {outputs:?}");
        }
    });
}

/// An image in memory that goes through a segmenter by rows.
struct Rows<'a> {
    image: &'a RgbImage,
    /// Numbers of rows that are read at a time, in turns.
    steps: [usize; 3],
    reads: usize,
    row: usize,
    taken: Vec<Prediction>,
    /// Windows that were done.
    done: usize,
    /// Windows after which the run is to end.
    most: usize,
}

#[derive(Debug)]
enum RowsError {
    Segment(SegmentError),
    Enough,
}

impl From<SegmentError> for RowsError {
    fn from(error: SegmentError) -> Self {
        Self::Segment(error)
    }
}

impl<'a> Rows<'a> {
    fn new(image: &'a RgbImage, steps: [usize; 3]) -> Self {
        let (taken, most) = (Vec::new(), usize::MAX);
        Self { image, steps, reads: 0, row: 0, taken, done: 0, most }
    }
}

impl RowStream for Rows<'_> {
    type Error = RowsError;

    fn read(&mut self, pixels: &mut Vec<u8>) -> Result<(), RowsError> {
        let (height, width) = (self.image.height() as usize, self.image.width() as usize);
        let rows = self.steps[self.reads % 3].min(height - self.row);
        pixels.extend_from_slice(&self.image.as_raw()[self.row * width * 3..][..rows * width * 3]);
        self.reads += 1;
        self.row += rows;
        Ok(())
    }

    fn write(&mut self, rows: Prediction) -> Result<(), RowsError> {
        self.taken.push(rows);
        Ok(())
    }

    fn progress(&mut self, done: usize, all: usize) -> Result<(), RowsError> {
        assert!(done > self.done && done <= all);
        self.done = done;
        if done >= self.most { Err(RowsError::Enough) } else { Ok(()) }
    }
}

#[test]
fn rows_that_come_from_the_top_give_the_same_bits() {
    each_image(|segmenter, image, case| {
        let size = [image.height() as usize, image.width() as usize];
        let expected = segmenter.predict(image, ALL).expect("a prediction");
        for steps in [[1, 1, 1], [16, 16, 16], [5, 100, 1], [400, 400, 400]] {
            let mut rows = Rows::new(image, steps);
            segmenter.predict_rows(size, ALL, &mut rows).expect("rows");
            let taken = |plane: fn(&Prediction) -> Option<&Array2<u8>>| {
                let planes = rows.taken.iter().map(plane);
                let planes = planes.map(|plane| plane.expect("a plane").view());
                concatenate(Axis(0), &planes.collect::<Vec<_>>()).expect("rows")
            };
            assert!(taken(|rows| Some(&rows.labels)) == expected.labels, "{case}");
            let confidence = Some(taken(|rows| rows.confidence.as_ref()));
            assert!(confidence == expected.confidence, "{case}");
            assert!(Some(taken(|rows| rows.margin.as_ref())) == expected.margin, "{case}");
        }
    });
}

#[test]
fn no_more_rows_are_read_than_windows_need_and_errors_end_the_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let network = write_network(folder.path(), HALF_PIXEL);
    let mut segmenter = open(&network, Window { size: 64, stride: 48 }, 1);
    let image = blotches(1000, 100);
    // Two windows side by side.
    for (windows, rows_read) in [(1, 64), (2, 64), (3, 112), (9, 256)] {
        let mut rows = Rows { most: windows, ..Rows::new(&image, [1; 3]) };
        let ended = segmenter.predict_rows([1000, 100], ALL, &mut rows);
        assert!(matches!(ended, Err(RowsError::Enough)), "{ended:?}");
        assert_eq!((rows.row, rows.done), (rows_read, windows));
    }
    let mut rows = Rows::new(&image, [1; 3]);
    let ended = segmenter.predict_rows([1001, 100], ALL, &mut rows);
    assert!(
        matches!(ended, Err(RowsError::Segment(SegmentError::Rows { bytes: 0, row: 1000, .. }))),
        "{ended:?}"
    );
    let whole = EngineConfig { window: Some(Tiling::Whole), ..EngineConfig::default() };
    let mut whole = Segmenter::open_with(&network, &whole).expect("a network");
    let ended = whole.predict_rows([1000, 100], ALL, &mut Rows::new(&image, [1; 3]));
    assert!(matches!(ended, Err(RowsError::Segment(SegmentError::WholeByRows))), "{ended:?}");
}

/// Environment variable that makes the test below label an image of so many pixels a side, and
/// print its peak memory.
#[cfg(target_os = "linux")]
const SIDE: &str = "PROTOSEG_TEST_SIDE";

#[cfg(target_os = "linux")]
#[test]
fn a_hundred_megapixels_take_less_than_a_gigabyte_above_the_session() {
    const MOST: u64 = 1_000_000_000;
    if let Ok(side) = std::env::var(SIDE) {
        let side: usize = side.parse().expect("a number");
        let folder = tempfile::tempdir().expect("a folder");
        let mut segmenter =
            open(&write_network(folder.path(), HALF_PIXEL), Window { size: 512, stride: 448 }, 1);
        let prediction = segmenter.predict(&blotches(side, side), ALL).expect("decisions");
        assert_eq!(prediction.labels.len(), side * side);
        let status = std::fs::read_to_string("/proc/self/status").expect("the process");
        let line =
            status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("peak memory");
        return eprintln!(
            "peak {} of {} kinds",
            line.trim(),
            kinds(prediction.labels.as_slice().expect("rows"))
        );
    }
    let peak = |side: usize| {
        let own = std::env::current_exe().expect("the test program");
        let name = "a_hundred_megapixels_take_less_than_a_gigabyte_above_the_session";
        let mut child = std::process::Command::new(own);
        let output = child
            .args([name, "--exact", "--nocapture"])
            .env(SIDE, side.to_string())
            .output()
            .expect("a child");
        let text = String::from_utf8_lossy(&output.stderr);
        let words: Vec<&str> = text.split_whitespace().skip_while(|word| *word != "peak").collect();
        let [_, kibibytes, "kB", "of", kinds, ..] = words[..] else {
            panic!("{text}");
        };
        assert!(kinds.parse::<usize>().expect("a number") > 5, "{kinds} kinds of labels");
        kibibytes.parse::<u64>().expect("a number") * 1024
    };
    let (session, large) = (peak(512), peak(10_000));
    eprintln!("session {} MB, 100 megapixels {} MB", session / 1_000_000, large / 1_000_000);
    assert!(large - session < MOST, "{} bytes above the session", large - session);
    // At least three bytes of image and three of prediction per pixel.
    assert!(large - session > 590_000_000, "{} bytes cannot be", large - session);
}

#[cfg(target_os = "linux")]
fn kinds(labels: &[u8]) -> usize {
    labels.iter().collect::<std::collections::BTreeSet<_>>().len()
}
