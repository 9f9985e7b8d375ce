//! The shapes a scene is built from, and what a ray sees of them.

use super::noise::Rgb;

/// A body's place on the plan, and the direction of length 1 in which it looks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pose {
    pub(super) place: [f32; 2],
    pub(super) heading: [f32; 2],
}

impl Pose {
    /// The plan place `right` and `forward` of the stand.
    pub(super) fn offset(self, right: f32, forward: f32) -> [f32; 2] {
        let ([x, z], [sine, cosine]) = (self.place, self.heading);
        [x + right * cosine + forward * sine, z - right * sine + forward * cosine]
    }

    /// The stand shifted by `forward`.
    pub(super) fn ahead(self, forward: f32) -> Self {
        Self { place: self.offset(0.0, forward), heading: self.heading }
    }

    /// A direction of the plan as `[right, forward]` of the stand.
    pub(super) fn to_local(self, [x, z]: [f32; 2]) -> [f32; 2] {
        let [sine, cosine] = self.heading;
        [x * cosine - z * sine, x * sine + z * cosine]
    }

    /// A direction `[right, up, forward]` of the stand in the plan.
    pub(super) fn to_plan(self, [right, up, forward]: [f32; 3]) -> [f32; 3] {
        let [sine, cosine] = self.heading;
        [right * cosine + forward * sine, up, forward * cosine - right * sine]
    }
}

/// Where a ray meets a shape.
pub(super) struct Hit {
    /// On a panel `[along from its middle, height, 0]`; on a solid `[right, up, forward]` of its middle on the ground.
    pub(super) at: [f32; 3],
    /// The face of the solid.
    pub(super) face: usize,
    /// The size of a pixel there, in metres.
    pub(super) texel: f32,
}

/// What a ray sees of a shape.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fragment {
    pub(super) label: u8,
    pub(super) color: Rgb,
    /// 1 hides what lies behind; the label counts in any case.
    pub(super) alpha: f32,
    /// 1 shines by itself.
    pub(super) emission: f32,
}

impl Fragment {
    pub(super) fn new(label: u8, color: Rgb) -> Self {
        Self { label, color, alpha: 1.0, emission: 0.0 }
    }
}

/// What a shape looks like; `None` lets the ray pass.
pub(super) type Shader = Box<dyn Fn(&Hit) -> Option<Fragment>>;

/// A half-space: `normal · point <= offset`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plane {
    pub(super) normal: [f32; 3],
    pub(super) offset: f32,
}

impl Plane {
    /// The face that looks along an axis (0 right, 1 up, 2 forward), `offset` away.
    pub(super) fn facing(axis: usize, side: f32, offset: f32) -> Self {
        let mut normal = [0.0; 3];
        normal[axis] = side;
        Self { normal, offset }
    }

    /// The face that looks along an axis and holds two points `[distance along it, height]`, the lower one first.
    pub(super) fn slanted(axis: usize, side: f32, low: [f32; 2], high: [f32; 2]) -> Self {
        let (out, up) = (high[1] - low[1], low[0] - high[0]);
        let length = (out * out + up * up).sqrt();
        let mut normal = [0.0, up / length, 0.0];
        normal[axis] = side * out / length;
        Self { normal, offset: (out * low[0] + up * low[1]) / length }
    }
}

pub(super) enum Shape {
    /// An upright rectangle over the plan line from `a` to `b`.
    Panel { a: [f32; 2], b: [f32; 2], base: f32, top: f32 },
    /// A convex body; `reach` bounds it to either side, up, and along.
    Solid { stand: Pose, planes: Vec<Plane>, reach: [f32; 3] },
}

/// A soft dark ellipse on the ground.
pub(super) struct Shadow {
    pub(super) place: [f32; 2],
    pub(super) heading: [f32; 2],
    /// Half axes, across and along the heading.
    pub(super) half: [f32; 2],
    pub(super) strength: f32,
}

/// The six faces of a box: right, left, front, back, top, bottom.
pub(super) fn cuboid(half_width: f32, base: f32, top: f32, half_length: f32) -> Vec<Plane> {
    vec![
        Plane::facing(0, 1.0, half_width),
        Plane::facing(0, -1.0, half_width),
        Plane::facing(2, 1.0, half_length),
        Plane::facing(2, -1.0, half_length),
        Plane::facing(1, 1.0, top),
        Plane::facing(1, -1.0, -base),
    ]
}
