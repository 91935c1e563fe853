//! Any bytes parse or are refused; what parses prints to a text that parses to the same program.
//!
//! What does not parse is an input as well: a fuzzer gets from an empty corpus to a program only over refusals. Does not run programs.

#![no_main]

use libfuzzer_sys::fuzz_target;
use program::Program;

fuzz_target!(|bytes: &[u8]| {
    let program = match Program::parse_bytes(bytes) {
        Ok(program) => program,
        Err(error) => {
            assert!(!error.to_string().contains('\n'), "a refusal is one line");
            return;
        }
    };
    let printed = program.to_string();
    assert_eq!(Program::parse(&printed).as_ref(), Ok(&program), "printed as\n{printed}");
    let mut fixed = program.clone();
    fixed.fixup();
    let once = fixed.clone();
    fixed.fixup();
    assert_eq!(fixed, once, "fixup is not idempotent on\n{printed}");
});
