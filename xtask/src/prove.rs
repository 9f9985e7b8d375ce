//! `cargo xtask prove`: named checks that are too long or need too much for the CI.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::steps::Steps;
use crate::{Usage, accuracy, external, fresh, memory, peers, run, setup};

struct Proof {
    name: &'static str,
    about: &'static str,
    run: Run,
}

enum Run {
    /// Takes the repository and the arguments.
    Function(fn(&Path, &[String]) -> Result<()>),
    /// Runs pytest once per requirements file: its name, then files of `tests/external/` and
    /// options.
    Pytest(&'static [(&'static str, &'static [&'static str])]),
}

const ANNOTATIONS: &str = "test_annotation_formats.py";
const CONVERSIONS: &str = "test_conversions.py";

const PROOFS: &[Proof] = &[
    Proof {
        name: "fresh",
        about: "the two commands of the README in a clean clone with empty caches",
        run: Run::Function(fresh::prove),
    },
    Proof {
        name: "tests",
        about: "every test; missing real data is a failure [ARGS…]",
        run: Run::Function(tests),
    },
    Proof {
        name: "camvid",
        about: "score of training on CamVid, and the same score of its bundle; most of an hour [KEY=VALUE…]",
        run: Run::Function(camvid),
    },
    Proof {
        name: "accuracy",
        about: "three training modes, three seeds each; hours [camvid, synthetic]",
        run: Run::Function(accuracy::prove),
    },
    Proof {
        name: "memory",
        about: "peak memory of trainings on images of 0.3, 2 and 12 megapixels against their plans; minutes [KEY=VALUE…]",
        run: Run::Function(memory::prove),
    },
    Proof {
        name: "step",
        about: "whole optimizer steps equal those of PyTorch [NAMES…; 3 GB, or PROTOSEG_TORCH_PYTHON]",
        run: Run::Function(peers::step),
    },
    Proof {
        name: "labeling",
        about: "protoseg label compared with a Python script and PyTorch [BUNDLE CHECKPOINT FRAMES; 3 GB, or PROTOSEG_TORCH_PYTHON]",
        run: Run::Function(peers::labeling),
    },
    Proof {
        name: "bench",
        about: "protoseg bench compared with ONNX Runtime in Python and load generators; a planted slowdown [BUNDLE]; needs hey",
        run: Run::Function(peers::bench),
    },
    Proof {
        name: "latency",
        about: "latency compared with ONNX Runtime, OpenVINO and PyTorch; an hour [lite0, resnet101; 3 GB, or PROTOSEG_TORCH_PYTHON]",
        run: Run::Function(peers::latency),
    },
    Proof {
        name: "onnx-checker",
        about: "the ONNX checker, OpenVINO and the schema of Triton accept every file of every network [--onnx FILES…]",
        run: Run::Pytest(&[("common", &["test_onnx_files.py"])]),
    },
    Proof {
        name: "import",
        about: "300 random models of other programs are imported and label as ONNX Runtime in Python does [PROTOSEG_IMPORT_MODELS]",
        run: Run::Pytest(&[("common", &["test_import.py"])]),
    },
    Proof {
        name: "models",
        about: "SegFormer, DPT, UperNet, DeepLab, U-Net and others as PyTorch exports them label photos as transformers, torchvision and \
                segmentation_models_pytorch do; minutes [3 GB, or PROTOSEG_TORCH_PYTHON]",
        run: Run::Pytest(&[(external::MODELS, &["test_models.py"])]),
    },
    Proof {
        name: "formats",
        about: "pycocotools, datumaro and the Label Studio SDK read the annotation files, and what they and LabelMe write is converted; 3 GB",
        run: Run::Pytest(&[
            ("datumaro-0.3", &[ANNOTATIONS, "-k", "datumaro"]),
            ("datumaro", &[ANNOTATIONS, CONVERSIONS, "-k", "datumaro"]),
            ("label-studio", &[ANNOTATIONS, CONVERSIONS, "-k", "label_studio"]),
            ("labelme", &[CONVERSIONS, "-k", "labelme"]),
            ("common", &[ANNOTATIONS, CONVERSIONS, "-k", "coco and not datumaro"]),
        ]),
    },
    Proof {
        name: "geotiff",
        about: "TIFFs of GDAL in all of its compressions are labeled, in memory and by rows, and GDAL finds the label maps at their place",
        run: Run::Pytest(&[("geotiff", &["test_geotiff.py"])]),
    },
    Proof {
        name: "clients",
        about: "clients of Triton and KServe get from protoseg serve the labels of protoseg label [BUNDLE]; 1 GB",
        run: Run::Pytest(&[("clients", &["test_oip_clients.py"])]),
    },
    Proof {
        name: "cityscapes",
        about: "protoseg eval equals the official evaluation of Cityscapes, class by class [BUNDLE]",
        run: Run::Pytest(&[("cityscapes", &["test_cityscapes.py"])]),
    },
    Proof {
        name: "deploy",
        about: "validators accept the files of deploy/, and the container image works [BUNDLE]; needs root, promtool",
        run: Run::Pytest(&[("deploy", &["test_deploy_files.py", "test_deploy_image.py"])]),
    },
    Proof {
        name: "openapi",
        about: "the OpenAPI description is valid, and schemathesis finds no response that contradicts it",
        run: Run::Pytest(&[("openapi", &["test_openapi.py"])]),
    },
    Proof {
        name: "page",
        about: "the web page in Chromium: images, legend, keyboard, phone, dark mode, key, errors; needs chromium",
        run: Run::Pytest(&[("page", &["test_page.py"])]),
    },
];

/// `cargo xtask prove NAME… [ARGS…]`: each named proof, or `all`, gets the arguments after the
/// names.
pub(crate) fn command(root: &Path, arguments: &[String]) -> Result<()> {
    let Some(first) = arguments.first() else {
        print_list();
        return Ok(());
    };
    let (chosen, rest) =
        if first == "all" { (PROOFS.iter().collect(), &arguments[1..]) } else { select(arguments) };
    if chosen.is_empty() {
        return Err(Usage(format!("unknown proof {first:?}\n\n{}", list())).into());
    }
    setup::ensure_runtimes(root)?;
    let mut steps = Steps::default();
    let outcome =
        chosen.iter().try_for_each(|proof| steps.run(proof.name, || proof.run(root, rest)));
    eprint!("\n{}", steps.table());
    outcome
}

impl Proof {
    fn run(&self, root: &Path, arguments: &[String]) -> Result<()> {
        match &self.run {
            Run::Function(prove) => prove(root, arguments),
            Run::Pytest(parts) => {
                let build = ["--bins", "--test", "fingerprint", "--example", "external_fixtures"];
                run::execute(run::cargo(root, "build").args(build))?;
                parts.iter().try_for_each(|(requirements, selection)| {
                    external::pytest(root, requirements, selection, arguments)
                })
            }
        }
    }
}

/// Splits the arguments into leading names of proofs and the rest.
fn select(arguments: &[String]) -> (Vec<&'static Proof>, &[String]) {
    let find = |word: &String| PROOFS.iter().find(|proof| proof.name == word);
    let chosen: Vec<_> = arguments.iter().map_while(find).collect();
    let rest = &arguments[chosen.len()..];
    (chosen, rest)
}

fn list() -> String {
    let width = PROOFS.iter().map(|proof| proof.name.len()).max().unwrap_or(0);
    let lines: Vec<_> =
        PROOFS.iter().map(|proof| format!("  {:width$}  {}", proof.name, proof.about)).collect();
    format!("Proofs (or `all`):\n{}", lines.join("\n"))
}

#[expect(clippy::print_stdout, reason = "the list is a result")]
fn print_list() {
    println!("{}", list());
}

/// Runs every test; missing real data is a failure.
fn tests(root: &Path, arguments: &[String]) -> Result<()> {
    run::build_programs(root)?;
    run::execute(run::cargo(root, "test").args(arguments).env("PROTOSEG_REQUIRE_DATA", "1"))
}

/// Least mean IoU in percent of `train/configs/camvid.toml` on the validation list: a PyTorch
/// reference reached 48.0 by supervised training of half the length, and another seed moves it by
/// one or two.
const CAMVID_LEAST: f64 = 46.0;
/// Largest difference in percent between the scores of the trainer and the bundle.
const SCORE_TOLERANCE: f64 = 0.1;

/// Trains on CamVid as configured, and compares the score with a minimum and with that of the
/// bundle.
fn camvid(root: &Path, settings: &[String]) -> Result<()> {
    run::build_programs(root)?;
    let shared = || root.join("../shared/data");
    let data = std::env::var_os("PROTOSEG_DATA").map_or_else(shared, Into::into).join("camvid");
    let shown = data.display();
    ensure!(
        data.is_dir(),
        "{shown} not found; set PROTOSEG_DATA to the folder that contains camvid/"
    );
    let out = root.join("runs/prove-camvid");
    if out.exists() {
        std::fs::remove_dir_all(&out).with_context(|| format!("removing {}", out.display()))?;
    }
    let mut train = run::program(root, "protoseg")?;
    train.args(["train", "train/configs/camvid.toml", "--out"]).arg(&out);
    train.args(["--set", &format!("root={shown}")]);
    run::execute(train.args(settings.iter().flat_map(|setting| ["--set", setting])))?;
    let (checkpoint, bundle) = (out.join("checkpoint"), out.join("bundle"));
    let mut export = run::program(root, "protoseg")?;
    run::execute(export.arg("export").arg(&checkpoint).arg("--out").arg(&bundle))?;
    let mut eval = run::program(root, "protoseg")?;
    eval.arg("eval").arg(&bundle).args(["--data", "camvid", "--json", "--root"]).arg(&data);
    let output = eval.output().context("protoseg eval could not be started")?;
    ensure!(
        output.status.success(),
        "protoseg eval failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let trained = mean_iou(&std::fs::read_to_string(checkpoint.join("metrics.json"))?)?;
    let deployed = mean_iou(&String::from_utf8_lossy(&output.stdout))?;
    eprintln!("mIoU: libtorch {trained:.3}, ONNX Runtime {deployed:.3}, minimum {CAMVID_LEAST}");
    ensure!(
        (trained - deployed).abs() <= SCORE_TOLERANCE,
        "the scores differ by more than {SCORE_TOLERANCE}"
    );
    ensure!(trained >= CAMVID_LEAST, "the score is below {CAMVID_LEAST}");
    Ok(())
}

/// Returns the first `mean_iou` of a JSON text.
fn mean_iou(json: &str) -> Result<f64> {
    let (_, rest) = json.split_once("\"mean_iou\":").context("the scores lack mean_iou")?;
    let number = rest.trim_start().split([',', '}', '\n']).next().unwrap_or_default();
    number.trim().parse().with_context(|| format!("`{number}` is not a mean IoU"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leading_names_select_proofs_and_the_rest_is_theirs() {
        let words: Vec<String> =
            ["onnx-checker", "tests", "a.onnx", "tests"].map(str::to_owned).to_vec();
        let (chosen, rest) = select(&words);
        assert_eq!(
            chosen.iter().map(|proof| proof.name).collect::<Vec<_>>(),
            ["onnx-checker", "tests"]
        );
        assert_eq!(rest, ["a.onnx", "tests"]);
        assert!(select(&words[2..]).0.is_empty());
    }

    #[test]
    fn scores_are_found_in_both_programs_json() {
        assert_eq!(mean_iou("{\n  \"scores\": {\n    \"mean_iou\": 47.5,\n").unwrap(), 47.5);
        assert_eq!(mean_iou(r#"{"mean_iou":12}"#).unwrap(), 12.0);
        assert!(mean_iou(r#"{"mean_iou": null}"#).is_err());
    }
}
