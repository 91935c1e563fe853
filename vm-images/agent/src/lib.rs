//! The guest's agent: runs programs on the real kernel and records what it did.
//!
//! `pid1` sets up and supervises; `runner` is the process that does the work: `conductor` directs the lanes, `exec` issues a call, `readback`
//! looks at what is left. Judging is not done here.

mod conductor;
mod control;
mod cover;
mod descriptors;
mod exec;
mod facts;
mod gates;
mod io;
mod look;
mod mounts;
pub mod pid1;
mod pinned;
mod rdma;
mod readback;
mod record;
mod ring;
mod run;
mod runner;
mod setup;
mod signals;
mod slots;
mod sys;
mod ublk;

#[cfg(test)]
mod tests;
