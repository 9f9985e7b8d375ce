//! Buses and trams: long carriages with a band of windows.

use super::cars::{glass, wheel};
use super::noise::{Dice, Rgb, fract, lattice, mix, scale};
use super::shape::{Plane, Stand, Touch, cuboid};
use super::stage::Stage;
use super::train_id;

const RUBBER: Rgb = [0.05, 0.05, 0.05];

/// A long carriage with a band of windows: what buses and trams share.
#[derive(Debug, Clone, Copy)]
struct Coach {
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

impl Coach {
    fn part(&self, colour: Rgb) -> Option<Touch> {
        Some(Touch::new(self.label, colour))
    }

    fn pane_of(&self, up: f32, along: f32) -> Option<Touch> {
        let mut touch = glass(self.label, up, along, self.key);
        if lattice((along / self.pane + 60.0) as i32, 3, self.key) < 0.4 && up < 0.45 {
            touch.colour = scale(touch.colour, 0.6);
        }
        if self.evening > 0.3 {
            (touch.colour, touch.glow) = (mix(touch.colour, [0.92, 0.86, 0.66], 0.7), 0.6 * self.evening);
        }
        Some(touch)
    }

    fn side(&self, z: f32, y: f32, wheels: bool) -> Option<Touch> {
        if wheels {
            for axle in [-0.5, 0.56] {
                if let Some(touch) = wheel(self.label, z - axle * self.half_length, y, 0.5, [0.45, 0.45, 0.46]) {
                    return Some(touch);
                }
            }
        }
        if y < 0.3 {
            return if wheels || y < 0.12 { None } else { self.part([0.08, 0.08, 0.09]) };
        }
        let pane = fract(z / self.pane);
        let up = (y - self.sill) / (self.lintel - self.sill);
        let door = lattice((z / self.pane + 60.0) as i32, 1, self.key) < 0.22;
        let low = if door { 0.42 } else { self.sill };
        if y > low && y < self.lintel && pane > 0.06 {
            let split = door && (pane - 0.53).abs() < 0.04;
            return if split { self.part(scale(self.stripe, 0.6)) } else { self.pane_of(up.max(0.0), z) };
        }
        self.part(self.skin(y))
    }

    fn skin(&self, y: f32) -> Rgb {
        let band = y > self.sill - 0.32 && y < self.sill - 0.08;
        let colour = if band {
            self.stripe
        } else if y > self.sill {
            self.upper
        } else {
            self.paint
        };
        scale(colour, 0.78 + 0.24 * y / self.top)
    }

    fn end(&self, x: f32, y: f32, front: bool) -> Option<Touch> {
        let across = x.abs() / self.half_width;
        let tram = self.label == train_id::TRAIN;
        if y < 0.3 {
            let tyre = !tram && across > 0.62 && across < 0.96;
            return if tyre || (tram && y > 0.12) { self.part(RUBBER) } else { None };
        }
        if front && y > self.lintel + 0.08 && y < (self.top - 0.12).min(self.lintel + 0.5) && across < 0.62 {
            let cell = [(x * 14.0 + 99.0) as i32, (y * 16.0) as i32];
            let lit = if cell[0] % 4 == 0 { 0.0 } else { lattice(cell[0], cell[1], self.key) };
            let written = lit > 0.45 && across < 0.5;
            return Some(Touch {
                glow: 0.6,
                ..Touch::new(self.label, if written { [0.98, 0.72, 0.2] } else { [0.06; 3] })
            });
        }
        let low = if front || tram { self.sill - 0.25 } else { self.sill + 0.25 };
        let up = (y - low) / (self.lintel - low);
        if (0.0..1.0).contains(&up) && across < if tram { 0.84 } else { 0.92 } {
            return if tram && across < 0.02 { self.part([0.1; 3]) } else { self.pane_of(up, x) };
        }
        if across > 0.7 && y > 0.6 && y < 0.86 {
            let colour = if front { [0.97, 0.95, 0.88] } else { [0.8, 0.10, 0.08] };
            return Some(Touch { glow: 0.5, ..Touch::new(self.label, colour) });
        }
        if !tram && !front && across < 0.6 && y > 0.7 && y < 1.2 && fract(y / 0.1) < 0.4 {
            return self.part([0.12; 3]);
        }
        self.part(self.skin(y))
    }

    fn park(self, stage: &mut Stage, stand: Stand, blunt: [bool; 2]) {
        let tram = self.label == train_id::TRAIN;
        let mut planes = cuboid(self.half_width, 0.0, self.top, self.half_length);
        let lean = if tram { 0.9 } else { 0.18 };
        for (side, blunt) in [(1.0, blunt[1]), (-1.0, blunt[0])] {
            let lean = if blunt { 0.0 } else { lean };
            let high = [self.half_length - lean, self.top];
            planes.push(Plane::slanted(2, side, [self.half_length + 0.001, 0.9], high));
        }
        stage.shadow(stand, [1.2 * self.half_width, 1.05 * self.half_length], self.top);
        stage.solid(stand, planes, [self.half_width, self.top, self.half_length], move |spot| {
            let [x, y, z] = spot.at;
            match spot.face {
                0 | 1 => self.side(z, y, !tram),
                2 | 6 => self.end(x, y, true),
                3 | 7 => self.end(x, y, false),
                _ => self.part(scale(self.upper, 0.8)),
            }
        });
    }
}

pub(super) fn bus(stage: &mut Stage, dice: &mut Dice, stand: Stand) {
    let coach = Coach {
        label: train_id::BUS,
        half_width: dice.range(1.2, 1.28),
        half_length: dice.range(4.8, 6.2),
        top: dice.pick(&[3.0, 3.2, 3.2, 4.2]),
        sill: dice.range(1.15, 1.4),
        lintel: dice.range(2.35, 2.55),
        pane: dice.range(1.3, 1.8),
        paint: dice.paint(),
        stripe: dice.paint(),
        upper: dice.paint(),
        evening: stage.light.evening,
        key: dice.key(),
    };
    let coach = Coach { upper: if dice.chance(0.7) { coach.paint } else { coach.upper }, ..coach };
    coach.park(stage, stand, [false, false]);
}

/// A tram of a few carriages, with the wire's bow on its roof.
pub(super) fn tram(stage: &mut Stage, dice: &mut Dice, stand: Stand, carriages: usize) {
    let half_length = dice.range(4.2, 5.2);
    let (paint, stripe) = (dice.paint(), dice.paint());
    let coach = Coach {
        label: train_id::TRAIN,
        half_width: dice.range(1.15, 1.3),
        half_length,
        top: dice.range(3.3, 3.6),
        sill: dice.range(1.0, 1.25),
        lintel: dice.range(2.5, 2.75),
        pane: dice.range(1.0, 1.5),
        paint,
        stripe,
        upper: if dice.chance(0.6) { [0.84, 0.84, 0.82] } else { paint },
        evening: stage.light.evening,
        key: dice.key(),
    };
    let step = 2.0 * half_length + 0.35;
    for carriage in 0..carriages {
        let stand = stand.ahead((carriage as f32 - 0.5 * (carriages - 1) as f32) * step);
        coach.park(stage, stand, [carriage > 0, carriage + 1 < carriages]);
        if carriage + 1 < carriages {
            let joint = stand.ahead(0.5 * step);
            let top = coach.top - 0.2;
            let planes = cuboid(coach.half_width - 0.12, 0.25, top, 0.2);
            stage.solid(joint, planes, [coach.half_width, top, 0.2], |spot| {
                let fold = if fract(spot.at[2] / 0.1) < 0.5 { 0.06 } else { 0.14 };
                Some(Touch::new(train_id::TRAIN, [fold; 3]))
            });
        }
    }
    let (low, high) = (coach.top, coach.top + 1.1);
    stage.board(stand.place, 0.9, [low, high], move |spot| {
        let (x, y) = (spot.at[0].abs(), (spot.at[1] - low) / (high - low));
        let bow = y > 0.94 || (x - 0.5 * (1.0 - (2.0 * y - 1.0).abs())).abs() < 0.05;
        bow.then(|| Touch::new(train_id::TRAIN, [0.2, 0.2, 0.21]))
    });
}
