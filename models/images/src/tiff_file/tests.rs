use std::io::Cursor;

use image::Rgb;
use protoseg_models::reading::ImageReading;

use super::*;
use crate::image_file::{EncodedImage, NotedImage};

/// Tags of one number, by tag.
type Tags = Vec<(u16, Vec<u64>)>;

/// A little-endian file whose pages have one strip each; `wide` makes a BigTIFF. Bytes per tag value
/// are 2 for the color map and short tags, 8 for floats.
fn file(pages: &[(Tags, Vec<u8>)], wide: bool) -> Vec<u8> {
    let offset = |number: usize| {
        let bytes = (number as u64).to_le_bytes();
        bytes[..if wide { 8 } else { 4 }].to_vec()
    };
    let mut bytes = if wide { b"II+\0\x08\0\0\0".to_vec() } else { b"II*\0".to_vec() };
    let mut link = bytes.len();
    bytes.extend(offset(0));
    for (tags, data) in pages {
        let mut tags: Vec<(u16, Vec<u64>)> = tags.clone();
        tags.push((directory::STRIP_OFFSETS, vec![bytes.len() as u64]));
        tags.push((directory::STRIP_BYTES, vec![data.len() as u64]));
        tags.sort();
        bytes.extend(data);
        let mut entries = Vec::new();
        for (tag, values) in &tags {
            let (kind, size): (u16, usize) = match *tag {
                33_550..=34_264 => (12, 8),
                42_113 => (2, 1),
                directory::STRIP_OFFSETS | directory::STRIP_BYTES => (4, 4),
                _ => (3, 2),
            };
            let mut value: Vec<u8> =
                values.iter().flat_map(|value| value.to_le_bytes()[..size].to_vec()).collect();
            let room = offset(0).len();
            if value.len() > room {
                let place = offset(bytes.len());
                bytes.extend(std::mem::replace(&mut value, place));
            }
            value.resize(room, 0);
            entries.extend(tag.to_le_bytes());
            entries.extend(kind.to_le_bytes());
            entries.extend(offset(values.len()));
            entries.extend(value);
        }
        let position = offset(bytes.len());
        bytes[link..link + position.len()].copy_from_slice(&position);
        let count = (tags.len() as u64).to_le_bytes();
        bytes.extend(&count[..if wide { 8 } else { 2 }]);
        bytes.extend(entries);
        link = bytes.len();
        bytes.extend(offset(0));
    }
    bytes
}

/// Layout of a file of [`tiff`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct TiffKind {
    pub(crate) wide: bool,
    pub(crate) big_endian: bool,
    pub(crate) bits: usize,
    /// Sample format: unsigned, signed or floating-point.
    pub(crate) format: u64,
    pub(crate) bands: usize,
    pub(crate) planar: bool,
    /// Width and height of a tile, or of a strip of the image's width.
    pub(crate) chunk: [usize; 2],
    pub(crate) orientation: u64,
    pub(crate) compression: u64,
}

impl Default for TiffKind {
    fn default() -> Self {
        Self {
            wide: false,
            big_endian: false,
            bits: 8,
            format: 1,
            bands: 1,
            planar: false,
            chunk: [16, 16],
            orientation: 1,
            compression: 1,
        }
    }
}

/// A file `[width, height]` with samples from 0 to 15, of which 7 is missing data.
pub(crate) fn tiff(size: [usize; 2], kind: TiffKind) -> Vec<u8> {
    tiff_with(size, kind, true)
}

/// The same without its pixels, which seem to be there.
pub(crate) fn tiff_header(size: [usize; 2], kind: TiffKind) -> Vec<u8> {
    tiff_with(size, kind, false)
}

fn tiff_with([width, height]: [usize; 2], kind: TiffKind, with_pixels: bool) -> Vec<u8> {
    let TiffKind { wide, big_endian, bits, format, bands, planar, chunk, .. } = kind;
    let [chunk_width, chunk_height] = chunk;
    let is_tiled = chunk_width != width;
    let number = |number: u64, length: usize| {
        let mut bytes = number.to_le_bytes()[..length].to_vec();
        if big_endian {
            bytes.reverse();
        }
        bytes
    };
    let sample = |row: usize, column: usize, band: usize| {
        let value = if row < 5 { 7 } else { row * 7 + column * 3 + band * 5 + row / 11 * column };
        value as u64 % 16
    };
    let encoded = |value: u64| match (format, bits) {
        (3, 32) => number(u64::from((value as f32).to_bits()), 4),
        (3, _) => number((value as f64).to_bits(), 8),
        (2, _) => number((value as i64 - 4) as u64 & (u64::MAX >> (64 - bits)), bits / 8),
        _ => number(value & (u64::MAX >> (64 - bits)), bits.div_ceil(8)),
    };
    let mut bytes = vec![0; if wide { 16 } else { 8 }];
    let (mut offsets, mut lengths) = (Vec::new(), Vec::new());
    let planes: Vec<Vec<usize>> = if planar {
        (0..bands).map(|band| vec![band]).collect()
    } else {
        vec![(0..bands).collect()]
    };
    for plane in planes.iter().filter(|_| with_pixels) {
        for top in (0..height).step_by(chunk_height) {
            for left in (0..width).step_by(chunk_width) {
                offsets.push(bytes.len() as u64);
                let bottom =
                    if is_tiled { top + chunk_height } else { (top + chunk_height).min(height) };
                for row in top..bottom {
                    let columns = left..left + chunk_width;
                    let samples =
                        columns.flat_map(|column| plane.iter().map(move |&band| (column, band)));
                    let values = samples.map(|(column, band)| sample(row, column, band));
                    if bits >= 8 {
                        values.for_each(|value| bytes.extend(encoded(value)));
                    } else {
                        let values: Vec<u64> = values.collect();
                        bytes.extend(values.chunks(8 / bits).map(|values| {
                            let places = (0..8 / bits).map(|place| 8 - bits - place * bits);
                            let mask = (1 << bits) - 1;
                            let placed = values.iter().zip(places);
                            placed.fold(0, |byte, (&value, place)| {
                                byte | (value as u8 & mask) << place
                            })
                        }));
                    }
                }
                lengths.push(bytes.len() as u64 - offsets[offsets.len() - 1]);
            }
        }
    }
    if !with_pixels {
        (offsets, lengths) = (vec![8], vec![1]);
    }
    let nodata: Vec<u64> = b"7\0".iter().map(|&byte| byte.into()).collect();
    let mut tags: Vec<(u16, u16, Vec<u64>)> = vec![
        (directory::WIDTH, 4, vec![width as u64]),
        (directory::HEIGHT, 4, vec![height as u64]),
        (directory::BITS, 3, vec![bits as u64; bands]),
        (directory::COMPRESSION, 3, vec![kind.compression]),
        (directory::PHOTOMETRIC, 3, vec![1]),
        (directory::ORIENTATION, 3, vec![kind.orientation]),
        (directory::SAMPLES, 3, vec![bands as u64]),
        (directory::PLANAR, 3, vec![if planar { 2 } else { 1 }]),
        (directory::SAMPLE_FORMAT, 3, vec![format; bands]),
        (42_113, 2, nodata),
    ];
    if is_tiled {
        tags.push((directory::TILE_WIDTH, 4, vec![chunk_width as u64]));
        tags.push((directory::TILE_HEIGHT, 4, vec![chunk_height as u64]));
        tags.push((directory::TILE_OFFSETS, 4, offsets));
        tags.push((directory::TILE_BYTES, 4, lengths));
    } else {
        tags.push((directory::STRIP_ROWS, 4, vec![chunk_height as u64]));
        tags.push((directory::STRIP_OFFSETS, 4, offsets));
        tags.push((directory::STRIP_BYTES, 4, lengths));
    }
    tags.sort();
    let room = if wide { 8 } else { 4 };
    let mut entries = Vec::new();
    for (tag, kind, values) in tags {
        let size = [1, 1, 1, 2, 4][usize::from(kind)];
        let mut value: Vec<u8> = values.iter().flat_map(|&value| number(value, size)).collect();
        if value.len() > room {
            let place = number(bytes.len() as u64, room);
            bytes.extend(std::mem::replace(&mut value, place));
        }
        value.resize(room, 0);
        entries.extend(number(tag.into(), 2));
        entries.extend(number(kind.into(), 2));
        entries.extend(number(values.len() as u64, room));
        entries.extend(value);
    }
    let position = bytes.len() as u64;
    let entry = if wide { 20 } else { 12 };
    bytes.extend(number((entries.len() / entry) as u64, if wide { 8 } else { 2 }));
    bytes.extend(entries);
    bytes.extend(vec![0; room]);
    let mut head = if big_endian { b"MM".to_vec() } else { b"II".to_vec() };
    if wide {
        head.extend([number(43, 2), number(8, 2), number(0, 2), number(position, 8)].concat());
    } else {
        head.extend([number(42, 2), number(position, 4)].concat());
    }
    bytes[..head.len()].copy_from_slice(&head);
    bytes
}

fn tags(width: u64, height: u64, bits: u64, bands: u64, more: &[(u16, &[u64])]) -> Tags {
    let mut tags = vec![
        (directory::WIDTH, vec![width]),
        (directory::HEIGHT, vec![height]),
        (directory::BITS, vec![bits; bands as usize]),
        (directory::PHOTOMETRIC, vec![2]),
        (directory::SAMPLES, vec![bands]),
    ];
    for (tag, values) in more {
        tags.retain(|(known, _)| known != tag);
        tags.push((*tag, values.to_vec()));
    }
    tags
}

fn read(bytes: &[u8], channels: &str, range: &str) -> Result<NotedImage, DecodeError> {
    let reading = ImageReading { channels: channels.parse().ok(), range: range.parse().ok() };
    EncodedImage::new(bytes, 10_000)?.decode_as(reading)
}

fn plain(bytes: &[u8]) -> Vec<u8> {
    read(bytes, "", "").unwrap().image.into_raw()
}

#[test]
fn further_bands_are_left_out_after_the_predictor() {
    // Two pixels of four bands, the second as differences.
    let data = vec![10, 20, 30, 40, 5, 5, 5, 5];
    let predicted = tags(2, 1, 8, 4, &[(317, &[2]), (directory::EXTRA_SAMPLES, &[0])]);
    let bytes = file(&[(predicted, data)], false);
    assert_eq!(plain(&bytes), [10, 20, 30, 15, 25, 35]);
    assert_eq!(read(&bytes, "4,2,1", "").unwrap().image.as_raw(), &[40, 20, 10, 45, 25, 15]);
    let noted = read(&bytes, "", "").unwrap().notes.extra_channel.unwrap();
    assert_eq!((noted.channels, noted.has_opacity), (4, false));
    let message = read(&bytes, "5,2,1", "").unwrap_err().to_string();
    assert!(message.contains("channel 5 is chosen, and it has 4"), "{message}");
}

#[test]
fn bands_without_colors_and_bands_apart_are_read() {
    let gray = |bands: u64, data: Vec<u8>| {
        plain(&file(&[(tags(1, 1, 8, bands, &[(directory::PHOTOMETRIC, &[1])]), data)], true))
    };
    assert_eq!(gray(1, vec![9]), [9, 9, 9]);
    assert_eq!(gray(2, vec![9, 4]), [9, 9, 9]);
    assert_eq!(gray(5, vec![1, 2, 3, 4, 5]), [1, 2, 3]);
    let bilevel = tags(3, 1, 1, 1, &[(directory::PHOTOMETRIC, &[0])]);
    let black_white_black = plain(&file(&[(bilevel, vec![0b1010_0000])], false));
    assert_eq!(black_white_black, [0, 0, 0, 255, 255, 255, 0, 0, 0]);
}

#[test]
fn palettes_are_looked_up() {
    let mut map = vec![0; 48];
    (map[1], map[16 + 1], map[32 + 1]) = (0xFFFF, 0x8000, 0x0100);
    let more: &[(u16, &[u64])] = &[(directory::PHOTOMETRIC, &[3]), (directory::PALETTE, &map)];
    let bytes = file(&[(tags(3, 1, 4, 1, more), vec![0x01, 0x10])], false);
    assert_eq!(plain(&bytes), [0, 0, 0, 255, 128, 1, 255, 128, 1]);
}

#[test]
fn samples_of_other_types_are_read_by_a_range() {
    let float = tags(1, 1, 32, 3, &[(directory::SAMPLE_FORMAT, &[3, 3, 3])]);
    let data = [0.0_f32, 0.5, 1.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    let bytes = file(&[(float, data)], false);
    let message = read(&bytes, "", "").unwrap_err().to_string();
    assert!(message.contains("floating-point samples from 0 to 1 "), "{message}");
    assert_eq!(read(&bytes, "", "0:1").unwrap().image.as_raw(), &[0, 128, 255]);
    let signed = tags(1, 1, 16, 3, &[(directory::SAMPLE_FORMAT, &[2, 2, 2])]);
    let data = [-100_i16, 0, 100].iter().flat_map(|value| value.to_le_bytes()).collect();
    let bytes = file(&[(signed, data)], true);
    assert_eq!(read(&bytes, "", "-100:100").unwrap().image.as_raw(), &[0, 128, 255]);
}

#[test]
fn the_largest_page_that_is_not_reduced_is_taken() {
    let page = |width: u64, kind: u64, value: u8| {
        let tags = tags(width, 1, 8, 3, &[(directory::NEW_SUBFILE_TYPE, &[kind])]);
        (tags, vec![value; width as usize * 3])
    };
    let seen = |pages: &[(Tags, Vec<u8>)]| {
        let noted = read(&file(pages, false), "", "").unwrap();
        (noted.image.width(), noted.image.get_pixel(0, 0)[0], noted.notes.other_pages)
    };
    assert_eq!(seen(&[page(9, 1, 1), page(4, 0, 2)]), (4, 2, 0), "a thumbnail first");
    assert_eq!(seen(&[page(4, 0, 1), page(2, 1, 2), page(4, 4, 3)]), (4, 1, 0), "overview, mask");
    assert_eq!(seen(&[page(4, 0, 1), page(4, 0, 2), page(5, 0, 3)]), (5, 3, 2));
    assert_eq!(seen(&[page(4, 0, 1), page(4, 0, 2)]), (4, 1, 1), "the first of equals");
    assert_eq!(seen(&[page(4, 1, 1), page(2, 1, 2)]), (4, 1, 0), "nothing else");
    let large = file(&[page(4, 0, 1), page(20_000, 0, 2)], false);
    assert!(matches!(EncodedImage::new(large, 10_000), Err(DecodeError::TooLarge { .. })));
}

#[test]
fn the_place_on_earth_and_missing_data_are_kept() {
    let scale = [0.5_f64, 0.5, 0.0].map(f64::to_bits);
    let tie = [0.0, 0.0, 0.0, 500_000.0, 5_400_000.0, 0.0].map(f64::to_bits);
    let nodata = b"65535\0".map(u64::from);
    let more: &[(u16, &[u64])] =
        &[(33_550, &scale), (33_922, &tie), (34_735, &[1, 1, 0, 0]), (42_113, &nodata)];
    let data = [4000_u16, 65_535, 7].iter().flat_map(|value| value.to_le_bytes()).collect();
    for wide in [false, true] {
        let bytes = file(&[(tags(1, 1, 16, 3, more), Vec::clone(&data))], wide);
        let image = EncodedImage::new(bytes, 100).unwrap();
        let geo = image.geo_reference().unwrap();
        assert_eq!(geo.affine(), Some([0.5, 0.0, 500_000.0, 0.0, -0.5, 5_400_000.0]));
        assert_eq!(
            (geo.nodata_value(), &geo.key_directory[..]),
            (Some(65_535.0), &[1, 1, 0, 0][..])
        );
        let noted = image.decode_as(ImageReading::default()).unwrap();
        assert_eq!(noted.notes.unused_range.unwrap().largest, 4000);
    }
}

#[test]
fn what_is_not_read_is_said_in_plain_words() {
    let message = |more: &[(u16, &[u64])], bands: u64, length: usize| {
        let bytes = file(&[(tags(2, 2, 8, bands, more), vec![0; length])], false);
        read(&bytes, "", "").unwrap_err().to_string()
    };
    for (more, bands, expected) in [
        (&[(directory::COMPRESSION, &[34_887_u64][..])][..], 3, "34887) compression"),
        (&[(directory::PHOTOMETRIC, &[8])], 3, "L*a*b*"),
        (&[(directory::PHOTOMETRIC, &[6])], 3, "subsampled chroma"),
        (&[(directory::PHOTOMETRIC, &[32_803])], 1, "sensor"),
        (&[(directory::PHOTOMETRIC, &[3])], 1, "without a palette"),
        (&[(directory::BITS, &[12])], 1, "gdal_translate"),
    ] {
        let message = message(more, bands, 12);
        assert!(message.contains(expected) && message.contains("gdal_translate"), "{message}");
    }
    let whole = file(&[(tags(2, 2, 8, 3, &[]), vec![0; 12])], false);
    assert_eq!(plain(&whole).len(), 12);
    let short = message(&[], 3, 7);
    assert!(short.contains("need 12 bytes, and it has 7"), "{short}");
    for length in 0..whole.len() {
        assert!(read(&whole[..length], "", "").is_err(), "cut to {length}");
    }
    let mut changed = whole.clone();
    for place in 0..whole.len() {
        for value in [0, 1, 0x7F, 0xFF] {
            changed[place] = value;
            // Any answer is fine but a panic or an allocation without bound.
            drop(read(&changed, "", ""));
        }
        changed[place] = whole[place];
    }
}

#[test]
fn pages_agree_with_the_image_crate() {
    let colors =
        RgbImage::from_fn(37, 29, |x, y| Rgb([(x * 7) as u8, (y * 8) as u8, (x ^ y) as u8]));
    let mut bytes = Cursor::new(Vec::new());
    image::DynamicImage::ImageRgb8(colors.clone())
        .into_rgba16()
        .write_to(&mut bytes, image::ImageFormat::Tiff)
        .unwrap();
    let noted = read(bytes.get_ref(), "", "").unwrap();
    assert_eq!((noted.image, noted.notes), (colors, ImageNotes::default()));
}
