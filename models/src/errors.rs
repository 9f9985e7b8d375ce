//! Errors of files, and errors as messages.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

/// Any error, as the cause of another.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// A failed file operation.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct FileError {
    /// The file or folder.
    pub path: PathBuf,
    /// The error of the operating system.
    pub source: io::Error,
}

impl FileError {
    /// Returns a function that adds a path to an I/O error, for `map_err`.
    pub fn at(path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self { path: path.into(), source }
    }
}

/// Returns an error and its causes as one line, separated by colons.
///
/// A cause that the text before it already quotes is left out. Control characters, which file
/// names may hold, are escaped, so that they neither break the line nor control a terminal.
pub fn error_chain(error: &(dyn Error + 'static)) -> String {
    let mut chain = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let cause = error.to_string();
        if !chain.contains(&cause) {
            let colon = if chain.is_empty() { "" } else { ": " };
            chain.extend([colon, &cause]);
        }
        next = error.source();
    }
    if chain.contains(char::is_control) { chain.chars().flat_map(escape).collect() } else { chain }
}

fn escape(character: char) -> impl Iterator<Item = char> {
    let control = character.is_control();
    let escaped = control.then(|| character.escape_default());
    let plain = (!control).then_some(character);
    escaped.into_iter().flatten().chain(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("step 3 failed")]
    struct StepError(#[source] FileError);

    #[test]
    fn a_cause_is_quoted_once() {
        let error = StepError(FileError::at(Path::new("a.png"))(io::Error::other("disk full")));
        assert_eq!(error_chain(&error), "step 3 failed: a.png: disk full");
        let escaped = error_chain(&io::Error::other("a\nb\u{1b}[31mé.png"));
        assert_eq!(escaped, "a\\nb\\u{1b}[31mé.png");
    }
}
