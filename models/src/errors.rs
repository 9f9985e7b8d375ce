//! Errors as a person reads them.

use std::error::Error;

/// An error and its causes as one sentence; a cause that the text before it already quotes is not said again. Control
/// characters, as names of files may hold them, are escaped, so that they neither break the line nor command a terminal.
pub fn error_chain(error: &(dyn Error + 'static)) -> String {
    let mut sentence = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let cause = error.to_string();
        if !sentence.contains(&cause) {
            let colon = if sentence.is_empty() { "" } else { ": " };
            sentence.extend([colon, &cause]);
        }
        next = error.source();
    }
    if sentence.contains(char::is_control) {
        sentence.chars().flat_map(escaped).collect()
    } else {
        sentence
    }
}

fn escaped(character: char) -> impl Iterator<Item = char> {
    let escape = character.is_control().then(|| character.escape_default());
    let itself = if escape.is_none() { Some(character) } else { None };
    escape.into_iter().flatten().chain(itself)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("a.png: {0}")]
    struct Quoting(#[source] std::io::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("step 3 failed")]
    struct Naming(#[source] Quoting);

    #[test]
    fn causes_are_said_once() {
        let error = Naming(Quoting(std::io::Error::other("disk full")));
        assert_eq!(error_chain(&error), "step 3 failed: a.png: disk full");
        assert_eq!(
            error_chain(&std::io::Error::other("a\nb\u{1b}[31mé.png")),
            "a\\nb\\u{1b}[31mé.png"
        );
    }
}
