//! Who stands where: the plan of a street, drawn anew for every scene.

use super::barriers::fence;
use super::buildings::skyline;
use super::cars::car;
use super::furniture::pole;
use super::noise::Rng;
use super::people::pedestrian;
use super::plants::{FoliageColors, hedge, tree};
use super::roadside::{DISTRICTS, Roadside};
use super::street::Street;
use super::transit::{bus, tram};
use super::trucks::truck;
use super::two_wheelers::{TwoWheeler, end_on, side_on};
use super::world::World;
use protoseg_models::random::Stream;

/// Along the street, against it, and across it either way.
pub(super) const AHEAD: [f32; 2] = [0.0, 1.0];
pub(super) const BACK: [f32; 2] = [0.0, -1.0];
const ACROSS: [[f32; 2]; 2] = [[1.0, 0.0], [-1.0, 0.0]];

/// Fills the world with everything that stands in a street.
pub(super) fn populate(world: &mut World, street: &Street, stream: Stream) {
    let mut rng = Rng::new(stream.child(0));
    let leaves = FoliageColors::new(&mut rng);
    let district = rng.choose(&[0, 0, 1, 1, 2, 2, 3]);
    skyline(world, &mut rng);
    traffic(world, street, &mut Rng::new(stream.child(1)));
    for side in [-1.0, 1.0] {
        let stream = stream.child(if side < 0.0 { 2 } else { 3 });
        let roadside = Roadside { street, side, leaves, district: DISTRICTS[district] };
        roadside.buildings(world, &mut Rng::new(stream.child(0)));
        roadside.barriers(world, &mut Rng::new(stream.child(1)));
        roadside.parked(world, &mut Rng::new(stream.child(2)));
        roadside.poles(world, &mut Rng::new(stream.child(3)));
        roadside.plants(world, &mut Rng::new(stream.child(4)));
        roadside.pedestrians(world, &mut Rng::new(stream.child(5)));
    }
    median(world, street, leaves, &mut Rng::new(stream.child(4)));
    road_users(world, street, &mut Rng::new(stream.child(5)));
}

/// Vehicles on the road and at the crossing.
fn traffic(world: &mut World, street: &Street, rng: &mut Rng) {
    if let Some(track) = street.track
        && rng.chance(0.8)
    {
        let (carriages, z) = (1 + rng.below(3), rng.range(13.0, 42.0));
        let half = 5.4 * carriages as f32;
        if z - half > 4.0 && world.reserve(track, z, [1.7, half]) {
            tram(
                world,
                rng,
                world.pose(track, z, if track < 0.0 { BACK } else { AHEAD }),
                carriages,
            );
        }
    }
    if let Some([near, far]) = street.crossing {
        crossing(world, rng, near, far);
    }
    let lanes = [-0.75, -0.3, 0.3, 0.75];
    for _ in 0..2 + rng.below(7) {
        let share: f32 = rng.choose(&lanes);
        let x = share.signum() * street.median + share * (street.road_half - street.median);
        let z = 7.0 + 60.0 * rng.unit() * rng.unit();
        let turn = if x < 0.0 { BACK } else { AHEAD };
        let kind = rng.unit();
        let half = if kind < 0.62 { [1.1, 3.2] } else { [1.5, 7.2] };
        if z - half[1] < 4.5 || street.crosses(z, half[1]) || !world.reserve(x, z, half) {
            continue;
        }
        let stand = world.pose(x, z, turn);
        match kind {
            _ if kind < 0.62 => car(world, rng, stand),
            _ if kind < 0.83 => truck(world, rng, stand),
            _ => bus(world, rng, stand),
        }
    }
}

/// What drives across the view.
fn crossing(world: &mut World, rng: &mut Rng, near: f32, far: f32) {
    let lane = 0.25 * (far - near);
    for _ in 0..rng.below(4) {
        let way = rng.below(2);
        let (x, z) = (rng.range(-11.0, 11.0), if way == 0 { near + lane } else { far - lane });
        let kind = rng.below(9);
        let half = if kind < 4 { [3.0, 1.2] } else { [6.4, 1.5] };
        if !world.reserve(x, z, half) {
            continue;
        }
        let stand = world.pose(x, z, ACROSS[way]);
        match kind {
            0..4 => car(world, rng, stand),
            4 | 5 => truck(world, rng, stand),
            6 | 7 => bus(world, rng, stand),
            _ => tram(world, rng, stand, 1),
        }
    }
}

/// Riders on the road, people who cross it.
fn road_users(world: &mut World, street: &Street, rng: &mut Rng) {
    for _ in 0..rng.choose(&[0, 0, 1, 1, 2, 3]) {
        let cycle = if rng.chance(0.5) { TwoWheeler::Bicycle } else { TwoWheeler::Motorcycle };
        let x = street.road_half * rng.choose(&[-0.85, -0.5, 0.4, 0.6, 0.86]);
        let z = rng.range(5.5, 20.0);
        if rng.chance(0.45) {
            if world.reserve(x, z, [1.1, 0.4]) {
                side_on(world, rng, cycle, world.pose(x, z, AHEAD), true);
            }
        } else if world.reserve(x, z, [0.5, 1.0]) {
            end_on(world, rng, cycle, world.pose(x, z, AHEAD), true);
        }
    }
    if rng.chance(0.4) {
        let before = rng.range(1.5, 3.5);
        let z = street.crossing.map_or_else(|| rng.range(8.0, 24.0), |[near, _]| near - before);
        for _ in 0..1 + rng.below(3) {
            let x = rng.range(-1.0, 1.0) * street.road_half;
            if world.reserve(x, z, [0.4, 0.4]) {
                pedestrian(world, rng, world.pose(x, z, AHEAD));
            }
        }
    }
}

/// What grows and stands between the carriageways.
fn median(world: &mut World, street: &Street, leaves: FoliageColors, rng: &mut Rng) {
    if street.median == 0.0 {
        return;
    }
    let kind = rng.below(4);
    let end = street.crossing.map_or(70.0, |[near, _]| near - 4.0);
    let line = line_along(world, 0.0, [3.0, end]);
    match kind {
        0 => hedge(world, rng, &line, leaves),
        1 => fence(world, rng, &line, true),
        _ => {}
    }
    let mut z = rng.range(6.0, 14.0);
    while z < 90.0 {
        if !street.crosses(z, 4.0) {
            let stand = world.pose(0.0, z, AHEAD);
            match kind {
                2 => tree(world, rng, stand, leaves),
                3 => pole(world, rng, stand, 8.0, 2.0),
                _ => {}
            }
        }
        z += rng.range(8.0, 14.0);
    }
}

/// The plan points of a line along the street.
pub(super) fn line_along(world: &World, x: f32, [from, to]: [f32; 2]) -> Vec<[f32; 2]> {
    let pieces = 1 + ((to - from).max(0.0) / 6.0) as usize;
    let step = (to - from).max(0.1) / pieces as f32;
    (0..=pieces).map(|piece| world.camera.plan(x, from + piece as f32 * step)).collect()
}
