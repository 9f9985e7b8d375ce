//! Who stands where: the plan of a street, drawn anew for every scene.

use super::barriers::fence;
use super::buildings::skyline;
use super::cars::car;
use super::coaches::{bus, tram};
use super::cycles::{Cycle, end_on, side_on};
use super::furniture::pole;
use super::noise::Dice;
use super::people::walker;
use super::plants::{Leaves, hedge, tree};
use super::roadside::{DISTRICTS, Roadside};
use super::stage::Stage;
use super::street::Street;
use super::trucks::truck;
use protoseg_models::random::Stream;

/// Along the street, against it, and across it either way.
pub(super) const AHEAD: [f32; 2] = [0.0, 1.0];
pub(super) const BACK: [f32; 2] = [0.0, -1.0];
const ACROSS: [[f32; 2]; 2] = [[1.0, 0.0], [-1.0, 0.0]];

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
pub(super) fn line_along(stage: &Stage, x: f32, [from, to]: [f32; 2]) -> Vec<[f32; 2]> {
    let pieces = 1 + ((to - from).max(0.0) / 6.0) as usize;
    let step = (to - from).max(0.1) / pieces as f32;
    (0..=pieces).map(|piece| stage.camera.plan(x, from + piece as f32 * step)).collect()
}
