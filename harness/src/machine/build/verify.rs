//! What became of the wishes: every line of every fragment against the final configuration, and for each that did not stick, why.
//!
//! merge_config.sh only warns, and olddefconfig drops in silence what cannot be; a kernel without its lockdep would never be noticed.

use super::BuildError;
use super::expression::{Config, Expression, Tristate};
use super::kconfig::{self, Condition, Definition, Symbols};
use super::profile::{Fragment, Wish};
use std::collections::BTreeMap;
use std::path::Path;

/// Most symbols that are named as selecting another one.
const SELECTORS: usize = 3;

/// Fails if a wish did not come true. Where two fragments speak of one symbol, the later one counts, as for merge_config.sh.
pub fn stuck(tree: &Path, config: &str, fragments: &[Fragment]) -> Result<(), BuildError> {
    let config = parse(config);
    let mut wishes: BTreeMap<&str, (&Fragment, &Wish)> = BTreeMap::new();
    for fragment in fragments {
        for wish in &fragment.wishes {
            wishes.insert(&wish.symbol, (fragment, wish));
        }
    }
    let unmet: Vec<_> = wishes
        .values()
        .filter(|(_, wish)| config.get(&wish.symbol) != wish.value.as_ref())
        .collect();
    if unmet.is_empty() {
        return Ok(());
    }
    let symbols = kconfig::read(tree);
    let lines: Vec<String> =
        unmet.iter().map(|(fragment, wish)| explain(&symbols, &config, fragment, wish)).collect();
    Err(BuildError::failed(
        lines.join("\n"),
        "wish for what is missing as well, or leave the line out: a kernel that lacks what its profile promises is not built",
    ))
}

fn parse(text: &str) -> Config {
    let set = |line: &str| {
        let (name, value) = line.strip_prefix("CONFIG_")?.split_once('=')?;
        Some((name.to_string(), value.to_string()))
    };
    text.lines().filter_map(set).collect()
}

fn explain(symbols: &Symbols, config: &Config, fragment: &Fragment, wish: &Wish) -> String {
    let place = format!("{}:{}", fragment.name, wish.line);
    let symbol = &wish.symbol;
    let Some(definitions) = symbols.definitions.get(symbol) else {
        return format!("there is no CONFIG_{symbol} in this tree ({place})");
    };
    let wanted = match &wish.value {
        Some(value) => format!("CONFIG_{symbol}={value}"),
        None => format!("# CONFIG_{symbol} is not set"),
    };
    let got = match config.get(symbol) {
        Some(value) => format!("it is {value}"),
        None => "it is not set".into(),
    };
    let why = match &wish.value {
        None => selected(symbols, config, symbol, definitions),
        Some(value) => {
            // A text or a number is there as soon as the symbol is.
            let wanted = if value == "m" { Tristate::Module } else { Tristate::Yes };
            lacking(symbols, config, definitions, wanted, symbol)
        }
    };
    format!("{wanted} ({place}) did not stick, {got}: {why}")
}

/// Why a symbol is less than was wished.
fn lacking(
    symbols: &Symbols,
    config: &Config,
    definitions: &[Definition],
    wanted: Tristate,
    symbol: &str,
) -> String {
    let ways: Vec<Vec<String>> = definitions
        .iter()
        .map(|definition| missing(&definition.conditions, wanted, config))
        .collect();
    if ways.iter().all(|way| !way.is_empty()) {
        let ways: Vec<String> = ways.into_iter().map(|way| way.join(" and ")).collect();
        return format!("it depends on {}", ways.join("; or it depends on "));
    }
    // Its dependencies hold somewhere; there, it must be open to being set.
    let open = definitions.iter().zip(&ways).filter(|(_, way)| way.is_empty()).map(|(d, _)| d);
    let prompts: Vec<&Vec<Condition>> = open.filter_map(|d| d.prompt.as_ref()).collect();
    if prompts.is_empty() {
        let all = selectors(symbols, symbol).map(|(name, ..)| name);
        let names: Vec<&str> = all.take(SELECTORS).map(String::as_str).collect();
        return match names[..] {
            [] => "it has no prompt: Kconfig alone sets it".into(),
            _ => format!("it has no prompt: only others select it, such as {}", names.join(", ")),
        };
    }
    let shut: Vec<Vec<String>> =
        prompts.iter().map(|when| missing(when, Tristate::Module, config)).collect();
    if let Some(first) = shut.first().filter(|_| shut.iter().all(|way| !way.is_empty())) {
        return format!("it can be set only with {}", first.join(" and "));
    }
    if let Some(other) = rival(symbols, config, definitions, symbol) {
        return format!("CONFIG_{other}, of the same choice, is set");
    }
    "its dependencies hold; its range or a default may forbid the value".into()
}

/// The parts of conditions that do not hold, in words. What is unknown counts only if nothing else does.
fn missing(conditions: &[Condition], wanted: Tristate, config: &Config) -> Vec<String> {
    let parts = |known: bool| -> Vec<String> {
        let all = conditions.iter().flat_map(|condition| {
            let lacking = condition.expression.lacking(wanted, config).into_iter();
            lacking.map(|part| (part, &condition.place))
        });
        all.filter(|(part, _)| part.value(config).is_some() == known)
            .map(|(part, place)| format!("{part} ({place}), {}", state(part, config)))
            .collect()
    };
    let known = parts(true);
    if known.is_empty() { parts(false) } else { known }
}

fn state(part: &Expression, config: &Config) -> String {
    let of = |name: &str| match config.get(name) {
        Some(value) => format!("is {value}"),
        None => "is not set".to_string(),
    };
    match part {
        Expression::Symbol(name) if name == "n" => "which never holds".into(),
        Expression::Symbol(name) => format!("which {}", of(name)),
        Expression::Not(inner) => match &**inner {
            Expression::Symbol(name) => format!("but {name} {}", of(name)),
            _ => "which does not hold".into(),
        },
        _ if part.value(config).is_none() => "which this machine's compiler may not have".into(),
        Expression::Or(..) => "none of which holds".into(),
        _ => "which does not hold".into(),
    }
}

/// Another member of its choice that is set.
fn rival<'a>(
    symbols: &'a Symbols,
    config: &Config,
    definitions: &[Definition],
    symbol: &str,
) -> Option<&'a String> {
    let choices: Vec<usize> = definitions.iter().filter_map(|d| d.choice).collect();
    let mine = |d: &Definition| d.choice.is_some_and(|choice| choices.contains(&choice));
    let set = |name: &str| config.get(name).is_some_and(|value| value == "y");
    let mut all = symbols.definitions.iter();
    all.find(|(name, all)| *name != symbol && set(name) && all.iter().any(mine))
        .map(|(name, _)| name)
}

/// Who may select a symbol.
fn selectors<'a>(
    symbols: &'a Symbols,
    symbol: &'a str,
) -> impl Iterator<Item = (&'a String, &'a Definition, Option<&'a Condition>)> {
    let all = symbols.definitions.iter().flat_map(|(name, all)| all.iter().map(move |d| (name, d)));
    all.flat_map(move |(name, definition)| {
        let selects = definition.selects.iter().filter(move |(selected, _)| selected == symbol);
        selects.map(move |(_, when)| (name, definition, when.as_ref()))
    })
}

/// Why a symbol is set that should not be.
fn selected(
    symbols: &Symbols,
    config: &Config,
    symbol: &str,
    definitions: &[Definition],
) -> String {
    let holds = |when: Option<&Condition>| {
        when.is_none_or(|c| c.expression.value(config).is_none_or(|value| value > Tristate::No))
    };
    let active: Vec<String> = selectors(symbols, symbol)
        .filter(|(name, _, when)| {
            Tristate::of(config.get(*name).map(String::as_str)) > Tristate::No && holds(*when)
        })
        .map(|(name, definition, _)| format!("{name} ({})", definition.place))
        .take(SELECTORS)
        .collect();
    if !active.is_empty() {
        return format!("selected by {}", active.join(", "));
    }
    let prompts: Vec<&Vec<Condition>> =
        definitions.iter().filter_map(|d| d.prompt.as_ref()).collect();
    match prompts.first() {
        None => "it has no prompt, and is on by default".into(),
        Some(when) => match missing(when, Tristate::Module, config) {
            parts if parts.is_empty() => {
                "nothing selects it; it may be the last of a choice".into()
            }
            parts => {
                format!("it is on by default, and can be set only with {}", parts.join(" and "))
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: &str = "config DEBUG_FS\n\tbool \"debugfs\"\nconfig GUP_TEST\n\tbool \"pins\"\n\tdepends on DEBUG_FS && MMU\nconfig MMU\n\tdef_bool y\nconfig HIDDEN\n\tbool\nconfig USER\n\tbool \"user\"\n\tselect HIDDEN if MMU\nconfig EXPERTS\n\tbool \"x\" if EXPERT\n\tdefault y\nchoice\n\tprompt \"which\"\nconfig ONE\n\tbool \"one\"\nconfig TWO\n\tbool \"two\"\nendchoice\nconfig ASM\n\tbool \"asm\"\n\tdepends on $(cc-option,-fx)\n";

    fn said(config: &str, text: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("Kconfig"), TREE).unwrap();
        let path = dir.path().join("my.config");
        std::fs::write(&path, text).unwrap();
        let mut fragment = super::super::profile::read(&path).unwrap();
        fragment.name = "my.config".into();
        fragment.settle((6, 12)).unwrap();
        stuck(dir.path(), config, &[fragment]).map_or_else(|e| e.to_string(), |()| "stuck".into())
    }

    #[test]
    fn what_sticks_is_silent() {
        let config = "CONFIG_A=y\nCONFIG_S=\"x y\"\n# CONFIG_B is not set\n";
        assert_eq!(
            said(
                config,
                "CONFIG_A=y\nCONFIG_S=\"x y\"\n# CONFIG_B is not set\n# CONFIG_NO_SUCH is not set\n"
            ),
            "stuck"
        );
        // The later line counts.
        assert_eq!(said(config, "# CONFIG_A is not set\nCONFIG_A=y\n"), "stuck");
    }

    #[test]
    fn what_does_not_stick_says_why() {
        for (config, wish, why) in [
            (
                "CONFIG_MMU=y",
                "CONFIG_GUP_TEST=y",
                "CONFIG_GUP_TEST=y (my.config:1) did not stick, it is not set: it depends on DEBUG_FS (Kconfig:5), which is not set",
            ),
            ("", "CONFIG_FOO=y", "there is no CONFIG_FOO in this tree (my.config:1)"),
            (
                "",
                "CONFIG_HIDDEN=y",
                "CONFIG_HIDDEN=y (my.config:1) did not stick, it is not set: it has no prompt: only others select it, such as USER",
            ),
            (
                "CONFIG_MMU=y\nCONFIG_HIDDEN=y\nCONFIG_USER=y",
                "# CONFIG_HIDDEN is not set",
                "# CONFIG_HIDDEN is not set (my.config:1) did not stick, it is y: selected by USER (Kconfig:10)",
            ),
            (
                "CONFIG_EXPERTS=y",
                "# CONFIG_EXPERTS is not set",
                "# CONFIG_EXPERTS is not set (my.config:1) did not stick, it is y: it is on by default, and can be set only with EXPERT (Kconfig:14), which is not set",
            ),
            (
                "CONFIG_TWO=y",
                "CONFIG_ONE=y",
                "CONFIG_ONE=y (my.config:1) did not stick, it is not set: CONFIG_TWO, of the same choice, is set",
            ),
            (
                "",
                "CONFIG_ASM=y",
                "CONFIG_ASM=y (my.config:1) did not stick, it is not set: it depends on $(cc-option,-fx) (Kconfig:25), which this machine's compiler may not have",
            ),
        ] {
            assert_eq!(said(config, wish), why);
        }
    }
}
