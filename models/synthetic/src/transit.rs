//! Buses and trams: long carriages with a band of windows.

use crate::noise::{Rgb, Rng, between, fract, lattice_hash, mix, scale};
use crate::train_id;
use crate::vehicles::{RUBBER, glass, wheel};
use crate::world::{Fragment, Plane, Pose, Solid, World, glowing, opaque};

/// The carriage of a bus or tram.
#[derive(Debug, Clone, Copy)]
struct Carriage {
    label: u8,
    half_width: f32,
    half_length: f32,
    top: f32,
    sill: f32,
    lintel: f32,
    pane: f32,
    paint: Rgb,
    stripe: Rgb,
    upper: Rgb,
    evening: f32,
    key: u32,
}

impl Carriage {
    fn is_tram(&self) -> bool {
        self.label == train_id::TRAIN
    }

    fn pane(&self, up: f32, along: f32) -> Option<Fragment> {
        let mut color = glass(up, along, self.key);
        if lattice_hash((along / self.pane + 60.0) as i32, 3, self.key) < 0.4 && up < 0.45 {
            color = scale(color, 0.6);
        }
        if self.evening > 0.3 {
            return glowing(mix(color, [0.92, 0.86, 0.66], 0.7), 0.6 * self.evening);
        }
        opaque(color)
    }

    fn side(&self, z: f32, y: f32) -> Option<Fragment> {
        let wheels = !self.is_tram();
        let wheel_at = |axle| wheel(z - axle * self.half_length, y, 0.5, [0.45, 0.45, 0.46]);
        if wheels && let Some(wheel) = [-0.5, 0.56].into_iter().find_map(wheel_at) {
            return Some(wheel);
        }
        let door = lattice_hash((z / self.pane + 60.0) as i32, 1, self.key) < 0.22;
        let low = if door { 0.42 } else { self.sill };
        let along_pane = fract(z / self.pane);
        let pane = between(y, low, self.lintel) && along_pane > 0.06;
        let up = (y - self.sill) / (self.lintel - self.sill);
        match y {
            _ if y < 0.12 || (y < 0.3 && wheels) => None,
            _ if y < 0.3 => opaque([0.08, 0.08, 0.09]),
            _ if pane && door && (along_pane - 0.53).abs() < 0.04 => {
                opaque(scale(self.stripe, 0.6))
            }
            _ if pane => self.pane(up.max(0.0), z),
            _ => self.skin(y),
        }
    }

    fn skin(&self, y: f32) -> Option<Fragment> {
        let color = match y {
            _ if between(y, self.sill - 0.32, self.sill - 0.08) => self.stripe,
            _ if y > self.sill => self.upper,
            _ => self.paint,
        };
        opaque(scale(color, 0.78 + 0.24 * y / self.top))
    }

    fn display(&self, x: f32, y: f32, across: f32) -> Option<Fragment> {
        let cell = [(x * 14.0 + 99.0) as i32, (y * 16.0) as i32];
        let lit = cell[0] % 4 != 0 && lattice_hash(cell[0], cell[1], self.key) > 0.45;
        glowing(if lit && across < 0.5 { [0.98, 0.72, 0.2] } else { [0.06; 3] }, 0.6)
    }

    fn end(&self, x: f32, y: f32, front: bool) -> Option<Fragment> {
        let across = x.abs() / self.half_width;
        let tram = self.is_tram();
        let tire = !tram && between(across, 0.62, 0.96);
        let display_top = (self.top - 0.12).min(self.lintel + 0.5);
        let display = front && between(y, self.lintel + 0.08, display_top) && across < 0.62;
        let low = if front || tram { self.sill - 0.25 } else { self.sill + 0.25 };
        let up = (y - low) / (self.lintel - low);
        let pane = (0.0..1.0).contains(&up) && across < if tram { 0.84 } else { 0.92 };
        let lamp = across > 0.7 && between(y, 0.6, 0.86);
        let grille = !tram && !front && across < 0.6 && between(y, 0.7, 1.2);
        match y {
            _ if y < 0.3 && (tire || (tram && y > 0.12)) => opaque(RUBBER),
            _ if y < 0.3 => None,
            _ if display => self.display(x, y, across),
            _ if pane && tram && across < 0.02 => opaque([0.1; 3]),
            _ if pane => self.pane(up, x),
            _ if lamp && front => glowing([0.97, 0.95, 0.88], 0.5),
            _ if lamp => glowing([0.8, 0.10, 0.08], 0.5),
            _ if grille && fract(y / 0.1) < 0.4 => opaque([0.12; 3]),
            _ => self.skin(y),
        }
    }
    /// Adds the carriage to the world; blunt ends (rear, front) are coupled to another one.
    fn park(self, world: &mut World, pose: Pose, blunt: [bool; 2]) {
        let mut solid = Solid::cuboid(self.half_width, [0.0, self.top], self.half_length);
        let lean = if self.is_tram() { 0.9 } else { 0.18 };
        for (side, blunt) in [(1.0, blunt[1]), (-1.0, blunt[0])] {
            let lean = if blunt { 0.0 } else { lean };
            let high = [self.half_length - lean, self.top];
            solid.planes.push(Plane::slanted(2, side, [self.half_length + 0.001, 0.9], high));
        }
        world.shadow(pose, [1.2 * self.half_width, 1.05 * self.half_length], self.top);
        world.solid(self.label, pose, solid, move |hit| {
            let [x, y, z] = hit.at;
            match hit.face {
                0 | 1 => self.side(z, y),
                2 | 6 => self.end(x, y, true),
                3 | 7 => self.end(x, y, false),
                _ => opaque(scale(self.upper, 0.8)),
            }
        });
    }
}

pub(crate) fn bus(world: &mut World, rng: &mut Rng, pose: Pose) {
    let mut bus = Carriage {
        label: train_id::BUS,
        half_width: rng.range(1.2, 1.28),
        half_length: rng.range(4.8, 6.2),
        top: rng.choose(&[3.0, 3.2, 3.2, 4.2]),
        sill: rng.range(1.15, 1.4),
        lintel: rng.range(2.35, 2.55),
        pane: rng.range(1.3, 1.8),
        paint: rng.paint_color(),
        stripe: rng.paint_color(),
        upper: rng.paint_color(),
        evening: world.light.evening,
        key: rng.key(),
    };
    if rng.chance(0.7) {
        bus.upper = bus.paint;
    }
    bus.park(world, pose, [false, false]);
}

/// A tram of a few carriages, with a pantograph on its roof.
pub(crate) fn tram(world: &mut World, rng: &mut Rng, pose: Pose, carriages: usize) {
    let half_length = rng.range(4.2, 5.2);
    let paint = rng.paint_color();
    let stripe = rng.paint_color();
    let tram = Carriage {
        label: train_id::TRAIN,
        half_width: rng.range(1.15, 1.3),
        half_length,
        top: rng.range(3.3, 3.6),
        sill: rng.range(1.0, 1.25),
        lintel: rng.range(2.5, 2.75),
        pane: rng.range(1.0, 1.5),
        paint,
        stripe,
        upper: if rng.chance(0.6) { [0.84, 0.84, 0.82] } else { paint },
        evening: world.light.evening,
        key: rng.key(),
    };
    let step = 2.0 * half_length + 0.35;
    for carriage in 0..carriages {
        let pose = pose.ahead((carriage as f32 - 0.5 * (carriages - 1) as f32) * step);
        let coupled = carriage + 1 < carriages;
        tram.park(world, pose, [carriage > 0, coupled]);
        if coupled {
            let bellows = Solid::cuboid(tram.half_width - 0.12, [0.25, tram.top - 0.2], 0.2);
            world.solid(train_id::TRAIN, pose.ahead(0.5 * step), bellows, |hit| {
                opaque(if fract(hit.at[2] / 0.1) < 0.5 { [0.06; 3] } else { [0.14; 3] })
            });
        }
    }
    let (low, high) = (tram.top, tram.top + 1.1);
    world.billboard(train_id::TRAIN, pose.place, 0.9, [low, high], move |hit| {
        let (x, y) = (hit.at[0].abs(), (hit.at[1] - low) / (high - low));
        let bow = y > 0.94 || (x - 0.5 * (1.0 - (2.0 * y - 1.0).abs())).abs() < 0.05;
        if bow { opaque([0.2, 0.2, 0.21]) } else { None }
    });
}
