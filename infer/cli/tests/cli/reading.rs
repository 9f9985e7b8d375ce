//! Image files that do not say what their channels and values mean: warnings, and the choices by
//! options and bundles.

use image::{ImageBuffer, Rgb, RgbaImage};
use protoseg_images::label_map;
use protoseg_models::bundle::Manifest;

use crate::common::{TestDir, answer, expect, stripe_labels, stripes};

/// Test folder whose `odd` has two images with another channel or 12 bits, and one of neither.
fn test_dir(deep: bool) -> TestDir {
    let dir = TestDir::new();
    std::fs::create_dir(dir.at("odd")).unwrap();
    let usual = stripes(48, 32);
    usual.save(dir.at("odd/usual.png")).unwrap();
    for name in ["odd/one.png", "odd/two.tif"] {
        let path = dir.at(name);
        if deep {
            let values = usual.as_raw().iter().map(|&value| u16::from(value) * 16).collect();
            let image: ImageBuffer<Rgb<u16>, Vec<u16>> =
                ImageBuffer::from_raw(48, 32, values).unwrap();
            image.save(path).unwrap();
        } else {
            let pixel = |x, y| {
                let Rgb([red, green, blue]) = *usual.get_pixel(x, y);
                [red, green, blue, if name == "odd/one.png" { 0 } else { x as u8 }].into()
            };
            RgbaImage::from_fn(48, 32, pixel).save(path).unwrap();
        }
    }
    dir
}

fn labels(dir: &TestDir, name: &str) -> Vec<u8> {
    label_map::read(&dir.at(name), 10_000).unwrap().labels
}

#[test]
fn a_further_channel_leaves_the_colors_and_is_told() {
    let dir = test_dir(false);
    let parts = [
        "2 of 3 images",
        "all pixels of odd/one.png are transparent",
        "channel 4 of odd/two.tif has 48 values from 0 to 47: a band?",
        "--channels color",
    ];
    expect("auto", &answer(&mut dir.command("label bundle odd --out out")), 0, &parts);
    for name in ["one", "two", "usual"] {
        assert!(labels(&dir, &format!("out/ids/{name}.png")) == stripe_labels(48, 32), "{name}");
    }
    for (out, channels, expected) in
        [("color", "color", stripe_labels(48, 32)), ("black", "alpha-black", vec![0; 48 * 32])]
    {
        let line = format!("label bundle odd --out {out} --channels {channels}");
        let given = answer(&mut dir.command(&line));
        assert_eq!((given.status, given.stderr.as_str()), (0, ""), "{given:?}");
        assert!(labels(&dir, &format!("{out}/ids/one.png")) == expected, "{channels}");
    }
    let given = answer(&mut dir.command("label bundle odd --out picked --channels 4,1,2"));
    assert_eq!(given.status, 3, "{given:?}");
    assert!(given.stderr.contains("usual.png: channel 4 is chosen, and it has 3"), "{given:?}");
}

#[test]
fn unused_bits_are_told_and_a_bundle_keeps_the_range() {
    let dir = test_dir(true);
    let parts = ["the largest value of odd/one.png is 3520 of 65535", "2 of 3", "--range 0:3520"];
    expect("auto", &answer(&mut dir.command("label bundle odd --out out")), 0, &parts);
    let given = answer(&mut dir.command("label bundle odd --out depth --depth 12"));
    assert_eq!((given.status, given.stderr.as_str()), (0, ""), "{given:?}");
    let narrow = answer(&mut dir.command("label bundle odd --out narrow --range 0:1000"));
    expect("clamped", &narrow, 0, &["2 of 3 images have values outside --range", "0:1000"]);

    let mut manifest = Manifest::read(&dir.at("bundle")).unwrap().value;
    manifest.model.reading.range = "0:4080".parse().ok();
    manifest.write(&dir.at("bundle")).unwrap();
    let given = answer(&mut dir.command("label bundle odd --out out --resume"));
    expect("another reading is another model", &given, 0, &["3 of 3", "labeled again"]);
    let given = answer(&mut dir.command("label bundle odd --out out --resume --range 0:4080"));
    assert!(given.stdout.starts_with("0 labeled") && given.stderr.is_empty(), "{given:?}");
    let given = answer(&mut dir.command("label bundle odd --out none --range 9:1"));
    assert!(given.status == 2 && given.stderr.contains("LOW below HIGH"), "{given:?}");
}

#[test]
fn scores_come_with_the_warnings_of_their_images() {
    let dir = test_dir(true);
    std::fs::rename(dir.at("odd/one.png"), dir.at("in/images/a.png")).unwrap();
    let map = label_map::LabelMap { height: 32, width: 48, labels: vec![10; 48 * 32] };
    std::fs::write(dir.at("in/labels/a.png"), map.ids_png().unwrap()).unwrap();
    let line = crate::common::EVAL;
    expect(
        "eval",
        &answer(&mut dir.command(line)),
        0,
        &["in/images/a.png is 3520", "--range 0:4095"],
    );
    let given = answer(&mut dir.command(&format!("{line} --range 0:3520")));
    assert_eq!((given.status, given.stderr.as_str()), (0, ""), "{given:?}");
}
