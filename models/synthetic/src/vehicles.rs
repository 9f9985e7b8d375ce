//! Cars (a body and a cabin) and trucks (a cab, and cargo on a frame) of convex solids.

use crate::noise::{Rgb, Rng, between, fract, lattice_hash, mix, scale, value_noise};
use crate::train_id;
use crate::world::{Fragment, Hit, Plane, Pose, Solid, World, glowing, opaque};

const TIRE: Rgb = [0.045, 0.045, 0.05];
/// Mud flaps and bumpers of trucks, buses and trams.
pub(crate) const RUBBER: Rgb = [0.05, 0.05, 0.05];

/// A wheel seen from the side: tire, and rim with spokes; `None` outside.
pub(crate) fn wheel(along: f32, y: f32, radius: f32, rim: Rgb) -> Option<Fragment> {
    let (dx, dy) = (along / radius, (y - radius) / radius);
    let spoke = (dx * dy).abs() < 0.05 || (dx * dx - dy * dy).abs() < 0.07;
    match dx * dx + dy * dy {
        out if out > 1.0 => None,
        out if out > 0.42 => opaque(TIRE),
        out if spoke || !(0.06..0.34).contains(&out) => opaque(rim),
        _ => opaque(scale(rim, 0.35)),
    }
}
/// A window pane: it mirrors the sky above and the street below.
pub(crate) fn glass(up: f32, along: f32, key: u32) -> Rgb {
    let sky = (0.25 + 0.5 * up + 0.3 * value_noise(1.6 * along, 2.0 * up, key)).clamp(0.0, 1.0);
    mix([0.05, 0.06, 0.07], [0.42, 0.48, 0.54], sky)
}

/// In meters: half length, top and belt; from the rear end to the cabin, and from the cabin to the
/// front; inset of the roof, rear and front; extra width.
type CarKind = ([f32; 3], [f32; 2], [f32; 2], f32);

/// Sedan, hatchback, station wagon, van.
const CAR_KINDS: [CarKind; 4] = [
    ([2.25, 1.44, 0.92], [0.75, 1.25], [0.62, 0.85], 0.0),
    ([1.95, 1.50, 0.94], [0.08, 1.0], [0.34, 0.75], 0.0),
    ([2.25, 1.72, 1.06], [0.10, 1.15], [0.22, 0.65], 0.0),
    ([2.45, 2.05, 1.12], [0.04, 0.75], [0.06, 0.55], 0.05),
];

#[derive(Debug, Clone, Copy)]
struct Car {
    half_width: f32,
    half_length: f32,
    belt: f32,
    top: f32,
    /// Rear and front end of the cabin at the belt.
    cabin: [f32; 2],
    rake: [f32; 2],
    paint: Rgb,
    rim: Rgb,
    braking: bool,
    evening: f32,
    taxi: bool,
    key: u32,
}

impl Car {
    fn new(rng: &mut Rng, evening: f32) -> Self {
        let kind = CAR_KINDS[rng.choose(&[0, 0, 1, 1, 2, 2, 3])];
        let ([half_length, top, belt], [rear, front], rake, extra_width) = kind;
        let half_length = half_length * rng.range(0.93, 1.06);
        let top = top * rng.range(0.96, 1.04);
        Self {
            half_width: rng.range(0.84, 0.94) + extra_width,
            half_length,
            belt,
            top,
            cabin: [-half_length + rear, half_length - front],
            rake,
            paint: rng.paint_color(),
            rim: scale([0.62, 0.62, 0.64], rng.range(0.4, 1.1)),
            braking: rng.chance(0.4),
            evening,
            taxi: rng.chance(0.06),
            key: rng.key(),
        }
    }

    fn body(&self) -> Solid {
        let mut solid = Solid::cuboid(self.half_width, [0.0, self.belt], self.half_length);
        let Self { half_width: wide, half_length: long, belt, cabin: [rear, front], .. } = *self;
        let flank = |side| Plane::slanted(0, side, [wide, 0.5 * belt], [0.95 * wide, belt]);
        solid.planes.extend([
            Plane::slanted(2, 1.0, [long, 0.76 * belt], [front, belt]),
            Plane::slanted(2, -1.0, [long, 0.9 * belt], [-rear - 0.02, belt + 0.01]),
            flank(1.0),
            flank(-1.0),
        ]);
        solid
    }

    fn cabin(&self) -> Solid {
        let [rear, front] = self.cabin;
        let (low, wide) = (self.belt - 0.03, 0.95 * self.half_width);
        let slope = |axis, side, low_edge: f32, high_edge: f32| {
            Plane::slanted(axis, side, [low_edge, low], [high_edge, self.top])
        };
        let planes = vec![
            slope(0, 1.0, wide, 0.8 * wide),
            slope(0, -1.0, wide, 0.8 * wide),
            slope(2, 1.0, front, front - self.rake[1]),
            slope(2, -1.0, -rear, -rear - self.rake[0]),
            Plane::facing(1, 1.0, self.top),
            Plane::facing(1, -1.0, -low),
        ];
        Solid { planes, reach: [self.half_width, self.top, self.half_length] }
    }

    fn body_face(&self, hit: &Hit) -> Option<Fragment> {
        let [x, y, z] = hit.at;
        match hit.face {
            0 | 1 | 8 | 9 => self.side(z, y),
            2 => self.end(x, y, false),
            3 => self.end(x, y, true),
            _ if x.abs() > 0.8 * self.half_width => opaque(scale(self.paint, 1.08)),
            _ => opaque(self.paint),
        }
    }

    fn side(&self, z: f32, y: f32) -> Option<Fragment> {
        let radius = 0.32;
        let wheel_or_arch = |axle: f32| {
            let along = z - axle * self.half_length;
            let arch = y > radius && along * along + (y - radius) * (y - radius) < 0.4 * 0.4;
            wheel(along, y, radius, self.rim).or(if arch { opaque(TIRE) } else { None })
        };
        let panel = || {
            let [rear, front] = self.cabin;
            let doors = [rear + 0.45, 0.5 * (rear + front), front - 0.25];
            let door = doors.iter().any(|edge| (z - edge).abs() < 0.018);
            let handle = (y - 0.86 * self.belt).abs() < 0.025
                && ((z + 0.15).abs() < 0.1 || (z - 0.95).abs() < 0.1);
            // Lacquer mirrors the sky above the crease and the road below it.
            let level = 0.72 + 0.38 * y / self.belt + if y > 0.62 * self.belt { 0.08 } else { 0.0 };
            match y {
                _ if y < 0.2 => None,
                _ if y < 0.3 => opaque([0.08, 0.08, 0.08]),
                _ => opaque(scale(self.paint, if door || handle { 0.45 } else { level })),
            }
        };
        [-0.6, 0.62].into_iter().find_map(wheel_or_arch).or_else(panel)
    }
    fn end(&self, x: f32, y: f32, rear: bool) -> Option<Fragment> {
        let across = x.abs() / self.half_width;
        let high = y / self.belt;
        let lid = (across - 0.58).abs() < 0.015 || (high - 0.58).abs() < 0.015;
        match rear {
            _ if y < 0.22 && between(across, 0.7, 0.96) => opaque(TIRE),
            _ if y < 0.22 => None,
            _ if high < 0.36 => opaque([0.10, 0.10, 0.11]),
            _ if across < 0.28 && (y - 0.55).abs() < 0.07 => opaque([0.82, 0.82, 0.78]),
            true if across > 0.62 && between(high, 0.62, 0.86) => match self.braking {
                true => glowing([1.0, 0.14, 0.10], 0.8),
                false => glowing([0.55, 0.07, 0.06], self.evening),
            },
            true if lid => opaque(scale(self.paint, 0.5)),
            true => opaque(scale(self.paint, 0.75 + 0.3 * high)),
            false if across > 0.58 && between(high, 0.56, 0.76) => {
                glowing([0.98, 0.96, 0.88], 0.25 + 0.75 * self.evening)
            }
            false if across < 0.52 && between(high, 0.48, 0.72) => {
                opaque(if (y * 22.0) as i32 & 1 == 0 { [0.05; 3] } else { [0.16; 3] })
            }
            false => opaque(scale(self.paint, 0.72 + 0.3 * high)),
        }
    }
    fn cabin_face(&self, hit: &Hit) -> Option<Fragment> {
        let [x, y, z] = hit.at;
        let up = (y - self.belt) / (self.top - self.belt);
        let pane = match hit.face {
            0 | 1 => {
                let rear = self.cabin[0] + self.rake[0] * up;
                let front = self.cabin[1] - self.rake[1] * up;
                let pillar = (z - 0.5 * (self.cabin[0] + self.cabin[1])).abs() < 0.06;
                between(up, 0.08, 0.86) && between(z, rear + 0.16, front - 0.1) && !pillar
            }
            2 | 3 => {
                let narrow = self.half_width * (0.95 - 0.2 * up);
                between(up, 0.06, 0.88) && x.abs() < narrow - 0.09
            }
            _ => false,
        };
        if pane {
            // Seats and heads show dark through the glass.
            let seat = hit.face > 1 && up < 0.55 && ((x.abs() - 0.38) * 4.0).abs() < 0.9;
            let glass = glass(up, x + z, self.key);
            return opaque(if seat { scale(glass, 0.55) } else { glass });
        }
        opaque(scale(self.paint, if hit.face == 4 { 1.0 } else { 0.92 }))
    }
}

pub(crate) fn car(world: &mut World, rng: &mut Rng, pose: Pose) {
    let car = Car::new(rng, world.light.evening);
    world.shadow(pose, [1.25 * car.half_width, 1.12 * car.half_length], car.top);
    world.solid(train_id::CAR, pose, car.body(), move |hit| car.body_face(hit));
    world.solid(train_id::CAR, pose, car.cabin(), move |hit| car.cabin_face(hit));
    if car.taxi {
        let sign = Solid::cuboid(0.3, [car.top, car.top + 0.16], 0.1);
        world.solid(train_id::CAR, pose, sign, |_| glowing([0.95, 0.86, 0.4], 0.3));
    }
}

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
    /// Rear end of the cab.
    cab: f32,
    cab_top: f32,
    bed: f32,
    top: f32,
    cargo: Cargo,
    paint: Rgb,
    cargo_paint: Rgb,
    lettering: Rgb,
    key: u32,
}

impl Truck {
    fn new(rng: &mut Rng) -> Self {
        let long = rng.chance(0.5);
        let half_length = if long { rng.range(4.0, 6.0) } else { rng.range(3.0, 3.8) };
        let cargo = match rng.below(5) {
            0 | 1 => Cargo::Box,
            2 => Cargo::Tarpaulin,
            3 => Cargo::Container,
            _ => Cargo::Tipper,
        };
        let top = if cargo == Cargo::Tipper { rng.range(2.0, 2.5) } else { rng.range(2.8, 3.8) };
        Self {
            half_width: rng.range(1.1, 1.27),
            half_length,
            cab: half_length - rng.range(1.6, 2.0),
            cab_top: if long { rng.range(2.7, 3.3) } else { rng.range(2.2, 2.6) },
            bed: rng.range(0.85, 1.15),
            top,
            cargo,
            paint: rng.paint_color(),
            cargo_paint: if rng.chance(0.45) {
                rng.jitter_color([0.84, 0.84, 0.82], 0.1)
            } else {
                rng.paint_color()
            },
            lettering: rng.paint_color(),
            key: rng.key(),
        }
    }

    fn wheel(along: f32, y: f32) -> Option<Fragment> {
        wheel(along, y, 0.48, [0.5, 0.5, 0.5])
    }

    /// Wheels and frame below the cargo.
    fn frame(&self, z: f32, y: f32) -> Option<Fragment> {
        let back = -self.half_length;
        let axles = [back + 0.9, back + 1.95, self.cab + 0.55];
        let frame = || match y {
            _ if y > 0.45 && between(z, back + 2.6, self.cab - 0.2) => opaque([0.26, 0.26, 0.27]),
            _ if y > 0.72 => opaque(RUBBER),
            _ => None,
        };
        axles.into_iter().find_map(|axle| Self::wheel(z - axle, y)).or_else(frame)
    }
    fn cargo_face(&self, along: f32, y: f32, end: bool) -> Option<Fragment> {
        let up = (y - self.bed) / (self.top - self.bed);
        let level = match self.cargo {
            Cargo::Box => 0.96,
            Cargo::Tarpaulin => 0.92 + 0.2 * value_noise(2.2 * along, 0.5 * y, self.key),
            Cargo::Container => 0.86 + if fract(along / 0.28) < 0.5 { 0.16 } else { 0.0 },
            Cargo::Tipper => 0.8 + if fract(along / 0.8) < 0.16 { 0.25 } else { 0.0 },
        };
        if !(0.05..=0.95).contains(&up) {
            return opaque(scale(self.cargo_paint, 0.7));
        }
        if end {
            let across = along.abs() / self.half_width;
            let bolt = [0.0, 0.45, 0.8].iter().any(|line| (across - line).abs() < 0.02);
            return opaque(scale(self.cargo_paint, if bolt { 0.5 } else { level * 0.95 }));
        }
        let lettered = matches!(self.cargo, Cargo::Box | Cargo::Tarpaulin)
            && along.abs() < 0.6 * self.half_length
            && between(up, 0.4, 0.72)
            && lattice_hash((along * 1.3 + 50.0) as i32, (up * 9.0) as i32, self.key) < 0.55;
        opaque(scale(if lettered { self.lettering } else { self.cargo_paint }, level))
    }

    fn tail(&self, x: f32, y: f32) -> Option<Fragment> {
        let across = x.abs() / self.half_width;
        match y {
            _ if y < 0.42 && between(across, 0.55, 0.98) => opaque(RUBBER),
            _ if y < 0.42 => None,
            _ if across > 0.72 && between(y, 0.62, 0.8) => glowing([0.75, 0.10, 0.08], 0.35),
            _ if y < 0.56 && fract(x / 0.4) < 0.5 => opaque([0.7, 0.14, 0.1]),
            _ if y < 0.56 => opaque([0.8, 0.8, 0.78]),
            _ => opaque([0.12, 0.12, 0.12]),
        }
    }

    fn cab_side(&self, y: f32, z: f32) -> Option<Fragment> {
        let from_front = self.half_length - z;
        let up = y / self.cab_top;
        let paint = scale(self.paint, 0.75 + 0.3 * up);
        let pane = between(up, 0.55, 0.86) && between(from_front, 0.3, 1.25);
        Self::wheel(from_front - 0.95, y).or_else(|| match y {
            _ if pane => opaque(glass(up, z, self.key)),
            _ if y < 0.5 && y > 0.3 => opaque([0.12, 0.12, 0.12]),
            _ if y < 0.5 => None,
            _ if (from_front - 1.35).abs() < 0.02 => opaque(scale(paint, 0.5)),
            _ => opaque(paint),
        })
    }

    fn cab_front(&self, x: f32, y: f32) -> Option<Fragment> {
        let up = y / self.cab_top;
        let across = x.abs() / self.half_width;
        let grille = across < 0.7 && between(up, 0.3, 0.48);
        match y {
            _ if y < 0.3 && across > 0.7 => opaque(RUBBER),
            _ if y < 0.3 => None,
            _ if between(up, 0.52, 0.86) && across < 0.92 => opaque(glass(up, x, self.key)),
            _ if across > 0.66 && between(y, 0.55, 0.8) => glowing([0.95, 0.93, 0.86], 0.4),
            _ if grille && fract(y / 0.14) < 0.5 => opaque([0.07; 3]),
            _ if grille => opaque(scale(self.paint, 0.6)),
            _ if y < 0.5 => opaque([0.16; 3]),
            _ => opaque(scale(self.paint, 0.75 + 0.3 * up)),
        }
    }
}
pub(crate) fn truck(world: &mut World, rng: &mut Rng, pose: Pose) {
    let truck = Truck::new(rng);
    let Truck { half_width, half_length, cab, cab_top, top, .. } = truck;
    world.shadow(pose, [1.2 * half_width, 1.08 * half_length], top);
    let cargo_half = 0.5 * (cab - 0.15 + half_length);
    let middle = cab - 0.15 - cargo_half;
    let cargo = Solid::cuboid(half_width, [0.0, top], cargo_half);
    world.solid(train_id::TRUCK, pose.ahead(middle), cargo, move |hit| {
        let [x, y, z] = hit.at;
        match hit.face {
            0 | 1 if y < truck.bed => truck.frame(z + middle, y),
            0 | 1 => truck.cargo_face(z, y, false),
            _ if y < truck.bed => truck.tail(x, y),
            _ => truck.cargo_face(x, y, true),
        }
    });
    let cab_half = 0.5 * (half_length - cab);
    let middle = 0.5 * (half_length + cab);
    let mut solid = Solid::cuboid(half_width, [0.0, cab_top], cab_half);
    let windshield = Plane::slanted(2, 1.0, [cab_half, 0.5 * cab_top], [cab_half - 0.3, cab_top]);
    solid.planes.push(windshield);
    world.solid(train_id::TRUCK, pose.ahead(middle), solid, move |hit| {
        let [x, y, z] = hit.at;
        if hit.face < 2 { truck.cab_side(y, z + middle) } else { truck.cab_front(x, y) }
    });
}
