//! A lying guest cannot break the checker: any history that can be read gets a verdict, a timeline, features and counts.
//!
//! Does not care which verdict.

#![no_main]

use checker::Policy;
use harness::coverage::behaviour;
use harness::report::{Exercised, Meetings, timeline};
use history::record;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some(record) = std::str::from_utf8(bytes).ok().and_then(|text| record::parse(text).ok())
    else {
        return;
    };
    let _ = checker::check(&record.program, &record.history, &Policy::for_release("6.12"));
    let waits = checker::waits(&record.program, &record.history, &Policy::for_release("6.12"));
    let _ = timeline::history(&record.program, &record.history, &waits);
    let _ = behaviour::features(&record.program, &record.history);
    let _ = Meetings::of(&record.program, &record.history);
    let _ = Exercised::of(&record.program, &record.history);
});
