//! What lines the road on one side: houses, barriers, parked vehicles, masts, trees and walkers.

use super::barriers::{fence, wall};
use super::buildings::building;
use super::cars::car;
use super::furniture::{pole, sign, traffic_light};
use super::layout::{AHEAD, BACK, line_along};
use super::noise::Rng;
use super::people::pedestrian;
use super::plants::{FoliageColors, bush, hedge, tree};
use super::street::{Ground, Side, Street};
use super::two_wheelers::{TwoWheeler, side_on};
use super::world::World;

/// How a kind of street is built.
#[derive(Debug, Clone, Copy)]
pub(super) struct District {
    floors: [usize; 2],
    /// How far houses stand behind the front, in metres.
    setback: [f32; 2],
    /// The share of plots with a house.
    built: f32,
    /// How many trees line the road, 0 to 1.
    trees: f32,
}

pub(super) const DISTRICTS: [District; 4] = [
    District { floors: [3, 6], setback: [0.0, 0.6], built: 0.95, trees: 0.3 },
    District { floors: [1, 3], setback: [2.0, 8.0], built: 0.75, trees: 0.7 },
    District { floors: [2, 9], setback: [0.0, 7.0], built: 0.6, trees: 0.6 },
    District { floors: [1, 2], setback: [3.0, 16.0], built: 0.3, trees: 1.0 },
];

/// One side of the street, to be furnished.
pub(super) struct Roadside<'a> {
    pub(super) street: &'a Street,
    /// -1 left, 1 right.
    pub(super) side: f32,
    pub(super) leaves: FoliageColors,
    pub(super) district: District,
}

impl Roadside<'_> {
    fn ground(&self) -> &Side {
        &self.street.sides[usize::from(self.side > 0.0)]
    }

    /// The middle of the strip of a ground, if there is one of finite width.
    fn strip(&self, ground: Ground) -> Option<[f32; 2]> {
        let strips = &self.ground().strips;
        let at = strips.iter().position(|strip| strip.1 == ground && strip.0 < f32::MAX)?;
        let inner = if at == 0 { self.street.road_half } else { strips[at - 1].0 };
        Some([inner, strips[at].0])
    }

    /// The row of houses, with gaps.
    pub(super) fn buildings(&self, world: &mut World, rng: &mut Rng) {
        let District { floors, setback, built, .. } = self.district;
        let front = self.ground().front + rng.range(setback[0], setback[1]);
        let mut z = -8.0;
        while z < 150.0 {
            let half = [rng.range(4.5, 8.0), rng.range(4.0, 11.0)];
            let middle = z + half[1];
            z += 2.0 * half[1] + if rng.chance(0.25) { rng.range(0.5, 5.0) } else { 0.0 };
            if self.street.crosses(middle, half[1] + 2.0) {
                // The row goes on behind the crossing street.
                z = self
                    .street
                    .crossing
                    .map_or(z, |[_, far]| z.min(far + 2.0).max(middle - half[1] + 1.0));
                continue;
            }
            if rng.chance(built) {
                let count = floors[0] + rng.below(floors[1] - floors[0] + 1);
                let x = self.side * (front + half[0] + rng.range(0.0, 0.5));
                building(world, rng, world.pose(x, middle, AHEAD), half, count);
            }
        }
        if let Some([_, far]) = self.street.crossing {
            for plot in 0..3 {
                let half = [rng.range(6.0, 9.0), 6.0];
                let x = self.side * (front + 16.0 + 17.0 * plot as f32 + half[0]);
                let count = floors[0] + rng.below(floors[1] - floors[0] + 1);
                building(world, rng, world.pose(x, far + 4.0 + half[1], AHEAD), half, count);
            }
        }
    }

    /// Walls, fences and hedges where plots meet the sidewalk, and railings at the curb.
    pub(super) fn barriers(&self, world: &mut World, rng: &mut Rng) {
        let front = self.side * (self.ground().front - 0.1);
        let mut z = rng.range(-4.0, 6.0);
        let often = if self.district.built > 0.9 { 0.22 } else { 0.75 };
        while z < 90.0 {
            let end = z + rng.range(7.0, 24.0);
            let line = line_along(world, front, [z, end]);
            let crossed =
                self.street.crossing.is_some_and(|[near, far]| z < far + 2.0 && end > near - 2.0);
            if !crossed && rng.chance(often) {
                match rng.below(8) {
                    0..3 => wall(world, rng, &line),
                    3..6 => fence(world, rng, &line, false),
                    _ => hedge(world, rng, &line, self.leaves),
                }
            }
            z = end + rng.range(0.0, 5.0);
        }
        if rng.chance(0.18) {
            let z = rng.range(3.0, 12.0);
            let end = self.street.crossing.map_or(z + 16.0, |[near, _]| (near - 5.0).max(z + 2.0));
            let line = line_along(world, self.side * (self.street.road_half + 0.4), [z, end]);
            fence(world, rng, &line, true);
        }
    }

    /// Vehicles that stand at the curb, cycles on the sidewalk.
    pub(super) fn parked(&self, world: &mut World, rng: &mut Rng) {
        let busy = rng.range(-0.3, 0.9);
        let mut z = rng.range(5.0, 12.0);
        while z < 75.0 {
            let x = self.side * (self.street.road_half - 1.0);
            if rng.chance(busy) && !self.street.crosses(z, 5.0) && world.reserve(x, z, [1.0, 2.4]) {
                let stand = world.pose(x, z, if self.side < 0.0 { BACK } else { AHEAD });
                car(world, rng, stand);
            }
            z += rng.range(5.2, 6.5);
        }
        let Some([inner, outer]) = self.strip(Ground::Sidewalk) else { return };
        for _ in 0..rng.choose(&[0, 0, 1, 2, 3]) {
            let cycle = if rng.chance(0.5) { TwoWheeler::Bicycle } else { TwoWheeler::Motorcycle };
            let mut z = rng.range(5.0, 18.0);
            let across = rng.chance(0.5);
            let x = self.side * if rng.chance(0.5) { inner + 0.7 } else { outer - 0.7 };
            for _ in 0..1 + rng.below(3) {
                let turn = if across {
                    [rng.range(-0.5, 0.5), 1.0]
                } else {
                    [1.0, rng.range(-0.35, 0.35)]
                };
                let length = (turn[0] * turn[0] + turn[1] * turn[1]).sqrt();
                if !self.street.crosses(z, 1.0) && world.reserve(x, z, [0.5, 0.4]) {
                    let stand = world.pose(x, z, turn.map(|part| part / length));
                    side_on(world, rng, cycle, stand, false);
                }
                z += 0.9;
            }
        }
    }

    /// Lamps, signs and traffic lights near the curb.
    pub(super) fn poles(&self, world: &mut World, rng: &mut Rng) {
        let x = self.side * (self.street.road_half + 0.6);
        let (height, arm) = (
            rng.range(5.0, 9.0),
            if rng.chance(0.6) { -self.side * rng.range(0.8, 2.4) } else { 0.0 },
        );
        let mut z = rng.range(6.0, 14.0);
        let gap = rng.range(9.0, 22.0);
        while z < 110.0 {
            if !self.street.crosses(z, 0.4) && world.reserve(x, z, [0.2, 0.2]) {
                pole(world, rng, world.pose(x, z, AHEAD), height, arm);
            }
            z += gap;
        }
        for _ in 0..rng.choose(&[0, 1, 2, 2, 3]) {
            let z = rng.range(6.0, 24.0);
            let beside = self.side * rng.range(0.0, 0.5);
            if !self.street.crosses(z, 0.4) && world.reserve(x, z, [0.3, 0.3]) {
                sign(world, rng, world.pose(x + beside, z, AHEAD));
            }
        }
        let lights = if self.street.crossing.is_some() { 0.85 } else { 0.35 };
        if rng.chance(lights) {
            let far =
                self.street.crossing.map_or_else(|| rng.range(9.0, 22.0), |[near, _]| near - 0.8);
            for z in [far, rng.range(7.5, 14.0)] {
                if !self.street.crosses(z, 0.4) && world.reserve(x, z, [0.3, 0.3]) {
                    traffic_light(world, rng, world.pose(x, z, AHEAD), -self.side);
                }
            }
        }
    }

    /// Trees and bushes on strips of earth and behind the front.
    pub(super) fn plants(&self, world: &mut World, rng: &mut Rng) {
        let District { trees, built, .. } = self.district;
        let front = self.ground().front;
        let row = self
            .strip(Ground::Terrain)
            .map_or(self.street.road_half + 1.3, |[inner, outer]| 0.5 * (inner + outer));
        let lined = rng.chance(0.35 + 0.4 * trees);
        let gap = rng.range(7.0, 13.0);
        let mut z = rng.range(7.0, 16.0);
        while z < 120.0 {
            let x = self.side * row;
            if lined
                && !self.street.crosses(z, 2.5)
                && rng.chance(0.75)
                && world.reserve(x, z, [0.4, 0.4])
            {
                tree(world, rng, world.pose(x, z, AHEAD), self.leaves);
            }
            z += gap * rng.range(0.8, 1.3);
        }
        for _ in 0..((1.0 - built) * 26.0) as usize {
            let (x, z) = (self.side * (front + rng.range(1.2, 22.0)), rng.range(6.0, 110.0));
            if self.street.crosses(z, 2.0) || !world.reserve(x, z, [0.6, 0.6]) {
                continue;
            }
            let stand = world.pose(x, z, AHEAD);
            if rng.chance(0.6) {
                tree(world, rng, stand, self.leaves)
            } else {
                bush(world, rng, stand, self.leaves)
            }
        }
    }

    pub(super) fn pedestrians(&self, world: &mut World, rng: &mut Rng) {
        let Some([inner, outer]) = self.strip(Ground::Sidewalk) else { return };
        for _ in 0..rng.below(7) {
            let x = self.side * rng.range(inner + 0.4, (outer - 0.3).max(inner + 0.5));
            let z = 5.5 + 24.0 * rng.unit() * rng.unit();
            if world.reserve(x, z, [0.25, 0.25]) {
                pedestrian(world, rng, world.pose(x, z, AHEAD));
            }
        }
    }
}
