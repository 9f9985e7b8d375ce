//! Bicubic resizing of tables, as PyTorch's `interpolate(mode="bicubic")` and ONNX's `Resize` with
//! half-pixel centers do: coefficient -0.75, no antialiasing, edges repeated.

const A: f64 = -0.75;

/// Resizes a table `[rows, columns, channels]` to a height and width.
pub(crate) fn resize(
    table: &[f32],
    [rows, columns, channels]: [usize; 3],
    [height, width]: [usize; 2],
) -> Vec<f32> {
    let (down, across) = (taps(rows, height), taps(columns, width));
    let mut resized = Vec::with_capacity(height * width * channels);
    for row in &down {
        for column in &across {
            for channel in 0..channels {
                let mut sum = 0.0;
                for &(y, vertical) in row {
                    for &(x, horizontal) in column {
                        let value = table[(y * columns + x) * channels + channel];
                        sum += vertical * horizontal * f64::from(value);
                    }
                }
                resized.push(sum as f32);
            }
        }
    }
    resized
}

/// Returns the four source positions of every target position with their shares.
fn taps(from: usize, to: usize) -> Vec<[(usize, f64); 4]> {
    let near = |x: f64| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let far = |x: f64| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    let target = |index: usize| {
        let center = (index as f64 + 0.5) * from as f64 / to as f64 - 0.5;
        let before = center.floor();
        let rest = center - before;
        let shares = [far(rest + 1.0), near(rest), near(1.0 - rest), far(2.0 - rest)];
        std::array::from_fn(|tap| {
            let position = before as i64 + tap as i64 - 1;
            (position.clamp(0, from as i64 - 1) as usize, shares[tap])
        })
    };
    (0..to).map(target).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_equal_size_changes_nothing_and_shares_sum_to_one() {
        let table: Vec<f32> = (0..24).map(|index| (index * index % 17) as f32).collect();
        assert_eq!(resize(&table, [3, 4, 2], [3, 4]), table);
        for (from, to) in [(37, 7), (37, 9), (3, 50), (1, 4)] {
            for shares in taps(from, to) {
                let sum: f64 = shares.iter().map(|(_, share)| share).sum();
                assert!((sum - 1.0).abs() < 1e-12, "{from} {to}: {sum}");
            }
        }
    }
}
