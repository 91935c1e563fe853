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
    Raw(#[serde(with = "crate::hex")] Vec<u8>),
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

/// Fewest zero bytes that make a run of their own inside other bytes: a shorter one costs more than it saves.
const ZEROS_MIN: usize = 4;

/// Bytes as runs. `encode` and `expand` are inverse to each other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bytes {
    /// The runs, in order.
    pub runs: Vec<Run>,
}

impl Bytes {
    /// Finds the runs. Copies displace content by any amount, so a signed word is looked for at every byte; once found, its run goes
    /// on for as long as the bytes agree, into partial words at both ends.
    pub fn encode(bytes: &[u8]) -> Bytes {
        let mut runs = Vec::new();
        // Everything before `raw` is in `runs`; `raw..at` is known to be neither zeros nor signed.
        let (mut raw, mut at) = (0, 0);
        while at < bytes.len() {
            let zeros = leading_zeros(&bytes[at..]);
            if zeros >= ZEROS_MIN {
                flush(&mut runs, &bytes[raw..at]);
                runs.push(Run::Zero { len: zeros as u64 });
                at += zeros;
                raw = at;
                continue;
            }
            let Some(stamp) = word_at(bytes, at).and_then(stamp::read) else {
                at += 1;
                continue;
            };
            let mut start = at;
            let mut offset = stamp.offset;
            while start > raw
                && offset > 0
                && bytes[start - 1] == stamp::byte(stamp.run, stamp.call, offset - 1)
            {
                start -= 1;
                offset -= 1;
            }
            at += signed_prefix(&bytes[at..], stamp.run, stamp.call, stamp.offset);
            flush(&mut runs, &bytes[raw..start]);
            runs.push(Run::Signed {
                run: stamp.run,
                call: stamp.call,
                offset,
                len: (at - start) as u64,
            });
            raw = at;
        }
        flush(&mut runs, &bytes[raw..]);
        Bytes { runs }
    }

    /// Length in bytes; saturates on hostile values.
    pub fn len(&self) -> u64 {
        self.runs.iter().fold(0, |sum, run| sum.saturating_add(run.len()))
    }

    /// Whether it stands for no byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it can be expanded: no longer than `BYTES_MAX`, and no run whose offsets overflow.
    pub fn is_valid(&self) -> bool {
        self.len() <= BYTES_MAX
            && self.runs.iter().all(|run| match run {
                Run::Signed { offset, len, .. } => offset.checked_add(*len).is_some(),
                Run::Zero { .. } | Run::Raw(_) => true,
            })
    }

    /// The bytes themselves, or nothing if these runs are not valid.
    pub fn expand(&self) -> Option<Vec<u8>> {
        if !self.is_valid() {
            return None;
        }
        let mut bytes = Vec::with_capacity(usize::try_from(self.len()).ok()?);
        for run in &self.runs {
            let start = bytes.len();
            match run {
                Run::Zero { len } => bytes.resize(start + *len as usize, 0),
                Run::Signed { run, call, offset, len } => {
                    bytes.resize(start + *len as usize, 0);
                    stamp::sign(&mut bytes[start..], *run, *call, *offset);
                }
                Run::Raw(raw) => bytes.extend_from_slice(raw),
            }
        }
        Some(bytes)
    }

    /// The byte at `index`, without expanding.
    pub fn byte_at(&self, index: u64) -> Option<u8> {
        let mut start = 0u64;
        for run in &self.runs {
            let within = index - start;
            if within < run.len() {
                return Some(match run {
                    Run::Zero { .. } => 0,
                    Run::Signed { run, call, offset, .. } => {
                        stamp::byte(*run, *call, offset.checked_add(within)?)
                    }
                    Run::Raw(raw) => *raw.get(usize::try_from(within).ok()?)?,
                });
            }
            start = start.checked_add(run.len())?;
        }
        None
    }

    /// The part `start..start + len`, cut off at the end.
    pub fn slice(&self, start: u64, len: u64) -> Bytes {
        let end = start.saturating_add(len);
        let mut runs = Vec::new();
        let mut at = 0u64;
        for run in &self.runs {
            let from = start.max(at);
            let to = end.min(at.saturating_add(run.len()));
            if from < to {
                let (skip, len) = (from - at, to - from);
                runs.push(match run {
                    Run::Zero { .. } => Run::Zero { len },
                    Run::Signed { run, call, offset, .. } => Run::Signed {
                        run: *run,
                        call: *call,
                        offset: offset.saturating_add(skip),
                        len,
                    },
                    Run::Raw(raw) => Run::Raw(raw[skip as usize..(skip + len) as usize].to_vec()),
                });
            }
            at = at.saturating_add(run.len());
            if at >= end {
                break;
            }
        }
        Bytes { runs }
    }
}

/// How many leading bytes are what `call` of `run` means for the range that begins at `offset`.
pub fn signed_prefix(bytes: &[u8], run: u32, call: u16, offset: u64) -> usize {
    let agrees = |at: usize| bytes[at] == stamp::byte(run, call, offset + at as u64);
    let mut at = 0;
    while at < bytes.len() && (offset + at as u64) & 7 != 0 {
        if !agrees(at) {
            return at;
        }
        at += 1;
    }
    let words = bytes[at..].as_chunks::<8>().0.iter().map(|chunk| u64::from_le_bytes(*chunk));
    let meant = stamp::words_from(run, call, offset + at as u64);
    at += 8 * words.zip(meant).take_while(|(word, meant)| word == meant).count();
    while at < bytes.len() && agrees(at) {
        at += 1;
    }
    at
}

fn word_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn leading_zeros(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(chunk) = bytes[at..].first_chunk::<64>() {
        // A fixed-size fold without an early exit is turned into vector instructions.
        if chunk.iter().fold(0, |sum, b| sum | b) != 0 {
            break;
        }
        at += chunk.len();
    }
    at + bytes[at..].iter().take_while(|b| **b == 0).count()
}

fn flush(runs: &mut Vec<Run>, raw: &[u8]) {
    if !raw.is_empty() {
        runs.push(Run::Raw(raw.to_vec()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{RngCore, SeedableRng};

    /// A mixture of zeros, signed runs cut at odd places, and noise.
    fn mixture(rng: &mut ChaCha8Rng) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..rng.next_u32() % 12 {
            let len = (rng.next_u32() % [3, 9, 40, 3000][(rng.next_u32() % 4) as usize]) as usize;
            let start = bytes.len();
            bytes.resize(start + len, 0);
            match rng.next_u32() % 3 {
                0 => {}
                1 => stamp::sign(
                    &mut bytes[start..],
                    rng.next_u32() % 9,
                    (rng.next_u32() % 5) as u16,
                    rng.next_u64() % 9000,
                ),
                _ => rng.fill_bytes(&mut bytes[start..]),
            }
        }
        bytes
    }

    #[test]
    fn expand_undoes_encode() {
        for seed in 0..3000 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let bytes = mixture(&mut rng);
            let coded = Bytes::encode(&bytes);
            assert_eq!(coded.len(), bytes.len() as u64, "seed {seed}");
            assert_eq!(coded.expand().as_deref(), Some(&bytes[..]), "seed {seed}");
            let adjacent = |w: &[Run]| {
                matches!(w, [Run::Raw(_), Run::Raw(_)] | [Run::Zero { .. }, Run::Zero { .. }])
            };
            assert!(!coded.runs.windows(2).any(adjacent), "seed {seed}");
            let (from, len) = (rng.next_u64() % 4000, rng.next_u64() % 4000);
            let end = bytes.len().min((from + len) as usize);
            let part = bytes.get(from as usize..end).unwrap_or_default();
            assert_eq!(coded.slice(from, len).expand().as_deref(), Some(part), "seed {seed}");
            assert_eq!(coded.byte_at(from), bytes.get(from as usize).copied(), "seed {seed}");
        }
    }

    #[test]
    fn a_displaced_signature_is_one_run() {
        for shift in 0..17 {
            let mut bytes = vec![0xee; shift];
            bytes.resize(shift + 100, 0);
            stamp::sign(&mut bytes[shift..], 7, 3, 4099);
            let coded = Bytes::encode(&bytes);
            let run = Run::Signed { run: 7, call: 3, offset: 4099, len: 100 };
            assert_eq!(coded.runs.last(), Some(&run), "shift {shift}");
            assert!(coded.runs.len() <= 2);
        }
    }

    #[test]
    fn hostile_runs_do_not_expand() {
        let huge = Bytes { runs: vec![Run::Zero { len: u64::MAX }, Run::Zero { len: 2 }] };
        assert_eq!(huge.expand(), None);
        assert_eq!(huge.byte_at(u64::MAX), Some(0));
        assert_eq!(huge.slice(u64::MAX - 1, 9).len(), 1);
        let wraps =
            Bytes { runs: vec![Run::Signed { run: 1, call: 1, offset: u64::MAX - 1, len: 8 }] };
        assert_eq!(wraps.expand(), None);
        assert_eq!(wraps.byte_at(5), None);
        assert!(!wraps.is_valid());
    }
}
