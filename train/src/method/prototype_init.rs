//! Initialization of the prototypes: k-means per class over the teacher's features of all labeled images.
//!
//! Images of more than [`tiles::WHOLE_PIXELS`] pixels are processed in the network's default windows.

use anyhow::{Context, Result};
use protoseg_images::image_file::MAX_PIXELS;
use protoseg_images::labeled::{LabeledDataset, LabeledImage};
use protoseg_models::graph::{Graph, NodeId, Op, Tag};
use protoseg_models::random::Stream;
use protoseg_models::window::{LogitGrid, WindowAxis, WindowPlan};
use rayon::prelude::*;
use tch::{Kind, Tensor};

use crate::config::options::FeatureSource;
use crate::method::kmeans;
use crate::method::prototypes::{PrototypeSettings, Prototypes};
use crate::net::{self, ForwardMode, Net};
use crate::progress::Progress;
use crate::streams::PROTOTYPE_INIT;
use crate::tiles;

/// Largest number of points per class.
pub(crate) const POINTS: usize = 5000;

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

/// Clusters the features of labeled images: at most 5000 points per class, spread evenly over the images, on the grid of the
/// feature map with the label of the nearest pixel. Classes without a point are not active. Every image counts as two parts
/// of the progress.
pub fn initialize(
    net: &Net,
    node: NodeId,
    samples: &LabeledDataset,
    settings: PrototypeSettings,
    grid: LogitGrid,
    progress: &Progress,
) -> Result<Prototypes> {
    let _guard = tch::no_grad_guard();
    let [stream, seeds] = [0, 1].map(|part| Stream::keyed(&[settings.seed, PROTOTYPE_INIT, part]));
    let interrupt = net.interrupt();
    let counts = (0..samples.count()).into_par_iter().map(|index| -> Result<Vec<usize>> {
        interrupt.check()?;
        let sample = samples.read(index, MAX_PIXELS)?;
        let places = places(grid, &sample, settings.classes);
        progress.done();
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
        let mut chosen = places(grid, &sample, settings.classes);
        for (class, places) in chosen.iter_mut().enumerate() {
            let stream = stream.child(index as u64).child(class as u64);
            let taken = quota[class]
                .min(places.len())
                .min(POINTS.saturating_sub(points[class].len() / channels));
            for place in 0..taken {
                let drawn = place + stream.below(place as u64, places.len() - place);
                places.swap(place, drawn);
            }
            places.truncate(taken);
        }
        let features = features_at(net, node, grid, &sample, &chosen)?;
        for (points, features) in points.iter_mut().zip(features) {
            points.extend(features);
        }
        progress.done();
    }
    center_and_cluster(points, channels, settings, seeds, net)
}

/// Returns the features at places of the feature map of an image, for each class; of large images, from the window in which
/// a place is farthest from the border.
pub(crate) fn features_at(
    net: &Net,
    node: NodeId,
    grid: LogitGrid,
    sample: &LabeledImage,
    places: &[Vec<usize>],
) -> Result<Vec<Vec<f32>>> {
    let channels = net.graph().node(node).channels;
    let rows_of = |pixels: &[u8], size: [usize; 2]| -> Result<Tensor> {
        let image = net::images_to_tensor(pixels, size, net.device())?;
        let map = net.forward(&image, ForwardMode::Eval, &[node])?.remove(0);
        Ok(map.f_permute([0, 2, 3, 1])?.f_reshape([-1, channels as i64])?)
    };
    let select = |rows: &Tensor, places: &[i64]| -> Result<Vec<f32>> {
        let places = Tensor::f_from_slice(places)?.f_to_device(rows.device())?;
        Ok(net::from_torch(&rows.f_index_select(0, &places)?)?.data)
    };
    let (pixels, size) = (sample.image.as_raw().as_slice(), sample.size());
    let Some(plan) = tiles::plan(size, None, grid)? else {
        let rows = rows_of(pixels, size)?;
        let select_class = |places: &Vec<usize>| {
            select(&rows, &places.iter().map(|&place| place as i64).collect::<Vec<_>>())
        };
        return places.iter().map(select_class).collect();
    };
    let columns = size[1].div_ceil(grid.stride);
    let mut features: Vec<Vec<f32>> =
        places.iter().map(|places| vec![0.0; places.len() * channels]).collect();
    let owner = window_of_each_place(&plan);
    let [_, across] = plan.tile_logits();
    for (number, (corner, start)) in plan.starts().zip(plan.logit_starts()).enumerate() {
        let number = [number / plan.columns.starts.len(), number % plan.columns.starts.len()];
        // Class, position in its list, and place in the window.
        let mut inside: Vec<(usize, usize, i64)> = Vec::new();
        for (class, places) in places.iter().enumerate() {
            for (position, &place) in places.iter().enumerate() {
                let [row, column] = [place / columns, place % columns];
                if [owner[0][row], owner[1][column]] == number {
                    let local = (row - start[0]) * across + column - start[1];
                    inside.push((class, position, local as i64));
                }
            }
        }
        if inside.is_empty() {
            continue;
        }
        let tile = tiles::cut(pixels, size, corner, plan.tile_size());
        let rows = rows_of(&tile, plan.tile_size())?;
        let local: Vec<i64> = inside.iter().map(|&(_, _, local)| local).collect();
        let found = select(&rows, &local)?;
        for (&(class, position, _), values) in inside.iter().zip(found.chunks_exact(channels)) {
            features[class][position * channels..][..channels].copy_from_slice(values);
        }
    }
    Ok(features)
}

/// Returns, for each row and column of the frame's logits, the index of the window in which it is farthest from the border.
fn window_of_each_place(plan: &WindowPlan) -> [Vec<usize>; 2] {
    let axis = |axis: &WindowAxis, side: usize, length: usize| -> Vec<usize> {
        let starts: Vec<usize> = axis.starts.iter().map(|start| start / plan.grid.stride).collect();
        let margin = |start: usize, place: usize| {
            let offset = place.checked_sub(start).filter(|&offset| offset < side)?;
            Some(offset.min(side - 1 - offset))
        };
        let best = |place: usize| {
            (0..starts.len()).max_by_key(|&window| margin(starts[window], place)).unwrap_or(0)
        };
        (0..length).map(best).collect()
    };
    let ([height, width], [down, across]) = (plan.logit_size(), plan.tile_logits());
    [axis(&plan.rows, down, height), axis(&plan.columns, across, width)]
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
    fn every_place_belongs_to_a_window_that_covers_it() {
        let grid = LogitGrid { stride: 4, encoder_stride: 16, align_corners: false };
        for size in [[700, 2000], [1200, 1201]] {
            let plan = tiles::plan(size, None, grid).unwrap().unwrap();
            let starts: Vec<[usize; 2]> = plan.logit_starts().collect();
            let across = plan.columns.starts.len();
            let [rows, columns] = window_of_each_place(&plan);
            assert!(rows.len() >= size[0].div_ceil(4) && columns.len() >= size[1].div_ceil(4));
            for (row, &down) in rows.iter().enumerate() {
                for (column, &right) in columns.iter().enumerate() {
                    let [top, left] = starts[down * across + right];
                    let side = plan.tile_logits();
                    assert!((top..top + side[0]).contains(&row), "{size:?} {row}");
                    assert!((left..left + side[1]).contains(&column), "{size:?} {column}");
                }
            }
        }
    }

    #[test]
    fn places_have_the_label_of_their_nearest_pixel() {
        let truth: Vec<u8> = (0..12 * 8).map(|pixel| u8::from(pixel % 12 >= 6)).collect();
        let sample =
            LabeledImage { image: RgbImage::new(12, 8), truth, ids: None, palette: Vec::new() };
        let grid = |align_corners| LogitGrid { stride: 4, encoder_stride: 4, align_corners };
        let half = places(grid(false), &sample, 2);
        assert_eq!(half, [vec![0, 3], vec![1, 2, 4, 5]]);
        let truth: Vec<u8> = (0..9 * 9).map(|pixel| u8::from(pixel % 9 >= 4)).collect();
        let sample =
            LabeledImage { image: RgbImage::new(9, 9), truth, ids: None, palette: Vec::new() };
        let aligned = places(grid(true), &sample, 2);
        assert_eq!(aligned, [vec![0, 3, 6], vec![1, 2, 4, 5, 7, 8]]);
    }
}
