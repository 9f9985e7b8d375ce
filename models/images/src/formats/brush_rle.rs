//! A mask as Label Studio's brush keeps it: the bytes of a picture with four channels, run by run, packed in bits.

use super::runs::Run;

/// Bytes of a pixel: red, green, blue and how opaque it is. All are 255 where the mask is, else 0.
const CHANNELS: usize = 4;
/// The head tells the number of bytes in 32 bits.
pub(super) const MAX_PIXELS: usize = u32::MAX as usize / CHANNELS;
/// Bits of the four forms of a run's length.
const LENGTH_BITS: [u32; 4] = [3, 4, 8, 16];

/// A mask that is given run by run, along the rows.
#[derive(Debug)]
pub(super) struct BrushRle {
    bits: Bits,
    /// Pixels of the picture.
    pixels: usize,
    /// Pixels that are told.
    end: usize,
}

impl BrushRle {
    /// Of an empty mask in a picture of at most [`MAX_PIXELS`] pixels.
    pub(super) fn new(pixels: usize) -> Self {
        let mut bits = Bits::default();
        bits.push((pixels * CHANNELS) as u32, 32);
        bits.push(u8::BITS - 1, 5);
        for length in LENGTH_BITS {
            bits.push(length - 1, 4);
        }
        Self { bits, pixels, end: 0 }
    }

    /// Adds a run of the mask; runs come in order.
    pub(super) fn push(&mut self, run: Run) {
        self.add(0, run.start - self.end);
        self.add(255, run.length);
        self.end = run.start + run.length;
    }

    /// The bytes. They end in one to eight bits of nothing, as those of Label Studio's own encoder do.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.add(0, self.pixels - self.end);
        let spare = 8 - self.bits.pending;
        self.bits.push(0, spare);
        self.bits.bytes
    }

    fn add(&mut self, value: u8, pixels: usize) {
        let mut length = pixels * CHANNELS;
        let most = 1 << LENGTH_BITS[3];
        // What is left of a long run keeps the long form.
        let form = match length {
            0 => return,
            _ => LENGTH_BITS.iter().position(|&bits| length <= 1 << bits).unwrap_or(3),
        };
        while length > 0 {
            let part = length.min(most);
            length -= part;
            self.bits.push(1, 1);
            self.bits.push(form as u32, 2);
            self.bits.push(part as u32 - 1, LENGTH_BITS[form]);
            self.bits.push(value.into(), u8::BITS);
        }
    }
}

/// Bits in bytes, the first the highest.
#[derive(Debug, Default)]
struct Bits {
    bytes: Vec<u8>,
    /// Bits that fill no byte yet, the last the lowest.
    rest: u64,
    /// How many these are, less than eight.
    pending: u32,
}

impl Bits {
    /// Adds the lowest `count` bits of a value, at most 32.
    fn push(&mut self, value: u32, count: u32) {
        self.rest = self.rest << count | u64::from(value);
        self.pending += count;
        while self.pending >= 8 {
            self.pending -= 8;
            self.bytes.push((self.rest >> self.pending) as u8);
        }
        self.rest &= (1 << self.pending) - 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The decoder of the format's description: length, word size, four sizes; then runs or single words.
    fn decode(bytes: &[u8]) -> Vec<u8> {
        let mut at = 0;
        let mut read = |count: usize| {
            let value = (at..at + count).fold(0, |value, bit| {
                value << 1 | usize::from(bytes[bit / 8] >> (7 - bit % 8) & 1)
            });
            at += count;
            value
        };
        let length = read(32);
        let word = read(5) + 1;
        let sizes: Vec<usize> = (0..4).map(|_| read(4) + 1).collect();
        let mut out = Vec::new();
        while out.len() < length {
            let repeats = read(1) == 1;
            let form = read(2);
            let count = read(sizes[form]) + 1;
            if repeats {
                let value = read(word) as u8;
                out.extend(std::iter::repeat_n(value, count));
            } else {
                out.extend((0..count).map(|_| read(word) as u8));
            }
        }
        out
    }

    #[test]
    fn masks_survive_with_runs_of_every_form() {
        for lengths in [
            &[0, 1, 2, 2, 3, 4, 5, 63, 64, 65][..],
            &[16_383, 16_384, 16_385, 32_768, 1],
            &[0, 40_000],
            &[5],
        ] {
            let mut expected = Vec::new();
            for (index, &length) in lengths.iter().enumerate() {
                expected.extend(std::iter::repeat_n(if index % 2 == 0 { 0 } else { 255 }, length));
            }
            let mut brush = BrushRle::new(expected.len());
            let mut start = 0;
            for (index, &length) in lengths.iter().enumerate() {
                if index % 2 == 1 {
                    brush.push(Run { label: 0, start, length });
                }
                start += length;
            }
            let pixels = decode(&brush.finish());
            let expected: Vec<u8> =
                expected.into_iter().flat_map(|value| [value; CHANNELS]).collect();
            assert_eq!(pixels, expected, "{lengths:?}");
        }
    }
}
