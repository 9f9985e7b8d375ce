//! Trees, bushes and hedges.

use crate::noise::{Rgb, Rng, fractal_noise, lattice_hash, lerp, mix, scale};
use crate::train_id;
use crate::world::{Hit, Pose, World, opaque};

/// Colors of the season's leaves, shared by the plants of a scene.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FoliageColors {
    colors: [Rgb; 2],
}

impl FoliageColors {
    pub(crate) fn new(rng: &mut Rng) -> Self {
        const SEASONS: [[Rgb; 2]; 5] = [
            [[0.16, 0.26, 0.10], [0.34, 0.42, 0.16]],
            [[0.20, 0.30, 0.12], [0.44, 0.52, 0.20]],
            [[0.12, 0.20, 0.11], [0.26, 0.34, 0.20]],
            [[0.40, 0.26, 0.10], [0.66, 0.48, 0.16]],
            [[0.30, 0.22, 0.16], [0.42, 0.38, 0.26]],
        ];
        let season = rng.choose(&[0, 0, 1, 1, 2, 2, 3, 4]);
        Self { colors: SEASONS[season].map(|color| rng.jitter_color(color, 0.15)) }
    }

    fn tint(self, rng: &mut Rng) -> [Rgb; 2] {
        let other = rng.range(0.0, 0.35);
        [mix(self.colors[0], self.colors[1], other), rng.jitter_color(self.colors[1], 0.18)]
    }
}

/// Leaves in clumps: dark gaps and bright tips of several sizes.
fn foliage(tint: [Rgb; 2], x: f32, y: f32, texel: f32, key: u32) -> Rgb {
    let clumps = fractal_noise(1.6 * x, 1.9 * y, key, 1.6 * texel);
    let tips = fractal_noise(7.0 * x, 7.0 * y, key ^ 1, 7.0 * texel);
    let level = (0.6 + 0.9 * clumps + 0.55 * tips).clamp(0.0, 1.25);
    scale(mix(tint[0], tint[1], level), 0.6 + 0.6 * level)
}

pub(crate) fn tree(world: &mut World, rng: &mut Rng, pose: Pose, leaves: FoliageColors) {
    let height = rng.range(4.0, 13.0);
    let pointed = rng.chance(0.16);
    let fork = if pointed { rng.range(0.2, 1.4) } else { rng.range(0.22, 0.38) * height };
    let radius = if pointed { 0.24 * height } else { rng.range(0.26, 0.42) * height };
    let middle = 0.5 * (fork + height);
    let tall = 0.5 * (height - fork);
    // Disks of the crown: `[along, height, radius]`.
    let puffs: [[f32; 3]; 9] = std::array::from_fn(|index| {
        if index == 0 {
            return [0.0, middle, radius.min(tall)];
        }
        let (x, y) = (rng.range(-0.62, 0.62), rng.range(-0.55, 0.6));
        [x * radius, middle + y * tall, rng.range(0.38, 0.6) * radius.min(tall)]
    });
    let trunk = rng.range(0.09, 0.26);
    let tint = leaves.tint(rng);
    let bark = rng.choose(&[[0.30, 0.25, 0.20], [0.42, 0.40, 0.36], [0.22, 0.19, 0.17]]);
    let sun_side = if world.light.sun[0] > 0.0 { 1.0 } else { -1.0 };
    let key = rng.key();

    // Depth of a point in the crown (1 in the heart of a puff, below 0 outside), and its light.
    let crown = move |along: f32, y: f32| {
        if pointed {
            let up = (y - fork) / (height - fork);
            let ragged = 0.8 + 0.2 * lattice_hash((y * 1.6) as i32, 0, key);
            let wide = radius * (1.0 - up) * ragged;
            let deep = if up < 0.0 { -1.0 } else { 1.0 - along.abs() / wide.max(0.01) };
            return [deep, 0.2 + 0.6 * up + 0.25 * sun_side * along / radius];
        }
        let mut best = [-9.0, 0.0];
        for [px, py, radius] in puffs {
            let (dx, dy) = ((along - px) / radius, (y - py) / radius);
            let deep = 1.0 - dx * dx - dy * dy;
            if deep > best[0] {
                let high = py / height - 0.6;
                best = [deep, 0.45 + 0.4 * dy + 0.3 * sun_side * dx + 0.25 * high];
            }
        }
        best
    };
    world.shadow(pose, [0.7 * radius, 0.7 * radius], height * 0.6);
    let (half_width, heights) = (1.25 * radius, [0.0, height * 1.06]);
    world.billboard(train_id::VEGETATION, pose.place, half_width, heights, move |hit| {
        let [along, y, _] = hit.at;
        let [deep, lit] = crown(along, y);
        let ragged = || 0.75 * fractal_noise(1.9 * along, 1.9 * y, key, 1.9 * hit.texel);
        if deep > -0.9 && deep + ragged() > 0.08 {
            let leaves = foliage(tint, along, y, hit.texel, key);
            return opaque(scale(leaves, lerp(0.6, 1.25, lit.clamp(0.0, 1.0))));
        }
        let flare = trunk * (1.25 - 0.5 * (y / height)) + 0.12 * (0.4 - y).max(0.0);
        let lean = 0.12 * fractal_noise(0.4 * y, 0.0, key ^ 2, 0.05);
        if (along - lean).abs() >= flare || y >= fork + 0.6 * (height - fork) {
            return None;
        }
        let round = 0.75 + 0.35 * sun_side * (along - lean) / flare;
        let grain = 0.4 * fractal_noise(14.0 * along, 2.5 * y, key ^ 3, 8.0 * hit.texel);
        opaque(scale(bark, round + grain))
    });
}

pub(crate) fn bush(world: &mut World, rng: &mut Rng, pose: Pose, leaves: FoliageColors) {
    let half = rng.range(0.5, 1.8);
    let height = rng.range(0.5, 1.9);
    let key = rng.key();
    let tint = leaves.tint(rng);
    world.shadow(pose, [half, half], 0.4);
    world.billboard(train_id::VEGETATION, pose.place, half, [0.0, height], move |hit| {
        let [along, y, _] = hit.at;
        let (dx, dy) = (along / half, y / height);
        let edge = 0.85 - dx * dx - dy * dy
            + 0.5 * fractal_noise(2.6 * along, 2.6 * y, key, 2.6 * hit.texel);
        if edge <= 0.0 {
            return None;
        }
        opaque(scale(foliage(tint, along, y, hit.texel, key), 0.6 + 0.5 * dy))
    });
}

/// A hedge along a line of the plan.
pub(crate) fn hedge(world: &mut World, rng: &mut Rng, line: &[[f32; 2]], leaves: FoliageColors) {
    let height = rng.range(0.7, 2.4);
    let key = rng.key();
    let tint = leaves.tint(rng);
    world.panels(train_id::VEGETATION, line, height * 1.15, |piece| {
        let key = key.wrapping_add(piece);
        move |hit: &Hit| {
            let [along, y, _] = hit.at;
            let top = height * (1.0 + 0.12 * fractal_noise(1.5 * along, 0.0, key, hit.texel));
            if y >= top {
                return None;
            }
            let leaves = foliage(tint, along, y, hit.texel, key);
            opaque(scale(leaves, 0.55 + 0.5 * y / height))
        }
    });
}
