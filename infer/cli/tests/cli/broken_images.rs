//! A folder with every kind of broken image.

use std::fs;

use image::{DynamicImage, ImageFormat};

use crate::common::{IMAGE, IMAGE_FIXTURES, TestDir, answer, fixture, results, stripes};

/// PNG with a valid header of the given size and truncated pixels.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut chunk = b"IHDR".to_vec();
    chunk
        .extend(width.to_be_bytes().into_iter().chain(height.to_be_bytes()).chain([8, 2, 0, 0, 0]));
    let mut sum = u32::MAX;
    for byte in &chunk {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = if sum & 1 == 1 { sum >> 1 ^ 0xEDB8_8320 } else { sum >> 1 };
        }
    }
    [
        b"\x89PNG\r\n\x1a\n\0\0\0\x0d".as_slice(),
        &chunk,
        &(!sum).to_be_bytes(),
        b"\0\0\x10\0IDAT\x78\x01",
    ]
    .concat()
}

#[test]
fn broken_images_of_a_folder_are_skipped() {
    let dir = TestDir::new();
    fs::create_dir(dir.at("odd")).unwrap();
    let at = |name: &str| dir.at("odd").join(name);
    let usual = DynamicImage::from(stripes(48, 32));
    let formats = [
        ("png", ImageFormat::Png),
        ("jpg", ImageFormat::Jpeg),
        ("webp", ImageFormat::WebP),
        ("tif", ImageFormat::Tiff),
    ];
    for (ending, format) in formats {
        usual.save_with_format(at(&format!("whole-{ending}.{ending}")), format).unwrap();
        fs::copy(at(&format!("whole-{ending}.{ending}")), at(&format!("cut-{ending}.{ending}")))
            .unwrap();
        dir.cut(&format!("odd/cut-{ending}.{ending}"));
    }
    usual.save_with_format(at("whole-jpeg-called.png"), ImageFormat::Jpeg).unwrap();
    usual.to_rgb16().save(at("whole-deep.png")).unwrap();
    for name in ["cmyk_adobe", "cmyk_plain"] {
        fs::copy(fixture(IMAGE_FIXTURES).join(format!("{name}.jpg")), at(&format!("{name}.jpg")))
            .unwrap();
    }
    fs::write(at("empty.png"), "").unwrap();
    fs::write(at("text.jpg"), "hello, I am no image").unwrap();
    fs::write(at("gif.png"), b"GIF89a\x01\x00\x01\x00\x00\x00\x00").unwrap();
    fs::write(at("bomb.png"), png_header(60_000, 60_000)).unwrap();
    fs::write(at("giant.png"), png_header(1 << 31, 1 << 31)).unwrap();
    // A JPEG header that claims more pixels than its data can hold.
    let small = fs::read(at("whole-jpg.jpg")).unwrap();
    let frame = small.windows(2).position(|pair| pair == [0xFF, 0xC0]).unwrap();
    let claim = [&small[..frame + 5], &[54, 176, 54, 176], &small[frame + 9..]].concat();
    fs::write(at("claim-jpg.jpg"), claim).unwrap();
    fs::write(at("no-pixels.png"), png_header(0, 7)).unwrap();
    fs::write(at("header-only.png"), png_header(10_000, 10_000)).unwrap();
    fs::write(at("garbage.tif"), b"II*\0\xff\xff\xff\xff").unwrap();
    fs::write(at("garbage-webp.webp"), b"RIFF\x10\0\0\0WEBPVP8L\xff\xff\xff\xff").unwrap();
    fs::create_dir(at("folder.png")).unwrap();
    std::os::unix::fs::symlink(at("nowhere"), at("dangling.png")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(at("pipe.png")).status().unwrap().success());
    std::os::unix::fs::symlink("/dev/zero", at("endless.png")).unwrap();
    let given = answer(&mut dir.command("label bundle odd --out out"));
    assert!(given.status == 3 && given.stdout.starts_with("7 labeled, 18 failed"), "{given:?}");
    assert_eq!(given.stderr.lines().count(), 18, "{given:?}");
    let parts = [
        (
            "bomb.png",
            "60000x60000 pixels are more than the limit of 200000000; scale it down, or raise --max-pixels",
        ),
        ("claim-jpg.jpg", "cut short"),
        ("cmyk_plain.jpg", "a CMYK JPEG without Adobe's marker"),
        ("cut-jpg.jpg", "cut short"),
        ("cut-png.png", "broken or cut short"),
        ("cut-tif.tif", "broken or cut short"),
        ("cut-webp.webp", "broken or cut short"),
        ("dangling.png", "No such file"),
        ("empty.png", "not an image of a known format"),
        ("endless.png", "is not a file"),
        ("garbage-webp.webp", "broken or cut short"),
        ("garbage.tif", "broken or cut short"),
        ("giant.png", "2147483648x2147483648 pixels are more than the limit of 200000000"),
        ("gif.png", "broken or cut short"),
        ("header-only.png", "broken or cut short"),
        ("no-pixels.png", "broken or cut short"),
        ("pipe.png", "is not a file"),
        ("text.jpg", "not an image of a known format"),
    ];
    let failed = fs::read_to_string(dir.at("out/.protoseg/failed.jsonl")).unwrap();
    let mut failed: Vec<serde_json::Value> =
        failed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    failed.sort_by_key(|failed| failed[IMAGE].as_str().map(str::to_owned));
    assert_eq!(failed.len(), parts.len());
    for (failed, (name, part)) in failed.iter().zip(parts) {
        assert_eq!(failed[IMAGE], name);
        let error = failed["error"].as_str().unwrap();
        assert!(error.starts_with(&format!("odd/{name}")) && error.contains(part), "{error}");
        assert!(given.stderr.contains(&format!("error: {error}\n")), "{error}");
    }
    let names = results(&dir.at("out"));
    assert_eq!(names.len(), 7, "{names:?}");
    assert!(
        names.iter().all(|name| name.contains("whole-") || name.contains("cmyk_adobe")),
        "{names:?}"
    );
}

#[test]
fn failed_images_are_accepted_up_to_a_number() {
    let dir = TestDir::new();
    for name in ["b", "c"] {
        fs::write(dir.at(&format!("in/images/{name}.png")), "no image").unwrap();
    }
    let run = |line: &str| answer(&mut dir.command(&format!("label bundle in/images {line}")));
    for (options, status, said) in [
        ("", 3, ""),
        ("--accept-failed 0", 3, ""),
        ("--accept-failed 1", 3, "warning: --accept-failed 1: 2 images failed, which are more"),
        ("--accept-failed 2", 0, "note: 2 images failed; --accept-failed 2 accepts them"),
        ("--accept-failed 9", 0, "note: 2 images failed; --accept-failed 9 accepts them"),
    ] {
        let given = run(format!("--out out --resume {options}").trim_end());
        assert_eq!(given.status, status, "{options}: {given:?}");
        assert!(given.stderr.contains(said), "{options}: {given:?}");
        assert!(given.stderr.contains("error: in/images/b.png"), "{options}: {given:?}");
        assert!(given.stdout.contains("2 failed"), "{options}: {given:?}");
        let failed = fs::read_to_string(dir.at("out/.protoseg/failed.jsonl")).unwrap();
        assert_eq!(failed.lines().count(), 2, "{options}");
    }
    for (most, status) in [(1, 3), (2, 0)] {
        let line = format!("merge out --bundle bundle --accept-failed {most}");
        let given = answer(&mut dir.command(&line));
        assert_eq!(given.status, status, "{given:?}");
    }
    // Nothing but failures is none.
    fs::remove_file(dir.at("in/images/a.png")).unwrap();
    let given = run("--out none --accept-failed 5");
    assert!(given.status == 3 && given.stderr.contains("no image was labeled"), "{given:?}");
}
