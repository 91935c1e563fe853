//! What makes two anomalies "the same" for counting.
//!
//! Coarse on purpose: it decides how many examples are kept, and never whether something is an anomaly.

use crate::report::timeline;
use checker::{Anomaly, AnomalyKind, Oracle};
use history::{Event, History};
use program::Program;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Kind, oracle, the name of the call that saw it, and the splat's title where the console is what complained.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Signature {
    /// What kind of wrong.
    pub kind: AnomalyKind,
    /// Whose question.
    pub oracle: Oracle,
    /// The call that saw it; empty where none did.
    pub call: String,
    /// The splat's title; empty where there is none.
    pub splat: String,
}

impl Signature {
    /// The signature of an anomaly in its run.
    pub fn new(anomaly: &Anomaly, program: &Program, history: &History) -> Signature {
        let call = anomaly.call.map_or("", |call| timeline::call_name(program, call));
        Signature {
            kind: anomaly.kind,
            oracle: anomaly.oracle,
            call: call.to_string(),
            splat: match anomaly.oracle {
                Oracle::Console => splat_title(anomaly, history),
                _ => String::new(),
            },
        }
    }
}

/// The title that the anomaly speaks of, or else the first of the run.
fn splat_title(anomaly: &Anomaly, history: &History) -> String {
    let titles = || {
        history.events.iter().filter_map(|event| match event {
            Event::Console(splat) => Some(&splat.title),
            _ => None,
        })
    };
    let named = titles().find(|title| anomaly.sentence.contains(title.as_str()));
    timeline::printable(named.or_else(|| titles().next()).map_or("", String::as_str))
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ({})", self.kind, oracle_name(self.oracle))?;
        if !self.call.is_empty() {
            write!(f, " seen by {}", self.call)?;
        }
        if !self.splat.is_empty() {
            write!(f, ": {}", self.splat)?;
        }
        Ok(())
    }
}

/// The oracle's name as people and `report.json` write it.
pub fn oracle_name(oracle: Oracle) -> String {
    format!("{oracle:?}").to_lowercase()
}

/// `StaleByte` as `stale-byte`, for folder names.
pub fn slug(kind: AnomalyKind) -> String {
    let mut slug = String::new();
    for (index, letter) in format!("{kind:?}").chars().enumerate() {
        if letter.is_ascii_uppercase() && index > 0 {
            slug.push('-');
        }
        slug.push(letter.to_ascii_lowercase());
    }
    slug
}
