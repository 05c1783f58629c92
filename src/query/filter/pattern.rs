//! Patterns of `like`: `%` for any characters, `_` for one, a backslash before what stands for itself.
//!
//! A text is matched in one pass, whatever the pattern: pieces between `%` are looked for one after the
//! other, each by a linear search.

use std::collections::HashMap;

use memchr::memmem::Finder;

/// Most characters of a pattern: searching for a piece with `_` takes a step for every 64.
pub(super) const PATTERN_CHARS_MAX: usize = 1_024;

/// A pattern, ready for matching.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    /// What is between `%`: at least one piece, any of which may be empty.
    pieces: Vec<Piece>,
}

/// What a piece of a pattern is.
#[derive(Debug, Clone)]
enum Piece {
    /// Text as it stands.
    Plain(Box<Finder<'static>>),
    /// With `_`, which are `None`.
    Gaps(Gaps),
}

impl Pattern {
    /// Reads a pattern; `Err` says what is wrong with it.
    pub fn new(text: &str) -> Result<Pattern, String> {
        let count = text.chars().count();
        if count > PATTERN_CHARS_MAX {
            return Err(format!(
                "the pattern has {count} characters, more than {PATTERN_CHARS_MAX}"
            ));
        }
        let mut pieces = Vec::new();
        let mut piece: Vec<Option<char>> = Vec::new();
        let mut characters = text.chars();
        while let Some(c) = characters.next() {
            match c {
                '%' => pieces.push(Piece::new(&std::mem::take(&mut piece))),
                '_' => piece.push(None),
                '\\' => match characters.next() {
                    Some(escaped) => piece.push(Some(escaped)),
                    None => return Err("the pattern ends with a lone backslash".into()),
                },
                c => piece.push(Some(c)),
            }
        }
        pieces.push(Piece::new(&piece));
        Ok(Pattern { pieces })
    }

    /// True when the whole text is as the pattern says.
    pub fn matches(&self, text: &str) -> bool {
        let Some((last, before)) = self.pieces.split_last() else { return false };
        let Some((first, middle)) = before.split_first() else {
            return last.after_start(text) == Some("");
        };
        let mut rest = match first.after_start(text) {
            Some(rest) => rest,
            None => return false,
        };
        for piece in middle {
            rest = match piece.after_first(rest) {
                Some(rest) => rest,
                None => return false,
            };
        }
        last.is_end(rest)
    }

    /// The text that all matches begin with, and whether that is all that is asked of them.
    pub fn prefix(&self) -> (String, bool) {
        let plain = |text: &Finder<'_>| String::from_utf8_lossy(text.needle()).into_owned();
        match &self.pieces[..] {
            [Piece::Plain(start), Piece::Plain(end)] => (plain(start), end.needle().is_empty()),
            [Piece::Plain(start), ..] => (plain(start), false),
            [Piece::Gaps(gaps), ..] => (gaps.characters.iter().map_while(|c| *c).collect(), false),
            [] => (String::new(), false),
        }
    }

    /// The longest text that all matches have somewhere; "" where there is none.
    pub fn literal(&self) -> String {
        let runs = self.pieces.iter().flat_map(|piece| match piece {
            Piece::Plain(text) => vec![String::from_utf8_lossy(text.needle()).into_owned()],
            Piece::Gaps(gaps) => {
                let runs = gaps.characters.split(Option::is_none);
                runs.map(|run| run.iter().filter_map(|c| *c).collect()).collect()
            }
        });
        runs.max_by_key(String::len).unwrap_or_default()
    }

    /// The one text that matches, where there is only one.
    pub fn exact(&self) -> Option<String> {
        match &self.pieces[..] {
            [Piece::Plain(text)] => Some(String::from_utf8_lossy(text.needle()).into_owned()),
            _ => None,
        }
    }
}

impl Piece {
    fn new(characters: &[Option<char>]) -> Piece {
        match characters.iter().copied().collect::<Option<String>>() {
            Some(text) => Piece::Plain(Box::new(Finder::new(text.as_bytes()).into_owned())),
            None => Piece::Gaps(Gaps::new(characters)),
        }
    }

    /// What follows where a text begins with this piece.
    fn after_start<'t>(&self, text: &'t str) -> Option<&'t str> {
        match self {
            Piece::Plain(plain) => {
                let is_start = text.as_bytes().starts_with(plain.needle());
                is_start.then(|| &text[plain.needle().len()..])
            }
            Piece::Gaps(gaps) => {
                let mut rest = text.chars();
                let mut wanted = gaps.characters.iter();
                wanted
                    .all(|wanted| rest.next().is_some_and(|c| wanted.is_none_or(|w| w == c)))
                    .then_some(rest.as_str())
            }
        }
    }

    /// True where a text ends with this piece.
    fn is_end(&self, text: &str) -> bool {
        match self {
            Piece::Plain(plain) => text.as_bytes().ends_with(plain.needle()),
            Piece::Gaps(gaps) => {
                let mut rest = text.chars().rev();
                let mut wanted = gaps.characters.iter().rev();
                wanted.all(|wanted| rest.next().is_some_and(|c| wanted.is_none_or(|w| w == c)))
            }
        }
    }

    /// What follows the first place where this piece is in a text.
    fn after_first<'t>(&self, text: &'t str) -> Option<&'t str> {
        let end = match self {
            Piece::Plain(plain) => plain.find(text.as_bytes())? + plain.needle().len(),
            Piece::Gaps(gaps) => gaps.end_of_first(text)?,
        };
        text.get(end..)
    }
}

const WORD: usize = u64::BITS as usize;

/// A piece with `_`, looked for by the bits of where a match may have begun ("shift-and": Baeza-Yates
/// and Gonnet, "A new approach to text searching", 1992).
#[derive(Debug, Clone)]
struct Gaps {
    characters: Box<[Option<char>]>,
    /// Bit i is set in the words of a character that may be the i-th.
    places: HashMap<char, Box<[u64]>>,
    /// The same for all other characters.
    others: Box<[u64]>,
}

impl Gaps {
    fn new(characters: &[Option<char>]) -> Self {
        let set = |words: &mut [u64], place: usize| words[place / WORD] |= 1 << (place % WORD);
        let mut others = vec![0; characters.len().div_ceil(WORD)].into_boxed_slice();
        for place in (0..characters.len()).filter(|place| characters[*place].is_none()) {
            set(&mut others, place);
        }
        let mut places: HashMap<char, Box<[u64]>> = HashMap::new();
        for (place, character) in characters.iter().enumerate() {
            if let Some(character) = character {
                set(places.entry(*character).or_insert_with(|| others.clone()), place);
            }
        }
        Gaps { characters: characters.into(), places, others }
    }

    /// The byte behind the first place where it is.
    fn end_of_first(&self, text: &str) -> Option<usize> {
        let last = self.characters.len() - 1;
        let mut begun = vec![0u64; self.others.len()];
        for (at, character) in text.char_indices() {
            let places = self.places.get(&character).unwrap_or(&self.others);
            let mut carried = 1;
            for (begun, places) in begun.iter_mut().zip(places) {
                let out = *begun >> (WORD - 1);
                *begun = (*begun << 1 | carried) & places;
                carried = out;
            }
            if begun[last / WORD] & 1 << (last % WORD) != 0 {
                return Some(at + character.len_utf8());
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        Pattern::new(pattern).expect(pattern).matches(text)
    }

    #[test]
    fn each_kind_of_pattern_matches_what_it_says() {
        for (pattern, texts, others) in [
            ("abc", &["abc"][..], &["ab", "abcd", "ABC", ""][..]),
            ("", &[""], &["a"]),
            ("%", &["", "a", "\u{e9}\n"], &[]),
            ("ab%", &["ab", "abc"], &["a", "ba", "cab"]),
            ("%ab", &["ab", "cab"], &["abc", "b"]),
            ("%ab%", &["ab", "cabd"], &["acb", ""]),
            ("a%b%c", &["abc", "a1b2c", "abbcc"], &["acb", "ab", "abcd"]),
            ("aba%aba", &["abaaba", "aba-aba"], &["aba", "ababa"]),
            ("_", &["a", "\u{e9}", "\u{1F600}"], &["", "ab"]),
            ("a_c%", &["abc", "a\u{4f60}cd"], &["ac", "abd"]),
            ("%_b", &["ab", "xab"], &["b", "ba"]),
            ("%a_c%e", &["abce", "xabcabc-e"], &["abe", "abc"]),
            (r"50\%", &["50%"], &["50", "50x"]),
            (r"a\_b%", &["a_b", "a_bc"], &["axb"]),
            (r"a\\%", &[r"a\", r"a\b"], &["a"]),
        ] {
            texts.iter().for_each(|text| assert!(matches(pattern, text), "{pattern} {text}"));
            others.iter().for_each(|text| assert!(!matches(pattern, text), "{pattern} {text}"));
        }
        assert!(Pattern::new("a\\").is_err());
        assert!(Pattern::new(&"a".repeat(PATTERN_CHARS_MAX)).is_ok());
        assert!(Pattern::new(&"a".repeat(PATTERN_CHARS_MAX + 1)).is_err());
    }

    #[test]
    fn a_pattern_tells_what_its_matches_begin_with() {
        let check = |text: &str, prefix: &str, is_all, exact: Option<&str>| {
            let pattern = Pattern::new(text).expect(text);
            assert_eq!(pattern.prefix(), (prefix.to_owned(), is_all), "{text}");
            assert_eq!(pattern.exact().as_deref(), exact, "{text}");
        };
        let literal = |text: &str| Pattern::new(text).expect(text).literal();
        assert_eq!(literal("%ab%_cde_f%gh"), "cde");
        assert_eq!(literal("%_%").as_str(), "");
        check("ab%", "ab", true, None);
        check("ab%c", "ab", false, None);
        check("ab%%", "ab", false, None);
        check("ab", "ab", false, Some("ab"));
        check("a_b%", "a", false, None);
        check("%", "", true, None);
        check("_", "", false, None);
    }

    /// The plainest matcher there is.
    fn naive(pattern: &[Option<Option<char>>], text: &[char]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((None, rest)) => (0..=text.len()).any(|skipped| naive(rest, &text[skipped..])),
            Some((Some(wanted), rest)) => text
                .split_first()
                .is_some_and(|(c, text)| wanted.is_none_or(|w| w == *c) && naive(rest, text)),
        }
    }

    proptest! {
        #[test]
        fn patterns_match_what_the_plainest_matcher_does(
            parts in proptest::collection::vec(
                prop_oneof![
                    Just(None), Just(Some(None)), "[ab\u{e9}%_]".prop_map(|s| Some(s.chars().next()))
                ],
                0..8,
            ),
            text in "[ab\u{e9}%_]{0,10}",
        ) {
            let pattern: String = parts.iter().map(|part| match part {
                None => "%".to_owned(),
                Some(None) => "_".to_owned(),
                Some(Some(c)) => format!("\\{c}"),
            }).collect();
            let characters: Vec<char> = text.chars().collect();
            prop_assert_eq!(matches(&pattern, &text), naive(&parts, &characters), "{}", pattern);
        }

        #[test]
        fn long_gaps_are_found_over_words_of_bits(before in 0usize..100, gap in 60usize..200) {
            let pattern = format!("%x{}y%", "_".repeat(gap));
            let text = format!("{}x{}y{}", "-".repeat(before), "\u{e9}".repeat(gap), "-".repeat(9));
            prop_assert!(matches(&pattern, &text));
            prop_assert!(!matches(&pattern, &text.replace('y', "z")));
            let shorter = text.replacen('\u{e9}', "", 1);
            prop_assert!(!matches(&pattern, &shorter));
        }
    }
}
