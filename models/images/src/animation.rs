//! Number of frames of GIF, PNG and WebP files. Only the first is read.

use image::ImageFormat;

/// Returns the number of frames that a file tells of, at least 1.
pub(crate) fn frames(bytes: &[u8], format: ImageFormat) -> usize {
    let frames = match format {
        ImageFormat::Gif => gif_frames(bytes),
        ImageFormat::Png => png_frames(bytes),
        ImageFormat::WebP => Some(chunks(bytes).filter(|name| name == b"ANMF").count()),
        _ => None,
    };
    frames.unwrap_or(1).max(1)
}

/// Counts the image descriptors among a GIF's blocks, up to its end.
fn gif_frames(bytes: &[u8]) -> Option<usize> {
    /// Bytes of a color table, as the packed field before it says.
    fn table(packed: u8) -> usize {
        if packed & 0x80 == 0 { 0 } else { 3 << ((packed & 7) + 1) }
    }
    let mut rest = bytes.get(13 + table(*bytes.get(10)?)..)?;
    let mut count = 0;
    while let Some((kind, tail)) = rest.split_first() {
        let blocks = match kind {
            b'!' => tail.get(1..),
            b',' => tail.get(8).and_then(|&packed| tail.get(9 + table(packed) + 1..)),
            _ => break,
        };
        count += usize::from(*kind == b',');
        let Some(blocks) = blocks else { break };
        rest = blocks;
        // Blocks of data end with an empty one.
        while let Some((&length, data)) = rest.split_first() {
            rest = data.get(usize::from(length)..).unwrap_or_default();
            if length == 0 {
                break;
            }
        }
    }
    Some(count)
}

/// Reads the number of frames of an APNG from its `acTL` chunk, which comes before the pixels.
fn png_frames(bytes: &[u8]) -> Option<usize> {
    let mut rest = bytes.get(8..)?;
    loop {
        let (length, tail) = rest.split_first_chunk::<4>()?;
        let (name, data) = tail.split_first_chunk::<4>()?;
        match name {
            b"acTL" => return usize::try_from(u32::from_be_bytes(*data.first_chunk()?)).ok(),
            b"IDAT" | b"IEND" => return None,
            _ => rest = data.get((u32::from_be_bytes(*length) as usize).checked_add(4)?..)?,
        }
    }
}

/// Names of the chunks of a RIFF file.
pub(crate) fn chunks(bytes: &[u8]) -> impl Iterator<Item = [u8; 4]> {
    let mut rest = bytes.get(12..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (name, tail) = rest.split_first_chunk::<4>()?;
        let (length, tail) = tail.split_first_chunk::<4>()?;
        let length = u32::from_le_bytes(*length) as usize;
        // Chunks are padded to an even length.
        rest = tail.get(length.saturating_add(length % 2)..).unwrap_or_default();
        Some(*name)
    })
}

#[cfg(test)]
mod tests {
    use image::codecs::gif::GifEncoder;
    use image::{Frame, Rgba, RgbaImage};

    use super::*;

    #[test]
    fn frames_of_each_format_are_counted() {
        for count in [1, 3] {
            let mut gif = Vec::new();
            let mut encoder = GifEncoder::new(&mut gif);
            for shade in 0..count {
                let image = RgbaImage::from_pixel(40, 30, Rgba([shade as u8, 9, 200, 255]));
                encoder.encode_frame(Frame::new(image)).unwrap();
            }
            drop(encoder);
            assert_eq!(frames(&gif, ImageFormat::Gif), count);
            let mut bytes = Vec::new();
            let mut encoder = png::Encoder::new(&mut bytes, 2, 1);
            if count > 1 {
                encoder.set_animated(count as u32, 0).unwrap();
            }
            let mut writer = encoder.write_header().unwrap();
            (0..count).for_each(|_| writer.write_image_data(&[1, 2]).unwrap());
            writer.finish().unwrap();
            assert_eq!(frames(&bytes, ImageFormat::Png), count);
            let mut webp = b"RIFF\0\0\0\0WEBPVP8X\x03\0\0\0abc\0".to_vec();
            (0..count).for_each(|_| webp.extend(b"ANMF\x01\0\0\0x\0"));
            assert_eq!(frames(&webp, ImageFormat::WebP), count);
            // Nothing of this is trusted.
            for length in 0..gif.len().min(60) {
                assert!(frames(&gif[..length], ImageFormat::Gif) <= count);
                frames(&bytes[..length.min(bytes.len())], ImageFormat::Png);
            }
        }
    }
}
