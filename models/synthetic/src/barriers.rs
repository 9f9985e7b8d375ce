//! Walls and fences along lines of the plan.

use crate::noise::{
    Rgb, Rng, fade, fract, fractal_noise, indicator, joints, lattice_hash, mix, scale, value_noise,
};
use crate::train_id;
use crate::world::{Fragment, Hit, World, opaque, veil};

#[derive(Debug, Clone, Copy)]
struct Wall {
    height: f32,
    color: Rgb,
    cap: Rgb,
    /// Size of the blocks; huge ones make plain concrete.
    block: [f32; 2],
    pier: f32,
    graffiti: Option<Rgb>,
    key: u32,
}

impl Wall {
    fn shade(&self, hit: &Hit) -> Option<Fragment> {
        let [along, y, _] = hit.at;
        let key = self.key;
        if y > self.height - 0.12 {
            return opaque(scale(self.cap, 1.1));
        }
        let [block_width, block_height] = self.block;
        let seen = fade(hit.texel / block_height);
        let block = [(along / block_width) as i32, (y / block_height) as i32];
        let tone = lattice_hash(block[0], block[1], key) - 0.5;
        let mut level =
            1.0 + seen * (0.24 * tone - 0.34 * joints(along, y, self.block, 0.025, true));
        // Streaks run down from the cap.
        level += 0.2 * value_noise(2.2 * along, 0.25 * y, key ^ 1)
            + 0.2 * fractal_noise(2.0 * along, 2.0 * y, key ^ 2, 2.0 * hit.texel);
        if fract(along / self.pier) < 0.07 {
            level *= 1.12;
        }
        let color = scale(self.color, level * (0.8 + 0.2 * (y / 0.7).min(1.0)));
        if let Some(paint) = self.graffiti
            && value_noise(1.3 * along, 2.1 * y, key ^ 3).abs() < 0.13
            && y < 0.8 * self.height
            && value_noise(0.35 * along, 0.0, key ^ 4) > 0.05
        {
            return opaque(mix(color, paint, 0.85));
        }
        opaque(color)
    }
}

pub(crate) fn wall(world: &mut World, rng: &mut Rng, line: &[[f32; 2]]) {
    let wall = Wall {
        height: rng.range(0.9, 3.6),
        color: rng.mineral_color(),
        cap: rng.mineral_color(),
        block: rng.choose(&[[0.25, 0.085], [0.6, 0.3], [3.0, 40.0], [0.45, 0.22], [2.4, 0.8]]),
        pier: rng.range(2.5, 5.0),
        graffiti: rng.chance(0.3).then(|| rng.paint_color()),
        key: rng.key(),
    };
    world.panels(train_id::WALL, line, wall.height, |piece| {
        let wall = Wall { key: wall.key.wrapping_add(97 * (piece + 1)), ..wall };
        move |hit: &Hit| wall.shade(hit)
    });
}

/// A weave with its period in meters.
#[derive(Debug, Clone, Copy)]
enum Weave {
    Bars(f32),
    Boards(f32),
    Mesh(f32),
    Rails(f32),
}

#[derive(Debug, Clone, Copy)]
struct Fence {
    weave: Weave,
    height: f32,
    color: Rgb,
    post: f32,
    key: u32,
}

impl Fence {
    /// The gaps are see-through, yet labeled as the fence.
    fn shade(&self, hit: &Hit) -> Option<Fragment> {
        let [along, y, _] = hit.at;
        if fract(along / self.post) * self.post < 0.1 {
            return opaque(scale(self.color, 0.85));
        }
        // Thin bars that fall between pixels blend into an even veil.
        let thread = |position: f32, gap: f32, thick: f32| {
            let seen = fade(hit.texel / gap);
            let covered = indicator(fract(position / gap) * gap < thick);
            covered * seen + (1.0 - seen) * thick / gap
        };
        match self.weave {
            Weave::Bars(_) if y <= 0.06 => None,
            Weave::Bars(gap) => {
                let rail = (y - 0.15).abs() < 0.04 || (y - self.height + 0.12).abs() < 0.04;
                veil(self.color, if rail { 1.0 } else { thread(along, gap, 0.035) })
            }
            Weave::Boards(width) => {
                let board = lattice_hash((along / width + 1000.0) as i32, 0, self.key);
                if y >= self.height - 0.08 * board {
                    return None;
                }
                let worn = 0.8
                    + 0.3 * board
                    + 0.25 * fractal_noise(9.0 * along, 1.2 * y, self.key, 5.0 * hit.texel);
                let split =
                    fade(hit.texel / width) * indicator(fract(along / width) * width < 0.02);
                opaque(scale(self.color, worn * (1.0 - 0.7 * split)))
            }
            Weave::Mesh(gap) => {
                let rising = thread(along + y, gap, 0.02);
                let falling = thread(along - y + 100.0, gap, 0.02);
                veil(self.color, (rising + falling).min(1.0))
            }
            Weave::Rails(_) if y <= 0.25 => None,
            Weave::Rails(gap) => veil(self.color, thread(y - 0.25, gap, 0.09)),
        }
    }
}

pub(crate) fn fence(world: &mut World, rng: &mut Rng, line: &[[f32; 2]], low: bool) {
    let weave = rng.choose(&[
        Weave::Bars(0.13),
        Weave::Bars(0.2),
        Weave::Boards(0.14),
        Weave::Boards(0.3),
        Weave::Mesh(0.16),
        Weave::Rails(0.32),
    ]);
    let wood = rng.jitter_color([0.48, 0.38, 0.27], 0.3);
    let height = if low { rng.range(0.8, 1.2) } else { rng.range(1.1, 2.3) };
    let wooden = matches!(weave, Weave::Boards(_)) && rng.chance(0.6);
    let color = if wooden { wood } else { rng.paint_color() };
    let fence = Fence { weave, height, color, post: rng.range(1.6, 3.0), key: rng.key() };
    world.panels(train_id::FENCE, line, fence.height, |piece| {
        let fence = Fence { key: fence.key.wrapping_add(31 * (piece + 1)), ..fence };
        move |hit: &Hit| fence.shade(hit)
    });
}
