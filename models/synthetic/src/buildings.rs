//! Houses: façades with floors, windows, shops and doors, flat or pitched roofs.

use super::noise::{
    Rgb, Rng, fade, floor, fract, fractal_noise, joints, lattice_hash, mix, scale, value_noise,
};
use super::shape::{Fragment, Hit, Plane, Pose, cuboid};
use super::train_id;
use super::world::World;

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
    /// Shares of floor_height and bay that a window takes.
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
        let material = rng.choose(&[
            Material::Plaster,
            Material::Plaster,
            Material::Brick,
            Material::Brick,
            Material::Stone,
            Material::Concrete,
            Material::Glass,
        ]);
        let wall = match material {
            Material::Brick => rng.jitter_color([0.52, 0.29, 0.22], 0.2),
            Material::Plaster if rng.chance(0.4) => {
                let pot = rng.paint_color();
                mix(pot, [0.86, 0.82, 0.74], 0.55)
            }
            _ => rng.mineral_color(),
        };
        let floor_height = rng.range(2.7, 3.7);
        let ground_floor = rng.range(3.0, 4.6);
        let wide = if material == Material::Glass { 0.9 } else { rng.range(0.32, 0.66) };
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
            top: ground_floor
                + floor_height * floors.saturating_sub(1) as f32
                + rng.range(0.3, 1.2),
            evening,
            key: rng.key(),
        }
    }

    fn paint(&self, along: f32, y: f32, texel: f32) -> Fragment {
        let fragment = if y < self.ground_floor {
            self.ground_floor(along, y, texel)
        } else {
            let floors = (y - self.ground_floor) / self.floor_height;
            let cell = [floor(along / self.bay), floor(floors)];
            let inside = [fract(along / self.bay), fract(floors)];
            if self.top - y < 0.35 {
                Fragment::new(train_id::BUILDING, scale(self.trim, 0.9))
            } else if self.balconies && inside[1] < 0.32 && cell[0] & 1 == 0 {
                let bars =
                    0.75 + 0.25 * fade(texel / 0.2) * f32::from(u8::from(fract(along / 0.2) < 0.5));
                Fragment::new(train_id::BUILDING, scale(self.trim, bars))
            } else {
                self.window(cell, inside, texel).unwrap_or_else(|| self.bare(along, y, texel))
            }
        };
        // Dirt gathers below, light fails under the eaves.
        let age = 0.9
            + 0.1 * (y / 3.0).min(1.0)
            + 0.07 * value_noise(0.3 * along, 0.12 * y, self.key ^ 40);
        Fragment { color: scale(fragment.color, age), ..fragment }
    }

    fn window(&self, cell: [i32; 2], inside: [f32; 2], texel: f32) -> Option<Fragment> {
        let [tall, wide] = self.window;
        let (dx, dy) = ((inside[0] - 0.5).abs() / (0.5 * wide), (inside[1] - 0.55) / (0.5 * tall));
        if dx > 1.16 || dy.abs() > 1.14 {
            return None;
        }
        if dx > 1.0 || dy.abs() > 1.0 {
            let sill = if dy < -1.0 { 1.15 } else { 0.92 };
            return Some(Fragment::new(train_id::BUILDING, scale(self.trim, sill)));
        }
        let draw = lattice_hash(cell[0], cell[1], self.key);
        let bar = 0.05 + texel.min(0.05);
        if dx < bar || (dy - 0.3).abs() < bar {
            return Some(Fragment::new(train_id::BUILDING, scale(self.trim, 1.05)));
        }
        let reflected = lattice_hash(cell[0], cell[1], self.key ^ 41);
        let glass = mix(
            [0.08, 0.10, 0.12],
            [0.48, 0.56, 0.64],
            reflected * (0.35 + 0.35 * (dy + 1.0) * 0.5),
        );
        let curtain = lattice_hash(cell[0], cell[1], self.key ^ 42);
        let color =
            if curtain > 0.72 && dy > 2.6 * curtain - 2.4 { [0.68, 0.65, 0.58] } else { glass };
        let mut fragment = Fragment::new(train_id::BUILDING, color);
        if draw < 0.5 * self.evening {
            (fragment.color, fragment.emission) =
                (mix([0.95, 0.74, 0.40], [0.9, 0.9, 0.75], reflected), 0.85);
        }
        Some(fragment)
    }

    fn ground_floor(&self, along: f32, y: f32, texel: f32) -> Fragment {
        let width = 1.7 * self.bay;
        let (bay, inside) = (floor(along / width), fract(along / width));
        let draw = lattice_hash(bay, -7, self.key);
        let high = y / self.ground_floor;
        if high < 0.1 {
            return Fragment::new(train_id::BUILDING, scale(self.trim, 0.7));
        }
        let glass = mix(
            [0.07, 0.08, 0.09],
            [0.40, 0.44, 0.46],
            0.6 * lattice_hash(bay, (y * 2.0) as i32, self.key ^ 43),
        );
        if self.shops {
            if high > 0.74 && high < 0.92 {
                let letters = fract(along * 1.6) < 0.6
                    && (high - 0.83).abs() < 0.045
                    && inside > 0.2
                    && inside < 0.8;
                let board = mix(self.shop, [0.8, 0.78, 0.7], draw * 0.5);
                let color =
                    if letters && fade(texel / 0.5) > 0.0 { [0.9, 0.88, 0.82] } else { board };
                return Fragment {
                    emission: 0.5 * self.evening,
                    ..Fragment::new(train_id::BUILDING, color)
                };
            }
            if high <= 0.72 && inside > 0.07 && inside < 0.93 {
                let color = if draw > 0.7 && high > 0.5 { self.shop } else { glass };
                let emission = if draw < 1.3 * self.evening { 0.7 } else { 0.0 };
                let shown = mix(color, [0.95, 0.84, 0.6], emission * 0.8);
                return Fragment { emission, ..Fragment::new(train_id::BUILDING, shown) };
            }
        } else if draw > 0.7 && high < 0.68 && (0.36..0.64).contains(&inside) {
            let panel = if (0.4..0.6).contains(&inside) && high < 0.64 { 0.55 } else { 0.85 };
            return Fragment::new(train_id::BUILDING, scale(mix(self.shop, self.trim, 0.4), panel));
        } else if let Some(fragment) =
            self.window([bay, -1], [inside, (high - 0.05).clamp(0.0, 1.0)], texel)
        {
            return fragment;
        }
        self.bare(along, y, texel)
    }

    fn bare(&self, along: f32, y: f32, texel: f32) -> Fragment {
        let level = match self.material {
            Material::Brick => {
                let tone =
                    lattice_hash((along * 4.0) as i32, (y * 12.0) as i32, self.key ^ 44) - 0.5;
                let seen = fade(texel / 0.16);
                1.0 + 0.3 * seen * tone - 0.22 * seen * joints(along, y, [0.25, 0.085], 0.014, true)
            }
            Material::Stone => {
                let tone =
                    lattice_hash((along / 1.1) as i32, (y / 0.55) as i32, self.key ^ 45) - 0.5;
                1.0 + 0.2 * tone
                    - 0.3 * fade(texel / 0.5) * joints(along, y, [1.1, 0.55], 0.03, true)
            }
            Material::Concrete => {
                1.0 - 0.25
                    * fade(texel)
                    * joints(along, y, [self.bay, self.floor_height], 0.05, false)
            }
            Material::Plaster | Material::Glass => 1.0,
        };
        let stains = 0.12 * fractal_noise(1.4 * along, 0.7 * y, self.key ^ 46, 1.4 * texel);
        Fragment::new(train_id::BUILDING, scale(self.wall, level + stains))
    }

    fn tiles(&self, along: f32, up: f32, texel: f32) -> Fragment {
        let rows = 1.0 - 0.3 * fade(texel / 0.3) * joints(along, up, [0.3, 0.3], 0.06, true);
        let level = rows + 0.25 * fractal_noise(along, up, self.key ^ 47, texel);
        Fragment::new(train_id::BUILDING, scale(self.roof, level))
    }
}

/// A house whose front looks at the street. `stand` is the middle of its plot; the right axis points across the street.
pub(super) fn building(
    world: &mut World,
    rng: &mut Rng,
    stand: Pose,
    half: [f32; 2],
    floors: usize,
) {
    let evening = world.light.evening;
    let facade = Facade::new(rng, floors, evening);
    let pitched = floors <= 4 && rng.chance(if floors < 3 { 0.85 } else { 0.4 });
    let [half_width, half_length] = half;
    let mut planes = cuboid(half_width, 0.0, facade.top, half_length);
    let mut ridge = facade.top;
    // The ridge runs along the street or across it.
    let axis = if rng.chance(0.6) { 0 } else { 2 };
    if pitched {
        let run = if axis == 0 { half_width } else { half_length };
        ridge += run.min(6.0) * rng.range(0.5, 0.95);
        planes[4] = Plane::facing(1, 1.0, ridge);
        for side in [-1.0, 1.0] {
            planes.push(Plane::slanted(axis, side, [run, facade.top], [0.0, ridge]));
        }
    }
    let paint = move |hit: &Hit| {
        let [x, y, z] = hit.at;
        Some(match hit.face {
            0 | 1 if y > facade.top => facade.tiles(z, y, hit.texel),
            0 | 1 => facade.paint(z, y, hit.texel),
            2 | 3 if y > facade.top => facade.bare(x, y, hit.texel),
            2 | 3 => facade.paint(x, y, hit.texel),
            4 | 5 => Fragment::new(train_id::BUILDING, facade.roof),
            _ => facade.tiles(if axis == 0 { z } else { x }, y, hit.texel),
        })
    };
    world.solid(stand, planes, [half_width, ridge, half_length], paint);
}

/// What closes the view far off: a skyline of roofs, or of trees.
pub(super) fn skyline(world: &mut World, rng: &mut Rng) {
    let key = rng.key();
    let wooded = rng.chance(0.5);
    let (rise, tone) = (rng.range(8.0, 26.0), rng.mineral_color());
    let green = rng.jitter_color([0.20, 0.28, 0.15], 0.2);
    world.panel([[-900.0, 320.0], [900.0, 320.0]], [0.0, 60.0], move |hit| {
        let [along, y, _] = hit.at;
        if wooded {
            let edge = rise * (0.8 + 0.4 * fractal_noise(along / 24.0, 3.0, key, 0.02));
            let leaves = 0.8 + 0.5 * fractal_noise(along / 5.0, y / 4.0, key, hit.texel / 4.0);
            return (y < edge).then(|| Fragment::new(train_id::VEGETATION, scale(green, leaves)));
        }
        let lot = floor(along / 22.0);
        let edge = rise * (0.5 + lattice_hash(lot, 0, key));
        let windows = if fract(along / 4.0) < 0.5 && fract(y / 3.5) < 0.5 { 0.75 } else { 1.0 };
        let level = windows * (0.7 + 0.5 * lattice_hash(lot, 1, key));
        (y < edge).then(|| Fragment::new(train_id::BUILDING, scale(tone, level)))
    });
}
