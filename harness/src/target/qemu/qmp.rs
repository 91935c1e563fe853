//! QMP, QEMU's machine protocol, over a socket pair: commands, answers, events, each with a time limit.
//!
//! No thread and no retry: whoever gets an error here gives the guest up.

use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// QEMU answers at once or never; on a machine that is badly overloaded, "at once" takes seconds.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest message. A greeting has some 200 bytes, an answer of `info` some KiB.
const MESSAGE_MAX: usize = 1 << 20;

/// What went wrong with QMP.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// The other side is gone.
    #[error("qemu closed its control socket")]
    Closed,
    /// No answer in time.
    #[error("qemu did not answer {0}")]
    Silent(String),
    /// Not the protocol.
    #[error("qemu said something odd: {0}")]
    Odd(String),
    /// The command was refused.
    #[error("qemu refused {command}: {reason}")]
    Refused {
        /// What was asked.
        command: String,
        /// QEMU's words.
        reason: String,
    },
}

/// A connection.
#[derive(Debug)]
pub struct Qmp {
    stream: UnixStream,
    buffer: Vec<u8>,
    events: VecDeque<Value>,
}

impl Qmp {
    /// Waits for the greeting and leaves negotiation mode.
    pub fn new(stream: UnixStream) -> Result<Qmp, QmpError> {
        let mut qmp = Qmp { stream, buffer: Vec::new(), events: VecDeque::new() };
        let greeting = qmp.read(Instant::now() + PATIENCE, "the greeting")?;
        if greeting.get("QMP").is_none() {
            return Err(QmpError::Odd(greeting.to_string()));
        }
        qmp.command("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Runs a command and waits for its answer.
    pub fn command(&mut self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        let message = json!({ "execute": command, "arguments": arguments });
        let line = format!("{message}\n");
        self.stream.write_all(line.as_bytes()).map_err(|_| QmpError::Closed)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut answer = self.read(deadline, command)?;
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            if let Some(error) = answer.get("error") {
                let reason = error["desc"].as_str().unwrap_or("no reason given").to_string();
                return Err(QmpError::Refused { command: command.into(), reason });
            }
            if answer.get("event").is_none() {
                return Err(QmpError::Odd(answer.to_string()));
            }
            self.events.push_back(answer);
        }
    }

    /// Runs a command of the human monitor and returns what it printed.
    pub fn human(&mut self, line: &str) -> Result<String, QmpError> {
        let value = self.command("human-monitor-command", json!({ "command-line": line }))?;
        Ok(value.as_str().unwrap_or_default().to_string())
    }

    /// The next event that has arrived, if any. A closed socket ends the events.
    pub fn event(&mut self) -> Option<Value> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        // A timeout of zero would mean none at all.
        self.read(Instant::now() + Duration::from_millis(1), "an event").ok()
    }

    fn read(&mut self, deadline: Instant, what: &str) -> Result<Value, QmpError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return serde_json::from_slice(&line)
                    .map_err(|_| QmpError::Odd(String::from_utf8_lossy(&line).trim().into()));
            }
            if self.buffer.len() > MESSAGE_MAX {
                return Err(QmpError::Odd("a message without end".into()));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(QmpError::Silent(what.into()));
            }
            self.stream.set_read_timeout(Some(left)).map_err(|_| QmpError::Closed)?;
            let mut chunk = [0u8; 4096];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(QmpError::Closed),
                Ok(got) => self.buffer.extend(&chunk[..got]),
                // A QEMU that ends with a command of ours unread resets the socket; what it said before is still there to be read,
                // and then the end.
                Err(e)
                    if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionReset) => {}
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Err(QmpError::Silent(what.into()));
                }
                Err(_) => return Err(QmpError::Closed),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};

    const GREETING: &str = r#"{"QMP": {"version": {}, "capabilities": []}}"#;

    /// A QEMU that says these lines: the first at once, every other after a command.
    fn fake(lines: &'static [&'static str]) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        std::thread::spawn(move || {
            let mut commands = BufReader::new(theirs.try_clone().unwrap()).lines();
            for (n, line) in lines.iter().enumerate() {
                if n > 0 {
                    commands.next();
                }
                writeln!(&theirs, "{line}").unwrap();
            }
        });
        ours
    }

    #[test]
    fn answers_are_told_from_events() {
        let event = "{\"event\": \"STOP\"}\n{\"return\": {\"status\": \"paused\"}}";
        let lines: &'static [&'static str] =
            Box::leak(Box::new([GREETING, r#"{"return": {}}"#, event]));
        let mut qmp = Qmp::new(fake(lines)).unwrap();
        assert_eq!(qmp.command("query-status", json!({})).unwrap()["status"], "paused");
        assert_eq!(qmp.event().unwrap()["event"], "STOP");
        assert!(qmp.event().is_none());
    }

    #[test]
    fn a_refusal_says_who_refused_what() {
        let mut qmp = Qmp::new(fake(&[
            GREETING,
            r#"{"return": {}}"#,
            r#"{"error": {"class": "GenericError", "desc": "no"}}"#,
        ]))
        .unwrap();
        let error = qmp.command("cont", json!({})).unwrap_err();
        assert_eq!(error.to_string(), "qemu refused cont: no");
    }

    #[test]
    fn garbage_and_silence_are_errors() {
        assert!(matches!(Qmp::new(fake(&["garbage"])), Err(QmpError::Odd(_))));
        assert!(matches!(Qmp::new(fake(&["{}"])), Err(QmpError::Odd(_))));
        assert!(matches!(Qmp::new(fake(&[])), Err(QmpError::Closed)));
    }
}
