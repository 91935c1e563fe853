//! Known: what arrives in a held page of a file after it was cloned, and what it does to the clone.

use super::*;
use program::{Mount, Sharing};

impl World<'_> {
    /// Enters, for a call that was just invoked, what the kernel is known to write into the blocks of a clone: see `Known::XfsLateDma`.
    pub(in crate::model) fn late_dma(&mut self, call: u16) {
        if !self.policy.knows(crate::Known::XfsLateDma) {
            return;
        }
        let others: Vec<u16> =
            self.inflight.iter().map(|(_, c)| *c).filter(|c| *c != call).collect();
        for other in others {
            for (clone, arrival) in [(call, other), (other, call)] {
                if let Some(shared) = self.clones(clone) {
                    self.late_into(arrival, shared);
                }
            }
        }
    }

    /// What a call makes files share: source, its offset, destination, its offset, length.
    fn clones(&self, call: u16) -> Option<(usize, u64, usize, u64, u64)> {
        let seen = &self.seen[call as usize];
        let differs = matches!(seen.payload, Some(Payload::Dedupe { status }) if *status != 0);
        if matches!(seen.result, Some(Err(_))) || differs {
            return None;
        }
        let (src, from, dst, to, len) = match self.call_of(call) {
            Call::Ficlone { .. } => (1, 0, 0, 0, 0),
            Call::Ficlonerange { dst_offset, src_offset, len, .. } => {
                (1, *src_offset, 0, *dst_offset, *len)
            }
            Call::CopyFileRange { src_offset, dst_offset, len, .. }
            | Call::Fideduperange { src_offset, dst_offset, len, .. } => {
                (0, *src_offset, 1, *dst_offset, (*len).max(1))
            }
            _ => return None,
        };
        let (src, dst) = (self.file_in(call, src)?, self.file_in(call, dst)?);
        let both = self.files[src].on(Mount::Xfs) && self.files[dst].on(Mount::Xfs);
        both.then_some((src, from, dst, to, if len == 0 { u64::MAX } else { len }))
    }

    /// The ranges of files in whose pages a call that is under way puts something without a fault at that moment: a read of a device into a shared
    /// mapping, and copies to such a mapping by way of the kernel. A file that was cloned meanwhile has them as well.
    fn arrivals(&self, call: u16) -> Vec<(usize, u64, u64)> {
        let (slot, iov): (usize, Vec<(Buf, u64)>) = match self.call_of(call) {
            Call::ProcessVmWritev { offset, len, .. } | Call::ProcMemPwrite { offset, len, .. } => {
                (0, vec![(Buf::Map(program::MapSlot(0), *offset), *len)])
            }
            line @ (Call::Pread { .. } | Call::Preadv { .. } | Call::Readv { .. }) => {
                let direct = self.open_in(call, 0).is_some_and(|open| self.is_direct(open));
                if !direct {
                    return Vec::new();
                }
                (1, line.buffers().collect())
            }
            _ => return Vec::new(),
        };
        let maps = iov.iter().filter(|(buf, _)| matches!(buf, Buf::Map(..))).zip(slot..);
        let mut all: Vec<_> = maps
            .filter_map(|((buf, len), slot)| {
                let Buf::Map(_, offset) = buf else { return None };
                let map = self.map_in(call, slot).filter(|m| m.sharing == Sharing::Shared)?;
                let start = map.offset + offset;
                Some((map.file, start, start.saturating_add(*len)))
            })
            .collect();
        all.extend(self.late.iter().filter(|l| l.0 == call).map(|l| l.1));
        all
    }

    fn late_into(&mut self, arrival: u16, shared: (usize, u64, usize, u64, u64)) {
        let (src, from, dst, to, len) = shared;
        for (file, start, end) in self.arrivals(arrival) {
            let (start, end) = (start.max(from), end.min(from.saturating_add(len)));
            if file != src || start >= end {
                continue;
            }
            let place = (start - from + to, (end - from).saturating_add(to));
            let (source, obj) = (self.files[src].obj, self.files[dst].obj);
            self.files[dst].late_dma = true;
            self.late.push((arrival, (dst, place.0, place.1)));
            let copy = Src::Copy { obj: source, delta: delta(start, place.0), before: false };
            self.assign(arrival, obj, place, copy, false);
        }
    }
}
