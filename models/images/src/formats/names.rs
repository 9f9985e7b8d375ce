//! Names of pictures as text in others' files.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::FormatError;

/// A picture's name as that of a PNG, whose ending replaces its own. The name `..png` stays what it is: its stem is a dot,
/// after which the standard library's function would leave the way to the folder around it.
pub fn png_name(name: &Path) -> PathBuf {
    let mut file = name.file_stem().unwrap_or_default().to_owned();
    file.push(".png");
    name.with_file_name(file)
}

/// A picture's name as text with slashes.
pub(super) fn text(name: &Path) -> Result<&str, FormatError> {
    let refused = |reason| FormatError::Name { name: name.into(), reason };
    let text = name
        .to_str()
        .ok_or_else(|| refused("has a name that is no UTF-8, which the format cannot hold"))?;
    if text.contains(char::is_control) {
        return Err(refused("has a name with control characters, which the format cannot hold"));
    }
    Ok(text)
}

/// A name in which every byte but those that `keep` accepts is written as `%` and two hexadecimal digits, so that different
/// names stay different.
pub(super) fn percent_encoded(name: &Path, keep: fn(char) -> bool) -> String {
    let mut encoded = String::new();
    for chunk in name.as_os_str().as_encoded_bytes().utf8_chunks() {
        for character in chunk.valid().chars() {
            if keep(character) && character != '%' {
                encoded.push(character);
            } else {
                push_bytes(&mut encoded, character.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        push_bytes(&mut encoded, chunk.invalid());
    }
    encoded
}

fn push_bytes(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "%{byte:02X}");
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn every_name_becomes_that_of_a_png() {
        for (name, png) in [
            ("a/b.c.jpg", "a/b.c.png"),
            ("a/b", "a/b.png"),
            ("a/..jpg", "a/..png"),
            (".x", ".x.png"),
        ] {
            assert_eq!(png_name(Path::new(name)), Path::new(png));
        }
    }

    #[test]
    fn what_is_not_kept_is_told_by_its_bytes() {
        let name = Path::new(OsStr::from_bytes(b"a/\xc3\xa9 100%.\xff.png"));
        assert_eq!(
            percent_encoded(name, |character| !character.is_whitespace()),
            "a/é%20100%25.%FF.png"
        );
        assert_eq!(
            percent_encoded(name, |character| character.is_ascii_graphic()),
            "a/%C3%A9%20100%25.%FF.png"
        );
        assert!(text(name).unwrap_err().to_string().contains("no UTF-8"));
        assert!(text(Path::new("a\nb")).is_err());
        assert_eq!(text(Path::new("a/é b.png")).unwrap(), "a/é b.png");
    }
}
