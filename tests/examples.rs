//! The examples do what they say, on the model of the tests.

mod support;

use image::{Rgb, RgbImage};
use support::{program, repository, succeed};

#[test]
fn examples_run_on_a_small_bundle() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let bundle = repository().join("infer/tests/fixtures/colors");
    std::fs::create_dir(at("in")).unwrap();
    let stripes =
        RgbImage::from_fn(96, 64, |x, _| if x < 48 { Rgb([200, 0, 0]) } else { Rgb([0, 200, 0]) });
    stripes.save(at("in/stripes.png")).unwrap();
    std::fs::write(at("in/broken.png"), "no image").unwrap();
    let photo = at("in/stripes.png");

    let mut segment = program("examples/segment_photo");
    let said = succeed(segment.arg(&bundle).arg(&photo).arg(at("overlay.png")));
    assert!(said.contains("red") && said.contains("50.0 %"), "{said}");
    assert_eq!(image::image_dimensions(at("overlay.png")).unwrap(), (96, 64));

    let mut label = program("examples/label_folder");
    let said = succeed(label.arg(&bundle).arg(at("in")).arg(at("out")));
    assert!(said.starts_with("1 labeled, 1 failed"), "{said}");
    let labels = image::open(at("out/stripes.png")).unwrap().into_luma8();
    assert_eq!((labels.get_pixel(10, 10).0, labels.get_pixel(90, 10).0), ([0], [1]));

    let mut custom = program("examples/custom_output");
    let said = succeed(custom.arg(&bundle).arg(&photo).arg(at("unsure.png")));
    assert!(said.contains("pixels are unsure") && said.contains("logits (3, 16, 24)"), "{said}");
    assert!(at("unsure.png").is_file());
}
