//! Street scenes drawn by rule, with exact labels: a data set that needs no download.
//!
//! A scene is laid out in metres, so its content does not depend on its size in pixels; it is seen through a pinhole camera.
//! Colors overlap between classes on purpose: shape, place and texture tell them apart.

#![warn(missing_docs)]

mod barriers;
mod buildings;
mod camera;
mod canvas;
mod cars;
mod furniture;
mod layout;
mod light;
mod noise;
mod people;
mod plants;
mod roadside;
mod sensor;
mod shape;
mod street;
mod transit;
mod trucks;
mod two_wheelers;
mod world;

use camera::Camera;
use canvas::Canvas;
use light::Light;
use noise::Rng;
use street::Street;
use world::World;

use protoseg_models::random::Stream;

/// The 19 train ids of Cityscapes, and the one that counts for nothing.
mod train_id {
    pub(super) const ROAD: u8 = 0;
    pub(super) const SIDEWALK: u8 = 1;
    pub(super) const BUILDING: u8 = 2;
    pub(super) const WALL: u8 = 3;
    pub(super) const FENCE: u8 = 4;
    pub(super) const POLE: u8 = 5;
    pub(super) const TRAFFIC_LIGHT: u8 = 6;
    pub(super) const TRAFFIC_SIGN: u8 = 7;
    pub(super) const VEGETATION: u8 = 8;
    pub(super) const TERRAIN: u8 = 9;
    pub(super) const SKY: u8 = 10;
    pub(super) const PERSON: u8 = 11;
    pub(super) const RIDER: u8 = 12;
    pub(super) const CAR: u8 = 13;
    pub(super) const TRUCK: u8 = 14;
    pub(super) const BUS: u8 = 15;
    pub(super) const TRAIN: u8 = 16;
    pub(super) const MOTORCYCLE: u8 = 17;
    pub(super) const BICYCLE: u8 = 18;
    pub(super) const IGNORE_INDEX: u8 = 255;
}

/// A picture of a street and what each of its pixels shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scene {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// RGB, `[height, width, 3]`.
    pub image: Vec<u8>,
    /// Train ids of Cityscapes, 0 to 18, or 255 for what counts for nothing, `[height, width]`.
    pub labels: Vec<u8>,
}

/// Scene `index` of the endless set `seed` at a size; same arguments, same bytes, on every machine.
///
/// The scene is composed for pictures twice as wide as high and is stretched to any other shape.
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

    let mut canvas = Canvas::new(height, width, camera, light);
    let mut world = World::new(camera, light);
    layout::populate(&mut world, &street, stream.child(3));
    world.render(&mut canvas);
    canvas.fill_background(train_id::SKY, |plan, texel| {
        street.ground(camera.street(plan), texel, &light)
    });
    sensor::draw_hood(&mut canvas, &mut Rng::new(stream.child(4)), &light);
    let image = sensor::expose(&canvas, &light, Rng::new(stream.child(5)).key());
    Scene { height, width, image, labels: canvas.labels }
}
