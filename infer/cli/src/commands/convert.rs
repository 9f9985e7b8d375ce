//! `protoseg convert`: annotations of other programs as a data set, and back.

use std::path::PathBuf;

use anyhow::ensure;
use clap::ValueEnum;
use protoseg_images::convert::{Conversion, ConversionCounts, ConvertOptions, SourceFormat};
use protoseg_images::formats::AnnotationFormat;
use protoseg_models::classes::ClassTable;

use super::{CommandError, CommandOutcome, OrUsage, print, print_stderr, progress};
use protoseg_images::image_file::MAX_PIXELS;

/// Convert annotations of other programs to a data set, and back
///
/// Reads CVAT (masks and XML), COCO (instances, stuff, panoptic), Label Studio, LabelMe, Pascal VOC, a
/// mask for each class of an image, and folders of images and labels; a file, a folder or a ZIP
/// archive. Writes OUT/images, OUT/labels, OUT/classes.txt and OUT/all.txt: a data set of the kind
/// `folder` for `protoseg train` and `protoseg eval`; or the file of another program.
///
/// Where shapes overlap, the later one counts. Pixels that no shape covers are the class `background`
/// if there is one that no shape has, or else count for nothing.
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
    /// Largest number of pixels of an image
    #[arg(long, value_name = "N", default_value_t = MAX_PIXELS)]
    max_pixels: u64,
}

/// Format of annotations that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FromFormat {
    /// CVAT, "Segmentation mask 1.1", as `label --format cvat` writes
    Cvat,
    /// CVAT, "CVAT for images 1.1": annotations.xml
    CvatXml,
    /// COCO: instances, stuff or panoptic
    Coco,
    /// Label Studio: JSON of tasks
    LabelStudio,
    /// LabelMe: a JSON file for each image
    Labelme,
    /// Pascal VOC: JPEGImages and SegmentationClass
    Voc,
    /// A mask for each class of an image, such as a.car.png or car/a.png
    Masks,
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
            FromFormat::Voc => Self::Voc,
            FromFormat::Masks => Self::Masks,
            FromFormat::Folder => Self::Folder,
        }
    }
}

pub(crate) fn run(arguments: &ConvertArgs) -> Result<CommandOutcome, CommandError> {
    let ConvertArgs { input, out, to, .. } = arguments;
    check_input(arguments).or_usage()?;
    let conversion = Conversion::open(input, &arguments.options()).or_usage()?;
    for note in conversion.notes() {
        print_stderr(format_args!("warning: {note}"));
    }
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
    let counts = written.map_err(anyhow::Error::from)?;
    print(format!(
        "{} images of {} into {}\n{}",
        counts.images,
        conversion.format(),
        out.display(),
        describe(&counts, conversion.classes())
    ))?;
    Ok(CommandOutcome::Success)
}

fn check_input(
    ConvertArgs { input, from, to, out, threshold, .. }: &ConvertArgs,
) -> anyhow::Result<()> {
    ensure!(input.exists(), "{} does not exist", input.display());
    ensure!(
        *to == ToFormat::Folder || !out.is_dir(),
        "--out {} is a folder; name the file to write",
        out.display()
    );
    let takes_threshold = matches!(from, None | Some(FromFormat::Folder | FromFormat::Masks));
    ensure!(
        threshold.is_none() || takes_threshold,
        "--threshold is for folders of images and labels, and for a mask for each class"
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
            max_pixels: self.max_pixels,
        }
    }
}

/// Shares of the classes, and of the pixels with none or several.
fn describe(counts: &ConversionCounts, classes: &ClassTable) -> String {
    let share = |pixels: u64| 100.0 * pixels as f64 / counts.pixels().max(1) as f64;
    let class = |(class, &pixels): (&protoseg_models::classes::Class, &u64)| {
        format!("{} {:.1} %", class.name, share(pixels))
    };
    let shares: Vec<String> = classes.classes().iter().zip(&counts.classes).map(class).collect();
    let mut text = format!("pixels: {}", shares.join(", "));
    if counts.ignored > 0 {
        text.push_str(&format!("; {:.1} % count for nothing", share(counts.ignored)));
    }
    if counts.uncovered > 0 && counts.ignored > 0 {
        text.push_str(&format!(
            "\n{:.1} % are in no shape; --background NAME gives these a class",
            share(counts.uncovered)
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
