//! Parameter names and shapes equal those of published state dicts, so that weights load by name.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::BTreeMap;

use protoseg_models::arch::efficientnet_lite::{self, LITE0};
use protoseg_models::arch::{Arch, Preset, vit};
use protoseg_models::graph::{Graph, Tag};

/// Parses lines `name AxBxC`, without the unused batch counters.
fn published(list: &str) -> BTreeMap<String, Vec<usize>> {
    list.lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(name, _)| !name.ends_with("num_batches_tracked"))
        .map(|(name, shape)| {
            (name.to_owned(), shape.split('x').map(|size| size.parse().unwrap()).collect())
        })
        .collect()
}

fn derived(graph: &Graph) -> BTreeMap<String, Vec<usize>> {
    graph.parameters().into_iter().map(|parameter| (parameter.name, parameter.shape)).collect()
}

#[test]
fn resnet101_has_the_names_and_shapes_of_the_reference_line() {
    let arch = Arch::new(Preset::DeepLabV3PlusResNet101, 19).unwrap().with_auxiliary(true).unwrap();
    let graph = arch.graph();
    assert_eq!(derived(&graph), published(include_str!("pcr_resnet101.txt")));
    assert_eq!(graph.parameter_count(), 64_987_622);
}

#[test]
fn efficientnet_lite0_has_the_names_and_shapes_of_its_package() {
    let published = published(include_str!("efficientnet_lite0.txt"));
    assert_eq!(derived(&efficientnet_lite::classifier(LITE0)), published);
    // The segmentor's encoder is the same without the ImageNet head, below `encoder.`.
    let segmentor =
        derived(&Arch::new(Preset::DeepLabV3PlusEfficientNetLite0, 11).unwrap().graph());
    let encoder: BTreeMap<_, _> = segmentor
        .into_iter()
        .filter_map(|(name, shape)| {
            name.strip_prefix("encoder.").map(|name| (name.to_owned(), shape))
        })
        .collect();
    let headless = published
        .into_iter()
        .filter(|(name, _)| {
            !["_conv_head.", "_bn1.", "_fc."].iter().any(|head| name.starts_with(head))
        })
        .collect();
    assert_eq!(encoder, headless);
}

#[test]
fn dinov2_has_the_names_and_shapes_of_facebookresearch() {
    let (graph, _) = vit::backbone(vit::SMALL, 0);
    let mut published = published(include_str!("dinov2_vits14.txt"));
    // Used in training alone.
    published.remove("mask_token").unwrap();
    assert_eq!(derived(&graph), published);
    assert_eq!(graph.parameter_count(), 22_056_192);
    // Measured by hand: 6.1 and 27 billion multiply-adds, patches and last norms included.
    let costs = [[224, 224], [364, 490]]
        .map(|[height, width]| graph.multiply_adds(height, width).unwrap() as f64 / 1e9);
    assert!((costs[0] - 6.1).abs() < 0.05 && (costs[1] - 27.0).abs() < 0.2, "{costs:?}");
    let (graph, outputs) = vit::backbone(vit::LARGE, 4);
    assert_eq!(derived(&graph)["register_tokens"], [1, 4, 1024]);
    let shapes = graph.shapes(2, 56, 29).unwrap();
    assert_eq!(shapes[outputs.tokens[0].0], [2, 1 + 4 + 8, 1024]);
    assert_eq!(shapes[outputs.taps[3].0], [2, 1024, 4, 2]);
}

#[test]
fn feature_sizes_of_the_papers_crops() {
    for preset in [Preset::DeepLabV3PlusResNet101, Preset::DeepLabV3PlusResNet50] {
        let graph = Arch::new(preset, 21).unwrap().graph();
        for (size, quarter, eighth) in [(513, 129, 65), (769, 193, 97)] {
            let shapes = graph.shapes(2, size, size).unwrap();
            let shape = |tag| shapes[graph.tagged(tag).unwrap().0].clone();
            assert_eq!(shape(Tag::Logits), [2, 21, quarter, quarter]);
            assert_eq!(shape(Tag::Features), [2, 512, quarter, quarter]);
            let layer4 = graph.find("encoder.layer4.2.relu3").unwrap();
            assert_eq!(shapes[layer4.0], [2, 2048, eighth, eighth]);
        }
        assert_eq!(
            (graph.encoder_stride(), graph.stride_of(graph.tagged(Tag::Logits).unwrap())),
            (8, 4)
        );
    }
}

#[test]
fn every_preset_builds_with_plausible_costs() {
    // By its publication, EfficientNet-Lite0 has 4.7 million parameters and 407 million
    // multiply-adds.
    for preset in Preset::ALL {
        let arch = Arch::new(preset, 19).unwrap();
        let graph = arch.inference_graph();
        assert!(graph.tagged(Tag::Aux).is_none());
        assert_eq!(graph.encoder_stride(), arch.encoder_stride());
        assert_eq!(graph.stride_of(graph.tagged(Tag::Logits).unwrap()), arch.logit_stride());
        assert!(
            graph.receptive_field(graph.tagged(Tag::Logits).unwrap()).is_none(),
            "a global pool sees the whole image"
        );
        graph.shapes(1, 32, 33).unwrap_or_else(|error| panic!("{preset}: {error}"));
    }
    let error = Arch::new(Preset::DeepLabV3PlusEfficientNetLite0, 19)
        .unwrap()
        .graph()
        .shapes(1, 1, 9)
        .unwrap_err();
    assert_eq!((error.height, error.width), (1, 9));
    let lite0 = efficientnet_lite::classifier(LITE0);
    assert_eq!(lite0.parameter_count(), 4_652_008);
    let multiply_adds = lite0.multiply_adds(224, 224).unwrap();
    assert!((375_000_000..410_000_000).contains(&multiply_adds), "{multiply_adds}");
}
