//! Walkers and riders: limbs as capsules, clothes in any color.

use super::noise::{Rgb, Rng, in_capsule, scale, value_noise};
use super::shape::{Fragment, Pose};
use super::train_id;
use super::world::World;

/// A limb or other part of a body: a capsule and its color.
pub(super) type Limb = ([f32; 2], [f32; 2], f32, Rgb);

#[derive(Debug, Clone, Copy)]
pub(super) struct Clothing {
    pub(super) skin: Rgb,
    pub(super) hair: Rgb,
    pub(super) top: Rgb,
    pub(super) pants: Rgb,
    pub(super) shoes: Rgb,
}

impl Clothing {
    pub(super) fn new(rng: &mut Rng) -> Self {
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

/// The first limb that holds a point, folds of cloth included.
pub(super) fn shade_limbs(
    label: u8,
    limbs: &[Limb],
    point: [f32; 2],
    key: u32,
) -> Option<Fragment> {
    limbs.iter().find(|(from, to, radius, _)| in_capsule(point, *from, *to, *radius)).map(
        |(from, to, radius, color)| {
            let round = (point[0] - 0.5 * (from[0] + to[0])) / (radius + (from[0] - to[0]).abs());
            let folds =
                0.92 + 0.2 * value_noise(9.0 * point[0], 5.0 * point[1], key) - 0.12 * round.abs();
            Fragment::new(label, scale(*color, folds))
        },
    )
}

pub(super) fn pedestrian(world: &mut World, rng: &mut Rng, stand: Pose) {
    let height = if rng.chance(0.15) { rng.range(1.0, 1.4) } else { rng.range(1.55, 1.92) };
    let clothes = Clothing::new(rng);
    let (stride, facing) = (rng.range(0.02, 0.17), rng.sign());
    let side_on = rng.chance(0.45);
    let broad = if side_on { 0.105 } else { rng.range(0.14, 0.18) };
    let (spread, swing) = if side_on { (stride, 1.1 * stride) } else { (0.075, 0.05) };
    let shoulder = if side_on { 0.03 } else { broad + 0.03 };
    let mut limbs: Vec<Limb> = vec![
        ([0.0, 0.945], [0.0, 0.965], 0.058, clothes.hair),
        ([0.012 * facing, 0.915], [0.012 * facing, 0.935], 0.053, clothes.skin),
        ([-shoulder, 0.79], [-shoulder - swing * facing, 0.55], 0.042, scale(clothes.top, 0.85)),
        ([0.0, 0.86], [0.0, 0.84], 0.04, clothes.skin),
    ];
    if rng.chance(0.3) {
        let bag = rng.paint_color();
        let at = if side_on { [-0.12 * facing, 0.68] } else { [(shoulder + 0.05) * facing, 0.5] };
        limbs.push((at, [at[0], at[1] + 0.09], 0.062, bag));
    }
    limbs.push(([0.0, 0.76], [0.0, 0.60], broad, clothes.top));
    limbs.push((
        [shoulder, 0.79],
        [shoulder + swing * facing, 0.55],
        0.042,
        scale(clothes.top, 0.8),
    ));
    match rng.below(5) {
        0 => limbs.push(([0.0, 0.5], [0.0, 0.33], broad + 0.01, clothes.top)),
        1 => limbs.push(([0.0, 0.46], [0.0, 0.40], broad + 0.015, clothes.pants)),
        _ => limbs.push(([0.0, 0.56], [0.0, 0.50], broad - 0.015, clothes.pants)),
    }
    for (side, shade) in [(1.0, 1.0), (-1.0, 0.82)] {
        let foot = side * spread;
        let knee = 0.6 * foot + if side_on { 0.03 * facing } else { 0.0 };
        limbs.push(([foot, 0.022], [foot + 0.05 * facing, 0.022], 0.03, clothes.shoes));
        limbs.push(([0.4 * foot, 0.48], [knee, 0.27], 0.058, scale(clothes.pants, shade)));
        limbs.push(([knee, 0.27], [foot, 0.05], 0.044, scale(clothes.pants, shade)));
    }
    let umbrella = rng.chance(0.07).then(|| rng.paint_color());
    let key = rng.key();
    world.shadow(stand, [0.3, 0.3], height);
    world.billboard(stand.place, 0.34 * height, [0.0, 1.3 * height], move |hit| {
        let point = [hit.at[0] / height, hit.at[1] / height];
        if let Some(cloth) = umbrella {
            let (dx, dy) = (point[0] / 0.32, (point[1] - 1.03) / 0.2);
            if dy > 0.0 && dx * dx + dy * dy < 1.0 {
                return Some(Fragment::new(
                    train_id::PERSON,
                    scale(cloth, 0.7 + 0.4 * dy - 0.2 * dx),
                ));
            }
        }
        shade_limbs(train_id::PERSON, &limbs, point, key)
    });
}
