//! A run as JSON lines: `history.jsonl`.
//!
//! The first line holds the version, the run's number and the program as text; each further one an event. So a history can be read,
//! cut and compared with the tools that everyone has. Does not check whether the events make sense: that is the checker's matter.

use crate::{Event, History, Record};
use program::Program;
use serde::{Deserialize, Serialize};

/// Version of the format.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Head {
    pinfuzz_history: u32,
    run: u32,
    program: String,
}

/// A text that is no saved run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct RecordError {
    /// Line of the text, from 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

/// The run as text.
pub fn write(record: &Record) -> String {
    let head = Head {
        pinfuzz_history: VERSION,
        run: record.history.run,
        program: record.program.to_string(),
    };
    let mut text = serde_json::to_string(&head).expect("plain data serializes");
    text.push('\n');
    for event in &record.history.events {
        text.push_str(&serde_json::to_string(event).expect("plain data serializes"));
        text.push('\n');
    }
    text
}

/// The run in a text. Blank lines and lines that begin with `#` are left out.
///
/// # Errors
/// At the first line that cannot be understood.
pub fn parse(text: &str) -> Result<Record, RecordError> {
    let mut lines = text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line))
        .filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    let wrong = |line: usize, what: String| RecordError { line, what };
    let (line, head) = lines.next().ok_or_else(|| wrong(1, "no saved history in it".into()))?;
    let head: Head = serde_json::from_str(head)
        .map_err(|error| wrong(line, format!("not the first line of a saved history: {error}")))?;
    if head.pinfuzz_history != VERSION {
        let what = format!("version {} is not {VERSION}", head.pinfuzz_history);
        return Err(wrong(line, what));
    }
    let program =
        Program::parse(&head.program).map_err(|error| wrong(line, format!("program: {error}")))?;
    let events = lines
        .map(|(line, text)| {
            let event = serde_json::from_str::<Event>(text);
            event.map_err(|error| wrong(line, format!("not an event: {error}")))
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Record { program, history: History { run: head.run, events } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use program::{CallId, Mount};

    #[test]
    fn what_is_written_is_read() {
        let program = Program::from_seed(7, Mount::Xfs);
        let events = vec![
            Event::Invoke { seq: 1, call: CallId(0), time_ns: 5, slots: vec![] },
            Event::LogFull,
        ];
        let record = Record { program, history: History { run: 3, events } };
        assert_eq!(parse(&write(&record)), Ok(record));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        assert_eq!(parse("").unwrap_err().line, 1);
        assert_eq!(parse("{}").unwrap_err().line, 1);
        let record = Record {
            program: Program::from_seed(7, Mount::Xfs),
            history: History { run: 3, events: vec![Event::LogFull] },
        };
        let text = write(&record) + "\n\"Nonsense\"\n";
        assert_eq!(parse(&text).unwrap_err().line, 4);
        let old = text.replace("{\"pinfuzz_history\":1", "{\"pinfuzz_history\":9");
        assert_eq!(parse(&old).unwrap_err().what, "version 9 is not 1");
    }
}
