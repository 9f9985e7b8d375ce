//! Outputs that are no segmentation, told by their shapes: masks of queries, boxes with prototypes,
//! scores of whole images. Each has a reason and a way out.

/// Least number of boxes, of which a detector gives hundreds.
const BOXES: usize = 64;

/// Pixels between the boxes of YOLO.
const YOLO_STRIDES: [usize; 3] = [8, 16, 32];

/// Boxes of the three for each place of the coarsest, of which the other two have 4 and 16.
const BOXES_A_PLACE: usize = 1 + 4 + 16;

/// Pixels for each value of its prototypes, along a side.
const PROTOTYPE_STRIDE: usize = 4;

/// Names of the outputs of its networks of instances.
const YOLO_NAMES: [&str; 2] = ["output0", "output1"];

/// An output's name and its shape for one image.
pub(super) type NamedShape<'a> = (&'a str, &'a [usize]);

/// Says what outputs are that cannot be read as scores of `classes` classes or labels; None where
/// their shapes do not tell.
pub(super) fn explain(outputs: &[NamedShape<'_>], classes: usize) -> Option<String> {
    queries(outputs, classes)
        .or_else(|| prototypes(outputs))
        .or_else(|| flattened(outputs, classes))
        .or_else(|| of_other_rank(outputs))
}

fn shown((name, shape): NamedShape<'_>) -> String {
    format!("`{name}` of shape {shape:?}")
}

/// MaskFormer, Mask2Former and OneFormer: `[N, queries, classes + 1]` and `[N, queries, h, w]`.
fn queries(outputs: &[NamedShape<'_>], classes: usize) -> Option<String> {
    let pair = |first: &NamedShape<'_>, second: &NamedShape<'_>| match (first.1, second.1) {
        ([images, queries, found], [others, masks, _, _]) => {
            let few = *found < BOXES.max(classes + 2) || names_queries(first.0);
            images == others && queries == masks && *found > 1 && few
        }
        _ => false,
    };
    let pairs = || {
        outputs.iter().filter_map(|first| {
            let second = outputs.iter().find(|second| pair(first, second))?;
            Some((*first, *second))
        })
    };
    // DETR has boxes of the queries, too.
    let (first, second) = pairs().find(|(first, _)| !first.0.contains("box")).or(pairs().next())?;
    let [_, count, found] = *first.1 else { return None };
    let counted = if found == classes + 1 {
        String::new()
    } else {
        format!("; --classes names {classes} where there are {}, and one for nothing", found - 1)
    };
    Some(format!(
        "the outputs {} and {} are masks of {count} queries with the classes of each, as MaskFormer, Mask2Former and OneFormer \
         give them, and not classes of pixels: export the network with its semantic post-processing as one output, in PyTorch \
         `torch.einsum(\"bqc,bqhw->bchw\", classes.softmax(-1)[..., :-1], masks.sigmoid())`{counted}",
        shown(first),
        shown(second)
    ))
}

fn names_queries(name: &str) -> bool {
    let name = name.to_lowercase();
    name.contains("queries") || name.contains("pred_masks")
}

/// The same where the masks of as many queries as there are classes could be their scores: by the
/// classes of the queries beside them, or by the name alone.
pub(super) fn queries_of_classes(outputs: &[NamedShape<'_>], classes: usize) -> Option<String> {
    let alone = || {
        let masks = outputs.iter().find(|(name, shape)| names_queries(name) && shape.len() == 4)?;
        Some(format!(
            "the output {} is masks of queries by its name, as MaskFormer, Mask2Former and OneFormer give them, and not scores of classes: \
             export the network with its semantic post-processing as one output",
            shown(*masks)
        ))
    };
    let said = queries(outputs, classes);
    let named = outputs.iter().any(|(name, _)| names_queries(name));
    match said {
        Some(said) if named => Some(said),
        Some(said) => Some(format!(
            "{said}; if one of them is scores of classes all the same, name it with --output"
        )),
        None => alone(),
    }
}

/// Says that outputs are boxes and prototypes of masks, as YOLO gives them for an image of a height
/// and width, also where as many prototypes as classes could be scores. `task` is what YOLO notes in
/// its files.
pub(super) fn instances(
    outputs: &[NamedShape<'_>],
    classes: usize,
    [height, width]: [usize; 2],
    task: Option<&str>,
) -> Option<String> {
    let places: usize =
        YOLO_STRIDES.map(|stride| (height / stride) * (width / stride)).iter().sum();
    let named = outputs.iter().map(|(name, _)| *name).eq(YOLO_NAMES);
    let noted = task == Some("segment");
    for masks in outputs {
        let [_, count, rows, columns] = *masks.1 else { continue };
        if !noted && [rows * PROTOTYPE_STRIDE, columns * PROTOTYPE_STRIDE] != [height, width] {
            continue;
        }
        // The values of a box: its place, a score for each class, a weight for each prototype; or
        // its place, score and class, and the weights.
        let is_box = |values: usize, boxes: usize| {
            let least = values > 4 + count;
            let usual = boxes >= BOXES && boxes.is_multiple_of(BOXES_A_PLACE);
            values == 4 + classes + count
                || least && (noted || boxes == places || usual)
                || values == 6 + count && boxes >= BOXES
        };
        let is_boxes = |shape: &[usize]| match *shape {
            // Labels of pixels.
            [_, a, b] if [a, b] == [height, width] || [a, b] == [rows, columns] => false,
            [_, a, b] => named || is_box(a, b) || is_box(b, a),
            _ => false,
        };
        if let Some(boxes) = outputs.iter().find(|boxes| is_boxes(boxes.1)) {
            return Some(boxes_and_masks(*boxes, *masks, count));
        }
    }
    None
}

fn boxes_and_masks(boxes: NamedShape<'_>, masks: NamedShape<'_>, count: usize) -> String {
    format!(
        "the outputs {} and {} are boxes and {count} prototypes of masks, as YOLO's instance segmentation gives them: it finds \
         objects and leaves the pixels between them without a class; train or export a network of semantic segmentation",
        shown(boxes),
        shown(masks)
    )
}

/// YOLO's instance segmentation: `[N, 4 + classes + m, boxes]`, or with the last two exchanged, and
/// m prototypes of masks `[N, m, h, w]`.
fn prototypes(outputs: &[NamedShape<'_>]) -> Option<String> {
    let is_boxes = |shape: &[usize], masks: usize| match *shape {
        [_, a, b] => a.max(b) >= BOXES && a.min(b) > 4 + masks,
        _ => false,
    };
    for masks in outputs {
        let [_, count, rows, columns] = *masks.1 else { continue };
        let Some(boxes) = outputs.iter().find(|boxes| is_boxes(boxes.1, count)) else { continue };
        if rows.min(columns) > 1 {
            return Some(boxes_and_masks(*boxes, *masks, count));
        }
    }
    None
}

/// Scores `[N, classes, places]` or `[N, places, classes]`, and boxes `[N, boxes, 6]`.
fn flattened(outputs: &[NamedShape<'_>], classes: usize) -> Option<String> {
    let [output] = *outputs else { return None };
    match *output.1 {
        [_, a, b] if (a == classes || b == classes) && a.max(b) >= BOXES => Some(format!(
            "{}: scores of {} places in a row, without height and width: export the network with them reshaped to [N, {classes}, height, \
             width]",
            shown(output),
            if b == classes { a } else { b }
        )),
        [_, a, 4..=7] if a >= 10 => Some(format!(
            "{}: boxes, as a detector gives them, and no classes of pixels: export a network of semantic segmentation",
            shown(output)
        )),
        _ => None,
    }
}

/// Outputs of which none has a height and a width.
fn of_other_rank(outputs: &[NamedShape<'_>]) -> Option<String> {
    let all = |fits: fn(&[usize]) -> bool| outputs.iter().all(|(_, shape)| fits(shape));
    let listed = || outputs.iter().map(|output| shown(*output)).collect::<Vec<_>>().join(", ");
    if outputs.is_empty() {
        return None;
    }
    if all(|shape| shape.len() > 4) {
        return Some(format!(
            "{}: more than height and width, as of volumes or videos, and protoseg labels images: export the network for one slice or \
             frame",
            listed()
        ));
    }
    let is_vector = |shape: &[usize]| {
        shape.len() < 3 && shape.iter().filter(|side| **side > 1).count() <= 1
            || matches!(shape, [_, _, 1, 1])
    };
    if all(is_vector) {
        return Some(format!(
            "{}: one answer for the whole image, as a classifier gives it, and neither logits (one for each class over the image) nor \
             labels: name another with --output, or export a network of segmentation",
            listed()
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(outputs: &[NamedShape<'_>], classes: usize) -> String {
        explain(outputs, classes).unwrap_or_default()
    }

    #[test]
    fn other_networks_are_named_with_the_way_out() {
        let queries = [("class", &[1, 100, 6][..]), ("masks", &[1, 100, 32, 48])];
        for (classes, counted) in [(5, false), (19, true)] {
            let said = said(&queries, classes);
            assert!(
                said.contains("100 queries") && said.contains("softmax(-1)[..., :-1]"),
                "{said}"
            );
            assert_eq!(said.contains("--classes names 19 where there are 5"), counted, "{said}");
        }
        // As many queries as classes.
        let alike =
            [("class_queries_logits", &[1, 10, 4][..]), ("masks_queries_logits", &[1, 10, 16, 16])];
        for named in [alike, [("a", alike[0].1), ("b", alike[1].1)]] {
            let said = queries_of_classes(&named, 10).unwrap_or_default();
            assert!(said.contains("10 queries"), "{said}");
            assert_eq!(said.contains("name it with --output"), named[0].0 == "a", "{said}");
        }
        assert!(
            queries_of_classes(&alike[1..], 10).is_some_and(|said| said.contains("by its name"))
        );
        let detr = [
            ("pred_boxes", &[1, 10, 4][..]),
            ("logits", &[1, 10, 92]),
            ("pred_masks", &[1, 10, 16, 16]),
        ];
        assert!(queries_of_classes(&detr, 10).is_some());
        for usual in [
            &[("out", &[1, 10, 16, 16][..]), ("aux", &[1, 10, 16, 16])][..],
            &[("out", &[1, 10, 16, 16]), ("labels", &[1, 16, 16])],
            &[("logits", &[1, 10, 16, 16])],
        ] {
            assert_eq!(queries_of_classes(usual, 10), None);
        }
        let exchanged = [queries[1], queries[0]];
        assert!(said(&exchanged, 5).contains("queries"));
        let yolo = [("output0", &[1, 41, 336][..]), ("output1", &[1, 32, 32, 32])];
        assert!(said(&yolo, 5).contains("32 prototypes"), "{}", said(&yolo, 5));
        let large = [("output0", &[1, 116, 8400][..]), ("output1", &[1, 32, 160, 160])];
        assert!(said(&large, 80).contains("YOLO"));
        let turned = [("output1", &[1, 32, 160, 160][..]), ("output0", &[1, 8400, 116])];
        assert!(said(&turned, 80).contains("YOLO"));
        // As many classes as prototypes.
        let instances = |boxes: &[usize], masks: &[usize], size, task| {
            instances(&[("boxes", boxes), ("masks", masks)], 32, size, task).is_some()
        };
        let segment = Some("segment");
        for (boxes, masks, size, task, found) in [
            ([1, 68, 84], [1, 32, 16, 16], [64, 64], None, true),
            ([1, 84, 68], [1, 32, 16, 16], [64, 64], None, true),
            ([1, 116, 84], [1, 32, 16, 16], [64, 64], None, true),
            ([1, 300, 38], [1, 32, 16, 16], [64, 64], None, true),
            ([1, 116, 8400], [1, 32, 16, 16], [64, 64], None, true),
            ([1, 68, 21], [1, 32, 8, 8], [32, 32], segment, true),
            ([1, 50, 40], [1, 32, 8, 8], [32, 32], segment, true),
            ([1, 50, 40], [1, 32, 8, 8], [32, 32], None, false),
            // Labels, and tokens of a transformer.
            ([1, 68, 68], [1, 32, 17, 17], [68, 68], None, false),
            ([1, 1024, 256], [1, 32, 64, 64], [256, 256], None, false),
        ] {
            assert_eq!(
                instances(&boxes, &masks, size, task),
                found,
                "{boxes:?} {masks:?} {task:?}"
            );
        }
        let named = [("output0", &[1, 32, 64][..]), ("output1", &[1, 32, 16, 16])];
        assert!(super::instances(&named, 32, [64, 64], None).is_some());
        assert!(said(&[("y", &[1, 3, 4096])], 3).contains("4096 places in a row"));
        assert!(said(&[("y", &[1, 4096, 3])], 3).contains("[N, 3, height, width]"));
        assert!(said(&[("y", &[1, 300, 6])], 3).contains("a detector"));
        assert!(said(&[("y", &[1, 1000])], 3).contains("the whole image"));
        assert!(said(&[("y", &[1, 3, 1, 1])], 3).contains("the whole image"));
        assert!(said(&[("y", &[1, 3, 8, 64, 64])], 3).contains("volumes"));
        assert_eq!(said(&[("y", &[1, 5, 32, 48])], 3), "");
        assert_eq!(said(&[], 3), "");
    }
}
