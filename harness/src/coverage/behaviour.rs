//! Behaviour: which kinds of calls ended how, as features that any kernel shows.

use super::Feature;
use history::{Event, History};
use program::Program;

/// The features of behaviour of a run, in no order.
pub fn features(program: &Program, history: &History) -> Vec<Feature> {
    let mut all = Vec::new();
    for event in &history.events {
        let Event::Return { call, result, .. } = event else { continue };
        let Some(line) = program.lines.get(usize::from(call.0)) else { continue };
        let errno = result.err().map_or(0, |errno| u64::from(errno.0.unsigned_abs()));
        all.push(Feature::behaviour((line.call.kind() as u64) << 16 | errno));
    }
    all
}
