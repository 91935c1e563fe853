//! Tables in plain text and in Markdown: a first column of words, then numbers.
//!
//! The first line is the head. Does not know what is counted.

use std::fmt::Write;

fn widths(lines: &[Vec<String>]) -> Vec<usize> {
    let columns = lines.first().map_or(0, Vec::len);
    (0..columns)
        .map(|column| lines.iter().map(|line| line[column].len()).max().unwrap_or(0))
        .collect()
}

/// The first column to the left, numbers to the right.
fn padded(line: &[String], widths: &[usize]) -> Vec<String> {
    let words = line.iter().zip(widths).enumerate();
    words
        .map(
            |(index, (word, width))| {
                if index == 0 { format!("{word:width$}") } else { format!("{word:>width$}") }
            },
        )
        .collect()
}

/// One line of text for each of the table.
pub fn plain(lines: &[Vec<String>]) -> Vec<String> {
    let widths = widths(lines);
    lines.iter().map(|line| padded(line, &widths).join("  ")).collect()
}

/// Appends the table in Markdown.
pub fn markdown(text: &mut String, lines: &[Vec<String>]) {
    let widths = widths(lines);
    for (index, line) in lines.iter().enumerate() {
        let _ = writeln!(text, "| {} |", padded(line, &widths).join(" | "));
        if index == 0 {
            let rule = widths.iter().enumerate().map(|(column, width)| match column {
                0 => "-".repeat(*width),
                _ => "-".repeat(width.saturating_sub(1).max(1)) + ":",
            });
            let _ = writeln!(text, "| {} |", rule.collect::<Vec<_>>().join(" | "));
        }
    }
}
