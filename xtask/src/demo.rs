//! `cargo xtask demo`: from a fresh clone to a trained, exported and running model, each step timed.
//!
//! Trains by prototypes on few labeled and many unlabeled images, and a supervised twin of equal steps from the same
//! warm-up, so that both scores stand side by side.

use std::path::Path;

use anyhow::{Context, Result};

use crate::steps::Steps;
use crate::{Usage, run, setup};

/// Everything that the demo leaves.
pub(crate) const OUT: &str = "runs/demo";
/// Seed of synthetic images that neither training nor its scores draw from.
const UNSEEN_SEED: &str = "77";
/// Height and width of the synthetic images, those of `train/configs/demo.toml`.
const SIZE: &str = "128x256";

/// `cargo xtask demo [--data DIR]`.
pub(crate) fn command(root: &Path, arguments: &[String]) -> Result<()> {
    let camvid = match arguments {
        [] => None,
        [option, folder] if option == "--data" => Some(std::path::absolute(folder)?),
        _ => {
            let found = format!("demo takes --data DIR or nothing, not {arguments:?}");
            return Err(Usage(found).into());
        }
    };
    let mut demo = Demo { root, steps: Steps::default() };
    let outcome = demo.run(camvid.as_deref());
    eprint!("\n{}", demo.steps.table());
    if outcome.is_ok() {
        eprintln!(
            "\nLook at {OUT}/sheet.png (image, truth, trained by prototypes, supervised twin), \
             {OUT}/labels/overlay/ and {OUT}/mode=prototype/report.html."
        );
    }
    outcome
}

struct Demo<'a> {
    root: &'a Path,
    steps: Steps,
}

impl Demo<'_> {
    fn run(&mut self, camvid: Option<&Path>) -> Result<()> {
        self.steps.run("setup", || setup::ensure_runtimes(self.root))?;
        self.steps.run("build the programs", || run::build_programs(self.root))?;
        let out = self.root.join(OUT);
        if out.exists() {
            std::fs::remove_dir_all(&out).with_context(|| format!("removing {}", out.display()))?;
        }
        let data = camvid.map(utf8).transpose()?;
        match &data {
            None => self.train("train/configs/demo.toml", &[])?,
            // As long as the synthetic run takes; the configuration itself is made for most of an hour.
            Some(folder) => {
                let root = format!("root={folder}");
                self.train("train/configs/camvid.toml", &[&root, "steps=160", "warmup_steps=110"])?;
            }
        }
        let [bundle, twin] = [below("bundle"), below("supervised-bundle")];
        for (mode, bundle) in [("prototype", &bundle), ("supervised", &twin)] {
            let checkpoint = below(&format!("mode={mode}/checkpoint"));
            self.step(&format!("export {mode}"), &["export", &checkpoint, "--out", bundle])?;
        }
        self.step("check against libtorch", &["check", &bundle])?;
        let frames = below("frames");
        let (scored_on, images) = match &data {
            None => {
                let draw = ["synth", "--out", &frames, "--seed", UNSEEN_SEED, "--size", SIZE];
                self.step("render four images", &[draw.as_slice(), &["--count", "4"]].concat())?;
                let set = ["--data", "synthetic", "--seed", UNSEEN_SEED, "--size", SIZE];
                ([set.as_slice(), &["--limit", "100"]].concat(), format!("{frames}/images"))
            }
            Some(folder) => (vec!["--data", "camvid", "--root", folder], format!("{folder}/val")),
        };
        let eval = ["eval", &bundle, "--beside", &twin, "--sheet", &below("sheet.png")];
        self.step("score both on unseen images", &[eval.as_slice(), &scored_on].concat())?;
        let label = ["label", &bundle, &images, "--out", &below("labels")];
        self.step("label images", &[label.as_slice(), &["--format", "ids,color,overlay"]].concat())
    }

    fn train(&mut self, config: &str, settings: &[&str]) -> Result<()> {
        let grid = ["train", config, "--out", OUT, "--ablate", "mode=prototype,supervised"];
        let settings = settings.iter().flat_map(|setting| ["--set", setting]);
        self.step(
            "train by prototypes, and supervised",
            &grid.into_iter().chain(settings).collect::<Vec<_>>(),
        )
    }

    /// Runs `protoseg` as one step.
    fn step(&mut self, title: &str, arguments: &[&str]) -> Result<()> {
        let mut command = run::program(self.root, "protoseg")?;
        command.args(arguments);
        self.steps.run(title, || run::execute(&mut command))
    }
}

fn below(name: &str) -> String {
    format!("{OUT}/{name}")
}

fn utf8(path: &Path) -> Result<String> {
    let text = path.to_str().context("the name of the data folder is not UTF-8")?;
    Ok(text.to_owned())
}
