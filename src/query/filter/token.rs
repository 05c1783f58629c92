//! From the text of a filter to its words, in one pass, each with the byte where it begins.

use super::fault::Fault;

/// One word of a filter.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// A column by its name, bare or in backticks.
    Name(String),
    /// A whole number.
    Integer(u64),
    /// Another number.
    Real(f64),
    /// Text in quotes, escapes resolved.
    Text(String),
    /// `{name}`.
    Parameter(String),
    /// A word of the language in lower case; `&&`, `||` and `!` are `and`, `or` and `not`.
    Word(&'static str),
    /// An operator or a bracket.
    Sign(&'static str),
    /// There is nothing more.
    End,
}

/// Words that are no names but in backticks.
pub(super) const WORDS: [&str; 9] =
    ["and", "or", "not", "in", "like", "is", "null", "true", "false"];

/// Signs and what they stand for, longer ones first.
const SIGNS: [(&str, Token); 21] = [
    ("&&", Token::Word("and")),
    ("||", Token::Word("or")),
    ("==", Token::Sign("==")),
    ("!=", Token::Sign("!=")),
    ("<=", Token::Sign("<=")),
    (">=", Token::Sign(">=")),
    ("**", Token::Sign("**")),
    ("!", Token::Word("not")),
    ("<", Token::Sign("<")),
    (">", Token::Sign(">")),
    ("+", Token::Sign("+")),
    ("-", Token::Sign("-")),
    ("*", Token::Sign("*")),
    ("/", Token::Sign("/")),
    ("%", Token::Sign("%")),
    ("(", Token::Sign("(")),
    (")", Token::Sign(")")),
    ("[", Token::Sign("[")),
    ("]", Token::Sign("]")),
    (",", Token::Sign(",")),
    // Refused by the parser, which knows what was meant.
    ("=", Token::Sign("=")),
];

/// All words of a text with the bytes where they begin; the last is [`Token::End`].
pub(super) fn tokens(text: &str) -> Result<Vec<(usize, Token)>, Fault> {
    let mut lexer = Lexer { text, at: 0 };
    let mut tokens = Vec::new();
    loop {
        let rest = lexer.rest();
        lexer.at += rest.len() - rest.trim_start().len();
        let at = lexer.at;
        let token = lexer.token()?;
        let is_end = token == Token::End;
        tokens.push((at, token));
        if is_end {
            return Ok(tokens);
        }
    }
}

/// True for a character that a bare name may begin with.
fn begins_name(c: char) -> bool {
    c == '_' || c.is_alphabetic()
}

fn is_in_name(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// True for a name that needs no backticks.
pub(super) fn is_bare(name: &str) -> bool {
    name.starts_with(begins_name)
        && name.chars().all(is_in_name)
        && !WORDS.iter().any(|word| word.eq_ignore_ascii_case(name))
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// Takes the characters that `is_in` accepts.
    fn run(&mut self, is_in: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let run = &rest[..rest.find(|c| !is_in(c)).unwrap_or(rest.len())];
        self.at += run.len();
        run
    }

    /// Takes a character if it comes next.
    fn skip(&mut self, wanted: char) -> bool {
        let is_next = self.rest().starts_with(wanted);
        if is_next {
            self.at += wanted.len_utf8();
        }
        is_next
    }

    fn token(&mut self) -> Result<Token, Fault> {
        let at = self.at;
        let Some(first) = self.rest().chars().next() else { return Ok(Token::End) };
        if first.is_ascii_digit() || first == '.' {
            return self.number();
        }
        if let raw @ ("r\"" | "r'" | "R\"" | "R'") = self.rest().get(..2).unwrap_or_default() {
            self.at += 2;
            return self.raw_text(at, if raw.ends_with('"') { '"' } else { '\'' });
        }
        if begins_name(first) {
            let name = self.run(is_in_name);
            let word = WORDS.iter().find(|word| word.eq_ignore_ascii_case(name));
            return Ok(word.map_or_else(|| Token::Name(name.to_owned()), |word| Token::Word(word)));
        }
        match first {
            '"' | '\'' => self.text(first),
            '`' => self.quoted_name(),
            '{' => self.parameter(),
            _ => self.sign(first),
        }
    }

    fn sign(&mut self, first: char) -> Result<Token, Fault> {
        for (sign, token) in SIGNS {
            if self.rest().starts_with(sign) {
                self.at += sign.len();
                return Ok(token);
            }
        }
        Err(Fault::new(self.at, format!("unexpected {first:?}")))
    }

    fn number(&mut self) -> Result<Token, Fault> {
        let at = self.at;
        for (prefix, radix) in [("0x", 16), ("0X", 16), ("0b", 2), ("0B", 2), ("0o", 8), ("0O", 8)]
        {
            if self.rest().starts_with(prefix) {
                self.at += prefix.len();
                let digits = self.run(is_in_name);
                return u64::from_str_radix(digits, radix).map(Token::Integer).map_err(|_| {
                    let detail = "is no whole number up to 18446744073709551615 (2^64-1)";
                    Fault::new(at, format!("{prefix}{digits} {detail}"))
                });
            }
        }
        let is_digit = |c: char| c.is_ascii_digit();
        let whole = self.run(is_digit);
        let mut is_whole = true;
        if self.skip('.') {
            is_whole = false;
            if self.run(is_digit).is_empty() && whole.is_empty() {
                return Err(Fault::new(at, "expected a digit before or after \".\""));
            }
        }
        if self.skip('e') || self.skip('E') {
            is_whole = false;
            let _ = self.skip('+') || self.skip('-');
            if self.run(is_digit).is_empty() {
                return Err(Fault::new(self.at, "expected the digits of an exponent"));
            }
        }
        if self.rest().starts_with(is_in_name) {
            return Err(Fault::new(
                self.at,
                "expected a space or an operator after a number (names that begin with a digit go in backticks)",
            ));
        }
        let text = &self.text[at..self.at];
        if !is_whole {
            let number = text.parse().ok().filter(|number: &f64| number.is_finite());
            let number = number.ok_or_else(|| Fault::new(at, "the number is too large"))?;
            return Ok(Token::Real(number));
        }
        if text.len() > 1 && text.starts_with('0') {
            let detail = "a whole number begins with 0; write 0o for octal, or leave the 0 out";
            return Err(Fault::new(at, detail));
        }
        let detail = "the whole number is above 18446744073709551615 (2^64-1); write it as a float";
        text.parse().map(Token::Integer).map_err(|_| Fault::new(at, detail))
    }

    fn quoted_name(&mut self) -> Result<Token, Fault> {
        let at = self.at;
        self.at += 1;
        let mut name = String::new();
        loop {
            name.push_str(self.run(|c| c != '`'));
            if !self.skip('`') {
                return Err(Fault::new(at, "the name has no closing backtick"));
            }
            // Two stand for one.
            if !self.skip('`') {
                return Ok(Token::Name(name));
            }
            name.push('`');
        }
    }

    fn parameter(&mut self) -> Result<Token, Fault> {
        let at = self.at;
        self.at += 1;
        self.run(char::is_whitespace);
        let name = self.run(is_in_name).to_owned();
        self.run(char::is_whitespace);
        if name.is_empty() || !self.skip('}') {
            return Err(Fault::new(
                self.at.max(at),
                "expected the name of a parameter and \"}\", as in {name}",
            ));
        }
        Ok(Token::Parameter(name))
    }

    /// Text whose backslashes stand for themselves: one before the quote keeps both.
    fn raw_text(&mut self, at: usize, quote: char) -> Result<Token, Fault> {
        let start = self.at;
        loop {
            self.run(|c| c != quote && c != '\\');
            let end = self.at;
            if self.skip(quote) {
                return Ok(Token::Text(self.text[start..end].to_owned()));
            }
            if !self.skip('\\') {
                return Err(Fault::new(at, "the text has no closing quote"));
            }
            self.at += self.rest().chars().next().map_or(0, char::len_utf8);
        }
    }

    fn text(&mut self, quote: char) -> Result<Token, Fault> {
        let at = self.at;
        self.at += 1;
        let mut text = String::new();
        loop {
            text.push_str(self.run(|c| c != quote && c != '\\'));
            if self.skip(quote) {
                return Ok(Token::Text(text));
            }
            if self.rest().is_empty() {
                return Err(Fault::new(at, "the text has no closing quote"));
            }
            self.escape(&mut text)?;
        }
    }

    /// One escape, at its backslash.
    fn escape(&mut self, text: &mut String) -> Result<(), Fault> {
        let at = self.at;
        self.at += 1;
        let Some(escaped) = self.rest().chars().next() else { return Ok(()) };
        self.at += escaped.len_utf8();
        let resolved = match escaped {
            '\\' | '"' | '\'' | '`' | '?' | '/' => escaped,
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            '0' => '\0',
            'a' => '\x07',
            'b' => '\x08',
            'f' => '\x0c',
            'v' => '\x0b',
            // For the patterns of `like`, which resolve these themselves.
            '%' | '_' => {
                text.push('\\');
                escaped
            }
            'x' => self.code_point(at, 2)?,
            'u' => self.code_point(at, 4)?,
            'U' => self.code_point(at, 8)?,
            _ => {
                let detail = format!("unknown escape \\{escaped}; a backslash is written \\\\");
                return Err(Fault::new(at, detail));
            }
        };
        text.push(resolved);
        Ok(())
    }

    fn code_point(&mut self, at: usize, digits: usize) -> Result<char, Fault> {
        let code = self.rest().get(..digits).filter(|code| {
            // from_str_radix takes a sign.
            code.bytes().all(|byte| byte.is_ascii_hexdigit())
        });
        let code = code.and_then(|code| u32::from_str_radix(code, 16).ok());
        self.at += digits;
        let detail = || format!("expected {digits} hexadecimal digits of a code point");
        code.and_then(char::from_u32).ok_or_else(|| Fault::new(at, detail()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<Token> {
        let mut tokens: Vec<Token> =
            tokens(text).expect(text).into_iter().map(|(_, token)| token).collect();
        assert_eq!(tokens.pop(), Some(Token::End));
        tokens
    }

    fn refused(text: &str, at: usize, words: &str) {
        let fault = tokens(text).expect_err(text);
        assert!(fault.at == at && fault.detail.contains(words), "{text}: {fault:?}");
    }

    #[test]
    fn words_names_and_signs_are_told_apart() {
        use Token::{Name, Parameter, Sign, Word};
        let name = |text: &str| Name(text.into());
        assert_eq!(read("a And b"), [name("a"), Word("and"), name("b")]);
        assert_eq!(read("!x||`y z`&&`a``b`"), {
            let (not, or, and) = (Word("not"), Word("or"), Word("and"));
            [not, name("x"), or, name("y z"), and, name("a`b")]
        });
        assert_eq!(read("`in`<=_k1"), [name("in"), Sign("<="), name("_k1")]);
        assert_eq!(read("\u{e9}t\u{e9} != { p }"), {
            [name("\u{e9}t\u{e9}"), Sign("!="), Parameter("p".into())]
        });
        assert_eq!(read("a**b*c"), { [name("a"), Sign("**"), name("b"), Sign("*"), name("c")] });
        assert_eq!(read("rest"), [name("rest")]);
        assert!(is_bare("_a1") && !is_bare("1a") && !is_bare("Like") && !is_bare(""));
    }

    #[test]
    fn numbers_are_whole_or_not() {
        use Token::{Integer, Real, Sign};
        assert_eq!(read("0 7 0xfF 0b101 0o17"), [0, 7, 255, 5, 15].map(Integer));
        assert_eq!(read("18446744073709551615"), [Integer(u64::MAX)]);
        assert_eq!(read("1. .5 1e3 2.5E-1 0.0"), [1.0, 0.5, 1000.0, 0.25, 0.0].map(Real));
        assert_eq!(read("-1"), [Sign("-"), Integer(1)]);
        refused("a < 18446744073709551616", 4, "2^64-1");
        refused("1e999", 0, "too large");
        refused("007", 0, "begins with 0");
        refused("0xg", 0, "whole number");
        refused("0x", 0, "whole number");
        refused("5abc", 1, "after a number");
        refused("1e+", 3, "exponent");
        refused(".", 0, "digit");
    }

    #[test]
    fn text_has_escapes_in_either_quotes_and_none_when_raw() {
        let check = |text: &str, expected: &str| {
            assert_eq!(read(text), [Token::Text(expected.into())]);
        };
        check(r#""a'b""#, "a'b");
        check(r#"'a"b'"#, "a\"b");
        check(r#""a\"\\\n\t\u00e9\x41\U0001F600\0""#, "a\"\\\n\t\u{e9}A\u{1F600}\0");
        check(r"'50\%'", "50\\%");
        check(r"'50\\%'", "50\\%");
        check(r#"r"a\d\"b""#, r#"a\d\"b"#);
        check("R'a'", "a");
        check("'\u{4f60}\u{597d}'", "\u{4f60}\u{597d}");
        refused("a == 'x", 5, "closing quote");
        refused("'x\\", 0, "closing quote");
        refused("r'x\\'", 0, "closing quote");
        refused(r"'a\q'", 2, r"\q");
        refused(r"'a\u12'", 2, "4 hexadecimal digits");
        refused(r"'a\ud800'", 2, "4 hexadecimal digits");
        refused(r"'\x+1'", 1, "2 hexadecimal digits");
        refused("`a", 0, "backtick");
        refused("{1+", 2, "parameter");
        refused("{}", 1, "parameter");
        refused("a # b", 2, "'#'");
        refused("a & b", 2, "'&'");
    }
}
