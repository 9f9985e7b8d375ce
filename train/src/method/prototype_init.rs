//! Initialization of the prototypes: k-means per class over the teacher's features of all labeled images.

use anyhow::{Context, Result};
use protoseg_images::image_file::MAX_PIXELS;
use protoseg_images::labeled::{LabeledDataset, LabeledImage};
use protoseg_models::graph::{Graph, NodeId, Op, Tag};
use protoseg_models::random::Stream;
use protoseg_models::window::LogitGrid;
use rayon::prelude::*;
use tch::{Kind, Tensor};

use crate::config::options::FeatureSource;
use crate::method::kmeans;
use crate::method::prototypes::{PrototypeSettings, Prototypes};
use crate::net::{self, ForwardMode, Net};
use crate::streams::PROTOTYPE_INIT;

/// Largest number of points per class.
const POINTS: usize = 5000;

/// Returns the node whose output is compared with prototypes.
pub fn feature_node(graph: &Graph, features: FeatureSource) -> Result<NodeId> {
    let id = graph
        .tagged(Tag::Features)
        .context("the network has no features to compare with prototypes")?;
    let node = graph.node(id);
    match features {
        FeatureSource::Plain | FeatureSource::Centered => Ok(id),
        FeatureSource::BeforeRelu if node.op == Op::Relu => Ok(node.inputs[0]),
        FeatureSource::BeforeRelu => {
            anyhow::bail!(
                "`features = \"before-relu\"`: the features of this network do not come from a ReLU"
            )
        }
    }
}

/// Clusters the features of whole labeled images: at most 5000 points per class, spread evenly over the images, on the grid
/// of the feature map with the label of the nearest pixel. Classes without a point are not active.
pub fn initialize(
    net: &Net,
    node: NodeId,
    samples: &LabeledDataset,
    settings: PrototypeSettings,
    grid: LogitGrid,
) -> Result<Prototypes> {
    let _guard = tch::no_grad_guard();
    let [stream, seeds] = [0, 1].map(|part| Stream::keyed(&[settings.seed, PROTOTYPE_INIT, part]));
    let counts = (0..samples.count()).into_par_iter().map(|index| -> Result<Vec<usize>> {
        let sample = samples.read(index, MAX_PIXELS)?;
        let places = places(grid, &sample, settings.classes);
        Ok(places.iter().map(Vec::len).collect())
    });
    let counts: Vec<Vec<usize>> = counts.collect::<Result<_>>()?;
    let quota: Vec<usize> = (0..settings.classes)
        .map(|class| {
            even_share(&counts.iter().map(|counts| counts[class]).collect::<Vec<_>>(), POINTS)
        })
        .collect();

    let channels = net.graph().node(node).channels;
    let mut points: Vec<Vec<f32>> = vec![Vec::new(); settings.classes];
    for index in 0..samples.count() {
        let sample = samples.read(index, MAX_PIXELS)?;
        let image = net::images_to_tensor(sample.image.as_raw(), sample.size(), net.device())?;
        let map = net.forward(&image, ForwardMode::Eval, &[node])?.remove(0);
        let rows = map.f_permute([0, 2, 3, 1])?.f_reshape([-1, channels as i64])?;
        for (class, mut places) in places(grid, &sample, settings.classes).into_iter().enumerate() {
            let stream = stream.child(index as u64).child(class as u64);
            let taken = quota[class]
                .min(places.len())
                .min(POINTS.saturating_sub(points[class].len() / channels));
            for place in 0..taken {
                let drawn = place + stream.below(place as u64, places.len() - place);
                places.swap(place, drawn);
            }
            let chosen: Vec<i64> = places[..taken].iter().map(|&place| place as i64).collect();
            let chosen = Tensor::f_from_slice(&chosen)?.f_to_device(rows.device())?;
            points[class].extend(net::from_torch(&rows.f_index_select(0, &chosen)?)?.data);
        }
    }
    center_and_cluster(points, channels, settings, seeds, net)
}

fn center_and_cluster(
    mut points: Vec<Vec<f32>>,
    channels: usize,
    settings: PrototypeSettings,
    seeds: Stream,
    net: &Net,
) -> Result<Prototypes> {
    let mut mean = vec![0.0_f32; channels];
    if settings.centered {
        let count = points.iter().map(Vec::len).sum::<usize>() / channels;
        for (index, value) in points.iter().flat_map(|points| points.iter().enumerate()) {
            mean[index % channels] += value / count.max(1) as f32;
        }
        for (index, value) in points.iter_mut().flat_map(|points| points.iter_mut().enumerate()) {
            *value -= mean[index % channels];
        }
    }
    let active = points.iter().map(|points| !points.is_empty()).collect();
    let cluster = |(class, points): (usize, &Vec<f32>)| {
        kmeans::cluster(
            points,
            channels,
            settings.per_class,
            settings.average,
            seeds.child(class as u64),
        )
    };
    let values: Vec<f32> = points.par_iter().enumerate().map(cluster).collect::<Vec<_>>().concat();
    let shape = [(settings.classes * settings.per_class) as i64, channels as i64];
    let tensor = |values: &[f32]| -> Result<Tensor> {
        Ok(Tensor::f_from_slice(values)?.f_to_kind(Kind::Float)?.f_to_device(net.device())?)
    };
    Ok(Prototypes::new(settings, tensor(&values)?.f_view(shape)?, tensor(&mean)?, active))
}

/// Returns, for each class, the positions in the feature map, row by row, whose nearest pixel has its label.
fn places(grid: LogitGrid, sample: &LabeledImage, classes: usize) -> Vec<Vec<usize>> {
    let [height, width] = sample.size();
    let nearest = |length: usize| -> Vec<usize> {
        let places = length.div_ceil(grid.stride);
        let pixel = |place: usize| {
            if grid.align_corners {
                (2 * place * (length - 1) + places.saturating_sub(1))
                    / (2 * places.saturating_sub(1)).max(1)
            } else {
                (2 * place + 1) * length / (2 * places)
            }
        };
        (0..places).map(pixel).collect()
    };
    let (rows, columns) = (nearest(height), nearest(width));
    let mut found = vec![Vec::new(); classes];
    let pixels = rows.iter().flat_map(|row| columns.iter().map(move |column| row * width + column));
    for (place, pixel) in pixels.enumerate() {
        if let Some(places) = found.get_mut(usize::from(sample.truth[pixel])) {
            places.push(place);
        }
    }
    found
}

/// Returns the number of points per image, rounded up, such that all images together give at most `most`; images with
/// fewer points give all of theirs.
fn even_share(counts: &[usize], most: usize) -> usize {
    let mut sorted: Vec<usize> = counts.iter().copied().filter(|count| *count > 0).collect();
    sorted.sort_unstable();
    let mut left = most;
    for (index, &count) in sorted.iter().enumerate() {
        let share = left.div_ceil(sorted.len() - index);
        if count >= share {
            return share;
        }
        left -= count;
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::RgbImage;

    #[test]
    fn shares_are_even_and_use_all_points_of_small_images() {
        assert_eq!(even_share(&[10, 10, 10], 15), 5);
        assert_eq!(even_share(&[1, 100, 0, 100], 21), 10);
        assert_eq!(even_share(&[1, 2, 3], 100), 100);
        assert_eq!(even_share(&[], 7), 7);
    }

    #[test]
    fn places_have_the_label_of_their_nearest_pixel() {
        let truth: Vec<u8> = (0..12 * 8).map(|pixel| u8::from(pixel % 12 >= 6)).collect();
        let sample = LabeledImage { image: RgbImage::new(12, 8), truth };
        let grid = |align_corners| LogitGrid { stride: 4, encoder_stride: 4, align_corners };
        let half = places(grid(false), &sample, 2);
        assert_eq!(half, [vec![0, 3], vec![1, 2, 4, 5]]);
        let truth: Vec<u8> = (0..9 * 9).map(|pixel| u8::from(pixel % 9 >= 4)).collect();
        let sample = LabeledImage { image: RgbImage::new(9, 9), truth };
        let aligned = places(grid(true), &sample, 2);
        assert_eq!(aligned, [vec![0, 3, 6], vec![1, 2, 4, 5, 7, 8]]);
    }
}
