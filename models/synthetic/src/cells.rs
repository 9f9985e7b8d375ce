//! Cells under several kinds of microscope: one class of very different looks.
//!
//! A look is drawn for each image, some of them seldom, and varies in color, contrast, texture and
//! focus. Few labeled images do not show all looks, which is what unlabeled ones are for.

use protoseg_models::random::Stream;

use crate::Scene;
use crate::noise::{Rgb, Rng, lerp, mix, scale, smoothstep, value_noise};
use crate::sensor::{blur, sensor_noise};

/// Names and colors of the classes; ids in labels are positions.
pub const CELL_CLASSES: [(&str, [u8; 3]); 2] = [("background", [0, 0, 0]), ("cell", [230, 60, 80])];

/// Side in pixels of an image of which cells have the given sizes.
const REFERENCE_SIDE: f32 = 128.0;
/// Softness of a cell's edge, as a share of its radius.
const EDGE: f32 = 0.12;

/// One kind of microscope and stain.
struct Look {
    ground: Rgb,
    cell: Rgb,
    /// Amplitude of the texture of ground and cells.
    ground_texture: f32,
    cell_texture: f32,
    /// Length of the ground's texture, as a share of a cell.
    grain: f32,
    /// Darkening of a cell's rim, negative for a bright one.
    rim: f32,
    /// Spread of brightness from cell to cell.
    spread: f32,
    /// Brightness of specks that are no cells.
    specks: f32,
    blur: f32,
    noise: f32,
}

impl Look {
    fn new(rng: &mut Rng) -> Self {
        let kind = rng.unit();
        let contrast = rng.range(0.75, 1.2);
        let mut look = if kind < 0.4 {
            // Fluorescence: bright on black, each cell as bright as its dye.
            let tint = rng.choose(&[[0.9, 0.9, 0.9], [0.35, 0.5, 1.0], [0.3, 1.0, 0.4]]);
            Self {
                ground: scale(tint, rng.range(0.02, 0.1)),
                cell: scale(tint, rng.range(0.3, 0.85)),
                ground_texture: 0.03,
                cell_texture: 0.12,
                grain: 2.0,
                rim: 0.1,
                spread: 0.6,
                specks: 0.25,
                blur: rng.range(0.05, 0.28),
                noise: rng.range(0.01, 0.05),
            }
        } else if kind < 0.62 {
            // Stained tissue: violet on pink fibers.
            Self {
                ground: [0.88, 0.68, 0.8],
                cell: [0.46, 0.3, 0.58],
                ground_texture: 0.3,
                cell_texture: 0.2,
                grain: 0.8,
                rim: 0.15,
                spread: 0.25,
                specks: -0.3,
                blur: rng.range(0.02, 0.2),
                noise: 0.02,
            }
        } else if kind < 0.78 {
            // Bright field: transparent, with a dark rim.
            Self {
                ground: scale([0.78, 0.77, 0.72], rng.range(0.75, 1.1)),
                cell: scale([0.72, 0.71, 0.66], rng.range(0.72, 1.05)),
                ground_texture: 0.06,
                cell_texture: 0.14,
                grain: 3.0,
                rim: 0.5,
                spread: 0.1,
                specks: -0.4,
                blur: rng.range(0.05, 0.2),
                noise: 0.025,
            }
        } else if kind < 0.9 {
            // Phase contrast: bright halo on gray, with texture.
            let gray = rng.range(0.35, 0.55);
            Self {
                ground: [gray; 3],
                cell: scale([1.0, 0.98, 0.92], gray * rng.range(0.75, 1.25)),
                ground_texture: 0.1,
                cell_texture: 0.45,
                grain: 1.2,
                rim: -0.6,
                spread: 0.2,
                specks: 0.2,
                blur: rng.range(0.02, 0.15),
                noise: 0.03,
            }
        } else {
            // A dense stain on white paper.
            Self {
                ground: scale([0.96, 0.95, 0.93], rng.range(0.85, 1.0)),
                cell: rng.choose(&[[0.2, 0.16, 0.3], [0.5, 0.3, 0.16], [0.15, 0.3, 0.36]]),
                ground_texture: 0.05,
                cell_texture: 0.25,
                grain: 1.5,
                rim: 0.0,
                spread: 0.3,
                specks: -0.35,
                blur: rng.range(0.02, 0.2),
                noise: 0.02,
            }
        };
        look.cell = rng.jitter_color(mix(look.ground, look.cell, contrast), 0.12);
        look.ground = rng.jitter_color(look.ground, 0.1);
        look
    }
}

/// A cell, or a speck that looks like none.
struct Blob {
    center: [f32; 2],
    /// Direction of the longer half-axis, of length 1.
    direction: [f32; 2],
    /// Half-axes.
    axes: [f32; 2],
    level: f32,
    key: u32,
}

impl Blob {
    fn new(rng: &mut Rng, [height, width]: [f32; 2], radius: f32, spread: f32) -> Self {
        let center = [rng.unit() * height, rng.unit() * width];
        let (down, right) = (rng.range(-1.0, 1.0), rng.range(0.05, 1.0));
        let length = (down * down + right * right).sqrt();
        let long = radius * rng.range(0.8, 1.25);
        Self {
            center,
            direction: [down / length, right / length],
            axes: [long, long * rng.range(0.6, 1.0)],
            level: 1.0 + spread * rng.range(-0.7, 0.5),
            key: rng.key(),
        }
    }

    /// Distance of a point from the center: 1 on the edge, which is not quite an ellipse.
    fn distance(&self, [row, column]: [f32; 2]) -> f32 {
        let [down, right] = [row - self.center[0], column - self.center[1]];
        let reach = 1.5 * self.axes[0];
        if down.abs() > reach || right.abs() > reach {
            return f32::INFINITY;
        }
        let along = (down * self.direction[0] + right * self.direction[1]) / self.axes[0];
        let across = (right * self.direction[0] - down * self.direction[1]) / self.axes[1];
        let dent = value_noise(1.4 * along, 1.4 * across, self.key);
        (along * along + across * across).sqrt() + 0.14 * dent
    }
}

/// Renders image `index` of the endless dataset `seed` of cells; same arguments, same bytes, on
/// every machine. Labels are 0 for background and 1 for cells, as in [`CELL_CLASSES`].
///
/// ```
/// let image = protoseg_synthetic::render_cells(7, 0, 64, 48);
/// assert_eq!(image.image.len(), 64 * 48 * 3);
/// assert!(image.labels.iter().all(|&label| label < 2));
/// ```
pub fn render_cells(seed: u64, index: u64, height: usize, width: usize) -> Scene {
    let stream = Stream::named("cells").child(seed).child(index);
    let look = Look::new(&mut Rng::new(stream.child(0)));
    let rng = &mut Rng::new(stream.child(1));
    let size = [height as f32, width as f32];
    let unit = size[0].min(size[1]) / REFERENCE_SIDE;
    let radius = unit * rng.range(5.0, 13.0);
    let share = rng.range(0.06, 0.35);
    let count = (share * size[0] * size[1] / (3.0 * radius * radius)) as usize + 1;
    let cells: Vec<Blob> = (0..count).map(|_| Blob::new(rng, size, radius, look.spread)).collect();
    let speck_radius = radius * rng.range(0.15, 0.4);
    let specks: Vec<Blob> = (0..rng.below(10))
        .map(|_| {
            let size_of_one = speck_radius * rng.range(0.5, 1.3);
            Blob::new(rng, size, size_of_one, 0.3)
        })
        .collect();
    let ground_key = rng.key();
    let lit = [rng.range(-0.15, 0.15), rng.range(-0.15, 0.15)];

    let mut labels = Vec::with_capacity(height * width);
    let mut colors = Vec::with_capacity(height * width);
    for row in 0..height {
        for column in 0..width {
            let place = [row as f32 + 0.5, column as f32 + 0.5];
            let nearest = cells
                .iter()
                .map(|cell| (cell.distance(place), cell))
                .min_by(|one, other| one.0.total_cmp(&other.0));
            let (distance, cell) = match nearest {
                Some((distance, cell)) => (distance, Some(cell)),
                None => (f32::INFINITY, None),
            };
            let grain = look.grain * radius;
            let texture = |length: f32, key: u32| {
                0.5 * value_noise(place[1] / length, place[0] / length, key)
            };
            let uneven = texture(grain, ground_key) + 0.5 * texture(0.3 * grain, ground_key ^ 1);
            let mut color = scale(look.ground, 1.0 + look.ground_texture * uneven);
            for speck in &specks {
                let cover = 1.0 - smoothstep(0.6, 1.3, speck.distance(place));
                color = color.map(|channel| channel + look.specks * speck.level * cover);
            }
            if let Some(cell) = cell {
                let inner = texture(0.35 * radius, cell.key);
                let rim = look.rim * smoothstep(0.65, 1.0, distance);
                let body = cell.level * (1.0 + look.cell_texture * inner) * (1.0 - 0.5 * rim);
                let cover = 1.0 - smoothstep(1.0 - EDGE, 1.0 + EDGE, distance);
                color = mix(color, scale(look.cell, body), cover);
            }
            let light = 1.0
                + lit[0] * (2.0 * place[0] / size[0] - 1.0)
                + lit[1] * (2.0 * place[1] / size[1] - 1.0);
            colors.push(scale(color, light));
            labels.push(u8::from(distance < 1.0));
        }
    }
    let image = expose(&colors, [height, width], &look, rng.key());
    Scene { height, width, image, labels }
}

/// Focus, noise, 8 bits.
fn expose(colors: &[Rgb], [height, width]: [usize; 2], look: &Look, key: u32) -> Vec<u8> {
    let at = |row: usize, column: usize| colors[row * width + column];
    let mut image = Vec::with_capacity(3 * height * width);
    for row in 0..height {
        let (above, below) = (row.saturating_sub(1), (row + 1).min(height - 1));
        let blurred =
            |column| blur(at(above, column), at(row, column), at(below, column), look.blur);
        for column in 0..width {
            let (left, right) = (column.saturating_sub(1), (column + 1).min(width - 1));
            let seen = blur(blurred(left), blurred(column), blurred(right), look.blur);
            for (channel, value) in seen.into_iter().enumerate() {
                let noise = sensor_noise(column, row, key.wrapping_add(channel as u32));
                let noisy = value + look.noise * noise * lerp(0.6, 1.2, value.clamp(0.0, 1.0));
                image.push((noisy.clamp(0.0, 1.0) * 255.0 + 0.5) as u8);
            }
        }
    }
    image
}
