//! Walkers and riders: limbs as capsules, clothes in any colour.

use super::noise::{Dice, Rgb, bumps, in_capsule, scale};
use super::shape::{Stand, Touch};
use super::stage::Stage;
use super::train_id;

/// A limb or other part of a body: a capsule and its colour.
pub(super) type Limb = ([f32; 2], [f32; 2], f32, Rgb);

#[derive(Debug, Clone, Copy)]
pub(super) struct Clothes {
    pub(super) skin: Rgb,
    pub(super) hair: Rgb,
    pub(super) top: Rgb,
    pub(super) trousers: Rgb,
    pub(super) shoes: Rgb,
}

impl Clothes {
    pub(super) fn new(dice: &mut Dice) -> Self {
        const SKINS: [Rgb; 4] = [[0.80, 0.62, 0.52], [0.70, 0.50, 0.38], [0.48, 0.32, 0.24], [0.30, 0.20, 0.15]];
        const HAIRS: [Rgb; 4] = [[0.10, 0.08, 0.07], [0.30, 0.20, 0.12], [0.62, 0.50, 0.32], [0.60, 0.60, 0.58]];
        let trousers = dice.pick(&[[0.14, 0.16, 0.24], [0.10, 0.10, 0.11], [0.42, 0.38, 0.32], [0.22, 0.28, 0.42]]);
        Self {
            skin: dice.pick(&SKINS),
            hair: dice.pick(&HAIRS),
            top: dice.paint(),
            trousers: if dice.chance(0.8) { dice.near(trousers, 0.25) } else { dice.paint() },
            shoes: dice.pick(&[[0.08, 0.08, 0.08], [0.25, 0.17, 0.12], [0.75, 0.75, 0.73]]),
        }
    }
}

/// The first limb that holds a point, folds of cloth included.
pub(super) fn dressed(label: u8, limbs: &[Limb], point: [f32; 2], key: u32) -> Option<Touch> {
    limbs.iter().find(|(from, to, radius, _)| in_capsule(point, *from, *to, *radius)).map(
        |(from, to, radius, colour)| {
            let round = (point[0] - 0.5 * (from[0] + to[0])) / (radius + (from[0] - to[0]).abs());
            let folds = 0.92 + 0.2 * bumps(9.0 * point[0], 5.0 * point[1], key) - 0.12 * round.abs();
            Touch::new(label, scale(*colour, folds))
        },
    )
}

pub(super) fn walker(stage: &mut Stage, dice: &mut Dice, stand: Stand) {
    let height = if dice.chance(0.15) { dice.range(1.0, 1.4) } else { dice.range(1.55, 1.92) };
    let clothes = Clothes::new(dice);
    let (stride, facing) = (dice.range(0.02, 0.17), dice.sign());
    let side_on = dice.chance(0.45);
    let broad = if side_on { 0.105 } else { dice.range(0.14, 0.18) };
    let (spread, swing) = if side_on { (stride, 1.1 * stride) } else { (0.075, 0.05) };
    let shoulder = if side_on { 0.03 } else { broad + 0.03 };
    let mut limbs: Vec<Limb> = vec![
        ([0.0, 0.945], [0.0, 0.965], 0.058, clothes.hair),
        ([0.012 * facing, 0.915], [0.012 * facing, 0.935], 0.053, clothes.skin),
        ([-shoulder, 0.79], [-shoulder - swing * facing, 0.55], 0.042, scale(clothes.top, 0.85)),
        ([0.0, 0.86], [0.0, 0.84], 0.04, clothes.skin),
    ];
    if dice.chance(0.3) {
        let bag = dice.paint();
        let at = if side_on { [-0.12 * facing, 0.68] } else { [(shoulder + 0.05) * facing, 0.5] };
        limbs.push((at, [at[0], at[1] + 0.09], 0.062, bag));
    }
    limbs.push(([0.0, 0.76], [0.0, 0.60], broad, clothes.top));
    limbs.push(([shoulder, 0.79], [shoulder + swing * facing, 0.55], 0.042, scale(clothes.top, 0.8)));
    match dice.below(5) {
        0 => limbs.push(([0.0, 0.5], [0.0, 0.33], broad + 0.01, clothes.top)),
        1 => limbs.push(([0.0, 0.46], [0.0, 0.40], broad + 0.015, clothes.trousers)),
        _ => limbs.push(([0.0, 0.56], [0.0, 0.50], broad - 0.015, clothes.trousers)),
    }
    for (side, shade) in [(1.0, 1.0), (-1.0, 0.82)] {
        let foot = side * spread;
        let knee = 0.6 * foot + if side_on { 0.03 * facing } else { 0.0 };
        limbs.push(([foot, 0.022], [foot + 0.05 * facing, 0.022], 0.03, clothes.shoes));
        limbs.push(([0.4 * foot, 0.48], [knee, 0.27], 0.058, scale(clothes.trousers, shade)));
        limbs.push(([knee, 0.27], [foot, 0.05], 0.044, scale(clothes.trousers, shade)));
    }
    let brolly = dice.chance(0.07).then(|| dice.paint());
    let key = dice.key();
    stage.shadow(stand, [0.3, 0.3], height);
    stage.board(stand.place, 0.34 * height, [0.0, 1.3 * height], move |spot| {
        let point = [spot.at[0] / height, spot.at[1] / height];
        if let Some(cloth) = brolly {
            let (dx, dy) = (point[0] / 0.32, (point[1] - 1.03) / 0.2);
            if dy > 0.0 && dx * dx + dy * dy < 1.0 {
                return Some(Touch::new(train_id::PERSON, scale(cloth, 0.7 + 0.4 * dy - 0.2 * dx)));
            }
        }
        dressed(train_id::PERSON, &limbs, point, key)
    });
}
