//! Numbers as text, and as compact JSON.

use serde::{Serialize, Serializer};

/// Larger values are dropped like infinities, so that sums of them stay finite.
const MAX_MAGNITUDE: f64 = 1e100;
/// Thousands separator: a narrow no-break space.
const THOUSANDS: char = '\u{202f}';

/// Returns true for finite values of a magnitude that an axis can show.
pub fn is_plottable(value: &f64) -> bool {
    value.abs() <= MAX_MAGNITUDE
}

/// A column of chart data, written with five significant digits; values that are not plottable are `null`, a gap.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Values(pub Vec<Option<f64>>);

impl<V: Into<Option<f64>>> Extend<V> for Values {
    fn extend<I: IntoIterator<Item = V>>(&mut self, values: I) {
        self.0.extend(values.into_iter().map(|value| value.into().filter(is_plottable)));
    }
}

impl<V: Into<Option<f64>>> FromIterator<V> for Values {
    fn from_iter<I: IntoIterator<Item = V>>(values: I) -> Self {
        let mut column = Self::default();
        column.extend(values);
        column
    }
}

impl Serialize for Values {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        /// Whole numbers keep all their digits and have no decimal point.
        #[derive(Serialize)]
        #[serde(untagged)]
        enum Number {
            Whole(i64),
            Rounded(f64),
        }
        let number = |value: f64| {
            if value.fract() == 0.0 && value.abs() < 1e15 {
                return Number::Whole(value as i64);
            }
            Number::Rounded(format!("{value:.4e}").parse().unwrap_or(value))
        };
        serializer.collect_seq(self.0.iter().map(|value| value.map(number)))
    }
}

/// A number with this many decimals and separated thousands.
pub fn fixed(value: f64, decimals: usize) -> String {
    let text = format!("{:.decimals$}", value.abs());
    let (whole, fraction) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) && whole.len() > 4 {
            grouped.push(THOUSANDS);
        }
        grouped.push(digit);
    }
    // No minus sign before a rounded 0.
    let negative = value < 0.0 && text.contains(|digit: char| ('1'..='9').contains(&digit));
    format!("{}{grouped}{fraction}", if negative { "\u{2212}" } else { "" })
}

/// A count with separated thousands.
pub fn whole(value: u64) -> String {
    fixed(value as f64, 0)
}

/// A time span in its two largest units.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_readable() {
        assert_eq!(
            [fixed(-0.04, 1), fixed(1234.0, 0), whole(12_345), fixed(-1e5, 1)],
            ["0.0", "1234", "12\u{202f}345", "\u{2212}100\u{202f}000.0"]
        );
        assert_eq!(
            [duration(59.0), duration(119.0), duration(7199.0)],
            ["59 s", "2 min", "2 h 0 min"]
        );
    }

    #[test]
    fn columns_keep_the_digits_of_counts_and_have_gaps() {
        let values = [0.123_456, 7200.0, 1_234_567.0, 1e-7, -1e22, f64::NAN, 1e300, -4.0];
        let json = serde_json::to_string(&values.into_iter().collect::<Values>()).unwrap();
        assert_eq!(json, "[0.12346,7200,1234567,1e-7,-1e+22,null,null,-4]");
    }
}
