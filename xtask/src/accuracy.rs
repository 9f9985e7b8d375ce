//! `cargo xtask prove accuracy`: three modes of training with equal settings, three seeds each, and
//! their paired differences.
//!
//! Each finished run is a line of `benches/results/accuracy.jsonl` and is not repeated; the table
//! in docs/src/results.md is generated from these lines.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{demo, run};

const MODES: [&str; 3] = ["supervised", "mean-teacher", "prototype"];
const SEEDS: [u64; 3] = [0, 1, 2];
/// Datasets, each with the settings `benches/accuracy/NAME.toml`; `cells` is the demo.
const SETS: [&str; 5] = ["camvid", "synthetic", "cells", "nuclei", "nuclei-vit"];
const RESULTS: &str = "benches/results/accuracy.jsonl";
/// Marks around the table in docs/src/results.md.
const MARKS: [&str; 2] = ["<!-- accuracy: begin -->\n", "<!-- accuracy: end -->"];
/// Smallest mean gain of prototypes over supervised training, in points.
const LEAST_GAIN: f64 = 1.0;

/// Scores by (dataset, mode, seed).
type Rows = BTreeMap<(String, String, u64), Row>;

/// Mean IoU of the teacher in percent.
#[derive(Debug, Clone, Default, PartialEq)]
struct Row {
    validation: f64,
    /// On the unlabeled images, where their truth is known and asked for.
    unlabeled: Option<f64>,
    /// The same two scores of the prototype head.
    prototypes: [Option<f64>; 2],
}

impl Row {
    fn mean(&self) -> f64 {
        self.unlabeled.map_or(self.validation, |unlabeled| (self.validation + unlabeled) / 2.0)
    }
}

/// Trains the runs that have no line yet, of the named datasets or all, rebuilds the table, and
/// fails unless prototypes gain enough on one dataset.
pub(crate) fn prove(root: &Path, names: &[String]) -> Result<()> {
    run::build_programs(root)?;
    let chosen = |name: &&&str| names.is_empty() || names.iter().any(|chosen| chosen == *name);
    for name in SETS.iter().filter(chosen) {
        let data = match *name {
            "camvid" => Some(half_camvid(root)?),
            "synthetic" => None,
            "cells" => Some(cells(root)?),
            _ => Some(utf8(data_folder(root, "nuclei")?)?),
        };
        for (seed, mode) in
            SEEDS.iter().flat_map(|seed| MODES.iter().map(move |mode| (*seed, *mode)))
        {
            let key = ((*name).to_owned(), mode.to_owned(), seed);
            if rows(root)?.contains_key(&key) {
                continue;
            }
            let scores = train(root, name, mode, seed, data.as_deref())?;
            let line = json!({ "data": name, "mode": mode, "seed": seed, "scores": scores });
            append(&root.join(RESULTS), &line)?;
        }
    }
    let rows = rows(root)?;
    let text = report(&rows);
    eprintln!("{text}");
    into_page(&root.join("docs/src/results.md"), &text)?;
    let holds = SETS.iter().any(|name| {
        differences(&rows, name)
            .is_some_and(|[gain, over]| gain.holds(LEAST_GAIN) && over.mean >= 0.0)
    });
    ensure!(
        holds,
        "prototypes gain less than {LEAST_GAIN} points over supervised training on every dataset, or lose to the mean teacher"
    );
    Ok(())
}

/// Returns the folder of a dataset.
fn data_folder(root: &Path, name: &str) -> Result<PathBuf> {
    let data = std::env::var_os("PROTOSEG_DATA")
        .map_or_else(|| root.join("../shared/data"), Into::into)
        .join(name);
    ensure!(
        data.is_dir(),
        "{} not found; set PROTOSEG_DATA to the folder that contains {name}/",
        data.display()
    );
    Ok(std::path::absolute(data)?)
}

/// Writes CamVid at half size if it is missing, and returns its folder.
fn half_camvid(root: &Path) -> Result<String> {
    let data = data_folder(root, "camvid")?;
    let half = root.join("runs/camvid-240x180");
    run::execute(run::cargo(root, "build").args(["--example", "halve"]))?;
    run::execute(run::program(root, "examples/halve")?.arg(&data).arg(&half))?;
    utf8(half)
}

/// Draws the data of the demo, and returns its folder.
fn cells(root: &Path) -> Result<String> {
    let folder = utf8(root.join("runs/accuracy-cells"))?;
    run::execute(run::program(root, "protoseg")?.args(demo::CELLS).arg(&folder))?;
    Ok(folder)
}

fn utf8(path: PathBuf) -> Result<String> {
    path.into_os_string().into_string().ok().context("the path of the data is not UTF-8")
}

/// Trains one run, resuming it if it was interrupted, and returns its scores.
fn train(root: &Path, name: &str, mode: &str, seed: u64, data: Option<&str>) -> Result<Value> {
    let out = root.join("runs/accuracy").join(name);
    let mut command = run::program(root, "protoseg-train")?;
    let config = match name {
        "cells" => "train/configs/demo.toml".to_owned(),
        name => format!("benches/accuracy/{name}.toml"),
    };
    command.arg(config).arg("--out").arg(&out);
    command.args([
        "--threads",
        "1",
        "--ablate",
        &format!("mode={mode}"),
        "--ablate",
        &format!("seed={seed}"),
    ]);
    if let Some(data) = data {
        command.args(["--set", &format!("root={data}")]);
    }
    run::execute(&mut command)?;
    let scores = out.join(format!("mode={mode} seed={seed}/scores.json"));
    let text = fs::read(&scores).with_context(|| format!("reading {}", scores.display()))?;
    Ok(serde_json::from_slice(&text)?)
}

fn append(path: &Path, line: &Value) -> Result<()> {
    let file = fs::OpenOptions::new().create(true).append(true).open(path);
    file.and_then(|mut file| writeln!(file, "{line}"))
        .with_context(|| format!("writing {}", path.display()))
}

fn rows(root: &Path) -> Result<Rows> {
    parse(&fs::read_to_string(root.join(RESULTS)).unwrap_or_default())
}

fn parse(text: &str) -> Result<Rows> {
    let row = |line: &str| -> Result<_> {
        let line: Value = serde_json::from_str(line)?;
        let word = |key: &str| {
            line[key].as_str().map(str::to_owned).with_context(|| format!("a line lacks `{key}`"))
        };
        let seed = line["seed"].as_u64().context("a line lacks `seed`")?;
        let score = |which: &str, list: &str| {
            let scores = line["scores"].as_array().into_iter().flatten();
            let mut found = scores.filter(|score| score["which"] == which);
            let metrics = found.find(|score| {
                score["metrics"]["data"].as_str().is_some_and(|data| data.ends_with(list))
            });
            metrics.and_then(|score| score["metrics"]["scores"]["mean_iou"].as_f64())
        };
        let lists = ["validation", "unlabeled"];
        let [validation, unlabeled] = lists.map(|list| score("teacher", list));
        let row = Row {
            validation: validation.context("a line lacks the score on validation")?,
            unlabeled,
            prototypes: lists.map(|list| score("prototype head", list)),
        };
        Ok(((word("data")?, word("mode")?, seed), row))
    };
    text.lines()
        .map(row)
        .collect::<Result<_>>()
        .with_context(|| format!("{RESULTS} cannot be parsed"))
}

/// Differences of mean IoU in points, paired by seed.
#[derive(Debug, Clone, PartialEq)]
struct Difference {
    each: Vec<f64>,
    mean: f64,
    /// Standard error of the mean.
    error: f64,
}

impl Difference {
    fn new(each: Vec<f64>) -> Self {
        let count = each.len() as f64;
        let mean = each.iter().sum::<f64>() / count;
        let variance =
            each.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0).max(1.0);
        Self { mean, error: (variance / count).sqrt(), each }
    }

    /// True if every difference is positive and their mean is at least `least`.
    fn holds(&self, least: f64) -> bool {
        self.mean >= least && self.each.iter().all(|value| *value > 0.0)
    }

    /// True if every difference is positive and their mean exceeds two standard errors.
    fn beats(&self) -> bool {
        self.holds(0.0) && self.mean > 2.0 * self.error
    }
}

/// Prototype minus supervised and minus mean teacher, if all runs are finished.
fn differences(rows: &Rows, name: &str) -> Option<[Difference; 2]> {
    let mean =
        |mode: &str, seed: u64| rows.get(&(name.to_owned(), mode.to_owned(), seed)).map(Row::mean);
    let over = |mode: &str| -> Option<Difference> {
        let each: Option<Vec<f64>> =
            SEEDS.iter().map(|&seed| Some(mean(MODES[2], seed)? - mean(mode, seed)?)).collect();
        each.map(Difference::new)
    };
    Some([over(MODES[0])?, over(MODES[1])?])
}

/// Formats the table as Markdown.
fn report(rows: &Rows) -> String {
    let mut text = String::new();
    for name in SETS {
        if !rows.keys().any(|(data, ..)| data == name) {
            continue;
        }
        let _ = writeln!(
            text,
            "\n| {name} | seed | val | unlabeled | mean | prototype head: val | unlabeled |"
        );
        text.push_str("| --- | --- | --- | --- | --- | --- | --- |\n");
        for (mode, seed) in MODES.iter().flat_map(|mode| SEEDS.iter().map(move |seed| (mode, seed)))
        {
            let Some(row) = rows.get(&(name.to_owned(), (*mode).to_owned(), *seed)) else {
                continue;
            };
            let cell =
                |score: Option<f64>| score.map_or_else(String::new, |score| format!("{score:.2}"));
            let _ = writeln!(
                text,
                "| {mode} | {seed} | {:.2} | {} | {:.2} | {} | {} |",
                row.validation,
                cell(row.unlabeled),
                row.mean(),
                cell(row.prototypes[0]),
                cell(row.prototypes[1])
            );
        }
        if let Some(both) = differences(rows, name) {
            text.push('\n');
            for (difference, other) in both.iter().zip(MODES) {
                let each: Vec<String> =
                    difference.each.iter().map(|value| format!("{value:+.2}")).collect();
                let verdict = if difference.beats() { "better" } else { "no difference shown" };
                let _ = writeln!(
                    text,
                    "prototype - {other}: {:+.2} points on average (standard error {:.2}; seeds {}): {verdict}.  ",
                    difference.mean,
                    difference.error,
                    each.join(", ")
                );
            }
        }
    }
    text
}

/// Replaces the table between its marks.
fn into_page(path: &Path, table: &str) -> Result<()> {
    let text = fs::read_to_string(path)?;
    let replaced = text.split_once(MARKS[0]).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(MARKS[1])?;
        Some(format!("{before}{}{table}\n{}{after}", MARKS[0], MARKS[1]))
    });
    fs::write(
        path,
        replaced.with_context(|| format!("{} lacks the marks of the table", path.display()))?,
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(mode: &str, seed: u64, validation: f64, unlabeled: f64) -> String {
        let score = |which: &str, list: &str, value: f64| json!({ "which": which, "metrics": { "data": format!("x {list}"), "scores": { "mean_iou": value } } });
        let scores = [
            score("teacher", "validation", validation),
            score("prototype head", "validation", 1.0),
            score("teacher", "unlabeled", unlabeled),
            score("prototype head", "unlabeled", 2.0),
        ];
        json!({ "data": "synthetic", "mode": mode, "seed": seed, "scores": scores }).to_string()
    }

    #[test]
    fn differences_are_paired_and_judged() {
        let mut lines = Vec::new();
        for seed in SEEDS {
            let drift = 5.0 * seed as f64;
            lines.push(line("supervised", seed, 40.0 + drift, 42.0 + drift));
            lines.push(line("mean-teacher", seed, 41.0 + drift, 43.0 + drift));
            lines.push(line("prototype", seed, 42.0 + drift + seed as f64 / 10.0, 44.0 + drift));
        }
        let rows = parse(&lines.join("\n")).unwrap();
        let [gain, over] = differences(&rows, "synthetic").unwrap();
        assert!((gain.mean - 2.05).abs() < 1e-9 && (over.mean - 1.05).abs() < 1e-9);
        assert!((gain.error - 0.05 / 3.0_f64.sqrt()).abs() < 1e-9, "{gain:?}");
        assert!(gain.holds(LEAST_GAIN) && gain.beats() && differences(&rows, "camvid").is_none());
        assert!(
            !Difference::new(vec![3.0, 3.0, -0.1]).holds(1.0)
                && !Difference::new(vec![5.0, 0.1, 0.1]).beats()
        );
        let text = report(&rows);
        assert!(text.contains("| prototype | 2 | 52.20 | 54.00 | 53.10 | 1.00 | 2.00 |"), "{text}");
        assert!(text.contains("prototype - supervised: +2.05"), "{text}");
    }

    #[test]
    fn the_table_takes_its_place_in_the_page() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.md");
        let text = |table: &str| format!("one\n{}{table}\n{}\ntwo\n", MARKS[0], MARKS[1]);
        fs::write(&path, text("old")).unwrap();
        into_page(&path, "new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), text("new"));
        fs::write(&path, "no marks").unwrap();
        assert!(into_page(&path, "new").is_err());
    }
}
