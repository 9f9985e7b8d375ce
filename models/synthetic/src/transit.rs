//! Buses and trams: long carriages with a band of windows.

use super::cars::{glass, wheel};
use super::noise::{Rgb, Rng, fract, lattice_hash, mix, scale};
use super::shape::{Fragment, Plane, Pose, cuboid};
use super::train_id;
use super::world::World;

const RUBBER: Rgb = [0.05, 0.05, 0.05];

/// A long carriage with a band of windows: what buses and trams share.
#[derive(Debug, Clone, Copy)]
struct TransitVehicle {
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

impl TransitVehicle {
    fn part(&self, color: Rgb) -> Option<Fragment> {
        Some(Fragment::new(self.label, color))
    }

    fn pane_of(&self, up: f32, along: f32) -> Option<Fragment> {
        let mut fragment = glass(self.label, up, along, self.key);
        if lattice_hash((along / self.pane + 60.0) as i32, 3, self.key) < 0.4 && up < 0.45 {
            fragment.color = scale(fragment.color, 0.6);
        }
        if self.evening > 0.3 {
            (fragment.color, fragment.emission) =
                (mix(fragment.color, [0.92, 0.86, 0.66], 0.7), 0.6 * self.evening);
        }
        Some(fragment)
    }

    fn side(&self, z: f32, y: f32, wheels: bool) -> Option<Fragment> {
        if wheels {
            for axle in [-0.5, 0.56] {
                if let Some(fragment) =
                    wheel(self.label, z - axle * self.half_length, y, 0.5, [0.45, 0.45, 0.46])
                {
                    return Some(fragment);
                }
            }
        }
        if y < 0.3 {
            return if wheels || y < 0.12 { None } else { self.part([0.08, 0.08, 0.09]) };
        }
        let pane = fract(z / self.pane);
        let up = (y - self.sill) / (self.lintel - self.sill);
        let door = lattice_hash((z / self.pane + 60.0) as i32, 1, self.key) < 0.22;
        let low = if door { 0.42 } else { self.sill };
        if y > low && y < self.lintel && pane > 0.06 {
            let split = door && (pane - 0.53).abs() < 0.04;
            return if split {
                self.part(scale(self.stripe, 0.6))
            } else {
                self.pane_of(up.max(0.0), z)
            };
        }
        self.part(self.skin(y))
    }

    fn skin(&self, y: f32) -> Rgb {
        let band = y > self.sill - 0.32 && y < self.sill - 0.08;
        let color = if band {
            self.stripe
        } else if y > self.sill {
            self.upper
        } else {
            self.paint
        };
        scale(color, 0.78 + 0.24 * y / self.top)
    }

    fn end(&self, x: f32, y: f32, front: bool) -> Option<Fragment> {
        let across = x.abs() / self.half_width;
        let tram = self.label == train_id::TRAIN;
        if y < 0.3 {
            let tire = !tram && across > 0.62 && across < 0.96;
            return if tire || (tram && y > 0.12) { self.part(RUBBER) } else { None };
        }
        if front
            && y > self.lintel + 0.08
            && y < (self.top - 0.12).min(self.lintel + 0.5)
            && across < 0.62
        {
            let cell = [(x * 14.0 + 99.0) as i32, (y * 16.0) as i32];
            let lit = if cell[0] % 4 == 0 { 0.0 } else { lattice_hash(cell[0], cell[1], self.key) };
            let written = lit > 0.45 && across < 0.5;
            return Some(Fragment {
                emission: 0.6,
                ..Fragment::new(self.label, if written { [0.98, 0.72, 0.2] } else { [0.06; 3] })
            });
        }
        let low = if front || tram { self.sill - 0.25 } else { self.sill + 0.25 };
        let up = (y - low) / (self.lintel - low);
        if (0.0..1.0).contains(&up) && across < if tram { 0.84 } else { 0.92 } {
            return if tram && across < 0.02 { self.part([0.1; 3]) } else { self.pane_of(up, x) };
        }
        if across > 0.7 && y > 0.6 && y < 0.86 {
            let color = if front { [0.97, 0.95, 0.88] } else { [0.8, 0.10, 0.08] };
            return Some(Fragment { emission: 0.5, ..Fragment::new(self.label, color) });
        }
        if !tram && !front && across < 0.6 && y > 0.7 && y < 1.2 && fract(y / 0.1) < 0.4 {
            return self.part([0.12; 3]);
        }
        self.part(self.skin(y))
    }

    fn park(self, world: &mut World, stand: Pose, blunt: [bool; 2]) {
        let tram = self.label == train_id::TRAIN;
        let mut planes = cuboid(self.half_width, 0.0, self.top, self.half_length);
        let lean = if tram { 0.9 } else { 0.18 };
        for (side, blunt) in [(1.0, blunt[1]), (-1.0, blunt[0])] {
            let lean = if blunt { 0.0 } else { lean };
            let high = [self.half_length - lean, self.top];
            planes.push(Plane::slanted(2, side, [self.half_length + 0.001, 0.9], high));
        }
        world.shadow(stand, [1.2 * self.half_width, 1.05 * self.half_length], self.top);
        world.solid(stand, planes, [self.half_width, self.top, self.half_length], move |hit| {
            let [x, y, z] = hit.at;
            match hit.face {
                0 | 1 => self.side(z, y, !tram),
                2 | 6 => self.end(x, y, true),
                3 | 7 => self.end(x, y, false),
                _ => self.part(scale(self.upper, 0.8)),
            }
        });
    }
}

pub(super) fn bus(world: &mut World, rng: &mut Rng, stand: Pose) {
    let coach = TransitVehicle {
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
    let coach =
        TransitVehicle { upper: if rng.chance(0.7) { coach.paint } else { coach.upper }, ..coach };
    coach.park(world, stand, [false, false]);
}

/// A tram of a few carriages, with the wire's bow on its roof.
pub(super) fn tram(world: &mut World, rng: &mut Rng, stand: Pose, carriages: usize) {
    let half_length = rng.range(4.2, 5.2);
    let (paint, stripe) = (rng.paint_color(), rng.paint_color());
    let coach = TransitVehicle {
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
        let stand = stand.ahead((carriage as f32 - 0.5 * (carriages - 1) as f32) * step);
        coach.park(world, stand, [carriage > 0, carriage + 1 < carriages]);
        if carriage + 1 < carriages {
            let joint = stand.ahead(0.5 * step);
            let top = coach.top - 0.2;
            let planes = cuboid(coach.half_width - 0.12, 0.25, top, 0.2);
            world.solid(joint, planes, [coach.half_width, top, 0.2], |hit| {
                let fold = if fract(hit.at[2] / 0.1) < 0.5 { 0.06 } else { 0.14 };
                Some(Fragment::new(train_id::TRAIN, [fold; 3]))
            });
        }
    }
    let (low, high) = (coach.top, coach.top + 1.1);
    world.billboard(stand.place, 0.9, [low, high], move |hit| {
        let (x, y) = (hit.at[0].abs(), (hit.at[1] - low) / (high - low));
        let bow = y > 0.94 || (x - 0.5 * (1.0 - (2.0 * y - 1.0).abs())).abs() < 0.05;
        bow.then(|| Fragment::new(train_id::TRAIN, [0.2, 0.2, 0.21]))
    });
}
