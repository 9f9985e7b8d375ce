//! Pedestrians, and bicycles and motorcycles with or without riders: capsules for limbs and tubes.

use crate::noise::{Rgb, Rng, fract, in_capsule, scale, value_noise};
use crate::train_id;
use crate::world::{Fragment, Hit, Pose, World, opaque, veil};

const STEEL: Rgb = [0.30, 0.30, 0.31];
const BLACK: Rgb = [0.06, 0.06, 0.06];

/// A limb or tube: both ends and radius of a capsule, and its color.
type Limb = ([f32; 2], [f32; 2], f32, Rgb);

#[derive(Debug, Clone, Copy)]
struct Clothing {
    skin: Rgb,
    hair: Rgb,
    top: Rgb,
    pants: Rgb,
    shoes: Rgb,
}

impl Clothing {
    fn new(rng: &mut Rng) -> Self {
        const SKINS: [Rgb; 4] =
            [[0.80, 0.62, 0.52], [0.70, 0.50, 0.38], [0.48, 0.32, 0.24], [0.30, 0.20, 0.15]];
        const HAIRS: [Rgb; 4] =
            [[0.10, 0.08, 0.07], [0.30, 0.20, 0.12], [0.62, 0.50, 0.32], [0.60, 0.60, 0.58]];
        let pants = rng.choose(&[
            [0.14, 0.16, 0.24],
            [0.10, 0.10, 0.11],
            [0.42, 0.38, 0.32],
            [0.22, 0.28, 0.42],
        ]);
        Self {
            skin: rng.choose(&SKINS),
            hair: rng.choose(&HAIRS),
            top: rng.paint_color(),
            pants: if rng.chance(0.8) { rng.jitter_color(pants, 0.25) } else { rng.paint_color() },
            shoes: rng.choose(&[[0.08, 0.08, 0.08], [0.25, 0.17, 0.12], [0.75, 0.75, 0.73]]),
        }
    }
}

/// The first limb that holds a point, with folds of cloth.
fn shade_limbs(limbs: &[Limb], point: [f32; 2], key: u32) -> Option<Fragment> {
    let (from, to, radius, color) =
        limbs.iter().find(|(from, to, radius, _)| in_capsule(point, *from, *to, *radius))?;
    let round = (point[0] - 0.5 * (from[0] + to[0])) / (radius + (from[0] - to[0]).abs());
    let folds = 0.92 + 0.2 * value_noise(9.0 * point[0], 5.0 * point[1], key) - 0.12 * round.abs();
    opaque(scale(*color, folds))
}

pub(crate) fn pedestrian(world: &mut World, rng: &mut Rng, pose: Pose) {
    let height = if rng.chance(0.15) { rng.range(1.0, 1.4) } else { rng.range(1.55, 1.92) };
    let clothes = Clothing::new(rng);
    let stride = rng.range(0.02, 0.17);
    let facing = rng.sign();
    let side_on = rng.chance(0.45);
    let broad = if side_on { 0.105 } else { rng.range(0.14, 0.18) };
    let (spread, swing) = if side_on { (stride, 1.1 * stride) } else { (0.075, 0.05) };
    let shoulder = if side_on { 0.03 } else { broad + 0.03 };
    let Clothing { skin, hair, top, pants, shoes } = clothes;
    let arm = |shoulder: f32, swing: f32, shade: f32| -> Limb {
        ([shoulder, 0.79], [shoulder + swing * facing, 0.55], 0.042, scale(top, shade))
    };
    let mut limbs: Vec<Limb> = vec![
        ([0.0, 0.945], [0.0, 0.965], 0.058, hair),
        ([0.012 * facing, 0.915], [0.012 * facing, 0.935], 0.053, skin),
        arm(-shoulder, -swing, 0.85),
        ([0.0, 0.86], [0.0, 0.84], 0.04, skin),
    ];
    if rng.chance(0.3) {
        let bag = rng.paint_color();
        let at = if side_on { [-0.12 * facing, 0.68] } else { [(shoulder + 0.05) * facing, 0.5] };
        limbs.push((at, [at[0], at[1] + 0.09], 0.062, bag));
    }
    limbs.push(([0.0, 0.76], [0.0, 0.60], broad, top));
    limbs.push(arm(shoulder, swing, 0.8));
    limbs.push(match rng.below(5) {
        0 => ([0.0, 0.5], [0.0, 0.33], broad + 0.01, top),
        1 => ([0.0, 0.46], [0.0, 0.40], broad + 0.015, pants),
        _ => ([0.0, 0.56], [0.0, 0.50], broad - 0.015, pants),
    });
    for (side, shade) in [(1.0, 1.0), (-1.0, 0.82)] {
        let foot = side * spread;
        let knee = 0.6 * foot + if side_on { 0.03 * facing } else { 0.0 };
        limbs.extend([
            ([foot, 0.022], [foot + 0.05 * facing, 0.022], 0.03, shoes),
            ([0.4 * foot, 0.48], [knee, 0.27], 0.058, scale(pants, shade)),
            ([knee, 0.27], [foot, 0.05], 0.044, scale(pants, shade)),
        ]);
    }
    let umbrella = rng.chance(0.07).then(|| rng.paint_color());
    let key = rng.key();
    world.shadow(pose, [0.3, 0.3], height);
    let (half_width, heights) = (0.34 * height, [0.0, 1.3 * height]);
    world.billboard(train_id::PERSON, pose.place, half_width, heights, move |hit| {
        let point = [hit.at[0] / height, hit.at[1] / height];
        let (dx, dy) = (point[0] / 0.32, (point[1] - 1.03) / 0.2);
        if let Some(cloth) = umbrella
            && dy > 0.0
            && dx * dx + dy * dy < 1.0
        {
            return opaque(scale(cloth, 0.7 + 0.4 * dy - 0.2 * dx));
        }
        shade_limbs(&limbs, point, key)
    });
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum TwoWheeler {
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

    /// The wheel that holds a point. The gaps between the spokes are see-through, yet labeled as
    /// the two-wheeler.
    fn wheels(self, [x, y]: [f32; 2]) -> Option<Fragment> {
        let (radius, base, tire, clear) = match self {
            Self::Bicycle => (0.345, 0.545, 0.84, 0.25),
            Self::Motorcycle => (0.33, 0.70, 0.58, 0.75),
        };
        [-base, base].into_iter().find_map(|axle| {
            let (dx, dy) = ((x - axle) / radius, (y - radius) / radius);
            let out = dx * dx + dy * dy;
            if out > 1.0 {
                return None;
            }
            if out > tire * tire || out < 0.02 {
                return opaque(BLACK);
            }
            let spoke = fract(6.0 * dx / (dx.abs() + dy.abs() + 1e-6)) < 0.22;
            veil(STEEL, if spoke { 0.85 } else { clear })
        })
    }

    /// Tubes and bodywork from behind or from the front.
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

    /// Limbs of the rider, front to back.
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
        let (hip, foot) = match self {
            Self::Bicycle => ([-0.20, 1.02], [0.0, 0.26]),
            Self::Motorcycle => ([-0.28, 0.98], [0.02, 0.34]),
        };
        let knee = [0.18, 0.80];
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

/// A bicycle or motorcycle, seen from the side or from an end; parked, or ridden.
pub(crate) fn two_wheeler(
    world: &mut World,
    rng: &mut Rng,
    kind: TwoWheeler,
    pose: Pose,
    end_on: bool,
    ridden: bool,
) {
    let turned = if end_on { 1.0 } else { rng.sign() };
    let clothes = Clothing::new(rng);
    let paint = rng.paint_color();
    let helmet = rng.paint_color();
    let key = rng.key();
    let [x, z] = pose.place;
    let (ends, shadow, height) = if end_on {
        ([[x - 0.45, z], [x + 0.45, z]], [0.3, 0.8], 1.4)
    } else {
        ([pose.offset(-1.06, 0.0), pose.offset(1.06, 0.0)], [0.9, 0.25], 1.6)
    };
    world.shadow(pose, shadow, if ridden { height } else { 0.6 });
    let helmeted = kind == TwoWheeler::Motorcycle || rng.chance(0.6);
    let point = move |hit: &Hit| [turned * hit.at[0], hit.at[1]];
    if ridden {
        let rider = kind.rider(&clothes, if helmeted { helmet } else { clothes.hair }, end_on);
        let shader = move |hit: &Hit| shade_limbs(&rider, point(hit), key);
        world.panel(train_id::RIDER, ends, [0.0, 1.85], shader);
    }
    let frame = if end_on { kind.end_limbs(paint) } else { kind.side_limbs(paint) };
    world.panel(kind.label(), ends, [0.0, 1.85], move |hit| {
        let wheels = || if end_on { None } else { kind.wheels(point(hit)) };
        shade_limbs(&frame, point(hit), key).or_else(wheels)
    });
}
