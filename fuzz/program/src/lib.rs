//! Programs: short lists of calls over typed slots, each on a named lane.
//!
//! A program is a document before it is anything else: its text form is the corpus format, the reproducer and what a kernel
//! developer reads. This crate knows no kernel, no guest and no verdict.

mod args;
mod call;
mod facts;
mod fixup;
mod forms;
mod generate;
mod mutate;
mod outline;
mod pairs;
mod resource;
mod text;
mod vocabulary;

#[cfg(test)]
mod tests;

pub use call::*;
pub use facts::*;
pub use forms::*;
pub use pairs::*;
pub use resource::*;
pub use text::*;
pub use vocabulary::*;
