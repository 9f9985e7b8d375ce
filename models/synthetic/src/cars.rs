//! Cars: a body and a cabin, each a convex solid with a hood, glass, lamps and wheels.

use super::noise::{Rgb, Rng, mix, scale, value_noise};
use super::shape::{Fragment, Hit, Plane, Pose, cuboid};
use super::train_id;
use super::world::World;

const RUBBER: Rgb = [0.045, 0.045, 0.05];

/// A wheel seen from the side: tire, rim with spokes; `None` outside.
pub(super) fn wheel(label: u8, along: f32, y: f32, radius: f32, rim: Rgb) -> Option<Fragment> {
    let (dx, dy) = (along / radius, (y - radius) / radius);
    let out = dx * dx + dy * dy;
    if out > 1.0 {
        return None;
    }
    let spoke = (dx * dy).abs() < 0.05 || (dx * dx - dy * dy).abs() < 0.07;
    let color = if out > 0.42 {
        RUBBER
    } else if spoke || !(0.06..0.34).contains(&out) {
        rim
    } else {
        scale(rim, 0.35)
    };
    Some(Fragment::new(label, color))
}

/// What glass mirrors: the sky above, the street below.
pub(super) fn glass(label: u8, up: f32, along: f32, key: u32) -> Fragment {
    let sky = (0.25 + 0.5 * up + 0.3 * value_noise(1.6 * along, 2.0 * up, key)).clamp(0.0, 1.0);
    Fragment::new(label, mix([0.05, 0.06, 0.07], [0.42, 0.48, 0.54], sky))
}

#[derive(Debug, Clone, Copy)]
struct Car {
    half_width: f32,
    half_length: f32,
    belt: f32,
    top: f32,
    /// Where the cabin ends behind and begins in front, at the belt.
    cabin: [f32; 2],
    /// How far its roof is drawn in behind and in front.
    rake: [f32; 2],
    paint: Rgb,
    rim: Rgb,
    braking: bool,
    night: f32,
    taxi: bool,
    key: u32,
}

impl Car {
    fn new(rng: &mut Rng, night: f32) -> Self {
        let kind = rng.choose(&[0, 0, 1, 1, 2, 2, 3]);
        let half_length = [2.25, 1.95, 2.25, 2.45][kind] * rng.range(0.93, 1.06);
        let top = [1.44, 1.50, 1.72, 2.05][kind] * rng.range(0.96, 1.04);
        let nose = [1.25, 1.0, 1.15, 0.75][kind];
        let boot = [0.75, 0.08, 0.10, 0.04][kind];
        Self {
            half_width: rng.range(0.84, 0.94) + if kind == 3 { 0.05 } else { 0.0 },
            half_length,
            belt: [0.92, 0.94, 1.06, 1.12][kind],
            top,
            cabin: [-half_length + boot, half_length - nose],
            rake: [[0.62, 0.34, 0.22, 0.06][kind], [0.85, 0.75, 0.65, 0.55][kind]],
            paint: rng.paint_color(),
            rim: scale([0.62, 0.62, 0.64], rng.range(0.4, 1.1)),
            braking: rng.chance(0.4),
            night,
            taxi: rng.chance(0.06),
            key: rng.key(),
        }
    }

    fn body_planes(&self) -> Vec<Plane> {
        let mut planes = cuboid(self.half_width, 0.0, self.belt, self.half_length);
        let [rear, front] = self.cabin;
        planes.push(Plane::slanted(
            2,
            1.0,
            [self.half_length, 0.76 * self.belt],
            [front, self.belt],
        ));
        planes.push(Plane::slanted(
            2,
            -1.0,
            [self.half_length, 0.9 * self.belt],
            [-rear - 0.02, self.belt + 0.01],
        ));
        planes.push(Plane::slanted(
            0,
            1.0,
            [self.half_width, 0.5 * self.belt],
            [0.95 * self.half_width, self.belt],
        ));
        planes.push(Plane::slanted(
            0,
            -1.0,
            [self.half_width, 0.5 * self.belt],
            [0.95 * self.half_width, self.belt],
        ));
        planes
    }

    fn cabin_planes(&self) -> Vec<Plane> {
        let [rear, front] = self.cabin;
        let (low, wide) = (self.belt - 0.03, 0.95 * self.half_width);
        let slope = |side, low_edge: f32, high_edge: f32, axis| {
            Plane::slanted(axis, side, [low_edge, low], [high_edge, self.top])
        };
        vec![
            slope(1.0, wide, 0.8 * wide, 0),
            slope(-1.0, wide, 0.8 * wide, 0),
            slope(1.0, front, front - self.rake[1], 2),
            slope(-1.0, -rear, -rear - self.rake[0], 2),
            Plane::facing(1, 1.0, self.top),
            Plane::facing(1, -1.0, -low),
        ]
    }

    fn part(color: Rgb) -> Option<Fragment> {
        Some(Fragment::new(train_id::CAR, color))
    }

    fn side(&self, z: f32, y: f32) -> Option<Fragment> {
        let radius = 0.32;
        for axle in [-0.6, 0.62] {
            let along = z - axle * self.half_length;
            if let Some(fragment) = wheel(train_id::CAR, along, y, radius, self.rim) {
                return Some(fragment);
            }
            if y > radius && along * along + (y - radius) * (y - radius) < 0.4 * 0.4 {
                return Self::part(RUBBER);
            }
        }
        if y < 0.2 {
            return None;
        }
        if y < 0.3 {
            return Self::part([0.08, 0.08, 0.08]);
        }
        let [rear, front] = self.cabin;
        let door = [rear + 0.45, 0.5 * (rear + front), front - 0.25]
            .iter()
            .any(|edge| (z - edge).abs() < 0.018);
        let handle = (y - 0.86 * self.belt).abs() < 0.025
            && ((z + 0.15).abs() < 0.1 || (z - 0.95).abs() < 0.1);
        // Lacquer mirrors the sky above the crease and the road below it.
        let level = 0.72 + 0.38 * y / self.belt + if y > 0.62 * self.belt { 0.08 } else { 0.0 };
        Self::part(scale(self.paint, if door || handle { 0.45 } else { level }))
    }

    fn end(&self, x: f32, y: f32, rear: bool) -> Option<Fragment> {
        let across = x.abs() / self.half_width;
        let high = y / self.belt;
        if y < 0.22 {
            return if across > 0.7 && across < 0.96 { Self::part(RUBBER) } else { None };
        }
        if high < 0.36 {
            return Self::part([0.10, 0.10, 0.11]);
        }
        if across < 0.28 && (y - 0.55).abs() < 0.07 {
            return Self::part([0.82, 0.82, 0.78]);
        }
        if rear {
            if across > 0.62 && high > 0.62 && high < 0.86 {
                let (color, emission) = if self.braking {
                    ([1.0, 0.14, 0.10], 0.8)
                } else {
                    ([0.55, 0.07, 0.06], self.night)
                };
                return Some(Fragment { emission, ..Fragment::new(train_id::CAR, color) });
            }
            let lid = (across - 0.58).abs() < 0.015 || (high - 0.58).abs() < 0.015;
            return Self::part(scale(self.paint, if lid { 0.5 } else { 0.75 + 0.3 * high }));
        }
        if across > 0.58 && high > 0.56 && high < 0.76 {
            let emission = 0.25 + 0.75 * self.night;
            return Some(Fragment { emission, ..Fragment::new(train_id::CAR, [0.98, 0.96, 0.88]) });
        }
        if across < 0.52 && high > 0.48 && high < 0.72 {
            let slats = if (y * 22.0) as i32 & 1 == 0 { 0.05 } else { 0.16 };
            return Self::part([slats; 3]);
        }
        Self::part(scale(self.paint, 0.72 + 0.3 * high))
    }

    fn cabin_face(&self, hit: &Hit) -> Option<Fragment> {
        let [x, y, z] = hit.at;
        let up = (y - self.belt) / (self.top - self.belt);
        let narrow = self.half_width * (0.95 - 0.2 * up);
        let (rear, front) = (self.cabin[0] + self.rake[0] * up, self.cabin[1] - self.rake[1] * up);
        let pane = match hit.face {
            0 | 1 => {
                let pillar = (z - 0.5 * (self.cabin[0] + self.cabin[1])).abs() < 0.06;
                up > 0.08 && up < 0.86 && z > rear + 0.16 && z < front - 0.1 && !pillar
            }
            2 | 3 => up > 0.06 && up < 0.88 && x.abs() < narrow - 0.09,
            _ => false,
        };
        if pane {
            // Seats and heads show dark through the glass.
            let seat = hit.face > 1 && up < 0.55 && ((x.abs() - 0.38) * 4.0).abs() < 0.9;
            let fragment = glass(train_id::CAR, up, x + z, self.key);
            return Some(if seat {
                Fragment { color: scale(fragment.color, 0.55), ..fragment }
            } else {
                fragment
            });
        }
        Self::part(scale(self.paint, if hit.face == 4 { 1.0 } else { 0.92 }))
    }
}

pub(super) fn car(world: &mut World, rng: &mut Rng, stand: Pose) {
    let car = Car::new(rng, world.light.evening);
    world.shadow(stand, [1.25 * car.half_width, 1.12 * car.half_length], car.top);
    let reach = [car.half_width, car.belt, car.half_length];
    world.solid(stand, car.body_planes(), reach, move |hit| {
        let [x, y, z] = hit.at;
        match hit.face {
            0 | 1 | 8 | 9 => car.side(z, y),
            2 => car.end(x, y, false),
            3 => car.end(x, y, true),
            _ => {
                Car::part(scale(car.paint, if x.abs() > 0.8 * car.half_width { 1.08 } else { 1.0 }))
            }
        }
    });
    let reach = [car.half_width, car.top, car.half_length];
    world.solid(stand, car.cabin_planes(), reach, move |hit| car.cabin_face(hit));
    if car.taxi {
        let planes = cuboid(0.3, car.top, car.top + 0.16, 0.1);
        world.solid(stand, planes, [0.3, car.top + 0.16, 0.1], |_| {
            Some(Fragment { emission: 0.3, ..Fragment::new(train_id::CAR, [0.95, 0.86, 0.4]) })
        });
    }
}
