//! What stands in the street, collected before it is drawn from near to far.

use super::camera::{Camera, NEAR};
use super::canvas::Canvas;
use super::light::Light;
use super::shape::{Fragment, Hit, Plane, Pose, Shader, Shadow, Shape};

pub(super) struct World {
    pub(super) camera: Camera,
    pub(super) light: Light,
    items: Vec<(f32, Shape, Shader)>,
    shadows: Vec<Shadow>,
    taken: Vec<[f32; 4]>,
}

impl World {
    pub(super) fn new(camera: Camera, light: Light) -> Self {
        Self { camera, light, items: Vec::new(), shadows: Vec::new(), taken: Vec::new() }
    }

    /// A stand on the street; `turn` is the heading against the street's: `[0, 1]` along it, `[1, 0]` to its right.
    pub(super) fn pose(&self, x: f32, z: f32, turn: [f32; 2]) -> Pose {
        let [sine, cosine] = self.camera.along(z);
        let heading = [turn[0] * cosine + turn[1] * sine, turn[1] * cosine - turn[0] * sine];
        Pose { place: self.camera.plan(x, z), heading }
    }

    /// Claims a rectangle of the street, `half` wide and long to either side; `false` where some of it is taken.
    pub(super) fn reserve(&mut self, x: f32, z: f32, half: [f32; 2]) -> bool {
        let free = self.taken.iter().all(|other| {
            (x - other[0]).abs() >= half[0] + other[2] || (z - other[1]).abs() >= half[1] + other[3]
        });
        if free {
            self.taken.push([x, z, half[0], half[1]]);
        }
        free
    }

    /// An upright rectangle over a plan line.
    pub(super) fn panel(
        &mut self,
        ends: [[f32; 2]; 2],
        height: [f32; 2],
        shade: impl Fn(&Hit) -> Option<Fragment> + 'static,
    ) {
        let [a, b] = ends;
        if a[1].max(b[1]) > NEAR {
            let depth = 0.5 * (a[1].max(NEAR) + b[1].max(NEAR));
            let shape = Shape::Panel { a, b, base: height[0], top: height[1] };
            self.items.push((depth, shape, Box::new(shade)));
        }
    }

    /// A panel that faces the camera: what is round, or too thin to tell.
    pub(super) fn billboard(
        &mut self,
        place: [f32; 2],
        half_width: f32,
        height: [f32; 2],
        shade: impl Fn(&Hit) -> Option<Fragment> + 'static,
    ) {
        let [x, z] = place;
        self.panel([[x - half_width, z], [x + half_width, z]], height, shade);
    }

    pub(super) fn solid(
        &mut self,
        stand: Pose,
        planes: Vec<Plane>,
        reach: [f32; 3],
        shade: impl Fn(&Hit) -> Option<Fragment> + 'static,
    ) {
        let shape = Shape::Solid { stand, planes, reach };
        self.items.push((stand.place[1], shape, Box::new(shade)));
    }

    /// The shadow of a body on the ground, drawn away from the sun.
    pub(super) fn shadow(&mut self, stand: Pose, half: [f32; 2], height: f32) {
        let sun = self.light.sun;
        let hard = self.light.sunlight[1] > 0.3;
        let throw = if hard { (0.35 * height / sun[1]).min(2.5) } else { 0.0 };
        let place = [stand.place[0] - throw * sun[0], stand.place[1] - throw * sun[2]];
        self.shadows.push(Shadow {
            place: stand.place,
            heading: stand.heading,
            half,
            strength: 0.55,
        });
        if hard {
            let half = half.map(|axis| axis + 0.4 * throw);
            self.shadows.push(Shadow { place, heading: stand.heading, half, strength: 0.42 });
        }
    }

    /// Draws the shadows, then every body from near to far.
    pub(super) fn render(mut self, canvas: &mut Canvas) {
        for shadow in &self.shadows {
            canvas.cast_shadow(shadow);
        }
        self.items.sort_by(|one, other| one.0.total_cmp(&other.0));
        for (_, shape, shade) in &self.items {
            canvas.rasterize(shape, shade);
        }
    }
}
