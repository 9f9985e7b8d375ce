//! Houses (façades with floors, windows, shops and doors; flat or pitched roofs) and the skyline.

use crate::noise::{
    Rgb, Rng, between, fade, floor, fract, fractal_noise, indicator, joints, lattice_hash, mix,
    scale, value_noise,
};
use crate::train_id;
use crate::world::{Fragment, Hit, Plane, Pose, Solid, World, glowing, opaque};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Material {
    Plaster,
    Brick,
    Stone,
    Concrete,
    Glass,
}

#[derive(Debug, Clone, Copy)]
struct Facade {
    material: Material,
    wall: Rgb,
    trim: Rgb,
    roof: Rgb,
    shop: Rgb,
    floor_height: f32,
    bay: f32,
    /// Shares of floor height and bay that a window takes.
    window: [f32; 2],
    ground_floor: f32,
    shops: bool,
    balconies: bool,
    top: f32,
    evening: f32,
    key: u32,
}

impl Facade {
    fn new(rng: &mut Rng, floors: usize, evening: f32) -> Self {
        let material = match rng.below(7) {
            0 | 1 => Material::Plaster,
            2 | 3 => Material::Brick,
            4 => Material::Stone,
            5 => Material::Concrete,
            _ => Material::Glass,
        };
        let wall = match material {
            Material::Brick => rng.jitter_color([0.52, 0.29, 0.22], 0.2),
            Material::Plaster if rng.chance(0.4) => {
                mix(rng.paint_color(), [0.86, 0.82, 0.74], 0.55)
            }
            _ => rng.mineral_color(),
        };
        let floor_height = rng.range(2.7, 3.7);
        let ground_floor = rng.range(3.0, 4.6);
        let wide = if material == Material::Glass { 0.9 } else { rng.range(0.32, 0.66) };
        let upper_floors = floors.saturating_sub(1) as f32;
        Self {
            material,
            wall,
            trim: rng.mineral_color(),
            roof: rng.choose(&[[0.42, 0.22, 0.16], [0.25, 0.25, 0.28], [0.36, 0.33, 0.30]]),
            shop: rng.paint_color(),
            floor_height,
            bay: rng.range(1.7, 3.6),
            window: [rng.range(0.42, 0.72), wide],
            ground_floor,
            shops: floors > 1 && rng.chance(0.5),
            balconies: floors > 2 && rng.chance(0.22),
            top: ground_floor + floor_height * upper_floors + rng.range(0.3, 1.2),
            evening,
            key: rng.key(),
        }
    }

    fn wall(&self, along: f32, y: f32, texel: f32) -> Option<Fragment> {
        let fragment = if y < self.ground_floor {
            self.ground_floor(along, y, texel)
        } else {
            self.upper_floor(along, y, texel)
        };
        // Dirt gathers below, light fails under the eaves.
        let age = 0.9
            + 0.1 * (y / 3.0).min(1.0)
            + 0.07 * value_noise(0.3 * along, 0.12 * y, self.key ^ 40);
        fragment.map(|fragment| fragment.scaled(age))
    }

    fn upper_floor(&self, along: f32, y: f32, texel: f32) -> Option<Fragment> {
        let floors = (y - self.ground_floor) / self.floor_height;
        let cell = [floor(along / self.bay), floor(floors)];
        let inside = [fract(along / self.bay), fract(floors)];
        match y {
            _ if self.top - y < 0.35 => opaque(scale(self.trim, 0.9)),
            _ if self.balconies && inside[1] < 0.32 && cell[0] & 1 == 0 => {
                let bars = 0.75 + 0.25 * fade(texel / 0.2) * indicator(fract(along / 0.2) < 0.5);
                opaque(scale(self.trim, bars))
            }
            _ => self.window(cell, inside, texel).or_else(|| self.bare(along, y, texel)),
        }
    }

    /// Frame, bars and pane of a window; `None` beside it.
    fn window(&self, cell: [i32; 2], inside: [f32; 2], texel: f32) -> Option<Fragment> {
        let [tall, wide] = self.window;
        let (dx, dy) = ((inside[0] - 0.5).abs() / (0.5 * wide), (inside[1] - 0.55) / (0.5 * tall));
        if dx > 1.16 || dy.abs() > 1.14 {
            return None;
        }
        let bar = 0.05 + texel.min(0.05);
        let draw = |key: u32| lattice_hash(cell[0], cell[1], self.key ^ key);
        let [light, reflected, curtain] = [0, 41, 42].map(draw);
        let sky = reflected * (0.35 + 0.35 * (dy + 1.0) * 0.5);
        match dy {
            _ if dx > 1.0 && dy >= -1.0 || dy > 1.0 => opaque(scale(self.trim, 0.92)),
            _ if dy < -1.0 => opaque(scale(self.trim, 1.15)),
            _ if dx < bar || (dy - 0.3).abs() < bar => opaque(scale(self.trim, 1.05)),
            _ if light < 0.5 * self.evening => {
                glowing(mix([0.95, 0.74, 0.40], [0.9, 0.9, 0.75], reflected), 0.85)
            }
            _ if curtain > 0.72 && dy > 2.6 * curtain - 2.4 => opaque([0.68, 0.65, 0.58]),
            _ => opaque(mix([0.08, 0.10, 0.12], [0.48, 0.56, 0.64], sky)),
        }
    }
    fn ground_floor(&self, along: f32, y: f32, texel: f32) -> Option<Fragment> {
        let width = 1.7 * self.bay;
        let (bay, inside) = (floor(along / width), fract(along / width));
        let draw = lattice_hash(bay, -7, self.key);
        let high = y / self.ground_floor;
        let door = draw > 0.7 && high < 0.68 && (0.36..0.64).contains(&inside);
        match self.shops {
            _ if high < 0.1 => opaque(scale(self.trim, 0.7)),
            true if between(high, 0.74, 0.92) => {
                let letters = fract(along * 1.6) < 0.6
                    && (high - 0.83).abs() < 0.045
                    && between(inside, 0.2, 0.8)
                    && fade(texel / 0.5) > 0.0;
                let board = mix(self.shop, [0.8, 0.78, 0.7], draw * 0.5);
                glowing(if letters { [0.9, 0.88, 0.82] } else { board }, 0.5 * self.evening)
            }
            true if high <= 0.72 && between(inside, 0.07, 0.93) => {
                let reflected = 0.6 * lattice_hash(bay, (y * 2.0) as i32, self.key ^ 43);
                let glass = mix([0.07, 0.08, 0.09], [0.40, 0.44, 0.46], reflected);
                let color = if draw > 0.7 && high > 0.5 { self.shop } else { glass };
                let emission = if draw < 1.3 * self.evening { 0.7 } else { 0.0 };
                glowing(mix(color, [0.95, 0.84, 0.6], emission * 0.8), emission)
            }
            true => self.bare(along, y, texel),
            false if door => {
                let panel = if (0.4..0.6).contains(&inside) && high < 0.64 { 0.55 } else { 0.85 };
                opaque(scale(mix(self.shop, self.trim, 0.4), panel))
            }
            false => self
                .window([bay, -1], [inside, (high - 0.05).clamp(0.0, 1.0)], texel)
                .or_else(|| self.bare(along, y, texel)),
        }
    }
    /// The wall's material, stained.
    fn bare(&self, along: f32, y: f32, texel: f32) -> Option<Fragment> {
        let tone =
            |x: f32, y: f32, key: u32| lattice_hash(x as i32, y as i32, self.key ^ key) - 0.5;
        let level = match self.material {
            Material::Brick => {
                let seen = fade(texel / 0.16);
                1.0 + 0.3 * seen * tone(along * 4.0, y * 12.0, 44)
                    - 0.22 * seen * joints(along, y, [0.25, 0.085], 0.014, true)
            }
            Material::Stone => {
                1.0 + 0.2 * tone(along / 1.1, y / 0.55, 45)
                    - 0.3 * fade(texel / 0.5) * joints(along, y, [1.1, 0.55], 0.03, true)
            }
            Material::Concrete => {
                let slab = [self.bay, self.floor_height];
                1.0 - 0.25 * fade(texel) * joints(along, y, slab, 0.05, false)
            }
            Material::Plaster | Material::Glass => 1.0,
        };
        let stains = 0.12 * fractal_noise(1.4 * along, 0.7 * y, self.key ^ 46, 1.4 * texel);
        opaque(scale(self.wall, level + stains))
    }

    fn roof(&self, along: f32, up: f32, texel: f32) -> Option<Fragment> {
        let rows = 1.0 - 0.3 * fade(texel / 0.3) * joints(along, up, [0.3, 0.3], 0.06, true);
        let level = rows + 0.25 * fractal_noise(along, up, self.key ^ 47, texel);
        opaque(scale(self.roof, level))
    }
}

/// A house whose front looks at the street; `pose` is the middle of its plot, its right axis points
/// across the street.
pub(crate) fn building(
    world: &mut World,
    rng: &mut Rng,
    pose: Pose,
    [half_width, half_length]: [f32; 2],
    floors: usize,
) {
    let facade = Facade::new(rng, floors, world.light.evening);
    let pitched = floors <= 4 && rng.chance(if floors < 3 { 0.85 } else { 0.4 });
    // The ridge runs along the street or across it.
    let axis = if rng.chance(0.6) { 0 } else { 2 };
    let run = if axis == 0 { half_width } else { half_length };
    let rise = if pitched { run.min(6.0) * rng.range(0.5, 0.95) } else { 0.0 };
    let ridge = facade.top + rise;
    let mut solid = Solid::cuboid(half_width, [0.0, ridge], half_length);
    if pitched {
        for side in [-1.0, 1.0] {
            solid.planes.push(Plane::slanted(axis, side, [run, facade.top], [0.0, ridge]));
        }
    }
    world.solid(train_id::BUILDING, pose, solid, move |hit: &Hit| {
        let [x, y, z] = hit.at;
        match hit.face {
            0 | 1 if y > facade.top => facade.roof(z, y, hit.texel),
            0 | 1 => facade.wall(z, y, hit.texel),
            2 | 3 if y > facade.top => facade.bare(x, y, hit.texel),
            2 | 3 => facade.wall(x, y, hit.texel),
            4 | 5 => opaque(facade.roof),
            _ => facade.roof(if axis == 0 { z } else { x }, y, hit.texel),
        }
    });
}

/// The horizon's silhouette: roofs, or trees.
pub(crate) fn skyline(world: &mut World, rng: &mut Rng) {
    let key = rng.key();
    let wooded = rng.chance(0.5);
    let rise = rng.range(8.0, 26.0);
    let tone = rng.mineral_color();
    let green = rng.jitter_color([0.20, 0.28, 0.15], 0.2);
    let (ends, heights) = ([[-900.0, 320.0], [900.0, 320.0]], [0.0, 60.0]);
    if wooded {
        world.panel(train_id::VEGETATION, ends, heights, move |hit| {
            let [along, y, _] = hit.at;
            let edge = rise * (0.8 + 0.4 * fractal_noise(along / 24.0, 3.0, key, 0.02));
            let leaves = 0.8 + 0.5 * fractal_noise(along / 5.0, y / 4.0, key, hit.texel / 4.0);
            if y < edge { opaque(scale(green, leaves)) } else { None }
        });
        return;
    }
    world.panel(train_id::BUILDING, ends, heights, move |hit| {
        let [along, y, _] = hit.at;
        let lot = floor(along / 22.0);
        let edge = rise * (0.5 + lattice_hash(lot, 0, key));
        let windows = if fract(along / 4.0) < 0.5 && fract(y / 3.5) < 0.5 { 0.75 } else { 1.0 };
        let level = windows * (0.7 + 0.5 * lattice_hash(lot, 1, key));
        if y < edge { opaque(scale(tone, level)) } else { None }
    });
}
