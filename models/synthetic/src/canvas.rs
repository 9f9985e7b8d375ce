//! Ray casting from near to far: the ray of each pixel meets upright panels and convex solids.

use std::ops::Range;

use crate::camera::{Camera, NEAR, Raster};
use crate::light::Light;
use crate::noise::{Rgb, mix, multiply, scale};
use crate::world::{Body, Fragment, Hit, Pose, Shadow, Shape, Solid};

/// Color, depth and label buffers, `[height, width]`.
pub(crate) struct Canvas {
    pub(crate) raster: Raster,
    /// The light that reaches each pixel so far.
    pub(crate) color: Vec<Rgb>,
    pub(crate) labels: Vec<u8>,
    depth: Vec<f32>,
    /// Visible share of the background.
    clear: Vec<f32>,
    /// Light that shadows leave on the ground.
    ground: Vec<f32>,
    camera: Camera,
    light: Light,
}

/// The meeting of a ray and a body: depth, index of the face, and [`Hit::at`].
type Meeting = (f32, usize, [f32; 3]);

impl Canvas {
    pub(crate) fn new(raster: Raster, camera: Camera, light: Light) -> Self {
        let pixels = raster.height * raster.width;
        Self {
            raster,
            color: vec![[0.0; 3]; pixels],
            labels: vec![0; pixels],
            depth: vec![f32::MAX; pixels],
            clear: vec![1.0; pixels],
            ground: vec![1.0; pixels],
            camera,
            light,
        }
    }

    /// Size of a pixel per meter of depth.
    fn texel(&self) -> f32 {
        let Raster { height, width } = self.raster;
        (1.0 / height as f32).max(2.0 / width as f32) / self.camera.focal
    }

    /// Darkens the ground for [`Canvas::fill_background`].
    pub(crate) fn cast_shadow(&mut self, shadow: &Shadow) {
        let Pose { place, heading } = shadow.pose;
        let reach = shadow.half[0].max(shadow.half[1]);
        let bounds = self.cover(&outline(shadow.pose, [reach, reach]), [0.0, 0.0]);
        for (pixel, uv) in self.raster.pixels(bounds) {
            let Some(plan) = self.camera.ground(uv) else { continue };
            let (x, z) = (plan[0] - place[0], plan[1] - place[1]);
            let across = (x * heading[1] - z * heading[0]) / shadow.half[0];
            let along = (x * heading[0] + z * heading[1]) / shadow.half[1];
            let inside = (1.0 - across * across - along * along).max(0.0);
            self.ground[pixel] *= 1.0 - shadow.strength * (2.0 * inside).min(1.0);
        }
    }

    /// Fills the sky above the horizon and the ground below it where nothing hides them.
    pub(crate) fn fill_background(&mut self, sky: u8, ground: impl Fn([f32; 2], f32) -> (u8, Rgb)) {
        let texel = self.texel();
        for (pixel, uv) in self.raster.all() {
            if self.clear[pixel] == 0.0 {
                continue;
            }
            let (label, color) = match self.camera.ground(uv) {
                Some(plan) => {
                    let (label, lit) = ground(plan, texel * plan[1]);
                    (label, self.light.through_air(scale(lit, self.ground[pixel]), plan[1]))
                }
                None => (sky, self.light.sky(self.camera.ray(uv))),
            };
            if self.depth[pixel] == f32::MAX {
                self.labels[pixel] = label;
            }
            self.add_behind(pixel, self.clear[pixel], color);
        }
    }

    /// Draws a body; nearer ones should come first, as hidden pixels are not shaded.
    pub(crate) fn draw(&mut self, body: &Body) {
        match &body.shape {
            Shape::Panel { ends, heights } => self.draw_panel(body, *ends, *heights),
            Shape::Solid { pose, solid } => self.draw_solid(body, *pose, solid),
        }
    }

    fn draw_panel(&mut self, body: &Body, [a, b]: [[f32; 2]; 2], [base, top]: [f32; 2]) {
        let across = [b[0] - a[0], b[1] - a[1]];
        let length = (across[0] * across[0] + across[1] * across[1]).sqrt();
        if length == 0.0 {
            return;
        }
        let mut normal = [-across[1] / length, 0.0, across[0] / length];
        if normal[0] * a[0] + normal[2] * a[1] > 0.0 {
            normal = normal.map(|part| -part);
        }
        let eye = self.camera.height;
        let meet = |[right, up]: [f32; 2]| {
            let share = (right * a[1] - a[0]) / (across[0] - right * across[1]);
            let depth = a[1] + share * across[1];
            let y = eye + depth * up;
            let met = (0.0..=1.0).contains(&share) && depth >= NEAR && y >= base && y <= top;
            met.then_some((depth, 0, [(share - 0.5) * length, y, 0.0]))
        };
        let bounds = self.cover(&[clip(a, b), clip(b, a)], [base, top]);
        self.shade(body, bounds, &[self.light.on(normal)], meet);
    }

    fn draw_solid(&mut self, body: &Body, pose: Pose, Solid { planes, reach }: &Solid) {
        let start = pose.to_local([-pose.place[0], -pose.place[1]]);
        let origin = [start[0], self.camera.height, start[1]];
        let outside: Vec<f32> =
            planes.iter().map(|plane| dot(plane.normal, origin) - plane.offset).collect();
        let meet = |[right, up]: [f32; 2]| {
            let step = pose.to_local([right, 1.0]);
            let ray = [step[0], up, step[1]];
            let (mut enter, mut leave, mut face) = (NEAR, f32::MAX, usize::MAX);
            for (index, plane) in planes.iter().enumerate() {
                let speed = dot(plane.normal, ray);
                let reached = -outside[index] / speed;
                if speed < 0.0 {
                    if reached > enter {
                        (enter, face) = (reached, index);
                    }
                } else if speed > 0.0 {
                    leave = leave.min(reached);
                } else if outside[index] > 0.0 {
                    leave = 0.0;
                }
            }
            let met = enter < leave && face != usize::MAX;
            met.then(|| (enter, face, [0, 1, 2].map(|axis| origin[axis] + enter * ray[axis])))
        };
        let lights: Vec<Rgb> =
            planes.iter().map(|plane| self.light.on(pose.to_plan(plane.normal))).collect();
        let bounds = self.cover(&outline(pose, [reach[0], reach[2]]), [0.0, reach[1]]);
        self.shade(body, bounds, &lights, meet);
    }

    /// Shades the pixels within bounds whose rays meet a body; `lights` has one entry per face.
    fn shade(
        &mut self,
        body: &Body,
        bounds: [Range<usize>; 2],
        lights: &[Rgb],
        meet: impl Fn([f32; 2]) -> Option<Meeting>,
    ) {
        let texel = self.texel();
        for (pixel, uv) in self.raster.pixels(bounds) {
            let Some((depth, face, at)) = meet(self.camera.ray(uv)) else { continue };
            let hidden = self.clear[pixel] == 0.0 && depth >= self.depth[pixel];
            if hidden {
                continue;
            }
            if let Some(fragment) = (body.shader)(&Hit { at, face, texel: texel * depth }) {
                self.put(pixel, depth, lights[face], body.label, fragment);
            }
        }
    }

    fn put(&mut self, pixel: usize, depth: f32, light: Rgb, label: u8, fragment: Fragment) {
        let lit = mix(multiply(fragment.color, light), fragment.color, fragment.emission);
        let seen = self.light.through_air(lit, depth);
        if depth < self.depth[pixel] {
            self.color[pixel] = mix(self.color[pixel], seen, fragment.alpha);
            self.labels[pixel] = label;
            self.depth[pixel] = depth;
        } else {
            self.add_behind(pixel, self.clear[pixel] * fragment.alpha, seen);
        }
        self.clear[pixel] *= 1.0 - fragment.alpha;
    }

    fn add_behind(&mut self, pixel: usize, share: f32, color: Rgb) {
        for (sum, color) in self.color[pixel].iter_mut().zip(color) {
            *sum += share * color;
        }
    }

    /// The columns and rows that may show some plan points at some heights.
    fn cover(&self, places: &[[f32; 2]], heights: [f32; 2]) -> [Range<usize>; 2] {
        let (mut low, mut high) = ([f32::MAX; 2], [f32::MIN; 2]);
        for place in places.iter().filter(|place| place[1] >= NEAR) {
            for height in heights {
                let point = self.camera.project(*place, height);
                low = [low[0].min(point[0]), low[1].min(point[1])];
                high = [high[0].max(point[0]), high[1].max(point[1])];
            }
        }
        // Casts of floats saturate: left of the image is column 0.
        let range = |low: f32, high: f32, count: usize| {
            let first = (low * count as f32 - 1.0) as usize;
            let last = (high * count as f32 + 2.0) as usize;
            first.min(count)..last.min(count)
        };
        let Raster { height, width } = self.raster;
        [range(0.5 * low[0], 0.5 * high[0], width), range(low[1], high[1], height)]
    }
}

fn dot(a: [f32; 3], b: [f32; 3]) -> f32 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

/// An end of a plan line, moved towards the other end until it lies before the camera, if it can.
fn clip(from: [f32; 2], to: [f32; 2]) -> [f32; 2] {
    if from[1] >= NEAR || to[1] < NEAR {
        return from;
    }
    let share = (NEAR - from[1]) / (to[1] - from[1]);
    [from[0] + share * (to[0] - from[0]), NEAR]
}

/// Corners of the part of a rectangle of the plan that lies before the camera.
fn outline(pose: Pose, half: [f32; 2]) -> [[f32; 2]; 8] {
    let [a, b, c, d] = [(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)]
        .map(|(side, end)| pose.offset(side * half[0], end * half[1]));
    [clip(a, b), clip(b, a), clip(b, c), clip(c, b), clip(c, d), clip(d, c), clip(d, a), clip(a, d)]
}
