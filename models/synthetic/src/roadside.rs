//! What lines the road on one side: houses, barriers, parked vehicles, masts, trees and walkers.

use super::barriers::{fence, wall};
use super::buildings::house;
use super::cars::car;
use super::cycles::{Cycle, side_on};
use super::furniture::{pole, sign, traffic_light};
use super::noise::Dice;
use super::people::walker;
use super::plan::{AHEAD, BACK, line_along};
use super::plants::{Leaves, bush, hedge, tree};
use super::stage::Stage;
use super::street::{Ground, Side, Street};

/// How a kind of street is built.
#[derive(Debug, Clone, Copy)]
pub(super) struct District {
    storeys: [usize; 2],
    /// How far houses stand behind the front, in metres.
    setback: [f32; 2],
    /// The share of plots with a house.
    built: f32,
    /// How many trees line the road, 0 to 1.
    trees: f32,
}

pub(super) const DISTRICTS: [District; 4] = [
    District { storeys: [3, 6], setback: [0.0, 0.6], built: 0.95, trees: 0.3 },
    District { storeys: [1, 3], setback: [2.0, 8.0], built: 0.75, trees: 0.7 },
    District { storeys: [2, 9], setback: [0.0, 7.0], built: 0.6, trees: 0.6 },
    District { storeys: [1, 2], setback: [3.0, 16.0], built: 0.3, trees: 1.0 },
];

/// One side of the street, to be furnished.
pub(super) struct Roadside<'a> {
    pub(super) street: &'a Street,
    /// -1 left, 1 right.
    pub(super) side: f32,
    pub(super) leaves: Leaves,
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
    pub(super) fn row(&self, stage: &mut Stage, dice: &mut Dice) {
        let District { storeys, setback, built, .. } = self.district;
        let front = self.ground().front + dice.range(setback[0], setback[1]);
        let mut z = -8.0;
        while z < 150.0 {
            let half = [dice.range(4.5, 8.0), dice.range(4.0, 11.0)];
            let middle = z + half[1];
            z += 2.0 * half[1] + if dice.chance(0.25) { dice.range(0.5, 5.0) } else { 0.0 };
            if self.street.crosses(middle, half[1] + 2.0) {
                // The row goes on behind the crossing street.
                z = self.street.crossing.map_or(z, |[_, far]| z.min(far + 2.0).max(middle - half[1] + 1.0));
                continue;
            }
            if dice.chance(built) {
                let count = storeys[0] + dice.below(storeys[1] - storeys[0] + 1);
                let x = self.side * (front + half[0] + dice.range(0.0, 0.5));
                house(stage, dice, stage.stand(x, middle, AHEAD), half, count);
            }
        }
        if let Some([_, far]) = self.street.crossing {
            for plot in 0..3 {
                let half = [dice.range(6.0, 9.0), 6.0];
                let x = self.side * (front + 16.0 + 17.0 * plot as f32 + half[0]);
                let count = storeys[0] + dice.below(storeys[1] - storeys[0] + 1);
                house(stage, dice, stage.stand(x, far + 4.0 + half[1], AHEAD), half, count);
            }
        }
    }

    /// Walls, fences and hedges where plots meet the pavement, and railings at the kerb.
    pub(super) fn barriers(&self, stage: &mut Stage, dice: &mut Dice) {
        let front = self.side * (self.ground().front - 0.1);
        let mut z = dice.range(-4.0, 6.0);
        let often = if self.district.built > 0.9 { 0.22 } else { 0.75 };
        while z < 90.0 {
            let end = z + dice.range(7.0, 24.0);
            let line = line_along(stage, front, [z, end]);
            let crossed = self.street.crossing.is_some_and(|[near, far]| z < far + 2.0 && end > near - 2.0);
            if !crossed && dice.chance(often) {
                match dice.below(8) {
                    0..3 => wall(stage, dice, &line),
                    3..6 => fence(stage, dice, &line, false),
                    _ => hedge(stage, dice, &line, self.leaves),
                }
            }
            z = end + dice.range(0.0, 5.0);
        }
        if dice.chance(0.18) {
            let z = dice.range(3.0, 12.0);
            let end = self.street.crossing.map_or(z + 16.0, |[near, _]| (near - 5.0).max(z + 2.0));
            let line = line_along(stage, self.side * (self.street.road_half + 0.4), [z, end]);
            fence(stage, dice, &line, true);
        }
    }

    /// Vehicles that stand at the kerb, cycles on the pavement.
    pub(super) fn parked(&self, stage: &mut Stage, dice: &mut Dice) {
        let busy = dice.range(-0.3, 0.9);
        let mut z = dice.range(5.0, 12.0);
        while z < 75.0 {
            let x = self.side * (self.street.road_half - 1.0);
            if dice.chance(busy) && !self.street.crosses(z, 5.0) && stage.claim(x, z, [1.0, 2.4]) {
                let stand = stage.stand(x, z, if self.side < 0.0 { BACK } else { AHEAD });
                car(stage, dice, stand);
            }
            z += dice.range(5.2, 6.5);
        }
        let Some([inner, outer]) = self.strip(Ground::Pavement) else { return };
        for _ in 0..dice.pick(&[0, 0, 1, 2, 3]) {
            let cycle = if dice.chance(0.5) { Cycle::Bicycle } else { Cycle::Motorcycle };
            let mut z = dice.range(5.0, 18.0);
            let across = dice.chance(0.5);
            let x = self.side * if dice.chance(0.5) { inner + 0.7 } else { outer - 0.7 };
            for _ in 0..1 + dice.below(3) {
                let turn = if across { [dice.range(-0.5, 0.5), 1.0] } else { [1.0, dice.range(-0.35, 0.35)] };
                let length = (turn[0] * turn[0] + turn[1] * turn[1]).sqrt();
                if !self.street.crosses(z, 1.0) && stage.claim(x, z, [0.5, 0.4]) {
                    let stand = stage.stand(x, z, turn.map(|part| part / length));
                    side_on(stage, dice, cycle, stand, false);
                }
                z += 0.9;
            }
        }
    }

    /// Lamps, signs and traffic lights near the kerb.
    pub(super) fn masts(&self, stage: &mut Stage, dice: &mut Dice) {
        let x = self.side * (self.street.road_half + 0.6);
        let (height, arm) =
            (dice.range(5.0, 9.0), if dice.chance(0.6) { -self.side * dice.range(0.8, 2.4) } else { 0.0 });
        let mut z = dice.range(6.0, 14.0);
        let gap = dice.range(9.0, 22.0);
        while z < 110.0 {
            if !self.street.crosses(z, 0.4) && stage.claim(x, z, [0.2, 0.2]) {
                pole(stage, dice, stage.stand(x, z, AHEAD), height, arm);
            }
            z += gap;
        }
        for _ in 0..dice.pick(&[0, 1, 2, 2, 3]) {
            let z = dice.range(6.0, 24.0);
            let beside = self.side * dice.range(0.0, 0.5);
            if !self.street.crosses(z, 0.4) && stage.claim(x, z, [0.3, 0.3]) {
                sign(stage, dice, stage.stand(x + beside, z, AHEAD));
            }
        }
        let lights = if self.street.crossing.is_some() { 0.85 } else { 0.35 };
        if dice.chance(lights) {
            let far = self.street.crossing.map_or_else(|| dice.range(9.0, 22.0), |[near, _]| near - 0.8);
            for z in [far, dice.range(7.5, 14.0)] {
                if !self.street.crosses(z, 0.4) && stage.claim(x, z, [0.3, 0.3]) {
                    traffic_light(stage, dice, stage.stand(x, z, AHEAD), -self.side);
                }
            }
        }
    }

    /// Trees and bushes on strips of earth and behind the front.
    pub(super) fn greens(&self, stage: &mut Stage, dice: &mut Dice) {
        let District { trees, built, .. } = self.district;
        let front = self.ground().front;
        let row =
            self.strip(Ground::Terrain).map_or(self.street.road_half + 1.3, |[inner, outer]| 0.5 * (inner + outer));
        let lined = dice.chance(0.35 + 0.4 * trees);
        let gap = dice.range(7.0, 13.0);
        let mut z = dice.range(7.0, 16.0);
        while z < 120.0 {
            let x = self.side * row;
            if lined && !self.street.crosses(z, 2.5) && dice.chance(0.75) && stage.claim(x, z, [0.4, 0.4]) {
                tree(stage, dice, stage.stand(x, z, AHEAD), self.leaves);
            }
            z += gap * dice.range(0.8, 1.3);
        }
        for _ in 0..((1.0 - built) * 26.0) as usize {
            let (x, z) = (self.side * (front + dice.range(1.2, 22.0)), dice.range(6.0, 110.0));
            if self.street.crosses(z, 2.0) || !stage.claim(x, z, [0.6, 0.6]) {
                continue;
            }
            let stand = stage.stand(x, z, AHEAD);
            if dice.chance(0.6) { tree(stage, dice, stand, self.leaves) } else { bush(stage, dice, stand, self.leaves) }
        }
    }

    pub(super) fn walkers(&self, stage: &mut Stage, dice: &mut Dice) {
        let Some([inner, outer]) = self.strip(Ground::Pavement) else { return };
        for _ in 0..dice.below(7) {
            let x = self.side * dice.range(inner + 0.4, (outer - 0.3).max(inner + 0.5));
            let z = 5.5 + 24.0 * dice.unit() * dice.unit();
            if stage.claim(x, z, [0.25, 0.25]) {
                walker(stage, dice, stage.stand(x, z, AHEAD));
            }
        }
    }
}
