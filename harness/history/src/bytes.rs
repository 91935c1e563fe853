//! A compact and lossless form of bytes that were read: runs of zeros, runs of signed bytes, and what is neither.

use crate::stamp;
use serde::{Deserialize, Serialize};

/// Longest byte string that a `Bytes` may stand for. Guest messages are hostile: a length beyond this is refused.
pub const BYTES_MAX: u64 = 64 << 20;

/// A run of equal kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Run {
    /// `len` zero bytes.
    Zero {
        /// Length in bytes.
        len: u64,
    },
    /// `len` signed bytes: byte `i` is `stamp::byte(run, call, offset + i)`.
    Signed {
        /// The run that wrote them.
        run: u32,
        /// The call that wrote them.
        call: u16,
        /// The offset that the first byte was meant for.
        offset: u64,
        /// Length in bytes.
        len: u64,
    },
    /// Bytes that are neither: torn words, foreign data.
    Raw(Vec<u8>),
}

impl Run {
    /// Length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Run::Zero { len } | Run::Signed { len, .. } => *len,
            Run::Raw(bytes) => bytes.len() as u64,
        }
    }

    /// Whether it stands for no byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Bytes as runs. `encode` and `expand` are inverse to each other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bytes {
    /// The runs, in order.
    pub runs: Vec<Run>,
}
