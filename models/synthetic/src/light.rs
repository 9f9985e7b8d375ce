//! Weather and time of day: sun, sky, haze, and the sensor's response.

use crate::noise::{Rgb, Rng, fractal_noise, mix, scale, smoothstep, value_noise};

#[derive(Debug, Clone, Copy)]
pub(crate) struct Light {
    /// Unit vector towards the sun, in the plan.
    pub(crate) sun: [f32; 3],
    pub(crate) sunlight: Rgb,
    pub(crate) skylight: Rgb,
    pub(crate) haze: Rgb,
    /// Of the haze, per meter.
    density: f32,
    zenith: Rgb,
    clouds: f32,
    cloud: Rgb,
    glow: f32,
    key: u32,
    /// Share of windows and lamps that are lit.
    pub(crate) evening: f32,
    pub(crate) gain: Rgb,
    /// Standard deviation of the sensor's noise.
    pub(crate) noise: f32,
    /// Weight of each neighbor in the blur, 0 to 0.25.
    pub(crate) blur: f32,
}

/// Cumulative probability; colors of sun, sky, zenith and haze; ranges of haze density, clouds and
/// height of the sun; share of lit windows.
type Weather = (f32, [Rgb; 4], [[f32; 2]; 3], f32);

/// Clear, overcast, low sun, dusk, fog.
const WEATHERS: [Weather; 5] = [
    (
        0.34,
        [[0.85, 0.80, 0.70], [0.50, 0.54, 0.60], [0.30, 0.48, 0.78], [0.72, 0.80, 0.88]],
        [[0.0008, 0.004], [0.0, 0.75], [0.5, 1.4]],
        0.0,
    ),
    (
        0.66,
        [[0.14, 0.14, 0.14], [0.80, 0.82, 0.84], [0.62, 0.65, 0.70], [0.78, 0.79, 0.80]],
        [[0.001, 0.007], [0.3, 1.0], [0.8, 2.0]],
        0.15,
    ),
    (
        0.80,
        [[1.05, 0.74, 0.42], [0.40, 0.42, 0.52], [0.40, 0.50, 0.72], [0.92, 0.76, 0.58]],
        [[0.001, 0.006], [0.1, 0.7], [0.18, 0.4]],
        0.15,
    ),
    (
        0.91,
        [[0.10, 0.08, 0.09], [0.50, 0.50, 0.60], [0.26, 0.29, 0.40], [0.50, 0.46, 0.48]],
        [[0.001, 0.006], [0.2, 0.9], [0.2, 0.5]],
        0.7,
    ),
    (
        1.0,
        [[0.08, 0.08, 0.08], [0.74, 0.75, 0.76], [0.74, 0.75, 0.77], [0.74, 0.75, 0.76]],
        [[0.010, 0.024], [0.8, 1.0], [0.8, 2.0]],
        0.3,
    ),
];

impl Light {
    pub(crate) fn new(rng: &mut Rng) -> Self {
        let draw = rng.unit();
        let weather = WEATHERS.iter().find(|weather| draw < weather.0).unwrap_or(&WEATHERS[4]);
        let (_, [sun, sky, zenith, haze], [density, clouds, height], evening) = *weather;
        let rise = rng.range(height[0], height[1]);
        let side = rng.sign() * rng.range(0.3, 1.0);
        let ahead = rng.range(-1.0, 0.8);
        let length = (side * side + ahead * ahead + rise * rise).sqrt();
        let exposure = rng.range(0.9, 1.4);
        let warmth = rng.range(-0.09, 0.09);
        let tint = rng.range(-0.03, 0.03);
        Self {
            sun: [side / length, rise / length, ahead / length],
            sunlight: sun,
            skylight: rng.jitter_color(sky, 0.08),
            haze: rng.jitter_color(haze, 0.08),
            density: rng.range(density[0], density[1]),
            zenith: rng.jitter_color(zenith, 0.15),
            clouds: rng.range(clouds[0], clouds[1]),
            cloud: mix(haze, [0.95, 0.95, 0.95], rng.range(0.0, 0.8)),
            glow: if evening < 0.1 || height[1] < 0.45 { 0.5 } else { 0.06 },
            key: rng.key(),
            evening,
            gain: [exposure * (1.0 + warmth), exposure * (1.0 + tint), exposure * (1.0 - warmth)],
            noise: rng.range(0.006, 0.03),
            blur: rng.range(0.0, 0.2),
        }
    }

    /// The light on a surface with a normal: Lambert's law for the sun, plus the sky.
    pub(crate) fn on(&self, normal: [f32; 3]) -> Rgb {
        let facing = normal[0] * self.sun[0] + normal[1] * self.sun[1] + normal[2] * self.sun[2];
        let open = 0.85 + 0.25 * normal[1];
        std::array::from_fn(|channel| {
            open * self.skylight[channel] + facing.max(0.0) * self.sunlight[channel]
        })
    }

    /// A color seen through the haze at a depth.
    pub(crate) fn through_air(&self, color: Rgb, depth: f32) -> Rgb {
        let thickness = depth * self.density;
        mix(self.haze, color, 1.0 / (1.0 + thickness + 0.5 * thickness * thickness))
    }

    /// The sky along a ray: right and up per meter of depth.
    pub(crate) fn sky(&self, ray: [f32; 2]) -> Rgb {
        let up = ray[1].max(0.0);
        let clear = mix(self.haze, self.zenith, smoothstep(-0.05, 0.34, up));
        let (x, y) = (ray[0] / (up + 0.12), 1.6 / (up + 0.12));
        let shape = fractal_noise(0.6 * x, y, self.key, 0.02)
            + 0.35 * value_noise(0.23 * x, 0.4 * y, self.key ^ 9);
        let cover = smoothstep(0.55 - 1.1 * self.clouds, 1.0 - 1.1 * self.clouds, shape);
        let belly = 1.0 - 0.22 * smoothstep(0.0, 0.9, shape + 0.4 * self.clouds);
        let covered = mix(clear, scale(self.cloud, belly), 0.92 * cover);
        if self.sun[2] <= 0.05 {
            return covered;
        }
        let (dx, dy) = (ray[0] - self.sun[0] / self.sun[2], ray[1] - self.sun[1] / self.sun[2]);
        let near = self.glow / (1.0 + 30.0 * (dx * dx + dy * dy));
        mix(covered, [1.15, 1.08, 0.92], near)
    }
}
