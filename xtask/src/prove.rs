//! `cargo xtask prove`: proofs that take too long or need too much for the CI, each under a name.

use std::path::Path;

use anyhow::Result;

use crate::steps::Steps;
use crate::{
    Usage, accuracy, bench_proof, client_proof, deploy_proof, format_proofs, fresh, labeling_proof,
    latency_proof, proofs, service_proofs, setup, step_proof,
};

struct Proof {
    name: &'static str,
    about: &'static str,
    /// Takes the repository and the arguments after the names.
    run: fn(&Path, &[String]) -> Result<()>,
}

const PROOFS: &[Proof] = &[
    Proof {
        name: "fresh",
        about: "README's two commands in a clean clone, with nothing cached; three quarters of an hour",
        run: fresh::prove,
    },
    Proof {
        name: "tests",
        about: "every test, with real data required: nothing is skipped [ARGS…]",
        run: proofs::tests,
    },
    Proof {
        name: "onnx-checker",
        about: "the ONNX project's own checker accepts an export of every network [or FILES…]",
        run: proofs::onnx_checker,
    },
    Proof {
        name: "camvid",
        about: "training on CamVid as configured, most of an hour, reaches its score, and the bundle has the same [KEY=VALUE…]",
        run: proofs::camvid,
    },
    Proof {
        name: "accuracy",
        about: "three ways of training, three seeds each, and the table of their scores; hours [camvid, synthetic]",
        run: accuracy::prove,
    },
    Proof {
        name: "step",
        about: "whole optimisation steps equal PyTorch's: losses, gradients, moves [NAMES…; 3 GB, or PROTOSEG_TORCH_PYTHON]",
        run: step_proof::prove,
    },
    Proof {
        name: "labeling",
        about: "protoseg label beside a Python script and PyTorch, in turns [BUNDLE CHECKPOINT FRAMES; 3 GB, or PROTOSEG_TORCH_PYTHON]",
        run: labeling_proof::prove,
    },
    Proof {
        name: "bench",
        about: "`protoseg bench` beside ONNX Runtime in Python and others' load generators; a planted slow-down is found [BUNDLE, or the demo's]; needs hey",
        run: bench_proof::prove,
    },
    Proof {
        name: "latency",
        about: "protoseg beside ONNX Runtime, OpenVINO and PyTorch on frames of 1024x2048, as a table; an hour [lite0, resnet101; 3 GB, or PROTOSEG_TORCH_PYTHON]",
        run: latency_proof::prove,
    },
    Proof {
        name: "formats",
        about: "pycocotools, datumaro and Label Studio's SDK read what is written for COCO, CVAT and Label Studio; 2 GB",
        run: format_proofs::formats,
    },
    Proof {
        name: "clients",
        about: "Triton's and KServe's clients and gRPC's reflection ask `protoseg serve` and get `protoseg label`'s labels [BUNDLE]; 1 GB",
        run: client_proof::prove,
    },
    Proof {
        name: "cityscapes",
        about: "the official evaluation of our label files equals `protoseg eval`, class by class [BUNDLE, or the demo's]",
        run: format_proofs::cityscapes,
    },
    Proof {
        name: "deploy",
        about: "the readers of deploy/'s files accept them, and its image's layout works [PROGRAM BUNDLE; root, promtool]",
        run: deploy_proof::prove,
    },
    Proof {
        name: "openapi",
        about: "the service's description is valid, and schemathesis finds no answer beside it [ARGS… of schemathesis]",
        run: service_proofs::openapi,
    },
    Proof {
        name: "page",
        about: "the service's page in Chromium: pictures, legend, keyboard, phone, dark, key, errors; needs chromium",
        run: service_proofs::page,
    },
];

/// `cargo xtask prove NAME… [ARGS…]`: the leading words that are names, or `all`, say which; each gets the rest.
pub(crate) fn command(root: &Path, arguments: &[String]) -> Result<()> {
    let Some(first) = arguments.first() else {
        print_list();
        return Ok(());
    };
    let (chosen, rest) =
        if first == "all" { (PROOFS.iter().collect(), &arguments[1..]) } else { select(arguments) };
    if chosen.is_empty() {
        return Err(Usage(format!("there is no proof {first:?}\n\n{}", list())).into());
    }
    setup::ensure_runtimes(root)?;
    let mut steps = Steps::default();
    let outcome =
        chosen.iter().try_for_each(|proof| steps.run(proof.name, || (proof.run)(root, rest)));
    eprint!("\n{}", steps.table());
    outcome
}

/// The proofs named by the leading words, and the words after them.
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
}
