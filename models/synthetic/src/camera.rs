//! Pinhole camera and the pixel grid.
//!
//! The street runs along `z`; `x` is right of its middle, `y` above the ground, in meters. The
//! *plan* is the street seen from the camera: `[x, z]` with the camera at its origin. On the image
//! `u` runs from 0 to 2 and `v` from 0 to 1, whatever its size in pixels.

use std::ops::Range;

use crate::noise::Rng;

/// Nearest depth that is drawn, in meters.
pub(crate) const NEAR: f32 = 0.6;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Camera {
    pub(crate) focal: f32,
    pub(crate) horizon: f32,
    pub(crate) center: f32,
    /// Above the ground, in meters.
    pub(crate) height: f32,
    /// Right of the middle of the street, in meters.
    offset: f32,
    /// The street leaves its tangent by `bend * z * z`.
    bend: f32,
}

impl Camera {
    pub(crate) fn new(rng: &mut Rng, road_half: f32) -> Self {
        Self {
            focal: rng.range(1.35, 2.1),
            horizon: rng.range(0.38, 0.5),
            center: rng.range(0.75, 1.25),
            height: rng.range(1.25, 2.1),
            offset: road_half * rng.range(0.2, 0.55),
            bend: if rng.chance(0.4) { rng.range(-0.0016, 0.0016) } else { 0.0 },
        }
    }

    /// Street coordinates to plan coordinates.
    pub(crate) fn plan(&self, x: f32, z: f32) -> [f32; 2] {
        [x + self.bend * z * z - self.offset, z]
    }

    /// Plan coordinates to street coordinates.
    pub(crate) fn street(&self, plan: [f32; 2]) -> [f32; 2] {
        [plan[0] - self.bend * plan[1] * plan[1] + self.offset, plan[1]]
    }

    /// Unit vector along the street at a depth, in the plan.
    pub(crate) fn along(&self, z: f32) -> [f32; 2] {
        let slope = 2.0 * self.bend * z;
        let length = (1.0 + slope * slope).sqrt();
        [slope / length, 1.0 / length]
    }

    /// `[u, v]` of a plan point at a height; the depth must be positive.
    pub(crate) fn project(&self, plan: [f32; 2], y: f32) -> [f32; 2] {
        [
            self.center + self.focal * plan[0] / plan[1],
            self.horizon + self.focal * (self.height - y) / plan[1],
        ]
    }

    /// The ray through `[u, v]`: right and up per meter of depth.
    pub(crate) fn ray(&self, [u, v]: [f32; 2]) -> [f32; 2] {
        [(u - self.center) / self.focal, (self.horizon - v) / self.focal]
    }

    /// The plan point on the ground under `[u, v]`; `None` at and above the horizon.
    pub(crate) fn ground(&self, uv: [f32; 2]) -> Option<[f32; 2]> {
        let [right, up] = self.ray(uv);
        let depth = -self.height / up;
        (up < -0.001).then_some([right * depth, depth])
    }
}

/// Size of the image in pixels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Raster {
    pub(crate) height: usize,
    pub(crate) width: usize,
}

impl Raster {
    pub(crate) fn u(self, column: usize) -> f32 {
        (column as f32 + 0.5) * 2.0 / self.width as f32
    }

    pub(crate) fn v(self, row: usize) -> f32 {
        (row as f32 + 0.5) / self.height as f32
    }

    /// Index and `[u, v]` of each pixel of some columns and rows.
    pub(crate) fn pixels(
        self,
        [columns, rows]: [Range<usize>; 2],
    ) -> impl Iterator<Item = (usize, [f32; 2])> {
        rows.flat_map(move |row| {
            let v = self.v(row);
            columns.clone().map(move |column| (row * self.width + column, [self.u(column), v]))
        })
    }

    /// Index and `[u, v]` of every pixel.
    pub(crate) fn all(self) -> impl Iterator<Item = (usize, [f32; 2])> {
        self.pixels([0..self.width, 0..self.height])
    }
}
