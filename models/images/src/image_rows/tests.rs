use std::io::Cursor;

use image::{DynamicImage, ImageBuffer, Luma, LumaA, Rgb, RgbImage, Rgba};
use protoseg_models::random::Stream;

use super::*;
use crate::geo::Place;
use crate::image_file::{ImageFile, NotedImage};
use crate::tiff_file::tests::{TiffKind, tiff};

/// Reads a file by rows: pixels, those without data, and remarks.
fn by_rows(path: &Path, reading: ImageReading) -> Result<NotedImage, ImageFileError> {
    let file = RowFile::open(path)?.expect("a TIFF or PNG");
    let [height, width] = file.size();
    assert_eq!(file.obstacle()?, None);
    let mut rows = file.rows(reading)?;
    let geo = rows.geo_reference().cloned();
    let mut pixels = Vec::new();
    let mut missing = Vec::new();
    loop {
        let before = pixels.len() / 3;
        let count = rows.read(&mut pixels)?;
        assert_eq!(pixels.len() / 3 - before, count * width);
        if count == 0 {
            break;
        }
        assert!([0, count * width].contains(&rows.missing().len()));
        if !rows.missing().is_empty() {
            missing.resize(before, false);
            missing.extend_from_slice(rows.missing());
        }
    }
    if !missing.is_empty() {
        missing.resize(height * width, false);
    }
    let image = RgbImage::from_raw(width as u32, height as u32, pixels).expect("all pixels");
    let place = geo.map(|geo| Place { geo, missing });
    Ok(NotedImage { image, notes: rows.finish()?, place })
}

fn reading(channels: &str, range: &str) -> ImageReading {
    ImageReading { channels: channels.parse().ok(), range: range.parse().ok() }
}

/// Compares a file by rows with the same in memory, and returns its pixels.
fn compare(path: &Path, reading: ImageReading, what: &str) -> Option<RgbImage> {
    let found = by_rows(path, reading).map_err(|error| error.to_string());
    let whole = ImageFile::read(path, u64::MAX).expect("a header").decode_as(reading);
    assert!(found == whole.map_err(|error| error.to_string()), "{what}: {reading:?}");
    found.ok().map(|noted| noted.image)
}

#[test]
fn rows_of_every_layout_are_those_of_the_whole_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.tif");
    for wide in [false, true] {
        for big_endian in [false, true] {
            for (bits, format) in
                [(1, 1), (2, 1), (4, 1), (8, 1), (16, 1), (16, 2), (32, 3), (64, 3)]
            {
                for (bands, planar) in [(1, false), (3, false), (3, true), (5, false), (5, true)] {
                    for chunk in [[70, 9], [70, 1], [70, 57], [16, 16], [32, 16], [128, 64]] {
                        let kind = TiffKind {
                            wide,
                            big_endian,
                            bits,
                            format,
                            bands,
                            planar,
                            chunk,
                            ..TiffKind::default()
                        };
                        std::fs::write(&path, tiff([70, 57], kind)).expect("a file");
                        let what = format!("{kind:?}");
                        for channels in ["", "3,1,5", "2,1,1"] {
                            compare(&path, reading(channels, ""), &what);
                            compare(&path, reading(channels, "3:11"), &what);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn pngs_of_every_kind_are_those_of_the_whole_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.png");
    let stream = Stream::named("samples");
    let draw = |x: u32, y: u32, band: u64| {
        stream.below((u64::from(x) << 40) + (u64::from(y) << 8) + band, 65_536)
    };
    let byte = |x, y, band| (draw(x, y, band) >> 8) as u8;
    let word = |x, y, band| (draw(x, y, band) >> 3) as u16;
    let (width, height) = (301, 97);
    let images: [DynamicImage; 8] = [
        ImageBuffer::from_fn(width, height, |x, y| Luma([byte(x, y, 0)])).into(),
        ImageBuffer::from_fn(width, height, |x, y| LumaA([byte(x, y, 0), byte(x, y, 1)])).into(),
        ImageBuffer::from_fn(width, height, |x, y| Rgb([0, 1, 2].map(|band| byte(x, y, band))))
            .into(),
        ImageBuffer::from_fn(width, height, |x, y| Rgba([0, 1, 2, 3].map(|band| byte(x, y, band))))
            .into(),
        ImageBuffer::from_fn(width, height, |x, y| Luma([word(x, y, 0)])).into(),
        ImageBuffer::from_fn(width, height, |x, y| LumaA([word(x, y, 0), word(x, y, 1)])).into(),
        ImageBuffer::from_fn(width, height, |x, y| Rgb([0, 1, 2].map(|band| word(x, y, band))))
            .into(),
        ImageBuffer::from_fn(width, height, |x, y| Rgba([0, 1, 2, 3].map(|band| word(x, y, band))))
            .into(),
    ];
    for image in images {
        image.save(&path).expect("a PNG");
        for channels in ["", "color", "alpha-white", "3,1,2", "2,2,1"] {
            compare(&path, reading(channels, ""), &format!("{:?}", image.color()));
            compare(&path, reading(channels, "100:5000"), &format!("{:?}", image.color()));
        }
    }
    // Palettes, and samples of less than a byte.
    for (color, depth) in [
        (ColorType::Indexed, BitDepth::Two),
        (ColorType::Indexed, BitDepth::Eight),
        (ColorType::Grayscale, BitDepth::One),
        (ColorType::Grayscale, BitDepth::Four),
    ] {
        for transparent in [false, true] {
            let mut bytes = Vec::new();
            let mut encoder = png::Encoder::new(&mut bytes, 33, 20);
            encoder.set_color(color);
            encoder.set_depth(depth);
            if color == ColorType::Indexed {
                encoder.set_palette(
                    (0..=255).flat_map(|id: u8| [id, 255 - id, id / 2]).collect::<Vec<_>>(),
                );
            }
            if transparent {
                encoder.set_trns(vec![0, 1]);
            }
            let row = (33 * depth as usize).div_ceil(8);
            let data: Vec<u8> = (0..row * 20).map(|index| (index * 37 % 251) as u8).collect();
            encoder.write_header().expect("a header").write_image_data(&data).expect("data");
            std::fs::write(&path, bytes).expect("a file");
            compare(&path, reading("", ""), &format!("{color:?} {depth:?}"));
        }
    }
}

#[test]
fn broken_and_changed_files_are_errors() {
    let folder = tempfile::tempdir().expect("a folder");
    let kind = TiffKind { bands: 3, chunk: [16, 16], ..TiffKind::default() };
    let tiff = tiff([40, 40], kind);
    let mut png = Cursor::new(Vec::new());
    let noise = Stream::named("noise");
    let pixel = |x: u32, y: u32| Rgb([noise.below(u64::from(x * 64 + y), 256) as u8; 3]);
    RgbImage::from_fn(40, 40, pixel).write_to(&mut png, ImageFormat::Png).expect("a PNG");
    for bytes in [tiff, png.into_inner()] {
        let path = folder.path().join("x");
        for length in (0..bytes.len().saturating_sub(16)).step_by(7) {
            std::fs::write(&path, &bytes[..length]).expect("a file");
            let opened = RowFile::open(&path);
            if matches!(opened, Ok(None)) {
                continue;
            }
            let read = opened.and_then(|_| by_rows(&path, ImageReading::default()));
            assert!(read.is_err(), "cut to {length} of {}", bytes.len());
        }
        let mut changed = bytes.clone();
        for place in 0..bytes.len().min(300) {
            for value in [0, 1, 0x7F, 0xFF] {
                changed[place] = value;
                std::fs::write(&path, &changed).expect("a file");
                // Any answer is fine but a panic or an allocation without bound.
                if let Ok(Some(file)) = RowFile::open(&path)
                    && file.pixels() < 1 << 20
                    && let Ok(mut rows) = file.rows(ImageReading::default())
                {
                    let mut pixels = Vec::new();
                    while rows.read(&mut pixels).is_ok_and(|rows| rows > 0) {}
                }
            }
            changed[place] = bytes[place];
        }
    }
}

#[test]
fn reasons_against_rows_are_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.tif");
    let obstacle = |bytes: &[u8]| {
        std::fs::write(&path, bytes).expect("a file");
        RowFile::open(&path).expect("a header").expect("a TIFF or PNG").obstacle().expect("tags")
    };
    let turned = TiffKind { orientation: 6, ..TiffKind::default() };
    assert_eq!(obstacle(&tiff([40, 30], turned)), Some(NotByRows::Turned));
    let file = |size| RowFile::open(&path).expect("a header").expect("a TIFF").size() == size;
    assert!(file([40, 30]), "the size as it is seen");
    // Only the header is there: 20000 rows in one compressed strip, or in one that is not.
    let header = |compression| {
        let kind =
            TiffKind { bands: 3, chunk: [20_000, 20_000], compression, ..TiffKind::default() };
        crate::tiff_file::tests::tiff_header([20_000, 20_000], kind)
    };
    let found = obstacle(&header(8));
    assert!(matches!(found, Some(NotByRows::Blocks { rows: 20_000, .. })), "{found:?}");
    assert_eq!(obstacle(&header(1)), None, "it is read in parts");
    let mut png = Cursor::new(Vec::new());
    RgbImage::new(9, 7).write_to(&mut png, ImageFormat::Png).expect("a PNG");
    let mut png = png.into_inner();
    assert_eq!(obstacle(&png), None);
    let orientation = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    let mut chunk = (orientation.len() as u32).to_be_bytes().to_vec();
    chunk.extend(b"eXIf");
    chunk.extend(orientation);
    let mut crc = flate2::Crc::new();
    crc.update(&chunk[4..]);
    chunk.extend(crc.sum().to_be_bytes());
    let mut turned = png.clone();
    turned.splice(33..33, chunk);
    assert_eq!(obstacle(&turned), Some(NotByRows::Turned));
    png[28] = 1;
    assert_eq!(obstacle(&png), Some(NotByRows::Interlaced));
    let jpeg = [0xFF, 0xD8, 0xFF, 0xE0];
    std::fs::write(&path, jpeg).expect("a file");
    assert!(RowFile::open(&path).expect("no error").is_none());
    assert!(RowFile::open(folder.path()).expect("no error").is_none());
    assert!(RowFile::open(&folder.path().join("none")).expect("no error").is_none());
}

#[test]
fn large_uncompressed_strips_are_read_in_parts() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.tif");
    for (bits, format, big_endian, planar) in [
        (8, 1, false, false),
        (8, 1, false, true),
        (16, 1, true, false),
        (16, 2, false, false),
        (32, 3, true, true),
    ] {
        // More than 16 MiB in a strip.
        let kind = TiffKind {
            bits,
            format,
            big_endian,
            planar,
            bands: 3,
            chunk: [2500, 2400],
            ..TiffKind::default()
        };
        std::fs::write(&path, tiff([2500, 2400], kind)).expect("a file");
        let image = compare(&path, reading("", if bits > 8 { "0:200" } else { "" }), "parts");
        let image = image.expect("pixels");
        // Rows of whole strips are decoded by the `tiff` crate.
        let kind = TiffKind { chunk: [2500, 300], ..kind };
        std::fs::write(&path, tiff([2500, 2400], kind)).expect("a file");
        let whole = compare(&path, reading("", if bits > 8 { "0:200" } else { "" }), "strips");
        assert!(whole.expect("pixels") == image, "{bits} bits of format {format}");
    }
}
