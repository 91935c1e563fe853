//! The judges: one file, one question.
//!
//! Each looks at one event with the model as it stands, and reports what it cannot explain. None changes the model but through
//! `World::learn`, which narrows a doubt to what was seen.

pub mod bytes;
pub mod console;
pub mod counts;
pub mod errnos;
pub mod finals;
pub mod leases;
pub mod names;
pub mod notices;
mod pairing;
pub mod pins;
pub mod seeks;
pub mod signals;
mod sources;
pub mod waits;

use crate::model::World;
use crate::{Anomaly, AnomalyKind, Oracle};
use program::CallId;

/// Anomalies as they are found, with a bound.
#[derive(Debug, Default)]
pub struct Findings {
    list: Vec<Anomaly>,
}

/// Most anomalies that one history reports: after the first few, the rest is mostly their consequence.
const ANOMALIES_MAX: usize = 32;

impl Findings {
    /// Adds one.
    pub fn push(&mut self, anomaly: Anomaly) {
        if self.list.len() < ANOMALIES_MAX {
            self.list.push(anomaly);
        }
    }

    /// Adds one about a call.
    pub fn call(&mut self, kind: AnomalyKind, oracle: Oracle, call: u16, sentence: String) {
        self.push(Anomaly {
            kind,
            oracle,
            call: Some(CallId(call)),
            path: None,
            mount: None,
            sentence,
        });
    }

    /// Gives the latest anomaly to another oracle (a byte that only the media show wrong is the media oracle's).
    pub fn reattribute(&mut self, oracle: Oracle) {
        if let Some(last) = self.list.last_mut()
            && last.oracle == Oracle::Bytes
        {
            last.oracle = oracle;
        }
    }

    /// All of them.
    pub fn into_list(self) -> Vec<Anomaly> {
        self.list
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

/// How a call is named in a sentence: its text and its place in the program.
pub fn who(world: &World, call: u16) -> String {
    match world.program.lines.get(call as usize) {
        Some(line) => format!("{}#{call}", line.call.name()),
        None if (0..2).any(|n| history::stamp::call_gate(n) == call) => {
            "the device's first content".to_owned()
        }
        None => format!("call #{call}, which the program does not have"),
    }
}

/// The file by the name under which it was first opened.
pub fn file_name(world: &World, file: usize) -> String {
    if let Some(gate) = world.files[file].gate {
        return gate.to_string();
    }
    let path = world.files[file].path;
    format!("{}:{}", path.mount.name(), path.file_name())
}
