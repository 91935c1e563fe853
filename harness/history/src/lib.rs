//! What a target observed while it ran a program, and the wire between host and guest.
//!
//! Knows programs, but no oracle and no machine. The guest's messages are hostile until parsed: every decoder here is total.

pub mod bytes;
pub mod errno;
mod event;
pub mod hex;
pub mod memory;
pub mod reached;
pub mod record;
pub mod stamp;
pub mod wire;

pub use bytes::{Bytes, Run};
pub use event::*;
