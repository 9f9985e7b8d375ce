//! Layout of a street: traffic, crossings, the median, and the two roadsides.

use protoseg_models::random::Stream;

use crate::barriers::{fence, wall};
use crate::buildings::{building, skyline};
use crate::furniture::{pole, sign, traffic_light};
use crate::noise::Rng;
use crate::people::{TwoWheeler, pedestrian, two_wheeler};
use crate::plants::{FoliageColors, bush, hedge, tree};
use crate::street::{Ground, Side, Street};
use crate::transit::{bus, tram};
use crate::vehicles::{car, truck};
use crate::world::{ACROSS, AHEAD, BACK, Pose, World};

/// Fills the world with everything that stands in a street.
pub(crate) fn populate(world: &mut World, street: &Street, stream: Stream) {
    let mut rng = Rng::new(stream.child(0));
    let leaves = FoliageColors::new(&mut rng);
    let district = DISTRICTS[rng.choose(&[0, 0, 1, 1, 2, 2, 3])];
    skyline(world, &mut rng);
    traffic(world, street, &mut Rng::new(stream.child(1)));
    for side in [-1.0, 1.0] {
        let stream = stream.child(if side < 0.0 { 2 } else { 3 });
        let roadside = Roadside { street, side, leaves, district };
        roadside.buildings(world, &mut Rng::new(stream.child(0)));
        roadside.barriers(world, &mut Rng::new(stream.child(1)));
        roadside.parking(world, &mut Rng::new(stream.child(2)));
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
        let carriages = 1 + rng.below(3);
        let z = rng.range(13.0, 42.0);
        let half = 5.4 * carriages as f32;
        let turn = if track < 0.0 { BACK } else { AHEAD };
        if z - half > 4.0
            && let Some(pose) = world.place(track, z, [1.7, half], turn)
        {
            tram(world, rng, pose, carriages);
        }
    }
    if let Some([near, far]) = street.crossing {
        crossing_traffic(world, rng, near, far);
    }
    let lanes = [-0.75, -0.3, 0.3, 0.75];
    for _ in 0..2 + rng.below(7) {
        let share: f32 = rng.choose(&lanes);
        let x = share.signum() * street.median + share * (street.road_half - street.median);
        let z = 7.0 + 60.0 * rng.unit() * rng.unit();
        let turn = if x < 0.0 { BACK } else { AHEAD };
        let kind = rng.unit();
        let half = if kind < 0.62 { [1.1, 3.2] } else { [1.5, 7.2] };
        if z - half[1] < 4.5 || street.crosses(z, half[1]) {
            continue;
        }
        let Some(pose) = world.place(x, z, half, turn) else { continue };
        match kind {
            _ if kind < 0.62 => car(world, rng, pose),
            _ if kind < 0.83 => truck(world, rng, pose),
            _ => bus(world, rng, pose),
        }
    }
}

fn crossing_traffic(world: &mut World, rng: &mut Rng, near: f32, far: f32) {
    let lane = 0.25 * (far - near);
    for _ in 0..rng.below(4) {
        let way = rng.below(2);
        let x = rng.range(-11.0, 11.0);
        let z = if way == 0 { near + lane } else { far - lane };
        let kind = rng.below(9);
        let half = if kind < 4 { [3.0, 1.2] } else { [6.4, 1.5] };
        let Some(pose) = world.place(x, z, half, ACROSS[way]) else { continue };
        match kind {
            0..4 => car(world, rng, pose),
            4 | 5 => truck(world, rng, pose),
            6 | 7 => bus(world, rng, pose),
            _ => tram(world, rng, pose, 1),
        }
    }
}

/// Riders on the road, and pedestrians who cross it.
fn road_users(world: &mut World, street: &Street, rng: &mut Rng) {
    for _ in 0..rng.choose(&[0, 0, 1, 1, 2, 3]) {
        let kind = if rng.chance(0.5) { TwoWheeler::Bicycle } else { TwoWheeler::Motorcycle };
        let x = street.road_half * rng.choose(&[-0.85, -0.5, 0.4, 0.6, 0.86]);
        let z = rng.range(5.5, 20.0);
        let end_on = !rng.chance(0.45);
        let half = if end_on { [0.5, 1.0] } else { [1.1, 0.4] };
        if let Some(pose) = world.place(x, z, half, AHEAD) {
            two_wheeler(world, rng, kind, pose, end_on, true);
        }
    }
    if rng.chance(0.4) {
        let before = rng.range(1.5, 3.5);
        let z = street.crossing.map_or_else(|| rng.range(8.0, 24.0), |[near, _]| near - before);
        for _ in 0..1 + rng.below(3) {
            let x = rng.range(-1.0, 1.0) * street.road_half;
            if let Some(pose) = world.place(x, z, [0.4, 0.4], AHEAD) {
                pedestrian(world, rng, pose);
            }
        }
    }
}

/// Plants, fences and poles between the carriageways.
fn median(world: &mut World, street: &Street, leaves: FoliageColors, rng: &mut Rng) {
    if street.median == 0.0 {
        return;
    }
    let kind = rng.below(4);
    let end = street.crossing.map_or(70.0, |[near, _]| near - 4.0);
    let line = world.line(0.0, [3.0, end]);
    match kind {
        0 => hedge(world, rng, &line, leaves),
        1 => fence(world, rng, &line, true),
        _ => {}
    }
    let mut z = rng.range(6.0, 14.0);
    while z < 90.0 {
        if !street.crosses(z, 4.0) {
            let pose = world.pose(0.0, z, AHEAD);
            match kind {
                2 => tree(world, rng, pose, leaves),
                3 => pole(world, rng, pose, 8.0, 2.0),
                _ => {}
            }
        }
        z += rng.range(8.0, 14.0);
    }
}

/// Density of a neighborhood.
#[derive(Debug, Clone, Copy)]
struct District {
    floors: [usize; 2],
    /// Distance of houses from the front, in meters.
    setback: [f32; 2],
    /// Share of plots with a house.
    built: f32,
    /// Density of trees along the road, 0 to 1.
    trees: f32,
}

/// Center, suburb, estates, outskirts.
const DISTRICTS: [District; 4] = [
    District { floors: [3, 6], setback: [0.0, 0.6], built: 0.95, trees: 0.3 },
    District { floors: [1, 3], setback: [2.0, 8.0], built: 0.75, trees: 0.7 },
    District { floors: [2, 9], setback: [0.0, 7.0], built: 0.6, trees: 0.6 },
    District { floors: [1, 2], setback: [3.0, 16.0], built: 0.3, trees: 1.0 },
];

impl District {
    fn floors(&self, rng: &mut Rng) -> usize {
        self.floors[0] + rng.below(self.floors[1] - self.floors[0] + 1)
    }
}

/// One side of the street.
struct Roadside<'a> {
    street: &'a Street,
    /// -1 left, 1 right.
    side: f32,
    leaves: FoliageColors,
    district: District,
}

impl Roadside<'_> {
    fn ground(&self) -> &Side {
        &self.street.sides[usize::from(self.side > 0.0)]
    }

    /// Claims a rectangle of the street that keeps a margin to the crossing.
    fn place(
        &self,
        world: &mut World,
        [x, z]: [f32; 2],
        half: [f32; 2],
        margin: f32,
        turn: [f32; 2],
    ) -> Option<Pose> {
        if self.street.crosses(z, margin) { None } else { world.place(x, z, half, turn) }
    }

    /// Inner and outer edge of the strip of a ground, if there is one of finite width.
    fn strip(&self, ground: Ground) -> Option<[f32; 2]> {
        let strips = &self.ground().strips;
        let at = strips.iter().position(|strip| strip.1 == ground && strip.0 < f32::MAX)?;
        let inner = if at == 0 { self.street.road_half } else { strips[at - 1].0 };
        Some([inner, strips[at].0])
    }

    /// The row of houses, with gaps.
    fn buildings(&self, world: &mut World, rng: &mut Rng) {
        let District { setback, built, .. } = self.district;
        let front = self.ground().front + rng.range(setback[0], setback[1]);
        let mut z = -8.0;
        while z < 150.0 {
            let half = [rng.range(4.5, 8.0), rng.range(4.0, 11.0)];
            let middle = z + half[1];
            z += 2.0 * half[1] + if rng.chance(0.25) { rng.range(0.5, 5.0) } else { 0.0 };
            if self.street.crosses(middle, half[1] + 2.0) {
                // The row goes on behind the crossing street.
                if let Some([_, far]) = self.street.crossing {
                    z = z.min(far + 2.0).max(middle - half[1] + 1.0);
                }
            } else if rng.chance(built) {
                let floors = self.district.floors(rng);
                let x = self.side * (front + half[0] + rng.range(0.0, 0.5));
                building(world, rng, world.pose(x, middle, AHEAD), half, floors);
            }
        }
        if let Some([_, far]) = self.street.crossing {
            for plot in 0..3 {
                let half = [rng.range(6.0, 9.0), 6.0];
                let x = self.side * (front + 16.0 + 17.0 * plot as f32 + half[0]);
                let floors = self.district.floors(rng);
                building(world, rng, world.pose(x, far + 4.0 + half[1], AHEAD), half, floors);
            }
        }
    }

    /// Walls, fences and hedges where plots meet the sidewalk, and railings at the curb.
    fn barriers(&self, world: &mut World, rng: &mut Rng) {
        let front = self.side * (self.ground().front - 0.1);
        let mut z = rng.range(-4.0, 6.0);
        let density = if self.district.built > 0.9 { 0.22 } else { 0.75 };
        while z < 90.0 {
            let end = z + rng.range(7.0, 24.0);
            let line = world.line(front, [z, end]);
            let crossing = self.street.crossing;
            let crossed = crossing.is_some_and(|[near, far]| z < far + 2.0 && end > near - 2.0);
            if !crossed && rng.chance(density) {
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
            let line = world.line(self.side * (self.street.road_half + 0.4), [z, end]);
            fence(world, rng, &line, true);
        }
    }

    /// Cars at the curb, two-wheelers on the sidewalk.
    fn parking(&self, world: &mut World, rng: &mut Rng) {
        let busy = rng.range(-0.3, 0.9);
        let turn = if self.side < 0.0 { BACK } else { AHEAD };
        let mut z = rng.range(5.0, 12.0);
        while z < 75.0 {
            let x = self.side * (self.street.road_half - 1.0);
            if rng.chance(busy)
                && let Some(pose) = self.place(world, [x, z], [1.0, 2.4], 5.0, turn)
            {
                car(world, rng, pose);
            }
            z += rng.range(5.2, 6.5);
        }
        let Some([inner, outer]) = self.strip(Ground::Sidewalk) else { return };
        for _ in 0..rng.choose(&[0, 0, 1, 2, 3]) {
            let kind = if rng.chance(0.5) { TwoWheeler::Bicycle } else { TwoWheeler::Motorcycle };
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
                let turn = turn.map(|part| part / length);
                if let Some(pose) = self.place(world, [x, z], [0.5, 0.4], 1.0, turn) {
                    two_wheeler(world, rng, kind, pose, false, false);
                }
                z += 0.9;
            }
        }
    }

    /// Street lamps, signs and traffic lights near the curb.
    fn poles(&self, world: &mut World, rng: &mut Rng) {
        let x = self.side * (self.street.road_half + 0.6);
        let height = rng.range(5.0, 9.0);
        let arm = if rng.chance(0.6) { -self.side * rng.range(0.8, 2.4) } else { 0.0 };
        let mut z = rng.range(6.0, 14.0);
        let gap = rng.range(9.0, 22.0);
        while z < 110.0 {
            if let Some(pose) = self.place(world, [x, z], [0.2, 0.2], 0.4, AHEAD) {
                pole(world, rng, pose, height, arm);
            }
            z += gap;
        }
        for _ in 0..rng.choose(&[0, 1, 2, 2, 3]) {
            let z = rng.range(6.0, 24.0);
            let beside = self.side * rng.range(0.0, 0.5);
            if self.place(world, [x, z], [0.3, 0.3], 0.4, AHEAD).is_some() {
                sign(world, rng, world.pose(x + beside, z, AHEAD));
            }
        }
        let lights = if self.street.crossing.is_some() { 0.85 } else { 0.35 };
        if rng.chance(lights) {
            let crossing = self.street.crossing;
            let far = crossing.map_or_else(|| rng.range(9.0, 22.0), |[near, _]| near - 0.8);
            for z in [far, rng.range(7.5, 14.0)] {
                if let Some(pose) = self.place(world, [x, z], [0.3, 0.3], 0.4, AHEAD) {
                    traffic_light(world, rng, pose, -self.side);
                }
            }
        }
    }

    /// Trees and bushes on strips of earth and behind the front.
    fn plants(&self, world: &mut World, rng: &mut Rng) {
        let District { trees, built, .. } = self.district;
        let front = self.ground().front;
        let row = match self.strip(Ground::Terrain) {
            Some([inner, outer]) => 0.5 * (inner + outer),
            None => self.street.road_half + 1.3,
        };
        let lined = rng.chance(0.35 + 0.4 * trees);
        let gap = rng.range(7.0, 13.0);
        let mut z = rng.range(7.0, 16.0);
        while z < 120.0 {
            if lined
                && !self.street.crosses(z, 2.5)
                && rng.chance(0.75)
                && let Some(pose) = world.place(self.side * row, z, [0.4, 0.4], AHEAD)
            {
                tree(world, rng, pose, self.leaves);
            }
            z += gap * rng.range(0.8, 1.3);
        }
        for _ in 0..((1.0 - built) * 26.0) as usize {
            let x = self.side * (front + rng.range(1.2, 22.0));
            let z = rng.range(6.0, 110.0);
            if let Some(pose) = self.place(world, [x, z], [0.6, 0.6], 2.0, AHEAD) {
                let plant = if rng.chance(0.6) { tree } else { bush };
                plant(world, rng, pose, self.leaves);
            }
        }
    }

    fn pedestrians(&self, world: &mut World, rng: &mut Rng) {
        let Some([inner, outer]) = self.strip(Ground::Sidewalk) else { return };
        for _ in 0..rng.below(7) {
            let x = self.side * rng.range(inner + 0.4, (outer - 0.3).max(inner + 0.5));
            let z = 5.5 + 24.0 * rng.unit() * rng.unit();
            if let Some(pose) = world.place(x, z, [0.25, 0.25], AHEAD) {
                pedestrian(world, rng, pose);
            }
        }
    }
}
