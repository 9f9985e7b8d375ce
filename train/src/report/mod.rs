//! The report of a run: one HTML page, made of the run's log and configuration, that needs nothing else to be read.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};
use protoseg_images::dataset::Dataset;
use protoseg_models::atomic;
use protoseg_models::classes::ClassTable;
use protoseg_pages::html::{Page, Section, escape};
use serde::Deserialize;

mod chart;
mod classes;
mod curves;
mod headline;
mod images;
mod log;
mod prototypes;
mod series;

use headline::Colors;
pub use images::ReportImage;
use log::ParsedLog;

/// Reads `log.jsonl` and, where there is one, `config.toml` of the folder `run`, and writes `report.html` there. What the
/// log does not tell of does not appear; lines that are no whole lines of a log are passed over.
///
/// # Errors
/// A log that is not there, and whatever else the file system refuses. An older report is left then.
pub fn write(run: &Path, title: &str, pictures: &[ReportImage]) -> Result<()> {
    let log = ParsedLog::read(&run.join("log.jsonl"))?;
    let path = run.join("config.toml");
    let configuration = match std::fs::read(&path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let path = run.join("report.html");
    let page = page(&log, &configuration, title, pictures);
    atomic::write(&path, page.as_bytes())
        .with_context(|| format!("cannot write {}", path.display()))
}

fn page(log: &ParsedLog, configuration: &str, title: &str, pictures: &[ReportImage]) -> String {
    let table = table(configuration);
    let classes = table.as_ref().map(ClassTable::classes).unwrap_or_default();
    let colors: Colors = classes.iter().map(|class| (class.name.clone(), class.color)).collect();
    let names: Vec<&str> = classes.iter().map(|class| class.name.as_str()).collect();
    let section = |anchor, title, body| Section { anchor, title, body };
    let sections = [
        section("scores", "Last scores", headline::tables(log, &colors)),
        section("mean-iou", "mIoU", curves::mean_iou(log)),
        section("class-iou", "IoU of each class", curves::class_iou(log)),
        section("losses", "Losses", curves::losses(log)),
        section("unlabelled", "Unlabelled pixels", curves::unlabeled(log)),
        section(
            "pseudo-labels",
            "Pseudo labels of each class",
            classes::pseudo_labels(log, &colors),
        ),
        section("cosines", "Cosines to prototypes", classes::cosines(log)),
        section("prototypes", "Use of prototypes", prototypes::hits(log)),
        section("time", "Time", curves::time(log)),
        section("pictures", "Pictures", images::section(pictures, &colors, &names)),
        section("configuration", "Configuration", preformatted(configuration)),
    ];
    Page { title, head: &headline::head(log), sections: &sections, style: "" }.draw()
}

fn preformatted(text: &str) -> String {
    // The parser drops a line break that follows the tag at once.
    if text.is_empty() { String::new() } else { format!("<pre>\n{}</pre>\n", escape(text)) }
}

/// The classes that a configuration's data set has, for their colours; none where they cannot be told.
fn table(configuration: &str) -> Option<ClassTable> {
    let configuration: toml::Table = toml::from_str(configuration).ok()?;
    let data = configuration.get("data")?;
    if data.as_str() == Some("synthetic") {
        return Some(ClassTable::cityscapes());
    }
    let root = configuration.get("root").and_then(toml::Value::as_str).unwrap_or_default();
    Dataset::deserialize(data.clone()).ok()?.classes(Path::new(root)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIGURATION: &str = "name = \"a <b> & c\"\ndata = \"camvid\"\n";

    /// The log of a run of so many lines, of three classes, one with a name that wants to be a script.
    fn lines(count: u64) -> Vec<String> {
        let names = ["Sky", "Road", "<script>alert(1)</script>"];
        let line = |index: u64| {
            let (step, wave) = (20 * (index + 1), (index as f64 / 7.0).sin());
            let classes = names.map(|name| {
                let hits = [index % 9, 4, 0];
                serde_json::json!({"name": name, "pseudo_share": 0.3, "pseudo_accuracy": 0.9 + wave / 20.0,
                    "gate_share": null, "own_cosine": 0.9, "other_cosine": -0.2, "hits": hits})
            });
            let scores =
                names.map(|name| serde_json::json!({"name": name, "iou": (name != "Road").then_some(70.0 + wave)}));
            let mut lines = vec![
                serde_json::json!({"event": "step", "step": step, "loss": 1.0 + wave, "labeled": 0.5, "auxiliary": null,
                    "unlabeled": 0.1, "kept_share": 0.8, "confidence": 0.9, "learning_rate": 0.01, "seconds_a_step": 0.5,
                    "waited_share": 0.01}),
                serde_json::json!({"event": "classes", "step": step, "classes": classes}),
            ];
            for which in ["student", "teacher"] {
                let scores = serde_json::json!({"mean_iou": 40.0 + wave, "pixel_accuracy": 86.0, "classes": scores});
                let metrics = serde_json::json!({"data": "camvid <i>", "protocol": "whole", "images": 101, "step": step,
                    "scores": scores});
                let line = serde_json::json!({"event": "score", "step": step, "which": which, "metrics": metrics});
                lines.extend(index.is_multiple_of(18).then_some(line));
            }
            lines
        };
        (0..count).flat_map(line).map(|line| format!("{line}\n")).collect()
    }

    fn report(log: &str, pictures: &[ReportImage]) -> String {
        let run = tempfile::tempdir().unwrap();
        std::fs::write(run.path().join("log.jsonl"), log).unwrap();
        std::fs::write(run.path().join("config.toml"), CONFIGURATION).unwrap();
        write(run.path(), "A run & more", pictures).unwrap();
        std::fs::read_to_string(run.path().join("report.html")).unwrap()
    }

    fn headings(page: &str) -> Vec<&str> {
        page.split("<h2>").skip(1).filter_map(|rest| rest.split("</h2>").next()).collect()
    }

    #[test]
    fn the_report_shows_all_that_the_log_says_and_escapes_it() {
        let picture = ReportImage {
            name: "<script>".into(),
            iou: 61.26,
            image: b"\xff\xd8\xff\xe0".to_vec(),
            truth: b"\x89PNG".to_vec(),
            prediction: b"<svg>".to_vec(),
        };
        let page = report(&lines(100).concat(), &[picture]);
        assert_eq!(page.matches("<script").count(), 1, "only the page's own");
        assert_eq!(page.matches("</script").count(), 1);
        assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;") && !page.contains("<i>"));
        assert!(page.contains(
            "<pre>\nname = &quot;a &lt;b&gt; &amp; c&quot;\ndata = &quot;camvid&quot;\n</pre>"
        ));
        let expected = "Last scores,mIoU,IoU of each class,Losses,Unlabelled pixels,Pseudo labels of each class,\
                        Cosines to prototypes,Use of prototypes,Time,Pictures,Configuration";
        assert_eq!(headings(&page).join(","), expected);
        assert!(
            page.contains("mIoU of the teacher, camvid &lt;i&gt;")
                && page.contains("Labelled pixels")
        );
        assert!(
            !page.contains("Auxiliary head") && !page.contains("NaN") && !page.contains("http://")
        );
        assert!(
            page.contains("src=\"data:image/jpeg;base64,/9j/4A==\"")
                && page.contains("data:image/png")
        );
        assert!(page.contains("neither PNG nor JPEG") && page.contains("mIoU 61.3 %"));
        assert!(page.contains("background:rgb(128 64 128)"), "the road's colour");
    }

    #[test]
    fn empty_short_and_torn_logs_give_a_page() {
        assert_eq!(headings(&report("", &[])), ["Configuration"]);
        let whole = lines(3);
        let torn = format!("{}{}", whole[..5].concat(), &whole[5][..whole[5].len() / 2]);
        assert_eq!(report(&torn, &[]), report(&whole[..5].concat(), &[]));
        for line in &whole {
            for end in (0..line.len()).step_by(7) {
                report(line.get(..end).unwrap_or_default(), &[]);
            }
            assert_eq!(headings(&report(line, &[])).len(), 4, "{line}");
        }
        let run = tempfile::tempdir().unwrap();
        assert!(write(run.path(), "none", &[]).unwrap_err().to_string().ends_with("log.jsonl"));
        std::fs::write(run.path().join("log.jsonl"), "").unwrap();
        write(run.path(), "no configuration", &[]).unwrap();
    }

    #[test]
    fn a_long_run_gives_a_small_page() {
        let page = report(&lines(5000).concat(), &[]);
        assert!(page.len() < 500_000, "{}", page.len());
    }
}
