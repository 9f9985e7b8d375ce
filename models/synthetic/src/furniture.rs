//! Poles, street lamps, traffic lights and traffic signs.

use crate::noise::{Rgb, Rng, fract, in_capsule, lattice_hash, mix, scale};
use crate::train_id;
use crate::world::{Pose, World, glowing, opaque};

/// A pole from the ground up; with an arm it carries a street lamp over the road.
pub(crate) fn pole(world: &mut World, rng: &mut Rng, pose: Pose, height: f32, arm: f32) {
    let radius = rng.range(0.035, 0.07) + 0.007 * height;
    let steel = rng.choose(&[
        [0.46, 0.47, 0.48],
        [0.30, 0.31, 0.31],
        [0.18, 0.22, 0.20],
        [0.58, 0.57, 0.54],
    ]);
    let wood = [0.36, 0.29, 0.22];
    let color = if rng.chance(0.2) { wood } else { rng.jitter_color(steel, 0.15) };
    let sun_side = if world.light.sun[0] > 0.0 { 0.3 } else { -0.3 };
    let evening = world.light.evening;
    world.shadow(pose, [radius, radius], 2.0);
    let (half_width, heights) = (arm.abs() + 0.4, [0.0, height + 0.15]);
    world.billboard(train_id::POLE, pose.place, half_width, heights, move |hit| {
        let [along, y, _] = hit.at;
        let thick = radius * (1.1 - 0.35 * y / height) + if y < 0.9 { 0.03 } else { 0.0 };
        let in_head = arm != 0.0 && (along - arm).abs() < 0.36 && (y - height).abs() < 0.1;
        let ends = [[0.0, height - 0.35], [arm, height]];
        match arm {
            _ if along.abs() < thick && y < height => {
                opaque(scale(color, 0.9 + sun_side * along / thick))
            }
            _ if in_head => glowing(mix(color, [0.98, 0.9, 0.7], evening), evening),
            arm if arm != 0.0 && in_capsule([along, y], ends[0], ends[1], 0.06) => {
                opaque(scale(color, 0.85))
            }
            _ => None,
        }
    });
}

/// The box of a traffic light; `middle` is its height above the ground.
fn signal(world: &mut World, rng: &mut Rng, place: [f32; 2], middle: f32, size: f32) {
    let housing = rng.choose(&[
        [0.07, 0.08, 0.07],
        [0.10, 0.10, 0.11],
        [0.62, 0.50, 0.12],
        [0.16, 0.24, 0.18],
    ]);
    let lit = rng.choose(&[0, 2, 2, 0, 1]);
    let rim = rng.chance(0.4);
    let (half_width, half_height) = (0.19 * size, 0.52 * size);
    let heights = [middle - half_height, middle + half_height];
    world.billboard(train_id::TRAFFIC_LIGHT, place, half_width, heights, move |hit| {
        let (x, y) = (hit.at[0] / half_width, (hit.at[1] - middle) / half_height);
        let slot = ((1.0 - y) * 1.5) as usize;
        let (dx, dy) = (x * 0.55, fract((1.0 - y) * 1.5) - 0.5);
        let color = [[1.0, 0.16, 0.10], [1.0, 0.70, 0.12], [0.15, 0.95, 0.55]][slot.min(2)];
        match slot {
            _ if rim && (x.abs() > 0.86 || y.abs() > 0.94) => opaque([0.75, 0.75, 0.72]),
            _ if dx * dx + dy * dy > 0.15 => opaque(housing),
            _ if slot == lit => glowing(color, 0.9),
            _ => opaque(scale(color, 0.16)),
        }
    });
}

/// Traffic lights on a pole at the curb, and with an arm one more over the road.
pub(crate) fn traffic_light(world: &mut World, rng: &mut Rng, pose: Pose, towards_road: f32) {
    let [x, z] = pose.place;
    let over_road = rng.chance(0.4);
    let height = if over_road { rng.range(4.8, 6.0) } else { rng.range(3.0, 3.7) };
    let arm = if over_road { towards_road * rng.range(2.2, 4.5) } else { 0.0 };
    let size = rng.range(0.95, 1.3);
    pole(world, rng, pose, height, arm);
    let middle = rng.range(2.6, 3.0);
    signal(world, rng, [x, z - 0.15], middle, size);
    if over_road {
        signal(world, rng, [x + 0.9 * arm, z - 0.15], height - 0.55, size);
    }
    if rng.chance(0.4) {
        signal(world, rng, [x - 0.34 * towards_road, z - 0.12], 2.2, 0.7 * size);
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Outline {
    Round,
    TriangleUp,
    TriangleDown,
    Diamond,
    Octagon,
    Board,
}

const WHITE: Rgb = [0.88, 0.88, 0.85];
const RED: Rgb = [0.68, 0.12, 0.10];
const BLUE: Rgb = [0.12, 0.25, 0.55];
const BLACK: Rgb = [0.10, 0.10, 0.10];
const YELLOW: Rgb = [0.85, 0.68, 0.14];

/// Outline, colors of rim, face and ink, and width of the border.
const SIGNS: [(Outline, Rgb, Rgb, Rgb, f32); 13] = [
    (Outline::Round, RED, WHITE, BLACK, 0.16),
    (Outline::Round, RED, [0.15, 0.28, 0.58], RED, 0.16),
    (Outline::Round, WHITE, BLUE, WHITE, 0.06),
    (Outline::Round, RED, RED, WHITE, 0.1),
    (Outline::TriangleUp, RED, WHITE, BLACK, 0.2),
    (Outline::TriangleDown, RED, WHITE, WHITE, 0.22),
    (Outline::Diamond, WHITE, YELLOW, YELLOW, 0.2),
    (Outline::Octagon, WHITE, [0.62, 0.16, 0.12], WHITE, 0.07),
    (Outline::Board, WHITE, BLUE, WHITE, 0.06),
    (Outline::Board, BLACK, [0.85, 0.72, 0.2], BLACK, 0.05),
    (Outline::Board, WHITE, [0.48, 0.28, 0.18], WHITE, 0.06),
    (Outline::Board, BLACK, WHITE, BLACK, 0.05),
    (Outline::Board, WHITE, [0.18, 0.40, 0.26], WHITE, 0.06),
];

impl Outline {
    /// Distance of a point of the square [-1, 1] from the middle: 1 on the edge.
    fn out(self, x: f32, y: f32) -> f32 {
        match self {
            Self::Round => (x * x + y * y).sqrt(),
            Self::TriangleUp => (-y * 1.15).max(x.abs() + 0.5 * y + 0.42).max(0.0),
            Self::TriangleDown => (y * 1.15).max(x.abs() - 0.5 * y + 0.42).max(0.0),
            Self::Diamond => x.abs() + y.abs(),
            Self::Octagon => x.abs().max(y.abs()).max(0.72 * (x.abs() + y.abs())),
            Self::Board => x.abs().max(y.abs()),
        }
    }

    /// True on the ink: lines of text on a board, else a mark of a few strokes on a mirrored 5 x 5
    /// grid.
    fn written(self, x: f32, y: f32, out: f32, key: u32) -> bool {
        if self == Self::Board {
            let line = lattice_hash(((y + 1.0) * 2.5) as i32, 0, key);
            return fract(y * 2.5) > 0.45 && x.abs() < 0.55 + 0.3 * line && out < 0.85;
        }
        let cell = [(x.abs() * 5.0) as i32, ((y + 1.0) * 3.5) as i32];
        out < 0.62 && lattice_hash(cell[0], cell[1], key) < 0.45
    }
}

/// A sign, or two above each other, on a pole.
pub(crate) fn sign(world: &mut World, rng: &mut Rng, pose: Pose) {
    let [x, z] = pose.place;
    let count = rng.choose(&[1, 1, 2]);
    let mut middle = rng.range(2.3, 3.2);
    pole(world, rng, pose, middle + 0.3, 0.0);
    for _ in 0..count {
        let (outline, rim, face, ink, border) = rng.choose(&SIGNS);
        let [rim, face, ink] = [rim, face, ink].map(|color| rng.jitter_color(color, 0.12));
        let key = rng.key();
        let half = if outline == Outline::Board {
            [rng.range(0.4, 1.1), rng.range(0.28, 0.5)]
        } else {
            [rng.range(0.34, 0.52); 2]
        };
        let center = middle;
        let heights = [center - half[1], center + half[1]];
        world.billboard(train_id::TRAFFIC_SIGN, [x, z - 0.15], half[0], heights, move |hit| {
            let (x, y) = (hit.at[0] / half[0], (hit.at[1] - center) / half[1]);
            match outline.out(x, y) {
                out if out > 1.0 => None,
                out if out > 1.0 - border => opaque(rim),
                out if outline.written(x, y, out, key) => opaque(ink),
                _ => opaque(face),
            }
        });
        middle -= 2.0 * half[1] + 0.06;
    }
}
