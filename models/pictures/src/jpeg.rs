//! What the image library passes over in JPEG files: a missing end, and inks that cannot be told.

/// What a walk over a JPEG file's markers finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Markers {
    /// Color components of a pixel; 0 where the frame header is missing.
    pub(crate) components: u8,
    /// Whether Adobe's marker is there: only then it is known how four components are stored.
    pub(crate) adobe: bool,
    /// Whether the end marker is there. Without it the rest of the picture would come out grey.
    pub(crate) complete: bool,
}

/// Walks the markers of a JPEG file.
pub(crate) fn markers(bytes: &[u8]) -> Markers {
    let mut found = Markers { components: 0, adobe: false, complete: false };
    let mut place = 0;
    // Between segments, and inside the coded picture, a marker is 0xFF followed by neither 0x00 nor 0xFF.
    while let Some(skipped) = bytes[place..].windows(2).position(|pair| pair[0] == 0xFF && !matches!(pair[1], 0 | 0xFF))
    {
        let marker = bytes[place + skipped + 1];
        place += skipped + 2;
        match marker {
            0xD9 => {
                found.complete = true;
                break;
            }
            // Start of image, restart markers and TEM carry nothing.
            0x01 | 0xD0..=0xD8 => continue,
            _ => {}
        }
        let Some(&[high, low]) = bytes.get(place..place + 2).and_then(|length| length.first_chunk()) else { break };
        let Some(segment) = bytes.get(place + 2..place + usize::from(u16::from_be_bytes([high, low])).max(2)) else {
            break;
        };
        match marker {
            // Frame headers; C4, C8 and CC are tables and extensions.
            0xC0..=0xCF if !matches!(marker, 0xC4 | 0xC8 | 0xCC) => {
                found.components = segment.get(5).copied().unwrap_or(0);
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
    fn markers_inside_segments_and_stuffed_bytes_are_passed_over() {
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
}
