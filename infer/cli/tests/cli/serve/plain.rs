//! Plain form: an image file in, and the view that `Accept` or `?as=` names out.

use image::{ImageFormat, RgbImage};
use protoseg_images::label_map;
use protoseg_serve::registry::name_of;
use serde_json::json;

use super::oip::png;
use super::server::Server;
use crate::common::{fixture, stripe_labels, stripes};

#[test]
fn responses_have_the_requested_view() {
    let server = Server::start(&[]);
    let (image, expected) = (stripes(48, 32), stripe_labels(48, 32));
    let file = png(&image);
    let json = server.post("/v1/segment", &[], &file);
    assert_eq!((json.status, json.header("content-type")), (200, "application/json"));
    let found = json.json();
    assert_eq!(
        (&found["model"], &found["width"], &found["height"]),
        (&json!("colors"), &json!(48), &json!(32))
    );
    let classes = found["classes"].as_array().unwrap();
    assert_eq!(classes.len(), 3);
    for class in classes {
        assert_eq!(
            (&class["pixels"], class["share"].as_f64()),
            (&json!(512), Some(1.0 / 3.0)),
            "{class}"
        );
        assert!(
            class["confidence"].as_f64().is_some_and(|sure| sure > 1.0 / 3.0 && sure <= 1.0),
            "{class}"
        );
    }
    let accept = |kind: &str| server.post("/v1/models/colors/segment", &[("accept", kind)], &file);
    let labels = accept("image/png");
    assert_eq!(labels.header("content-type"), "image/png");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("labels.png");
    for response in [labels, server.post("/v1/segment?as=color", &[], &file)] {
        std::fs::write(&path, response.body).unwrap();
        assert_eq!(label_map::read(&path, 1 << 20).unwrap().labels, expected);
    }
    let overlay = accept("image/png; view=overlay");
    let overlay: RgbImage =
        image::load_from_memory_with_format(&overlay.body, ImageFormat::Png).unwrap().into_rgb8();
    assert_eq!((overlay.dimensions(), overlay.get_pixel(0, 0).0), ((48, 32), [210, 10, 10]));
    let coco = server.post("/v1/segment?as=coco", &[], &file).json();
    let masks = coco["annotations"].as_array().unwrap();
    assert_eq!(
        (masks.len(), &masks[0]["area"], &masks[2]["category_id"]),
        (3, &json!(512), &json!(3))
    );
    assert_eq!(accept("text/html").status, 400);
    assert_eq!(server.post("/v1/segment?as=mask", &[], &file).status, 400);
    assert_eq!(server.post("/v1/models/other/segment", &[], &file).status, 404);
    let empty = server.post("/v1/segment", &[], b"");
    assert!(empty.status == 400 && empty.error().contains("--data-binary @"), "{}", empty.text());
    assert_eq!(server.get("/v1/segment").status, 405);
    let models = server.get("/v1/models").json();
    assert_eq!(
        models["models"][0]["classes"][1],
        json!({ "id": 1, "name": "green", "color": [0, 200, 0] })
    );
}

#[test]
fn models_answer_by_name_and_the_first_by_default() {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_protoseg"));
    let one = format!("one={}", fixture("colors").display());
    command.arg("serve").args([one.into(), fixture("colors").into_os_string()]);
    let server = Server::with(command);
    let file = png(&stripes(16, 16));
    assert_eq!(server.post("/v1/segment", &[], &file).json()["model"], "one");
    assert_eq!(server.post("/v1/models/colors/segment", &[], &file).json()["model"], "colors");
    assert_eq!(name_of(&fixture("colors")).as_deref(), Some("colors"));
    assert_eq!(server.metric("protoseg_pictures_total{model=\"colors\"}"), 1.0);
    let requests = "protoseg_requests_total{model=\"one\",protocol=\"http\",outcome=\"ok\"}";
    assert_eq!(server.metric(requests), 1.0);
}
