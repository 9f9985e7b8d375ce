//! Real datasets are read as documented.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

#[path = "../../../tests/support/mod.rs"]
mod support;

use protoseg_images::dataset::Dataset;
use protoseg_images::image_file::MAX_PIXELS;
use protoseg_images::labeled::LabeledDataset;
use support::real_data;

/// Share of each train id and of ignored pixels, in percent.
fn shares(set: &LabeledDataset) -> (Vec<f64>, f64) {
    let mut counts = vec![0_u64; 256];
    for index in 0..set.count() {
        let sample = set.read(index, MAX_PIXELS).unwrap();
        assert_eq!(sample.truth.len(), sample.size()[0] * sample.size()[1]);
        for label in sample.truth {
            counts[usize::from(label)] += 1;
        }
    }
    let all: u64 = counts.iter().sum();
    let share = |count: &u64| 100.0 * *count as f64 / all as f64;
    let classes = set.classes().count();
    assert!(counts[classes..255].iter().all(|&count| count == 0));
    (counts[..classes].iter().map(share).collect(), share(&counts[255]))
}

#[test]
fn camvid_has_the_documented_shares_and_lists() {
    let Some(root) = real_data("camvid_has_the_documented_shares_and_lists", "camvid") else {
        return;
    };
    let set = |list: &str| {
        LabeledDataset::from_files(Dataset::Camvid, &root, Some(&root.join(list)), "").unwrap()
    };
    let (found, void) = shares(&set("train.txt"));
    let documented = [16.9, 23.3, 1.0, 31.7, 4.5, 9.7, 1.2, 1.1, 5.9, 0.6, 0.3];
    for (found, documented) in found.iter().zip(documented) {
        assert!((found - documented).abs() < 0.06, "{found} {documented}");
    }
    assert!((void - 4.0).abs() < 0.06, "{void}");
    assert_eq!(set("val.txt").count(), 101);
    for count in [23, 46, 92] {
        assert_eq!(set(&format!("splits/{count}/labeled.txt")).count(), count);
        let unlabeled = root.join(format!("splits/{count}/unlabeled.txt"));
        assert_eq!(
            Dataset::Camvid.unlabeled(&root, &unlabeled).unwrap().samples.len(),
            367 - count
        );
    }
}

#[test]
fn cityscapes_label_ids_become_train_ids() {
    let Some(root) = real_data("cityscapes_label_ids_become_train_ids", "cityscapes-mini") else {
        return;
    };
    let set = LabeledDataset::from_files(Dataset::Cityscapes, &root, None, "train").unwrap();
    assert_eq!((set.count(), set.read(0, MAX_PIXELS).unwrap().size()), (8, [1024, 2048]));
    let (shares, ignored) = shares(&set);
    // Street scenes are mostly road, buildings and trees; the ego vehicle and the frame's border
    // are void.
    assert!(shares[0] > 20.0 && shares[2] > 10.0 && shares[8] > 3.0, "{shares:?}");
    assert!((3.0..25.0).contains(&ignored), "{ignored}");
}

#[test]
fn partition_lists_of_both_forms_are_understood() {
    let check = "partition_lists_of_both_forms_are_understood";
    let Some(lists) = real_data(check, "partitions/cityscapes") else { return };
    // The images are absent, so the first one is missing: with the path of the official tree.
    let root = tempfile::tempdir().unwrap();
    for list in ["pcr/186/labeled.txt", "unimatch/1_16/labeled.txt"] {
        let message =
            Dataset::Cityscapes.labeled(root.path(), &lists.join(list)).unwrap_err().to_string();
        assert!(
            message.contains("gtFine/train/")
                && message.contains("_gtFine_labelIds.png is missing"),
            "{message}"
        );
    }
}
