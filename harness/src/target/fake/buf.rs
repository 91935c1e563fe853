//! What a call copies from or to: anonymous memory, mappings, or pieces of pages in a pipe.
//!
//! Copies stop at the first byte that cannot be reached, as copy_from_user and copy_to_user do.

use super::block::PAGE;
use super::hold::Part;
use super::mapping::MapRef;
use super::pipe::{Held, Piece};
use super::rw::SECTOR;
use super::world::World;
use history::Bytes;

/// One segment.
pub(super) enum Seg {
    /// Memory of the call's own.
    Anon {
        /// Its bytes.
        data: Vec<u8>,
        /// Offset of its first byte from a page boundary.
        align: u64,
        /// Bytes that were written to, from the start.
        touched: usize,
    },
    /// Part of a mapping.
    Map {
        /// Which.
        map: MapRef,
        /// Where in it.
        offset: u64,
        /// Length in bytes.
        len: usize,
    },
    /// Part of a pipe's page.
    Piece(Piece),
    /// Part of a page that was pinned before: a registered buffer.
    Page(Part),
}

impl Seg {
    fn len(&self) -> usize {
        match self {
            Seg::Anon { data, .. } => data.len(),
            Seg::Map { len, .. } => *len,
            Seg::Piece(piece) => piece.len,
            Seg::Page(part) => part.len,
        }
    }

    fn is_misaligned(&self, len: u64) -> bool {
        let start = match self {
            Seg::Anon { align, .. } => *align,
            Seg::Map { offset, .. } => *offset,
            Seg::Piece(piece) => piece.from as u64,
            Seg::Page(part) => part.from as u64,
        };
        start % SECTOR != 0 || !len.is_multiple_of(SECTOR)
    }
}

/// Segments, and how far a call has come in them.
pub(super) struct Memory {
    /// The segments.
    pub segs: Vec<Seg>,
    seg: usize,
    at: usize,
}

impl Memory {
    /// From its start.
    pub fn new(segs: Vec<Seg>) -> Memory {
        let mut memory = Memory { segs, seg: 0, at: 0 };
        // Nobody looks at a segment of no bytes, whatever it points to (include/linux/iov_iter.h:iterate_iovec, 6.12).
        memory.advance(0);
        memory
    }

    /// Bytes in all.
    pub fn len(&self) -> u64 {
        self.segs.iter().map(|s| s.len() as u64).sum()
    }

    /// Whether O_DIRECT must refuse it.
    pub fn is_misaligned(&self) -> bool {
        self.segs.iter().any(|seg| seg.is_misaligned(seg.len() as u64))
    }

    /// The same of its first bytes only.
    pub fn is_misaligned_up_to(&self, mut len: u64) -> bool {
        self.segs.iter().any(|seg| {
            let here = len.min(seg.len() as u64);
            len -= here;
            here > 0 && seg.is_misaligned(here)
        })
    }

    /// Whether it shows the file's own pages: a copy then reads what it has just written.
    pub fn aliases(&self, mount: usize, ino: u64) -> bool {
        self.segs.iter().any(|seg| match seg {
            Seg::Anon { .. } => false,
            Seg::Map { map, .. } => {
                let vma = map.vma.borrow();
                vma.file.mount == mount && vma.file.ino == ino
            }
            Seg::Piece(piece) => match piece.held {
                Held::Cache { mount: m, ino: i, .. } => (m, i) == (mount, ino),
                Held::Page(ref part) => part.is_of(mount, ino),
                _ => false,
            },
            Seg::Page(part) => part.is_of(mount, ino),
        })
    }

    /// Goes on without copying.
    pub fn pass(&mut self, mut n: usize) {
        while n > 0 && self.seg < self.segs.len() {
            let step = n.min(self.segs[self.seg].len() - self.at);
            self.advance(step);
            n -= step;
        }
    }

    fn advance(&mut self, n: usize) {
        self.at += n;
        while self.seg < self.segs.len() && self.at >= self.segs[self.seg].len() {
            self.seg += 1;
            self.at = 0;
        }
    }

    /// Copies to user memory; how many bytes arrived.
    pub fn fill(&mut self, w: &mut World, mut bytes: &[u8]) -> usize {
        let mut done = 0;
        while !bytes.is_empty() && self.seg < self.segs.len() {
            let at = self.at;
            let n = match &mut self.segs[self.seg] {
                Seg::Anon { data, touched, .. } => {
                    let n = bytes.len().min(data.len() - at);
                    data[at..at + n].copy_from_slice(&bytes[..n]);
                    *touched = (*touched).max(at + n);
                    n
                }
                Seg::Map { map, offset, len } => {
                    let from = *offset + at as u64;
                    let n = bytes.len().min(*len - at).min((PAGE - from % PAGE) as usize);
                    if map.store(w, from, &bytes[..n]).is_err() {
                        return done;
                    }
                    n
                }
                Seg::Page(part) => {
                    let n = bytes.len().min(part.len - at);
                    let part = part.clone();
                    part.write(w, at, &bytes[..n]);
                    n
                }
                Seg::Piece(_) => return done,
            };
            self.advance(n);
            bytes = &bytes[n..];
            done += n;
        }
        done
    }

    /// Copies from user memory; how many bytes could be had.
    pub fn fetch(&mut self, w: &mut World, out: &mut [u8]) -> usize {
        let mut done = 0;
        while done < out.len() && self.seg < self.segs.len() {
            let at = self.at;
            let rest = &mut out[done..];
            let n = match &self.segs[self.seg] {
                Seg::Anon { data, .. } => {
                    let n = rest.len().min(data.len() - at);
                    rest[..n].copy_from_slice(&data[at..at + n]);
                    n
                }
                Seg::Map { map, offset, len } => {
                    let from = *offset + at as u64;
                    let start = (from % PAGE) as usize;
                    let n = rest.len().min(*len - at).min(PAGE as usize - start);
                    match map.load(w, from) {
                        Ok(page) => rest[..n].copy_from_slice(&page[start..start + n]),
                        Err(_) => return done,
                    }
                    n
                }
                Seg::Piece(piece) => {
                    let n = rest.len().min(piece.len - at);
                    let page = piece.page(w);
                    rest[..n].copy_from_slice(&page[piece.from + at..piece.from + at + n]);
                    n
                }
                Seg::Page(part) => {
                    let n = rest.len().min(part.len - at);
                    let page = part.page(w);
                    rest[..n].copy_from_slice(&page[part.from + at..part.from + at + n]);
                    n
                }
            };
            self.advance(n);
            done += n;
        }
        done
    }

    /// What arrived in anonymous memory of the first `count` bytes, and whether nothing was written behind them; `None` without
    /// anonymous memory.
    pub fn report(&self, count: u64) -> Option<(Bytes, bool)> {
        let (mut data, mut intact, mut any) = (Vec::new(), true, false);
        let mut left = count as usize;
        for seg in &self.segs {
            let n = left.min(seg.len());
            left -= n;
            if let Seg::Anon { data: bytes, touched, .. } = seg {
                any = true;
                intact &= *touched <= n;
                data.extend_from_slice(&bytes[..n]);
            }
        }
        any.then(|| (Bytes::encode(&data), intact))
    }
}
