//! Meaning of an output's values, told by those that came for a few images: logits or
//! probabilities, a threshold, values of labels.

use std::collections::BTreeSet;

use protoseg_models::classes::{Class, ClassTable};
use protoseg_models::interface::{LabelValues, ScoreKind};
use protoseg_models::weights::Tensor;

use super::{ImportError, LabelChoice};
use crate::session::listed;

/// How far rounding may move probabilities and their sum: that of 16-bit floats.
const ROUNDING: f32 = 2e-3;

/// Most colors of a label map in colors.
const COLORS: usize = 64;

/// The same for the sum over many classes.
const SUM_ROUNDING: f32 = 2e-2;

/// Tells what scores `[n, channels, h, w]` are. `far` are the scores of values beyond any image,
/// where they are known: probabilities stay between 0 and 1. Those of an operation whose values lie
/// `between_ones`, -1 and 1, are on a scale of their own.
pub(super) fn score_kind(scores: &[Tensor], far: Option<&Tensor>, between_ones: bool) -> ScoreKind {
    let is_share = |value: f32| (-ROUNDING..=1.0 + ROUNDING).contains(&value);
    let all = || scores.iter().flat_map(|scores| &scores.data);
    if between_ones && all().all(|&value| is_share(value.abs())) {
        return ScoreKind::Unscaled;
    }
    if all().all(|&value| is_share(value)) {
        let mut far = far.into_iter().flat_map(|scores| &scores.data);
        let bounded = far.all(|&value| !value.is_finite() || is_share(value));
        let add_up =
            scores.iter().all(|scores| scores.shape[1] > 1) && add_up_to_one(scores, |score| score);
        if bounded || add_up {
            return ScoreKind::Probabilities;
        }
    } else if is_single(scores) && highest(scores.iter().chain(far)).abs() <= ROUNDING {
        // The logarithm of a probability comes near 0, and never above, however far the input.
        return ScoreKind::LogProbabilities;
    } else if all().all(|&value| value <= ROUNDING) {
        if add_up_to_one(scores, f32::exp) {
            return ScoreKind::LogProbabilities;
        }
        // As of one channel, for each class of its own.
        if highest(scores.iter().chain(far)).abs() <= ROUNDING {
            return ScoreKind::LogSigmoid;
        }
    } else if far.is_some_and(|far| is_hyperbolic(scores.iter().chain([far])))
        || !is_single(scores) && add_up_to_one(scores, |score| score * score)
    {
        return ScoreKind::Unscaled;
    }
    ScoreKind::Logits
}

/// True for scores between -1 and 1 that come near one of the two, as a hyperbolic tangent gives
/// them for values beyond any image.
fn is_hyperbolic<'a>(scores: impl Iterator<Item = &'a Tensor>) -> bool {
    let largest = scores.flat_map(|scores| &scores.data).fold(0.0_f32, |largest, score| {
        if score.is_finite() { largest.max(score.abs()) } else { f32::INFINITY }
    });
    (largest - 1.0).abs() <= ROUNDING
}

/// True where some values of the scores of each pixel add up to 1.
fn add_up_to_one(scores: &[Tensor], value: impl Fn(f32) -> f32 + Copy) -> bool {
    let mut sums = scores.iter().flat_map(|scores| pixel_sums(scores, value));
    sums.all(|sum| (sum - 1.0).abs() <= SUM_ROUNDING)
}

/// True for scores of one channel.
fn is_single(scores: &[Tensor]) -> bool {
    scores.iter().all(|scores| scores.shape.get(1) == Some(&1))
}

/// The highest of all scores.
fn highest<'a>(scores: impl Iterator<Item = &'a Tensor>) -> f32 {
    scores.flat_map(|scores| &scores.data).copied().fold(f32::NEG_INFINITY, f32::max)
}

/// Sums over the channels of each pixel.
fn pixel_sums(scores: &Tensor, value: impl Fn(f32) -> f32) -> Vec<f32> {
    let [count, channels, height, width] = scores.shape[..] else { return Vec::new() };
    let plane = height * width;
    let mut sums = vec![0.0; count * plane];
    for (index, scores) in scores.data.chunks_exact(plane.max(1)).enumerate() {
        let image = index / channels.max(1);
        for (sum, &score) in sums[image * plane..].iter_mut().zip(scores) {
            *sum += value(score);
        }
    }
    sums
}

/// Scores that may be something else than what they were taken for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UnclearScale {
    /// The scores, and why they are unclear.
    pub(super) found: String,
    /// The options that make them clear.
    pub(super) way: String,
}

/// Says why scores are neither logits nor probabilities: shares in percent or in 255ths, one channel
/// that is never below 0 or never above it, or values that are no probabilities. `far` are the
/// scores of values beyond any image, where they are known.
pub(super) fn unclear_scale(
    scores: &[Tensor],
    far: Option<&Tensor>,
    kind: ScoreKind,
) -> Option<UnclearScale> {
    let one = is_single(scores);
    let all = || scores.iter().flat_map(|scores| &scores.data).copied();
    let (least, largest) = (all().fold(f32::MAX, f32::min), all().fold(f32::MIN, f32::max));
    let unclear = |found: String, way: &str| Some(UnclearScale { found, way: way.to_owned() });
    let way = "let the file divide them, or say --scores unscaled, which keeps the labels and \
               leaves confidence and pseudo-labels out";
    match kind {
        ScoreKind::Probabilities if least < -ROUNDING || largest > 1.0 + ROUNDING => unclear(
            format!("the file gives scores from {least} to {largest}, which are no probabilities"),
            way,
        ),
        ScoreKind::Logits if one && least >= 0.0 && largest > 1.0 => unclear(
            format!(
                "the file gives one channel of scores from {least} to {largest}, never below 0"
            ),
            "name the score of one half with --threshold, or say --scores logits for one of 0",
        ),
        ScoreKind::Logits if one && highest(scores.iter().chain(far)) <= ROUNDING => unclear(
            format!(
                "the file gives one channel of scores from {least} to {largest}, never above 0"
            ),
            "say --scores log-probabilities if they are logarithms of probabilities, whose half is \
             -0.6931, or --scores logits for a half of 0",
        ),
        ScoreKind::Logits
            if !one
                && least >= -ROUNDING
                // A one and zeros times a number add up, too.
                && all().any(|score| (0.05..3.0).contains(&score))
                && add_up_to_one(scores, |score| (-score).exp()) =>
        {
            unclear(
                "the scores are negative logarithms of probabilities, of which the highest is that of the least probable class"
                    .to_owned(),
                "let the file negate them, or say --scores logits if the highest is meant",
            )
        }
        ScoreKind::Logits if !one && least >= 0.0 && largest > 1.0 + ROUNDING => {
            let sums: Vec<f32> =
                scores.iter().flat_map(|scores| pixel_sums(scores, |value| value)).collect();
            let add_up =
                |total: f32| sums.iter().all(|sum| (sum - total).abs() <= SUM_ROUNDING * total);
            let total = [100.0, 255.0].into_iter().find(|&total| add_up(total))?;
            unclear(
                format!("the scores of each pixel add up to {total}, as shares of it would"),
                way,
            )
        }
        _ => None,
    }
}

/// Says that integers in three channels are colors of labels, where few colors come in all trials.
pub(super) fn colored(scores: &[Tensor]) -> Option<String> {
    let mut colors = BTreeSet::new();
    let mut largest = 0.0_f32;
    for Tensor { shape, data } in scores {
        let [count, 3, height, width] = shape[..] else { return None };
        let plane = height * width;
        for image in data.chunks_exact((3 * plane).max(1)).take(count) {
            for pixel in 0..plane {
                let color = [0, 1, 2].map(|channel| image[channel * plane + pixel]);
                largest = color.into_iter().fold(largest, f32::max);
                colors.insert(color.map(f32::to_bits));
                if colors.len() > COLORS {
                    return None;
                }
            }
        }
    }
    (largest > 1.0).then(|| {
        format!(
            "the file gives integers in three channels, of which all trials show {} colors alone, as of a label map in colors: name the \
             output before they are colored with --output, or export the labels; if they are scores, say --scores logits",
            colors.len()
        )
    })
}

/// Says that the scores of all trials are the same at every pixel, as those of a network that lost
/// its weights.
pub(super) fn constant(scores: &[Tensor]) -> Option<String> {
    let mut values: Vec<f32> = Vec::new();
    for Tensor { shape, data } in scores {
        let [_, channels, height, width] = shape[..] else { return None };
        values.resize(channels, f32::NAN);
        for (index, plane) in data.chunks_exact((height * width).max(1)).enumerate() {
            let value = &mut values[index % channels];
            for &score in plane {
                if value.is_nan() {
                    *value = score;
                }
                if (score - *value).abs() > 1e-6 * value.abs().max(1.0) {
                    return None;
                }
            }
        }
    }
    let text = "every pixel of every trial image gets the same scores: the file seems to have lost its weights, or needs another \
                --normalization";
    Some(text.to_owned())
}

/// Says where the classes of channels could be meant in another order: that of their ids.
pub(super) fn doubtful_order(classes: &ClassTable) -> Option<String> {
    let mut pairs = (0..).zip(classes.classes().windows(2));
    let descends = |(_, pair): &(usize, &[Class])| pair[0].source_id > pair[1].source_id;
    let (place, pair) = pairs.find(descends)?;
    let [class, next] = pair else { return None };
    Some(format!(
        "channel {place} is `{}` of id {} and channel {} is `{}` of id {}: channels have the order of --classes; sort it by ids if \
         they number the channels",
        class.name,
        class.source_id,
        place + 1,
        next.name,
        next.source_id
    ))
}

/// Says that all trials show one label alone. `floats` are labels that came as floats.
pub(super) fn same_label(
    seen: &BTreeSet<i64>,
    labels: &LabelValues,
    classes: &ClassTable,
    floats: bool,
) -> Option<String> {
    let [only] = seen.iter().collect::<Vec<_>>()[..] else { return None };
    let class = labels.train_id(*only).and_then(|id| classes.classes().get(usize::from(id)));
    let meaning = class.map_or(String::new(), |class| format!(" `{}`", class.name));
    let softmax = if floats && *only == 1 {
        "; a softmax over one channel is always 1: then export a sigmoid, or the logits"
    } else {
        "; if those of your images do too, the file lost its weights, or needs another --normalization"
    };
    Some(format!("every pixel of every trial image gets the label {only}{meaning}{softmax}"))
}

/// Says that one class has the highest scores at every pixel of all trials.
pub(super) fn one_winner(
    scores: &[Tensor],
    threshold: Option<f32>,
    classes: &ClassTable,
) -> Option<String> {
    let mut winner = None;
    for Tensor { shape, data } in scores {
        let [_, channels, height, width] = shape[..] else { return None };
        let plane = height * width;
        for image in data.chunks_exact((channels * plane).max(1)) {
            for pixel in 0..plane {
                let score = |channel: usize| image[channel * plane + pixel];
                let label = match threshold {
                    Some(threshold) => usize::from(score(0) > threshold),
                    None => (1..channels).fold(0, |best, channel| {
                        if score(channel) > score(best) { channel } else { best }
                    }),
                };
                if *winner.get_or_insert(label) != label {
                    return None;
                }
            }
        }
    }
    let class = classes.classes().get(winner?)?;
    Some(format!(
        "every pixel of every trial image gets the label `{}`: if those of your images do too, the file needs another --normalization \
         or --threshold, or its classes are in another order",
        class.name
    ))
}

/// Returns the usual threshold of one channel.
pub(super) fn usual_threshold(kind: ScoreKind) -> f32 {
    match kind {
        ScoreKind::Probabilities => 0.5,
        ScoreKind::Logits | ScoreKind::LogSigmoid | ScoreKind::Unscaled => 0.0,
        // A half.
        ScoreKind::LogProbabilities => -std::f32::consts::LN_2,
    }
}

/// Settles which value of the labels stands for which class, and says it.
pub(super) fn label_values(
    seen: &BTreeSet<i64>,
    classes: &ClassTable,
    choice: Option<&LabelChoice>,
) -> Result<(LabelValues, String), ImportError> {
    let count = classes.count();
    let ids: Vec<i64> = classes.classes().iter().map(|class| i64::from(class.source_id)).collect();
    let places: Vec<i64> = (0..count as i64).collect();
    // Pixels without a class: 255, and 0 where no class has it.
    let void = |values: &[i64], usual: &[i64]| {
        usual.iter().copied().filter(|value| !values.contains(value)).collect::<Vec<i64>>()
    };
    let by_place = LabelValues { void: void(&places, &[255]), classes: places.clone() };
    let by_id = LabelValues { void: void(&ids, &[0, 255]), classes: ids.clone() };
    let fits = |values: &LabelValues| seen.iter().all(|&value| values.train_id(value).is_some());
    let all: Vec<i64> = seen.iter().copied().collect();
    let mask = LabelValues { classes: vec![0, 255], void: Vec::new() };
    let chosen = match choice {
        Some(LabelChoice::Positions) => Some(by_place.clone()),
        // Who says so knows that a data set has ids of no class.
        Some(LabelChoice::Ids) => {
            let void = (0..=255).filter(|value| !ids.contains(value)).collect();
            Some(LabelValues { void, ..by_id.clone() })
        }
        Some(LabelChoice::Values(values)) if values.len() == count => {
            Some(LabelValues { void: void(values, &[0, 255]), classes: values.clone() })
        }
        Some(LabelChoice::Values(values)) => {
            return Err(ImportError::Options(format!(
                "--label-values names {} values for {count} classes: one for each",
                values.len()
            )));
        }
        None if count == 2 && seen.contains(&255) && fits(&mask) => Some(mask),
        None => None,
    };
    if let Some(values) = chosen {
        return match all.iter().find(|&&value| values.train_id(value).is_none()) {
            Some(&value) => Err(unknown(value, &values, "")),
            None => Ok(said(values, &by_place)),
        };
    }
    match (fits(&by_place), ids != places && fits(&by_id)) {
        // Nothing but the first of two: 255 may be the second, or none.
        (true, false) if count == 2 && all == [0] => {
            Ok(said(LabelValues { void: Vec::new(), ..by_place.clone() }, &by_place))
        }
        (true, false) => Ok(said(by_place.clone(), &by_place)),
        (false, true) => Ok(said(by_id, &by_place)),
        (true, true) => Err(ImportError::Options(format!(
            "the file gave the labels {} in the trials, which may be the ids of --classes ({}) or the positions of its classes ({}): \
             say --label-values ids or --label-values positions",
            listed(&all),
            listed(&ids),
            listed(&places)
        ))),
        (false, false) => {
            let classed: Vec<i64> = all.iter().copied().filter(|value| *value != 255).collect();
            let one_more = classed.first().is_some_and(|first| *first >= 1)
                && classed.last() == Some(&(count as i64));
            let hint = if one_more && ids == places {
                format!(
                    "; its labels begin at 1: number the classes of --classes from 1 to {count}, or say --label-values {}",
                    (1..=count).map(|value| value.to_string()).collect::<Vec<_>>().join(",")
                )
            } else {
                let scores = if count == 2 {
                    "; if they are scores of the second class, name that of one half with --threshold"
                } else {
                    ""
                };
                format!(
                    "; where each class has another value, name all in order with --label-values{scores}"
                )
            };
            let strange = all.iter().find(|&&value| by_place.train_id(value).is_none());
            Err(unknown(strange.copied().unwrap_or_default(), &by_place, &hint))
        }
    }
}

fn unknown(value: i64, values: &LabelValues, hint: &str) -> ImportError {
    ImportError::Signature(format!(
        "the file gives the label {value}, and {} classes have the labels {}{hint}",
        values.classes.len(),
        listed(&values.classes)
    ))
}

/// The values with a sentence about them.
fn said(values: LabelValues, by_place: &LabelValues) -> (LabelValues, String) {
    let classes = listed(&values.classes);
    let from = if values.classes == by_place.classes {
        format!("labels {classes}, the positions of the classes")
    } else {
        format!("labels {classes}, in the order of the classes")
    };
    let text = match values.void.as_slice() {
        [] => from,
        [_, _, _, ..] => format!("{from}; other values up to 255 stand for no class"),
        void => {
            let void: Vec<String> = void.iter().map(i64::to_string).collect();
            format!("{from}; {} stands for no class", void.join(" or "))
        }
    };
    (values, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(channels: usize, data: &[f32]) -> Tensor {
        Tensor { shape: vec![1, channels, 1, data.len() / channels], data: data.to_vec() }
    }

    #[test]
    fn scores_are_told_apart() {
        let kind = |data: &[f32], far: &[f32]| {
            score_kind(&[scores(2, data)], Some(&scores(2, far)), false)
        };
        use ScoreKind::{LogProbabilities, LogSigmoid, Logits, Probabilities, Unscaled};
        assert_eq!(kind(&[0.2, 0.9, 0.8, 0.1], &[0.0, 1.0, 1.0, 0.0]), Probabilities);
        // One score a class, of its own.
        assert_eq!(kind(&[0.2, 0.9, 0.1, 0.7], &[0.0, 1.0, 0.0, 1.0]), Probabilities);
        assert_eq!(kind(&[0.2, 0.9, 0.1, 0.7], &[-30.0, 40.0, 2.0, 7.0]), Logits);
        assert_eq!(
            kind(&[0.2_f32.ln(), 0.9_f32.ln(), 0.8_f32.ln(), 0.1_f32.ln()], &[]),
            LogProbabilities
        );
        assert_eq!(kind(&[-1.0, -5.0, -2.0, -6.0], &[]), Logits);
        assert_eq!(kind(&[-1.0, -5.0, -2.0, -6.0], &[-90.0, 0.0, -70.0, 0.0]), LogSigmoid);
        assert_eq!(kind(&[-1.0, -5.0, -2.0, -6.0], &[-90.0, 40.0, -70.0, 0.0]), Logits);
        assert_eq!(kind(&[-0.4, 0.5, 0.9, -0.6], &[-1.0, 1.0, 1.0, -1.0]), Unscaled);
        assert_eq!(kind(&[-0.4, 0.5, 0.9, -0.6], &[-40.0, 1.0, 50.0, -1.0]), Logits);
        assert_eq!(kind(&[3.0, -5.0, -2.0, -6.0], &[]), Logits);
        // Unit vectors.
        assert_eq!(kind(&[0.6, -0.8, 0.8, 0.6], &[0.0, -1.0, 1.0, 0.0]), Unscaled);
        let one = |data: &[f32], far: &[f32]| {
            score_kind(&[scores(1, data)], Some(&scores(1, far)), false)
        };
        assert_eq!(one(&[-3.0, -0.4], &[-700.0, 0.0]), LogProbabilities);
        assert_eq!(one(&[-3.0, -0.4], &[-700.0, 90.0]), Logits);
        assert_eq!(one(&[-3.0, -0.4], &[-700.0, -3.0]), Logits);
        assert_eq!(one(&[-0.4, 0.9], &[-1.0, 1.0]), Unscaled);
        assert_eq!(one(&[-0.4, 0.9], &[-9.0, 1.0]), Logits);
        // Files that take bytes show no scores of values beyond images.
        for data in [[-0.4, 0.9], [0.2, 0.4], [-0.4, -0.2]] {
            assert_eq!(score_kind(&[scores(2, &data)], None, true), Unscaled);
        }
        assert_eq!(score_kind(&[scores(2, &[-0.4, 0.9])], None, false), Logits);
    }

    #[test]
    fn scores_of_another_scale_are_asked_about() {
        let unclear = |channels: usize, data: &[f32], kind| {
            let said = unclear_scale(&[scores(channels, data)], None, kind);
            said.map(|UnclearScale { found, way }| format!("{found}: {way}")).unwrap_or_default()
        };
        use ScoreKind::{Logits, Probabilities};
        assert!(unclear(1, &[3.0, 250.0], Logits).contains("--threshold"));
        assert_eq!(unclear(1, &[-3.0, 250.0], Logits), "");
        assert!(unclear(1, &[-9.0, -0.5], Logits).contains("--scores log-probabilities"));
        let far = Some(&scores(1, &[-70.0, 3.0])).cloned();
        assert_eq!(unclear_scale(&[scores(1, &[-9.0, -0.5])], far.as_ref(), Logits), None);
        assert!(unclear(2, &[30.0, 99.0, 70.0, 1.0], Logits).contains("add up to 100"));
        assert_eq!(unclear(2, &[30.0, 99.0, 70.0, 6.0], Logits), "");
        let negative = [0.2_f32, 0.9, 0.8, 0.1].map(|share| -share.ln());
        assert!(unclear(2, &negative, Logits).contains("let the file negate them"));
        assert_eq!(unclear(2, &[0.2, 0.9, 0.8, 3.1], Logits), "");
        assert_eq!(unclear(2, &[1000.0, 0.0, 0.0, 1000.0], Logits), "");
        assert!(unclear(2, &[0.2, 3.0], Probabilities).contains("no probabilities"));
        assert_eq!(unclear(2, &[0.2, 0.8], Probabilities), "");
    }

    #[test]
    fn doubtful_orders_are_said() {
        let doubt = |classes: &str| {
            doubtful_order(&ClassTable::parse(classes).unwrap()).unwrap_or_default()
        };
        assert!(doubt("1 a\n0 b\n").contains("channel 0 is `a` of id 1"));
        assert!(doubt("2 a\n1 b\n3 c\n").contains("channel 1 is `b` of id 1"));
        assert_eq!(doubt("0 a\n1 b\n"), "");
        assert_eq!(doubt("7 a\n9 b\n"), "");
    }

    #[test]
    fn colors_of_labels_are_no_scores() {
        let said = |data: &[f32]| colored(&[scores(3, data)]).is_some();
        assert!(said(&[255.0, 0.0, 0.0, 255.0, 0.0, 0.0]));
        // One-hot.
        assert!(!said(&[1.0, 0.0, 0.0, 1.0, 0.0, 0.0]));
        let many: Vec<f32> = (0..300).map(|value| (value % 251) as f32).collect();
        assert!(!said(&many));
    }

    #[test]
    fn scores_without_an_image_in_them_are_said() {
        let said = |all: &[&[f32]]| {
            constant(&all.iter().map(|data| scores(2, data)).collect::<Vec<_>>()).is_some()
        };
        assert!(said(&[&[0.0, 0.0, 0.5, 0.5], &[0.0, 0.0, 0.5, 0.5]]));
        assert!(!said(&[&[0.0, 0.0, 0.5, 0.5], &[0.0, 0.0, 0.5, 0.6]]));
        assert!(!said(&[&[0.0, 0.1, 0.5, 0.5]]));
    }

    #[test]
    fn one_label_at_every_pixel_is_said() {
        let table = ClassTable::parse("0 other\n1 red\n").unwrap();
        let won = |all: &[&[f32]], channels, threshold| {
            let all: Vec<Tensor> = all.iter().map(|data| scores(channels, data)).collect();
            one_winner(&all, threshold, &table).unwrap_or_default()
        };
        assert!(won(&[&[0.1, 0.2, 0.5, 0.6], &[0.0, 0.0, 9.0, 1.0]], 2, None).contains("`red`"));
        assert_eq!(won(&[&[0.1, 0.2, 0.5, 0.1]], 2, None), "");
        assert!(won(&[&[0.1, 0.2]], 1, Some(0.5)).contains("`other`"));
        assert_eq!(won(&[&[0.1, 0.9]], 1, Some(0.5)), "");
        let labels = LabelValues { classes: vec![0, 1], void: vec![255] };
        let same = |seen: &[i64], floats| {
            let seen = seen.iter().copied().collect();
            same_label(&seen, &labels, &table, floats).unwrap_or_default()
        };
        assert!(same(&[1], true).contains("the label 1 `red`; a softmax over one channel"));
        assert!(same(&[0], false).contains("the label 0 `other`; if those"));
        assert!(same(&[255], false).contains("the label 255;"));
        assert_eq!(same(&[0, 1], true), "");
    }

    fn values(
        seen: &[i64],
        classes: &str,
        choice: Option<&LabelChoice>,
    ) -> Result<(Vec<i64>, Vec<i64>), String> {
        let table = ClassTable::parse(classes).unwrap();
        let found = label_values(&seen.iter().copied().collect(), &table, choice);
        found.map(|(values, _)| (values.classes, values.void)).map_err(|error| error.to_string())
    }

    #[test]
    fn values_of_labels_are_settled_or_asked_for() {
        const THREE: &str = "0 red\n1 green\n2 blue\n";
        const FROM_1: &str = "1 red\n2 green\n3 blue\n";
        assert_eq!(values(&[0, 2], THREE, None), Ok((vec![0, 1, 2], vec![255])));
        assert_eq!(values(&[0, 1, 255], THREE, None), Ok((vec![0, 1, 2], vec![255])));
        assert_eq!(values(&[1, 3], FROM_1, None), Ok((vec![1, 2, 3], vec![0, 255])));
        assert_eq!(values(&[0, 255], "0 a\n1 b\n", None), Ok((vec![0, 255], vec![])));
        assert_eq!(values(&[0], "0 a\n1 b\n", None), Ok((vec![0, 1], vec![])));
        assert_eq!(values(&[0, 1], "10 a\n20 b\n", None), Ok((vec![0, 1], vec![255])));
        let chosen = LabelChoice::Values(vec![5, 0, 9]);
        let chosen = Some(&chosen);
        assert_eq!(values(&[0, 9], THREE, chosen), Ok((vec![5, 0, 9], vec![255])));
        assert_eq!(
            values(&[1, 2], FROM_1, Some(&LabelChoice::Positions)),
            Ok((vec![0, 1, 2], vec![255]))
        );
        let (_, void) = values(&[1, 9, 77], FROM_1, Some(&LabelChoice::Ids)).unwrap();
        assert_eq!((void.len(), void[0], void[1]), (253, 0, 4));
        for (seen, classes, choice, parts) in [
            (&[1, 2, 3][..], THREE, None, &["the label 3", "0 to 2", "begin at 1", "1,2,3"][..]),
            (&[1, 2], FROM_1, None, &["1 to 2", "--label-values ids", "positions"]),
            (&[2, 3, 4], THREE, None, &["the label 3", "0 to 2", "--label-values"]),
            (&[1], THREE, chosen, &["the label 1", "5, 0, 9"]),
            (&[0], "0 a\n1 b\n", chosen, &["3 values for 2 classes"]),
        ] {
            let message = values(seen, classes, choice).unwrap_err();
            assert!(parts.iter().all(|part| message.contains(part)), "{seen:?}: {message}");
        }
    }
}
