//! Reads the tokens of one line of the text form: words, slots, numbers, names and flags.
//!
//! It knows how tokens look and says where one was wrong. Which token comes next is the parser's matter.

use super::{ParseError, Size};

/// Longest piece of the input that an error repeats, in characters: enough to find it, too short to flood a terminal.
const FOUND_MAX: usize = 24;

/// A plain decimal number; no sign, no leading zero, so that every number has one spelling.
pub(super) fn decimal(word: &str) -> Option<u64> {
    let plain = word.bytes().all(|b| b.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    if plain { word.parse().ok() } else { None }
}

/// Names as the list of an error message: `R, W or RW`.
pub(super) fn one_of<T>(names: &[(&'static str, T)]) -> String {
    match names {
        [] => "nothing more".to_owned(),
        [(only, _)] => (*only).to_owned(),
        [init @ .., (last, _)] => {
            let init: Vec<&str> = init.iter().map(|(name, _)| *name).collect();
            format!("{} or {last}", init.join(", "))
        }
    }
}

/// A place in one line of the text, without its comment.
pub(super) struct Cursor {
    /// Number of the line, from 1.
    pub line: usize,
    /// Its characters.
    pub chars: Vec<char>,
    /// Index of the next character.
    pub at: usize,
}

impl Cursor {
    pub(super) fn new(line: usize, text: &str) -> Cursor {
        Cursor { line, chars: text.chars().take_while(|c| *c != '#').collect(), at: 0 }
    }

    /// Skips blanks and says where the next token starts.
    pub(super) fn here(&mut self) -> usize {
        while self.chars.get(self.at).is_some_and(|c| matches!(c, ' ' | '\t' | '\r')) {
            self.at += 1;
        }
        self.at
    }

    /// The first character of the next token, if there is one on this line.
    pub(super) fn peek(&mut self) -> Option<char> {
        let at = self.here();
        self.chars.get(at).copied()
    }

    /// Takes characters from right here on.
    pub(super) fn take_here(&mut self, wanted: impl Fn(char) -> bool) -> String {
        let word: String =
            self.chars[self.at..].iter().copied().take_while(|c| wanted(*c)).collect();
        self.at += word.chars().count();
        word
    }

    /// Takes characters from the next token on.
    pub(super) fn take(&mut self, wanted: impl Fn(char) -> bool) -> String {
        self.here();
        self.take_here(wanted)
    }

    /// Takes a word: a name, a slot or a number.
    pub(super) fn word(&mut self) -> String {
        self.take(|c| c.is_ascii_alphanumeric() || c == '_')
    }

    pub(super) fn keyword(&mut self, keyword: &str, expected: String) -> Result<(), ParseError> {
        let at = self.here();
        if self.word() == keyword { Ok(()) } else { Err(self.error_at(at, expected)) }
    }

    pub(super) fn symbol(&mut self, symbol: char) -> Result<(), ParseError> {
        if self.peek() != Some(symbol) {
            return Err(self.error(format!("`{symbol}`")));
        }
        self.at += 1;
        Ok(())
    }

    pub(super) fn end(&mut self) -> Result<(), ParseError> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.error("end of line".to_owned())),
        }
    }

    pub(super) fn slot(&mut self, what: &str, letter: char, max: u8) -> Result<u8, ParseError> {
        let at = self.here();
        let word = self.word();
        (0..max)
            .find(|index| word == format!("{letter}{index}"))
            .ok_or_else(|| self.error_at(at, format!("{what} ({letter}0 to {letter}{})", max - 1)))
    }

    pub(super) fn size(&mut self, what: &str, max: u64) -> Result<u64, ParseError> {
        let at = self.here();
        let word = self.word();
        let (digits, unit) = match word.strip_suffix('K') {
            Some(digits) => (digits, 1 << 10),
            None => word.strip_suffix('M').map_or((word.as_str(), 1), |digits| (digits, 1 << 20)),
        };
        decimal(digits)
            .and_then(|n| n.checked_mul(unit))
            .filter(|n| *n <= max)
            .ok_or_else(|| self.error_at(at, format!("{what} (0 to {})", Size(max))))
    }

    pub(super) fn name<T: Copy>(&mut self, names: &[(&'static str, T)]) -> Result<T, ParseError> {
        let at = self.here();
        let word = self.word();
        let found = names.iter().find(|(name, _)| *name == word);
        found.map(|(_, value)| *value).ok_or_else(|| self.error_at(at, one_of(names)))
    }

    /// A set of flags that may be empty (`0`). `add` says whether the flag was new.
    pub(super) fn set<T: Copy, S>(
        &mut self,
        names: &[(&'static str, T)],
        set: &mut S,
        add: impl Fn(&mut S, T) -> bool,
    ) -> Result<(), ParseError> {
        if self.peek() == Some('0') {
            return self.keyword("0", "0".to_owned());
        }
        loop {
            let at = self.here();
            let flag = self.name(names)?;
            if !add(set, flag) {
                return Err(self.error_at(at, "another flag".to_owned()));
            }
            if self.peek() != Some('|') {
                return Ok(());
            }
            self.symbol('|')?;
        }
    }

    /// An error at the next token.
    pub(super) fn error(&mut self, expected: String) -> ParseError {
        let at = self.here();
        self.error_at(at, expected)
    }

    /// An error at the token that starts at `at`.
    pub(super) fn error_at(&self, at: usize, expected: String) -> ParseError {
        let rest = self.chars.get(at..).unwrap_or_default();
        let is_word =
            |c: &char| c.is_ascii_alphanumeric() || matches!(c, '_' | '|' | '+' | '-' | ':');
        let quoted = rest.first() == Some(&'"');
        let mut token: String = if quoted {
            let close = rest.iter().skip(1).position(|c| *c == '"').map_or(rest.len(), |n| n + 2);
            rest.iter().take(close.min(FOUND_MAX)).collect()
        } else {
            rest.iter().take_while(|c| is_word(c)).take(FOUND_MAX).collect()
        };
        if token.is_empty() {
            token.extend(rest.first());
        }
        let found = if token.is_empty() { "end of line".to_owned() } else { format!("{token:?}") };
        ParseError { line: self.line, column: at + 1, expected, found }
    }
}
