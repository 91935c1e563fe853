//! Kconfig's expressions: read, printed, and evaluated over a configuration, with three values and a fourth for "unknown".
//!
//! Total: a text that is no expression is one whose value is unknown.

use std::collections::BTreeMap;
use std::fmt;

/// How deep an expression may nest.
const DEPTH_MAX: usize = 50;

/// A `.config`: symbols that are set, without `CONFIG_`, with their values as written.
pub type Config = BTreeMap<String, String>;

/// An expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expression {
    /// A symbol, or a word that stands for itself.
    Symbol(String),
    /// A text in quotes.
    Text(String),
    /// What only a compiler or a shell can answer, or what is no expression.
    Unknown(String),
    /// `!A`
    Not(Box<Expression>),
    /// `A && B`
    And(Box<Expression>, Box<Expression>),
    /// `A || B`
    Or(Box<Expression>, Box<Expression>),
    /// `A = B`, `A != B`, `A < B` and so on.
    Compare(Box<Expression>, &'static str, Box<Expression>),
}

/// `n`, `m` and `y`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tristate {
    /// Not set.
    No,
    /// A module.
    Module,
    /// Built in.
    Yes,
}

impl Tristate {
    /// Of a value as a `.config` has it.
    pub fn of(value: Option<&str>) -> Tristate {
        match value {
            Some("y") => Tristate::Yes,
            Some("m") => Tristate::Module,
            _ => Tristate::No,
        }
    }
}

impl Expression {
    /// Reads an expression.
    pub fn parse(text: &str) -> Expression {
        let tokens = tokens(text);
        let mut parser = Parser { tokens: &tokens, at: 0 };
        let parsed = parser.or(0).filter(|_| parser.at == tokens.len());
        parsed.unwrap_or_else(|| Expression::Unknown(text.trim().to_string()))
    }

    /// Its value; `None` if that cannot be told here.
    pub fn value(&self, config: &Config) -> Option<Tristate> {
        use Tristate::{No, Yes};
        match self {
            Expression::Symbol(name) => Some(match name.as_str() {
                "y" | "m" | "n" => Tristate::of(Some(name)),
                _ => Tristate::of(config.get(name).map(String::as_str)),
            }),
            Expression::Text(text) => Some(Tristate::of(Some(text))),
            Expression::Unknown(_) => None,
            Expression::Not(a) => a.value(config).map(|value| match value {
                No => Yes,
                Yes => No,
                Tristate::Module => Tristate::Module,
            }),
            Expression::And(a, b) => match (a.value(config), b.value(config)) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (Some(No), None) | (None, Some(No)) => Some(No),
                _ => None,
            },
            Expression::Or(a, b) => match (a.value(config), b.value(config)) {
                (Some(a), Some(b)) => Some(a.max(b)),
                (Some(Yes), None) | (None, Some(Yes)) => Some(Yes),
                _ => None,
            },
            Expression::Compare(a, how, b) => {
                let (a, b) = (a.text(config)?, b.text(config)?);
                let order = match (number(&a), number(&b)) {
                    (Some(a), Some(b)) => a.cmp(&b),
                    _ => a.cmp(&b),
                };
                let holds = match *how {
                    "=" => order.is_eq(),
                    "!=" => order.is_ne(),
                    "<" => order.is_lt(),
                    "<=" => order.is_le(),
                    ">" => order.is_gt(),
                    _ => order.is_ge(),
                };
                Some(if holds { Yes } else { No })
            }
        }
    }

    /// The value of one side of a comparison.
    fn text(&self, config: &Config) -> Option<String> {
        match self {
            Expression::Text(text) => Some(text.clone()),
            Expression::Symbol(name) => Some(match config.get(name) {
                Some(value) => value.trim_matches('"').to_string(),
                // Lower-case words and numbers stand for themselves; a symbol that is not set is n.
                None if name.chars().any(|c| c.is_ascii_uppercase()) => "n".into(),
                None => name.clone(),
            }),
            _ => None,
        }
    }

    /// The parts that keep it below that value.
    pub fn lacking(&self, wanted: Tristate, config: &Config) -> Vec<&Expression> {
        match self {
            _ if self.value(config).is_some_and(|value| value >= wanted) => Vec::new(),
            Expression::And(a, b) => {
                [a, b].iter().flat_map(|part| part.lacking(wanted, config)).collect()
            }
            other => vec![other],
        }
    }
}

fn number(text: &str) -> Option<i64> {
    match text.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An `||` within an `&&` or a `!` needs its brackets.
        let inner = |e: &Expression| match e {
            Expression::Or(..) => format!("({e})"),
            _ => e.to_string(),
        };
        match self {
            Expression::Symbol(text) | Expression::Unknown(text) => write!(f, "{text}"),
            Expression::Text(text) => write!(f, "\"{text}\""),
            Expression::Not(a) => match **a {
                Expression::And(..) | Expression::Or(..) | Expression::Compare(..) => {
                    write!(f, "!({a})")
                }
                _ => write!(f, "!{a}"),
            },
            Expression::And(a, b) => write!(f, "{} && {}", inner(a), inner(b)),
            Expression::Or(a, b) => write!(f, "{a} || {b}"),
            Expression::Compare(a, how, b) => write!(f, "{a}{how}{b}"),
        }
    }
}

#[derive(Debug, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Macro(String),
    Operator(&'static str),
}

/// Longer ones first.
const OPERATORS: [&str; 11] = ["&&", "||", "!=", "<=", ">=", "=", "<", ">", "!", "(", ")"];

fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = if let Some(operator) = OPERATORS.iter().find(|o| rest.starts_with(**o)) {
            tokens.push(Token::Operator(operator));
            operator.len()
        } else if first == '"' || first == '\'' {
            let body = &rest[1..];
            let length = body.find(first).unwrap_or(body.len());
            let text = body[..length].to_string();
            tokens.push(if text.contains("$(") { Token::Macro(text) } else { Token::Text(text) });
            (length + 2).min(rest.len())
        } else if rest.starts_with("$(") {
            let length = balanced(rest);
            tokens.push(Token::Macro(rest[..length].to_string()));
            length
        } else {
            let end = |c: char| c.is_whitespace() || "&|!=<>()\"'$".contains(c);
            // Whatever stands here is at least one character, so that this ends.
            let length = rest.find(end).unwrap_or(rest.len()).max(first.len_utf8());
            tokens.push(Token::Word(rest[..length].to_string()));
            length
        };
        rest = rest[length..].trim_start();
    }
    tokens
}

/// Length of a `$(...)` with all its brackets.
fn balanced(text: &str) -> usize {
    let mut depth = 0usize;
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' if depth == 1 => return at + 1,
            ')' => depth -= 1,
            _ => {}
        }
    }
    text.len()
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
}

impl Parser<'_> {
    fn operator(&mut self, wanted: &[&'static str]) -> Option<&'static str> {
        match self.tokens.get(self.at) {
            Some(Token::Operator(operator)) if wanted.contains(operator) => {
                self.at += 1;
                Some(operator)
            }
            _ => None,
        }
    }

    fn or(&mut self, depth: usize) -> Option<Expression> {
        let mut left = self.and(depth)?;
        while self.operator(&["||"]).is_some() {
            left = Expression::Or(Box::new(left), Box::new(self.and(depth)?));
        }
        Some(left)
    }

    fn and(&mut self, depth: usize) -> Option<Expression> {
        let mut left = self.not(depth)?;
        while self.operator(&["&&"]).is_some() {
            left = Expression::And(Box::new(left), Box::new(self.not(depth)?));
        }
        Some(left)
    }

    fn not(&mut self, depth: usize) -> Option<Expression> {
        if depth > DEPTH_MAX {
            return None;
        }
        if self.operator(&["!"]).is_some() {
            return Some(Expression::Not(Box::new(self.not(depth + 1)?)));
        }
        if self.operator(&["("]).is_some() {
            let inner = self.or(depth + 1)?;
            return self.operator(&[")"]).map(|_| inner);
        }
        let left = self.word()?;
        match self.operator(&["=", "!=", "<", "<=", ">", ">="]) {
            Some(how) => Some(Expression::Compare(Box::new(left), how, Box::new(self.word()?))),
            None => Some(left),
        }
    }

    fn word(&mut self) -> Option<Expression> {
        let word = match self.tokens.get(self.at)? {
            Token::Word(word) => Expression::Symbol(word.clone()),
            Token::Text(text) => Expression::Text(text.clone()),
            Token::Macro(text) => Expression::Unknown(text.clone()),
            Token::Operator(_) => return None,
        };
        self.at += 1;
        Some(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        [("A", "y"), ("M", "m"), ("N", "8"), ("S", "\"x y\""), ("H", "0x10")]
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .into()
    }

    #[test]
    fn values_are_those_of_kconfig() {
        use Tristate::{Module, No, Yes};
        for (text, value) in [
            ("A", Some(Yes)),
            ("M && A", Some(Module)),
            ("!M", Some(Module)),
            ("B || A && !B", Some(Yes)),
            ("(B || A) && B", Some(No)),
            ("N > 7 && N<=8", Some(Yes)),
            ("H = 16", Some(Yes)),
            ("S = \"x y\"", Some(Yes)),
            ("B = n && M != y", Some(Yes)),
            ("A=y", Some(Yes)),
            ("$(cc-option,-f(x)) && B", Some(No)),
            ("$(cc-option,-f(x)) || A", Some(Yes)),
            ("$(cc-option,-f(x)) && A", None),
            ("A &&", None),
            ("", None),
            ("A B", None),
        ] {
            assert_eq!(Expression::parse(text).value(&config()), value, "{text}");
        }
    }

    #[test]
    fn what_lacks_is_named_part_by_part() {
        let parsed = Expression::parse("A && B && (C || D) && !A && M");
        let lacking = |wanted| -> Vec<String> {
            parsed.lacking(wanted, &config()).iter().map(|e| e.to_string()).collect()
        };
        assert_eq!(lacking(Tristate::Yes), ["B", "C || D", "!A", "M"]);
        assert_eq!(lacking(Tristate::Module), ["B", "C || D", "!A"]);
    }

    #[test]
    fn printing_and_reading_again_is_the_same() {
        for text in ["A && (B || !C)", "!(A && B)", "A=\"x\" || N<3", "$(success,a | b) && A"] {
            let parsed = Expression::parse(text);
            assert_eq!(parsed.to_string(), text);
            assert_eq!(Expression::parse(&parsed.to_string()), parsed);
        }
    }

    #[test]
    fn no_text_is_too_strange() {
        let deep = format!("{}A{}", "(".repeat(100_000), ")".repeat(100_000));
        for text in [deep.as_str(), "!!!!", "\"", "$(", "'", "$", "\u{fffd}é && ß", "((", "&&"] {
            let _ = Expression::parse(text).value(&config());
        }
        assert!(matches!(Expression::parse(&deep), Expression::Unknown(_)));
    }
}
