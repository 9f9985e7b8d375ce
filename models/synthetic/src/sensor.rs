//! From light to bytes: the hood of the own car, lens and sensor.

use crate::canvas::Canvas;
use crate::light::Light;
use crate::noise::{Rgb, Rng, lattice_hash, mix, multiply, scale, smoothstep, value_noise};

/// Draws the hood of the camera's own car at the lower edge, in 30 % of the scenes.
pub(crate) fn draw_hood(canvas: &mut Canvas, label: u8, rng: &mut Rng, light: &Light) {
    if !rng.chance(0.3) {
        return;
    }
    let middle = rng.range(0.85, 1.15);
    let half = rng.range(0.9, 1.5);
    let rise = rng.range(0.04, 0.11);
    let paint = rng.paint_color();
    let key = rng.key();
    let color = multiply(paint, light.on([0.0, 1.0, 0.0]));
    for (pixel, [u, v]) in canvas.raster.all() {
        let across = (u - middle) / half;
        let up = (v - (1.0 - rise * (1.0 - across * across))) / rise;
        if up < 0.0 || across.abs() > 1.0 {
            continue;
        }
        let mirrored =
            0.5 - 0.4 * smoothstep(0.0, 1.0, up) + 0.15 * value_noise(3.0 * across, 4.0 * up, key);
        canvas.color[pixel] = mix(color, light.haze, mirrored.clamp(0.0, 1.0));
        canvas.labels[pixel] = label;
    }
}

/// Exposure, blur, vignette, noise, 8 bits.
pub(crate) fn expose(canvas: &Canvas, light: &Light, key: u32) -> Vec<u8> {
    let raster = canvas.raster;
    let (height, width) = (raster.height, raster.width);
    let mut image = Vec::with_capacity(height * width * 3);
    let mut blurred: Vec<Rgb> = vec![[0.0; 3]; width];
    for row in 0..height {
        let line = |row: usize| &canvas.color[row * width..(row + 1) * width];
        let (above, below) = (line(row.saturating_sub(1)), line((row + 1).min(height - 1)));
        for column in 0..width {
            blurred[column] = blur(above[column], line(row)[column], below[column], light.blur);
        }
        let y = 2.0 * raster.v(row) - 1.0;
        for column in 0..width {
            let (left, right) = (column.saturating_sub(1), (column + 1).min(width - 1));
            let color = blur(blurred[left], blurred[column], blurred[right], light.blur);
            let x = raster.u(column) - 1.0;
            let vignette = 1.0 - 0.09 * (x * x + y * y);
            for (channel, seen) in scale(color, vignette).into_iter().enumerate() {
                let noise = sensor_noise(column, row, key.wrapping_add(channel as u32));
                let value = response(seen * light.gain[channel]);
                let noisy = value + light.noise * noise * (0.5 + value);
                image.push((noisy * 255.0 + 0.5) as u8);
            }
        }
    }
    image
}

pub(crate) fn blur(before: Rgb, here: Rgb, after: Rgb, weight: f32) -> Rgb {
    std::array::from_fn(|channel| {
        weight * (before[channel] + after[channel]) + (1.0 - 2.0 * weight) * here[channel]
    })
}

/// Sensor response: linear in the shadows, rolled off towards white.
fn response(value: f32) -> f32 {
    if value < 0.7 { value } else { 0.7 + 0.3 * (value - 0.7) / (0.3 + value - 0.7) * 1.25 }
}

/// Nearly normal noise of variance 1: the sum of two uniform draws in one word.
pub(crate) fn sensor_noise(column: usize, row: usize, key: u32) -> f32 {
    let draw = lattice_hash(column as i32, row as i32, key);
    let coarse = (draw * 4096.0) as i32 as f32 / 4096.0;
    let fine = draw * 4096.0 - (draw * 4096.0) as i32 as f32;
    (coarse + fine - 1.0) * 2.449_49
}
