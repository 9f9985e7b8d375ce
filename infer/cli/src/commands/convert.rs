//! `protoseg convert`: annotations of other programs as a data set, and back.

use std::path::PathBuf;

use anyhow::ensure;
use clap::ValueEnum;
use protoseg_images::convert::{Conversion, ConversionCounts, ConvertOptions, SourceFormat};
use protoseg_images::formats::AnnotationFormat;
use protoseg_images::image_file::MAX_PIXELS;
use protoseg_models::classes::Class;

use super::{CommandError, CommandOutcome, OrUsage, print, print_stderr, print_warnings, progress};

/// Convert annotations of other programs to a data set, and back
///
/// Reads CVAT (masks, XML of images and videos), COCO (instances, stuff, panoptic), Label Studio,
/// LabelMe, Supervisely, Pascal VOC, Roboflow's masks, a mask for each class of an image, and folders of
/// images and labels; a file, a folder or a ZIP archive. Writes OUT/images, OUT/labels, OUT/classes.txt and OUT/all.txt: a data set of the kind
/// `folder` for `protoseg train` and `protoseg eval`; or the file of another program.
///
/// Where shapes overlap, the later one counts. Pixels that no shape covers are the class `background`
/// if there is one that no shape has, or else count for nothing. Images that cannot be converted are
/// named and left out, and the exit status is 3.
#[derive(Debug, clap::Args)]
pub(crate) struct ConvertArgs {
    /// Annotations: a file, a folder or a ZIP archive
    input: PathBuf,
    /// New folder to write, or for --to another than folder the file
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
    /// Format of the annotations [default: found out]
    #[arg(long, value_enum)]
    from: Option<FromFormat>,
    /// Format to write
    #[arg(long, value_enum, default_value_t = ToFormat::Folder)]
    to: ToFormat,
    /// Folder of the images [default: that of the annotations]
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// Class file with the classes to have [default: classes.txt beside the annotations, or the
    /// classes of the annotations]
    #[arg(long, value_name = "FILE")]
    classes: Option<PathBuf>,
    /// Class of pixels that no shape covers
    #[arg(long, value_name = "NAME")]
    background: Option<String>,
    /// Class whose pixels count for nothing (repeatable)
    #[arg(long, value_name = "NAME")]
    ignore: Vec<String>,
    /// Least brightness of the second class in masks of two classes, 1 to 255
    ///
    /// For masks whose samples are no ids: 0 and 255, smoothed, or saved as JPEG.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    threshold: Option<u8>,
    /// File with new ids for those of the masks, such as `26000-26999 26` on a line
    ///
    /// For ids that do not fit into classes.txt. A line is `OLD NEW`: OLD is an id, a range, a list such
    /// as 0,3 or * for all others; NEW is an id from 0 to 255, `ignore`, `/1000` for the old id divided
    /// by 1000, or `=` for the old id.
    #[arg(long, value_name = "FILE", conflicts_with = "threshold")]
    map: Option<PathBuf>,
    /// Take images without annotations over, into OUT/unlabeled and OUT/unlabeled.txt
    ///
    /// For semi-supervised training with `unlabeled = "unlabeled.txt"`. Without this they are counted
    /// and left out.
    #[arg(long)]
    unlabeled: bool,
    /// Largest number of pixels of an image
    #[arg(long, value_name = "N", default_value_t = MAX_PIXELS)]
    max_pixels: u64,
}

/// Format of annotations that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FromFormat {
    /// CVAT, "Segmentation mask 1.1", as `label --format cvat` writes
    Cvat,
    /// CVAT, "CVAT for images 1.1" and "CVAT for video 1.1": annotations.xml
    CvatXml,
    /// COCO: instances, stuff or panoptic
    Coco,
    /// Label Studio: JSON of tasks
    LabelStudio,
    /// LabelMe: a JSON file for each image
    Labelme,
    /// Supervisely: a project with meta.json, and ann beside img
    Supervisely,
    /// Pascal VOC: JPEGImages and SegmentationClass
    Voc,
    /// A mask for each class of an image, such as a.car.png or car/a.png
    Masks,
    /// Roboflow's "Semantic Segmentation Masks": _classes.csv, and a_mask.png beside a.jpg
    Roboflow,
    /// images, labels and classes.txt
    Folder,
}

/// Format that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ToFormat {
    /// images, labels and classes.txt, for training
    Folder,
    /// COCO's JSON of stuff
    Coco,
    /// A ZIP archive for CVAT, "Segmentation mask 1.1"
    Cvat,
    /// Label Studio's JSON of tasks
    LabelStudio,
}

impl From<FromFormat> for SourceFormat {
    fn from(format: FromFormat) -> Self {
        match format {
            FromFormat::Cvat => Self::Cvat,
            FromFormat::CvatXml => Self::CvatXml,
            FromFormat::Coco => Self::Coco,
            FromFormat::LabelStudio => Self::LabelStudio,
            FromFormat::Labelme => Self::LabelMe,
            FromFormat::Supervisely => Self::Supervisely,
            FromFormat::Voc => Self::Voc,
            FromFormat::Masks => Self::Masks,
            FromFormat::Roboflow => Self::Roboflow,
            FromFormat::Folder => Self::Folder,
        }
    }
}

pub(crate) fn run(arguments: &ConvertArgs) -> Result<CommandOutcome, CommandError> {
    let ConvertArgs { input, out, to, .. } = arguments;
    check_input(arguments).or_usage()?;
    let conversion = Conversion::open(input, &arguments.options()).or_usage()?;
    print_warnings(conversion.notes().iter().cloned());
    let bar = progress::bar(conversion.count());
    let observe = || bar.inc(1);
    let written = match to {
        ToFormat::Folder => conversion.write_folder(out, observe),
        ToFormat::Coco => conversion.write_annotations(AnnotationFormat::Coco, out, observe),
        ToFormat::Cvat => conversion.write_annotations(AnnotationFormat::Cvat, out, observe),
        ToFormat::LabelStudio => {
            conversion.write_annotations(AnnotationFormat::LabelStudio, out, observe)
        }
    };
    bar.finish_and_clear();
    // Nothing is written where the annotations cannot be meant.
    let counts = match written {
        Err(error) if !error.is_of_files() => return Err(CommandError::usage(error)),
        written => written.map_err(anyhow::Error::from)?,
    };
    print_warnings(counts.notes());
    report_failed(&counts);
    print(format!(
        "{} images of {} into {}\n{}",
        counts.images,
        conversion.format(),
        out.display(),
        describe(&counts, &conversion, arguments.background.is_some())
    ))?;
    if *to == ToFormat::Cvat && counts.ignored > 0 {
        print(
            "pixels that count for nothing are black in CVAT's masks, as `background` is, and come back \
             as that",
        )?;
    }
    Ok(if counts.failed.is_empty() {
        CommandOutcome::Success
    } else {
        CommandOutcome::SomeInputsFailed
    })
}

/// Images that a message names one by one.
const NAMED: usize = 20;

/// Names the images that are left out.
fn report_failed(counts: &ConversionCounts) {
    for error in counts.failed.iter().take(NAMED) {
        print_stderr(format_args!("error: {error}"));
    }
    let failed = counts.failed.len();
    if failed > NAMED {
        print_stderr(format_args!("error: and so {} more", failed - NAMED));
    }
    if failed > 0 {
        print_stderr(format_args!(
            "{failed} of {} images cannot be converted and are left out",
            failed + counts.images
        ));
    }
}

fn check_input(
    ConvertArgs { input, from, to, out, threshold, map, unlabeled, .. }: &ConvertArgs,
) -> anyhow::Result<()> {
    ensure!(input.exists(), "{} does not exist", input.display());
    ensure!(
        *to == ToFormat::Folder || !out.is_dir(),
        "--out {} is a folder; name the file to write",
        out.display()
    );
    ensure!(
        *to == ToFormat::Folder || !unlabeled,
        "--unlabeled is for --to folder: other formats hold annotated images"
    );
    let takes_threshold = matches!(from, None | Some(FromFormat::Folder | FromFormat::Masks));
    ensure!(
        threshold.is_none() || takes_threshold,
        "--threshold is for folders of images and labels, and for a mask for each class"
    );
    ensure!(
        map.is_none() || matches!(from, None | Some(FromFormat::Folder)),
        "--map is for folders of images and labels"
    );
    Ok(())
}

impl ConvertArgs {
    fn options(&self) -> ConvertOptions {
        ConvertOptions {
            format: self.from.map(SourceFormat::from),
            images: self.images.clone(),
            classes: self.classes.clone(),
            background: self.background.clone(),
            ignore: self.ignore.clone(),
            threshold: self.threshold,
            map: self.map.clone(),
            unlabeled: self.unlabeled,
            max_pixels: self.max_pixels,
        }
    }
}

/// Shares of the classes, and of the pixels with none or several.
fn describe(counts: &ConversionCounts, conversion: &Conversion, is_chosen: bool) -> String {
    let share = |pixels: u64| 100.0 * pixels as f64 / counts.pixels().max(1) as f64;
    let class = |(class, &pixels): (&Class, &u64)| format!("{} {:.1} %", class.name, share(pixels));
    let classes = conversion.classes().classes();
    let shares: Vec<String> = classes.iter().zip(&counts.classes).map(class).collect();
    let mut text = format!("pixels: {}", shares.join(", "));
    if counts.ignored > 0 {
        text.push_str(&format!("; {:.1} % count for nothing", share(counts.ignored)));
    }
    if counts.uncovered > 0 {
        let way = match conversion.uncovered_class() {
            Some(Class { name, .. }) if is_chosen => format!("are `{name}`"),
            Some(Class { name, .. }) => {
                format!("are `{name}`; --ignore '{name}' makes them count for nothing")
            }
            None => "count for nothing; --background NAME gives them a class".to_owned(),
        };
        text.push_str(&format!(
            "\n{} pixels ({:.1} %) are in no shape and {way}",
            counts.uncovered,
            share(counts.uncovered)
        ));
    }
    let empty = classes.iter().zip(&counts.classes).filter(|(_, pixels)| **pixels == 0);
    let empty: Vec<&str> = empty.map(|(class, _)| class.name.as_str()).collect();
    if let [first, ..] = empty[..] {
        text.push_str(&format!(
            "\nno pixel is of the class {}; --ignore '{first}' leaves it out, unless --classes fixes the \
             classes",
            empty.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" or ")
        ));
    }
    if counts.overlapping > 0 {
        text.push_str(&format!(
            "\n{} pixels are in shapes of several classes; the last shape counts",
            counts.overlapping
        ));
    }
    text
}
