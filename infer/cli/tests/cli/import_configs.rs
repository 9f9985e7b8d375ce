//! `protoseg import` beside the configurations that Hugging Face writes: followed and said, and less
//! than the options.

use image::RgbImage;
use protoseg_models::adapter::{Adapter, ChannelOrder, Normalization};
use protoseg_models::bundle::Manifest;

use crate::common::{ProgramOutput, TestDir, answer, expect, stripe_labels, stripes};
use crate::import::{import, labels, noise, test_dir};

const MOBILE_VIT: &str = r#"{"do_flip_channel_order": true, "do_rescale": true, "do_resize": true,
    "do_center_crop": true, "crop_size": {"height": 64, "width": 64}, "size": {"shortest_edge": 72},
    "rescale_factor": 0.00392156862745098, "image_processor_type": "MobileViTImageProcessor"}"#;

/// Imports a model beside a configuration.
fn import_with(name: &str, config: &str, options: &str) -> (TestDir, ProgramOutput) {
    let dir = test_dir(name);
    std::fs::write(dir.at("theirs/preprocessor_config.json"), config).unwrap();
    let given = import(&dir, name, options);
    (dir, given)
}

fn adapter(dir: &TestDir) -> Adapter {
    Manifest::read(&dir.at("imported")).unwrap().value.files[0].adapter.clone().unwrap()
}

/// Checks that all parts were said.
fn says(given: &ProgramOutput, parts: &[&str]) {
    assert_eq!((given.status, given.stderr.as_str()), (0, ""), "{given:?}");
    for part in parts {
        assert!(given.stdout.contains(part), "{part}: {given:?}");
    }
}

#[test]
fn options_win_over_a_configuration_and_what_is_taken_of_it_is_said() {
    use ChannelOrder::{Bgr, Rgb};
    let taken = "channel order bgr, as preprocessor_config.json says; --order overrides it";
    let scaled = "normalization of preprocessor_config.json, byte / 255; --normalization";
    let asked =
        "the channel order is rgb, as --order says; that of preprocessor_config.json is bgr";
    for (options, order, parts) in [
        ("", Bgr, &[scaled, taken][..]),
        ("--normalization unit", Bgr, &[taken]),
        ("--order rgb", Rgb, &[scaled, asked]),
        ("--order bgr", Bgr, &[scaled]),
        (
            "--normalization imagenet --order rgb",
            Rgb,
            &[
                asked,
                "/ [0.229, 0.224, 0.225], as the options say; that of preprocessor_config.json is byte / 255",
            ],
        ),
    ] {
        let (dir, given) = import_with("float-nchw", MOBILE_VIT, options);
        says(&given, parts);
        says(
            &given,
            &["images are scaled to a shorter side of 72, as", "the middle of 64x64 that"],
        );
        assert_eq!(adapter(&dir).order, order, "{options}");
        let red = if order == Rgb { 0 } else { 2 };
        if options.contains("imagenet") {
            continue;
        }
        let expected: Vec<u8> =
            stripe_labels(96, 32).iter().map(|label| label.abs_diff(red)).collect();
        assert_eq!(labels(&dir, &stripes(96, 32), ""), expected, "{options}");
    }
    // Files that take bytes may flip them themselves.
    let (dir, given) = import_with("byte-nchw", MOBILE_VIT, "");
    says(&given, &["the channel order is rgb, as the file takes bytes", "--order bgr follows"]);
    assert_eq!(adapter(&dir).order, Rgb);
}

#[test]
fn geometry_that_is_not_followed_is_said() {
    let config = |size: &str, more: &str| {
        format!(r#"{{"do_normalize": false, "do_resize": true, "size": {size}{more}}}"#)
    };
    let square = r#"{"height": 64, "width": 64}"#;
    for (name, config, options, parts) in [
        (
            "square",
            config(square, r#", "resample": 0"#),
            "",
            &["resized to it, as preprocessor_config.json says", "by the nearest filter"][..],
        ),
        ("square", config(square, r#", "resample": 3"#), "", &["by the bicubic filter"]),
        ("square", config(square, r#", "resample": 9"#), "", &["9, is not known", "--resample"]),
        (
            "square",
            config(r#"{"height": 32, "width": 32}"#, ""),
            "",
            &[
                "in windows of 64x64; preprocessor_config.json resizes images to 32x32",
                "--fit resize",
            ],
        ),
        (
            "square",
            config("72", r#", "do_center_crop": true, "crop_size": 64"#),
            "--fit resize",
            &["resized to 64x64 alone", "shorter side is 72 and cuts out their middle of 64x64"],
        ),
        (
            "float-nchw",
            config(square, r#", "resample": 3"#),
            "",
            &["resized to it, as preprocessor_config.json says", "by the bicubic filter"],
        ),
        (
            "float-nchw",
            config(square, r#", "resample": 3"#),
            "--fit window",
            &["at their own size", "--fit resize --size 64x64 does so"],
        ),
        (
            "float-nchw",
            config(square, r#", "keep_aspect_ratio": true, "ensure_multiple_of": 32"#),
            "",
            &["images are scaled near 64x64 with their proportions kept, in multiples of 32, as"],
        ),
        (
            "square",
            config(r#"{"longest_edge": 64}"#, r#", "do_pad": true, "pad_size": 64"#),
            "",
            &["scaled into it with their proportions kept, as preprocessor_config.json says"],
        ),
        ("float-nchw", config("64", ""), "--edge 48:99", &["a shorter side of 48 and a longer of"]),
        (
            "float-nchw",
            config(square, r#", "keep_aspect_ratio": true"#),
            "--fit resize --size 64x64",
            &[
                "resized to 64x64 alone",
                "with their proportions kept (keep_aspect_ratio)",
                "not followed",
            ],
        ),
    ] {
        let (_, given) = import_with(name, &config, options);
        says(&given, parts);
    }
    let (_, given) = import_with("square", &config(square, r#", "resample": 2"#), "");
    says(&given, &["resized to it, as preprocessor_config.json says"]);
    assert!(!given.stdout.contains("not followed"), "{given:?}");
}

#[test]
fn a_configuration_above_the_folder_of_exports_is_found_and_named() {
    let dir = test_dir("float-nchw");
    let folder = dir.at("repo/onnx");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(dir.at("theirs/float-nchw.onnx"), folder.join("model.onnx")).unwrap();
    let nested = format!(r#"{{"image_processor": {MOBILE_VIT}, "processor_class": "X"}}"#);
    std::fs::write(dir.at("repo/processor_config.json"), nested).unwrap();
    let line = "import repo/onnx/model.onnx --classes in/classes.txt --out imported";
    let given = answer(&mut dir.command(line));
    says(
        &given,
        &["normalization of repo/processor_config.json, byte / 255", "order bgr, as repo/"],
    );
    assert_eq!(adapter(&dir).order, ChannelOrder::Bgr);
    // A file at fault is named.
    std::fs::write(dir.at("repo/processor_config.json"), "[").unwrap();
    expect("fault", &answer(&mut dir.command(line)), 2, &["repo/processor_config.json"]);
}

#[test]
fn constants_of_gray_images_are_one_number() {
    let dir = test_dir("gray");
    let given = import(&dir, "gray", "--normalization imagenet");
    says(&given, &["constants of red, green and blue are averaged, (byte / 255 - 0.449) / 0.226"]);
    let given = import(&dir, "gray", "--mean 0.5 --std 0.25");
    says(&given, &[]);
    assert!(!given.stdout.contains("averaged"), "{given:?}");
    let expected = Normalization::new(255.0, [0.5; 3], [0.25; 3]).unwrap();
    assert_eq!(adapter(&dir).normalization, Some(expected));
    // The logits -9 v + 3, 0 and 9 v - 6 of v = (byte / 255 - 0.5) / 0.25.
    let image = noise(40, 30);
    let gray = RgbImage::from_fn(40, 30, |x, y| image::Rgb([image.get_pixel(x, y).0[0]; 3]));
    let expected: Vec<u8> = gray
        .pixels()
        .map(|pixel| {
            let value = (f64::from(pixel.0[0]) / 255.0 - 0.5) / 0.25;
            if value > 2.0 / 3.0 { 2 } else { u8::from(value >= 1.0 / 3.0) }
        })
        .collect();
    assert_eq!(labels(&dir, &gray, ""), expected);
    let given = import(&dir, "gray", "--mean 0.5,0.5 --std 0.5");
    assert!(given.status == 2 && given.stderr.contains("or one for all"), "{given:?}");
}
