//! Data set options of `eval` and `check`.

use std::path::{Path, PathBuf};

use anyhow::{bail, ensure};
use clap::ValueEnum;
use protoseg_images::dataset::Dataset;
use protoseg_images::labeled::LabeledDataset;
use protoseg_images::scan::{ScanReport, Scanner, UnreadableFolder};
pub(crate) use protoseg_infer::evaluate::ensure_same_classes;

use super::{inputs, print_stderr};

/// Labeled images.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct DataArgs {
    /// Kind of data set
    #[arg(long, value_enum, help_heading = "Data")]
    pub(crate) data: Option<DatasetKind>,
    /// Folder of the data set; not for synthetic scenes
    #[arg(long, requires = "data", value_name = "DIR", help_heading = "Data")]
    pub(crate) root: Option<PathBuf>,
    /// Split: the name of a list or folder, or `all` [default: val; for `folder`: all]
    #[arg(
        long,
        requires = "data",
        value_name = "NAME",
        conflicts_with = "list",
        help_heading = "Data"
    )]
    pub(crate) split: Option<String>,
    /// List of images, a path a line relative to --root, with the label's path if needed, or a folder
    /// of images; itself relative to the current folder, or else to --root
    #[arg(long, requires = "data", value_name = "FILE", help_heading = "Data")]
    pub(crate) list: Option<PathBuf>,
    /// Score only the first N images [default for synthetic: 100]
    #[arg(long, requires = "data", value_name = "N", value_parser = super::image_count(), help_heading = "Data")]
    pub(crate) limit: Option<usize>,
    /// Seed of the synthetic scenes
    #[arg(long, requires = "data", value_name = "N", help_heading = "Data")]
    pub(crate) seed: Option<u64>,
    /// Height and width of the synthetic scenes [default: 512x1024]
    #[arg(long, requires = "data", value_name = "HxW", value_parser = super::parse_size, help_heading = "Data")]
    pub(crate) size: Option<[usize; 2]>,
    /// Take hidden entries and by-products of other programs in folders of images too
    #[arg(long, requires = "data", help_heading = "Data")]
    pub(crate) hidden: bool,
    /// Prefix of the flags' names in messages: `check-` for `protoseg export`.
    #[arg(skip)]
    pub(crate) prefix: &'static str,
}

/// Kind of data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DatasetKind {
    /// train.txt and val.txt with pairs of paths
    Camvid,
    /// The official tree: leftImg8bit and gtFine
    Cityscapes,
    /// The official tree: JPEGImages and SegmentationClass
    Voc,
    /// images, labels and classes.txt
    Folder,
    /// Synthetic street scenes in the classes of Cityscapes
    Synthetic,
}

impl DataArgs {
    /// Returns true if any option selects images of the data set.
    pub(crate) fn is_narrowed(&self) -> bool {
        let Self { data: _, root, split, list, limit, seed, size, hidden, prefix: _ } = self;
        root.is_some()
            || *hidden
            || split.is_some()
            || list.is_some()
            || limit.is_some()
            || seed.is_some()
            || size.is_some()
    }

    /// Opens the data set, and prints what was passed over in its folders.
    pub(crate) fn open(&self) -> anyhow::Result<LabeledDataset> {
        Ok(self.open_scanned()?.0)
    }

    /// Like [`open`](Self::open), with the account of the folders.
    pub(crate) fn open_scanned(&self) -> anyhow::Result<(LabeledDataset, ScanReport)> {
        let Self { data, root, split, list, limit, seed, size, hidden, prefix } = self;
        let Some(data) = data else { bail!("name the kind of the data set with --{prefix}data") };
        let dataset = match data {
            DatasetKind::Camvid => Dataset::Camvid,
            DatasetKind::Cityscapes => Dataset::Cityscapes,
            DatasetKind::Voc => Dataset::Voc,
            DatasetKind::Folder => Dataset::Folder,
            DatasetKind::Synthetic => {
                ensure!(
                    root.is_none() && split.is_none() && list.is_none(),
                    "--{prefix}root, --{prefix}split and --{prefix}list are not for synthetic scenes"
                );
                let (count, size) = (limit.unwrap_or(100), size.unwrap_or([512, 1024]));
                let seed = seed.unwrap_or(0);
                let set = LabeledDataset::Synthetic { seed, first: 0, count, size };
                return Ok((set, ScanReport::default()));
            }
        };
        ensure!(
            seed.is_none() && size.is_none(),
            "--seed and --size are for --{prefix}data synthetic"
        );
        let Some(root) = root else { bail!("name the data set's folder with --{prefix}root") };
        let default_split = if dataset == Dataset::Folder { "all" } else { "val" };
        let mut scanner = Scanner::new(*hidden);
        let mut set = match list {
            Some(list) => {
                let list = find_list(list, root);
                LabeledDataset::from_files(dataset, root, Some(&list), "")?
            }
            None => {
                let split = split.as_deref().unwrap_or(default_split);
                LabeledDataset::from_split(dataset, root, split, &mut scanner)?
            }
        };
        let scan = scanner.into_report();
        inputs::print_passed_over(&scan);
        for remark in set.remarks() {
            print_stderr(format_args!("warning: {remark}"));
        }
        for UnreadableFolder { path, error } in &scan.unreadable {
            print_stderr(format_args!("error: {}: {error}", path.display()));
        }
        if let Some(limit) = limit {
            set.truncate(*limit);
        }
        Ok((set, scan))
    }

    /// Name of the images in reports, such as `cityscapes val`.
    pub(crate) fn describe(&self) -> String {
        let data = self.data.and_then(|data| data.to_possible_value());
        let data = data.map_or_else(String::new, |value| value.get_name().to_owned());
        match (&self.list, &self.split) {
            (Some(list), _) => format!("{data} {}", list.display()),
            (None, Some(split)) => format!("{data} {split}"),
            (None, None) => match self.data {
                Some(DatasetKind::Synthetic) => format!("{data} seed {}", self.seed.unwrap_or(0)),
                Some(DatasetKind::Folder) => format!("{data} all"),
                _ => format!("{data} val"),
            },
        }
    }
}

/// A list from the current folder or else from the data set's, where the configuration of a
/// training has it. Says which one is read where both are there.
fn find_list(list: &Path, root: &Path) -> PathBuf {
    let below = root.join(list);
    let is_other = || list.canonicalize().ok() != below.canonicalize().ok();
    match (list.exists(), below.exists()) {
        (false, true) => below,
        (true, true) if is_other() => {
            print_stderr(format_args!(
                "warning: {} is read, not {}; name the other one to read it",
                list.display(),
                below.display()
            ));
            list.to_owned()
        }
        _ => list.to_owned(),
    }
}
