//! Texts of class files, in the encodings in which editors save them.

use std::path::Path;

use super::ClassError;
use crate::errors::FileError;

/// Reads a class file: UTF-8, or UTF-16 with a byte order mark, which is left out. Other encodings
/// are refused, as only their author knows which letters are meant.
pub fn read_class_text(path: &Path) -> Result<String, ClassError> {
    let bytes = std::fs::read(path).map_err(FileError::at(path))?;
    decode(bytes).map_err(|Undecodable { line, value }| ClassError::Encoding {
        path: path.into(),
        line,
        value,
    })
}

/// The first bytes that are no text: the line from 1, and the value.
#[derive(Debug, PartialEq, Eq)]
struct Undecodable {
    line: usize,
    value: u16,
}

fn decode(bytes: Vec<u8>) -> Result<String, Undecodable> {
    match bytes.as_slice() {
        [0xFF, 0xFE, rest @ ..] => decode_utf16(rest, u16::from_le_bytes),
        [0xFE, 0xFF, rest @ ..] => decode_utf16(rest, u16::from_be_bytes),
        _ => match String::from_utf8(bytes) {
            Ok(mut text) => {
                if text.starts_with('\u{feff}') {
                    text.remove(0);
                }
                Ok(text)
            }
            Err(error) => {
                let valid = error.utf8_error().valid_up_to();
                let (before, after) = error.as_bytes().split_at(valid);
                let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
                Err(Undecodable { line, value: after.first().copied().unwrap_or_default().into() })
            }
        },
    }
}

fn decode_utf16(bytes: &[u8], read: fn([u8; 2]) -> u16) -> Result<String, Undecodable> {
    let (pairs, odd) = bytes.as_chunks::<2>();
    let mut text = String::new();
    let line = |text: &str| 1 + text.matches('\n').count();
    for letter in char::decode_utf16(pairs.iter().map(|pair| read(*pair))) {
        match letter {
            Ok(letter) => text.push(letter),
            Err(error) => {
                return Err(Undecodable { line: line(&text), value: error.unpaired_surrogate() });
            }
        }
    }
    match odd {
        [] => Ok(text),
        [byte, ..] => Err(Undecodable { line: line(&text), value: (*byte).into() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_of_editors_are_read_and_others_named() {
        let text = "0 été\n1 route\n";
        let with = |mark: char, bytes: fn(u16) -> [u8; 2]| {
            format!("{mark}{text}").encode_utf16().flat_map(bytes).collect::<Vec<u8>>()
        };
        for bytes in [
            text.as_bytes().to_vec(),
            format!("\u{feff}{text}").into_bytes(),
            with('\u{feff}', u16::to_le_bytes),
            with('\u{feff}', u16::to_be_bytes),
        ] {
            assert_eq!(decode(bytes).as_deref(), Ok(text));
        }
        assert_eq!(
            decode(b"0 a\n1 \xE9t\xE9\n".to_vec()),
            Err(Undecodable { line: 2, value: 0xE9 })
        );
        assert_eq!(decode(b"\xFF\xFEa\0b".to_vec()), Err(Undecodable { line: 1, value: 0x62 }));
        let surrogate = decode(b"\xFE\xFF\0\n\xD8\x00".to_vec());
        assert_eq!(surrogate, Err(Undecodable { line: 2, value: 0xD800 }));

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("classes.txt");
        std::fs::write(&path, b"0 a\n1 \xE9t\xE9\n").unwrap();
        let message = read_class_text(&path).unwrap_err().to_string();
        for part in ["classes.txt: line 2", "0xe9", "UTF-8", "iconv"] {
            assert!(message.contains(part), "{part}: {message}");
        }
    }
}
