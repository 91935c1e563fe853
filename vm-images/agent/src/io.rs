//! The memory of one read or write: signed before a write, poisoned before a read, reported after it.

use crate::sys::{Buffer, Pool, Segments, Span};
use history::bytes::signed_prefix;
use history::stamp::{CALL_POISON, sign};
use history::{Bytes, CallResult, Payload};
use program::PAGE;
use rustix::io::Errno;

/// Where a segment lies.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// Anonymous memory, at an offset from a page boundary.
    Anon(u16),
    /// A part of a mapping.
    Mapped(Span),
}

/// Which way the bytes go.
#[derive(Clone, Copy, Debug)]
pub enum Direction {
    /// From the file: anonymous memory is poisoned.
    Read,
    /// To the file: byte `i` of anonymous memory is signed for this offset plus `i`.
    Write {
        /// Who signs.
        call: u16,
        /// The offset of the first byte. It counts on through segments that are mappings.
        offset: u64,
    },
}

#[derive(Debug)]
struct Segment {
    anon: Option<(Buffer, usize)>,
    span: Span,
}

/// The segments of one call.
#[derive(Debug)]
pub struct Transfer {
    run: u32,
    reads: bool,
    segments: Vec<Segment>,
    vector: Segments,
}

impl Transfer {
    /// Prepares the memory.
    pub fn new(
        pool: &mut Pool,
        run: u32,
        direction: Direction,
        parts: &[(Place, usize)],
    ) -> Result<Transfer, Errno> {
        let mut segments = Vec::with_capacity(parts.len());
        let mut before = 0u64;
        for (place, len) in parts {
            segments.push(match place {
                Place::Mapped(span) => Segment { anon: None, span: *span },
                Place::Anon(at) => {
                    let at = usize::from(*at);
                    let mut buffer = pool.take(at + len)?;
                    let bytes = &mut buffer.bytes_mut()[at..at + len];
                    match direction {
                        Direction::Read => {
                            let start = before as usize;
                            bytes.copy_from_slice(&pool.poison(run, start + len)[start..]);
                        }
                        Direction::Write { call, offset } => {
                            sign(bytes, run, call, offset.saturating_add(before))
                        }
                    }
                    Segment { span: buffer.span(at, *len), anon: Some((buffer, at)) }
                }
            });
            before += *len as u64;
        }
        let spans: Vec<Span> = segments.iter().map(|s| s.span).collect();
        let vector = Segments::new(&spans);
        Ok(Transfer { run, reads: matches!(direction, Direction::Read), segments, vector })
    }

    /// The only segment of a call that takes one.
    pub fn span(&self) -> Span {
        self.segments[0].span
    }

    /// All segments.
    pub fn vector(&self) -> &Segments {
        &self.vector
    }

    /// What the call reports: the bytes that arrived in anonymous memory, and whether it left the rest alone.
    pub fn payload(&self, result: CallResult) -> Payload {
        if !self.reads || self.segments.iter().all(|s| s.anon.is_none()) {
            return Payload::None;
        }
        let mut left = result.unwrap_or(0) as usize;
        let mut before = 0u64;
        let (mut data, mut tail_intact) = (Bytes::default(), true);
        let several = self.segments.len() > 1;
        let mut joined = Vec::new();
        for segment in &self.segments {
            let arrived = left.min(segment.span.len());
            left -= arrived;
            if let Some((buffer, at)) = &segment.anon {
                let (new, tail) = buffer.bytes()[*at..at + segment.span.len()].split_at(arrived);
                if several {
                    joined.extend_from_slice(new);
                } else {
                    data = Bytes::encode(new);
                }
                tail_intact &= signed_prefix(tail, self.run, CALL_POISON, before + arrived as u64)
                    == tail.len();
            }
            before += segment.span.len() as u64;
        }
        if several {
            data = Bytes::encode(&joined);
        }
        Payload::Read { data, tail_intact, fault: None }
    }

    /// How many bytes from the start of anonymous memory were touched: the last of them is no longer the poison that was laid there.
    pub fn touched(&self) -> usize {
        let Some(Segment { anon: Some((buffer, at)), span }) = self.segments.first() else {
            return 0;
        };
        let bytes = &buffer.bytes()[*at..at + span.len()];
        let poisoned = |from: usize| {
            let page = &bytes[from..bytes.len().min(from + PAGE as usize)];
            signed_prefix(page, self.run, CALL_POISON, from as u64) == page.len()
        };
        let pages = (0..bytes.len()).step_by(PAGE as usize);
        let last = pages.rev().find(|from| !poisoned(*from));
        last.map_or(0, |from| bytes.len().min(from + PAGE as usize))
    }

    /// Gives the buffers back.
    pub fn give_back(self, pool: &mut Pool) {
        self.segments.into_iter().filter_map(|s| s.anon).for_each(|(buffer, _)| pool.put(buffer));
    }
}
