//! Synthetic street scenes, and cells under the microscope, with exact labels: datasets that need no
//! download.
//!
//! A street is laid out in meters, so its content does not depend on its size in pixels, and
//! rendered through a pinhole camera. Colors overlap between classes on purpose: shape, place and
//! texture tell them apart.

#![warn(missing_docs)]

mod barriers;
mod buildings;
mod camera;
mod canvas;
mod cells;
mod furniture;
mod layout;
mod light;
mod noise;
mod people;
mod plants;
mod sensor;
mod street;
mod transit;
mod vehicles;
mod world;

pub use cells::{CELL_CLASSES, render_cells};

use camera::{Camera, Raster};
use canvas::Canvas;
use light::Light;
use noise::Rng;
use street::Street;
use world::World;

use protoseg_models::random::Stream;

/// The 19 train ids of Cityscapes, and the ignored one.
mod train_id {
    pub(crate) const ROAD: u8 = 0;
    pub(crate) const SIDEWALK: u8 = 1;
    pub(crate) const BUILDING: u8 = 2;
    pub(crate) const WALL: u8 = 3;
    pub(crate) const FENCE: u8 = 4;
    pub(crate) const POLE: u8 = 5;
    pub(crate) const TRAFFIC_LIGHT: u8 = 6;
    pub(crate) const TRAFFIC_SIGN: u8 = 7;
    pub(crate) const VEGETATION: u8 = 8;
    pub(crate) const TERRAIN: u8 = 9;
    pub(crate) const SKY: u8 = 10;
    pub(crate) const PERSON: u8 = 11;
    pub(crate) const RIDER: u8 = 12;
    pub(crate) const CAR: u8 = 13;
    pub(crate) const TRUCK: u8 = 14;
    pub(crate) const BUS: u8 = 15;
    pub(crate) const TRAIN: u8 = 16;
    pub(crate) const MOTORCYCLE: u8 = 17;
    pub(crate) const BICYCLE: u8 = 18;
    pub(crate) const IGNORE_INDEX: u8 = 255;
}

/// An image with its labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scene {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// RGB, `[height, width, 3]`.
    pub image: Vec<u8>,
    /// Ids of classes, or 255 for ignored pixels, `[height, width]`; on streets the train ids of
    /// Cityscapes, 0 to 18.
    pub labels: Vec<u8>,
}

/// Renders scene `index` of the endless dataset `seed`; same arguments, same bytes, on every
/// machine.
///
/// The scene is composed for images twice as wide as high and is stretched to any other shape.
///
/// ```
/// let scene = protoseg_synthetic::render_scene(7, 0, 32, 64);
/// assert_eq!(scene.image.len(), 32 * 64 * 3);
/// assert!(scene.labels.iter().all(|&label| label < 19 || label == 255));
/// ```
pub fn render_scene(seed: u64, index: u64, height: usize, width: usize) -> Scene {
    let stream = Stream::named("scenes").child(seed).child(index);
    let light = Light::new(&mut Rng::new(stream.child(0)));
    let street = Street::new(&mut Rng::new(stream.child(1)), &light);
    let camera = Camera::new(&mut Rng::new(stream.child(2)), street.road_half);

    let mut canvas = Canvas::new(Raster { height, width }, camera, light);
    let mut world = World::new(camera, light);
    layout::populate(&mut world, &street, stream.child(3));
    world.render(&mut canvas);
    canvas.fill_background(train_id::SKY, |plan, texel| {
        street.ground(camera.street(plan), texel, &light)
    });
    let hood = &mut Rng::new(stream.child(4));
    sensor::draw_hood(&mut canvas, train_id::IGNORE_INDEX, hood, &light);
    let image = sensor::expose(&canvas, &light, Rng::new(stream.child(5)).key());
    Scene { height, width, image, labels: canvas.labels }
}
