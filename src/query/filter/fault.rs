//! What is wrong with a filter, and where.

use crate::error::Error;

/// Characters of a filter that are shown before and after the one that is wrong.
const BEFORE: usize = 48;
const AFTER: usize = 24;

/// Something wrong at a place of a filter's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// Byte in the text.
    pub at: usize,
    /// What was wrong, and what was expected.
    pub detail: String,
}

impl Fault {
    pub fn new(at: usize, detail: impl Into<String>) -> Self {
        Fault { at, detail: detail.into() }
    }

    /// The error for the caller, with what is around the place and a mark below it.
    pub fn in_text(self, text: &str) -> Error {
        let before = text.get(..self.at).unwrap_or(text);
        let after = text.get(self.at..).unwrap_or_default();
        let position = before.chars().count() + 1;
        let left = (position - 1).saturating_sub(BEFORE);
        let shown = before.chars().skip(left).chain(after.chars().take(AFTER));
        // One line, whatever the text holds: the mark is to stand below the character.
        let shown: String = shown.map(|c| if c.is_control() { ' ' } else { c }).collect();
        let mark = " ".repeat(position - 1 - left);
        let excerpt = format!("  {}\n  {mark}^", shown.trim_end());
        Error::InvalidFilter { detail: self.detail, position: Some(position), excerpt }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, at: usize, expected: &str) {
        assert_eq!(Fault::new(at, "odd").in_text(text).to_string(), expected);
    }

    #[test]
    fn it_points_at_the_character() {
        check("a ! b", 2, "invalid filter: odd at character 3\n  a ! b\n    ^");
        check("a\n\u{e9}\t!", 5, "invalid filter: odd at character 5\n  a \u{e9} !\n      ^");
        check("", 0, "invalid filter: odd at character 1\n  \n  ^");
        let long = format!("{}!{}", "a".repeat(100), "b".repeat(100));
        let words = Fault::new(100, "odd").in_text(&long).to_string();
        let expected = format!("  {}!{}\n  {}^", "a".repeat(48), "b".repeat(23), " ".repeat(48));
        assert!(words.ends_with(&expected), "{words}");
    }
}
