//! Walls and fences along lines of the plan.

use super::noise::{Dice, Rgb, bumps, fade, fract, grain, joints, lattice, mix, scale};
use super::shape::{Spot, Touch};
use super::stage::Stage;
use super::train_id;

#[derive(Debug, Clone, Copy)]
struct Wall {
    height: f32,
    colour: Rgb,
    cap: Rgb,
    /// Blocks of the masonry; huge ones make plain concrete.
    block: [f32; 2],
    pier: f32,
    graffiti: Option<Rgb>,
    key: u32,
}

impl Wall {
    fn paint(&self, spot: &Spot) -> Touch {
        let [along, y, _] = spot.at;
        let key = self.key;
        if y > self.height - 0.12 {
            return Touch::new(train_id::WALL, scale(self.cap, 1.1));
        }
        let seen = fade(spot.texel / self.block[1]);
        let tone = lattice((along / self.block[0]) as i32, (y / self.block[1]) as i32, key) - 0.5;
        let mut level = 1.0 + seen * (0.24 * tone - 0.34 * joints(along, y, self.block, 0.025, true));
        // Streaks run down from the cap.
        level +=
            0.2 * bumps(2.2 * along, 0.25 * y, key ^ 1) + 0.2 * grain(2.0 * along, 2.0 * y, key ^ 2, 2.0 * spot.texel);
        if fract(along / self.pier) < 0.07 {
            level *= 1.12;
        }
        let mut colour = scale(self.colour, level * (0.8 + 0.2 * (y / 0.7).min(1.0)));
        if let Some(paint) = self.graffiti {
            let line = bumps(1.3 * along, 2.1 * y, key ^ 3).abs();
            if line < 0.13 && y < 0.8 * self.height && bumps(0.35 * along, 0.0, key ^ 4) > 0.05 {
                colour = mix(colour, paint, 0.85);
            }
        }
        Touch::new(train_id::WALL, colour)
    }
}

pub(super) fn wall(stage: &mut Stage, dice: &mut Dice, line: &[[f32; 2]]) {
    let mut wall = Wall {
        height: dice.range(0.9, 3.6),
        colour: dice.mineral(),
        cap: dice.mineral(),
        block: dice.pick(&[[0.25, 0.085], [0.6, 0.3], [3.0, 40.0], [0.45, 0.22], [2.4, 0.8]]),
        pier: dice.range(2.5, 5.0),
        graffiti: dice.chance(0.3).then(|| dice.paint()),
        key: dice.key(),
    };
    for ends in line.windows(2) {
        wall.key = wall.key.wrapping_add(97);
        stage.panel([ends[0], ends[1]], [0.0, wall.height], move |spot| Some(wall.paint(spot)));
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
    colour: Rgb,
    post: f32,
    key: u32,
}

impl Fence {
    /// The gaps are see-through, yet part of the fence.
    fn paint(&self, spot: &Spot) -> Option<Touch> {
        let [along, y, _] = spot.at;
        let post = fract(along / self.post) * self.post < 0.1;
        let solid = |share: f32| Touch { alpha: share, ..Touch::new(train_id::FENCE, self.colour) };
        if post {
            return Some(Touch::new(train_id::FENCE, scale(self.colour, 0.85)));
        }
        // Thin bars that fall between pixels blend into an even veil.
        let thread = |position: f32, gap: f32, thick: f32| {
            let seen = fade(spot.texel / gap);
            let hit = f32::from(u8::from(fract(position / gap) * gap < thick));
            hit * seen + (1.0 - seen) * thick / gap
        };
        match self.weave {
            Weave::Bars { gap } => {
                let rail = (y - 0.15).abs() < 0.04 || (y - self.height + 0.12).abs() < 0.04;
                (y > 0.06).then(|| solid(if rail { 1.0 } else { thread(along, gap, 0.035) }))
            }
            Weave::Boards { width } => {
                let board = lattice((along / width + 1000.0) as i32, 0, self.key);
                let worn = 0.8 + 0.3 * board + 0.25 * grain(9.0 * along, 1.2 * y, self.key, 5.0 * spot.texel);
                let split = fade(spot.texel / width) * f32::from(u8::from(fract(along / width) * width < 0.02));
                let top = self.height - 0.08 * board;
                (y < top).then(|| Touch::new(train_id::FENCE, scale(self.colour, worn * (1.0 - 0.7 * split))))
            }
            Weave::Mesh { gap } => {
                let (one, other) = (thread(along + y, gap, 0.02), thread(along - y + 100.0, gap, 0.02));
                Some(solid((one + other).min(1.0)))
            }
            Weave::Rails { gap } => (y > 0.25).then(|| solid(thread(y - 0.25, gap, 0.09))),
        }
    }
}

pub(super) fn fence(stage: &mut Stage, dice: &mut Dice, line: &[[f32; 2]], low: bool) {
    let weave = dice.pick(&[
        Weave::Bars { gap: 0.13 },
        Weave::Bars { gap: 0.2 },
        Weave::Boards { width: 0.14 },
        Weave::Boards { width: 0.3 },
        Weave::Mesh { gap: 0.16 },
        Weave::Rails { gap: 0.32 },
    ]);
    let wood = dice.near([0.48, 0.38, 0.27], 0.3);
    let mut fence = Fence {
        weave,
        height: if low { dice.range(0.8, 1.2) } else { dice.range(1.1, 2.3) },
        colour: if matches!(weave, Weave::Boards { .. }) && dice.chance(0.6) { wood } else { dice.paint() },
        post: dice.range(1.6, 3.0),
        key: dice.key(),
    };
    for ends in line.windows(2) {
        fence.key = fence.key.wrapping_add(31);
        stage.panel([ends[0], ends[1]], [0.0, fence.height], move |spot| fence.paint(spot));
    }
}
