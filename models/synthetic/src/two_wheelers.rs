//! Bicycles and motorcycles, parked or ridden, seen from the side or from behind.

use super::noise::{Rgb, Rng, fract, scale};
use super::people::{Clothing, Limb, shade_limbs};
use super::shape::{Fragment, Hit, Pose, Shader};
use super::train_id;
use super::world::World;

const STEEL: Rgb = [0.30, 0.30, 0.31];
const BLACK: Rgb = [0.06, 0.06, 0.06];

/// What is ridden.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum TwoWheeler {
    Bicycle,
    Motorcycle,
}

impl TwoWheeler {
    fn label(self) -> u8 {
        match self {
            Self::Bicycle => train_id::BICYCLE,
            Self::Motorcycle => train_id::MOTORCYCLE,
        }
    }

    /// Tubes and bodywork from the side, heading to the right.
    fn side_limbs(self, paint: Rgb) -> Vec<Limb> {
        match self {
            Self::Bicycle => vec![
                ([0.42, 1.02], [0.56, 1.0], 0.025, BLACK),
                ([-0.32, 0.96], [-0.12, 0.97], 0.045, BLACK),
                ([0.40, 0.98], [0.54, 0.34], 0.028, paint),
                ([0.36, 0.80], [-0.16, 0.80], 0.028, paint),
                ([0.38, 0.74], [-0.06, 0.30], 0.03, paint),
                ([-0.22, 0.92], [-0.06, 0.30], 0.026, paint),
                ([-0.06, 0.30], [-0.54, 0.34], 0.02, scale(paint, 0.8)),
                ([-0.18, 0.78], [-0.54, 0.34], 0.02, scale(paint, 0.8)),
                ([-0.06, 0.30], [-0.06, 0.301], 0.09, STEEL),
                ([-0.80, 0.74], [-0.36, 0.74], 0.022, BLACK),
            ],
            Self::Motorcycle => vec![
                ([0.36, 1.08], [0.54, 1.02], 0.035, BLACK),
                ([0.60, 0.86], [0.62, 0.92], 0.10, [0.86, 0.86, 0.80]),
                ([0.50, 0.98], [0.70, 0.36], 0.045, STEEL),
                ([0.16, 0.86], [0.36, 0.84], 0.16, paint),
                ([-0.70, 0.86], [-0.06, 0.80], 0.085, BLACK),
                ([-0.74, 0.74], [-0.30, 0.68], 0.11, scale(paint, 0.9)),
                ([-0.08, 0.46], [0.22, 0.48], 0.20, [0.20, 0.20, 0.21]),
                ([0.58, 0.72], [0.82, 0.66], 0.06, paint),
                ([-0.10, 0.30], [-0.86, 0.36], 0.06, [0.55, 0.55, 0.54]),
            ],
        }
    }

    /// The wheel that holds a point. Between a bicycle's spokes one looks through, yet it is all bicycle.
    fn wheels(self, [x, y]: [f32; 2]) -> Option<Fragment> {
        let (radius, base, tire) = match self {
            Self::Bicycle => (0.345, 0.545, 0.84),
            Self::Motorcycle => (0.33, 0.70, 0.58),
        };
        [-base, base].into_iter().find_map(|axle| {
            let (dx, dy) = ((x - axle) / radius, (y - radius) / radius);
            let out = dx * dx + dy * dy;
            if out > 1.0 {
                return None;
            }
            let fragment = Fragment::new(self.label(), BLACK);
            if out > tire * tire || out < 0.02 {
                return Some(fragment);
            }
            let spoke = fract(6.0 * dx / (dx.abs() + dy.abs() + 1e-6)) < 0.22;
            let clear = if self == Self::Bicycle { 0.25 } else { 0.75 };
            Some(Fragment { color: STEEL, alpha: if spoke { 0.85 } else { clear }, ..fragment })
        })
    }

    /// Seen from behind or from the front.
    fn end_limbs(self, paint: Rgb) -> Vec<Limb> {
        match self {
            Self::Bicycle => vec![
                ([-0.28, 1.02], [0.28, 1.02], 0.03, BLACK),
                ([0.0, 0.62], [0.0, 0.66], 0.05, [0.62, 0.08, 0.06]),
                ([0.0, 0.04], [0.0, 0.66], 0.045, BLACK),
                ([0.0, 0.60], [0.0, 0.95], 0.05, paint),
            ],
            Self::Motorcycle => vec![
                ([-0.38, 1.05], [0.38, 1.05], 0.04, BLACK),
                ([-0.07, 0.78], [0.07, 0.78], 0.07, [0.70, 0.09, 0.07]),
                ([0.0, 0.10], [0.0, 0.58], 0.095, BLACK),
                ([0.0, 0.66], [0.0, 0.88], 0.20, paint),
                ([0.22, 0.36], [0.22, 0.42], 0.07, STEEL),
                ([-0.18, 0.50], [0.18, 0.50], 0.10, [0.18; 3]),
            ],
        }
    }

    /// The rider's limbs, front to back.
    fn rider(self, clothes: &Clothing, helmet: Rgb, end_on: bool) -> Vec<Limb> {
        let sleeve = scale(clothes.top, 0.85);
        let Clothing { skin, top, pants, shoes, .. } = *clothes;
        if end_on {
            return vec![
                ([0.0, 1.66], [0.0, 1.70], 0.125, helmet),
                ([0.0, 1.56], [0.0, 1.58], 0.09, skin),
                ([0.0, 1.38], [0.0, 1.08], 0.2, top),
                ([-0.22, 1.40], [-0.33, 1.08], 0.075, sleeve),
                ([0.22, 1.40], [0.33, 1.08], 0.075, sleeve),
                ([-0.12, 0.98], [-0.17, 0.60], 0.095, pants),
                ([0.12, 0.98], [0.17, 0.68], 0.095, pants),
                ([-0.17, 0.60], [-0.15, 0.28], 0.07, pants),
                ([0.17, 0.68], [0.15, 0.42], 0.07, scale(pants, 0.85)),
                ([-0.15, 0.22], [-0.15, 0.24], 0.07, shoes),
                ([0.15, 0.36], [0.15, 0.38], 0.07, shoes),
            ];
        }
        let hip = if self == Self::Bicycle { [-0.20, 1.02] } else { [-0.28, 0.98] };
        let knee = [0.18, 0.80];
        let foot = if self == Self::Bicycle { [0.0, 0.26] } else { [0.02, 0.34] };
        vec![
            ([0.24, 1.64], [0.25, 1.68], 0.12, helmet),
            ([0.28, 1.57], [0.28, 1.60], 0.09, skin),
            ([0.14, 1.42], [0.36, 1.16], 0.06, sleeve),
            ([0.36, 1.16], [0.50, 1.06], 0.05, skin),
            ([0.10, 1.38], hip, 0.155, top),
            (hip, knee, 0.095, pants),
            (knee, foot, 0.07, pants),
            (foot, [foot[0] + 0.14, foot[1] - 0.01], 0.045, shoes),
            (hip, [0.06, 0.62], 0.09, scale(pants, 0.7)),
            ([0.06, 0.62], [-0.16, 0.44], 0.065, scale(pants, 0.7)),
        ]
    }
}

fn shade(cycle: TwoWheeler, rng: &mut Rng, ridden: bool, end_on: bool, turned: f32) -> Shader {
    let (clothes, paint, helmet, key) =
        (Clothing::new(rng), rng.paint_color(), rng.paint_color(), rng.key());
    let head =
        if cycle == TwoWheeler::Motorcycle || rng.chance(0.6) { helmet } else { clothes.hair };
    let rider = if ridden { cycle.rider(&clothes, head, end_on) } else { Vec::new() };
    let frame = if end_on { cycle.end_limbs(paint) } else { cycle.side_limbs(paint) };
    Box::new(move |hit: &Hit| {
        let point = [turned * hit.at[0], hit.at[1]];
        shade_limbs(train_id::RIDER, &rider, point, key)
            .or_else(|| shade_limbs(cycle.label(), &frame, point, key))
            .or_else(|| if end_on { None } else { cycle.wheels(point) })
    })
}

/// A cycle that crosses the view; `ends` are the plan places below its tips.
pub(super) fn side_on(
    world: &mut World,
    rng: &mut Rng,
    cycle: TwoWheeler,
    stand: Pose,
    ridden: bool,
) {
    let ends = [stand.offset(-1.06, 0.0), stand.offset(1.06, 0.0)];
    let turned = rng.sign();
    let paint = shade(cycle, rng, ridden, false, turned);
    world.shadow(stand, [0.9, 0.25], if ridden { 1.6 } else { 0.6 });
    world.panel(ends, [0.0, 1.85], paint);
}

/// A cycle that goes with the view or against it.
pub(super) fn end_on(
    world: &mut World,
    rng: &mut Rng,
    cycle: TwoWheeler,
    stand: Pose,
    ridden: bool,
) {
    let paint = shade(cycle, rng, ridden, true, 1.0);
    world.shadow(stand, [0.3, 0.8], if ridden { 1.4 } else { 0.6 });
    world.billboard(stand.place, 0.45, [0.0, 1.85], paint);
}
