//! Pictures beside their truth and the prediction, from the best to the worst.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use protoseg_pages::html::escape;
use protoseg_pages::scale::fixed;

use super::headline::{Colors, class_name};

/// A validation picture with what is so and what was predicted. Views are the bytes of PNG or JPEG files.
#[derive(Debug, Clone, PartialEq)]
pub struct ReportImage {
    /// What the picture is called.
    pub name: String,
    /// Mean IoU over the classes in it, in percent.
    pub iou: f64,
    /// The image.
    pub image: Vec<u8>,
    /// The true classes, in colours.
    pub truth: Vec<u8>,
    /// The predicted classes, in the same colours.
    pub prediction: Vec<u8>,
}

/// All pictures, and what the colours mean.
pub(super) fn section(pictures: &[ReportImage], colors: &Colors, classes: &[&str]) -> String {
    if pictures.is_empty() {
        return String::new();
    }
    let known = classes.iter().filter(|class| colors.contains_key(**class));
    let legend: String =
        known.map(|class| format!("<li>{}</li>", class_name(class, colors))).collect();
    let legend =
        if legend.is_empty() { legend } else { format!("<ul class=\"legend\">{legend}</ul>\n") };
    let mut sorted: Vec<&ReportImage> = pictures.iter().collect();
    sorted.sort_by(|left, right| right.iou.total_cmp(&left.iou));
    legend + &sorted.into_iter().map(picture).collect::<String>()
}

fn picture(picture: &ReportImage) -> String {
    let iou = if picture.iou.is_finite() {
        format!("mIoU {} %", fixed(picture.iou, 1))
    } else {
        String::new()
    };
    let views =
        [("image", &picture.image), ("truth", &picture.truth), ("prediction", &picture.prediction)];
    let view = |(what, bytes): (&str, &Vec<u8>)| {
        let shown = match kind(bytes) {
            Some(kind) => format!(
                "<img alt=\"{what} of {}\" src=\"data:{kind};base64,{}\">",
                escape(&picture.name),
                STANDARD.encode(bytes)
            ),
            None => "neither PNG nor JPEG: ".to_owned(),
        };
        format!("<div>{shown}{what}</div>\n")
    };
    format!(
        "<figure class=\"picture\"><figcaption>{}<span>{iou}</span></figcaption>\n\
         <div class=\"views\">\n{}</div></figure>\n",
        escape(&picture.name),
        views.into_iter().map(view).collect::<String>()
    )
}

/// The media type of a picture file's bytes.
fn kind(bytes: &[u8]) -> Option<&'static str> {
    if bytes.starts_with(b"\x89PNG") {
        Some("image/png")
    } else if bytes.starts_with(b"\xff\xd8\xff") {
        Some("image/jpeg")
    } else {
        None
    }
}
