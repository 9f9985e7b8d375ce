//! Photometric strong view of a crop (UniMatch's `dataset/semi.py`): color jitter, grayscale, blur.
//!
//! Colors equal those of torchvision's `ColorJitter` and `RandomGrayscale` on Pillow images to the last bit.

use protoseg_models::random::Stream;

use crate::config::Config;

/// Strengths of the color changes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ColorRanges {
    /// Brightness factors lie in [1 - this, 1 + this).
    pub brightness: f64,
    pub contrast: f64,
    pub saturation: f64,
    /// Rotations of the hue lie in [-this, this) of a turn.
    pub hue: f64,
    /// Probability of a gray image.
    pub grayscale: f64,
    /// Probability of a Gaussian blur.
    pub blur: f64,
}

impl Default for ColorRanges {
    /// Those of the configuration's defaults, which are UniMatch's.
    fn default() -> Self {
        Self::from_config(&Config::default())
    }
}

impl ColorRanges {
    pub fn from_config(config: &Config) -> Self {
        let Config { brightness, contrast, saturation, hue, grayscale, blur, .. } = *config;
        Self { brightness, contrast, saturation, hue, grayscale, blur }
    }
}

/// Parameters of a strong view.
#[derive(Debug, Clone, PartialEq)]
pub struct PhotometricView {
    /// Operations of the color jitter in their order; empty without jitter.
    jitter: Vec<ColorOperation>,
    gray: bool,
    /// Standard deviation in pixels; None without blur.
    blur: Option<f64>,
}

/// An operation of the color jitter.
#[derive(Debug, Clone, Copy, PartialEq)]
enum ColorOperation {
    /// Blends with black.
    Brightness(f32),
    /// Blends with the mean gray of the image.
    Contrast(f32),
    /// Blends with the gray of the pixel.
    Saturation(f32),
    /// Rotates the hue by 255ths of a turn.
    Hue(i8),
}

impl PhotometricView {
    /// Draws a view: with probability 0.8 a color jitter in random order, then grayscale, then a Gaussian blur with a standard
    /// deviation in [0.1, 2) pixels.
    pub fn sample(stream: Stream, ranges: ColorRanges) -> Self {
        let factor = |index, range: f64| stream.range(index, 1.0 - range, 1.0 + range) as f32;
        let operations = [
            ColorOperation::Brightness(factor(1, ranges.brightness)),
            ColorOperation::Contrast(factor(2, ranges.contrast)),
            ColorOperation::Saturation(factor(3, ranges.saturation)),
            ColorOperation::Hue((stream.range(4, -ranges.hue, ranges.hue) * 255.0) as i8),
        ];
        let order = if stream.unit(0) < 0.8 {
            stream.child(0).permutation(operations.len())
        } else {
            Vec::new()
        };
        let jitter = order.into_iter().map(|place| operations[place]).collect();
        let blur = (stream.unit(6) < ranges.blur).then(|| stream.range(7, 0.1, 2.0));
        Self { jitter, gray: stream.unit(5) < ranges.grayscale, blur }
    }

    /// Changes pixels RGB `[height, width, 3]` in place; a slice of any other length is left unchanged.
    ///
    /// Differs from Pillow in two ways: a hue rotated by less than 1/255 of a turn is not rounded, and the blur is a true
    /// Gaussian, which Pillow approximates by three box blurs.
    pub fn apply(&self, pixels: &mut [u8], [height, width]: [usize; 2]) {
        let values = height.checked_mul(width).and_then(|count| count.checked_mul(3));
        if pixels.is_empty() || values != Some(pixels.len()) {
            return;
        }
        let (colors, _) = pixels.as_chunks_mut();
        for operation in &self.jitter {
            operation.apply(colors);
        }
        if self.gray {
            change(colors, |color| [gray(color); 3]);
        }
        if let Some(sigma) = self.blur {
            blur(pixels, width, sigma);
        }
    }
}

impl ColorOperation {
    /// Changes the colors of a non-empty image.
    fn apply(self, colors: &mut [[u8; 3]]) {
        match self {
            Self::Brightness(factor) => {
                change(colors, |color| color.map(|value| blend(0, value, factor)));
            }
            Self::Contrast(factor) => {
                let sum: u64 = colors.iter().map(|color| u64::from(gray(*color))).sum();
                let mean = (sum as f64 / colors.len() as f64 + 0.5) as u8;
                change(colors, |color| color.map(|value| blend(mean, value, factor)));
            }
            Self::Saturation(factor) => {
                change(colors, |color| color.map(|value| blend(gray(color), value, factor)));
            }
            // Pillow would round every color through 8-bit HSV.
            Self::Hue(0) => {}
            Self::Hue(steps) => change(colors, |color| rotate_hue(color, steps)),
        }
    }
}

fn change(colors: &mut [[u8; 3]], to: impl Fn([u8; 3]) -> [u8; 3]) {
    for color in colors {
        *color = to(*color);
    }
}

/// ITU-R 601 luma in Pillow's fixed point.
fn gray([red, green, blue]: [u8; 3]) -> u8 {
    ((u32::from(red) * 19595 + u32::from(green) * 38470 + u32::from(blue) * 7471 + 0x8000) >> 16)
        as u8
}

/// Interpolates from one value to another, or extrapolates for a factor above 1; truncated to [0, 255].
fn blend(from: u8, to: u8, factor: f32) -> u8 {
    let (from, to) = (f32::from(from), f32::from(to));
    (from + factor * (to - from)) as u8
}

/// Rotates the hue by `steps` of 255. The mixture of f32 and f64 is Pillow's: any other rounds some colors differently.
fn rotate_hue(color: [u8; 3], steps: i8) -> [u8; 3] {
    let [red, green, blue] = color;
    let highest = red.max(green).max(blue);
    let lowest = red.min(green).min(blue);
    let range = f32::from(highest - lowest);
    let saturation = (f64::from(range / f32::from(highest)) * 255.0) as u8;
    // Covers black, where the division is 0 / 0.
    if saturation == 0 {
        return [highest; 3];
    }
    // Hue in sixths of a turn, from the gaps of the channels below the highest.
    let gaps = color.map(|value| f64::from(f32::from(highest - value) / range));
    let channel = if red == highest { 0 } else { 1 + usize::from(green < highest) };
    let sixths = (2.0 * channel as f64 + gaps[(channel + 2) % 3] - gaps[(channel + 1) % 3]) as f32;
    let turn = f64::from(sixths) / 6.0 + 1.0;
    let hue = (f64::from((if turn < 1.0 { turn } else { turn - 1.0 }) as f32) * 255.0) as u8;
    let hue = hue.wrapping_add_signed(steps);

    let place = f64::from(hue) * 6.0 / 255.0;
    let share = f64::from((place - place.floor()) as f32);
    let saturation = f64::from((f64::from(saturation) / 255.0) as f32);
    let at = |fall: f64| (f64::from(highest) * (1.0 - fall) + 0.5) as u8;
    let low = at(saturation);
    let falling = at(saturation * share);
    let rising = at(saturation * (1.0 - share));
    match place as u8 {
        1 => [falling, highest, low],
        2 => [low, highest, rising],
        3 => [low, falling, highest],
        4 => [rising, low, highest],
        5 => [highest, low, falling],
        _ => [highest, rising, low],
    }
}

/// Convolves rows of `width` pixels with a Gaussian truncated at three standard deviations, vertically and then
/// horizontally; border pixels are replicated.
fn blur(pixels: &mut [u8], width: usize, sigma: f64) {
    let radius = (3.0 * sigma).ceil() as usize;
    let bell = |tap: usize| (-0.5 * ((tap as f64 - radius as f64) / sigma).powi(2)).exp();
    let sum: f64 = (0..=2 * radius).map(bell).sum();
    let weights: Vec<f32> = (0..=2 * radius).map(|tap| (bell(tap) / sum) as f32).collect();
    let length = 3 * width;
    let margin = 3 * radius;
    let source = pixels.to_vec();
    let last = source.len() / length - 1;
    let mut padded = vec![0.0; length + 2 * margin];
    let mut sums = vec![0.0; length];
    for (y, row) in pixels.chunks_exact_mut(length).enumerate() {
        let middle = &mut padded[margin..margin + length];
        middle.fill(0.0);
        for (tap, weight) in weights.iter().enumerate() {
            let from = (y + tap).saturating_sub(radius).min(last);
            for (sum, &value) in middle.iter_mut().zip(&source[from * length..][..length]) {
                *sum += weight * f32::from(value);
            }
        }
        for pixel in 0..radius {
            padded.copy_within(margin..margin + 3, 3 * pixel);
            padded.copy_within(margin + length - 3..margin + length, margin + length + 3 * pixel);
        }
        sums.fill(0.0);
        for (tap, weight) in weights.iter().enumerate() {
            for (sum, value) in sums.iter_mut().zip(&padded[3 * tap..]) {
                *sum += weight * value;
            }
        }
        for (value, sum) in row.iter_mut().zip(&sums) {
            *value = (sum + 0.5) as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ColorOperation::{Brightness, Contrast, Hue, Saturation};
    use super::*;

    const IMAGE: [u8; 15] = [200, 30, 40, 17, 180, 90, 12, 60, 250, 128, 128, 128, 255, 240, 7];

    fn changed(jitter: &[ColorOperation], gray: bool) -> [u8; 15] {
        let mut pixels = IMAGE;
        PhotometricView { jitter: jitter.to_vec(), gray, blur: None }.apply(&mut pixels, [1, 5]);
        pixels
    }

    #[test]
    fn colors_change_as_pillow_13_changes_them() {
        for (operation, expected) in [
            (
                Brightness(1.37),
                [255, 41, 54, 23, 246, 123, 16, 82, 255, 175, 175, 175, 255, 255, 9],
            ),
            (Contrast(0.63), [171, 64, 70, 56, 158, 102, 53, 83, 203, 126, 126, 126, 206, 196, 49]),
            (Contrast(1.37), [228, 0, 9, 0, 201, 77, 0, 36, 255, 129, 129, 129, 255, 255, 0]),
            (Saturation(1.37), [243, 10, 24, 0, 201, 78, 0, 57, 255, 128, 128, 128, 255, 248, 0]),
            (Hue(-51), [154, 31, 200, 140, 180, 18, 13, 250, 152, 128, 128, 128, 255, 7, 71]),
            (Hue(28), [200, 126, 31, 18, 163, 180, 119, 13, 250, 128, 128, 128, 112, 255, 7]),
        ] {
            assert_eq!(changed(&[operation], false), expected, "{operation:?}");
        }
        let all = [Hue(28), Contrast(1.37), Saturation(0.63), Brightness(1.37)];
        let expected = [187, 187, 187, 170, 170, 170, 86, 86, 86, 173, 173, 173, 214, 214, 214];
        assert_eq!(changed(&all, true), expected);
        assert_eq!(
            changed(&[Brightness(1.0), Contrast(1.0), Saturation(1.0), Hue(0)], false),
            IMAGE
        );
    }

    #[test]
    fn a_blur_is_the_two_dimensional_gaussian() {
        let (height, width) = (9, 7);
        let stream = Stream::keyed(&[5]);
        let pixels: Vec<u8> =
            (0..height * width * 3).map(|index| stream.below(index as u64, 256) as u8).collect();
        for sigma in [0.1, 0.5, 1.3, 2.0] {
            let mut blurred = pixels.clone();
            PhotometricView { jitter: Vec::new(), gray: false, blur: Some(sigma) }
                .apply(&mut blurred, [height, width]);
            let radius = (3.0 * sigma).ceil() as isize;
            let side = 2 * radius + 1;
            for (index, &found) in blurred.iter().enumerate() {
                let (mut sum, mut weights) = (0.0, 0.0);
                for (down, across) in
                    (0..side * side).map(|tap| (tap / side - radius, tap % side - radius))
                {
                    let weight =
                        (-((down * down + across * across) as f64) / (2.0 * sigma * sigma)).exp();
                    let row = (index / 3 / width).saturating_add_signed(down).min(height - 1);
                    let column = (index / 3 % width).saturating_add_signed(across).min(width - 1);
                    sum += weight * f64::from(pixels[(row * width + column) * 3 + index % 3]);
                    weights += weight;
                }
                // Half a level of rounding and the error of f32 sums.
                assert!((f64::from(found) - sum / weights).abs() < 0.5001, "{sigma} {index}");
            }
        }
    }

    #[test]
    fn samples_have_the_probabilities_and_ranges_of_unimatch() {
        let draws: Vec<_> = (0..4000)
            .map(|index| {
                PhotometricView::sample(Stream::keyed(&[2, index]), ColorRanges::default())
            })
            .collect();
        assert_eq!(
            draws[7],
            PhotometricView::sample(Stream::keyed(&[2, 7]), ColorRanges::default())
        );
        let orders = draws
            .iter()
            .map(|draw| draw.jitter.iter().map(std::mem::discriminant).collect::<Vec<_>>());
        // All orders of four operations, and none.
        assert_eq!(orders.collect::<std::collections::HashSet<_>>().len(), 24 + 1);
        let jitter = |parameter: fn(&ColorOperation) -> Option<f32>| -> Vec<f64> {
            draws
                .iter()
                .flat_map(|draw| draw.jitter.iter().filter_map(parameter))
                .map(f64::from)
                .collect()
        };
        for (mut drawn, chance, low, high) in [
            (
                jitter(|drawn| if let Brightness(factor) = drawn { Some(*factor) } else { None }),
                0.8,
                0.5,
                1.5,
            ),
            (
                jitter(|drawn| if let Contrast(factor) = drawn { Some(*factor) } else { None }),
                0.8,
                0.5,
                1.5,
            ),
            (
                jitter(|drawn| if let Saturation(factor) = drawn { Some(*factor) } else { None }),
                0.8,
                0.5,
                1.5,
            ),
            (
                jitter(|drawn| if let Hue(steps) = drawn { Some((*steps).into()) } else { None }),
                0.8,
                -63.0,
                63.0,
            ),
            (draws.iter().filter_map(|draw| draw.blur).collect(), 0.5, 0.1, 2.0),
            (draws.iter().filter_map(|draw| draw.gray.then_some(0.0)).collect(), 0.2, 0.0, 0.0),
        ] {
            let count = drawn.len();
            assert!((count as f64 / 4000.0 - chance).abs() < 0.03, "{count}");
            drawn.sort_by(f64::total_cmp);
            assert!(low <= drawn[0] && drawn[count - 1] <= high);
            for (quantile, expected) in
                [(0, low), (count / 2, (low + high) / 2.0), (count - 1, high)]
            {
                assert!(
                    (drawn[quantile] - expected).abs() <= (high - low) * 0.05,
                    "{quantile} {expected}"
                );
            }
        }
    }

    #[test]
    fn ranges_of_zero_change_no_color() {
        let none = ColorRanges {
            brightness: 0.0,
            contrast: 0.0,
            saturation: 0.0,
            hue: 0.0,
            grayscale: 0.0,
            blur: 0.0,
        };
        for index in 0..50 {
            let mut pixels = IMAGE;
            PhotometricView::sample(Stream::keyed(&[3, index]), none).apply(&mut pixels, [1, 5]);
            assert_eq!(pixels, IMAGE);
        }
    }

    #[test]
    fn an_empty_crop_or_one_of_another_size_is_unchanged() {
        let all = PhotometricView { jitter: vec![Contrast(1.5)], gray: true, blur: Some(2.0) };
        for (length, shape) in
            [(0, [0, 0]), (0, [0, 5]), (0, [3, 2]), (14, [1, 5]), (6, [usize::MAX, 2])]
        {
            let mut pixels = IMAGE[..length].to_vec();
            all.apply(&mut pixels, shape);
            assert_eq!(pixels, IMAGE[..length], "{shape:?}");
        }
    }
}
