//! Runs a page's script in headless Chromium; listed as skipped where there is none.

use std::io::Write;
use std::process::Command;

use protoseg_pages::{
    Axis, Block, Cell, Chart, ChartSize, Document, HeatMap, Image, Line, Mark, PointLabel, Scale,
    Stack, StackPart, Swatch, Table, Tile, Values,
};

/// Markup wherever it is not set as text.
const TEXT: &str = "<img src=x onerror=alert(1)> & more";

fn text() -> String {
    TEXT.to_owned()
}

fn column<const N: usize>(values: [f64; N]) -> Values {
    values.into_iter().collect()
}

fn blocks() -> Vec<Block> {
    let part = |name: &str, share: f64| StackPart {
        name: name.to_owned(),
        share,
        color: 0,
        value: "1 ms".to_owned(),
        percent: "5 %".to_owned(),
    };
    let scores = Table {
        caption: Some(text()),
        columns: ["IoU, %", "teacher", "student\nstep 180"].map(str::to_owned).to_vec(),
        rows: vec![vec![
            Cell::Class("road".to_owned(), Some([128, 64, 128])),
            Cell::Meter { percent: 72.9, text: "72.9".to_owned() },
            Cell::Absent("absent"),
        ]],
        footer: vec![["mIoU", "31.1", "none"].map(str::to_owned).map(Cell::Number).to_vec()],
        ..Table::default()
    };
    let points = Table {
        wide: true,
        columns: ["run", "scenario", "verdict"].map(str::to_owned).to_vec(),
        rows: vec![vec![
            Cell::Link { text: text(), section: "charts".to_owned() },
            Cell::Text("clients 4".to_owned()),
            Cell::Stable(true),
        ]],
        ..Table::default()
    };
    let views =
        vec![("truth", Some("data:image/png;base64,iVBORw==".to_owned())), ("prediction", None)];
    vec![
        Block::Heading { text: text(), stable: None },
        Block::Heading { text: "single-stream".to_owned(), stable: Some(false) },
        Block::Warning(text()),
        Block::List(vec![text()]),
        Block::Facts(vec![("device", text())]),
        Block::Tables(vec![scores, points]),
        Block::Legend(vec![(text(), Swatch::Rgb([128, 64, 128])), (text(), Swatch::Line(1))]),
        Block::Stacks(vec![Stack {
            title: text(),
            note: text(),
            parts: vec![part("compute", 0.95), part("other", 0.05)],
        }]),
        Block::Images(vec![Image { name: text(), note: text(), views }]),
        Block::Code(text()),
    ]
}

fn charts() -> Vec<Block> {
    let chart =
        |x: Axis, y: Axis, marks: Vec<Mark>| Chart { title: text(), unit: text(), x, y, marks };
    let y = [Some(1.0), None, Some(0.25), Some(0.5)].into_iter().collect();
    let gap = Line {
        name: "loss".to_owned(),
        color: 2,
        dots: true,
        x: column([10.0, 20.0, 30.0, 40.0]),
        y,
        ..Line::default()
    };
    let band = Line {
        name: text(),
        x: column([0.0, 1.0]),
        y: column([50.0, 50.0]),
        band: Some([column([0.0, 50.0]), column([50.0, 100.0])]),
        ..Line::default()
    };
    let from_zero = Axis { scale: Scale::FromZero, ..Axis::default() };
    let latency = Axis { name: "ms", scale: Scale::Logarithmic, range: Some([1.0, 100.0]) };
    let bars = Mark::Bars {
        name: "queries".to_owned(),
        centers: column([3.0, 30.0]),
        edges: column([1.0, 10.0, 100.0]),
        counts: column([2.0, 3.0]),
    };
    let percentiles = Mark::Verticals { x: column([10.0]), texts: vec!["p50 10.0".to_owned()] };
    let spot = Mark::Points {
        name: "percentile".to_owned(),
        color: 1,
        large: true,
        x: column([10.0]),
        y: column([50.0]),
    };
    let intervals = Mark::Intervals { low: column([1.0]), high: column([10.0]), y: column([50.0]) };
    let label = PointLabel { strong: "1.".to_owned(), text: "40".to_owned(), unstable: true };
    let labels = Mark::Labels { x: column([10.0]), y: column([50.0]), labels: vec![label] };
    let levels = Mark::Levels { y: column([50.0]) };
    let heat = HeatMap {
        title: text(),
        rows: 2,
        row_name: "prototypes",
        last_step: 40,
        steps: column([20.0, 40.0]),
        shares: vec![column([0.2, 0.8]), column([0.0, 1.0])],
    };
    let steps = |last| Axis::counts("step", last);
    vec![
        Block::Charts(
            ChartSize::Large,
            vec![
                chart(steps(40.0), from_zero, vec![Mark::Line(gap)]),
                chart(steps(1.0), Axis::percent(), vec![Mark::Line(band)]),
                chart(latency.clone(), Axis::counts("", 4.0), vec![bars, percentiles]),
            ],
        ),
        Block::Charts(
            ChartSize::Tall,
            vec![
                chart(latency.clone(), Axis::percent(), vec![intervals, spot, levels, labels]),
                chart(Axis::default(), Axis::default(), Vec::new()),
            ],
        ),
        Block::HeatMaps(vec![heat]),
    ]
}

fn document() -> Document {
    let mut document = Document::new(TEXT);
    let tile = Tile {
        label: "mIoU".to_owned(),
        value: "61.3 %".to_owned(),
        details: vec!["step 180".to_owned()],
    };
    let verdict = Block::Verdict { text: text(), stable: false, reasons: vec![text()] };
    document.head = vec![Block::Note(text()), verdict, Block::Tiles(vec![tile])];
    document.section("blocks", "Blocks", blocks());
    document.section("charts", "Charts", charts());
    document
}

/// A program of this name in `PATH`.
fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

#[test]
fn the_script_draws_every_block_and_reads_out_values() {
    if !is_installed("chromium") {
        assert!(std::env::var_os("PROTOSEG_REQUIRE_DATA").is_none(), "chromium is not installed");
        // `cargo xtask test` lists the checks that were skipped.
        if let Some(list) = std::env::var_os("PROTOSEG_SKIPPED") {
            let mut list = std::fs::OpenOptions::new().append(true).open(list).unwrap();
            writeln!(list, "script of report pages: chromium is not in PATH").unwrap();
        }
        eprintln!("skipped: chromium is not installed");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let checks = format!("<script>{}</script></body>", include_str!("browser.js"));
    let page = document().to_html().replace("</body>", &checks);
    let path = folder.path().join("page.html");
    std::fs::write(&path, page).unwrap();
    for width in [1280, 500] {
        let output = Command::new("chromium")
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"])
            .arg(format!("--window-size={width},900"))
            .arg(format!("--user-data-dir={}", folder.path().join("profile").display()))
            .arg(format!("file://{}", path.display()))
            .output()
            .unwrap();
        let page = String::from_utf8_lossy(&output.stdout);
        let title = page.split("<title>").nth(1).and_then(|rest| rest.split("</title>").next());
        assert_eq!(
            title,
            Some("passed"),
            "{width} wide: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
