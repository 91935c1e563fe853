//! Signed bytes: any aligned 8-byte word that a call wrote names the run, the call and the offset it was meant for.
//!
//! The name is packed into 64 bits with a check value and then mixed by a bijection, so that every byte of a word depends on all of
//! the name: a single byte seen in the wrong place or version gives itself away with probability 255/256.

/// Bits of the run number; runs count from 1 and wrap long after a guest's life (a guest is reset after some hundred runs).
const RUN_BITS: u32 = 20;
/// Bits of the call: a line index, or one of the agent's own writers.
const CALL_BITS: u32 = 10;
/// Bits of the meant offset in words: files end at 4 MiB, shifted content stays below 32 MiB.
const WORD_BITS: u32 = 22;
/// Bits of the check value: a random word passes as a stamp once in 4,096, and must then also name a run and call that exist.
const CHECK_BITS: u32 = 64 - RUN_BITS - CALL_BITS - WORD_BITS;

/// Largest run number.
pub const RUN_MAX: u32 = (1 << RUN_BITS) - 1;
/// The call number that marks poison: what the agent lays into a read buffer before the read.
pub const CALL_POISON: u16 = (1 << CALL_BITS) - 1;

/// The call number that marks what lies on the block device of the gate `n` (0 or 1) when a program begins: at each place, the device's own offset.
pub const fn call_gate(n: u8) -> u16 {
    CALL_POISON - 1 - n as u16
}

/// Who wrote a byte and which offset it was meant for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    /// The run.
    pub run: u32,
    /// The line index, `CALL_POISON` or `call_gate`.
    pub call: u16,
    /// The offset of the word, in bytes, a multiple of 8.
    pub offset: u64,
}

const fn check(name: u64) -> u64 {
    let mut x = name.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x ^= x >> 29;
    (x.wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 40) & ((1 << CHECK_BITS) - 1)
}

const fn mix(mut x: u64) -> u64 {
    x ^= x >> 32;
    x = x.wrapping_mul(0xd6e8_feb8_6659_fd93);
    x ^= x >> 32;
    x = x.wrapping_mul(0xd6e8_feb8_6659_fd93);
    x ^= x >> 32;
    x
}

/// The inverse of `mix`: the multiplier's inverse modulo 2^64, and xor-shift by half the width undoes itself.
const fn unmix(mut x: u64) -> u64 {
    const INVERSE: u64 = 0xcfee_444d_8b59_a89b;
    x ^= x >> 32;
    x = x.wrapping_mul(INVERSE);
    x ^= x >> 32;
    x = x.wrapping_mul(INVERSE);
    x ^= x >> 32;
    x
}

/// The eight bytes, as a little-endian word, that `call` of `run` lays down at `offset` (rounded down to a word).
pub const fn word(run: u32, call: u16, offset: u64) -> u64 {
    let name = ((run as u64 & RUN_MAX as u64) << (CALL_BITS + WORD_BITS))
        | ((call as u64 & ((1 << CALL_BITS) - 1)) << WORD_BITS)
        | ((offset >> 3) & ((1 << WORD_BITS) - 1));
    mix(name << CHECK_BITS | check(name))
}

/// The byte that `call` of `run` lays down at `offset`.
pub const fn byte(run: u32, call: u16, offset: u64) -> u8 {
    (word(run, call, offset) >> ((offset & 7) * 8)) as u8
}

/// The name in a word, if it is one.
pub const fn read(word: u64) -> Option<Stamp> {
    let x = unmix(word);
    let name = x >> CHECK_BITS;
    if check(name) != x & ((1 << CHECK_BITS) - 1) {
        return None;
    }
    Some(Stamp {
        run: (name >> (CALL_BITS + WORD_BITS)) as u32,
        call: ((name >> WORD_BITS) & ((1 << CALL_BITS) - 1)) as u16,
        offset: (name & ((1 << WORD_BITS) - 1)) << 3,
    })
}

/// The words that `call` of `run` lays down from `offset` on.
pub fn words_from(run: u32, call: u16, offset: u64) -> impl Iterator<Item = u64> {
    const WORDS: u64 = (1 << WORD_BITS) - 1;
    let writer = (run as u64 & RUN_MAX as u64) << (CALL_BITS + WORD_BITS)
        | (call as u64 & ((1 << CALL_BITS) - 1)) << WORD_BITS;
    // Bytes are signed and recognised by the million: what a word has in common with the last one is computed once.
    (0u64..).map(move |i| {
        let name = writer | ((offset >> 3).wrapping_add(i) & WORDS);
        mix(name << CHECK_BITS | check(name))
    })
}

/// Signs `bytes` as what `call` of `run` means for the file range that begins at `offset`.
pub fn sign(bytes: &mut [u8], run: u32, call: u16, offset: u64) {
    let mut at = 0;
    while at < bytes.len() && (offset + at as u64) & 7 != 0 {
        bytes[at] = byte(run, call, offset + at as u64);
        at += 1;
    }
    let mut words = bytes[at..].chunks_exact_mut(8);
    for (chunk, word) in (&mut words).zip(words_from(run, call, offset + at as u64)) {
        chunk.copy_from_slice(&word.to_le_bytes());
        at += 8;
    }
    for last in words.into_remainder() {
        *last = byte(run, call, offset + at as u64);
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_names_its_writer() {
        for (run, call, offset) in [(1, 0, 0), (RUN_MAX, 63, 4 << 20), (77, CALL_POISON, 4088)] {
            assert_eq!(read(word(run, call, offset)), Some(Stamp { run, call, offset }));
        }
    }

    #[test]
    fn few_random_words_pass_as_stamps() {
        let passed = (0..100_000u64).filter(|i| read(mix(i ^ 0x5555_0000_1234)).is_some()).count();
        assert!(passed < 100, "{passed} of 100000");
    }

    #[test]
    fn signing_agrees_with_the_single_byte_at_any_alignment() {
        for offset in 0..9 {
            for len in 0..26 {
                let mut bytes = vec![0; len];
                sign(&mut bytes, 5, 6, offset);
                for (i, b) in bytes.iter().enumerate() {
                    assert_eq!(*b, byte(5, 6, offset + i as u64), "offset {offset} len {len}");
                }
            }
        }
    }
}
