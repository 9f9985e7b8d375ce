//! `cargo xtask prove memory`: the peak memory of whole trainings against the plan that they print before the first step.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::run;

/// Height and width of images of 0.3, 2 and 12 megapixels.
const SIZES: [[usize; 2]; 3] = [[480, 640], [1080, 1920], [3000, 4000]];
/// Parts of a run that need memory beside the steps.
const RUNS: [(&str, &[&str]); 4] = [
    ("steps alone", &["synthetic_validation=0", "calibration_images=0", "mode=supervised"]),
    ("calibration", &["synthetic_validation=0", "mode=supervised"]),
    ("scores of whole images", &["calibration_images=0", "mode=supervised"]),
    ("everything, in windows", &["mode=prototype", "window=512:384"]),
];
/// Largest difference of peak and plan, relative to the plan.
const TOLERANCE: f64 = 0.15;

/// Trains for a few steps on images of each size; `settings` are added to those of every run.
pub(crate) fn prove(root: &Path, settings: &[String]) -> Result<()> {
    run::build_programs(root)?;
    let folder = root.join("runs/prove-memory");
    let mut wrong = Vec::new();
    for [height, width] in SIZES {
        for (name, own) in RUNS {
            if folder.exists() {
                std::fs::remove_dir_all(&folder)
                    .with_context(|| format!("removing {}", folder.display()))?;
            }
            let mut train = run::program(root, "protoseg-train")?;
            train.args(["train/configs/synthetic.toml", "--threads", "1", "--out"]).arg(&folder);
            let size = format!("synthetic_size=[{height}, {width}]");
            let scenes = ["synthetic_labeled=4", "synthetic_validation=2"];
            let common =
                ["synthetic_unlabeled=4", "batch=2", "crop=128", "steps=6", "warmup_steps=2"];
            let common = scenes.iter().chain(&common).chain(&["precise_bn_batches=2", "window="]);
            for setting in common.copied().chain([size.as_str()]).chain(own.iter().copied()) {
                train.args(["--set", setting]);
            }
            train.args(settings.iter().flat_map(|setting| ["--set", setting]));
            let output = train.output().context("protoseg-train could not be started")?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "training failed: {said}");
            let (peak, planned) = peak_and_plan(&said)?;
            let difference = peak / planned - 1.0;
            let line = format!(
                "{height}x{width}, {name}: peak {peak:.2} GB, planned {planned:.2} GB ({:+.0} %)",
                100.0 * difference
            );
            eprintln!("{line}");
            if difference.abs() > TOLERANCE {
                wrong.push(line);
            }
        }
    }
    ensure!(wrong.is_empty(), "plans that are off by more than 15 %:\n{}", wrong.join("\n"));
    Ok(())
}

/// Reads the line `peak memory A GB, planned B GB`.
fn peak_and_plan(said: &str) -> Result<(f64, f64)> {
    let line = said
        .lines()
        .find_map(|line| line.strip_prefix("peak memory "))
        .context("the run does not say its peak memory")?;
    let mut numbers = line.split_whitespace().filter_map(|word| word.parse::<f64>().ok());
    numbers.next().zip(numbers.next()).with_context(|| format!("`{line}` has no two numbers"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peak_and_plan_are_read() {
        let said = "step 2: mIoU\npeak memory 0.43 GB, planned 0.41 GB\n";
        assert_eq!(peak_and_plan(said).unwrap(), (0.43, 0.41));
        assert!(peak_and_plan("nothing").is_err());
    }
}
