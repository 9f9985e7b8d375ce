//! Errors as a person reads them.

use std::error::Error;

/// An error and its causes as one sentence; a cause that the text before it already quotes is not said again.
pub fn sentence(error: &(dyn Error + 'static)) -> String {
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
    sentence
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
        assert_eq!(sentence(&error), "step 3 failed: a.png: disk full");
    }
}
