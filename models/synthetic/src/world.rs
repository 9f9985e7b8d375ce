//! Bodies and shadows of a scene, collected before they are drawn from near to far.

use crate::camera::{Camera, NEAR};
use crate::canvas::Canvas;
use crate::light::Light;
use crate::noise::{Rgb, scale};

/// Headings against the street's: along it, against it, and across it either way.
pub(crate) const AHEAD: [f32; 2] = [0.0, 1.0];
pub(crate) const BACK: [f32; 2] = [0.0, -1.0];
pub(crate) const ACROSS: [[f32; 2]; 2] = [[1.0, 0.0], [-1.0, 0.0]];

/// A plan point and a unit heading `[sine, cosine]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pose {
    pub(crate) place: [f32; 2],
    pub(crate) heading: [f32; 2],
}

impl Pose {
    /// The plan point `right` and `forward` of the pose.
    pub(crate) fn offset(self, right: f32, forward: f32) -> [f32; 2] {
        let ([x, z], [sine, cosine]) = (self.place, self.heading);
        [x + right * cosine + forward * sine, z - right * sine + forward * cosine]
    }

    pub(crate) fn ahead(self, forward: f32) -> Self {
        Self { place: self.offset(0.0, forward), heading: self.heading }
    }

    /// A plan direction as `[right, forward]` of the pose.
    pub(crate) fn to_local(self, [x, z]: [f32; 2]) -> [f32; 2] {
        let [sine, cosine] = self.heading;
        [x * cosine - z * sine, x * sine + z * cosine]
    }

    /// A direction `[right, up, forward]` of the pose in the plan.
    pub(crate) fn to_plan(self, [right, up, forward]: [f32; 3]) -> [f32; 3] {
        let [sine, cosine] = self.heading;
        [right * cosine + forward * sine, up, forward * cosine - right * sine]
    }
}

/// A half-space: `normal · point <= offset`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plane {
    pub(crate) normal: [f32; 3],
    pub(crate) offset: f32,
}

impl Plane {
    /// The face that looks along an axis (0 right, 1 up, 2 forward), `offset` away.
    pub(crate) fn facing(axis: usize, side: f32, offset: f32) -> Self {
        let mut normal = [0.0; 3];
        normal[axis] = side;
        Self { normal, offset }
    }

    /// The face that looks along an axis through two points `[distance along it, height]`, the
    /// lower one first.
    pub(crate) fn slanted(axis: usize, side: f32, low: [f32; 2], high: [f32; 2]) -> Self {
        let (out, up) = (high[1] - low[1], low[0] - high[0]);
        let length = (out * out + up * up).sqrt();
        let mut normal = [0.0, up / length, 0.0];
        normal[axis] = side * out / length;
        Self { normal, offset: (out * low[0] + up * low[1]) / length }
    }
}

/// A convex body as an intersection of half-spaces.
pub(crate) struct Solid {
    pub(crate) planes: Vec<Plane>,
    /// Bounds: half width, top, half length.
    pub(crate) reach: [f32; 3],
}

impl Solid {
    /// A box; its faces are 0 right, 1 left, 2 front, 3 back, 4 top, 5 bottom.
    pub(crate) fn cuboid(half_width: f32, [base, top]: [f32; 2], half_length: f32) -> Self {
        let planes = vec![
            Plane::facing(0, 1.0, half_width),
            Plane::facing(0, -1.0, half_width),
            Plane::facing(2, 1.0, half_length),
            Plane::facing(2, -1.0, half_length),
            Plane::facing(1, 1.0, top),
            Plane::facing(1, -1.0, -base),
        ];
        Self { planes, reach: [half_width, top, half_length] }
    }
}

pub(crate) enum Shape {
    /// An upright rectangle over a plan line, from a base to a top.
    Panel {
        ends: [[f32; 2]; 2],
        heights: [f32; 2],
    },
    Solid {
        pose: Pose,
        solid: Solid,
    },
}

/// The point where a ray meets a body.
pub(crate) struct Hit {
    /// On a panel `[along from its middle, height, 0]`; on a solid `[right, up, forward]` of its
    /// pose.
    pub(crate) at: [f32; 3],
    /// Index of the solid's plane.
    pub(crate) face: usize,
    /// Size of a pixel there, in meters.
    pub(crate) texel: f32,
}

/// The look of a body at a hit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fragment {
    pub(crate) color: Rgb,
    /// 1 hides the background; the label counts in any case.
    pub(crate) alpha: f32,
    /// 1 shines by itself.
    pub(crate) emission: f32,
}

impl Fragment {
    pub(crate) fn scaled(self, level: f32) -> Self {
        Self { color: scale(self.color, level), ..self }
    }
}

/// A matte, opaque fragment.
pub(crate) fn opaque(color: Rgb) -> Option<Fragment> {
    glowing(color, 0.0)
}

/// An opaque fragment that shines by itself.
pub(crate) fn glowing(color: Rgb, emission: f32) -> Option<Fragment> {
    Some(Fragment { color, alpha: 1.0, emission })
}

/// A fragment that covers a part of its pixel.
pub(crate) fn veil(color: Rgb, alpha: f32) -> Option<Fragment> {
    Some(Fragment { color, alpha, emission: 0.0 })
}

/// The look of a body; `None` lets the ray pass.
pub(crate) type Shader = Box<dyn Fn(&Hit) -> Option<Fragment>>;

pub(crate) struct Body {
    pub(crate) label: u8,
    pub(crate) shape: Shape,
    pub(crate) shader: Shader,
    depth: f32,
}

/// A soft dark ellipse on the ground.
pub(crate) struct Shadow {
    pub(crate) pose: Pose,
    /// Half axes, across and along the heading.
    pub(crate) half: [f32; 2],
    pub(crate) strength: f32,
}

pub(crate) struct World {
    pub(crate) camera: Camera,
    pub(crate) light: Light,
    bodies: Vec<Body>,
    shadows: Vec<Shadow>,
    /// Rectangles of the street: middle and half size.
    taken: Vec<[f32; 4]>,
}

impl World {
    pub(crate) fn new(camera: Camera, light: Light) -> Self {
        Self { camera, light, bodies: Vec::new(), shadows: Vec::new(), taken: Vec::new() }
    }

    /// A pose on the street; `turn` is the heading against the street's.
    pub(crate) fn pose(&self, x: f32, z: f32, turn: [f32; 2]) -> Pose {
        let [sine, cosine] = self.camera.along(z);
        let heading = [turn[0] * cosine + turn[1] * sine, turn[1] * cosine - turn[0] * sine];
        Pose { place: self.camera.plan(x, z), heading }
    }

    /// Claims a rectangle of the street, `half` wide and long to either side; `None` where some of
    /// it is taken.
    pub(crate) fn place(&mut self, x: f32, z: f32, half: [f32; 2], turn: [f32; 2]) -> Option<Pose> {
        let free = self.taken.iter().all(|other| {
            (x - other[0]).abs() >= half[0] + other[2] || (z - other[1]).abs() >= half[1] + other[3]
        });
        if !free {
            return None;
        }
        self.taken.push([x, z, half[0], half[1]]);
        Some(self.pose(x, z, turn))
    }

    /// Plan points of a line along the street, at most 6 m apart.
    pub(crate) fn line(&self, x: f32, [from, to]: [f32; 2]) -> Vec<[f32; 2]> {
        let pieces = 1 + ((to - from).max(0.0) / 6.0) as usize;
        let step = (to - from).max(0.1) / pieces as f32;
        (0..=pieces).map(|piece| self.camera.plan(x, from + piece as f32 * step)).collect()
    }

    /// Adds an upright rectangle over a plan line.
    pub(crate) fn panel(
        &mut self,
        label: u8,
        ends: [[f32; 2]; 2],
        heights: [f32; 2],
        shader: impl Fn(&Hit) -> Option<Fragment> + 'static,
    ) {
        let [a, b] = ends;
        if a[1].max(b[1]) > NEAR {
            let depth = 0.5 * (a[1].max(NEAR) + b[1].max(NEAR));
            let shape = Shape::Panel { ends, heights };
            self.bodies.push(Body { label, shape, shader: Box::new(shader), depth });
        }
    }

    /// Adds a panel over each piece of a line; `shader` gets the number of the piece.
    pub(crate) fn panels<S: Fn(&Hit) -> Option<Fragment> + 'static>(
        &mut self,
        label: u8,
        line: &[[f32; 2]],
        height: f32,
        shader: impl Fn(u32) -> S,
    ) {
        for (ends, piece) in line.windows(2).zip(0..) {
            self.panel(label, [ends[0], ends[1]], [0.0, height], shader(piece));
        }
    }

    /// Adds a panel that faces the camera: for what is round, or too thin to tell.
    pub(crate) fn billboard(
        &mut self,
        label: u8,
        [x, z]: [f32; 2],
        half_width: f32,
        heights: [f32; 2],
        shader: impl Fn(&Hit) -> Option<Fragment> + 'static,
    ) {
        self.panel(label, [[x - half_width, z], [x + half_width, z]], heights, shader);
    }

    pub(crate) fn solid(
        &mut self,
        label: u8,
        pose: Pose,
        solid: Solid,
        shader: impl Fn(&Hit) -> Option<Fragment> + 'static,
    ) {
        let shape = Shape::Solid { pose, solid };
        let depth = pose.place[1];
        self.bodies.push(Body { label, shape, shader: Box::new(shader), depth });
    }

    /// Adds the shadow of a body on the ground: around it, and in sunshine away from the sun.
    pub(crate) fn shadow(&mut self, pose: Pose, half: [f32; 2], height: f32) {
        self.shadows.push(Shadow { pose, half, strength: 0.55 });
        let sun = self.light.sun;
        if self.light.sunlight[1] > 0.3 {
            let throw = (0.35 * height / sun[1]).min(2.5);
            let place = [pose.place[0] - throw * sun[0], pose.place[1] - throw * sun[2]];
            let half = half.map(|axis| axis + 0.4 * throw);
            self.shadows.push(Shadow { pose: Pose { place, ..pose }, half, strength: 0.42 });
        }
    }

    /// Draws the shadows, then every body from near to far.
    pub(crate) fn render(mut self, canvas: &mut Canvas) {
        for shadow in &self.shadows {
            canvas.cast_shadow(shadow);
        }
        self.bodies.sort_by(|one, other| one.depth.total_cmp(&other.depth));
        for body in &self.bodies {
            canvas.draw(body);
        }
    }
}
