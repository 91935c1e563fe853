//! References to pages in pipes: what vmsplice and tee put in, and what a read takes out.

use super::*;
use crate::model::content::ObjId;
use crate::model::file::{Map, PipeRef};
use crate::model::order::{NEVER, Span};
use crate::model::partition;

impl World<'_> {
    /// Whether a page of a mapping surely is a page of its file, as far as its content says: data, and not the zero page of a hole.
    pub(super) fn real_page(&self, map: &Map, offset: u64, span: Span) -> bool {
        let file = &self.files[map.file];
        if map.private.is_some() || file.shared || file.behind_mappings.is_some() || file.unjudged {
            return false;
        }
        let start = page_down(map.offset + offset);
        let cands = self.cands(file.obj, start, start + PAGE, span);
        partition(&cands, start, start + PAGE)
            .iter()
            .any(|(_, _, vals)| vals.iter().all(|v| matches!(v, Val::Signed { .. })))
    }

    /// Takes the next place on one side of a pipe: 0 puts `n` bytes in, 1 takes them out. Also whether it is not known which bytes these are.
    fn step(&mut self, key: u16, side: usize, n: u64, span: Span) -> Option<(ObjId, u64, bool)> {
        let raced = self.pipe_raced(span.call, key, side);
        let pipe = self.pipes.get_mut(&key)?;
        pipe.confused |= raced;
        let place = if side == 0 { &mut pipe.head } else { &mut pipe.tail };
        let at = *place;
        *place += n;
        if side == 1 {
            pipe.last_out = Some(span);
            pipe.taken.push((span.call, at + n));
        }
        Some((pipe.obj, at, pipe.confused))
    }

    /// Whether another call that surely was neither before nor after this one moved bytes at the same end of a pipe: whoever gets the pipe's
    /// lock first comes first (fs/splice.c:iter_file_splice_write, splice_file_to_pipe, 6.12 and 6.1).
    pub(super) fn pipe_raced(&self, call: u16, pipe: u16, side: usize) -> bool {
        self.any_overlap(call, |k| {
            let seen = &self.seen[k as usize];
            let slot = match (self.call_of(k), side) {
                (Call::SpliceToPipe { .. } | Call::Vmsplice { .. } | Call::Tee { .. }, 0) => 1,
                (Call::SpliceFromPipe { .. } | Call::ReadPipe { .. }, 1) => 0,
                _ => return false,
            };
            let moved = !matches!(seen.result, Some(Ok(0) | Err(_)));
            moved && seen.slots.get(slot).is_some_and(|s| s.0 == pipe)
        })
    }

    /// Puts what `source` gives for each place into a pipe.
    fn put(&mut self, call: u16, slot: usize, n: u64, source: impl Fn(u64) -> Src) -> Option<u64> {
        let span = self.span(call);
        let key = self.seen[call as usize].slots.get(slot)?.0;
        let (obj, place, confused) = self.step(key, 0, n, span)?;
        if confused {
            self.assign(call, obj, (0, u64::MAX), any(), false);
        }
        let src = if confused { any() } else { source(place) };
        self.assign(call, obj, (place, place + n), src, true);
        Some(place)
    }

    /// A call that uses a pipe and never returned: how much it moved is unknown.
    pub(super) fn lost_in_pipes(&mut self, call: u16) {
        for slot in 0..self.seen[call as usize].slots.len() {
            let key = self.seen[call as usize].slots[slot].0;
            let Some(obj) = self.pipes.get_mut(&key).map(|p| {
                p.confused = true;
                p.obj
            }) else {
                continue;
            };
            self.assign(call, obj, (0, u64::MAX), any(), false);
        }
    }

    pub(super) fn vmsplice(
        &mut self,
        call: u16,
        offset: u64,
        len: u64,
        result: Option<CallResult>,
    ) {
        let Some(map) = self.map_in(call, 0).cloned() else { return };
        let n = match result {
            Some(Ok(n)) => n.min(len),
            Some(Err(_)) => return,
            None => return self.lost_in_pipes(call),
        };
        let span = self.span(call);
        let (obj, start) = self.view(&map, offset);
        let source =
            |place| Src::Since { obj, delta: delta(start, place), since: span.inv, until: NEVER };
        let Some(place) = self.put(call, 1, n, source) else { return };
        let Some(key) = self.seen[call as usize].slots.get(1).map(|s| s.0) else { return };
        let Some(stream) = self.pipes.get(&key).map(|p| p.obj) else { return };
        // What else a page may show than the file's bytes: a zero page that stayed mapped, and a tail that was cleared.
        if let Some(val) = self.files[map.file].behind_mappings {
            let src = Src::Vals(smallvec![val]);
            self.assign(call, stream, (place, place + n), src, false);
        }
        if self.files[map.file].tail_stored {
            self.assign(call, stream, (place, place + n), zero(), false);
        }
        let mut refs = Vec::new();
        let mut at = 0;
        while at < n {
            let here = (PAGE - (offset + at) % PAGE).min(n - at);
            refs.push(PipeRef {
                call,
                place: (place + at, place + at + here),
                file: map.file,
                page: page_down(map.offset + offset + at),
                real: self.real_page(&map, offset + at, span),
            });
            at += here;
        }
        if let Some(pipe) = self.pipes.get_mut(&key) {
            pipe.refs.extend(refs);
        }
    }

    pub(super) fn tee(&mut self, call: u16, len: u64, result: Option<CallResult>) {
        let n = match result {
            Some(Ok(n)) => n.min(len),
            Some(Err(_)) => return,
            None => return self.lost_in_pipes(call),
        };
        let span = self.span(call);
        let keys = self.seen[call as usize].slots;
        let (Some(from), Some(to)) = (keys.first().map(|s| s.0), keys.get(1).map(|s| s.0)) else {
            return;
        };
        let Some(source) = self.pipes.get(&from).cloned() else { return };
        // What is taken out at the same time moves the place where it began to look.
        let raced = self.pipe_raced(call, from, 1);
        let unknown = source.confused || raced;
        let first = source.tail;
        let put = |place| {
            if unknown {
                any()
            } else {
                let delta = delta(first, place);
                Src::Since { obj: source.obj, delta, since: span.inv, until: NEVER }
            }
        };
        let Some(place) = self.put(call, 1, n, put) else { return };
        let refs: Vec<PipeRef> = source
            .refs
            .iter()
            .filter(|r| unknown || r.place.0 < first + n && r.place.1 > first)
            .map(|r| PipeRef {
                call,
                place: if unknown {
                    (place, place + n)
                } else {
                    (r.place.0.max(first) - first + place, r.place.1.min(first + n) - first + place)
                },
                real: r.real && !unknown,
                ..*r
            })
            .collect();
        if let Some(pipe) = self.pipes.get_mut(&to) {
            pipe.refs.extend(refs);
        }
    }

    pub(super) fn read_pipe(&mut self, call: u16, buf: Buf, len: u64, result: Option<CallResult>) {
        let into = match buf {
            Buf::Anon(_) => None,
            Buf::Map(_, offset) => self.map_in(call, 1).cloned().map(|map| (map, offset)),
        };
        let n = match result {
            Some(Ok(n)) => n.min(len),
            Some(Err(Errno(14))) => 0,
            Some(Err(_)) => return,
            None => {
                if let Some((map, offset)) = into {
                    self.store(call, &map, offset, len, false, false, |_| any());
                }
                return self.lost_in_pipes(call);
            }
        };
        let span = self.span(call);
        let Some(key) = self.seen[call as usize].slots.first().map(|s| s.0) else { return };
        if let Some((map, offset)) = into
            && n < len
        {
            // A buffer that a fault cut short has been copied up to there, and does not count (fs/pipe.c:pipe_read, 6.12).
            let Some(pipe) = self.pipes.get(&key) else { return };
            let (stream, next) = (pipe.obj, pipe.tail + n);
            let unknown = pipe.confused || self.pipe_raced(call, key, 1);
            let more = (len - n).min(PAGE);
            self.store(call, &map, offset + n, more, false, false, |place| match unknown {
                true => any(),
                false => Src::Copy { obj: stream, delta: delta(next, place), before: false },
            });
        }
        if n == 0 {
            return;
        }
        let Some((stream, at, confused)) = self.step(key, 1, n, span) else { return };
        let (obj, start) = if confused { (self.object(any(), None), 0) } else { (stream, at) };
        match buf {
            Buf::Anon(_) => {
                let read = ReadOf { obj, start, mapped: None, skip: 0, len: n };
                self.pending[call as usize].reads.push(read);
            }
            Buf::Map(_, offset) => {
                let Some(map) = self.map_in(call, 1).cloned() else { return };
                self.store(call, &map, offset, n, true, false, |place| Src::Copy {
                    obj,
                    delta: delta(start, place),
                    before: false,
                });
            }
        }
    }
}
