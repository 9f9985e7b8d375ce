//! Small trees of every dataset, and malformed ones.

mod layouts;

use super::*;
use crate::testing::empty_files;

fn tree(files: &[&str]) -> tempfile::TempDir {
    empty_files(files).unwrap()
}

fn put(root: &tempfile::TempDir, file: &str, text: &str) -> PathBuf {
    let path = root.path().join(file);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, text).unwrap();
    path
}

/// Image and label, relative to the root.
fn names(root: &tempfile::TempDir, list: &SampleList) -> Vec<(String, String)> {
    let name = |path: &Path| path.strip_prefix(root.path()).unwrap().to_str().unwrap().to_owned();
    let label = |sample: &Sample| sample.label.as_deref().map(name).unwrap_or_default();
    list.samples.iter().map(|sample| (name(&sample.image), label(sample))).collect()
}

fn pair(image: &str, label: &str) -> (String, String) {
    (image.to_owned(), label.to_owned())
}

#[test]
fn lists_of_one_and_two_columns_are_read() {
    let root = tree(&["a/1.png", "a/2.png", "b/1.png", "b/2.png"]);
    put(&root, "val.txt", "\u{feff}a/1.png b/1.png\r\n\r\n  a/2.png\tb/2.png");
    let samples = Dataset::Camvid.split(root.path(), "val").unwrap();
    assert_eq!(names(&root, &samples), [pair("a/1.png", "b/1.png"), pair("a/2.png", "b/2.png")]);
    let list = put(&root, "unlabeled.txt", "a/2.png\na/1.png");
    let samples = Dataset::Camvid.unlabeled(root.path(), &list).unwrap();
    assert_eq!(names(&root, &samples), [pair("a/2.png", ""), pair("a/1.png", "")]);
}

#[test]
fn names_in_lists_may_hold_spaces() {
    let root =
        tree(&["images/my street 1.png", "labels/my street 1.png", "images/a.png", "my mask.png"]);
    put(
        &root,
        "val.txt",
        " images/my street 1.png \nimages/my street 1.png\t my mask.png\nimages/a.png\tmy mask.png",
    );
    let samples = Dataset::Folder.split(root.path(), "val").unwrap();
    let street = "images/my street 1.png";
    let expected = [
        pair(street, "labels/my street 1.png"),
        pair(street, "my mask.png"),
        pair("images/a.png", "my mask.png"),
    ];
    assert_eq!(names(&root, &samples), expected);
    let samples = Dataset::Folder.unlabeled(root.path(), &root.path().join("val.txt")).unwrap();
    assert_eq!(names(&root, &samples), [pair(street, ""), pair("images/a.png", "")]);
}

#[test]
fn labels_are_found_in_the_trees_of_each_dataset() {
    let root = tree(&[
        "leftImg8bit/val/ulm/ulm_0_leftImg8bit.png",
        "leftImg8bit/val/bonn/bonn_0_leftImg8bit.png",
        "leftImg8bit/val/bonn/notes.txt",
        "gtFine/val/ulm/ulm_0_gtFine_labelIds.png",
        "gtFine/val/bonn/bonn_0_gtFine_labelIds.png",
        "JPEGImages/2007_1.jpg",
        "JPEGImages/2007_2.jpg",
        "SegmentationClass/2007_1.png",
        "SegmentationClassAug/2007_1.png",
        "SegmentationClassAug/2007_2.png",
        "images/x.JPG",
        "images/y.png",
        "images/notes.txt",
        "labels/x.png",
        "labels/y.png",
    ]);
    let ulm = pair(
        "leftImg8bit/val/ulm/ulm_0_leftImg8bit.png",
        "gtFine/val/ulm/ulm_0_gtFine_labelIds.png",
    );
    let bonn = pair(
        "leftImg8bit/val/bonn/bonn_0_leftImg8bit.png",
        "gtFine/val/bonn/bonn_0_gtFine_labelIds.png",
    );
    let samples = Dataset::Cityscapes.split(root.path(), "val").unwrap();
    assert_eq!(names(&root, &samples), [bonn, ulm.clone()]);
    for line in [ulm.0.clone(), format!("{} gtFine/val/ulm/ulm_0_gtFine_labelTrainIds.png", ulm.0)]
    {
        let list = put(&root, "labeled.txt", &line);
        let samples = Dataset::Cityscapes.labeled(root.path(), &list).unwrap();
        assert_eq!(names(&root, &samples), std::slice::from_ref(&ulm));
    }
    put(&root, "ImageSets/Segmentation/val.txt", "2007_1\n2007_2");
    let voc = [
        pair("JPEGImages/2007_1.jpg", "SegmentationClass/2007_1.png"),
        pair("JPEGImages/2007_2.jpg", "SegmentationClassAug/2007_2.png"),
    ];
    assert_eq!(names(&root, &Dataset::Voc.split(root.path(), "val").unwrap()), voc);
    let list = put(&root, "two.txt", "JPEGImages/2007_1.jpg SegmentationClass/2007_1.png");
    assert_eq!(names(&root, &Dataset::Voc.labeled(root.path(), &list).unwrap()), voc[..1]);
    let folder = [pair("images/x.JPG", "labels/x.png"), pair("images/y.png", "labels/y.png")];
    assert_eq!(names(&root, &Dataset::Folder.split(root.path(), "all").unwrap()), folder);
    put(&root, "val.txt", "images/y.png\n");
    assert_eq!(names(&root, &Dataset::Folder.split(root.path(), "val").unwrap()), folder[1..]);
}

#[test]
fn missing_files_and_malformed_lines_are_reported() {
    let root = tree(&["a/1.png", "leftImg8bit/val/ulm/ulm_0_leftImg8bit.png", "images/x.png"]);
    let list = root.path().join("list.txt");
    let message = |dataset: Dataset, text: &str| {
        std::fs::write(&list, text).unwrap();
        dataset.labeled(root.path(), &list).unwrap_err().to_string()
    };
    for (dataset, text, parts) in [
        (Dataset::Camvid, "\na/1.png b/1.png", ["b/1.png is missing", "list.txt refers to it"]),
        (Dataset::Camvid, "a/2.png a/1.png", ["a/2.png is missing", "list.txt"]),
        (Dataset::Camvid, "\n\na/1.png", ["list.txt, line 3: `a/1.png`", "has no label column"]),
        (Dataset::Camvid, "a b c", ["line 1: `a b c`", "two columns"]),
        (Dataset::Voc, "2007_1", ["SegmentationClass/2007_1.png is missing", "list.txt"]),
        (Dataset::Camvid, " \n\n", ["list.txt names no image", ""]),
    ] {
        let message = message(dataset, text);
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
    for (dataset, split, part) in [
        (Dataset::Camvid, "val", "val.txt"),
        (Dataset::Cityscapes, "test", "leftImg8bit/test"),
        (Dataset::Cityscapes, "val", "gtFine/val/ulm/ulm_0_gtFine_labelIds.png is missing"),
        (Dataset::Folder, "all", "labels/x.png is missing"),
    ] {
        let message = dataset.split(root.path(), split).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    }
    let classes = put(&root, "classes.txt", "0 a\nb");
    let message = Dataset::Folder.classes(root.path()).unwrap_err().to_string();
    assert!(message.contains("classes.txt: line 2"), "{message}");
    std::fs::write(classes, "0 a\n9 b").unwrap();
    assert_eq!(Dataset::Folder.classes(root.path()).unwrap().count(), 2);
}

#[test]
fn ids_become_train_ids_and_unknown_ones_are_errors_in_strict_datasets() {
    let map = |dataset: Dataset, ids: Vec<u8>| {
        let samples = crate::mask::MaskSamples::Ids(ids);
        let orientation = image::metadata::Orientation::NoTransforms;
        let mask =
            crate::mask::Mask { height: 2, width: 2, samples, orientation, train_ids_of: None };
        let mapping = dataset.label_mapping(Path::new("nowhere")).unwrap();
        let mapped = mapping.map(mask, Path::new("x.png"));
        mapped.map(|mapped| mapped.labels).map_err(|error| error.to_string())
    };
    assert_eq!(
        map(Dataset::Camvid, vec![0, 10, 11, 255]),
        Ok(vec![0, 10, IGNORE_INDEX, IGNORE_INDEX])
    );
    assert_eq!(
        map(Dataset::Cityscapes, vec![7, 0, 33, 200]),
        Ok(vec![0, IGNORE_INDEX, 18, IGNORE_INDEX])
    );
    assert_eq!(map(Dataset::Voc, vec![0, 20, 255]), Ok(vec![0, 20, IGNORE_INDEX]));
    let message = map(Dataset::Camvid, vec![0, 1, 2, 12]).unwrap_err();
    assert!(
        message.starts_with("x.png: the id 12 (1 pixel, first at row 1, column 1) is neither"),
        "{message}"
    );
    assert!(message.contains("not the label files of CamVid"), "{message}");
    assert!(map(Dataset::Voc, vec![21]).is_err());
}

#[test]
fn labels_under_other_names_and_endings_are_found_or_named() {
    let root = tree(&["images/ab.png", "labels/ab.tif"]);
    put(&root, "classes.txt", "0 a\n1 b");
    let split = || Dataset::Folder.split(root.path(), "all");
    assert_eq!(names(&root, &split().unwrap()), [pair("images/ab.png", "labels/ab.tif")]);
    std::fs::remove_file(root.path().join("labels/ab.tif")).unwrap();
    for (file, parts) in [
        ("labels/task-1-tag-car-0.png", ["task-1-tag-car-0.png and 0 more", "protoseg convert"]),
        ("labels/ab_v2.png", ["labels/ab_v2.png is there", "name of its image"]),
        ("labels/ab.jpg", ["labels/ab.jpg is there, but JPEG cannot hold ids", "--threshold"]),
    ] {
        put(&root, file, "");
        let message = split().unwrap_err().to_string();
        assert!(message.contains("labels/ab.png is missing"), "{message}");
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
}

#[test]
fn classes_come_from_cvats_legend_in_its_trees() {
    let root = tree(&["JPEGImages/a.jpg", "SegmentationClass/a.png"]);
    let legend = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nopen water:128,0,9::\n";
    put(&root, "labelmap.txt", legend);
    let classes = Dataset::Voc.classes(root.path()).unwrap();
    assert_eq!(classes.text(), "0 background 0 0 0\n1 open water 128 0 9\n");
    let message = Dataset::Folder.classes(root.path()).unwrap_err().to_string();
    assert!(message.contains("classes.txt is missing") && message.contains("`voc`"), "{message}");
    put(&root, "labelmap.txt", "background:0,0::\n");
    let message = Dataset::Voc.classes(root.path()).unwrap_err().to_string();
    assert!(message.contains("labelmap.txt, line 1"), "{message}");
}

#[test]
fn a_label_is_not_taken_for_two_images_of_one_name() {
    let root = tree(&["images/a.jpg", "images/a.png", "images/sub/a.png", "labels/a.png"]);
    put(&root, "labels/sub/a.png", "");
    put(&root, "classes.txt", "0 a\n1 b");
    put(&root, "list.txt", "images/a.jpg\nimages/a.png\n");
    let list = root.path().join("list.txt");
    for samples in
        [Dataset::Folder.split(root.path(), "all"), Dataset::Folder.labeled(root.path(), &list)]
    {
        let message = samples.unwrap_err().to_string();
        assert!(message.contains("images/a.jpg and of") && message.contains("rename"), "{message}");
    }
    put(&root, "list.txt", "images/a.jpg\nimages/sub/a.png\n");
    assert_eq!(Dataset::Folder.labeled(root.path(), &list).unwrap().samples.len(), 2);
}

#[test]
fn a_sample_counts_once_however_often_it_is_named() {
    let root = tree(&["images/a.png", "images/b.png", "labels/a.png", "labels/b.png", "other.png"]);
    put(&root, "classes.txt", "0 a\n1 b");
    let at = |name: &str| root.path().join(name);
    std::os::unix::fs::symlink(at("images/a.png"), at("images/link.png")).unwrap();
    std::os::unix::fs::symlink(at("labels/a.png"), at("labels/link.png")).unwrap();
    let absolute = at("images/a.png").display().to_string();
    let text = format!(
        "images/a.png\nimages/b.png\n./images/a.png\n{absolute}\na\nimages/link.png\n\
         images/b.png other.png\nimages\\b.png\n"
    );
    let list = put(&root, "list.txt", &text);
    let labeled = Dataset::Folder.labeled(root.path(), &list).unwrap();
    let [a, b] =
        ["a", "b"].map(|stem| pair(&format!("images/{stem}.png"), &format!("labels/{stem}.png")));
    let expected = [a.clone(), b.clone(), pair("images/b.png", "other.png")];
    assert_eq!((names(&root, &labeled), labeled.lines), (expected.to_vec(), 8));
    let remarks = labeled.remarks(Path::new("list.txt"));
    let [repeated, relabeled] = &remarks[..] else { panic!("{remarks:?}") };
    for part in
        ["list.txt: 5 of 8 samples are named again", "./images/a.png, which is", "counts once"]
    {
        assert!(repeated.contains(part), "{repeated}");
    }
    assert!(relabeled.contains("1 image has several labels"), "{relabeled}");
    assert!(
        relabeled.contains("labels/b.png and ") && relabeled.contains("other.png"),
        "{relabeled}"
    );
    let unlabeled = Dataset::Folder.unlabeled(root.path(), &list).unwrap();
    assert_eq!(unlabeled.samples.len(), 2);
    assert!(unlabeled.remarks(&list)[0].contains("6 of 8 samples"));
    // A folder that holds links beside their files.
    assert_eq!(names(&root, &Dataset::Folder.split(root.path(), ALL).unwrap()), [a, b]);
    let once = put(&root, "once.txt", "images/a.png\nimages/b.png");
    let once = Dataset::Folder.labeled(root.path(), &once).unwrap();
    assert!(once.remarks(&list).is_empty());
}

#[test]
fn two_labels_of_one_image_are_both_named() {
    for second in ["labels/a.tif", "labels/a.PNG", "labels/a.webp"] {
        let root = tree(&["images/a.jpg", "labels/a.png", "labels/a.jpg", "other.png", second]);
        put(&root, "classes.txt", "0 a\n1 b");
        let list = put(&root, "list.txt", "images/a.jpg");
        for samples in
            [Dataset::Folder.split(root.path(), ALL), Dataset::Folder.labeled(root.path(), &list)]
        {
            let message = samples.unwrap_err().to_string();
            let named = message.contains("labels/a.png") && message.contains(second);
            assert!(named && message.contains("second column"), "{message}");
        }
        std::fs::write(&list, "images/a.jpg labels/a.png").unwrap();
        assert_eq!(Dataset::Folder.labeled(root.path(), &list).unwrap().samples.len(), 1);
    }
}

#[test]
fn tables_are_lists_and_exchanged_columns_are_noticed() {
    let root = tree(&["images/a.png", "images/b, c.png", "labels/a.png", "labels/b, c.png"]);
    put(&root, "classes.txt", "0 a\n1 b");
    let read = |text: &str| {
        let list = put(&root, "list.csv", text);
        Dataset::Folder.labeled(root.path(), &list).map(|list| names(&root, &list))
    };
    let expected =
        [pair("images/a.png", "labels/a.png"), pair("images/b, c.png", "labels/b, c.png")];
    for text in [
        "images/a.png,labels/a.png\n\"images/b, c.png\",\"labels/b, c.png\"",
        "images/a.png; labels/a.png\nimages/b, c.png;labels/b, c.png;",
        "image,label\nimages/a.png,labels/a.png\n\"b, c\",\"labels/b, c.png\"\n",
        "label\timage\nlabels/a.png\timages/a.png\n\timages/b, c.png\n",
        "id,image_path\n7,a.png\n8,\"b, c.png\"\n",
        "images/a.png,\nimages/b, c.png",
        "\"images/a.png\" \"labels/a.png\"\n\"images/b, c.png\"\t\"labels/b, c.png\"",
    ] {
        assert_eq!(read(text).unwrap(), expected, "{text}");
    }
    for (text, parts) in [
        (
            "labels/a.png images/a.png",
            ["line 1: `labels/a.png images/a.png`", "the image comes first"],
        ),
        ("labels/a.png,images/a.png", ["names labels/a.png as the image", "`label,image`"]),
        ("images/a.png,train,labels/a.png", ["more than two columns", "`image,split,label`"]),
        ("images/x.png,labels/a.png", ["images/x.png is missing", "list.csv"]),
        ("a -1", ["the number -1 where its label map should be", "ImageSets/Segmentation"]),
    ] {
        let message = read(text).unwrap_err().to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
}

#[test]
fn links_to_folders_do_not_rename_images() {
    let root = tree(&["images/real/a.png", "labels/real/a.png"]);
    put(&root, "classes.txt", "0 a\n1 b");
    let at = |name: &str| root.path().join(name);
    std::os::unix::fs::symlink(at("images/real"), at("images/a link")).unwrap();
    let all = Dataset::Folder.split(root.path(), ALL).unwrap();
    assert_eq!(names(&root, &all), [pair("images/real/a.png", "labels/real/a.png")]);
}

#[test]
fn a_folder_stands_for_the_list_of_its_images() {
    let root = tree(&[
        "images/train/a.png",
        "images/val/deep/b.jpg",
        "images/val/b.heic",
        "labels/train/a.png",
        "labels/val/deep/b.png",
    ]);
    put(&root, "classes.txt", "0 a\n1 b");
    let at = |name: &str| root.path().join(name);
    let validation = Dataset::Folder.labeled(root.path(), &at("images/val")).unwrap();
    let expected = [pair("images/val/deep/b.jpg", "labels/val/deep/b.png")];
    assert_eq!(names(&root, &validation), expected);
    let remarks = validation.remarks(Path::new("images/val"));
    assert_eq!(remarks, ["images/val: 1 file of endings that are not read: heic 1"]);
    let all = Dataset::Folder.unlabeled(root.path(), &at("images")).unwrap();
    assert_eq!(
        names(&root, &all),
        [pair("images/train/a.png", ""), pair("images/val/deep/b.jpg", "")]
    );
    let message =
        |folder: &str| Dataset::Folder.labeled(root.path(), &at(folder)).unwrap_err().to_string();
    std::fs::create_dir(at("none")).unwrap();
    assert!(message("none").contains("none names no image"));
    std::fs::remove_dir_all(at("labels/val")).unwrap();
    let message = message("images/val");
    assert!(message.contains("labels/val/deep is not there"), "{message}");
}

#[test]
fn classes_may_be_utf_16() {
    let root = tree(&[]);
    let text = "\u{feff}0 stra\u{df}e\r\n1 h\u{f6}he\r\n";
    let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    std::fs::write(root.path().join("classes.txt"), bytes).unwrap();
    let classes = Dataset::Folder.classes(root.path()).unwrap();
    assert_eq!(classes.classes()[0].name, "stra\u{df}e");
    std::fs::write(root.path().join("classes.txt"), b"0 stra\xDFe\n1 b").unwrap();
    let message = Dataset::Folder.classes(root.path()).unwrap_err().to_string();
    assert!(message.contains("classes.txt: neither UTF-8 nor UTF-16"), "{message}");
}
