//! Who stands where: the plan of a street, drawn anew for every scene.

use super::barriers::{fence, wall};
use super::buildings::{house, skyline};
use super::cars::car;
use super::cycles::{Cycle, end_on, side_on};
use super::furniture::{pole, sign, traffic_light};
use super::heavy::{bus, tram, truck};
use super::noise::Dice;
use super::people::walker;
use super::plants::{Leaves, bush, hedge, tree};
use super::stage::Stage;
use super::street::{Ground, Street};
use crate::random::Stream;

/// Along the street, against it, and across it either way.
const AHEAD: [f32; 2] = [0.0, 1.0];
const BACK: [f32; 2] = [0.0, -1.0];
const ACROSS: [[f32; 2]; 2] = [[1.0, 0.0], [-1.0, 0.0]];

/// How a kind of street is built.
#[derive(Debug, Clone, Copy)]
struct District {
    storeys: [usize; 2],
    setback: [f32; 2],
    built: f32,
    trees: f32,
}

const DISTRICTS: [District; 4] = [
    District { storeys: [3, 6], setback: [0.0, 0.6], built: 0.95, trees: 0.3 },
    District { storeys: [1, 3], setback: [2.0, 8.0], built: 0.75, trees: 0.7 },
    District { storeys: [2, 9], setback: [0.0, 7.0], built: 0.6, trees: 0.6 },
    District { storeys: [1, 2], setback: [3.0, 16.0], built: 0.3, trees: 1.0 },
];

/// Fills the stage with everything that stands in a street.
pub(super) fn furnish(stage: &mut Stage, street: &Street, stream: Stream) {
    let mut dice = Dice::new(stream.child(0));
    let leaves = Leaves::new(&mut dice);
    let district = dice.pick(&[0, 0, 1, 1, 2, 2, 3]);
    skyline(stage, &mut dice);
    traffic(stage, street, &mut Dice::new(stream.child(1)));
    for side in [-1.0, 1.0] {
        let stream = stream.child(if side < 0.0 { 2 } else { 3 });
        let roadside = Roadside { street, side, leaves, district: DISTRICTS[district] };
        roadside.row(stage, &mut Dice::new(stream.child(0)));
        roadside.barriers(stage, &mut Dice::new(stream.child(1)));
        roadside.parked(stage, &mut Dice::new(stream.child(2)));
        roadside.masts(stage, &mut Dice::new(stream.child(3)));
        roadside.greens(stage, &mut Dice::new(stream.child(4)));
        roadside.walkers(stage, &mut Dice::new(stream.child(5)));
    }
    median(stage, street, leaves, &mut Dice::new(stream.child(4)));
    wayfarers(stage, street, &mut Dice::new(stream.child(5)));
}

/// Vehicles on the road and at the crossing.
fn traffic(stage: &mut Stage, street: &Street, dice: &mut Dice) {
    if let Some(track) = street.track
        && dice.chance(0.8)
    {
        let (carriages, z) = (1 + dice.below(3), dice.range(13.0, 42.0));
        let half = 5.4 * carriages as f32;
        if z - half > 4.0 && stage.claim(track, z, [1.7, half]) {
            tram(stage, dice, stage.stand(track, z, if track < 0.0 { BACK } else { AHEAD }), carriages);
        }
    }
    if let Some([near, far]) = street.crossing {
        crossing(stage, dice, near, far);
    }
    let lanes = [-0.75, -0.3, 0.3, 0.75];
    for _ in 0..2 + dice.below(7) {
        let share: f32 = dice.pick(&lanes);
        let x = share.signum() * street.median + share * (street.road_half - street.median);
        let z = 7.0 + 60.0 * dice.unit() * dice.unit();
        let turn = if x < 0.0 { BACK } else { AHEAD };
        let kind = dice.unit();
        let half = if kind < 0.62 { [1.1, 3.2] } else { [1.5, 7.2] };
        if z - half[1] < 4.5 || street.crosses(z, half[1]) || !stage.claim(x, z, half) {
            continue;
        }
        let stand = stage.stand(x, z, turn);
        match kind {
            _ if kind < 0.62 => car(stage, dice, stand),
            _ if kind < 0.83 => truck(stage, dice, stand),
            _ => bus(stage, dice, stand),
        }
    }
}

/// What drives across the view.
fn crossing(stage: &mut Stage, dice: &mut Dice, near: f32, far: f32) {
    let lane = 0.25 * (far - near);
    for _ in 0..dice.below(4) {
        let way = dice.below(2);
        let (x, z) = (dice.range(-11.0, 11.0), if way == 0 { near + lane } else { far - lane });
        let kind = dice.below(9);
        let half = if kind < 4 { [3.0, 1.2] } else { [6.4, 1.5] };
        if !stage.claim(x, z, half) {
            continue;
        }
        let stand = stage.stand(x, z, ACROSS[way]);
        match kind {
            0..4 => car(stage, dice, stand),
            4 | 5 => truck(stage, dice, stand),
            6 | 7 => bus(stage, dice, stand),
            _ => tram(stage, dice, stand, 1),
        }
    }
}

/// Riders on the road, people who cross it.
fn wayfarers(stage: &mut Stage, street: &Street, dice: &mut Dice) {
    for _ in 0..dice.pick(&[0, 0, 1, 1, 2, 3]) {
        let cycle = if dice.chance(0.5) { Cycle::Bicycle } else { Cycle::Motorcycle };
        let x = street.road_half * dice.pick(&[-0.85, -0.5, 0.4, 0.6, 0.86]);
        let z = dice.range(5.5, 20.0);
        if dice.chance(0.45) {
            if stage.claim(x, z, [1.1, 0.4]) {
                side_on(stage, dice, cycle, stage.stand(x, z, AHEAD), true);
            }
        } else if stage.claim(x, z, [0.5, 1.0]) {
            end_on(stage, dice, cycle, stage.stand(x, z, AHEAD), true);
        }
    }
    if dice.chance(0.4) {
        let before = dice.range(1.5, 3.5);
        let z = street.crossing.map_or_else(|| dice.range(8.0, 24.0), |[near, _]| near - before);
        for _ in 0..1 + dice.below(3) {
            let x = dice.range(-1.0, 1.0) * street.road_half;
            if stage.claim(x, z, [0.4, 0.4]) {
                walker(stage, dice, stage.stand(x, z, AHEAD));
            }
        }
    }
}

/// What grows and stands between the carriageways.
fn median(stage: &mut Stage, street: &Street, leaves: Leaves, dice: &mut Dice) {
    if street.median == 0.0 {
        return;
    }
    let kind = dice.below(4);
    let end = street.crossing.map_or(70.0, |[near, _]| near - 4.0);
    let line = line_along(stage, 0.0, [3.0, end]);
    match kind {
        0 => hedge(stage, dice, &line, leaves),
        1 => fence(stage, dice, &line, true),
        _ => {}
    }
    let mut z = dice.range(6.0, 14.0);
    while z < 90.0 {
        if !street.crosses(z, 4.0) {
            let stand = stage.stand(0.0, z, AHEAD);
            match kind {
                2 => tree(stage, dice, stand, leaves),
                3 => pole(stage, dice, stand, 8.0, 2.0),
                _ => {}
            }
        }
        z += dice.range(8.0, 14.0);
    }
}

/// The plan points of a line along the street.
fn line_along(stage: &Stage, x: f32, [from, to]: [f32; 2]) -> Vec<[f32; 2]> {
    let pieces = 1 + ((to - from).max(0.0) / 6.0) as usize;
    let step = (to - from).max(0.1) / pieces as f32;
    (0..=pieces).map(|piece| stage.camera.plan(x, from + piece as f32 * step)).collect()
}

struct Roadside<'a> {
    street: &'a Street,
    /// -1 left, 1 right.
    side: f32,
    leaves: Leaves,
    district: District,
}

impl Roadside<'_> {
    fn ground(&self) -> &super::street::Side {
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
    fn row(&self, stage: &mut Stage, dice: &mut Dice) {
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
    fn barriers(&self, stage: &mut Stage, dice: &mut Dice) {
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
    fn parked(&self, stage: &mut Stage, dice: &mut Dice) {
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
    fn masts(&self, stage: &mut Stage, dice: &mut Dice) {
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
    fn greens(&self, stage: &mut Stage, dice: &mut Dice) {
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

    fn walkers(&self, stage: &mut Stage, dice: &mut Dice) {
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
