//! Videos of CVAT, and formats that are not read.

use super::*;

#[test]
fn keyframes_of_a_video_are_converted_and_the_others_named() {
    let fixture = Fixture::new();
    for frame in [0, 1, 2, 3, 5] {
        fixture.image(&format!("images/frame_{frame:06}.png"), 4, 1);
    }
    // The car is drawn in frames 0 and 2 and gone in 3; the road is a mask in 0, and the file has no
    // shape of it in 5, where the sign has one.
    let shape = |frame: u32, keyframe: u32, outside: u32, left: u32| {
        format!(
            r#"<box frame="{frame}" keyframe="{keyframe}" outside="{outside}" z_order="1" xtl="{left}" ytl="0" xbr="{}" ybr="1"/>"#,
            left + 1
        )
    };
    let road = |frame: u32, keyframe: u32| {
        format!(
            r#"<mask frame="{frame}" keyframe="{keyframe}" outside="0" rle="0, 4" left="0" top="0" width="4" height="1"/>"#
        )
    };
    let text = format!(
        r##"<annotations><meta><task><original_size><width>4</width><height>1</height></original_size>
        <labels><label><name>road</name></label><label><name>car</name></label></labels></task></meta>
        <track id="0" label="car">{}{}{}{}</track><track id="1" label="road">{}{}{}{}</track>
        <track id="2" label="sign"><polygon frame="5" keyframe="1" outside="0" points="0,0;1,0;1,1"/></track>
        <track id="3" label="car"><polyline frame="0" keyframe="1" outside="0" points="0,0;1,0"/></track>
        </annotations>"##,
        shape(0, 1, 0, 0),
        shape(1, 0, 0, 1),
        shape(2, 1, 0, 2),
        shape(3, 1, 1, 2),
        road(0, 1),
        road(1, 0),
        road(2, 0),
        road(3, 0),
    );
    fixture.text("annotations.xml", &text);
    let (classes, labels) = fixture.convert("annotations.xml", &fixture.options());
    assert!(classes.starts_with("0 road ") && classes.contains("\n1 car "), "{classes}");
    let frame = |frame: u32, labels: [u8; 4]| (format!("frame_{frame:06}.png"), labels.to_vec());
    let expected = [frame(0, [1, 0, 0, 0]), frame(2, [0, 0, 1, 0]), frame(3, [0, 0, 0, 0])];
    assert_eq!(labels, expected);
    let (notes, _) = fixture.counts("annotations.xml", &fixture.options());
    for part in [
        "1 tracks without an area",
        "1 keyframes are left out, as the file has no shape for other objects there, such as frame 5",
        "1 frames between keyframes are left out",
    ] {
        assert!(notes.iter().any(|note| note.starts_with(part)), "{part}: {notes:?}");
    }
    assert!(notes[1].contains("export \"CVAT for images 1.1\""), "{notes:?}");
    fs::remove_dir_all(fixture.at("images")).unwrap();
    let error = Conversion::open(&fixture.at("annotations.xml"), &fixture.options()).unwrap();
    assert!(
        error.notes().iter().any(|note| note.contains("-start_number 0")),
        "{:?}",
        error.notes()
    );
}

#[test]
fn subsets_of_a_project_become_lists() {
    let fixture = Fixture::new();
    let mut text = String::from("<annotations>");
    for (name, subset) in [("a.png", "Train"), ("b.png", "Validation"), ("c.png", "../x")] {
        fixture.image(&format!("images/{name}"), 1, 1);
        text.push_str(&format!(
            r#"<image name="{name}" subset="{subset}" width="1" height="1"><box label="car" xtl="0" ytl="0"
            xbr="1" ybr="1"/></image>"#
        ));
    }
    fixture.text("annotations.xml", &format!("{text}</annotations>"));
    let options = ConvertOptions { background: Some("sky".into()), ..fixture.options() };
    fixture.counts("annotations.xml", &options);
    let list = |name: &str| fs::read_to_string(fixture.at(&format!("counted/{name}.txt"))).unwrap();
    assert_eq!(
        (list("train"), list("validation")),
        ("images/a.png\n".into(), "images/b.png\n".into())
    );
}

#[test]
fn other_formats_are_named_with_the_way_to_one_that_is_read() {
    let fixture = Fixture::new();
    fixture.text("sam.json", r#"{"image": {"image_id": 1}, "annotations": []}"#);
    fixture.text("labelbox.ndjson", "{}\n");
    fixture.text("boxes/a.xml", "<annotation><object/></annotation>");
    fixture.image("yolo/images/a.png", 1, 1);
    fixture.text("yolo/labels/a.txt", "0 0.5 0.5 0.1 0.1\n");
    fixture.text("export.tar.gz", "x");
    for (name, parts) in [
        ("sam.json", ["Segment Anything", "have no classes"]),
        ("labelbox.ndjson", ["Labelbox", "make COCO of it"]),
        ("boxes", ["boxes of Pascal VOC", "SegmentationClass"]),
        ("yolo", ["labels/a.txt is YOLO's text files", "as COCO"]),
        ("export.tar.gz", ["export.tar.gz is an archive other than ZIP", "unpack it"]),
    ] {
        let error = fixture.refusal(name, &fixture.options());
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
}
