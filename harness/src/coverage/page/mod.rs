//! The map as a page: one HTML file that needs nothing else, with the source if it is at hand; and as text for terminals and logs.

use super::map::{FileMap, Map, Part};
use super::survey::Survey;
use serde::Serialize;
use std::fmt::Write;

/// The page without its data: `@DATA@` stands where that goes.
const TEMPLATE: &str = include_str!("page.html");
/// Programs that the page names for a line; the survey knows them all.
const NAMED_MAX: usize = 12;

/// What the page is made of.
#[derive(Serialize)]
struct Data<'a> {
    release: &'a str,
    kernel: &'a str,
    made: &'a str,
    /// How `pinfuzz coverage` finds the survey again.
    survey: &'a str,
    programs: Vec<&'a str>,
    sites: [usize; 2],
    files: Vec<FileData<'a>>,
}

#[derive(Serialize)]
struct FileData<'a> {
    path: &'a str,
    lines: Vec<LineData>,
    functions: Vec<FunctionData<'a>>,
    /// The source, or nothing.
    source: Option<String>,
}

/// Line, sites reached, sites, programs, the first of them.
#[derive(Serialize)]
struct LineData(u32, usize, usize, usize, Vec<usize>);

/// Name, first line, lines reached, lines, programs.
#[derive(Serialize)]
struct FunctionData<'a>(&'a str, u32, usize, usize, usize);

/// The page. `source` gives the text of a file of the kernel's tree.
pub fn html(
    map: &Map,
    survey: &Survey,
    folder: &str,
    source: &dyn Fn(&str) -> Option<String>,
) -> String {
    let files = map.in_order().into_iter().map(|(path, file)| FileData {
        path,
        lines: file
            .lines
            .iter()
            .map(|(line, l)| {
                let named = l.programs.iter().take(NAMED_MAX).collect();
                LineData(*line, l.sites.reached, l.sites.all, l.programs.len(), named)
            })
            .collect(),
        functions: functions(file),
        // A file that nobody reaches says enough by its name.
        source: (file.lines_part().reached > 0).then(|| source(path)).flatten(),
    });
    let data = Data {
        release: &survey.release,
        kernel: &survey.kernel,
        made: &survey.made,
        survey: folder,
        programs: survey.programs.iter().map(|p| p.name.as_str()).collect(),
        sites: [map.sites.reached, map.sites.all],
        files: files.collect(),
    };
    let json = serde_json::to_string(&data).expect("strings and numbers become JSON");
    // Nothing in the data can end the script that holds it.
    TEMPLATE.replace("@DATA@", &json.replace('<', "\\u003c"))
}

fn functions(file: &FileMap) -> Vec<FunctionData<'_>> {
    let mut all: Vec<FunctionData<'_>> = file
        .functions
        .iter()
        .map(|(name, function)| {
            let lines = function.lines_part();
            FunctionData(
                name,
                function.first_line(),
                lines.reached,
                lines.all,
                function.programs.len(),
            )
        })
        .collect();
    all.sort_by_key(|function| function.1);
    all
}

/// The map as text: every file, its functions, and the lines that nobody reaches.
pub fn text(map: &Map, survey: &Survey) -> String {
    let mut text = format!(
        "{}: {} programs on {} ({}) reach {} of {} call sites, {} of {} lines, {} of {} functions\n",
        survey.made,
        survey.programs.len(),
        survey.release,
        survey.kernel,
        map.sites.reached,
        map.sites.all,
        map.lines().reached,
        map.lines().all,
        map.functions().reached,
        map.functions().all,
    );
    for (path, file) in map.in_order() {
        let (lines, functions) = (file.lines_part(), file.functions_part());
        let _ = writeln!(text, "\n{path}: {} lines, {} functions", of(lines), of(functions));
        if lines.reached == 0 {
            continue;
        }
        for FunctionData(name, line, reached, all, programs) in self::functions(file) {
            let part = of(Part { reached, all });
            let _ = writeln!(text, "  {line:>6} {name:<44} {part:<18} {programs} programs");
        }
        let dark: Vec<u32> =
            file.lines.iter().filter(|(_, l)| l.sites.reached == 0).map(|(n, _)| *n).collect();
        if !dark.is_empty() {
            let _ = writeln!(text, "  not reached: {}", ranges(&dark));
        }
    }
    text
}

fn of(part: Part) -> String {
    format!("{} of {} ({} %)", part.reached, part.all, part.percent())
}

/// Ascending numbers, neighbours drawn together.
fn ranges(numbers: &[u32]) -> String {
    let mut parts: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == *number => *last = *number,
            _ => parts.push((*number, *number)),
        }
    }
    let words = parts.iter().map(|(a, b)| match a == b {
        true => a.to_string(),
        false => format!("{a}-{b}"),
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
