//! The confusion matrix and its scores: intersection over union and pixel accuracy.

use serde::{Deserialize, Serialize};

use crate::classes::{ClassTable, IGNORE_INDEX};

/// Pixel counts `[truth, predicted]` of every pair of classes.
///
/// ```
/// use protoseg_models::metrics::ConfusionMatrix;
///
/// let mut confusion = ConfusionMatrix::new(3);
/// confusion.add(&[0, 0, 1, 255], &[0, 1, 1, 2])?;
/// assert_eq!(confusion.iou(0), Some(0.5));
/// assert_eq!(confusion.iou(2), None); // neither in the truth nor in the counted predictions
/// assert_eq!(confusion.mean_iou(), Some(0.5));
/// # Ok::<(), protoseg_models::metrics::LabelError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfusionMatrix {
    classes: usize,
    counts: Vec<u64>,
    /// By true class: pixels without a prediction, which are missed.
    missed: Vec<u64>,
}

/// Labels that cannot be counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// A label that is neither a class nor ignored.
    #[error("label {label} at pixel {pixel} is neither one of {classes} classes nor 255 (ignored)")]
    Range {
        /// The label.
        label: u8,
        /// Flat index in the map.
        pixel: usize,
        /// Number of classes.
        classes: usize,
    },
    /// Different numbers of true and predicted pixels.
    #[error("{0} pixels of truth, but {1} predicted")]
    Length(usize, usize),
}

impl ConfusionMatrix {
    /// Returns an empty matrix.
    pub fn new(classes: usize) -> Self {
        Self { classes, counts: vec![0; classes * classes], missed: vec![0; classes] }
    }

    /// Counts the pixels of one label map of train ids, but those whose truth is [`IGNORE_INDEX`].
    /// A prediction of [`IGNORE_INDEX`], a pixel that a model leaves without a class, is wrong.
    /// Nothing is counted on an error.
    pub fn add(&mut self, truth: &[u8], predicted: &[u8]) -> Result<(), LabelError> {
        if truth.len() != predicted.len() {
            return Err(LabelError::Length(truth.len(), predicted.len()));
        }
        // Counts all byte pairs first, without a branch for each pixel.
        let mut pairs = vec![0_u32; 1 << 16];
        for (&truth, &predicted) in truth.iter().zip(predicted) {
            pairs[usize::from(truth) << 8 | usize::from(predicted)] += 1;
        }
        let known = |label: u8| usize::from(label) < self.classes;
        let pair = |index: usize| ((index >> 8) as u8, (index & 255) as u8);
        let counted = |index: &usize| pairs[*index] > 0 && pair(*index).0 != IGNORE_INDEX;
        for (truth_label, predicted_label) in (0..pairs.len()).filter(counted).map(pair) {
            let mut pair = [truth_label, predicted_label].into_iter();
            let wrong = pair.find(|&label| !known(label) && label != IGNORE_INDEX);
            if let Some(label) = wrong {
                let at = |(&truth, &predicted): (&u8, &u8)| {
                    (truth, predicted) == (truth_label, predicted_label)
                };
                let pixel = truth.iter().zip(predicted).position(at).unwrap_or_default();
                return Err(LabelError::Range { label, pixel, classes: self.classes });
            }
        }
        for index in (0..pairs.len()).filter(counted) {
            let (truth, predicted) = pair(index);
            let pixels = u64::from(pairs[index]);
            if predicted == IGNORE_INDEX {
                self.missed[usize::from(truth)] += pixels;
            } else {
                self.counts[usize::from(truth) * self.classes + usize::from(predicted)] += pixels;
            }
        }
        Ok(())
    }

    /// Adds the counts of another matrix of the same size.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        for (count, more) in self.missed.iter_mut().zip(&other.missed) {
            *count += more;
        }
    }

    /// Returns the intersection over union of a class in [0, 1]; `None` if it is absent from truth
    /// and prediction.
    pub fn iou(&self, class: usize) -> Option<f64> {
        let hit = self.counts[class * self.classes + class];
        let found: u64 = self.counts[class * self.classes..][..self.classes].iter().sum();
        let truth = found + self.missed[class];
        let predicted: u64 = self.counts.iter().skip(class).step_by(self.classes).sum();
        let union = truth + predicted - hit;
        (union > 0).then(|| hit as f64 / union as f64)
    }

    /// Returns the mean [`iou`](Self::iou) of the present classes; `None` if nothing was counted.
    pub fn mean_iou(&self) -> Option<f64> {
        let present: Vec<f64> = (0..self.classes).filter_map(|class| self.iou(class)).collect();
        (!present.is_empty()).then(|| present.iter().sum::<f64>() / present.len() as f64)
    }

    /// Returns the share of correct pixels in [0, 1]; `None` if nothing was counted.
    pub fn pixel_accuracy(&self) -> Option<f64> {
        let all: u64 = self.counts.iter().chain(&self.missed).sum();
        let hits: u64 = self.counts.iter().step_by(self.classes + 1).sum();
        (all > 0).then(|| hits as f64 / all as f64)
    }

    /// Returns the class that every counted pixel was predicted as, if the truth has others too;
    /// `None` where some pixels got no class.
    pub fn only_prediction(&self) -> Option<usize> {
        if self.missed.iter().any(|&pixels| pixels > 0) {
            return None;
        }
        let rows = || self.counts.chunks_exact(self.classes);
        let is_predicted = |class: &usize| rows().any(|row| row[*class] > 0);
        let mut predicted = (0..self.classes).filter(is_predicted);
        let (class, None) = (predicted.next()?, predicted.next()) else { return None };
        let has_others =
            rows().enumerate().any(|(truth, row)| truth != class && row.iter().any(|&n| n > 0));
        has_others.then_some(class)
    }

    /// Returns the scores in percent, with class names.
    pub fn scores(&self, classes: &ClassTable) -> Scores {
        let percent = |share: f64| 100.0 * share;
        // Pixels that got no class are of the truth, too.
        let is_absent = |index: &usize| {
            let row = &self.counts[index * self.classes..][..self.classes];
            self.missed[*index] == 0 && row.iter().all(|&pixels| pixels == 0)
        };
        let name = |index: usize| classes.classes().get(index).map(|class| class.name.clone());
        let score = |(index, class): (usize, &crate::classes::Class)| ClassScore {
            name: class.name.clone(),
            iou: self.iou(index).map(percent),
        };
        Scores {
            mean_iou: self.mean_iou().map(percent),
            pixel_accuracy: self.pixel_accuracy().map(percent),
            classes: classes.classes().iter().take(self.classes).enumerate().map(score).collect(),
            absent: (0..self.classes).filter(is_absent).filter_map(name).collect(),
        }
    }
}

/// Scores in percent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Mean IoU of the present classes; `None` if nothing was scored.
    pub mean_iou: Option<f64>,
    /// Share of correct pixels.
    pub pixel_accuracy: Option<f64>,
    /// Scores by train id.
    pub classes: Vec<ClassScore>,
    /// Names of the classes without a labeled pixel; the mean leaves out those that were not
    /// predicted either.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub absent: Vec<String>,
}

impl Scores {
    /// Returns the mean IoU with two digits; where a class is absent, also over how many classes it
    /// is and the names of the absent ones.
    pub fn mean_text(&self) -> String {
        let Some(mean) = self.mean_iou else {
            return "none: no labeled pixel was scored".to_owned();
        };
        let scored = self.classes.iter().filter(|class| class.iou.is_some()).count();
        let predicted = |class: &&ClassScore| self.absent.contains(&class.name);
        let absent: Vec<String> = self
            .classes
            .iter()
            .filter(|class| class.iou.is_none() || predicted(class))
            .map(|class| match class.iou {
                Some(_) => format!("{} (but predicted, so 0)", class.name),
                None => class.name.clone(),
            })
            .collect();
        if absent.is_empty() {
            return format!("{mean:.2}");
        }
        let all = self.classes.len();
        format!("{mean:.2} over {scored} of {all} classes; absent: {}", absent.join(", "))
    }
}

/// Score of one class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassScore {
    /// Name of the class.
    pub name: String,
    /// Intersection over union in percent; `None` if the class is absent.
    pub iou: Option<f64>,
}

impl std::fmt::Display for Scores {
    /// A table with a line for each class, the pixel accuracy and the mean.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let number = |value: Option<f64>| {
            value.map_or_else(|| "absent".to_owned(), |value| format!("{value:.2}"))
        };
        let names = self.classes.iter().map(|class| class.name.len());
        let width = names.max().unwrap_or(0).max("pixel accuracy".len());
        for class in &self.classes {
            writeln!(formatter, "{:width$}  {:>6}", class.name, number(class.iou))?;
        }
        writeln!(formatter, "{:width$}  {:>6}", "pixel accuracy", number(self.pixel_accuracy))?;
        // Numbers are aligned at their end, and the text behind them follows.
        let mean = self.mean_text();
        let (number, rest) = mean.split_at(mean.find(' ').unwrap_or(mean.len()));
        write!(formatter, "{:width$}  {number:>6}{rest}", "mIoU")
    }
}

/// Scores with their protocol: `metrics.json` of a checkpoint, and its copy in the manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Data set and list, such as `camvid val`.
    pub data: String,
    /// `whole`, or `SIZE:STRIDE` of sliding windows.
    pub protocol: String,
    /// Number of images.
    pub images: usize,
    /// Optimizer steps of the weights.
    pub step: u64,
    /// The scores.
    pub scores: Scores,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_predicted_class_is_known_where_the_truth_has_others() {
        let only = |truth: &[u8], predicted: &[u8]| {
            let mut confusion = ConfusionMatrix::new(3);
            confusion.add(truth, predicted).unwrap();
            confusion.only_prediction()
        };
        assert_eq!(only(&[0, 1, 2, 255], &[2, 2, 2, 0]), Some(2));
        assert_eq!(only(&[2, 2, 255], &[2, 2, 0]), None);
        assert_eq!(only(&[0, 1, 2], &[2, 2, 1]), None);
        assert_eq!(only(&[255], &[0]), None);
        assert_eq!(only(&[0, 1, 2], &[2, 2, 255]), None);
    }
    use crate::random::Stream;

    #[test]
    fn scores_equal_a_count_by_hand() {
        let stream = Stream::keyed(&[5]);
        let draw = |index: u64, count: usize| stream.below(index, count) as u8;
        let truth: Vec<u8> = (0..5000)
            .map(|index| match draw(index, 5) {
                4 => IGNORE_INDEX,
                label => label,
            })
            .collect();
        let predicted: Vec<u8> = (5000..10_000).map(|index| draw(index, 4)).collect();
        let mut confusion = ConfusionMatrix::new(5);
        confusion.add(&truth, &predicted).unwrap();
        for class in 0..4 {
            let pairs =
                || truth.iter().zip(&predicted).filter(|(truth, _)| **truth != IGNORE_INDEX);
            let both = pairs()
                .filter(|(truth, predicted)| **truth == class && **predicted == class)
                .count();
            let either = pairs()
                .filter(|(truth, predicted)| **truth == class || **predicted == class)
                .count();
            assert_eq!(confusion.iou(class.into()), Some(both as f64 / either as f64));
        }
        assert_eq!(confusion.iou(4), None);
        let mean = (0..4).filter_map(|class| confusion.iou(class)).sum::<f64>() / 4.0;
        assert_eq!(confusion.mean_iou(), Some(mean));
        let mut doubled = confusion.clone();
        doubled.merge(&confusion);
        assert_eq!(doubled.mean_iou(), confusion.mean_iou());
    }

    #[test]
    fn the_mean_says_which_classes_are_absent() {
        let scores = |truth: &[u8], predicted: &[u8]| {
            let mut confusion = ConfusionMatrix::new(2);
            confusion.add(truth, predicted).unwrap();
            confusion.scores(&ClassTable::parse("0 background\n1 crack").unwrap())
        };
        let whole = scores(&[0, 1, 1], &[0, 1, 1]);
        assert!(whole.to_string().ends_with("\nmIoU            100.00"), "{whole}");
        assert!(!serde_json::to_string(&whole).unwrap().contains("absent"));
        let half = scores(&[0, 255, 255], &[0, 0, 1]);
        let line = "\nmIoU            100.00 over 1 of 2 classes; absent: crack";
        assert!(half.to_string().ends_with(line), "{half}");
        let json = serde_json::to_string(&half).unwrap();
        assert!(json.ends_with(r#""absent":["crack"]}"#), "{json}");
        assert_eq!(serde_json::from_str::<Scores>(&json).unwrap(), half);
        let wrong = scores(&[0, 0], &[0, 1]).mean_text();
        assert_eq!(wrong, "25.00 over 2 of 2 classes; absent: crack (but predicted, so 0)");
        assert_eq!(scores(&[255], &[0]).mean_text(), "none: no labeled pixel was scored");
        // In the masks, and never predicted: by another class, or by none.
        for predicted in [&[0, 0, 0], &[0, 255, 255]] {
            assert_eq!(scores(&[0, 1, 1], predicted).absent, [""; 0]);
        }
        assert_eq!(scores(&[0, 1, 1], &[0, 255, 255]).mean_text(), "50.00");
    }

    #[test]
    fn labels_out_of_range_are_named_and_nothing_is_counted() {
        let mut confusion = ConfusionMatrix::new(2);
        let error = confusion.add(&[0, 1, 2], &[0, 1, 1]).unwrap_err();
        assert_eq!(error, LabelError::Range { label: 2, pixel: 2, classes: 2 });
        assert_eq!(confusion.add(&[0], &[]).unwrap_err(), LabelError::Length(1, 0));
        assert_eq!(confusion, ConfusionMatrix::new(2));
    }

    #[test]
    fn pixels_without_a_prediction_are_missed() {
        let mut confusion = ConfusionMatrix::new(2);
        confusion.add(&[0, 0, 1, 255], &[0, 255, 1, 255]).unwrap();
        let mut twice = confusion.clone();
        twice.merge(&confusion);
        for confusion in [confusion, twice] {
            assert_eq!([confusion.iou(0), confusion.iou(1)], [Some(0.5), Some(1.0)]);
            assert_eq!(confusion.pixel_accuracy(), Some(2.0 / 3.0));
        }
    }
}
