//! Checks of JPEG files that the `image` crate does not make: a missing end, missing data, and inks
//! of unknown polarity.

/// Result of a walk over the markers of a JPEG file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Markers {
    /// Color components of a pixel; 0 without a frame header.
    pub(crate) components: u8,
    /// True with Adobe's marker, which tells how four components are stored.
    pub(crate) adobe: bool,
    /// True with an end marker, and before it at least as much data as the image must have.
    /// Otherwise the rest of the image would come out gray, after the time and memory of its full
    /// size.
    pub(crate) complete: bool,
}

/// A frame header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Frame {
    components: u8,
    /// Lower bound of the coded data: each block of 8x8 samples has a code of at least one bit for
    /// its mean, and in baseline files another for the rest (in progressive ones one code may end
    /// many blocks).
    min_bits: u64,
}

impl Frame {
    /// Parses a frame header; `kind` is the low half of its marker.
    fn parse(kind: u8, header: &[u8]) -> Option<Self> {
        let &[_, height_high, height_low, width_high, width_low, components, ref parts @ ..] =
            header
        else {
            return None;
        };
        let size = [[width_high, width_low], [height_high, height_low]]
            .map(u16::from_be_bytes)
            .map(u64::from);
        let samplings: Vec<[u64; 2]> =
            parts.chunks_exact(3).map(|part| [part[1] >> 4, part[1] & 15].map(u64::from)).collect();
        let max_sampling = [0, 1].map(|axis: usize| {
            samplings.iter().map(|sampling| sampling[axis]).max().unwrap_or(1).max(1)
        });
        let blocks = |sampling: &[u64; 2]| {
            let along = |axis: usize| {
                (size[axis] * sampling[axis]).div_ceil(max_sampling[axis]).div_ceil(8)
            };
            along(0) * along(1)
        };
        let blocks: u64 = samplings.iter().map(blocks).sum();
        // Other kinds are not Huffman codes of blocks.
        let bits = match kind {
            0 | 1 => 2,
            2 => 1,
            _ => 0,
        };
        Some(Self { components, min_bits: bits * blocks })
    }
}

/// Walks the markers of a JPEG file.
pub(crate) fn markers(bytes: &[u8]) -> Markers {
    let mut found = Markers { components: 0, adobe: false, complete: false };
    let mut place = 0;
    let mut coded_bytes = 0_u64;
    let mut min_bits = 0;
    // Between segments and inside the coded image, a marker is 0xFF followed by neither 0x00 nor
    // 0xFF.
    while let Some(skipped) =
        bytes[place..].windows(2).position(|pair| pair[0] == 0xFF && !matches!(pair[1], 0 | 0xFF))
    {
        let marker = bytes[place + skipped + 1];
        place += skipped + 2;
        coded_bytes += skipped as u64;
        match marker {
            0xD9 => {
                found.complete = 8 * coded_bytes >= min_bits;
                break;
            }
            // Start of image, restart markers and TEM carry nothing.
            0x01 | 0xD0..=0xD8 => continue,
            _ => {}
        }
        let Some(&[high, low]) =
            bytes.get(place..place + 2).and_then(|length| length.first_chunk())
        else {
            break;
        };
        let Some(segment) =
            bytes.get(place + 2..place + usize::from(u16::from_be_bytes([high, low])).max(2))
        else {
            break;
        };
        match marker {
            // Frame headers; C4, C8 and CC are tables and extensions.
            0xC0..=0xCF if !matches!(marker, 0xC4 | 0xC8 | 0xCC) => {
                if let Some(frame) = Frame::parse(marker & 15, segment) {
                    found.components = frame.components;
                    min_bits = frame.min_bits;
                }
            }
            0xEE => found.adobe |= segment.starts_with(b"Adobe"),
            _ => {}
        }
        place += 2 + segment.len();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_inside_segments_and_stuffed_bytes_are_skipped() {
        let mut file = vec![0xFF, 0xD8, 0xFF, 0xE1, 0, 6, 0xFF, 0xD9, 0xFF, 0xC0];
        file.extend([0xFF, 0xC2, 0, 8, 8, 0, 1, 0, 1, 4]);
        file.extend(b"\xFF\xEE\x00\x09Adobe\x00\x00");
        file.extend([0xFF, 0xDA, 0, 2, 1, 0xFF, 0, 0xD9, 0xFF, 0xD0, 7]);
        assert_eq!(markers(&file), Markers { components: 4, adobe: true, complete: false });
        file.extend([0xFF, 0xFF, 0xD9]);
        assert!(markers(&file).complete);
        for length in 0..file.len() {
            assert!(!markers(&file[..length]).complete, "cut to {length}");
        }
    }

    #[test]
    fn blocks_have_at_least_a_bit_or_two() {
        // 100x20 pixels in three components, of which two are halved: 13 x 3 blocks and 7 x 2
        // twice.
        let header = [8, 0, 20, 0, 100, 3, 1, 0x22, 0, 2, 0x11, 1, 3, 0x11, 1];
        let bits = |kind| Frame::parse(kind, &header).unwrap().min_bits;
        assert_eq!([0, 1, 2, 3].map(bits), [134, 134, 67, 0]);
        let file = |kind: u8, coded: usize| {
            let scan = [0xFF, 0xDA, 0, 2];
            [&[0xFF, 0xD8, 0xFF, kind, 0, 17][..], &header, &scan, &vec![7; coded], &[0xFF, 0xD9]]
                .concat()
        };
        for (kind, least) in [(0xC0, 17), (0xC2, 9)] {
            assert!(
                markers(&file(kind, least)).complete && !markers(&file(kind, least - 1)).complete,
                "{kind:X}"
            );
        }
    }
}
