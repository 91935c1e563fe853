//! What was exercised in words: a line for the end of a campaign, and the whole for `exercised.txt`, in Markdown.
//!
//! Only says what the counts say. Nothing here comes from a guest but numbers.

use super::{Counts, Exercised};
use crate::coverage::behaviour::Place;
use crate::report::columns::markdown;
use program::{CallKind, Form, Mount};
use std::fmt::Write;
use std::path::Path;

/// Most errnos that a cell names; the rest are added up.
const ERRNOS_MAX: usize = 4;
/// How to read the tables.
const LEGEND: &str = "Each call counts in every form that it has: its flags, where its bytes come from, and how it was issued.
A form is exercised where a call of it ended or was seen to wait.
";
const CELLS: &str = "N completed, N and an errno or a signal failed, Nu never returned; Nb of them were seen to wait. Nx left out, for the kernel has no such
call. .: never issued there. -: cannot be. Calls on no file, those on a gate's device, and those left out are elsewhere.
";

impl Exercised {
    /// For the end of a campaign: how many forms were exercised where. Empty if none was.
    pub fn to_text(&self, dir: &Path) -> String {
        let mut parts = Vec::new();
        for place in self.places() {
            let (exercised, possible) = self.reach(place);
            let of = if parts.is_empty() { " call forms" } else { "" };
            parts.push(format!("{exercised} of {possible}{of} {}", at(place)));
        }
        if parts.is_empty() {
            return String::new();
        }
        let parts = parts.join(", ");
        format!("exercised {parts}; `pinfuzz show --exercised {}` lists the rest\n", dir.display())
    }

    /// Everything, in Markdown.
    pub fn to_markdown(&self) -> String {
        let mut text = format!("# What was exercised, and what was not\n\n{LEGEND}");
        if self.is_empty() {
            text += "\nNothing was.\n";
            return text;
        }
        let places = self.places();
        let mut lines =
            vec![["place", "exercised", "completed", "forms"].map(String::from).to_vec()];
        for place in &places {
            let (exercised, possible) = self.reach(*place);
            let completed = Exercised::possible(*place)
                .filter(|form| self.at(*place, *form).is_some_and(|counts| counts.completed > 0))
                .count();
            let numbers = [exercised, completed, possible].map(|number| number.to_string());
            lines.push([place.name().to_string()].into_iter().chain(numbers).collect());
        }
        text.push('\n');
        markdown(&mut text, &lines);
        let without: Vec<&str> = Mount::ALL
            .into_iter()
            .filter(|mount| !places.contains(&Place::On(*mount)))
            .map(Mount::name)
            .collect();
        if !without.is_empty() {
            let _ = writeln!(text, "\nNo call was about a file on {}.", without.join(", "));
        }
        self.list(&mut text, &places, "Never exercised", |counts| {
            !counts.is_some_and(Counts::exercised)
        });
        self.list(&mut text, &places, "Never completed, though exercised", |counts| {
            counts.is_some_and(|counts| counts.exercised() && counts.completed == 0)
        });
        let _ = write!(text, "\n## All calls\n\n{CELLS}\n");
        markdown(&mut text, &self.cells(&places));
        text
    }

    /// The forms that fit, by place and kind; those that fit on every mount that came up come first and once.
    fn list(
        &self,
        text: &mut String,
        places: &[Place],
        title: &str,
        fits: impl Fn(Option<&Counts>) -> bool,
    ) {
        let fit = |place: Place| -> Vec<Form> {
            Exercised::possible(place).filter(|form| fits(self.at(place, *form))).collect()
        };
        let mounts: Vec<Place> =
            places.iter().copied().filter(|place| *place != Place::Elsewhere).collect();
        let mut common = mounts.first().map_or(Vec::new(), |place| fit(*place));
        common.retain(|form| mounts.iter().all(|place| fits(self.at(*place, *form))));
        let _ = writeln!(text, "\n## {title}");
        let mut sections = Vec::new();
        if mounts.len() > 1 {
            sections.push(("on any mount".to_string(), common.clone()));
        }
        for place in places {
            let mut forms = fit(*place);
            if mounts.len() > 1 && *place != Place::Elsewhere {
                forms.retain(|form| !common.contains(form));
            }
            sections.push((at(*place), forms));
        }
        for (place, forms) in sections {
            if forms.is_empty() {
                continue;
            }
            let forms_word = if forms.len() == 1 { "form" } else { "forms" };
            let _ = writeln!(text, "\n{} {forms_word} {place}:\n", forms.len());
            for kind in CallKind::ALL {
                let of_kind: Vec<Form> =
                    forms.iter().copied().filter(|form| form.kind() == *kind).collect();
                let modes: Vec<&str> = of_kind.iter().map(|form| form.mode_name()).collect();
                match modes.as_slice() {
                    [] => {}
                    [""] => drop(writeln!(text, "- {}", kind.label())),
                    modes => drop(writeln!(text, "- {}: {}", kind.label(), modes.join(", "))),
                }
            }
        }
    }

    /// A line a form.
    fn cells(&self, places: &[Place]) -> Vec<Vec<String>> {
        let mut head = vec!["form".to_string()];
        head.extend(places.iter().map(|place| place.name().to_string()));
        let mut lines = vec![head];
        for form in Form::all() {
            let mut line = vec![form.name().to_string()];
            for place in places {
                let possible = (*place == Place::Elsewhere) != form.kind().has_file();
                line.push(match self.at(*place, form) {
                    Some(counts) => cell(counts),
                    None if possible => ".".into(),
                    None => "-".into(),
                });
            }
            lines.push(line);
        }
        lines
    }
}

fn at(place: Place) -> String {
    match place {
        Place::On(mount) => format!("on {}", mount.name()),
        Place::Elsewhere => "elsewhere".into(),
    }
}

fn cell(counts: &Counts) -> String {
    let mut failed: Vec<(String, u64)> =
        counts.failed.iter().map(|(failure, count)| (failure.name(), *count)).collect();
    // The most frequent first.
    failed.sort_by(|one, other| other.1.cmp(&one.1).then(one.0.cmp(&other.0)));
    let rest = failed.iter().skip(ERRNOS_MAX).fold(0_u64, |sum, (_, n)| sum.saturating_add(*n));
    failed.truncate(ERRNOS_MAX);
    let mut words = Vec::new();
    if counts.completed > 0 {
        words.push(counts.completed.to_string());
    }
    words.extend(failed.into_iter().map(|(name, count)| format!("{count} {name}")));
    if rest > 0 {
        words.push(format!("{rest} more"));
    }
    for (count, letter) in [(counts.unseen, 'u'), (counts.blocked, 'b'), (counts.unsupported, 'x')]
    {
        if count > 0 {
            words.push(format!("{count}{letter}"));
        }
    }
    words.join(", ")
}
