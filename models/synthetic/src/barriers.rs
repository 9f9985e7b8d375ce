//! Walls and fences along lines of the plan.

use crate::noise::{
    Rng, fade, fract, fractal_noise, indicator, joints, lattice_hash, mix, scale, value_noise,
};
use crate::train_id;
use crate::world::{Hit, World, opaque, veil};

pub(crate) fn wall(world: &mut World, rng: &mut Rng, line: &[[f32; 2]]) {
    let height = rng.range(0.9, 3.6);
    let stone = rng.mineral_color();
    let cap = rng.mineral_color();
    // Huge blocks make plain concrete.
    let blocks = [[0.25, 0.085], [0.6, 0.3], [3.0, 40.0], [0.45, 0.22], [2.4, 0.8]];
    let block: [f32; 2] = rng.choose(&blocks);
    let pier = rng.range(2.5, 5.0);
    let graffiti = rng.chance(0.3).then(|| rng.paint_color());
    let key = rng.key();
    world.panels(train_id::WALL, line, height, |piece| {
        let key = key.wrapping_add(97 * (piece + 1));
        move |hit: &Hit| {
            let [along, y, _] = hit.at;
            if y > height - 0.12 {
                return opaque(scale(cap, 1.1));
            }
            let tone = lattice_hash((along / block[0]) as i32, (y / block[1]) as i32, key) - 0.5;
            let masonry = 0.24 * tone - 0.34 * joints(along, y, block, 0.025, true);
            let mut level = 1.0 + fade(hit.texel / block[1]) * masonry;
            // Streaks run down from the cap.
            level += 0.2 * value_noise(2.2 * along, 0.25 * y, key ^ 1)
                + 0.2 * fractal_noise(2.0 * along, 2.0 * y, key ^ 2, 2.0 * hit.texel);
            if fract(along / pier) < 0.07 {
                level *= 1.12;
            }
            let color = scale(stone, level * (0.8 + 0.2 * (y / 0.7).min(1.0)));
            let painted = || {
                value_noise(1.3 * along, 2.1 * y, key ^ 3).abs() < 0.13
                    && y < 0.8 * height
                    && value_noise(0.35 * along, 0.0, key ^ 4) > 0.05
            };
            match graffiti {
                Some(paint) if painted() => opaque(mix(color, paint, 0.85)),
                _ => opaque(color),
            }
        }
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

/// A fence; its gaps are see-through, yet labeled as the fence.
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
    let post = rng.range(1.6, 3.0);
    let key = rng.key();
    world.panels(train_id::FENCE, line, height, |piece| {
        let key = key.wrapping_add(31 * (piece + 1));
        move |hit: &Hit| {
            let [along, y, _] = hit.at;
            // Thin bars that fall between pixels blend into an even veil.
            let thread = |position: f32, gap: f32, thick: f32| {
                let seen = fade(hit.texel / gap);
                let covered = indicator(fract(position / gap) * gap < thick);
                covered * seen + (1.0 - seen) * thick / gap
            };
            let rail = (y - 0.15).abs() < 0.04 || (y - height + 0.12).abs() < 0.04;
            match weave {
                _ if fract(along / post) * post < 0.1 => opaque(scale(color, 0.85)),
                Weave::Bars(_) if y <= 0.06 => None,
                Weave::Bars(_) if rail => opaque(color),
                Weave::Bars(gap) => veil(color, thread(along, gap, 0.035)),
                Weave::Boards(width) => {
                    let board = lattice_hash((along / width + 1000.0) as i32, 0, key);
                    let stains = 0.25 * fractal_noise(9.0 * along, 1.2 * y, key, 5.0 * hit.texel);
                    let worn = 0.8 + 0.3 * board + stains;
                    let split = indicator(fract(along / width) * width < 0.02);
                    let shade = 1.0 - 0.7 * (fade(hit.texel / width) * split);
                    let top = height - 0.08 * board;
                    if y < top { opaque(scale(color, worn * shade)) } else { None }
                }
                Weave::Mesh(gap) => {
                    let rising = thread(along + y, gap, 0.02);
                    let falling = thread(along - y + 100.0, gap, 0.02);
                    veil(color, (rising + falling).min(1.0))
                }
                Weave::Rails(_) if y <= 0.25 => None,
                Weave::Rails(gap) => veil(color, thread(y - 0.25, gap, 0.09)),
            }
        }
    });
}
