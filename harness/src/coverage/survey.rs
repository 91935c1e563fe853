//! A survey: programs that were run on a kernel, and the call sites that each of them passed.

use super::sites::Sites;
use history::reached;
use serde::{Deserialize, Serialize};

/// Version of the form in which a survey is saved.
const SCHEMA: u32 = 1;

/// What programs reached in one kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// `uname -r`.
    pub release: String,
    /// What the user called the kernel.
    pub kernel: String,
    /// When it was made, as RFC 3339 has it.
    pub made: String,
    /// Who reached what; short programs come first, since they explain most.
    pub programs: Vec<Surveyed>,
}

/// One program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surveyed {
    /// Its file.
    pub name: String,
    /// How many lines it has.
    pub lines: usize,
    /// What it passed, see `Done::reached`.
    pub reached: Vec<u32>,
}

/// A survey as saved.
#[derive(Serialize, Deserialize)]
struct File {
    schema: u32,
    release: String,
    kernel: String,
    made: String,
    programs: Vec<Row>,
}

/// A program as saved; sites are the distances of `history::reached`, in hexadecimal.
#[derive(Serialize, Deserialize)]
struct Row {
    name: String,
    lines: usize,
    #[serde(with = "history::hex")]
    reached: Vec<u8>,
}

impl Survey {
    /// Puts programs into order.
    pub fn new(kernel: &str, release: &str, made: String, mut programs: Vec<Surveyed>) -> Survey {
        programs.sort_by(|a, b| (a.lines, &a.name).cmp(&(b.lines, &b.name)));
        Survey { release: release.into(), kernel: kernel.into(), made, programs }
    }

    /// As JSON.
    pub fn to_json(&self) -> String {
        let row = |program: &Surveyed| Row {
            name: program.name.clone(),
            lines: program.lines,
            reached: reached::encode(&program.reached),
        };
        let file = File {
            schema: SCHEMA,
            release: self.release.clone(),
            kernel: self.kernel.clone(),
            made: self.made.clone(),
            programs: self.programs.iter().map(row).collect(),
        };
        serde_json::to_string(&file).expect("strings and numbers become JSON")
    }

    /// What `to_json` wrote. The file may hold anything.
    pub fn from_json(text: &str) -> Result<Survey, String> {
        let file: File = serde_json::from_str(text).map_err(|e| e.to_string())?;
        if file.schema != SCHEMA {
            return Err(format!("it has schema {}, not {SCHEMA}", file.schema));
        }
        let surveyed = |row: Row| {
            let reached = reached::decode(&row.reached)
                .ok_or_else(|| format!("{}: its sites are damaged", row.name))?;
            Ok(Surveyed { name: row.name, lines: row.lines, reached })
        };
        let programs = file.programs.into_iter().map(surveyed).collect::<Result<_, String>>()?;
        Ok(Survey::new(&file.kernel, &file.release, file.made, programs))
    }

    /// How many of all that was passed are call sites of that build: all of them, if it is the kernel that ran.
    pub fn known(&self, sites: &Sites) -> (usize, usize) {
        let all: std::collections::BTreeSet<u32> =
            self.programs.iter().flat_map(|p| p.reached.iter().copied()).collect();
        (all.iter().filter(|pc| sites.index_of(**pc).is_some()).count(), all.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_survey_is_saved_and_read() {
        let program = |name: &str, lines, reached| Surveyed { name: name.into(), lines, reached };
        let programs = vec![program("b", 9, vec![]), program("a", 3, vec![5, 700, u32::MAX])];
        let survey = Survey::new("k", "6.12", "2026-01-01T00:00:00Z".into(), programs);
        assert_eq!(survey.programs[0].name, "a");
        assert_eq!(Survey::from_json(&survey.to_json()).as_ref(), Ok(&survey));
        for (from, to, why) in [
            ("\"schema\":1", "\"schema\":7", "it has schema 7, not 1"),
            ("\"reached\":\"05", "\"reached\":\"0500", "a: its sites are damaged"),
        ] {
            let text = survey.to_json().replace(from, to);
            assert_eq!(Survey::from_json(&text).unwrap_err(), why);
        }
        assert!(Survey::from_json("{}").is_err());
    }
}
