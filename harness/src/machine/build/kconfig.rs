//! Kconfig as far as it takes to say why a symbol is not what was wished: definitions, their conditions, and what selects what.
//!
//! Total: whatever a file holds, it is read, and what is not understood is skipped. Knows no compiler: conditions that ask one
//! (`$(cc-option,...)`) are unknown. The kernel's own olddefconfig decides; this only explains.

use super::expression::Expression;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::rc::Rc;

/// How deep files may source each other; the kernel's go six deep.
const DEPTH_MAX: usize = 32;
/// How many files are read at most; the kernel has some 1700 of them.
const FILES_MAX: usize = 20_000;
/// Columns of a tab, for the indentation of help texts.
const TAB: usize = 8;

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// From the top of the tree.
    pub file: Rc<str>,
    /// From 1.
    pub line: usize,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// A condition, and where it stands.
#[derive(Clone, Debug)]
pub struct Condition {
    /// What must hold.
    pub expression: Expression,
    /// Its line.
    pub place: Place,
}

/// One definition of a symbol; it may have several.
#[derive(Clone, Debug)]
pub struct Definition {
    /// Its first line.
    pub place: Place,
    /// Its own `depends on` and those of what it stands in.
    pub conditions: Vec<Condition>,
    /// When a user may set it; `None` if never.
    pub prompt: Option<Vec<Condition>>,
    /// What it selects, and when.
    pub selects: Vec<(String, Option<Condition>)>,
    /// The choice that it stands in.
    pub choice: Option<usize>,
}

/// All symbols of a tree.
#[derive(Debug, Default)]
pub struct Symbols {
    /// By name.
    pub definitions: BTreeMap<String, Vec<Definition>>,
}

/// What attributes belong to.
enum Entry {
    Nothing,
    Symbol(String, Definition),
    /// A menu or a choice that was opened last: its conditions are those of its block.
    Block,
}

/// A block that is open.
#[derive(Default)]
struct Block {
    conditions: Vec<Condition>,
    /// `visible if`: when prompts within can be seen.
    visible: Vec<Condition>,
    choice: Option<usize>,
}

struct Reader<'a> {
    tree: &'a Path,
    symbols: Symbols,
    blocks: Vec<Block>,
    entry: Entry,
    choices: usize,
    files: usize,
}

/// Reads all of a tree's Kconfig files, as for x86.
pub fn read(tree: &Path) -> Symbols {
    let mut reader = Reader {
        tree,
        symbols: Symbols::default(),
        blocks: Vec::new(),
        entry: Entry::Nothing,
        choices: 0,
        files: 0,
    };
    reader.file("Kconfig", 0);
    reader.close();
    reader.symbols
}

impl Reader<'_> {
    fn file(&mut self, name: &str, depth: usize) {
        self.files += 1;
        let Ok(bytes) = fs::read(self.tree.join(name)) else {
            return;
        };
        if depth > DEPTH_MAX || self.files > FILES_MAX {
            return;
        }
        let text = String::from_utf8_lossy(&bytes);
        let file: Rc<str> = name.into();
        let mut lines = text.lines().enumerate().peekable();
        while let Some((index, line)) = lines.next() {
            let mut whole = line.to_string();
            while whole.ends_with('\\') {
                whole.pop();
                whole.push_str(lines.next().map_or("", |(_, line)| line));
            }
            let place = Place { file: Rc::clone(&file), line: index + 1 };
            let trimmed = whole.trim();
            if trimmed == "help" || trimmed == "---help---" {
                // The text goes on as far as it is indented like its first line.
                let mut base = None;
                while let Some((_, line)) = lines.peek() {
                    let blank = line.trim().is_empty();
                    let indent = indentation(line);
                    if !blank && (indent == 0 || indent < *base.get_or_insert(indent)) {
                        break;
                    }
                    lines.next();
                }
                continue;
            }
            self.line(trimmed, place, depth);
        }
        // An entry ends with its file.
        self.close();
    }

    fn line(&mut self, line: &str, place: Place, depth: usize) {
        let line = uncommented(line);
        let (word, rest) =
            line.split_once(|c: char| c.is_whitespace() || c == '"').unwrap_or((line, ""));
        // The split may have eaten the quote.
        let rest = line.get(word.len()..).filter(|_| !rest.is_empty()).unwrap_or("").trim();
        match word {
            "config" | "menuconfig" => {
                self.close();
                let definition = Definition {
                    place,
                    conditions: self.blocks.iter().flat_map(|b| b.conditions.clone()).collect(),
                    prompt: None,
                    selects: Vec::new(),
                    choice: self.blocks.iter().rev().find_map(|block| block.choice),
                };
                self.entry = Entry::Symbol(rest.to_string(), definition);
            }
            "choice" => {
                self.choices += 1;
                let choice = Some(self.choices);
                self.open(Block { choice, ..Block::default() });
                self.entry = Entry::Block;
            }
            "menu" => {
                self.open(Block::default());
                self.entry = Entry::Block;
            }
            "if" => {
                let expression = Expression::parse(rest);
                let conditions = vec![Condition { expression, place }];
                self.open(Block { conditions, ..Block::default() });
            }
            "endif" | "endmenu" | "endchoice" => {
                self.close();
                self.blocks.pop();
            }
            "comment" | "mainmenu" => self.close(),
            "source" | "rsource" | "osource" | "orsource" => {
                self.close();
                let name =
                    rest.trim_matches('"').replace("$(SRCARCH)", "x86").replace("$(srctree)/", "");
                let name = match (word.contains("rs"), place.file.rsplit_once('/')) {
                    (true, Some((folder, _))) => format!("{folder}/{name}"),
                    _ => name,
                };
                self.file(&name, depth + 1);
            }
            "depends" => {
                let text = rest.strip_prefix("on").unwrap_or(rest);
                let (text, when) = split_if(text);
                let expression = Expression::parse(text);
                let expression = match when {
                    None => expression,
                    Some(when) => Expression::Or(
                        Box::new(Expression::Not(Box::new(Expression::parse(when)))),
                        Box::new(expression),
                    ),
                };
                let condition = Condition { expression, place };
                match &mut self.entry {
                    Entry::Symbol(_, definition) => definition.conditions.push(condition),
                    Entry::Block => self
                        .blocks
                        .iter_mut()
                        .last()
                        .into_iter()
                        .for_each(|b| b.conditions.push(condition.clone())),
                    Entry::Nothing => {}
                }
            }
            "visible" => {
                let expression = Expression::parse(rest.strip_prefix("if").unwrap_or(rest));
                if let (Entry::Block, Some(block)) = (&self.entry, self.blocks.last_mut()) {
                    block.visible.push(Condition { expression, place });
                }
            }
            "bool" | "tristate" | "string" | "hex" | "int" | "prompt" if rest.starts_with('"') => {
                let mut when: Vec<Condition> =
                    self.blocks.iter().flat_map(|b| b.visible.clone()).collect();
                if let Entry::Symbol(_, definition) = &mut self.entry {
                    let condition = split_if(rest).1.map(Expression::parse);
                    when.extend(condition.map(|expression| Condition { expression, place }));
                    definition.prompt = Some(when);
                }
            }
            "select" => {
                if let Entry::Symbol(_, definition) = &mut self.entry {
                    let (symbol, when) = split_if(rest);
                    let when =
                        when.map(|text| Condition { expression: Expression::parse(text), place });
                    definition.selects.push((symbol.trim().to_string(), when));
                }
            }
            _ => {}
        }
    }

    fn open(&mut self, block: Block) {
        self.close();
        self.blocks.push(block);
    }

    /// The entry at hand is whole.
    fn close(&mut self) {
        if let Entry::Symbol(name, definition) = std::mem::replace(&mut self.entry, Entry::Nothing)
        {
            self.symbols.definitions.entry(name).or_default().push(definition);
        }
    }
}

fn indentation(line: &str) -> usize {
    let mut columns = 0;
    for c in line.chars() {
        match c {
            '\t' => columns += TAB - columns % TAB,
            ' ' => columns += 1,
            _ => break,
        }
    }
    columns
}

/// A line without its comment.
fn uncommented(line: &str) -> &str {
    let mut quoted = false;
    for (at, c) in line.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '#' if !quoted => return line[..at].trim_end(),
            _ => {}
        }
    }
    line
}

/// What stands before and after the word `if`, outside of quotes.
fn split_if(text: &str) -> (&str, Option<&str>) {
    let mut quoted = false;
    for (at, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            'i' if !quoted => {
                let before =
                    text[..at].chars().next_back().is_none_or(|c| c.is_whitespace() || c == '"');
                if let Some(after) = text[at..].strip_prefix("if").filter(|_| before)
                    && after.starts_with(|c: char| c.is_whitespace() || c == '(' || c == '!')
                {
                    return (&text[..at], Some(after));
                }
            }
            _ => {}
        }
    }
    (text, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> (tempfile::TempDir, Symbols) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let symbols = read(dir.path());
        (dir, symbols)
    }

    fn conditions(symbols: &Symbols, name: &str) -> Vec<String> {
        let definition = &symbols.definitions[name][0];
        definition.conditions.iter().map(|c| format!("{} {}", c.expression, c.place)).collect()
    }

    #[test]
    fn conditions_are_a_symbols_own_and_those_around_it() {
        let (_dir, symbols) = tree(&[
            (
                "Kconfig",
                "source \"arch/$(SRCARCH)/Kconfig\"\nmenu \"Debugging\"\n\tdepends on KERNEL\n\nif DEEP\nsource \"mm/Kconfig\"\nendif\nendmenu\nconfig AFTER\n\tbool\n",
            ),
            (
                "arch/x86/Kconfig",
                "config X86\n\tdef_bool y\n\tselect GENERIC if SMP && \\\n\t  !TINY\n",
            ),
            (
                "mm/Kconfig",
                "config GUP_TEST\n\tbool \"Enable if asked\" if EXPERT\n\thelp\n\t  config NOT_ONE\n\n\t  depends on NOTHING\n\tdepends on DEBUG_FS # why not\n",
            ),
        ]);
        assert_eq!(
            conditions(&symbols, "GUP_TEST"),
            ["KERNEL Kconfig:3", "DEEP Kconfig:5", "DEBUG_FS mm/Kconfig:7"]
        );
        assert!(
            conditions(&symbols, "AFTER").is_empty()
                && !symbols.definitions.contains_key("NOT_ONE")
        );
        let prompt = symbols.definitions["GUP_TEST"][0].prompt.as_ref().unwrap();
        assert_eq!(prompt[0].expression.to_string(), "EXPERT");
        let (symbol, when) = &symbols.definitions["X86"][0].selects[0];
        assert_eq!(
            (symbol.as_str(), when.as_ref().unwrap().expression.to_string()),
            ("GENERIC", "SMP && !TINY".into())
        );
    }

    #[test]
    fn members_of_a_choice_know_it() {
        let (_dir, symbols) = tree(&[(
            "Kconfig",
            "choice\n\tprompt \"Which\"\n\tdepends on X\nconfig A\n\tbool \"a\"\nconfig B\n\tbool \"b\"\nendchoice\nconfig C\n\tbool \"c\"\n",
        )]);
        let choice = |name: &str| symbols.definitions[name][0].choice;
        assert!(choice("A").is_some() && choice("A") == choice("B") && choice("C").is_none());
        assert_eq!(conditions(&symbols, "B"), ["X Kconfig:3"]);
    }

    #[test]
    fn whatever_a_file_holds_it_is_read() {
        let (_dir, symbols) = tree(&[(
            "Kconfig",
            "endif\nendmenu\nsource \"Kconfig\"\nconfig\n\\\nif\nbool \"\nconfig Z\n\tdepends on ((((\n\tselect\n\u{0}\nhelp",
        )]);
        assert!(symbols.definitions.contains_key("Z"));
    }
}
