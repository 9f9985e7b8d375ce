//! Precise BatchNorm (Wu and Johnson, Rethinking "Batch" in BatchNorm, 2021): recomputes running statistics, which lag
//! behind weights that still move fast.

use anyhow::{Context, Result};
use protoseg_models::random::Stream;

use crate::data::cache::ImageCache;
use crate::data::loader::BatchBuilder;
use crate::interrupt::Interrupt;
use crate::net::{self, ForwardMode, Net};
use crate::progress::Progress;
use crate::streams::PRECISE_BN;

/// Replaces the running statistics by their means over `batches` batches of labeled crops; keeps them if that is 0.
///
/// Interrupted, it leaves statistics of some of the batches behind.
pub fn update_statistics(
    net: &Net,
    builder: &BatchBuilder,
    cache: &ImageCache,
    batches: u64,
    interrupt: &Interrupt,
    progress: &Progress,
) -> Result<()> {
    let _guard = tch::no_grad_guard();
    // The last node makes the pass compute all of them.
    let (last, _) = net.graph().iter().last().context("the network is empty")?;
    for seen in 0..batches {
        interrupt.check()?;
        let batch = builder.statistics_batch(cache, seen)?;
        tch::manual_seed(Stream::keyed(&[builder.seed, PRECISE_BN, seen, 1]).bits(0) as i64);
        let images = net::images_to_tensor(&batch.pixels, builder.size, net.device())?;
        net.forward(&images, ForwardMode::PreciseBn { seen }, &[last])?;
        progress.done();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::options::PadLabel;
    use crate::data::augment::Geometry;
    use crate::data::photometric::ColorRanges;
    use protoseg_images::labeled::LabeledDataset;
    use protoseg_models::arch::{Arch, Preset};
    use protoseg_models::formula;
    use tch::{Device, Kind};

    #[test]
    fn statistics_become_means_over_the_batches() {
        let graph = Arch::new(Preset::DeepLabV3PlusEfficientNetLite0, 3).unwrap().graph();
        let net = Net::new(graph.clone(), &formula::weights(&graph, Some(1)), Device::Cpu).unwrap();
        let (side, batch) = (64, 2);
        let builder = BatchBuilder {
            seed: 1,
            batch,
            accumulate: 1,
            size: [side; 2],
            crops_per_image: 0,
            padding: [0; 3],
            pad_label: PadLabel::Ignore,
            geometry: Geometry::default(),
            photometric: false,
            labeled_photometric: false,
            colors: ColorRanges::default(),
            unlabeled_from: None,
        };
        let cache = ImageCache::new(Arc::new(LabeledDataset::Synthetic {
            seed: 1,
            first: 0,
            count: 5,
            size: [64, 96],
        }));
        // The first convolution reads the images themselves, so its batch means are known.
        let first = graph.iter().find(|(_, node)| node.name.ends_with("_conv_stem")).unwrap().0;
        let mut expected = 0.0;
        for seen in 0..3 {
            let pixels = builder.statistics_batch(&cache, seen).unwrap().pixels;
            let images = net::images_to_tensor(&pixels, [side; 2], Device::Cpu).unwrap();
            let output = net.forward(&images, ForwardMode::Eval, &[first]).unwrap().remove(0);
            expected +=
                output.mean_dim([0_i64, 2, 3].as_slice(), false, Kind::Double).double_value(&[4])
                    / 3.0;
        }
        let update = |batches| {
            let (interrupt, progress) = (Interrupt::never(), Progress::hidden());
            update_statistics(&net, &builder, &cache, batches, &interrupt, &progress).unwrap();
        };
        update(0);
        let name = "encoder._bn0.running_mean";
        assert_eq!(net.state_dict().unwrap()[name], formula::weights(&graph, Some(1))[name]);
        update(3);
        let found = f64::from(net.state_dict().unwrap()[name].data[4]);
        assert!((found - expected).abs() < 1e-4 * expected.abs().max(1.0), "{found} {expected}");
    }
}
