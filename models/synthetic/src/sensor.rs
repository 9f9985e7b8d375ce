//! From light to bytes: the own car's bonnet, lens and sensor.

use super::canvas::Canvas;
use super::light::Light;
use super::noise::{Rgb, Rng, lattice_hash, mix, scale, smoothstep, value_noise};
use super::train_id;

/// In some scenes the bonnet of the camera's own car rises from the lower edge; it counts for nothing.
pub(super) fn draw_hood(canvas: &mut Canvas, rng: &mut Rng, light: &Light) {
    if !rng.chance(0.3) {
        return;
    }
    let (middle, half, rise) = (rng.range(0.85, 1.15), rng.range(0.9, 1.5), rng.range(0.04, 0.11));
    let (paint, key) = (rng.paint_color(), rng.key());
    let lit = light.on([0.0, 1.0, 0.0]);
    for row in 0..canvas.height {
        let v = canvas.v(row);
        for column in 0..canvas.width {
            let across = (canvas.u(column) - middle) / half;
            let up = (v - (1.0 - rise * (1.0 - across * across))) / rise;
            if up < 0.0 || across.abs() > 1.0 {
                continue;
            }
            let mirrored = 0.5 - 0.4 * smoothstep(0.0, 1.0, up)
                + 0.15 * value_noise(3.0 * across, 4.0 * up, key);
            let color: Rgb = std::array::from_fn(|channel| paint[channel] * lit[channel]);
            let pixel = row * canvas.width + column;
            canvas.color[pixel] = mix(color, light.haze, mirrored.clamp(0.0, 1.0));
            canvas.labels[pixel] = train_id::IGNORE_INDEX;
        }
    }
}

/// Exposure, blur, vignette, noise, 8 bits.
pub(super) fn expose(canvas: &Canvas, light: &Light, key: u32) -> Vec<u8> {
    let (height, width) = (canvas.height, canvas.width);
    let mut image = Vec::with_capacity(height * width * 3);
    let mut rows: Vec<Rgb> = vec![[0.0; 3]; width];
    for row in 0..height {
        let line = |row: usize| &canvas.color[row * width..(row + 1) * width];
        let (above, here, below) =
            (line(row.saturating_sub(1)), line(row), line((row + 1).min(height - 1)));
        for column in 0..width {
            rows[column] = blurred(above[column], here[column], below[column], light.blur);
        }
        let y = 2.0 * canvas.v(row) - 1.0;
        for column in 0..width {
            let (left, right) = (rows[column.saturating_sub(1)], rows[(column + 1).min(width - 1)]);
            let color = blurred(left, rows[column], right, light.blur);
            let x = canvas.u(column) - 1.0;
            let vignette = 1.0 - 0.09 * (x * x + y * y);
            for (channel, seen) in scale(color, vignette).into_iter().enumerate() {
                let speck = speckle(column, row, key.wrapping_add(channel as u32));
                let value = rolled_off(seen * light.gain[channel]);
                let noisy = value + light.noise * speck * (0.5 + value);
                image.push((noisy * 255.0 + 0.5) as u8);
            }
        }
    }
    image
}

fn blurred(before: Rgb, here: Rgb, after: Rgb, weight: f32) -> Rgb {
    std::array::from_fn(|channel| {
        weight * (before[channel] + after[channel]) + (1.0 - 2.0 * weight) * here[channel]
    })
}

/// A sensor's answer: straight in the shadows, bent towards white.
fn rolled_off(value: f32) -> f32 {
    if value < 0.7 { value } else { 0.7 + 0.3 * (value - 0.7) / (0.3 + value - 0.7) * 1.25 }
}

/// Noise of variance 1 that is nearly normal: two uniform draws in one word.
fn speckle(column: usize, row: usize, key: u32) -> f32 {
    let draw = lattice_hash(column as i32, row as i32, key);
    let coarse = (draw * 4096.0) as i32 as f32 / 4096.0;
    let fine = draw * 4096.0 - (draw * 4096.0) as i32 as f32;
    (coarse + fine - 1.0) * 2.449_49
}
