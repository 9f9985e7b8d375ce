//! Broken input ends a run with one sentence that names the file, exit status 1 or 2, and no
//! partial output.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use image::{GrayImage, ImageFormat, Luma, RgbImage};
use protoseg_models::arch::{Arch, Preset};
use protoseg_models::formula;
use protoseg_models::weights::{self, StateDict, Tensor};
use tempfile::TempDir;

/// A folder data set of three labeled images, and a run of one step on it.
pub(crate) struct Fixture {
    folder: TempDir,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let fixture = Self { folder: tempfile::tempdir().unwrap() };
        for folder in ["data/images", "data/labels"] {
            std::fs::create_dir_all(fixture.path(folder)).unwrap();
        }
        std::fs::write(fixture.path("data/classes.txt"), "3 land\n8 sea\n").unwrap();
        std::fs::write(fixture.path("data/list.txt"), "images/a.png\nimages/b.png\nimages/c.png")
            .unwrap();
        for name in ["a", "b", "c"] {
            RgbImage::from_fn(64, 48, |x, y| [x as u8, y as u8, 7].into())
                .save(fixture.path(&format!("data/images/{name}.png")))
                .unwrap();
            fixture.label(name, 64, 48, 3);
        }
        fixture
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    pub(crate) fn label(&self, name: &str, width: u32, height: u32, id: u8) {
        let map =
            GrayImage::from_fn(width, height, |x, y| Luma([if (x, y) == (5, 2) { id } else { 8 }]));
        map.save(self.path(&format!("data/labels/{name}.png"))).unwrap();
    }

    fn weights(&self, change: impl FnOnce(&mut StateDict)) -> String {
        let graph = Arch::new(Preset::DeepLabV3PlusEfficientNetLite0, 2).unwrap().graph();
        let mut weights = formula::weights(&graph, Some(1));
        change(&mut weights);
        let path = self.path("start.safetensors");
        weights::write(&path, &weights, &Default::default()).unwrap();
        format!("pretrained={}", path.display())
    }

    pub(crate) fn train(&self, settings: &[String]) -> Output {
        self.train_more(settings, &[])
    }

    pub(crate) fn train_more(&self, settings: &[String], more: &[&str]) -> Output {
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/synthetic.toml");
        let root = format!("root={}", self.path("data").display());
        let mut command = Command::new(env!("CARGO_BIN_EXE_protoseg-train"));
        command.arg(config).arg("--out").arg(self.path("run")).args(["--threads", "1"]);
        let common = [
            "data=folder",
            "labeled=list.txt",
            "batch=3",
            "crop=32",
            "steps=1",
            "warmup_steps=1",
            "calibration_images=0",
        ];
        for setting in common
            .iter()
            .map(ToString::to_string)
            .chain([root, format!("pretrained={}", self.start())])
            .chain(settings.iter().cloned())
        {
            command.args(["--set", &setting]);
        }
        command.args(more).env_remove("LD_LIBRARY_PATH").output().unwrap()
    }

    fn start(&self) -> String {
        let path = self.path("start.safetensors");
        if !path.exists() {
            self.weights(|_| {});
        }
        path.display().to_string()
    }

    /// Trains, and expects one error that contains `says`, at most the plan before it, and no
    /// checkpoint.
    fn refuses(&self, settings: &[String], says: &[&str]) {
        let output = self.train(settings);
        let message = String::from_utf8_lossy(&output.stderr);
        let errors: Vec<&str> =
            message.lines().skip_while(|line| !line.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "{message}");
        for clause in errors[0].split(": ").filter(|clause| clause.len() > 12) {
            assert_eq!(errors[0].matches(clause).count(), 1, "`{clause}` is repeated: {message}");
        }
        assert!(matches!(output.status.code(), Some(1 | 2)), "{:?}: {message}", output.status);
        for words in says {
            assert!(errors[0].contains(words), "`{words}` is missing: {message}");
        }
        // Only errors after the first step leave a log; those of the files leave what was read.
        let planned = message.contains("expected: ");
        let left: Vec<String> = self
            .path("run")
            .read_dir()
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !["bad.jsonl", "census.jsonl"].contains(&name.as_str()))
            .collect();
        assert!(planned || left.is_empty(), "left behind: {left:?}");
        assert!(!self.path("run/checkpoint").exists());
    }
}

#[test]
fn the_untouched_fixture_trains() {
    let fixture = Fixture::new();
    let output = fixture.train(&[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(fixture.path("run/checkpoint/weights.safetensors").is_file());
}

#[test]
fn images_and_labels_that_do_not_match_are_named() {
    let missing = Fixture::new();
    std::fs::remove_file(missing.path("data/images/b.png")).unwrap();
    missing.refuses(&[], &["images/b.png", "missing", "list.txt"]);

    let size = Fixture::new();
    size.label("b", 63, 48, 3);
    size.refuses(&[], &["images/b.png", "labels/b.png", "63x48", "64x48"]);

    let range = Fixture::new();
    range.label("c", 64, 48, 77);
    range.refuses(&[], &["labels/c.png", "77", "row 2, column 5"]);

    // Validation images are checked before the first step too.
    let scored = Fixture::new();
    std::fs::write(scored.path("data/val.txt"), "images/a.png\nimages/c.png").unwrap();
    scored.label("c", 64, 40, 3);
    let lists = ["labeled=short.txt", "validation=val.txt", "batch=2"].map(str::to_owned);
    std::fs::write(scored.path("data/short.txt"), "images/a.png\r\nimages/b.png\r\n").unwrap();
    scored.refuses(&lists, &["images/c.png", "64x40"]);

    let cut = Fixture::new();
    let path = cut.path("data/images/a.png");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    cut.refuses(&[], &["images/a.png", "cut short"]);

    let deep = Fixture::new();
    let map = image::ImageBuffer::from_pixel(64, 48, Luma([300_u16]));
    let map = image::DynamicImage::from(map);
    map.save_with_format(deep.path("data/labels/a.png"), ImageFormat::Png).unwrap();
    deep.refuses(&[], &["labels/a.png", "300 (3072 pixels"]);

    let classes = Fixture::new();
    std::fs::write(classes.path("data/classes.txt"), "3 land\nsea\n").unwrap();
    classes.refuses(&[], &["classes.txt", "line 2", "sea"]);
}

#[test]
fn weights_that_do_not_match_are_named() {
    let fixture = Fixture::new();
    let small = || Tensor { shape: vec![2], data: vec![0.5; 2] };
    let setting =
        fixture.weights(|weights| drop(weights.insert("decoder.extra.weight".into(), small())));
    fixture.refuses(&[setting], &["start.safetensors", "decoder.extra.weight"]);
    let setting = fixture.weights(|weights| drop(weights.remove("decoder.low.conv.weight")));
    fixture.refuses(&[setting], &["start.safetensors", "decoder.low.conv.weight"]);
    let setting =
        fixture.weights(|weights| drop(weights.insert("decoder.low.conv.weight".into(), small())));
    fixture.refuses(&[setting], &["start.safetensors", "decoder.low.conv.weight", "[2]"]);
    let setting = fixture.weights(|_| {});
    let path = fixture.path("start.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 100]).unwrap();
    fixture.refuses(&[setting], &["start.safetensors", "again"]);

    let torch = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/torch_file/zip.pth");
    let bytes = std::fs::read(torch).unwrap();
    let path = fixture.path("cut.pth");
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    fixture.refuses(&[format!("pretrained={}", path.display())], &["cut.pth", "again"]);
    fixture.refuses(&[format!("pretrained={}", fixture.path("none.pth").display())], &["none.pth"]);
}

#[test]
fn a_run_that_diverges_reports_it_and_leaves_no_checkpoint() {
    let settings = ["learning_rate=10", "head_multiplier=1000", "weight_decay=1", "steps=15"]
        .map(str::to_owned);
    Fixture::new().refuses(&settings, &["learning_rate"]);
}

#[test]
fn foreign_files_are_left_alone() {
    let fixture = Fixture::new();
    std::fs::create_dir_all(fixture.path("run/checkpoint")).unwrap();
    std::fs::write(fixture.path("run/checkpoint/notes"), "important").unwrap();
    let output = fixture.train(&[]);
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && message.contains("notes"), "{message}");
    assert_eq!(std::fs::read_to_string(fixture.path("run/checkpoint/notes")).unwrap(), "important");
}

#[test]
fn invalid_configurations_have_status_2() {
    let fixture = Fixture::new();
    for (setting, says) in [
        ("batch=1", "`batch`"),
        ("batch=1000000", "`batch`"),
        ("crop=100000", "`crop`"),
        ("steps=", "steps"),
        ("window={size=1099511627776, stride=4}", "`window`"),
        ("stepz=3", "stepz"),
        ("window={size=100, stride=50}", "`window`"),
    ] {
        let output = fixture.train(&[setting.to_owned()]);
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.code() == Some(2) && message.contains(says),
            "{:?}: {message}",
            output.status
        );
    }
    let output = Command::new(env!("CARGO_BIN_EXE_protoseg-train"))
        .args(["init", "alexnet", "--out", "x"])
        .output()
        .unwrap();
    assert!(
        output.status.code() == Some(2)
            && String::from_utf8_lossy(&output.stderr).contains("resnet101")
    );
}
