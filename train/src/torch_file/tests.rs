//! Checkpoints written by PyTorch (`train/tests/fixtures/torch_file`), handmade and hostile ones.

use std::io::{Cursor, Write};
use std::path::Path;

use protoseg_models::weights::{StateDict, Tensor};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::{TorchFileError, TorchFileFault, parse, read};

const ZIP: &[u8] = include_bytes!("../../tests/fixtures/torch_file/zip.pth");
const LEGACY: &[u8] = include_bytes!("../../tests/fixtures/torch_file/legacy.pth");

/// A pickle of `{"w": tensor}` up to the tensor's arguments behind its storage, `data/0` with 6
/// floats.
const UP_TO_STORAGE: &[u8] =
    b"\x80\x02}U\x01wctorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x06tQ";

fn tensor(shape: &[usize], data: &[f32]) -> Tensor {
    Tensor { shape: shape.to_vec(), data: data.to_vec() }
}

/// A zip checkpoint with these entries.
fn archive(entries: &[(&str, &[u8])], compression: CompressionMethod) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        let options = SimpleFileOptions::default().compression_method(compression);
        writer.start_file(format!("archive/{name}"), options).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn parse_pickle(pickle: &[u8]) -> Result<StateDict, TorchFileFault> {
    let floats: Vec<u8> = (0..6u8).flat_map(|value| f32::from(value).to_le_bytes()).collect();
    parse(&archive(&[("data.pkl", pickle), ("data/0", &floats)], CompressionMethod::Stored))
}

/// `{"w": tensor}` with the tensor's offset, shape and strides given as opcodes.
fn parse_view(view: &[u8]) -> Result<StateDict, TorchFileFault> {
    parse_pickle(&[UP_TO_STORAGE, view, b"\x89NtRs."].concat())
}

fn message(bytes: &[u8]) -> String {
    let fault = parse(bytes).unwrap_err();
    TorchFileError { path: "a.pth".into(), fault }.to_string()
}

#[test]
fn both_formats_give_the_weights_of_a_trainer() {
    let expected = StateDict::from([
        ("grid".to_owned(), tensor(&[2, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0])),
        ("transposed".to_owned(), tensor(&[3, 2], &[0.0, 3.0, 1.0, 4.0, 2.0, 5.0])),
        ("row".to_owned(), tensor(&[2], &[4.0, 5.0])),
        ("half".to_owned(), tensor(&[3], &[1.5, -65504.0, 2f32.powi(-24)])),
        ("bfloat".to_owned(), tensor(&[2], &[1.5, -3.0])),
        ("double".to_owned(), tensor(&[1], &[0.1])),
        ("scalar".to_owned(), tensor(&[], &[7.0])),
        ("empty".to_owned(), tensor(&[0, 3], &[])),
        ("repeated".to_owned(), tensor(&[2, 2], &[9.0; 4])),
    ]);
    assert_eq!(parse(ZIP).unwrap(), expected);
    assert_eq!(parse(LEGACY).unwrap(), expected);
}

#[test]
fn a_file_cut_at_any_length_is_refused() {
    for whole in [ZIP, LEGACY] {
        for length in 0..whole.len() {
            let fault = parse(&whole[..length]).unwrap_err();
            assert!(
                matches!(fault, TorchFileFault::Truncated),
                "{length} of {} bytes: {fault:?}",
                whole.len()
            );
        }
    }
    assert_eq!(message(&ZIP[..2000]), "a.pth: the file is cut short; download or copy it again");
}

#[test]
fn a_file_with_any_byte_changed_does_no_harm() {
    for whole in [ZIP, LEGACY] {
        for place in 0..whole.len() {
            let mut bytes = whole.to_vec();
            bytes[place] ^= 0xff;
            // The weights or an error: only a panic would be wrong.
            let _ = parse(&bytes);
        }
    }
    // A zip's checksums stop most changes above before they reach the pickle.
    let pickle = [UP_TO_STORAGE, b"K\x00K\x02K\x03\x86K\x03K\x01\x86\x89NtRs."].concat();
    for place in 0..pickle.len() {
        for change in [0xff, 0x80, 0x10, 0x03, 0x02, 0x01] {
            let mut pickle = pickle.clone();
            pickle[place] ^= change;
            let _ = parse_pickle(&pickle);
        }
    }
}

#[test]
fn a_changed_storage_fails_its_checksum() {
    let mut bytes = ZIP.to_vec();
    let grid = 1f32.to_le_bytes().into_iter().chain(2f32.to_le_bytes()).collect::<Vec<u8>>();
    let place = bytes.windows(8).position(|window| window == grid).unwrap();
    bytes[place] ^= 1;
    assert!(matches!(parse(&bytes), Err(TorchFileFault::Archive { .. })));
}

#[test]
fn nothing_is_called() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let command = format!("touch {}", trace.display());
    let call = [
        b"cos\nsystem\nX",
        &(command.len() as u32).to_le_bytes()[..],
        command.as_bytes(),
        b"\x85R",
    ]
    .concat();
    // In place of the weights it is an error, beside them it does not matter.
    assert!(matches!(
        parse_pickle(&[b"\x80\x02", &call[..], b"."].concat()),
        Err(TorchFileFault::NoWeights { .. })
    ));
    let weights = &[UP_TO_STORAGE, b"K\x00))\x89NtRs"].concat()[2..];
    let beside = [b"\x80\x02}U\x05model", weights, b"sU\x05other", &call[..], b"s."].concat();
    assert_eq!(parse_pickle(&beside).unwrap()["w"], tensor(&[], &[0.0]));
    assert!(!trace.exists());
}

#[test]
fn views_stay_inside_their_storage() {
    let step = parse_view(b"K\x01K\x02K\x02\x86K\x03K\x01\x86").unwrap();
    assert_eq!(step["w"], tensor(&[2, 2], &[1.0, 2.0, 4.0, 5.0]));
    let past = parse_view(b"K\x01K\x02K\x03\x86K\x03K\x01\x86");
    assert!(matches!(
        past,
        Err(TorchFileFault::Tensor { why: "reaches past the end of its storage", .. })
    ));
    let largest = b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f";
    let overflowing: [&[&[u8]]; 6] = [
        &[b"K\x00", largest, largest, b"\x86K\x00K\x00\x86"],
        &[b"K\x00", largest, largest, b"K\x00\x87K\x00K\x00K\x00\x87"],
        &[b"K\x00K\x03K\x03\x86", largest, largest, b"\x86"],
        &[largest, b"K\x03\x85K\x01\x85"],
        &[b"J\xff\xff\xff\xffK\x03\x85K\x01\x85"],
        &[b"K\x00K\x03\x85J\xff\xff\xff\xff\x85"],
    ];
    for view in overflowing {
        assert!(
            matches!(parse_view(&view.concat()), Err(TorchFileFault::Tensor { .. })),
            "{view:?}"
        );
    }
    // A single element, repeated ten million times.
    assert!(matches!(
        parse_view(b"K\x00J\x80\x96\x98\x00\x85K\x00\x85"),
        Err(TorchFileFault::TooLarge)
    ));
}

#[test]
fn hostile_pickles_are_bounded() {
    let cycle = b"\x80\x02}q\x00U\x05modelh\x00sU\x03emah\x00s.";
    assert!(matches!(parse_pickle(cycle), Err(TorchFileFault::NoWeights { .. })));
    let deep = [b"\x80\x02", &b"(".repeat(100_000)[..], &b"t".repeat(100_000), b"."].concat();
    assert!(matches!(parse_pickle(&deep), Err(TorchFileFault::NoWeights { .. })));
    let endless = [b"\x80\x02N", &b"20".repeat(1 << 21)[..], b"."].concat();
    assert!(matches!(parse_pickle(&endless), Err(TorchFileFault::TooLarge)));
    let zeros = vec![0; 4 << 20];
    let bomb = archive(&[("data.pkl", &zeros)], CompressionMethod::Deflated);
    assert!(matches!(parse(&bomb), Err(TorchFileFault::TooLarge)));
    for pickle in [
        &b"\x80\x02."[..],
        b"\x80\x020.",
        b"\x80\x02(0.",
        b"\x80\x02t.",
        b"\x80\x02h\x05.",
        b"\x80\x02Pid\n.",
    ] {
        assert!(matches!(parse_pickle(pickle), Err(TorchFileFault::Pickle { .. })), "{pickle:?}");
    }
}

#[test]
fn the_first_known_key_holds_the_weights() {
    let weights = |offset: u8| [&UP_TO_STORAGE[2..], b"K", &[offset], b"))\x89NtRs"].concat();
    let both = [b"\x80\x02}U\x05model", &weights(1)[..], b"sU\x03ema", &weights(2), b"s."].concat();
    assert_eq!(parse_pickle(&both).unwrap()["w"], tensor(&[], &[2.0]));
    let nested =
        [b"\x80\x02}U\x03ema}U\x05model", &weights(3)[..], b"ssU\x05model", &weights(1), b"s."]
            .concat();
    assert_eq!(parse_pickle(&nested).unwrap()["w"], tensor(&[], &[3.0]));
    // An averaged model that is not readable does not silently give way to the plain one; a flag or
    // a rate does.
    let object =
        [b"\x80\x02}U\x05model", &weights(1)[..], b"sU\x03emacnet\nNet\n)\x81}bs."].concat();
    assert!(matches!(parse_pickle(&object), Err(TorchFileFault::NoWeights { .. })));
    let flag = [b"\x80\x02}U\x05model", &weights(1)[..], b"sU\x03ema\x88s."].concat();
    assert_eq!(parse_pickle(&flag).unwrap()["w"], tensor(&[], &[1.0]));
}

#[test]
fn other_files_are_named_for_what_they_are() {
    let program =
        archive(&[("data.pkl", b"\x80\x02}."), ("code/net.py", b"")], CompressionMethod::Stored);
    assert!(message(&program).contains("TorchScript"));
    let big =
        archive(&[("data.pkl", b"\x80\x02}."), ("byteorder", b"big")], CompressionMethod::Stored);
    assert!(message(&big).contains("big-endian"));
    assert!(
        message(&archive(&[("a.txt", b"")], CompressionMethod::Stored))
            .contains("without a data.pkl")
    );
    assert!(message(b"\n<!DOCTYPE html><html></html>").contains("a web page"));
    assert!(message(b"version https://git-lfs.github.com/spec/v1\n").contains("git lfs pull"));
    assert!(message(b"\x02\0\0\0\0\0\0\0{}").contains("rename it to end in .safetensors"));
    assert!(
        message(&[b"weights.pth".as_slice(), &[0; 246], b"ustar\x0000", &[0; 300]].concat())
            .contains("a tar archive")
    );
    assert!(message(b"\x80\x02}.").contains("torch.save did not write"));
    assert!(message(b"\x89PNG\r\n").contains("not a PyTorch checkpoint"));
    let path = Path::new("no such folder/a.pth");
    assert!(read(path).unwrap_err().to_string().starts_with("no such folder/a.pth: "));
}
