//! The agent: the static program that is PID 1 of every guest, built by `build.rs` and carried along.
//!
//! What it does is told in `vm-images/agent`.

/// The ELF file.
pub const ELF: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/agent"));
