//! Where a point of the street falls on the picture, and which ray a pixel looks along.
//!
//! The street runs along `z`; `x` is right of its middle, `y` above the ground, in metres. The plan is the street seen
//! from the camera: `[x, z]` with the camera at its origin. On the picture `u` runs 0 to 2, `v` 0 to 1, whatever its size.

use super::noise::Rng;

/// Nothing nearer than this is drawn.
pub(super) const NEAR: f32 = 0.6;

#[derive(Debug, Clone, Copy)]
pub(super) struct Camera {
    pub(super) focal: f32,
    pub(super) horizon: f32,
    pub(super) center: f32,
    /// Above the ground, in metres.
    pub(super) height: f32,
    /// Right of the middle of the street, in metres.
    pub(super) offset: f32,
    /// The street leaves its tangent by `bend * z * z`.
    pub(super) bend: f32,
}

impl Camera {
    pub(super) fn new(rng: &mut Rng, road_half: f32) -> Self {
        Self {
            focal: rng.range(1.35, 2.1),
            horizon: rng.range(0.38, 0.5),
            center: rng.range(0.75, 1.25),
            height: rng.range(1.25, 2.1),
            offset: road_half * rng.range(0.2, 0.55),
            bend: if rng.chance(0.4) { rng.range(-0.0016, 0.0016) } else { 0.0 },
        }
    }

    /// The plan place of a place of the street.
    pub(super) fn plan(&self, x: f32, z: f32) -> [f32; 2] {
        [x + self.bend * z * z - self.offset, z]
    }

    /// The place of the street of a place of the plan.
    pub(super) fn street(&self, plan: [f32; 2]) -> [f32; 2] {
        [plan[0] - self.bend * plan[1] * plan[1] + self.offset, plan[1]]
    }

    /// The direction of the street at a depth, of length 1, in the plan.
    pub(super) fn along(&self, z: f32) -> [f32; 2] {
        let slope = 2.0 * self.bend * z;
        let length = (1.0 + slope * slope).sqrt();
        [slope / length, 1.0 / length]
    }

    /// `[u, v]` of a plan place at a height; the depth must be positive.
    pub(super) fn project(&self, plan: [f32; 2], y: f32) -> [f32; 2] {
        [
            self.center + self.focal * plan[0] / plan[1],
            self.horizon + self.focal * (self.height - y) / plan[1],
        ]
    }

    /// The ray through `[u, v]`: right and up per metre of depth.
    pub(super) fn ray(&self, u: f32, v: f32) -> [f32; 2] {
        [(u - self.center) / self.focal, (self.horizon - v) / self.focal]
    }

    /// The plan place on the ground that `[u, v]` shows; nothing at and above the horizon.
    pub(super) fn ground(&self, u: f32, v: f32) -> Option<[f32; 2]> {
        let [right, up] = self.ray(u, v);
        let depth = -self.height / up;
        (up < -0.001).then_some([right * depth, depth])
    }
}
