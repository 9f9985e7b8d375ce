//! Walls and fences along lines of the plan.

use super::noise::{
    Rgb, Rng, fade, fract, fractal_noise, joints, lattice_hash, mix, scale, value_noise,
};
use super::shape::{Fragment, Hit};
use super::train_id;
use super::world::World;

#[derive(Debug, Clone, Copy)]
struct Wall {
    height: f32,
    color: Rgb,
    cap: Rgb,
    /// Blocks of the masonry; huge ones make plain concrete.
    block: [f32; 2],
    pier: f32,
    graffiti: Option<Rgb>,
    key: u32,
}

impl Wall {
    fn paint(&self, hit: &Hit) -> Fragment {
        let [along, y, _] = hit.at;
        let key = self.key;
        if y > self.height - 0.12 {
            return Fragment::new(train_id::WALL, scale(self.cap, 1.1));
        }
        let seen = fade(hit.texel / self.block[1]);
        let tone =
            lattice_hash((along / self.block[0]) as i32, (y / self.block[1]) as i32, key) - 0.5;
        let mut level =
            1.0 + seen * (0.24 * tone - 0.34 * joints(along, y, self.block, 0.025, true));
        // Streaks run down from the cap.
        level += 0.2 * value_noise(2.2 * along, 0.25 * y, key ^ 1)
            + 0.2 * fractal_noise(2.0 * along, 2.0 * y, key ^ 2, 2.0 * hit.texel);
        if fract(along / self.pier) < 0.07 {
            level *= 1.12;
        }
        let mut color = scale(self.color, level * (0.8 + 0.2 * (y / 0.7).min(1.0)));
        if let Some(paint) = self.graffiti {
            let line = value_noise(1.3 * along, 2.1 * y, key ^ 3).abs();
            if line < 0.13
                && y < 0.8 * self.height
                && value_noise(0.35 * along, 0.0, key ^ 4) > 0.05
            {
                color = mix(color, paint, 0.85);
            }
        }
        Fragment::new(train_id::WALL, color)
    }
}

pub(super) fn wall(world: &mut World, rng: &mut Rng, line: &[[f32; 2]]) {
    let mut wall = Wall {
        height: rng.range(0.9, 3.6),
        color: rng.mineral_color(),
        cap: rng.mineral_color(),
        block: rng.choose(&[[0.25, 0.085], [0.6, 0.3], [3.0, 40.0], [0.45, 0.22], [2.4, 0.8]]),
        pier: rng.range(2.5, 5.0),
        graffiti: rng.chance(0.3).then(|| rng.paint_color()),
        key: rng.key(),
    };
    for ends in line.windows(2) {
        wall.key = wall.key.wrapping_add(97);
        world.panel([ends[0], ends[1]], [0.0, wall.height], move |hit| Some(wall.paint(hit)));
    }
}

#[derive(Debug, Clone, Copy)]
enum Weave {
    Bars { gap: f32 },
    Boards { width: f32 },
    Mesh { gap: f32 },
    Rails { gap: f32 },
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
    /// The gaps are see-through, yet part of the fence.
    fn paint(&self, hit: &Hit) -> Option<Fragment> {
        let [along, y, _] = hit.at;
        let post = fract(along / self.post) * self.post < 0.1;
        let solid =
            |share: f32| Fragment { alpha: share, ..Fragment::new(train_id::FENCE, self.color) };
        if post {
            return Some(Fragment::new(train_id::FENCE, scale(self.color, 0.85)));
        }
        // Thin bars that fall between pixels blend into an even veil.
        let thread = |position: f32, gap: f32, thick: f32| {
            let seen = fade(hit.texel / gap);
            let covered = f32::from(u8::from(fract(position / gap) * gap < thick));
            covered * seen + (1.0 - seen) * thick / gap
        };
        match self.weave {
            Weave::Bars { gap } => {
                let rail = (y - 0.15).abs() < 0.04 || (y - self.height + 0.12).abs() < 0.04;
                (y > 0.06).then(|| solid(if rail { 1.0 } else { thread(along, gap, 0.035) }))
            }
            Weave::Boards { width } => {
                let board = lattice_hash((along / width + 1000.0) as i32, 0, self.key);
                let worn = 0.8
                    + 0.3 * board
                    + 0.25 * fractal_noise(9.0 * along, 1.2 * y, self.key, 5.0 * hit.texel);
                let split = fade(hit.texel / width)
                    * f32::from(u8::from(fract(along / width) * width < 0.02));
                let top = self.height - 0.08 * board;
                (y < top).then(|| {
                    Fragment::new(train_id::FENCE, scale(self.color, worn * (1.0 - 0.7 * split)))
                })
            }
            Weave::Mesh { gap } => {
                let (one, other) =
                    (thread(along + y, gap, 0.02), thread(along - y + 100.0, gap, 0.02));
                Some(solid((one + other).min(1.0)))
            }
            Weave::Rails { gap } => (y > 0.25).then(|| solid(thread(y - 0.25, gap, 0.09))),
        }
    }
}

pub(super) fn fence(world: &mut World, rng: &mut Rng, line: &[[f32; 2]], low: bool) {
    let weave = rng.choose(&[
        Weave::Bars { gap: 0.13 },
        Weave::Bars { gap: 0.2 },
        Weave::Boards { width: 0.14 },
        Weave::Boards { width: 0.3 },
        Weave::Mesh { gap: 0.16 },
        Weave::Rails { gap: 0.32 },
    ]);
    let wood = rng.jitter_color([0.48, 0.38, 0.27], 0.3);
    let mut fence = Fence {
        weave,
        height: if low { rng.range(0.8, 1.2) } else { rng.range(1.1, 2.3) },
        color: if matches!(weave, Weave::Boards { .. }) && rng.chance(0.6) {
            wood
        } else {
            rng.paint_color()
        },
        post: rng.range(1.6, 3.0),
        key: rng.key(),
    };
    for ends in line.windows(2) {
        fence.key = fence.key.wrapping_add(31);
        world.panel([ends[0], ends[1]], [0.0, fence.height], move |hit| fence.paint(hit));
    }
}
