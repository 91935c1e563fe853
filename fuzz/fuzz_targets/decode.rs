//! Any bytes parse or are refused; what parses prints to a text that parses to the same program.
//!
//! Does not run programs.

#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use program::Program;

fuzz_target!(|bytes: &[u8]| -> Corpus {
    let Some(program) = std::str::from_utf8(bytes).ok().and_then(|text| Program::parse(text).ok())
    else {
        return Corpus::Reject;
    };
    let printed = program.to_string();
    assert_eq!(Program::parse(&printed).as_ref(), Ok(&program), "printed as\n{printed}");
    let mut fixed = program.clone();
    fixed.fixup();
    let once = fixed.clone();
    fixed.fixup();
    assert_eq!(fixed, once, "fixup is not idempotent on\n{printed}");
    Corpus::Keep
});
