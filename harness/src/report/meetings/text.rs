//! Meetings as tables: a short one for the end of a campaign, and the whole for `meetings.txt`, in Markdown.
//!
//! Only says what the counts say. Nothing here comes from a guest but numbers.

use super::{Axis, Meetings, Meets, Outcomes, Table};
use crate::report::columns::{markdown, plain};
use program::Mount;
use std::fmt::Write;

/// Most pairs that the short table names as never met: where there are more, it only says how many.
const NAMED_MAX: usize = 9;
/// Names of pairs on a line.
const NAMES_A_LINE: usize = 3;
/// How the counts of the short table are called, in its order.
const COUNTS: [&str; 5] = ["completed", "refused", "blocked", "unseen", "missed"];
/// How to read the tables.
const LEGEND: &str = "Pairs of what was there and what met it, as programs had them, and how the second call ended:
N completed, Nr returned an error, Nu never ran or never returned, Nm found nothing to meet any more; Nb of them were seen to wait.
0: no program had it. -: cannot be.
";

impl Meetings {
    /// For the end of a campaign: how many pairs were met of those that can be, and how the calls ended. Empty if there were none.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        short(&mut text, &HELD, &self.held);
        short(&mut text, &LEASES, &self.leases);
        text
    }

    /// Everything, in Markdown.
    pub fn to_markdown(&self) -> String {
        let mut text = format!("# Meetings\n\n{LEGEND}");
        whole(&mut text, &HELD, &self.held);
        whole(&mut text, &LEASES, &self.leases);
        text
    }
}

/// What a table is about.
struct Words {
    title: &'static str,
    rows: &'static str,
    columns: &'static str,
}

const HELD: Words =
    Words { title: "held pages and changes of their file", rows: "held by", columns: "change" };
const LEASES: Words =
    Words { title: "leases and calls that meet them", rows: "lease", columns: "call" };

fn short<R: Meets<C>, C: Axis>(text: &mut String, words: &Words, table: &Table<R, C>) {
    if table.is_empty() {
        return;
    }
    let mounts = table.mounts();
    let _ = writeln!(text, "{}: pairs met, and how the calls ended", words.title);
    for line in plain(&summary(words, table, &mounts)) {
        let _ = writeln!(text, "  {line}");
    }
    let never = never(table, &mounts);
    if never.len() > NAMED_MAX {
        let _ = writeln!(text, "  never met: {} pairs, see meetings.txt", never.len());
        return;
    }
    let names: Vec<String> = never.iter().map(|(row, column)| pair(*row, *column)).collect();
    for names in names.chunks(NAMES_A_LINE) {
        let _ = writeln!(text, "  never met: {}", names.join(", "));
    }
}

fn whole<R: Meets<C>, C: Axis>(text: &mut String, words: &Words, table: &Table<R, C>) {
    let _ = writeln!(text, "\n## {}\n", capital(words.title));
    if table.is_empty() {
        let _ = writeln!(text, "No program had any.");
        return;
    }
    let mounts = table.mounts();
    let names: Vec<&str> = mounts.iter().map(|mount| mount.name()).collect();
    let _ = writeln!(text, "Pairs met of those that can be, and how the calls ended:\n");
    markdown(text, &summary(words, table, &mounts));
    let never = never(table, &mounts);
    if !never.is_empty() {
        let _ = writeln!(text, "\nNever met: {} pairs.\n", never.len());
    }
    for row in R::ALL {
        let columns = never.iter().filter(|(of, _)| of == row).map(|(_, column)| column.name());
        let columns: Vec<&str> = columns.collect();
        if !columns.is_empty() {
            let _ = writeln!(text, "- {}: {}", row.name(), columns.join(", "));
        }
    }
    let _ = writeln!(text, "\n### On {}\n", names.join(", "));
    markdown(text, &cells(words, table, &mounts));
    for mount in mounts.iter().filter(|_| mounts.len() > 1) {
        let _ = writeln!(text, "\n### On {mount}\n");
        markdown(text, &cells(words, table, &[*mount]));
    }
}

/// A line a row of the table: how many of its pairs were met on each mount, and the outcomes of all.
fn summary<R: Meets<C>, C: Axis>(
    words: &Words,
    table: &Table<R, C>,
    mounts: &[Mount],
) -> Vec<Vec<String>> {
    let mut head = vec![words.rows.to_string()];
    head.extend(mounts.iter().map(|mount| mount.name().to_string()));
    head.extend(COUNTS.map(str::to_string));
    let mut lines = vec![head];
    let line = |name: &str, rows: &[R]| {
        let mut line = vec![name.to_string()];
        for mount in mounts {
            let (mut met, mut possible) = (0, 0);
            for row in rows {
                let (m, p) = table.reach(&[*mount], *row);
                (met, possible) = (met + m, possible + p);
            }
            line.push(if possible == 0 { "-".into() } else { format!("{met}/{possible}") });
        }
        let mut sum = Outcomes::default();
        for row in rows {
            C::ALL.iter().for_each(|column| sum.add(table.at(mounts, *row, *column)));
        }
        let counts = [sum.completed, sum.refused, sum.blocked, sum.unseen, sum.missed];
        line.extend(counts.map(|count| count.to_string()));
        line
    };
    lines.extend(R::ALL.iter().map(|row| line(row.name(), &[*row])));
    lines.push(line("all", R::ALL));
    lines
}

/// A line a column of the table, so that the page is longer than wide.
fn cells<R: Meets<C>, C: Axis>(
    words: &Words,
    table: &Table<R, C>,
    mounts: &[Mount],
) -> Vec<Vec<String>> {
    let mut head = vec![words.columns.to_string()];
    head.extend(R::ALL.iter().map(|row| row.name().to_string()));
    let mut lines = vec![head];
    for column in C::ALL {
        let mut line = vec![column.name().to_string()];
        for row in R::ALL {
            let outcomes = table.at(mounts, *row, *column);
            line.push(match Table::possible(mounts, *row, *column) {
                false if outcomes == Outcomes::default() => "-".into(),
                _ => cell(outcomes),
            });
        }
        lines.push(line);
    }
    lines
}

fn cell(outcomes: Outcomes) -> String {
    let Outcomes { completed, refused, unseen, missed, blocked } = outcomes;
    let counts = [(completed, ""), (refused, "r"), (unseen, "u"), (missed, "m"), (blocked, "b")];
    let counts = counts.iter().filter(|(count, _)| *count > 0);
    let words: Vec<String> = counts.map(|(count, letter)| format!("{count}{letter}")).collect();
    if words.is_empty() { "0".into() } else { words.join(" ") }
}

/// Pairs that can be and were met on none of these mounts.
fn never<R: Meets<C>, C: Axis>(table: &Table<R, C>, mounts: &[Mount]) -> Vec<(R, C)> {
    let mut pairs = Vec::new();
    for row in R::ALL {
        for column in C::ALL {
            if Table::possible(mounts, *row, *column) && !table.at(mounts, *row, *column).met() {
                pairs.push((*row, *column));
            }
        }
    }
    pairs
}

fn pair<R: Axis, C: Axis>(row: R, column: C) -> String {
    format!("{} x {}", row.name(), column.name())
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}
