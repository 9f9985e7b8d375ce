//! Axes whose ticks stand at round numbers, and how numbers are written on the page.

/// Larger values are left out like infinities, so that sums of them stay finite.
const LARGEST: f64 = 1e100;
/// Where logarithmic axes begin that would begin at 0 or below.
const LEAST: f64 = 1e-99;
/// Between the digits of thousands: narrow, and no place to break a line.
const THOUSANDS: char = '\u{202f}';

/// Whether a value has a place on an axis.
pub fn is_plottable(value: &f64) -> bool {
    value.abs() <= LARGEST
}

/// An axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Scale {
    /// Where it begins.
    pub low: f64,
    /// Where it ends; greater than `low`.
    pub high: f64,
    /// Round numbers on it, in order.
    pub ticks: Vec<f64>,
    spacing: Spacing,
}

/// What lies between ticks.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Spacing {
    /// The same difference everywhere.
    Equal(f64),
    /// About the same factor everywhere.
    Logarithmic,
}

impl Scale {
    /// From a round number at or below `low` to one at or above `high`, with about `most` ticks between.
    pub fn around(low: f64, high: f64, most: usize) -> Self {
        // A single value gets room above and below; so do two that differ by less than the numbers' own precision.
        let room = if high - low > low.abs().max(high.abs()) * 1e-9 {
            0.0
        } else {
            (high.abs() * 0.1).max(1e-9)
        };
        let (low, high) = (low - room, high + room);
        let spacing = round_spacing((high - low) / most.max(1) as f64);
        let (first, last) = ((low / spacing + 1e-6).floor(), (high / spacing - 1e-6).ceil());
        let ticks = multiples(first, last, spacing);
        Self { low: first * spacing, high: last * spacing, ticks, spacing: Spacing::Equal(spacing) }
    }

    /// From a round number at or below `low` to one at or above `high`, both greater than 0; the same factor takes the same
    /// room. Ticks, about `most`, are 1, 2 and 5 or 1 and 3 times powers of ten, or powers of ten alone.
    pub fn logarithmic(low: f64, high: f64, most: usize) -> Self {
        let low = if low > 0.0 { low.clamp(LEAST, LARGEST) } else { LEAST };
        // At least a factor of two, so that the axis has a length.
        let high = high.min(LARGEST).max(low * 2.0);
        let (first, last, span) =
            (low.log10().floor() as i32, high.log10().ceil() as i32, (high / low).log10());
        let factors: &[f64] = match most as f64 / span {
            room if room >= 3.0 => &[1.0, 2.0, 5.0],
            room if room >= 2.0 => &[1.0, 3.0],
            _ => &[1.0],
        };
        let stride = (span / most.max(1) as f64).ceil().max(1.0) as usize;
        let powers = (first..=last + stride as i32).step_by(stride).map(|power| 10_f64.powi(power));
        let round: Vec<f64> =
            powers.flat_map(|power| factors.iter().map(move |factor| factor * power)).collect();
        let below = round.iter().rposition(|tick| *tick <= low * (1.0 + 1e-9)).unwrap_or(0);
        let above =
            round.iter().position(|tick| *tick >= high * (1.0 - 1e-9)).unwrap_or(round.len() - 1);
        let ticks = round[below..=above].to_vec();
        Self { low: round[below], high: round[above], ticks, spacing: Spacing::Logarithmic }
    }

    /// From 0 to 100 percent.
    pub fn percent(most: usize) -> Self {
        Self::around(0.0, 100.0, most)
    }

    /// From step 0 to the last one, which need not be round.
    pub fn steps(last: u64, most: usize) -> Self {
        let high = last.max(1) as f64;
        let spacing = round_spacing(high / most.max(1) as f64).max(1.0);
        let ticks = multiples(0.0, (high / spacing).floor(), spacing);
        Self { low: 0.0, high, ticks, spacing: Spacing::Equal(spacing) }
    }

    /// Whether the same factor takes the same room, rather than the same difference.
    pub fn is_logarithmic(&self) -> bool {
        self.spacing == Spacing::Logarithmic
    }

    /// The coordinate of a value: itself, or its power of ten where the axis is logarithmic.
    pub fn place(&self, value: f64) -> f64 {
        if self.is_logarithmic() { value.max(LEAST).log10() } else { value }
    }

    /// Where a value stands on the axis, in percent of its length.
    pub fn percent_along(&self, value: f64) -> f64 {
        let [low, high, value] = [self.low, self.high, value].map(|value| self.place(value));
        100.0 * (value - low) / (high - low)
    }

    /// A tick's text, with as many decimals as the ticks need.
    pub fn label(&self, tick: f64) -> String {
        let spacing = match self.spacing {
            Spacing::Equal(spacing) => spacing,
            Spacing::Logarithmic => tick,
        };
        let decimals = -spacing.log10().floor();
        if decimals > 6.0 || tick.abs() >= 1e9 {
            let digits =
                (tick.abs().max(spacing) / spacing).log10().floor().clamp(0.0, 6.0) as usize;
            return minus(&format!("{tick:.digits$e}"));
        }
        fixed(tick, decimals.max(0.0) as usize)
    }
}

/// The least of 1, 2 and 5 times a power of ten that is at least `raw`.
fn round_spacing(raw: f64) -> f64 {
    let power = 10_f64.powf(raw.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= raw * (1.0 - 1e-9));
    factor.unwrap_or(10.0) * power
}

fn multiples(first: f64, last: f64, spacing: f64) -> Vec<f64> {
    // Counted rather than added up: the count is small, whatever the numbers.
    let count = (last - first).clamp(0.0, 50.0) as usize;
    (0..=count).map(|index| (first + index as f64) * spacing).collect()
}

/// A number with so many decimals, its thousands set apart.
pub fn fixed(value: f64, decimals: usize) -> String {
    let text = format!("{:.decimals$}", value.abs());
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) && whole.len() > 4 {
            grouped.push(THOUSANDS);
        }
        grouped.push(digit);
    }
    // No minus before what is written as 0.
    let negative = value < 0.0 && text.contains(|digit: char| ('1'..='9').contains(&digit));
    format!("{}{grouped}{rest}", if negative { "\u{2212}" } else { "" })
}

/// A step or a count.
pub fn whole(value: u64) -> String {
    fixed(value as f64, 0)
}

/// A number of five digits for a path's data.
pub fn short(value: f64) -> String {
    let rounded: f64 = format!("{value:.4e}").parse().unwrap_or(value);
    let (plain, exponent) = (format!("{rounded}"), format!("{rounded:e}"));
    if exponent.len() < plain.len() { exponent } else { plain }
}

/// A span of time in its two largest units.
pub fn duration(seconds: f64) -> String {
    let minutes = (seconds / 60.0).round();
    if seconds < 60.0 {
        format!("{} s", fixed(seconds, 0))
    } else if minutes < 60.0 {
        format!("{} min", fixed(minutes, 0))
    } else {
        format!("{} h {} min", fixed((minutes / 60.0).floor(), 0), fixed(minutes % 60.0, 0))
    }
}

fn minus(text: &str) -> String {
    text.replacen('-', "\u{2212}", usize::from(text.starts_with('-')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(scale: &Scale) -> Vec<String> {
        scale.ticks.iter().map(|&tick| scale.label(tick)).collect()
    }

    #[test]
    fn ticks_are_round_numbers() {
        assert_eq!(labels(&Scale::around(0.0, 1.37, 4)), ["0.0", "0.5", "1.0", "1.5"]);
        assert_eq!(
            labels(&Scale::around(0.0, 0.02, 4)),
            ["0.000", "0.005", "0.010", "0.015", "0.020"]
        );
        assert_eq!(labels(&Scale::around(31.0, 48.2, 4)), ["30", "35", "40", "45", "50"]);
        assert_eq!(labels(&Scale::around(-0.3, 0.9, 3)), ["\u{2212}0.5", "0.0", "0.5", "1.0"]);
        assert_eq!(labels(&Scale::percent(2)), ["0", "50", "100"]);
        assert_eq!(labels(&Scale::steps(720, 4)), ["0", "200", "400", "600"]);
        assert_eq!(labels(&Scale::steps(100_000, 2)), ["0", "50\u{202f}000", "100\u{202f}000"]);
        assert_eq!(labels(&Scale::steps(0, 5)), ["0", "1"]);
        assert_eq!(labels(&Scale::around(0.0, 4e-9, 2)), ["0e0", "2e-9", "4e-9"]);
        assert_eq!(
            labels(&Scale::logarithmic(0.08, 30.0, 12)),
            ["0.05", "0.1", "0.2", "0.5", "1", "2", "5", "10", "20", "50"]
        );
        assert_eq!(labels(&Scale::logarithmic(35.0, 450.0, 5)), ["20", "50", "100", "200", "500"]);
    }

    #[test]
    fn any_range_gives_an_axis_that_holds_it() {
        let values = [0.0, 1.0, -1.0, 1e-300, 1e100, -1e100, 0.1 + 0.2, 12_345.678, 1e9 + 1.0];
        for low in values {
            for high in values.into_iter().filter(|&high| high >= low) {
                let scale = Scale::around(low, high, 4);
                assert!(
                    scale.low < scale.high && scale.high.is_finite(),
                    "{low} {high}: {scale:?}"
                );
                assert!((2..=8).contains(&scale.ticks.len()), "{low} {high}: {scale:?}");
                let slack = 1e-5 * (scale.high - scale.low);
                assert!(
                    scale.low <= low + slack && high <= scale.high + slack,
                    "{low} {high}: {scale:?}"
                );
                assert!(
                    labels(&scale).iter().all(|label| label.len() < 24),
                    "{:?}",
                    labels(&scale)
                );
            }
        }
        for (low, high) in [
            (0.0, 0.0),
            (3.0, 3.0),
            (40.0, 390.0),
            (0.001, 1e6),
            (1e-300, 1e300),
            (-1.0, 5.0),
            (1.0, 1.5),
        ] {
            let scale = Scale::logarithmic(low, high, 5);
            assert!(
                scale.low < scale.high && (2..=9).contains(&scale.ticks.len()),
                "{low} {high}: {scale:?}"
            );
            assert!(
                low <= 0.0 || low < LEAST || scale.low <= low * 1.001,
                "{low} {high}: {scale:?}"
            );
            assert!(high > LARGEST || high <= scale.high * 1.001, "{low} {high}: {scale:?}");
            let along: Vec<f64> =
                scale.ticks.iter().map(|&tick| scale.percent_along(tick)).collect();
            assert!(
                along.iter().all(|along| (-1e-6..100.0001).contains(along)) && along.is_sorted(),
                "{along:?}"
            );
        }
        for last in [0, 1, 7, 99_999, u64::MAX] {
            let scale = Scale::steps(last, 5);
            assert!((2..=6).contains(&scale.ticks.len()), "{scale:?}");
        }
    }

    #[test]
    fn numbers_are_short_and_read_well() {
        assert_eq!(
            [short(0.123_456), short(7200.0), short(1e-7), short(-1e22)],
            ["0.12346", "7200", "1e-7", "-1e22"]
        );
        assert_eq!(
            (fixed(-0.04, 1), fixed(1234.0, 0), whole(12_345)),
            ("0.0".into(), "1234".into(), "12\u{202f}345".into())
        );
        assert_eq!(
            [duration(59.0), duration(119.0), duration(7199.0)],
            ["59 s", "2 min", "2 h 0 min"]
        );
    }
}
