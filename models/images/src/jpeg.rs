//! Checks of JPEG files that the `image` crate does not make: a missing end, missing data, and inks
//! of unknown polarity.

use image::DynamicImage;

use crate::image_file::DecodeError;

/// Result of a walk over the markers of a JPEG file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Markers {
    /// Color components of a pixel; 0 without a frame header.
    pub(crate) components: u8,
    /// True with Adobe's marker, which tells how four components are stored.
    pub(crate) adobe: bool,
    /// True with an end marker.
    pub(crate) ended: bool,
    /// True with at least as much data as the image must have. Otherwise the rest of the image
    /// would come out gray, after the time and memory of its full size.
    pub(crate) enough: bool,
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
    let mut found = Markers { components: 0, adobe: false, ended: false, enough: false };
    let mut place = 0;
    let mut coded_bytes = 0_u64;
    let mut min_bits = 0;
    let mut has_scan = false;
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
                found.ended = true;
                found.enough = 8 * coded_bytes >= min_bits;
                return found;
            }
            // Start of image, restart markers and TEM carry nothing.
            0x01 | 0xD0..=0xD8 => continue,
            _ => {}
        }
        let Some(&[high, low]) =
            bytes.get(place..place + 2).and_then(|length| length.first_chunk())
        else {
            return found;
        };
        let Some(segment) =
            bytes.get(place + 2..place + usize::from(u16::from_be_bytes([high, low])).max(2))
        else {
            return found;
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
            0xDA => has_scan = true,
            _ => {}
        }
        place += 2 + segment.len();
    }
    coded_bytes += (bytes.len() - place) as u64;
    found.enough = has_scan && 8 * coded_bytes >= min_bits;
    found
}

/// End of image.
const END: [u8; 2] = [0xFF, 0xD9];

/// Data behind the end of a file, in which no marker can be found. If blocks are missing, each
/// makes other pixels of them; if none is, it is not looked at.
const FILLERS: [&[u8]; 3] = [&[], &[0x5A; 512], &[0xB3; 512]];

/// Decodes a file without end marker, if all of its blocks are there.
///
/// Cameras pad files with zeros, and half of the marker may be there. So the end of the data is
/// tried with and without bytes that can be either.
pub(crate) fn decode_unended(
    bytes: &[u8],
    decode: impl Fn(Vec<u8>) -> Result<DynamicImage, DecodeError>,
) -> Result<DynamicImage, DecodeError> {
    let length = |until: &dyn Fn(u8) -> bool, length: usize| {
        bytes[..length].iter().rposition(|&byte| !until(byte)).map_or(0, |last| last + 1)
    };
    let unpadded = length(&|byte| byte == 0, bytes.len());
    let unmarked = length(&|byte| byte == 0xFF, unpadded);
    let mut ends = vec![unmarked];
    // A single zero is data, alone or after a byte of ones. More of them could be taken for the
    // last blocks of a file that has lost them.
    if unmarked < bytes.len() && bytes.len() <= unpadded + 1 {
        ends.push(bytes.len());
    }
    let mut best = None;
    for end in ends {
        let with = |filler: &[u8]| decode([&bytes[..end], filler, &END].concat());
        let [first, others @ ..] = FILLERS;
        let image = with(first)?;
        let mut same = image.as_bytes().len();
        for filler in others {
            let other = with(filler).ok();
            let other = other.as_ref().map_or(&[][..], |other| other.as_bytes());
            let equal = image.as_bytes().iter().zip(other).take_while(|(one, two)| one == two);
            same = same.min(equal.count());
        }
        if same == image.as_bytes().len() {
            return Ok(image);
        }
        let row = image.as_bytes().len() / (image.height() as usize).max(1);
        let rows = same / row.max(1);
        if best.is_none_or(|(known, _)| rows > known) {
            best = Some((rows, image.height()));
        }
    }
    let (rows, height) = best.unwrap_or_default();
    Err(DecodeError::MissingRows { rows, height })
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
        let cut = Markers { components: 4, adobe: true, ended: false, enough: true };
        assert_eq!(markers(&file), cut);
        file.extend([0xFF, 0xFF, 0xD9]);
        assert!(markers(&file).ended);
        for length in 0..file.len() {
            assert!(!markers(&file[..length]).ended, "cut to {length}");
        }
        assert!(!markers(&file[..20]).enough, "no scan");
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
                markers(&file(kind, least)).enough && !markers(&file(kind, least - 1)).enough,
                "{kind:X}"
            );
        }
    }
}
