//! JSON of tensors, bounded while it is read: an entry of two bytes would become many times that in
//! memory.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Unexpected, Visitor};

/// A list of at most `MAX` entries.
#[derive(Debug, Default)]
pub(super) struct BoundedVec<T, const MAX: usize>(pub(super) Vec<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for BoundedVec<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(BoundedVisitor(PhantomData))
    }
}

struct BoundedVisitor<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for BoundedVisitor<T, MAX> {
    type Value = BoundedVec<T, MAX>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "a list of at most {MAX}")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = list.next_element()? {
            if entries.len() == MAX {
                return Err(A::Error::custom(format!("a list of more than {MAX}")));
            }
            entries.push(entry);
        }
        Ok(BoundedVec(entries))
    }
}

/// A whole number; `3.0` is one, as some clients write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "serde_json::Number")]
pub(super) struct JsonInteger(pub(super) i64);

impl TryFrom<serde_json::Number> for JsonInteger {
    type Error = String;

    fn try_from(number: serde_json::Number) -> Result<Self, String> {
        // Larger ones may have been rounded.
        let exact = |float: &f64| float.fract() == 0.0 && float.abs() <= (1_u64 << 53) as f64;
        let whole =
            number.as_i64().or_else(|| number.as_f64().filter(exact).map(|float| float as i64));
        whole.map(Self).ok_or_else(|| format!("{number} is not a whole number"))
    }
}

/// Strings of one tensor, which are image files in Base64.
const MAX_STRINGS: usize = 256;

/// Elements of a tensor, flat or nested: numbers from 0 to 255 straight into bytes, or strings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct JsonElements {
    pub(super) numbers: Vec<u8>,
    pub(super) strings: Vec<String>,
}

impl<'de> Deserialize<'de> for JsonElements {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut elements = Self::default();
        ElementVisitor(&mut elements).deserialize(deserializer)?;
        if !elements.numbers.is_empty() && !elements.strings.is_empty() {
            return Err(D::Error::custom("elements are numbers or strings, not both"));
        }
        Ok(elements)
    }
}

struct ElementVisitor<'a>(&'a mut JsonElements);

impl<'de> DeserializeSeed<'de> for ElementVisitor<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ElementVisitor<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a number from 0 to 255, a string, or a list of these")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(ElementVisitor(&mut *self.0))?.is_some() {}
        Ok(())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        let byte = u8::try_from(number)
            .map_err(|_| E::invalid_value(Unexpected::Unsigned(number), &self))?;
        self.0.numbers.push(byte);
        Ok(())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<(), E> {
        if number.fract() == 0.0 && (0.0..=255.0).contains(&number) {
            self.0.numbers.push(number as u8);
            return Ok(());
        }
        Err(E::invalid_value(Unexpected::Float(number), &self))
    }

    fn visit_str<E: Error>(self, string: &str) -> Result<(), E> {
        if self.0.strings.len() == MAX_STRINGS {
            return Err(E::custom(format!("more than {MAX_STRINGS} strings")));
        }
        self.0.strings.push(string.to_owned());
        Ok(())
    }
}

/// Appends elements as JSON: bytes, or little-endian FP32.
pub(super) fn append_elements(bytes: &[u8], fp32: bool, json: &mut Vec<u8>) {
    json.push(b'[');
    if fp32 {
        for bytes in bytes.chunks_exact(4) {
            let number = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            json.extend_from_slice(number.to_string().as_bytes());
            json.push(b',');
        }
    } else {
        for &byte in bytes {
            let digits = [byte / 100, byte / 10 % 10, byte % 10];
            let zeros = if byte >= 100 { 0 } else { 2 - usize::from(byte >= 10) };
            json.extend(digits[zeros..].iter().map(|digit| b'0' + digit));
            json.push(b',');
        }
    }
    if json.last() == Some(&b',') {
        json.pop();
    }
    json.push(b']');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_beyond_the_bound_are_refused_before_they_are_read() {
        let read = |text: &str| serde_json::from_str::<BoundedVec<u8, 3>>(text);
        assert_eq!(read("[1,2,3]").unwrap().0, [1, 2, 3]);
        assert!(read("[1,2,3,4,\"never read").unwrap_err().to_string().contains("more than 3"));
        assert!(read("{}").is_err());
    }

    #[test]
    fn nested_lists_are_read_flat() {
        let read = |text: &str| serde_json::from_str::<JsonElements>(text);
        assert_eq!(read("[[1,2],[[3.0]],255]").unwrap().numbers, [1, 2, 3, 255]);
        assert_eq!(read(r#"["a", ["b"]]"#).unwrap().strings, ["a", "b"]);
        for text in ["[256]", "[-1]", "[0.5]", "[1, \"a\"]", "[true]", "[null]", "{}", "[[[1]"] {
            assert!(read(text).is_err(), "{text}");
        }
        assert!(
            read(&format!("[{}\"\"]", "\"\",".repeat(256)))
                .unwrap_err()
                .to_string()
                .contains("more than 256 strings")
        );
        // Far deeper than any tensor: an error, not a stack overflow.
        assert!(read(&"[".repeat(100_000)).is_err());
    }

    #[test]
    fn whole_numbers_may_have_a_decimal_point() {
        let read = |text: &str| {
            serde_json::from_str::<JsonInteger>(text).map(|JsonInteger(number)| number)
        };
        assert_eq!(
            [read("7").unwrap(), read("-3.0").unwrap(), read("1e3").unwrap()],
            [7, -3, 1000]
        );
        assert_eq!(read("9223372036854775807").unwrap(), i64::MAX);
        for text in ["0.5", "1e300", "18446744073709551615", "\"1\"", "null", "[1]"] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn written_elements_are_read_back() {
        let all: Vec<u8> = (0..=255).collect();
        let mut json = Vec::new();
        append_elements(&all, false, &mut json);
        assert_eq!(serde_json::from_slice::<JsonElements>(&json).unwrap().numbers, all);
        let floats = [0.1_f32, -3.5e-9, 1e20];
        let mut json = Vec::new();
        append_elements(&floats.map(f32::to_le_bytes).concat(), true, &mut json);
        assert_eq!(serde_json::from_slice::<Vec<f32>>(&json).unwrap(), floats);
    }
}
