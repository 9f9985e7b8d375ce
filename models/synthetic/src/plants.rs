//! Trees, bushes and hedges.

use super::noise::{Dice, Rgb, between, grain, lattice, mix, scale};
use super::shape::{Stand, Touch};
use super::stage::Stage;
use super::train_id;

/// The season's leaves, shared by a scene's plants.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leaves {
    colours: [Rgb; 2],
}

impl Leaves {
    pub(super) fn new(dice: &mut Dice) -> Self {
        const SEASONS: [[Rgb; 2]; 5] = [
            [[0.16, 0.26, 0.10], [0.34, 0.42, 0.16]],
            [[0.20, 0.30, 0.12], [0.44, 0.52, 0.20]],
            [[0.12, 0.20, 0.11], [0.26, 0.34, 0.20]],
            [[0.40, 0.26, 0.10], [0.66, 0.48, 0.16]],
            [[0.30, 0.22, 0.16], [0.42, 0.38, 0.26]],
        ];
        let season = dice.pick(&[0, 0, 1, 1, 2, 2, 3, 4]);
        Self { colours: SEASONS[season].map(|colour| dice.near(colour, 0.15)) }
    }

    fn tint(self, dice: &mut Dice) -> [Rgb; 2] {
        let other = dice.range(0.0, 0.35);
        [mix(self.colours[0], self.colours[1], other), dice.near(self.colours[1], 0.18)]
    }
}

/// Leaves in clumps: dark gaps and bright tips of several sizes.
fn foliage(tint: [Rgb; 2], x: f32, y: f32, texel: f32, key: u32) -> Rgb {
    let clumps = grain(1.6 * x, 1.9 * y, key, 1.6 * texel);
    let tips = grain(7.0 * x, 7.0 * y, key ^ 1, 7.0 * texel);
    let level = (0.6 + 0.9 * clumps + 0.55 * tips).clamp(0.0, 1.25);
    scale(mix(tint[0], tint[1], level), 0.6 + 0.6 * level)
}

#[derive(Debug, Clone, Copy)]
struct Tree {
    height: f32,
    radius: f32,
    /// Where the crown begins.
    fork: f32,
    trunk: f32,
    pointed: bool,
    /// Disks of the crown: `[along, height, radius]`.
    puffs: [[f32; 3]; 9],
    tint: [Rgb; 2],
    bark: Rgb,
    sun_side: f32,
    key: u32,
}

impl Tree {
    /// How deep a point lies in the crown: 1 in the heart of a puff, below 0 outside; and the puff's share of light.
    fn crown(&self, along: f32, y: f32) -> [f32; 2] {
        if self.pointed {
            let up = (y - self.fork) / (self.height - self.fork);
            let wide = self.radius * (1.0 - up) * (0.8 + 0.2 * lattice((y * 1.6) as i32, 0, self.key));
            let deep = if up < 0.0 { -1.0 } else { 1.0 - along.abs() / wide.max(0.01) };
            return [deep, 0.2 + 0.6 * up + 0.25 * self.sun_side * along / self.radius];
        }
        let mut best = [-9.0, 0.0];
        for [px, py, radius] in self.puffs {
            let (dx, dy) = ((along - px) / radius, (y - py) / radius);
            let deep = 1.0 - dx * dx - dy * dy;
            if deep > best[0] {
                best = [deep, 0.45 + 0.4 * dy + 0.3 * self.sun_side * dx + 0.25 * (py / self.height - 0.6)];
            }
        }
        best
    }

    fn paint(&self, along: f32, y: f32, texel: f32) -> Option<Touch> {
        let [deep, lit] = self.crown(along, y);
        if deep > -0.9 && deep + 0.75 * grain(1.9 * along, 1.9 * y, self.key, 1.9 * texel) > 0.08 {
            let leaves = foliage(self.tint, along, y, texel, self.key);
            return Some(Touch::new(train_id::VEGETATION, scale(leaves, between(0.6, 1.25, lit.clamp(0.0, 1.0)))));
        }
        let flare = self.trunk * (1.25 - 0.5 * (y / self.height)) + 0.12 * (0.4 - y).max(0.0);
        let lean = 0.12 * grain(0.4 * y, 0.0, self.key ^ 2, 0.05);
        if (along - lean).abs() < flare && y < self.fork + 0.6 * (self.height - self.fork) {
            let round = 0.75 + 0.35 * self.sun_side * (along - lean) / flare;
            let bark = round + 0.4 * grain(14.0 * along, 2.5 * y, self.key ^ 3, 8.0 * texel);
            return Some(Touch::new(train_id::VEGETATION, scale(self.bark, bark)));
        }
        None
    }
}

pub(super) fn tree(stage: &mut Stage, dice: &mut Dice, stand: Stand, leaves: Leaves) {
    let height = dice.range(4.0, 13.0);
    let pointed = dice.chance(0.16);
    let fork = if pointed { dice.range(0.2, 1.4) } else { dice.range(0.22, 0.38) * height };
    let radius = if pointed { 0.24 * height } else { dice.range(0.26, 0.42) * height };
    let middle = 0.5 * (fork + height);
    let tall = 0.5 * (height - fork);
    let puffs = std::array::from_fn(|index| {
        if index == 0 {
            return [0.0, middle, radius.min(tall)];
        }
        let (x, y) = (dice.range(-0.62, 0.62), dice.range(-0.55, 0.6));
        [x * radius, middle + y * tall, dice.range(0.38, 0.6) * radius.min(tall)]
    });
    let tree = Tree {
        height,
        radius,
        fork,
        trunk: dice.range(0.09, 0.26),
        pointed,
        puffs,
        tint: leaves.tint(dice),
        bark: dice.pick(&[[0.30, 0.25, 0.20], [0.42, 0.40, 0.36], [0.22, 0.19, 0.17]]),
        sun_side: if stage.light.sun[0] > 0.0 { 1.0 } else { -1.0 },
        key: dice.key(),
    };
    stage.shadow(stand, [0.7 * radius, 0.7 * radius], height * 0.6);
    stage.board(stand.place, 1.25 * radius, [0.0, height * 1.06], move |spot| {
        tree.paint(spot.at[0], spot.at[1], spot.texel)
    });
}

pub(super) fn bush(stage: &mut Stage, dice: &mut Dice, stand: Stand, leaves: Leaves) {
    let (half, height, key) = (dice.range(0.5, 1.8), dice.range(0.5, 1.9), dice.key());
    let tint = leaves.tint(dice);
    stage.shadow(stand, [half, half], 0.4);
    stage.board(stand.place, half, [0.0, height], move |spot| {
        let [along, y, _] = spot.at;
        let (dx, dy) = (along / half, y / height);
        let edge = 0.85 - dx * dx - dy * dy + 0.5 * grain(2.6 * along, 2.6 * y, key, 2.6 * spot.texel);
        let leaves = scale(foliage(tint, along, y, spot.texel, key), 0.6 + 0.5 * dy);
        (edge > 0.0).then(|| Touch::new(train_id::VEGETATION, leaves))
    });
}

/// A hedge along a line of the plan.
pub(super) fn hedge(stage: &mut Stage, dice: &mut Dice, line: &[[f32; 2]], leaves: Leaves) {
    let (height, key, tint) = (dice.range(0.7, 2.4), dice.key(), leaves.tint(dice));
    for (piece, ends) in line.windows(2).enumerate() {
        let key = key.wrapping_add(piece as u32);
        stage.panel([ends[0], ends[1]], [0.0, height * 1.15], move |spot| {
            let [along, y, _] = spot.at;
            let top = height * (1.0 + 0.12 * grain(1.5 * along, 0.0, key, spot.texel));
            let leaves = scale(foliage(tint, along, y, spot.texel, key), 0.55 + 0.5 * y / height);
            (y < top).then(|| Touch::new(train_id::VEGETATION, leaves))
        });
    }
}
