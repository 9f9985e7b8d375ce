//! Sequential random draws, colors, and value noise.
//!
//! Only `+ - * /` and square roots, which IEEE 754 fixes to the last bit: the same bytes on every
//! machine. The order of draws and of sums is part of the format: a change gives other scenes.

use protoseg_models::random::Stream;

/// Red, green and blue; 1 is white paper in full light.
pub(crate) type Rgb = [f32; 3];

/// Sequential reader of a random stream.
pub(crate) struct Rng {
    stream: Stream,
    next: u64,
}

impl Rng {
    pub(crate) fn new(stream: Stream) -> Self {
        Self { stream, next: 0 }
    }

    pub(crate) fn unit(&mut self) -> f32 {
        self.next += 1;
        self.stream.unit(self.next) as f32
    }

    pub(crate) fn range(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    pub(crate) fn chance(&mut self, share: f32) -> bool {
        self.unit() < share
    }

    pub(crate) fn below(&mut self, count: usize) -> usize {
        self.next += 1;
        self.stream.below(self.next, count)
    }

    /// -1 or 1.
    pub(crate) fn sign(&mut self) -> f32 {
        if self.chance(0.5) { -1.0 } else { 1.0 }
    }

    pub(crate) fn choose<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// A key of a texture.
    pub(crate) fn key(&mut self) -> u32 {
        self.next += 1;
        self.stream.bits(self.next) as u32
    }

    /// A color near another, channel by channel.
    pub(crate) fn jitter_color(&mut self, color: Rgb, spread: f32) -> Rgb {
        let level = self.range(1.0 - spread, 1.0 + spread);
        color.map(|channel| (channel * level + self.range(-0.2, 0.2) * spread).clamp(0.02, 1.0))
    }

    /// The color of a mineral surface. Road, sidewalk, wall and building share one palette, so that
    /// color alone does not tell them apart.
    pub(crate) fn mineral_color(&mut self) -> Rgb {
        const PALETTE: [Rgb; 9] = [
            [0.52, 0.52, 0.52],
            [0.36, 0.37, 0.39],
            [0.66, 0.60, 0.50],
            [0.76, 0.70, 0.58],
            [0.55, 0.32, 0.25],
            [0.84, 0.83, 0.80],
            [0.46, 0.42, 0.38],
            [0.58, 0.62, 0.66],
            [0.62, 0.48, 0.40],
        ];
        let color = self.choose(&PALETTE);
        self.jitter_color(color, 0.18)
    }

    /// The color of paint, lacquer or cloth.
    pub(crate) fn paint_color(&mut self) -> Rgb {
        const PALETTE: [Rgb; 13] = [
            [0.88, 0.88, 0.87],
            [0.62, 0.63, 0.64],
            [0.40, 0.41, 0.43],
            [0.10, 0.10, 0.11],
            [0.16, 0.17, 0.20],
            [0.60, 0.12, 0.10],
            [0.14, 0.22, 0.45],
            [0.28, 0.42, 0.24],
            [0.46, 0.34, 0.24],
            [0.80, 0.66, 0.20],
            [0.70, 0.64, 0.54],
            [0.30, 0.48, 0.60],
            [0.50, 0.24, 0.20],
        ];
        let color = self.choose(&PALETTE);
        self.jitter_color(color, 0.2)
    }
}

pub(crate) fn mix(from: Rgb, to: Rgb, share: f32) -> Rgb {
    std::array::from_fn(|channel| lerp(from[channel], to[channel], share))
}

pub(crate) fn scale(color: Rgb, factor: f32) -> Rgb {
    color.map(|channel| channel * factor)
}

pub(crate) fn multiply(color: Rgb, light: Rgb) -> Rgb {
    std::array::from_fn(|channel| color[channel] * light[channel])
}

/// A uniform number in [0, 1) for each lattice point.
pub(crate) fn lattice_hash(x: i32, y: i32, key: u32) -> f32 {
    let mut hash = key ^ (x as u32).wrapping_mul(0x9E37_79B1);
    hash = (hash ^ (hash >> 15)).wrapping_mul(0x2C1B_3C6D) ^ (y as u32).wrapping_mul(0x85EB_CA77);
    hash = (hash ^ (hash >> 13)).wrapping_mul(0x297A_2D39);
    hash ^= hash >> 16;
    (hash >> 8) as f32 * (1.0 / 16_777_216.0)
}

pub(crate) fn floor(value: f32) -> i32 {
    let cut = value as i32;
    if (cut as f32) > value { cut.saturating_sub(1) } else { cut }
}

/// The part above the floor, in [0, 1).
pub(crate) fn fract(value: f32) -> f32 {
    value - floor(value) as f32
}

pub(crate) fn lerp(from: f32, to: f32, share: f32) -> f32 {
    from + (to - from) * share
}

/// Hermite step: 0 below `low`, 1 above `high`.
pub(crate) fn smoothstep(low: f32, high: f32, value: f32) -> f32 {
    let t = ((value - low) / (high - low)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// `low < value < high`.
pub(crate) fn between(value: f32, low: f32, high: f32) -> bool {
    value > low && value < high
}

/// 1 if `condition`, else 0.
pub(crate) fn indicator(condition: bool) -> f32 {
    f32::from(u8::from(condition))
}

/// Value noise in [-1, 1] with bumps of size 1.
pub(crate) fn value_noise(x: f32, y: f32, key: u32) -> f32 {
    let (left, top) = (floor(x), floor(y));
    let (fx, fy) = (x - left as f32, y - top as f32);
    let (right, bottom) = (left.wrapping_add(1), top.wrapping_add(1));
    let (sx, sy) = (fx * fx * (3.0 - 2.0 * fx), fy * fy * (3.0 - 2.0 * fy));
    let upper = lerp(lattice_hash(left, top, key), lattice_hash(right, top, key), sx);
    let lower = lerp(lattice_hash(left, bottom, key), lattice_hash(right, bottom, key), sx);
    2.0 * lerp(upper, lower, sy) - 1.0
}

/// Fractal Brownian motion in [-1, 1]: four octaves of value noise, from bumps of size 1 down to
/// `texel`, the size of a pixel there.
pub(crate) fn fractal_noise(x: f32, y: f32, key: u32, texel: f32) -> f32 {
    let (mut sum, mut scale, mut weight) = (0.0, 1.0, 0.5);
    for octave in 0..4 {
        let shown = fade(texel * scale);
        if shown <= 0.0 {
            break;
        }
        sum += weight * shown * value_noise(x * scale, y * scale, key.wrapping_add(octave));
        scale *= 2.3;
        weight *= 0.62;
    }
    sum
}

/// Visible share of a pattern: 1 where its period spans many pixels, 0 where it spans none.
pub(crate) fn fade(texels_per_period: f32) -> f32 {
    (1.6 - 2.0 * texels_per_period).clamp(0.0, 1.0)
}

/// 1 in the joints of a grid of tiles, 0 on the tiles; `shift` moves every other row by half a
/// tile.
pub(crate) fn joints(x: f32, y: f32, tile: [f32; 2], joint: f32, shift: bool) -> f32 {
    let row = y / tile[1];
    let column = x / tile[0] + if shift && floor(row) & 1 == 1 { 0.5 } else { 0.0 };
    indicator(fract(row) * tile[1] < joint || fract(column) * tile[0] < joint)
}

/// True within `radius` of the line from `a` to `b`.
pub(crate) fn in_capsule(point: [f32; 2], a: [f32; 2], b: [f32; 2], radius: f32) -> bool {
    let (px, py, dx, dy) = (point[0] - a[0], point[1] - a[1], b[0] - a[0], b[1] - a[1]);
    let along = ((px * dx + py * dy) / (dx * dx + dy * dy + 1e-9)).clamp(0.0, 1.0);
    let (rx, ry) = (px - along * dx, py - along * dy);
    rx * rx + ry * ry < radius * radius
}
