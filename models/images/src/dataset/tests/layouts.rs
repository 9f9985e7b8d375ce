//! Folders and lists as people have them: other names, other places, other machines.

use super::*;

fn folder(files: &[&str]) -> tempfile::TempDir {
    let root = tree(files);
    put(&root, "classes.txt", "0 a\n1 b");
    root
}

fn all(root: &tempfile::TempDir) -> Result<SampleList, String> {
    Dataset::Folder.split(root.path(), ALL).map_err(|error| error.to_string())
}

fn labeled(root: &tempfile::TempDir, lines: &str) -> Result<SampleList, String> {
    let list = put(root, "list.txt", lines);
    Dataset::Folder.labeled(root.path(), &list).map_err(|error| error.to_string())
}

#[track_caller]
fn assert_remark(list: &SampleList, parts: &[&str]) {
    let remarks = list.remarks(Path::new("train")).join("\n");
    for part in parts {
        assert!(remarks.contains(part), "`{part}` is missing: {remarks}");
    }
}

#[track_caller]
fn assert_refused<T: std::fmt::Debug>(result: Result<T, String>, parts: &[&str]) {
    let message = result.unwrap_err();
    for part in parts {
        assert!(message.contains(part), "`{part}` is missing: {message}");
    }
}

#[test]
fn nested_images_have_flat_labels_where_names_are_unique() {
    let root = folder(&["images/a/x.jpg", "images/b/y.jpg", "labels/x.png", "labels/y.png"]);
    let expected = [pair("images/a/x.jpg", "labels/x.png"), pair("images/b/y.jpg", "labels/y.png")];
    let list = all(&root).unwrap();
    assert_eq!(names(&root, &list), expected);
    assert_remark(
        &list,
        &["2 images have their label maps in another folder, such as images/a/x.jpg"],
    );
    let listed = labeled(&root, "images/b/y.jpg").unwrap();
    assert_eq!(names(&root, &listed), expected[1..]);
    put(&root, "images/b/x.jpg", "");
    let reasons =
        ["labels/a/x.png is missing", "labels/x.png is there, but 2 images have this name"];
    assert_refused(all(&root), &reasons);
    // The other way round, and folders of other names.
    let root = folder(&["images/x.jpg", "labels/a/x.png"]);
    assert_eq!(names(&root, &all(&root).unwrap()), [pair("images/x.jpg", "labels/a/x.png")]);
    let root = folder(&["images/a/x.jpg", "labels/b/x.png"]);
    assert_refused(all(&root), &["labels/b/x.png is there, in a folder of another name"]);
}

#[test]
fn folders_of_usual_names_are_read_and_said() {
    let root = folder(&["Images/x.jpg", "Masks/x.png"]);
    let list = all(&root).unwrap();
    assert_eq!(names(&root, &list), [pair("Images/x.jpg", "Masks/x.png")]);
    assert_remark(&list, &["the folder Images as `images` and the folder Masks as `labels`"]);
    assert_eq!(names(&root, &labeled(&root, "x").unwrap()), names(&root, &list));
    // Of several, the one with masks.
    put(&root, "annotations/x.json", "");
    assert_eq!(names(&root, &all(&root).unwrap()), names(&root, &list));
    put(&root, "gt/x.png", "");
    assert_refused(all(&root), &["Masks and ", "gt could each be the folder `labels`"]);
    let root = folder(&["train/images/x.jpg", "train/masks/x.png", "notes.txt"]);
    let reasons =
        ["holds the folder train and the lists classes.txt, notes.txt", "train/images is a split"];
    assert_refused(all(&root), &reasons);
    let root = folder(&["data/x.jpg"]);
    assert_refused(all(&root), &["images is missing", "the folder data", "`labels`"]);
}

#[test]
fn splits_are_lists_or_folders_of_their_name() {
    let trees: [(&[&str], &str, &str); 5] = [
        (&["images/train/x.jpg", "labels/train/x.png"], "train", "images/train/x.jpg"),
        (&["train/images/x.jpg", "train/labels/x.png"], "train", "train/images/x.jpg"),
        (&["Train/Images/x.jpg", "Train/Masks/x.png"], "train.txt", "Train/Images/x.jpg"),
        (&["valid/images/x.jpg", "valid/labels/x.png"], "val", "valid/images/x.jpg"),
        (&["images/Validation/x.jpg", "labels/Validation/x.png"], "val", "images/Validation/x.jpg"),
    ];
    for (files, split, image) in trees {
        let root = folder(files);
        let named = root.path().join(split);
        let list = Dataset::Folder.labeled(root.path(), &named).unwrap();
        assert_eq!(names(&root, &list), [pair(image, files[1])]);
        let is_there = named.exists();
        assert!(is_there || list.remarks(&named)[0].contains("is not there, and "), "{files:?}");
        let split = split.trim_end_matches(".txt");
        let by_name = Dataset::Folder.split(root.path(), split).unwrap();
        assert_eq!(names(&root, &by_name), names(&root, &list));
        let unlabeled = Dataset::Folder.unlabeled(root.path(), &named).unwrap();
        assert_eq!(names(&root, &unlabeled), [pair(image, "")]);
    }
    let root = folder(&["images/x.jpg", "labels/x.png", "all-images.txt"]);
    let missing = Dataset::Folder.labeled(root.path(), &root.path().join("train"));
    let reasons = ["train is missing", "the folders images, labels and the lists all-images.txt"];
    assert_refused(missing.map_err(|error| error.to_string()), &reasons);
    let root = folder(&["set/images/x.jpg"]);
    let classes = Dataset::Folder.classes(&root.path().join("set"));
    let reasons = ["has one: give that folder, and `set`"];
    assert_refused(classes.map_err(|error| error.to_string()), &reasons);
}

#[test]
fn lists_of_other_machines_and_in_other_case_are_read_and_counted() {
    let root =
        folder(&["images/img_1.jpg", "images/x y.jpg", "labels/img_1.png", "labels/x y.png"]);
    let first = pair("images/img_1.jpg", "labels/img_1.png");
    let second = pair("images/x y.jpg", "labels/x y.png");
    for line in [
        "IMG_1.JPG",
        "IMAGES/img_1.jpg labels/IMG_1.PNG",
        "/home/bob/set/images/img_1.jpg",
        "/home/bob/set/images/img_1.jpg /home/bob/set/labels/img_1.png",
        "C:\\set\\images\\img_1.jpg",
        "C:\\My Sets\\images\\img_1.jpg",
        "C:\\set\\images\\img_1.jpg,C:\\set\\labels\\img_1.png",
        "{\"image\": \"/mnt/images/img_1.jpg\", \"label\": \"/mnt/masks/img_1.png\"}",
    ] {
        let list = labeled(&root, line).unwrap();
        assert_eq!(names(&root, &list), std::slice::from_ref(&first), "{line}");
        assert_remark(&list, &[", which is read as "]);
    }
    let list = labeled(&root, "/a/My Set/images/x y.jpg\n/a/My Set/images/img_1.jpg").unwrap();
    assert_eq!(names(&root, &list), [second, first]);
    assert_remark(&list, &["2 paths are those of another place"]);
    let missing = labeled(&root, "/home/bob/images/b/img_1.jpg");
    assert_refused(missing, &["is missing", "images/img_1.jpg has this name, in another folder"]);
    // Labels in other case than their images.
    let root = folder(&["images/IMG_1.JPG", "labels/img_1.png"]);
    let list = all(&root).unwrap();
    assert_eq!(names(&root, &list), [pair("images/IMG_1.JPG", "labels/img_1.png")]);
    assert_remark(&list, &["1 label map has other upper and lower case than the image"]);
}

#[test]
fn lists_of_labels_alone_mean_their_images() {
    let root = folder(&["images/x.jpg", "images/deep/y.png", "labels/x.png", "labels/deep/y.png"]);
    let both =
        [pair("images/x.jpg", "labels/x.png"), pair("images/deep/y.png", "labels/deep/y.png")];
    for lines in [
        "labels/x.png\nlabels/deep/y.png",
        "mask\nlabels/x.png\nlabels/deep/y.png",
        "/b/labels/x.png\n/b/labels/deep/y.png",
    ] {
        let list = labeled(&root, lines).unwrap();
        assert_eq!(names(&root, &list), both, "{lines}");
        assert_remark(&list, &["2 lines name label maps and no image, such as labels/x.png"]);
    }
    assert_eq!(names(&root, &labeled(&root, "x.png").unwrap()), both[..1]);
    put(&root, "labels/z.png", "");
    let reasons = ["list.txt, line 2: `labels/z.png` is a label map", "no image images/z with"];
    assert_refused(labeled(&root, "labels/x.png\nlabels/z.png"), &reasons);
    let root = tree(&["JPEGImages/2007_1.jpg", "SegmentationClass/2007_1.png"]);
    let voc = [pair("JPEGImages/2007_1.jpg", "SegmentationClass/2007_1.png")];
    for line in ["SegmentationClass/2007_1.png", "2007_1.png"] {
        let list = put(&root, "list.txt", line);
        assert_eq!(names(&root, &Dataset::Voc.labeled(root.path(), &list).unwrap()), voc, "{line}");
    }
}

#[test]
fn label_maps_without_an_image_are_counted() {
    let root = folder(&["images/x.jpg", "labels/x.png", "labels/y.png", "labels/deep/z.png"]);
    let list = all(&root).unwrap();
    assert_eq!(names(&root, &list), [pair("images/x.jpg", "labels/x.png")]);
    let parts = ["2 of 3 label maps have no image", "labels/deep/z.png", "as images/deep/z with"];
    assert_remark(&list, &parts);
    let list = labeled(&root, "images/x.jpg").unwrap();
    assert!(list.remarks(Path::new("x")).is_empty());
    let root = folder(&["images/x.heic", "labels/x.png"]);
    assert_refused(all(&root), &["images names no image; 1 file of endings", "heic 1"]);
}

#[test]
fn halves_of_a_partly_labeled_folder_are_splits() {
    let root = folder(&["images/a.jpg", "images/b.jpg", "images/c.jpg", "labels/a.png"]);
    let reasons = [
        "2 of 3 images in ",
        "labels/b.png is missing",
        "`--split labeled`",
        "`labeled = \"labeled\"`",
        "`unlabeled = \"unlabeled\"`",
        "`images/a.jpg`",
        "`--list FILE`",
    ];
    assert_refused(all(&root), &reasons);
    let split = Dataset::Folder.split(root.path(), "labeled").unwrap();
    assert_eq!(names(&root, &split), [pair("images/a.jpg", "labels/a.png")]);
    assert_remark(&split, &["1 of 3 images in ", "those with a label map"]);
    let unlabeled = Dataset::Folder.unlabeled(root.path(), &root.path().join("unlabeled")).unwrap();
    assert_eq!(unlabeled.samples.len(), 2);
    // A list of that name comes first.
    put(&root, "labeled.txt", "images/a.jpg\n");
    let split = Dataset::Folder.split(root.path(), "labeled").unwrap();
    assert!(split.notes.is_empty(), "{:?}", split.notes);
    let root = folder(&["images/a.jpg", "labels/a_mask.png"]);
    assert_remark(&all(&root).unwrap(), &["the masks are named NAME_mask"]);
    let unlabeled = Dataset::Folder.unlabeled(root.path(), &root.path().join("unlabeled"));
    assert_refused(unlabeled.map_err(|error| error.to_string()), &["each of the 1 images"]);
}
