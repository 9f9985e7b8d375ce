//! The picture while it is drawn, from near to far: the ray of each pixel meets upright panels and convex solids.

use std::ops::Range;

use super::camera::{Camera, NEAR};
use super::light::Light;
use super::noise::{Rgb, mix, scale};
use super::shape::{Fragment, Hit, Plane, Pose, Shader, Shadow, Shape};

pub(super) struct Canvas {
    pub(super) height: usize,
    pub(super) width: usize,
    /// The light that reaches each pixel so far.
    pub(super) color: Vec<Rgb>,
    pub(super) labels: Vec<u8>,
    depth: Vec<f32>,
    /// How much of what lies behind is still seen.
    clear: Vec<f32>,
    /// How much light shadows leave on the ground.
    ground: Vec<f32>,
    camera: Camera,
    light: Light,
}

impl Canvas {
    pub(super) fn new(height: usize, width: usize, camera: Camera, light: Light) -> Self {
        let pixels = height * width;
        Self {
            height,
            width,
            color: vec![[0.0; 3]; pixels],
            labels: vec![0; pixels],
            depth: vec![f32::MAX; pixels],
            clear: vec![1.0; pixels],
            ground: vec![1.0; pixels],
            camera,
            light,
        }
    }

    pub(super) fn u(&self, column: usize) -> f32 {
        (column as f32 + 0.5) * 2.0 / self.width as f32
    }

    pub(super) fn v(&self, row: usize) -> f32 {
        (row as f32 + 0.5) / self.height as f32
    }

    /// The size of a pixel per metre of depth.
    fn texel(&self) -> f32 {
        (1.0 / self.height as f32).max(2.0 / self.width as f32) / self.camera.focal
    }

    /// Darkens the ground, to be drawn by [`Canvas::fill_background`].
    pub(super) fn cast_shadow(&mut self, shadow: &Shadow) {
        let reach = shadow.half[0].max(shadow.half[1]);
        let outline = outline(shadow.place, shadow.heading, [reach, reach]);
        let (columns, rows) = self.cover(&outline, [0.0, 0.0]);
        for row in rows {
            let v = self.v(row);
            for column in columns.clone() {
                let Some(plan) = self.camera.ground(self.u(column), v) else { continue };
                let (x, z) = (plan[0] - shadow.place[0], plan[1] - shadow.place[1]);
                let across = (x * shadow.heading[1] - z * shadow.heading[0]) / shadow.half[0];
                let along = (x * shadow.heading[0] + z * shadow.heading[1]) / shadow.half[1];
                let inside = (1.0 - across * across - along * along).max(0.0);
                self.ground[row * self.width + column] *=
                    1.0 - shadow.strength * (2.0 * inside).min(1.0);
            }
        }
    }

    /// Draws a shape; nearer shapes should come first, as what they hide is passed over.
    pub(super) fn rasterize(&mut self, shape: &Shape, shade: &Shader) {
        match shape {
            Shape::Panel { a, b, base, top } => self.panel([*a, *b], [*base, *top], shade),
            Shape::Solid { stand, planes, reach } => self.solid(*stand, planes, *reach, shade),
        }
    }

    /// Sky above the horizon and ground below it, where nothing hides them.
    pub(super) fn fill_background(&mut self, sky: u8, ground: impl Fn([f32; 2], f32) -> (u8, Rgb)) {
        let texel = self.texel();
        for row in 0..self.height {
            let v = self.v(row);
            for column in 0..self.width {
                let pixel = row * self.width + column;
                if self.clear[pixel] == 0.0 {
                    continue;
                }
                let (label, color) = match self.camera.ground(self.u(column), v) {
                    Some(plan) => {
                        let (label, lit) = ground(plan, texel * plan[1]);
                        (label, self.light.through_air(scale(lit, self.ground[pixel]), plan[1]))
                    }
                    None => (sky, self.light.sky(self.camera.ray(self.u(column), v))),
                };
                if self.depth[pixel] == f32::MAX {
                    self.labels[pixel] = label;
                }
                let clear = self.clear[pixel];
                self.color[pixel] =
                    std::array::from_fn(|axis| self.color[pixel][axis] + clear * color[axis]);
            }
        }
    }

    fn panel(&mut self, [a, b]: [[f32; 2]; 2], [base, top]: [f32; 2], shade: &Shader) {
        let across = [b[0] - a[0], b[1] - a[1]];
        let length = (across[0] * across[0] + across[1] * across[1]).sqrt();
        if length == 0.0 {
            return;
        }
        let (columns, rows) = self.cover(&[clip(a, b), clip(b, a)], [base, top]);
        let mut normal = [-across[1] / length, 0.0, across[0] / length];
        if normal[0] * a[0] + normal[2] * a[1] > 0.0 {
            normal = normal.map(|part| -part);
        }
        let light = self.light.on(normal);
        let texel = self.texel();
        for column in columns {
            let right = self.camera.ray(self.u(column), 0.0)[0];
            let share = (right * a[1] - a[0]) / (across[0] - right * across[1]);
            let depth = a[1] + share * across[1];
            if !(0.0..=1.0).contains(&share) || depth < NEAR {
                continue;
            }
            for row in rows.clone() {
                let y = self.camera.height + depth * self.camera.ray(0.0, self.v(row))[1];
                let pixel = row * self.width + column;
                if y >= base && y <= top && !self.hides(pixel, depth) {
                    let hit =
                        Hit { at: [(share - 0.5) * length, y, 0.0], face: 0, texel: texel * depth };
                    self.put(pixel, depth, light, shade(&hit));
                }
            }
        }
    }

    fn solid(&mut self, stand: Pose, planes: &[Plane], reach: [f32; 3], shade: &Shader) {
        let outline = outline(stand.place, stand.heading, [reach[0], reach[2]]);
        let (columns, rows) = self.cover(&outline, [0.0, reach[1]]);
        let lights: Vec<Rgb> =
            planes.iter().map(|plane| self.light.on(stand.to_plan(plane.normal))).collect();
        let start = stand.to_local([-stand.place[0], -stand.place[1]]);
        let origin = [start[0], self.camera.height, start[1]];
        let outside: Vec<f32> =
            planes.iter().map(|plane| dot(plane.normal, origin) - plane.offset).collect();
        let texel = self.texel();
        for row in rows {
            let up = self.camera.ray(0.0, self.v(row))[1];
            for column in columns.clone() {
                let right = self.camera.ray(self.u(column), 0.0)[0];
                let step = stand.to_local([right, 1.0]);
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
                let pixel = row * self.width + column;
                if enter < leave && face != usize::MAX && !self.hides(pixel, enter) {
                    let at = std::array::from_fn(|axis| origin[axis] + enter * ray[axis]);
                    let fragment = shade(&Hit { at, face, texel: texel * enter });
                    self.put(pixel, enter, lights[face], fragment);
                }
            }
        }
    }

    fn hides(&self, pixel: usize, depth: f32) -> bool {
        self.clear[pixel] == 0.0 && depth >= self.depth[pixel]
    }

    fn put(&mut self, pixel: usize, depth: f32, light: Rgb, fragment: Option<Fragment>) {
        let Some(fragment) = fragment else { return };
        let lit: Rgb = std::array::from_fn(|channel| fragment.color[channel] * light[channel]);
        let seen = self.light.through_air(mix(lit, fragment.color, fragment.emission), depth);
        if depth < self.depth[pixel] {
            self.color[pixel] = mix(self.color[pixel], seen, fragment.alpha);
            (self.labels[pixel], self.depth[pixel]) = (fragment.label, depth);
        } else {
            let share = self.clear[pixel] * fragment.alpha;
            self.color[pixel] =
                std::array::from_fn(|axis| self.color[pixel][axis] + share * seen[axis]);
        }
        self.clear[pixel] *= 1.0 - fragment.alpha;
    }

    /// The columns and rows whose centers may lie within the bounds of some plan places at some heights.
    fn cover(&self, places: &[[f32; 2]], heights: [f32; 2]) -> (Range<usize>, Range<usize>) {
        let (mut low, mut high) = ([f32::MAX; 2], [f32::MIN; 2]);
        for place in places.iter().filter(|place| place[1] >= NEAR) {
            for height in heights {
                let point = self.camera.project(*place, height);
                low = [low[0].min(point[0]), low[1].min(point[1])];
                high = [high[0].max(point[0]), high[1].max(point[1])];
            }
        }
        // Casts of floats saturate: what lies left of the picture starts at 0.
        let first = |at: f32, count: usize| ((at * count as f32 - 1.0) as usize).min(count);
        let last = |at: f32, count: usize| ((at * count as f32 + 2.0) as usize).min(count);
        let columns = first(0.5 * low[0], self.width)..last(0.5 * high[0], self.width);
        (columns, first(low[1], self.height)..last(high[1], self.height))
    }
}

fn dot(a: [f32; 3], b: [f32; 3]) -> f32 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

/// A point of a plan line moved towards its other end until it lies before the camera, if it can.
fn clip(from: [f32; 2], to: [f32; 2]) -> [f32; 2] {
    if from[1] >= NEAR || to[1] < NEAR {
        return from;
    }
    let share = (NEAR - from[1]) / (to[1] - from[1]);
    [from[0] + share * (to[0] - from[0]), NEAR]
}

/// Points that bound the part of a rectangle of the plan that lies before the camera.
fn outline(place: [f32; 2], heading: [f32; 2], half: [f32; 2]) -> [[f32; 2]; 8] {
    let stand = Pose { place, heading };
    let [a, b, c, d] = [(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)]
        .map(|(side, end)| stand.offset(side * half[0], end * half[1]));
    [clip(a, b), clip(b, a), clip(b, c), clip(c, b), clip(c, d), clip(d, c), clip(d, a), clip(a, d)]
}
