//! Properties of images of cells: fixed bytes, both classes, several looks.

use protoseg_models::digest::fnv1a64;
use protoseg_synthetic::{Scene, render_cells, render_scene};

/// Mean brightness of the pixels of a class.
fn brightness(scene: &Scene, class: u8) -> f64 {
    let pixels = scene.image.chunks_exact(3).zip(&scene.labels);
    let values: Vec<f64> = pixels
        .filter(|(_, label)| **label == class)
        .map(|(pixel, _)| pixel.iter().map(|&value| f64::from(value)).sum::<f64>() / 3.0)
        .collect();
    values.iter().sum::<f64>() / values.len() as f64
}

#[test]
fn the_same_arguments_give_the_same_bytes_on_every_machine() {
    let scene = render_cells(7, 3, 48, 96);
    assert_eq!(
        [fnv1a64(&scene.image), fnv1a64(&scene.labels)],
        [10_330_592_642_938_913_908, 2_757_827_871_440_835_598]
    );
    assert_eq!(scene, render_cells(7, 3, 48, 96));
    for other in [render_cells(8, 3, 48, 96), render_cells(7, 4, 48, 96)] {
        assert_ne!(scene.labels, other.labels);
    }
    assert_ne!(scene.image, render_scene(7, 3, 48, 96).image);
}

#[test]
fn cells_are_brighter_than_their_ground_in_some_images_and_darker_in_others() {
    let (mut brighter, mut darker, mut share) = (0, 0, 0.0);
    for index in 0..60 {
        let scene = render_cells(2, index, 96, 96);
        let cells = scene.labels.iter().filter(|&&label| label == 1).count();
        assert!(scene.labels.iter().all(|&label| label < 2) && cells > 0, "image {index}");
        share += cells as f64 / scene.labels.len() as f64 / 60.0;
        let difference = brightness(&scene, 1) - brightness(&scene, 0);
        brighter += usize::from(difference > 20.0);
        darker += usize::from(difference < -20.0);
    }
    assert!(brighter >= 10 && darker >= 10, "{brighter} brighter, {darker} darker");
    assert!((0.08..0.35).contains(&share), "{share}");
}

#[test]
fn images_of_any_size_are_drawn() {
    for [height, width] in [[1, 1], [1, 40], [33, 2], [64, 48]] {
        let scene = render_cells(1, 1, height, width);
        assert_eq!((scene.image.len(), scene.labels.len()), (3 * height * width, height * width));
    }
}
