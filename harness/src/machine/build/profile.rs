//! Profiles: fragments of a kernel's configuration, ours and the user's, and what they wish for.
//!
//! A line may end in `# since 6.4` or `# until 6.3`, for symbols that not every kernel has. Does not know whether a wish came true.

use super::BuildError;
use crate::machine::digest::Digest;
use std::path::Path;

/// The profiles, `base` first.
pub const PROFILES: [(&str, &str); 6] = [
    ("base", include_str!("../../../../vm-images/kernels/base.config")),
    ("fault", include_str!("../../../../vm-images/kernels/fault.config")),
    ("gup_test", include_str!("../../../../vm-images/kernels/gup_test.config")),
    ("kasan", include_str!("../../../../vm-images/kernels/kasan.config")),
    ("kcov", include_str!("../../../../vm-images/kernels/kcov.config")),
    ("lockdep", include_str!("../../../../vm-images/kernels/lockdep.config")),
];
/// The objects that the profile `kcov` instruments.
const OBJECTS: &str = include_str!("../../../../vm-images/kernels/kcov.objects");
/// Most bytes of a fragment; a whole .config has a third of it.
const BYTES_MAX: u64 = 1 << 20;

/// Patterns of the objects that report coverage, as make's `filter` takes them.
pub fn objects() -> impl Iterator<Item = &'static str> {
    OBJECTS.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// A symbol and the value that it should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Without `CONFIG_`.
    pub symbol: String,
    /// As in a `.config`; nothing is "not set".
    pub value: Option<String>,
    /// From 1.
    pub line: usize,
}

/// A fragment of a configuration.
#[derive(Clone, Debug)]
pub struct Fragment {
    /// The file's name, for messages.
    pub name: String,
    text: String,
    /// In the order of their lines.
    pub wishes: Vec<Wish>,
}

/// `base` and the others in order, each once.
pub fn sorted(names: &[String]) -> Result<Vec<String>, BuildError> {
    let known: Vec<&str> = PROFILES.iter().map(|(name, _)| *name).collect();
    if let Some(name) = names.iter().find(|name| !known.contains(&name.as_str())) {
        let what = format!("there is no profile `{}`", name.escape_debug());
        return Err(BuildError::wrong(what, format!("choose from {}", known.join(", "))));
    }
    // The table is sorted, but for `base` at its head.
    let chosen = known.into_iter().filter(|k| *k == "base" || names.iter().any(|n| n == k));
    Ok(chosen.map(str::to_string).collect())
}

/// The fragments of our own profiles.
pub fn embedded(names: &[String]) -> Result<Vec<Fragment>, BuildError> {
    let ours = PROFILES.iter().filter(|(name, _)| names.iter().any(|n| n == name));
    ours.map(|(name, text)| Fragment::new(&format!("{name}.config"), text)).collect()
}

/// A fragment of the user's.
pub fn read(path: &Path) -> Result<Fragment, BuildError> {
    use std::io::Read;
    let mut text = String::new();
    let name = path.display().to_string();
    std::fs::File::open(path)
        .and_then(|file| file.take(BYTES_MAX).read_to_string(&mut text))
        .map_err(|e| {
            BuildError::wrong(
                format!("cannot read fragment {name}: {e}"),
                "check the path and its permissions",
            )
        })?;
    Fragment::new(&name, &text)
}

impl Fragment {
    fn new(name: &str, text: &str) -> Result<Fragment, BuildError> {
        let fragment = Fragment { name: name.into(), text: text.into(), wishes: Vec::new() };
        // A file that is wrong is told before a source is fetched for it.
        fragment.clone().settle((u64::MAX, 0))?;
        Ok(fragment)
    }

    /// Leaves out the lines that are for other kernels than this series, and reads the wishes of the others.
    pub fn settle(&mut self, series: (u64, u64)) -> Result<(), BuildError> {
        let mut text = String::new();
        self.wishes.clear();
        for (index, line) in self.text.lines().enumerate() {
            let wrong = |what: &str| {
                BuildError::wrong(
                    format!("{}:{}: {what}: {}", self.name, index + 1, line.escape_debug()),
                    "write lines such as `CONFIG_X=y`, `# CONFIG_Y is not set` or `CONFIG_Z=y # since 6.4`",
                )
            };
            let (wish, applies) = noted(line.trim_end(), series).map_err(|why| wrong(&why))?;
            if let Some((symbol, value)) =
                parse(wish).ok_or_else(|| wrong("not a line of a config"))?
                && applies
            {
                self.wishes.push(Wish { symbol, value, line: index + 1 });
                text.push_str(wish);
            }
            // A line each, so that numbers stay.
            text.push('\n');
        }
        self.text = text;
        Ok(())
    }

    /// For `merge_config.sh`.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Name and digest, for the record.
    pub fn digested(&self) -> (String, String) {
        (self.name.clone(), Digest::default().with(self.text.as_bytes()).to_string())
    }
}

/// A line without its note, and whether it is for that series.
fn noted(line: &str, series: (u64, u64)) -> Result<(&str, bool), String> {
    for (word, since) in [(" # since ", true), (" # until ", false)] {
        if let Some((wish, version)) = line.rsplit_once(word) {
            let bound = super::source::version(version)
                .ok_or_else(|| format!("`{}` is no version", version.escape_debug()))?;
            let applies = if since { series >= bound } else { series <= bound };
            return Ok((wish.trim_end(), applies));
        }
    }
    Ok((line, true))
}

/// A wish; `Some(None)` is a comment, and `None` neither.
#[expect(clippy::option_option, reason = "a comment is not an error")]
fn parse(line: &str) -> Option<Option<(String, Option<String>)>> {
    if let Some(name) = line.strip_prefix("# CONFIG_").and_then(|l| l.strip_suffix(" is not set")) {
        return symbol(name).map(|name| Some((name, None)));
    }
    if line.is_empty() || line.starts_with('#') {
        return Some(None);
    }
    let (name, value) = line.strip_prefix("CONFIG_")?.split_once('=')?;
    let quoted = value.len() >= 2 && value.starts_with('"') && value.ends_with('"');
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !quoted && (value.is_empty() || !value.chars().all(bare)) {
        return None;
    }
    // `n` is how a fragment may say what a .config says as "is not set".
    let value = (value != "n").then(|| value.to_string());
    symbol(name).map(|name| Some((name, value)))
}

/// A symbol's name; the kernel's script puts it into a pattern of sed.
fn symbol(name: &str) -> Option<String> {
    let fine = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    fine.then(|| name.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wishes(text: &str, series: (u64, u64)) -> Result<Vec<Wish>, BuildError> {
        let mut fragment = Fragment::new("my.config", text)?;
        fragment.settle(series)?;
        assert_eq!(fragment.text().lines().count(), text.lines().count());
        Ok(fragment.wishes)
    }

    #[test]
    fn lines_are_wishes_comments_or_wrong() {
        let text =
            "# a comment\n\nCONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=\"-x y\"\nCONFIG_D=n\n";
        let wish = |symbol: &str, value: Option<&str>, line| Wish {
            symbol: symbol.into(),
            value: value.map(str::to_string),
            line,
        };
        assert_eq!(
            wishes(text, (6, 12)).unwrap(),
            [
                wish("A", Some("y"), 3),
                wish("B", None, 4),
                wish("C", Some("\"-x y\""), 5),
                wish("D", None, 6)
            ]
        );
        for wrong in [
            "A=y",
            "CONFIG_A",
            "CONFIG_A=",
            "CONFIG_A/x=y",
            "CONFIG_=y",
            "CONFIG_A=y z",
            "# CONFIG_A/d is not set",
            "CONFIG_A=y # since x",
        ] {
            let error = wishes(&format!("\n{wrong}\n"), (6, 12)).unwrap_err().to_string();
            assert!(error.starts_with("my.config:2: ") && error.lines().count() == 1, "{error}");
        }
    }

    #[test]
    fn a_line_may_be_for_some_kernels_only() {
        let text =
            "CONFIG_A=y # since 6.4\nCONFIG_B=y # until 6.3\n# CONFIG_C is not set # since 6.4\n";
        let names = |series| -> Vec<String> {
            wishes(text, series).unwrap().into_iter().map(|w| w.symbol).collect()
        };
        assert_eq!(names((6, 12)), ["A", "C"]);
        assert_eq!(names((6, 4)), ["A", "C"]);
        assert_eq!(names((6, 1)), ["B"]);
    }

    #[test]
    fn our_own_fragments_and_objects_are_well_formed() {
        let names: Vec<String> = PROFILES.iter().map(|(name, _)| (*name).to_string()).collect();
        assert_eq!(sorted(&names).unwrap(), names, "the table is sorted");
        for fragment in &mut embedded(&names).unwrap() {
            fragment.settle((6, 12)).unwrap();
            assert!(!fragment.wishes.is_empty(), "{}", fragment.name);
        }
        for pattern in objects() {
            assert!(pattern.ends_with(".o") || pattern.ends_with("/%"), "{pattern}");
            let fine = |c: char| c.is_ascii_alphanumeric() || "_-./%".contains(c);
            assert!(pattern.chars().all(fine), "{pattern} must be one word to make");
        }
        assert!(sorted(&["kcov".into(), "kcov".into()]).unwrap() == ["base", "kcov"]);
        let error = sorted(&["k\nasan".into()]).unwrap_err().to_string();
        assert_eq!(error, "there is no profile `k\\nasan`");
    }
}
