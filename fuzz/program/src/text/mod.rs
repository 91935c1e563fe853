//! The text form of programs: what the corpus holds, what a reproducer is, and what people read and mail.
//!
//! ```text
//! pinfuzz 1
//! image xfs-dax
//! # Comments and empty lines may stand anywhere below the first line.
//! t0: f0 = open("a", RDWR|CREAT)
//! t1: pread(f0, 0, anon, 4K) (r0, async, delay 20us) &
//! ```
//! Printing is canonical. Parsing keeps what was written and does not repair it: that is `fixup`'s work.

mod cursor;
mod parse;
mod print;

pub use parse::{INPUT_MAX, ParseError};
pub use print::Size;

/// Version of the text form, on the first line of every program.
pub const VERSION: u32 = 1;
