//! Trucks: a cab, and behind it a box, a tarpaulin, a container or a tipper on wheels.

use super::cars::{glass, wheel};
use super::noise::{Rgb, Rng, fract, lattice_hash, scale, value_noise};
use super::shape::{Fragment, Plane, Pose, cuboid};
use super::train_id;
use super::world::World;

const RUBBER: Rgb = [0.05, 0.05, 0.05];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Cargo {
    Box,
    Tarpaulin,
    Container,
    Tipper,
}

#[derive(Debug, Clone, Copy)]
struct Truck {
    half_width: f32,
    half_length: f32,
    /// Where the cab begins, from the middle.
    cab: f32,
    cab_top: f32,
    bed: f32,
    top: f32,
    load: Cargo,
    paint: Rgb,
    cargo: Rgb,
    mark: Rgb,
    key: u32,
}

impl Truck {
    fn new(rng: &mut Rng) -> Self {
        let long = rng.chance(0.5);
        let half_length = if long { rng.range(4.0, 6.0) } else { rng.range(3.0, 3.8) };
        let load = rng.choose(&[
            Cargo::Box,
            Cargo::Box,
            Cargo::Tarpaulin,
            Cargo::Container,
            Cargo::Tipper,
        ]);
        let top = if load == Cargo::Tipper { rng.range(2.0, 2.5) } else { rng.range(2.8, 3.8) };
        Self {
            half_width: rng.range(1.1, 1.27),
            half_length,
            cab: half_length - rng.range(1.6, 2.0),
            cab_top: if long { rng.range(2.7, 3.3) } else { rng.range(2.2, 2.6) },
            bed: rng.range(0.85, 1.15),
            top,
            load,
            paint: rng.paint_color(),
            cargo: if rng.chance(0.45) {
                rng.jitter_color([0.84, 0.84, 0.82], 0.1)
            } else {
                rng.paint_color()
            },
            mark: rng.paint_color(),
            key: rng.key(),
        }
    }

    fn part(color: Rgb) -> Option<Fragment> {
        Some(Fragment::new(train_id::TRUCK, color))
    }

    /// Wheels and frame below the cargo.
    fn frame_side(&self, z: f32, y: f32) -> Option<Fragment> {
        let back = -self.half_length;
        for axle in [back + 0.9, back + 1.95, self.cab + 0.55] {
            if let Some(fragment) = wheel(train_id::TRUCK, z - axle, y, 0.48, [0.5, 0.5, 0.5]) {
                return Some(fragment);
            }
        }
        let skirt = y > 0.45 && z > back + 2.6 && z < self.cab - 0.2;
        if skirt {
            Self::part([0.26, 0.26, 0.27])
        } else {
            (y > 0.72).then_some(Fragment::new(train_id::TRUCK, RUBBER))
        }
    }

    fn cargo_face(&self, along: f32, y: f32, end: bool) -> Rgb {
        let up = (y - self.bed) / (self.top - self.bed);
        let level = match self.load {
            Cargo::Box => 0.96,
            Cargo::Tarpaulin => 0.92 + 0.2 * value_noise(2.2 * along, 0.5 * y, self.key),
            Cargo::Container => 0.86 + if fract(along / 0.28) < 0.5 { 0.16 } else { 0.0 },
            Cargo::Tipper => 0.8 + if fract(along / 0.8) < 0.16 { 0.25 } else { 0.0 },
        };
        if !(0.05..=0.95).contains(&up) {
            return scale(self.cargo, 0.7);
        }
        if end {
            let bolts = [0.0, 0.45, 0.8]
                .iter()
                .any(|line| (along.abs() / self.half_width - line).abs() < 0.02);
            return scale(self.cargo, if bolts { 0.5 } else { level * 0.95 });
        }
        let lettered = up > 0.4
            && up < 0.72
            && lattice_hash((along * 1.3 + 50.0) as i32, (up * 9.0) as i32, self.key) < 0.55;
        let marked = matches!(self.load, Cargo::Box | Cargo::Tarpaulin)
            && along.abs() < 0.6 * self.half_length
            && lettered;
        scale(if marked { self.mark } else { self.cargo }, level)
    }

    fn tail(&self, x: f32, y: f32) -> Option<Fragment> {
        let across = x.abs() / self.half_width;
        if y < 0.42 {
            return if across > 0.55 && across < 0.98 { Self::part(RUBBER) } else { None };
        }
        if across > 0.72 && y > 0.62 && y < 0.8 {
            return Some(Fragment {
                emission: 0.35,
                ..Fragment::new(train_id::TRUCK, [0.75, 0.10, 0.08])
            });
        }
        if y < 0.56 {
            return Self::part(if fract(x / 0.4) < 0.5 {
                [0.7, 0.14, 0.1]
            } else {
                [0.8, 0.8, 0.78]
            });
        }
        Self::part([0.12, 0.12, 0.12])
    }

    fn cab_face(&self, face: usize, [x, y, z]: [f32; 3]) -> Option<Fragment> {
        let up = y / self.cab_top;
        let paint = scale(self.paint, 0.75 + 0.3 * up);
        if face < 2 {
            let from_front = self.half_length - z;
            if let Some(fragment) =
                wheel(train_id::TRUCK, from_front - 0.95, y, 0.48, [0.5, 0.5, 0.5])
            {
                return Some(fragment);
            }
            let pane = up > 0.55 && up < 0.86 && from_front > 0.3 && from_front < 1.25;
            let step = y < 0.5;
            return match (pane, step) {
                (true, _) => Some(glass(train_id::TRUCK, up, z, self.key)),
                (_, true) => {
                    (y > 0.3).then_some(Fragment::new(train_id::TRUCK, [0.12, 0.12, 0.12]))
                }
                _ => Self::part(if (from_front - 1.35).abs() < 0.02 {
                    scale(paint, 0.5)
                } else {
                    paint
                }),
            };
        }
        let across = x.abs() / self.half_width;
        if y < 0.3 {
            return if across > 0.7 { Self::part(RUBBER) } else { None };
        }
        if up > 0.52 && up < 0.86 && across < 0.92 {
            return Some(glass(train_id::TRUCK, up, x, self.key));
        }
        if across > 0.66 && y > 0.55 && y < 0.8 {
            return Some(Fragment {
                emission: 0.4,
                ..Fragment::new(train_id::TRUCK, [0.95, 0.93, 0.86])
            });
        }
        if across < 0.7 && up > 0.3 && up < 0.48 {
            return Self::part(if fract(y / 0.14) < 0.5 {
                [0.07; 3]
            } else {
                scale(self.paint, 0.6)
            });
        }
        Self::part(if y < 0.5 { [0.16; 3] } else { paint })
    }
}

pub(super) fn truck(world: &mut World, rng: &mut Rng, stand: Pose) {
    let truck = Truck::new(rng);
    world.shadow(stand, [1.2 * truck.half_width, 1.08 * truck.half_length], truck.top);
    let cargo_half = 0.5 * (truck.cab - 0.15 + truck.half_length);
    let middle = truck.cab - 0.15 - cargo_half;
    let reach = [truck.half_width, truck.top, cargo_half];
    world.solid(
        stand.ahead(middle),
        cuboid(truck.half_width, 0.0, truck.top, cargo_half),
        reach,
        move |hit| {
            let [x, y, z] = hit.at;
            match hit.face {
                0 | 1 if y < truck.bed => truck.frame_side(z + middle, y),
                0 | 1 => Truck::part(truck.cargo_face(z, y, false)),
                _ if y < truck.bed => truck.tail(x, y),
                _ => Truck::part(truck.cargo_face(x, y, true)),
            }
        },
    );
    let mut planes =
        cuboid(truck.half_width, 0.0, truck.cab_top, 0.5 * (truck.half_length - truck.cab));
    let (cab_half, cab_middle) =
        (0.5 * (truck.half_length - truck.cab), 0.5 * (truck.half_length + truck.cab));
    planes.push(Plane::slanted(
        2,
        1.0,
        [cab_half, 0.5 * truck.cab_top],
        [cab_half - 0.3, truck.cab_top],
    ));
    let reach = [truck.half_width, truck.cab_top, cab_half];
    world.solid(stand.ahead(cab_middle), planes, reach, move |hit| {
        let [x, y, z] = hit.at;
        truck.cab_face(hit.face, [x, y, z + cab_middle])
    });
}
