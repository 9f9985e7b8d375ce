//! Annotation files are a function of the label maps. `tests/external/test_annotation_formats.py`
//! reads them back.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

#[path = "support/annotations.rs"]
mod annotations;

use annotations::write;

#[test]
fn the_same_maps_give_the_same_bytes() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let bytes = folders.each_ref().map(|folder| {
        write(folder.path()).unwrap();
        ["coco.json", "cvat.zip", "labelstudio.json"]
            .map(|name| std::fs::read(folder.path().join(name)).unwrap())
    });
    assert_eq!(bytes[0], bytes[1]);
}
