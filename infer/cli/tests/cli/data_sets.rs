//! Data sets as people have them: broken images, links, tables, and images that are named again.

use std::fs;
use std::os::unix::fs::symlink;

use image::codecs::gif::GifEncoder;
use image::{DynamicImage, Frame};
use protoseg_images::image_file::ImageFile;

use crate::common::{EVAL, ProgramOutput, TestDir, answer, expect, results, stripes};

fn run(dir: &TestDir, arguments: &str) -> ProgramOutput {
    answer(&mut dir.command(arguments))
}

fn json(given: &ProgramOutput) -> serde_json::Value {
    serde_json::from_str(&given.stdout).unwrap()
}

/// Writes an image of the data set with its label map.
fn sample(dir: &TestDir, name: &str) {
    for folder in ["in/images", "in/labels"] {
        let path = dir.at(folder).join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
    }
    stripes(32, 32).save(dir.at("in/images").join(name)).unwrap();
    dir.labels(&format!("in/labels/{name}"), 32, 32, 10);
}

#[test]
fn broken_images_and_label_maps_are_left_out_of_a_score_on_request() {
    let dir = TestDir::new();
    for name in ["b.png", "c.png", "d.png"] {
        sample(&dir, name);
    }
    let whole = run(&dir, &format!("{EVAL} --json"));
    dir.cut("in/images/b.png");
    let given = run(&dir, EVAL);
    assert_eq!((given.status, given.stdout.as_str()), (1, ""), "{given:?}");
    for part in ["in/images/b.png: broken or cut short", "1 of 4 images", "--skip-broken scores"] {
        assert!(given.stderr.contains(part), "{given:?}");
    }
    dir.cut("in/labels/c.png");
    let given = run(&dir, EVAL);
    expect("label map", &given, 2, &["labels/c.png", "1 of 4 label maps", "--skip-broken scores"]);
    let given = run(&dir, &format!("{EVAL} --skip-broken"));
    assert_eq!(given.status, 3, "{given:?}");
    let said = "\n2 images (2 of 4 are broken and left out), folder all, ";
    assert!(given.stdout.contains(said), "{given:?}");
    for name in ["in/images/b.png: ", "in/labels/c.png "] {
        assert_eq!(given.stderr.matches(name).count(), 1, "{given:?}");
    }
    let given = run(&dir, &format!("{EVAL} --skip-broken --json"));
    let summary = json(&given);
    assert_eq!((&summary["images"], &summary["broken"]), (&2.into(), &2.into()), "{given:?}");
    // All samples are alike.
    assert_eq!(summary["scores"], json(&whole)["scores"]);
    // A value without a meaning is no broken file.
    dir.labels("in/labels/d.png", 32, 32, 77);
    let given = run(&dir, &format!("{EVAL} --skip-broken"));
    assert_eq!((given.status, given.stdout.as_str()), (2, ""), "{given:?}");
    dir.labels("in/labels/d.png", 32, 32, 10);
    for name in ["a", "d"] {
        dir.cut(&format!("in/images/{name}.png"));
    }
    let given = run(&dir, &format!("{EVAL} --skip-broken"));
    assert_eq!((given.status, given.stdout.as_str()), (1, ""), "{given:?}");
}

#[test]
fn images_behind_links_have_one_name_in_labels_and_scores() {
    let dir = TestDir::new();
    sample(&dir, "real/b.png");
    symlink(dir.at("in/images/real"), dir.at("in/images/a link")).unwrap();
    fs::create_dir(dir.at("elsewhere")).unwrap();
    stripes(32, 32).save(dir.at("elsewhere/c.png")).unwrap();
    symlink(dir.at("elsewhere"), dir.at("in/images/more")).unwrap();
    fs::create_dir(dir.at("in/labels/more")).unwrap();
    dir.labels("in/labels/more/c.png", 32, 32, 10);
    for (inputs, out) in [("in/images", "out"), ("in/images/**/*.png", "globbed")] {
        let given = run(&dir, &format!("label bundle {inputs} --out {out} --format labelids"));
        assert_eq!((given.status, given.stderr.as_str()), (0, ""), "{given:?}");
        let names = ["a_labelIds.png", "more/c_labelIds.png", "real/b_labelIds.png"];
        assert_eq!(results(&dir.at(out).join("labelids")), names);
    }
    let given = run(&dir, &format!("{EVAL} --json"));
    assert_eq!((given.status, &json(&given)["images"]), (0, &3.into()), "{given:?}");
    // The pseudo-labels of the folder are a data set of the same images.
    let pseudo = "--format pseudo --pseudo-confidence 0";
    assert_eq!(run(&dir, &format!("label bundle in/images --out made {pseudo}")).status, 0);
    let given = run(&dir, "eval bundle --data folder --root made/pseudo --json");
    assert_eq!((given.status, &json(&given)["images"]), (0, &3.into()), "{given:?}");
    assert_eq!(json(&given)["scores"]["mean_iou"], 100.0, "{given:?}");
}

#[test]
fn lists_name_each_image_once_and_may_be_tables() {
    let dir = TestDir::new();
    sample(&dir, "b.png");
    let absolute = dir.at("in/images/a.png").display().to_string();
    let list = format!("images/a.png\n./images/a.png\n{absolute}\nimages/b.png\nb.png\n");
    fs::write(dir.at("in/list.txt"), list).unwrap();
    let given = run(&dir, &format!("{EVAL} --list list.txt --json"));
    assert_eq!(json(&given)["images"], 2, "{given:?}");
    expect("eval", &given, 0, &["list.txt: 3 of 5 samples are named again", "each counts once"]);
    let given = run(&dir, "label bundle --list in/list.txt --out out");
    assert!(given.stdout.starts_with("2 labeled"), "{given:?}");
    assert_eq!(given.stderr, "note: 3 of 5 images are named again, and labeled once\n");
    fs::write(dir.at("in/table.csv"), "image,label\na.png,labels/a.png\nimages/b.png,\n").unwrap();
    let given = run(&dir, &format!("{EVAL} --list table.csv --json"));
    assert_eq!((given.status, &json(&given)["images"]), (0, &2.into()), "{given:?}");
    let given = run(&dir, "label bundle --list in/table.csv --out table");
    assert_eq!((given.status, given.stderr.as_str()), (0, ""), "{given:?}");
    assert!(given.stdout.starts_with("2 labeled"), "{given:?}");
    fs::write(dir.at("in/bare.csv"), "images/a.png,labels/a.png\n").unwrap();
    let given = run(&dir, "label bundle --list in/bare.csv --out bare");
    expect("bare", &given, 2, &["in/images/a.png does", "without its label"]);
}

#[test]
fn a_gif_is_its_first_frame() {
    let dir = TestDir::new();
    fs::create_dir(dir.at("gifs")).unwrap();
    let frame = || Frame::new(DynamicImage::from(stripes(32, 32)).into_rgba8());
    for (name, frames) in [("still", 1), ("moving", 3)] {
        let file = fs::File::create(dir.at(&format!("gifs/{name}.gif"))).unwrap();
        let mut encoder = GifEncoder::new(file);
        (0..frames).for_each(|_| encoder.encode_frame(frame()).unwrap());
    }
    let given = run(&dir, "label bundle gifs --out out");
    let parts = ["1 of 2 images are animations", "2 of gifs/moving.gif", "ffmpeg"];
    expect("gifs", &given, 0, &parts);
    stripes(32, 32).save(dir.at("in/images/a.png")).unwrap();
    run(&dir, "label bundle in/images --out plain");
    let ids = |path: &str| fs::read(dir.at(path)).unwrap();
    assert_eq!(ids("out/ids/still.png"), ids("plain/ids/a.png"));
    assert_eq!(ids("out/ids/moving.png"), ids("plain/ids/a.png"));
}

#[test]
fn a_world_file_gives_label_maps_their_place() {
    let dir = TestDir::new();
    for name in ["a.png", "b.jpg", "c.tif", "none.png"] {
        fs::create_dir_all(dir.at("map")).unwrap();
        stripes(32, 32).save(dir.at("map").join(name)).unwrap();
    }
    for name in ["a.pgw", "b.jgw", "c.tfw"] {
        fs::write(dir.at("map").join(name), "0.5\n0\n0\n-0.5\n1000.25\n1999.75\n").unwrap();
    }
    let given = run(&dir, "label bundle map --out out --format geotiff");
    expect("map", &given, 0, &["1 of 4 images tell no place on Earth", "map/none.png"]);
    let place = |name: &str| {
        let file = ImageFile::read(&dir.at(&format!("out/geotiff/{name}.tif")), 10_000).unwrap();
        file.geo_reference().unwrap().affine()
    };
    for name in ["a", "b", "c"] {
        assert_eq!(place(name), Some([0.5, 0.0, 1000.0, 0.0, -0.5, 2000.0]), "{name}");
    }
    assert_eq!(place("none"), None);
    // Another place of one image, and the first of another, are labeled again; the rest stays.
    for (name, first) in [("a.pgw", "2000.25"), ("none.pgw", "3000.25")] {
        let text = format!("0.5\n0\n0\n-0.5\n{first}\n1999.75\n");
        fs::write(dir.at("map").join(name), text).unwrap();
    }
    for labeled in [2, 0] {
        let given = run(&dir, "label bundle map --out out --format geotiff --resume");
        assert!(given.stdout.starts_with(&format!("{labeled} labeled")), "{given:?}");
    }
    assert_eq!(place("a").unwrap()[2], 2000.0);
    assert_eq!(place("none").unwrap()[2], 3000.0);
    fs::write(dir.at("map/a.pgw"), "0.5\n").unwrap();
    let given = run(&dir, "label bundle map/a.png --out again --format geotiff");
    assert_eq!(given.status, 3, "{given:?}");
    assert!(given.stderr.contains("map/a.pgw is no world file"), "{given:?}");
    let given = run(&dir, "label bundle map/a.png --out ids");
    assert_eq!((given.status, given.stderr.as_str()), (0, ""), "{given:?}");
}
