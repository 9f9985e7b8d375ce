//! The report of a run: its log and configuration as one self-contained HTML page.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use protoseg_images::dataset::Dataset;
use protoseg_models::atomic;
use protoseg_models::classes::ClassTable;
use protoseg_pages::{
    Axis, Block, Cell, Document, Image, Swatch, Table, Tile, duration, fixed, is_plottable, whole,
};
use serde::Deserialize;

mod charts;
mod log;

use log::{ParsedLog, ScoreLine, distinct};

/// A validation image with its ground truth and prediction; views are PNG or JPEG files.
#[derive(Debug, Clone, PartialEq)]
pub struct ReportImage {
    pub name: String,
    /// Mean IoU over the classes in it, in percent.
    pub iou: f64,
    pub image: Vec<u8>,
    pub truth: Vec<u8>,
    pub prediction: Vec<u8>,
}

/// RGB colors by class name.
type ClassColors = BTreeMap<String, [u8; 3]>;

/// Writes `report.html` into the folder `run`, from its `log.jsonl` and, if there is one, its `config.toml`. Sections
/// without data are left out, and torn lines of the log are skipped.
///
/// # Errors
/// A missing log and failures of the file system; these leave an older report untouched.
pub fn write(run: &Path, title: &str, images: &[ReportImage]) -> Result<()> {
    let log = ParsedLog::read(&run.join("log.jsonl"))?;
    let path = run.join("config.toml");
    let configuration = match std::fs::read(&path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let path = run.join("report.html");
    let page = document(&log, &configuration, title, images).to_html();
    atomic::write(&path, page.as_bytes())
        .with_context(|| format!("cannot write {}", path.display()))
}

fn document(log: &ParsedLog, configuration: &str, title: &str, images: &[ReportImage]) -> Document {
    let table = class_table(configuration);
    let classes = table.as_ref().map(ClassTable::classes).unwrap_or_default();
    let palette: Vec<(String, [u8; 3])> =
        classes.iter().map(|class| (class.name.clone(), class.color)).collect();
    let colors: ClassColors = palette.iter().cloned().collect();
    let mut document = Document::new(title);
    let tiles: Vec<Tile> = log.data().into_iter().filter_map(|data| tile(log, data)).collect();
    let progress = progress(log);
    document.summary = format!("{progress}\n");
    for Tile { label, value, details } in &tiles {
        document.summary.push_str(&format!("{label}: {value} ({})\n", details.join("; ")));
    }
    document.head = vec![Block::Note(progress), Block::Tiles(tiles)];
    document.section("scores", "Last scores", score_tables(log, &colors));
    document.section("mean-iou", "mIoU", charts::mean_iou(log));
    document.section("class-iou", "IoU by class", charts::class_iou(log));
    document.section("losses", "Losses", charts::losses(log));
    document.section("unlabeled", "Unlabeled pixels", charts::unlabeled(log));
    document.section("pseudo-labels", "Pseudo-labels by class", pseudo_labels(log, &colors));
    document.section("cosines", "Cosines to prototypes", charts::cosines(log));
    document.section("prototypes", "Use of prototypes", charts::prototypes(log));
    document.section("time", "Time", charts::time(log));
    document.section("images", "Images", image_blocks(images, palette));
    let code = (!configuration.is_empty()).then(|| Block::Code(configuration.to_owned()));
    document.section("configuration", "Configuration", code.into_iter().collect());
    document
}

/// Classes of the configured data set; none where they cannot be loaded.
fn class_table(configuration: &str) -> Option<ClassTable> {
    let configuration: toml::Table = toml::from_str(configuration).ok()?;
    let data = configuration.get("data")?;
    if data.as_str() == Some("synthetic") {
        return Some(ClassTable::cityscapes());
    }
    let root = configuration.get("root").and_then(toml::Value::as_str).unwrap_or_default();
    Dataset::deserialize(data.clone()).ok()?.classes(Path::new(root)).ok()
}

fn progress(log: &ParsedLog) -> String {
    let mut text = match log.last_step() {
        0 => "The log holds neither steps nor scores.".to_owned(),
        last => format!("Logged up to step {}.", whole(last)),
    };
    if log.seconds() > 0.0 {
        let time = duration(log.seconds());
        text.push_str(&format!(" The steps took {time}, without scoring and saving."));
    }
    text
}

/// The teacher's last score on a data set; another model's where the teacher has none.
fn tile(log: &ParsedLog, data: &str) -> Option<Tile> {
    let mut models = log.models().into_iter().map(|which| log.scores_of(which, data));
    let scores = models.find(|scores| !scores.is_empty())?;
    let last = scores.last()?;
    let percent = |value: Option<f64>| {
        value.map_or_else(|| "none".to_owned(), |value| format!("{} %", fixed(value, 1)))
    };
    let mean_iou = |line: &ScoreLine| line.metrics.scores.mean_iou.unwrap_or(-1.0);
    let best = scores.iter().max_by(|left, right| mean_iou(left).total_cmp(&mean_iou(right)))?;
    let mut step = format!("step {}", whole(last.step));
    if mean_iou(best) > mean_iou(last) {
        let value = fixed(mean_iou(best), 1);
        step.push_str(&format!("; best {value} at step {}", whole(best.step)));
    }
    let metrics = &last.metrics;
    let mean = metrics.scores.mean_text();
    let over = mean.split_once(" over ").map(|(_, over)| format!("over {over}"));
    Some(Tile {
        label: format!("mIoU of the {}, {data}", last.which),
        value: percent(metrics.scores.mean_iou),
        details: over
            .into_iter()
            .chain([
                step,
                format!("pixel accuracy {}", percent(metrics.scores.pixel_accuracy)),
                format!("{} images, protocol {}", whole(metrics.images as u64), metrics.protocol),
            ])
            .collect(),
    })
}

/// One table per data set: a row per class, a column per model.
fn score_tables(log: &ParsedLog, colors: &ClassColors) -> Vec<Block> {
    let table = |data: &str| {
        let models = log.models().into_iter();
        let last: Vec<&ScoreLine> =
            models.filter_map(|which| log.scores_of(which, data).last().copied()).collect();
        let classes = last.iter().flat_map(|line| &line.metrics.scores.classes);
        let row = |class: &str| {
            let iou = last.iter().map(|line| meter(line.iou(class), "absent"));
            [class_cell(class, colors)].into_iter().chain(iou).collect()
        };
        let number = |name: &str, value: fn(&ScoreLine) -> Option<f64>| {
            let text = |value: Option<f64>| {
                Cell::Number(value.map_or_else(|| "none".to_owned(), |value| fixed(value, 1)))
            };
            let values = last.iter().map(|line| text(value(line)));
            [Cell::Text(name.to_owned())].into_iter().chain(values).collect()
        };
        let head = |line: &&ScoreLine| format!("{}\nstep {}", line.which, whole(line.step));
        Table {
            caption: Some(data.to_owned()),
            wide: false,
            columns: ["IoU, %".to_owned()].into_iter().chain(last.iter().map(head)).collect(),
            rows: distinct(classes.map(|class| class.name.as_str())).into_iter().map(row).collect(),
            footer: vec![
                number("mIoU", |line| line.metrics.scores.mean_iou),
                number("pixel accuracy", |line| line.metrics.scores.pixel_accuracy),
            ],
        }
    };
    let tables: Vec<Table> = log.data().into_iter().map(table).collect();
    if tables.is_empty() { Vec::new() } else { vec![Block::Tables(tables)] }
}

/// Charts over time, and a table of the last values.
fn pseudo_labels(log: &ParsedLog, colors: &ClassColors) -> Vec<Block> {
    let lines = log.classes.iter().flat_map(|line| &line.classes);
    let fields: Vec<charts::ClassField> = charts::PSEUDO_LABEL_FIELDS
        .into_iter()
        .filter(|(.., value)| lines.clone().filter_map(value).any(|value| is_plottable(&value)))
        .collect();
    let Some(last) = log.classes.last().filter(|_| !fields.is_empty()) else { return Vec::new() };
    let mut blocks = charts::class_charts(log, "%", &Axis::percent(), &fields);
    let names = fields.iter().map(|(label, ..)| format!("{label}, %"));
    let row = |class: &log::ClassLine| {
        let values = fields
            .iter()
            .map(|(_, factor, value)| meter(value(class).map(|value| factor * value), "unknown"));
        [class_cell(&class.name, colors)].into_iter().chain(values).collect()
    };
    let text = format!("Last values, step {}", whole(last.step));
    blocks.push(Block::Heading { text, stable: None });
    blocks.push(Block::Tables(vec![Table {
        columns: ["class".to_owned()].into_iter().chain(names).collect(),
        rows: last.classes.iter().map(row).collect(),
        ..Table::default()
    }]));
    blocks
}

fn meter(percent: Option<f64>, missing: &'static str) -> Cell {
    percent
        .map_or(Cell::Absent(missing), |percent| Cell::Meter { percent, text: fixed(percent, 1) })
}

fn class_cell(name: &str, colors: &ClassColors) -> Cell {
    Cell::Class(name.to_owned(), colors.get(name).copied())
}

/// Images from the best to the worst, after the colors of the classes.
fn image_blocks(images: &[ReportImage], palette: Vec<(String, [u8; 3])>) -> Vec<Block> {
    if images.is_empty() {
        return Vec::new();
    }
    let mut sorted: Vec<&ReportImage> = images.iter().collect();
    sorted.sort_by(|left, right| right.iou.total_cmp(&left.iou));
    let image = |image: &ReportImage| Image {
        name: image.name.clone(),
        note: match image.iou.is_finite() {
            true => format!("mIoU {} %", fixed(image.iou, 1)),
            false => String::new(),
        },
        views: vec![
            ("image", data_url(&image.image)),
            ("truth", data_url(&image.truth)),
            ("prediction", data_url(&image.prediction)),
        ],
    };
    let legend = palette.into_iter().map(|(name, color)| (name, Swatch::Rgb(color))).collect();
    vec![Block::Legend(legend), Block::Images(sorted.into_iter().map(image).collect())]
}

/// A `data:` URL of a PNG or JPEG file.
fn data_url(bytes: &[u8]) -> Option<String> {
    let media_type = if bytes.starts_with(b"\x89PNG") {
        "image/png"
    } else if bytes.starts_with(b"\xff\xd8\xff") {
        "image/jpeg"
    } else {
        return None;
    };
    Some(format!("data:{media_type};base64,{}", STANDARD.encode(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const CONFIGURATION: &str = "name = \"a <b> & c\"\ndata = \"camvid\"\n";

    /// The log of a run of `count` lines of each kind, with three classes, one named like a script.
    fn lines(count: u64) -> Vec<String> {
        let names = ["Sky", "Road", "<script>alert(1)</script>"];
        let line = |index: u64| {
            let (step, wave) = (20 * (index + 1), (index as f64 / 7.0).sin());
            let classes = names.map(|name| {
                let hits = [index % 9, 4, 0];
                json!({"name": name, "pseudo_share": 0.3, "pseudo_accuracy": 0.9 + wave / 20.0,
                    "gate_share": null, "own_cosine": 0.9, "other_cosine": -0.2, "hits": hits})
            });
            let scores = names
                .map(|name| json!({"name": name, "iou": (name != "Road").then_some(70.0 + wave)}));
            let mut lines = vec![
                json!({"event": "step", "step": step, "loss": 1.0 + wave, "labeled": 0.5,
                    "auxiliary": null, "unlabeled": 0.1, "kept_share": 0.8, "confidence": 0.9,
                    "learning_rate": 0.01, "seconds_per_step": 0.5, "waited_share": 0.01}),
                json!({"event": "classes", "step": step, "classes": classes}),
            ];
            for which in ["student", "teacher"] {
                let scores =
                    json!({"mean_iou": 40.0 + wave, "pixel_accuracy": 86.0, "classes": scores});
                let metrics = json!({"data": "camvid <i>", "protocol": "whole", "images": 101,
                    "step": step, "scores": scores});
                let line =
                    json!({"event": "score", "step": step, "which": which, "metrics": metrics});
                lines.extend(index.is_multiple_of(18).then_some(line));
            }
            lines
        };
        (0..count).flat_map(line).map(|line| format!("{line}\n")).collect()
    }

    fn page(log: &str, images: &[ReportImage]) -> String {
        let run = tempfile::tempdir().unwrap();
        std::fs::write(run.path().join("log.jsonl"), log).unwrap();
        std::fs::write(run.path().join("config.toml"), CONFIGURATION).unwrap();
        write(run.path(), "A run & more", images).unwrap();
        std::fs::read_to_string(run.path().join("report.html")).unwrap()
    }

    /// The document that a page's script draws.
    fn data(page: &str) -> Value {
        let json = page.split_once("id=\"report\">").unwrap().1.split_once("</script>").unwrap().0;
        serde_json::from_str(json).unwrap()
    }

    fn headings(page: &str) -> Vec<String> {
        let sections = data(page)["sections"].as_array().unwrap().clone();
        sections.iter().map(|section| section["title"].as_str().unwrap().to_owned()).collect()
    }

    /// The blocks of a section.
    fn blocks(page: &str, title: &str) -> Value {
        let sections = data(page)["sections"].as_array().unwrap().clone();
        sections.into_iter().find(|section| section["title"] == title).unwrap()["blocks"].take()
    }

    #[test]
    fn the_report_shows_all_of_the_log_and_no_text_is_markup() {
        let image = ReportImage {
            name: "<script>".into(),
            iou: 61.26,
            image: b"\xff\xd8\xff\xe0".to_vec(),
            truth: b"\x89PNG".to_vec(),
            prediction: b"<svg>".to_vec(),
        };
        let page = page(&lines(100).concat(), &[image]);
        assert_eq!(page.matches("<script").count(), 2, "the document and the page's own script");
        assert_eq!(page.matches("</script").count(), 2);
        assert!(!page.contains("<i>") && page.contains("<title>A run &amp; more</title>"));
        assert!(page.contains("mIoU of the teacher, camvid &lt;i>: "), "without JavaScript, too");
        let expected = "Last scores,mIoU,IoU by class,Losses,Unlabeled pixels,Pseudo-labels by class,\
                        Cosines to prototypes,Use of prototypes,Time,Images,Configuration";
        assert_eq!(headings(&page).join(","), expected);
        assert_eq!(blocks(&page, "Configuration"), json!([{ "code": CONFIGURATION }]));
        assert_eq!(data(&page)["head"][1]["tiles"][0]["label"], "mIoU of the teacher, camvid <i>");
        let losses = blocks(&page, "Losses")[1]["charts"][1].clone();
        let titles: Vec<_> =
            losses.as_array().unwrap().iter().map(|chart| chart["title"].clone()).collect();
        assert_eq!(titles, ["Loss", "Labeled pixels", "Unlabeled pixels", "Learning rate"]);
        let table = &blocks(&page, "Last scores")[0]["tables"][0];
        assert_eq!(table["columns"][1], "teacher\nstep 1820");
        assert_eq!(
            table["rows"][1],
            json!([{"class": ["Road", [128, 64, 128]]}, {"absent": "absent"}, {"absent": "absent"}])
        );
        assert_eq!(table["rows"][2][0]["class"], json!(["<script>alert(1)</script>", null]));
        let images = blocks(&page, "Images");
        assert!(
            images[0]["legend"]
                .as_array()
                .unwrap()
                .contains(&json!(["Road", {"rgb": [128, 64, 128]}]))
        );
        let image = &images[1]["images"][0];
        assert_eq!((&image["name"], &image["note"]), (&json!("<script>"), &json!("mIoU 61.3 %")));
        let sources =
            json!(["data:image/jpeg;base64,/9j/4A==", "data:image/png;base64,iVBORw==", null]);
        for (index, view) in ["image", "truth", "prediction"].into_iter().enumerate() {
            assert_eq!(image["views"][index], json!([view, sources[index]]));
        }
    }

    #[test]
    fn prototypes_are_shares_of_their_class_s_points() {
        let maps = blocks(&page(&lines(3).concat(), &[]), "Use of prototypes")[1].clone();
        let map = &maps["heat_maps"][0];
        assert_eq!((&map["title"], &map["rows"]), (&json!("Sky"), &json!(3)));
        assert_eq!(map["steps"], json!([20, 40, 60]));
        assert_eq!(map["shares"], json!([[0, 1, 0], [0.2, 0.8, 0], [0.333, 0.667, 0]]));
    }

    #[test]
    fn charts_of_constant_values_have_an_axis() {
        let page = page(&lines(2).concat(), &[]);
        let chart = blocks(&page, "mIoU")[1]["charts"][1][0].clone();
        assert_eq!(chart["x"], json!({"name": "step", "scale": "counts", "range": [0.0, 40.0]}));
        assert_eq!(chart["y"], json!({"name": "", "scale": "linear", "range": null}));
        assert_eq!(chart["marks"][0]["line"]["y"], json!([40]));
        let cosine = blocks(&page, "Cosines to prototypes")[2]["charts"][1][0].clone();
        assert_eq!(cosine["y"]["scale"], "from_zero");
        assert_eq!(cosine["marks"][1]["line"]["y"], json!([-0.2, -0.2]));
    }

    #[test]
    fn empty_short_and_torn_logs_give_a_page() {
        assert_eq!(headings(&page("", &[])), ["Configuration"]);
        let whole = lines(3);
        let torn = format!("{}{}", whole[..5].concat(), &whole[5][..whole[5].len() / 2]);
        assert_eq!(page(&torn, &[]), page(&whole[..5].concat(), &[]));
        for line in &whole {
            for end in (0..line.len()).step_by(7) {
                page(line.get(..end).unwrap_or_default(), &[]);
            }
            assert_eq!(headings(&page(line, &[])).len(), 4, "{line}");
        }
        let run = tempfile::tempdir().unwrap();
        assert!(write(run.path(), "none", &[]).unwrap_err().to_string().ends_with("log.jsonl"));
        std::fs::write(run.path().join("log.jsonl"), "").unwrap();
        write(run.path(), "no configuration", &[]).unwrap();
    }

    #[test]
    fn a_long_run_gives_a_small_page() {
        let page = page(&lines(5000).concat(), &[]);
        assert!(page.len() < 500_000, "{}", page.len());
        let loss = blocks(&page, "Losses")[1]["charts"][1][0]["marks"][0]["line"].clone();
        assert!(loss["band"].is_array() && loss["x"].as_array().unwrap().len() <= 240);
    }
}
