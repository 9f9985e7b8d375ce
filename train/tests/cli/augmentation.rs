//! Classes that a mirror swaps: with `flip = false` or `flip_pairs`, a run tells them apart.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{folder, said};
use image::{GrayImage, Luma, RgbImage};

/// Bright squares with a dark stripe on the left (class 1) or on the right (class 2).
fn write_data(root: &Path) {
    for name in ["images", "labels"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    let mut list = String::new();
    for index in 0..12_u32 {
        let mut image = RgbImage::from_pixel(64, 64, [60; 3].into());
        let mut mask = GrayImage::new(64, 64);
        for (square, top) in [4, 36].into_iter().enumerate() {
            let side = (index + square as u32) % 2;
            let left = 4 + (index * 7 + 13 * square as u32) % 32;
            let stripe = if side == 0 { left } else { left + 16 };
            for (x, y) in (left..left + 24).flat_map(|x| (top..top + 24).map(move |y| (x, y))) {
                let dark = (stripe..stripe + 8).contains(&x);
                image.put_pixel(x, y, if dark { [10; 3] } else { [200; 3] }.into());
                mask.put_pixel(x, y, Luma([1 + side as u8]));
            }
        }
        image.save(root.join(format!("images/{index}.png"))).unwrap();
        mask.save(root.join(format!("labels/{index}.png"))).unwrap();
        list.push_str(&format!("images/{index}.png\n"));
    }
    fs::write(root.join("all.txt"), list).unwrap();
    fs::write(root.join("classes.txt"), "0 ground\n1 left\n2 right\n").unwrap();
}

#[test]
fn the_plan_says_how_crops_are_changed_and_unknown_classes_are_refused() {
    let (_folder, path) = folder();
    write_data(&path("data"));
    let plan = |settings: &[&str]| {
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/synthetic.toml");
        let root = format!("root={}", path("data").display());
        let fixed = ["data=folder", &root, "labeled=all.txt", "mode=supervised", "crop=64"];
        let more = [
            "batch=2",
            "steps=2",
            "warmup_steps=2",
            "calibration_images=0",
            "window=",
            "pretrained=",
        ];
        let mut command = Command::new(env!("CARGO_BIN_EXE_protoseg-train"));
        command.arg(config).args(["--threads", "1", "--dry-run", "--out"]).arg(path("run"));
        for setting in fixed.iter().chain(&more).chain(settings) {
            command.args(["--set", setting]);
        }
        let output = command.env_remove("LD_LIBRARY_PATH").output().unwrap();
        (output.status.code(), said(&output))
    };
    let pairs = "flip_pairs=[[\"left\", \"right\"]]";
    for (settings, words) in [
        (&[][..], "training crops: half of them mirrored, 0.5 to 2 times as large"),
        (&["flip=false", "scale=[1.0, 1.0]"], "training crops: 1 times as large"),
        (&[pairs], "half of them mirrored, which swaps left and right"),
        (&["labeled_photometric=true"], "labeled ones in other colors"),
    ] {
        let (status, said) = plan(settings);
        assert_eq!(status, Some(0), "{said}");
        assert!(said.contains(words), "{words}: {said}");
    }
    let (status, said) = plan(&["flip_pairs=[[\"left\", \"rihgt\"]]"]);
    assert_eq!(status, Some(2), "{said}");
    assert!(said.contains("`rihgt`") && said.contains("ground, left, right"), "{said}");
}
