//! Weather and time of day: sun, sky, haze, and how the sensor answers.

use super::noise::{Rgb, Rng, fractal_noise, mix, scale, smoothstep, value_noise};

#[derive(Debug, Clone, Copy)]
pub(super) struct Light {
    /// Towards the sun, of length 1, in the plan.
    pub(super) sun: [f32; 3],
    pub(super) sunlight: Rgb,
    pub(super) skylight: Rgb,
    pub(super) haze: Rgb,
    /// Per metre.
    pub(super) density: f32,
    zenith: Rgb,
    clouds: f32,
    cloud: Rgb,
    glow: f32,
    key: u32,
    /// How many windows and lamps are lit, 0 to 1.
    pub(super) evening: f32,
    pub(super) gain: Rgb,
    /// Standard deviation of the sensor's noise, of 1.
    pub(super) noise: f32,
    /// Weight of each neighbour in the blur, 0 to 0.25.
    pub(super) blur: f32,
}

struct Weather {
    share: f32,
    sun: Rgb,
    sky: Rgb,
    zenith: Rgb,
    haze: Rgb,
    density: [f32; 2],
    clouds: [f32; 2],
    rise: [f32; 2],
    evening: f32,
}

const CLEAR: Weather = Weather {
    share: 0.34,
    sun: [0.85, 0.80, 0.70],
    sky: [0.50, 0.54, 0.60],
    zenith: [0.30, 0.48, 0.78],
    haze: [0.72, 0.80, 0.88],
    density: [0.0008, 0.004],
    clouds: [0.0, 0.75],
    rise: [0.5, 1.4],
    evening: 0.0,
};
const OVERCAST: Weather = Weather {
    share: 0.66,
    sun: [0.14, 0.14, 0.14],
    sky: [0.80, 0.82, 0.84],
    zenith: [0.62, 0.65, 0.70],
    haze: [0.78, 0.79, 0.80],
    density: [0.001, 0.007],
    clouds: [0.3, 1.0],
    rise: [0.8, 2.0],
    evening: 0.15,
};
const LOW_SUN: Weather = Weather {
    share: 0.80,
    sun: [1.05, 0.74, 0.42],
    sky: [0.40, 0.42, 0.52],
    zenith: [0.40, 0.50, 0.72],
    haze: [0.92, 0.76, 0.58],
    density: [0.001, 0.006],
    clouds: [0.1, 0.7],
    rise: [0.18, 0.4],
    evening: 0.15,
};
const DUSK: Weather = Weather {
    share: 0.91,
    sun: [0.10, 0.08, 0.09],
    sky: [0.50, 0.50, 0.60],
    zenith: [0.26, 0.29, 0.40],
    haze: [0.50, 0.46, 0.48],
    density: [0.001, 0.006],
    clouds: [0.2, 0.9],
    rise: [0.2, 0.5],
    evening: 0.7,
};
const FOG: Weather = Weather {
    share: 1.0,
    sun: [0.08, 0.08, 0.08],
    sky: [0.74, 0.75, 0.76],
    zenith: [0.74, 0.75, 0.77],
    haze: [0.74, 0.75, 0.76],
    density: [0.010, 0.024],
    clouds: [0.8, 1.0],
    rise: [0.8, 2.0],
    evening: 0.3,
};

impl Light {
    pub(super) fn new(rng: &mut Rng) -> Self {
        let draw = rng.unit();
        let weathers = [CLEAR, OVERCAST, LOW_SUN, DUSK];
        let weather = weathers.into_iter().find(|weather| draw < weather.share).unwrap_or(FOG);
        let rise = rng.range(weather.rise[0], weather.rise[1]);
        let (side, ahead) = (rng.sign() * rng.range(0.3, 1.0), rng.range(-1.0, 0.8));
        let length = (side * side + ahead * ahead + rise * rise).sqrt();
        let exposure = rng.range(0.9, 1.4);
        let warmth = rng.range(-0.09, 0.09);
        let tint = rng.range(-0.03, 0.03);
        Self {
            sun: [side / length, rise / length, ahead / length],
            sunlight: weather.sun,
            skylight: rng.jitter_color(weather.sky, 0.08),
            haze: rng.jitter_color(weather.haze, 0.08),
            density: rng.range(weather.density[0], weather.density[1]),
            zenith: rng.jitter_color(weather.zenith, 0.15),
            clouds: rng.range(weather.clouds[0], weather.clouds[1]),
            cloud: mix(weather.haze, [0.95, 0.95, 0.95], rng.range(0.0, 0.8)),
            glow: if weather.evening < 0.1 || weather.rise[1] < 0.45 { 0.5 } else { 0.06 },
            key: rng.key(),
            evening: weather.evening,
            gain: [exposure * (1.0 + warmth), exposure * (1.0 + tint), exposure * (1.0 - warmth)],
            noise: rng.range(0.006, 0.03),
            blur: rng.range(0.0, 0.2),
        }
    }

    /// The light on a surface that faces `normal`.
    pub(super) fn on(&self, normal: [f32; 3]) -> Rgb {
        let facing = normal[0] * self.sun[0] + normal[1] * self.sun[1] + normal[2] * self.sun[2];
        let open = 0.85 + 0.25 * normal[1];
        std::array::from_fn(|channel| {
            open * self.skylight[channel] + facing.max(0.0) * self.sunlight[channel]
        })
    }

    /// A color seen through the air at a depth.
    pub(super) fn through_air(&self, color: Rgb, depth: f32) -> Rgb {
        let thickness = depth * self.density;
        mix(self.haze, color, 1.0 / (1.0 + thickness + 0.5 * thickness * thickness))
    }

    /// The sky along a ray: right and up per metre of depth.
    pub(super) fn sky(&self, ray: [f32; 2]) -> Rgb {
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
