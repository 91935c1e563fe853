//! Names for cache entries: a 128-bit FNV-1a over everything that an entry depends on.
//!
//! Not cryptographic: whoever writes the cache is the user himself, and nothing is trusted because of its name alone.

use std::fmt;

/// The offset basis and the prime of 128-bit FNV-1a.
const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

/// A running digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest(u128);

impl Default for Digest {
    fn default() -> Digest {
        Digest(BASIS)
    }
}

impl Digest {
    /// Adds a field. Its length goes in first, so that fields cannot run into each other.
    #[must_use]
    pub fn with(self, field: &[u8]) -> Digest {
        let mut state = self.0;
        for byte in (field.len() as u64).to_le_bytes().iter().chain(field) {
            state = (state ^ u128::from(*byte)).wrapping_mul(PRIME);
        }
        Digest(state)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_run_into_each_other() {
        assert_ne!(
            Digest::default().with(b"ab").with(b"c"),
            Digest::default().with(b"a").with(b"bc")
        );
        assert_eq!(Digest::default().with(b"ab"), Digest::default().with(b"ab"));
        assert_eq!(Digest::default().with(b"").to_string().len(), 32);
    }
}
