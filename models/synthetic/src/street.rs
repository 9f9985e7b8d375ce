//! Cross-section of the street, and the look of its ground.

use crate::light::Light;
use crate::noise::{
    Rgb, Rng, between, fade, fract, fractal_noise, joints, lattice_hash, mix, multiply, scale,
    smoothstep, value_noise,
};
use crate::train_id;

/// Ground beside the road.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Ground {
    /// Slabs, cobbles or bare asphalt.
    Sidewalk,
    /// Grass, soil or gravel.
    Terrain,
}

/// One side of the street, from the curb outwards.
#[derive(Debug, Clone)]
pub(crate) struct Side {
    /// Strips of `(outer edge, ground)` in meters from the middle of the street, inner first; the
    /// last has no end.
    pub(crate) strips: Vec<(f32, Ground)>,
    /// Line of buildings, walls and hedges, in meters from the middle of the street.
    pub(crate) front: f32,
    tile: [f32; 2],
    slab: Rgb,
    earth: [Rgb; 2],
}

pub(crate) struct Street {
    pub(crate) road_half: f32,
    /// Half the width of a planted strip in the middle, or 0.
    pub(crate) median: f32,
    /// The middle of a tram track, if there is one.
    pub(crate) track: Option<f32>,
    /// Near and far edge of a crossing street.
    pub(crate) crossing: Option<[f32; 2]>,
    /// Left, right.
    pub(crate) sides: [Side; 2],
    lane: f32,
    asphalt: Rgb,
    cobbles: bool,
    worn: f32,
    zebra: bool,
    /// Side of the sun, and reach of the shade of the houses there, in meters from the middle.
    shaded: Option<[f32; 2]>,
    key: u32,
}

impl Street {
    pub(crate) fn new(rng: &mut Rng, light: &Light) -> Self {
        let lane = rng.range(2.8, 3.5);
        let median = if rng.chance(0.25) { rng.range(0.5, 1.8) } else { 0.0 };
        let road_half = median + lane * rng.choose(&[1.0, 1.3, 1.6, 2.0, 2.0]);
        let start = rng.range(13.0, 34.0);
        let crossing = rng.chance(0.45).then(|| [start, start + rng.range(6.0, 11.0)]);
        let track = rng.chance(0.42).then(|| {
            if median > 0.0 {
                rng.sign() * (median + 1.5)
            } else {
                -road_half + rng.range(1.4, 1.8)
            }
        });
        let mut asphalt = rng.mineral_color();
        let cobbles = rng.chance(0.16);
        if !cobbles {
            let level = rng.range(0.2, 0.52);
            asphalt = mix([level, level, level * 1.04], scale(asphalt, 0.7), 0.22);
        }
        // A row of houses between the street and a sun from that side shades the ground up to a
        // jagged edge.
        let shaded = (light.sunlight[1] > 0.3 && rng.chance(0.7))
            .then(|| [light.sun[0].signum(), road_half * rng.range(-0.9, 1.3)]);
        Self {
            road_half,
            median,
            track,
            crossing,
            sides: [Side::new(rng, road_half), Side::new(rng, road_half)],
            lane,
            asphalt,
            cobbles,
            worn: rng.range(0.2, 1.0),
            zebra: rng.chance(0.6),
            shaded,
            key: rng.key(),
        }
    }

    pub(crate) fn crosses(&self, z: f32, margin: f32) -> bool {
        self.crossing.is_some_and(|[near, far]| z > near - margin && z < far + margin)
    }

    /// Label and lit color of the ground at a place of the street.
    pub(crate) fn ground(&self, [x, z]: [f32; 2], texel: f32, light: &Light) -> (u8, Rgb) {
        let across = x.abs();
        let side = &self.sides[usize::from(x > 0.0)];
        let (label, color) = if across < self.median && !self.crosses(z, 3.0) {
            if across > self.median - 0.16 {
                self.curb(z, side)
            } else {
                side.earth(x, z, texel, self.key)
            }
        } else if across < self.road_half || self.crosses(z, 0.0) {
            (train_id::ROAD, self.road(x, z, texel))
        } else if across < self.road_half + 0.17 || self.crosses(z, 0.17) {
            self.curb(z, side)
        } else {
            let last = side.strips.len() - 1;
            let strip = side.strips.iter().position(|strip| across < strip.0).unwrap_or(last);
            match side.strips[strip].1 {
                Ground::Sidewalk => side.sidewalk(x, z, texel, self.key),
                Ground::Terrain => side.earth(x, z, texel, self.key),
            }
        };
        let shaded = scale(light.skylight, 1.02);
        (label, multiply(color, mix(light.on([0.0, 1.0, 0.0]), shaded, self.shade(x, z))))
    }

    /// 1 in the shade of the row of houses.
    fn shade(&self, x: f32, z: f32) -> f32 {
        let Some([side, reach]) = self.shaded else { return 0.0 };
        if self.crosses(z, -1.0) {
            return 0.0;
        }
        let lot = (z + 0.3 * x) / 9.0;
        let edge = reach - 4.0 * lattice_hash(lot as i32, 0, self.key);
        smoothstep(edge - 0.15, edge + 0.15, side * x)
    }

    fn curb(&self, z: f32, side: &Side) -> (u8, Rgb) {
        let joint = if fract(z) < 0.03 { 0.7 } else { 1.0 };
        let stone = mix(side.slab, [0.62, 0.62, 0.6], 0.6);
        let level = joint * (0.95 + 0.1 * lattice_hash(z as i32, 1, self.key));
        (train_id::SIDEWALK, scale(stone, level))
    }

    fn road(&self, x: f32, z: f32, texel: f32) -> Rgb {
        let key = self.key;
        let mut level = 1.0
            + 0.16 * value_noise(0.35 * x, 0.08 * z, key)
            + 0.10 * value_noise(1.1 * x, 0.7 * z, key ^ 1);
        level += 0.22 * fractal_noise(14.0 * x, 14.0 * z, key ^ 2, 14.0 * texel);
        if self.cobbles {
            level *= 1.0 - 0.4 * fade(texel / 0.12) * joints(x, z, [0.2, 0.14], 0.025, true);
            level += 0.16
                * fade(texel / 0.14)
                * (lattice_hash((x * 5.0) as i32, (z * 7.0) as i32, key) - 0.5);
        } else {
            let crack = value_noise(0.5 * x, 0.28 * z, key ^ 3)
                + 0.2 * value_noise(2.7 * x, 1.6 * z, key ^ 4);
            if crack.abs() < 0.012 + 0.4 * texel.min(0.02)
                && value_noise(0.2 * x, 0.1 * z, key ^ 5) > 0.1
            {
                level *= 0.62;
            }
            let patch = lattice_hash((x / self.lane + 40.0) as i32, (z / 7.0) as i32, key ^ 6);
            if patch > 0.86 && fract(z / 7.0) < 0.6 {
                level *= 0.78;
            }
        }
        // Tires polish two tracks in each lane.
        let in_lane = fract((x.abs() - self.median) / self.lane) - 0.5;
        let off_track = in_lane.abs() - 0.24;
        level *= 1.0 - 0.08 * self.worn / (1.0 + 90.0 * off_track * off_track);
        let mut color = scale(self.asphalt, level);
        if self.marked(x, z) {
            let wear = 0.5 + 0.5 * self.worn * value_noise(5.0 * x, 5.0 * z, key ^ 7);
            color = mix(color, [0.86, 0.86, 0.83], (1.15 - wear).clamp(0.15, 0.95));
        }
        if let Some(track) = self.track {
            let rail = ((x - track).abs() - 0.72).abs();
            if rail < 0.04 + 0.3 * texel.min(0.1) {
                color = [0.42, 0.40, 0.40];
            } else if rail < 0.14 {
                color = scale(color, 0.75);
            }
        }
        color
    }

    /// True on painted markings: lane dashes, edge lines, stop line and zebra.
    fn marked(&self, x: f32, z: f32) -> bool {
        if self.crosses(z, 0.0) || self.cobbles {
            return false;
        }
        let before_crossing = self.crossing.map_or(-1.0, |[near, _]| near - z);
        let across = x.abs();
        let lane = (across - self.median) / self.lane;
        match across {
            _ if (1.0..4.0).contains(&before_crossing) => self.zebra && fract(x / 1.1) < 0.5,
            _ if (4.8..5.2).contains(&before_crossing) => x > self.median,
            _ if self.median == 0.0 && across < 0.07 => fract(z / 9.0) < 0.6 || self.worn > 0.7,
            _ if between(across, self.road_half - 0.35, self.road_half - 0.22) => self.worn < 0.5,
            _ => {
                let beside = (lane - (lane + 0.5) as i32 as f32).abs();
                lane > 0.5 && beside < 0.02 && fract(z / 9.0) < 0.4
            }
        }
    }
}

impl Side {
    fn new(rng: &mut Rng, road_half: f32) -> Self {
        let mut edge = road_half;
        let mut strips = Vec::new();
        if rng.chance(0.3) {
            edge += rng.range(0.8, 2.6);
            strips.push((edge, Ground::Terrain));
        }
        edge += rng.range(1.6, 4.6);
        strips.push((edge, Ground::Sidewalk));
        let mut front = edge;
        if rng.chance(0.45) {
            front += rng.range(0.6, 6.0);
            strips.push((front, Ground::Terrain));
        }
        let beyond = if rng.chance(0.6) { Ground::Terrain } else { Ground::Sidewalk };
        strips.push((f32::MAX, beyond));
        let grass = rng.jitter_color([0.30, 0.38, 0.17], 0.25);
        let soil = rng.choose(&[[0.46, 0.38, 0.27], [0.52, 0.49, 0.42], [0.40, 0.42, 0.20]]);
        let tile = rng.choose(&[[0.5, 0.5], [1.0, 0.6], [0.22, 0.11], [0.8, 0.8], [30.0, 30.0]]);
        Self {
            strips,
            front,
            tile,
            slab: rng.mineral_color(),
            earth: [grass, rng.jitter_color(soil, 0.15)],
        }
    }

    fn sidewalk(&self, x: f32, z: f32, texel: f32, key: u32) -> (u8, Rgb) {
        let [wide, long] = self.tile;
        let mut level = 1.0 + 0.14 * value_noise(0.5 * x, 0.3 * z, key ^ 8);
        level += 0.16 * fractal_noise(9.0 * x, 9.0 * z, key ^ 9, 9.0 * texel);
        level += 0.22
            * fade(texel / long)
            * (lattice_hash((x / wide) as i32, (z / long) as i32, key ^ 10) - 0.5);
        level *= 1.0 - 0.34 * fade(texel / long) * joints(x, z, self.tile, 0.03, true);
        (train_id::SIDEWALK, scale(self.slab, level))
    }

    fn earth(&self, x: f32, z: f32, texel: f32, key: u32) -> (u8, Rgb) {
        let bare = smoothstep(-0.25, 0.45, fractal_noise(0.5 * x, 0.35 * z, key ^ 11, 0.5 * texel));
        // Blades stand upright: stretched across the line of sight they look taller than wide.
        let blades = fractal_noise(22.0 * x, 6.0 * z, key ^ 12, 9.0 * texel) * (1.0 - 0.5 * bare);
        let level = 1.0 + 0.55 * blades + 0.2 * value_noise(1.3 * x, 0.6 * z, key ^ 13);
        (train_id::TERRAIN, scale(mix(self.earth[0], self.earth[1], bare), level))
    }
}
