//! Who holds pages of which file, and what ends that.

use super::{Mapping, Outline, Piece};
use crate::{Buf, Call, CallId, Direction, GateSlot, Lane, Line, PinSource, Sharing, SqeFlags};

/// A reference to pages of a file that is not in a pipe.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hold {
    pub source: PinSource,
    pub inode: usize,
    pub taken: CallId,
    /// The process that took it.
    pub space: usize,
    /// What ends it.
    pub until: Until,
    /// The ring whose registered buffer it is, if a request of it does.
    pub fixed: Option<u8>,
}

/// What ends a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// The release of a gate.
    Released(GateSlot),
    /// The end of a ring's registration.
    Unregistered(usize, u8),
    /// The end of a memory region: of which process, and its slot.
    Deregistered(usize, u8),
    /// A line of the lane that is waited for: until then it is probably in flight.
    Synced(Lane),
    /// The stop of gup_test, by whomever.
    Stopped,
}

/// Whether pages of the file itself are held, and not copies of them, nor nothing because it was refused.
const fn of_file(source: PinSource) -> bool {
    use PinSource as S;
    !matches!(
        source,
        S::RegisteredPrivate
            | S::FixedRead
            | S::FixedWrite
            | S::Registered
            | S::Replaced
            | S::Cloned
            | S::Region
            | S::RegionPrivate
            | S::LongtermTest
            | S::LongtermTestPrivate
    )
}

impl Outline {
    /// Every reference to pages of the file: source, line that took it, process that did.
    pub fn references(&self, inode: usize) -> Vec<(PinSource, CallId, usize)> {
        let mut all: Vec<(PinSource, CallId, usize)> = Vec::new();
        for hold in self.holds.iter().filter(|hold| hold.inode == inode) {
            all.push((hold.source, hold.taken, hold.space));
        }
        for (index, pipe) in self.pipes.iter().enumerate() {
            for piece in &pipe.pieces {
                if let Some((of, source)) = piece.of
                    && of == inode
                {
                    let kept = self.spaces[piece.space].pipes.contains(&Some(index));
                    let source = if kept { source } else { PinSource::PipeElsewhere };
                    all.push((source, piece.taken, piece.space));
                }
            }
        }
        all
    }

    /// Whether a layout change of a DAX file must wait: somebody holds pages of the file itself. What is only in flight is soon over.
    pub fn is_busy(&self, inode: usize) -> bool {
        let held = |hold: &Hold| {
            hold.inode == inode && of_file(hold.source) && !matches!(hold.until, Until::Synced(_))
        };
        let mut pieces = self.pipes.iter().flat_map(|pipe| &pipe.pieces);
        self.holds.iter().any(held)
            || pieces.any(|piece| piece.of.is_some_and(|(of, _)| of == inode))
    }

    /// Notes the references that a line takes as it is issued.
    pub(super) fn take(&mut self, id: CallId, line: &Line) {
        let (lane, space) = (line.lane, Outline::space_index(line.lane));
        let mut holds = Vec::new();
        let fixed = line.via.filter(|via| via.flags.has(SqeFlags::FIXED)).map(|via| via.ring.0);
        let mut hold = |source, inode, until| {
            holds.push(Hold { source, inode, taken: id, space, until, fixed });
        };
        match &line.call {
            Call::Pread { file, .. }
            | Call::Pwrite { file, .. }
            | Call::Preadv { file, .. }
            | Call::Pwritev { file, .. }
            | Call::Readv { file, .. }
            | Call::Writev { file, .. } => {
                let Some(open) = self.file(lane, *file) else { return };
                let into = line.call.kind().direction() == Some(Direction::IntoBuffer);
                let Some(source) = self.io_source(line, &open, into) else { return };
                let gate = self.inodes[open.inode].gate.filter(|gate| self.is_held(*gate));
                let until = match gate {
                    Some(gate) => Until::Released(gate),
                    None if line.detached => Until::Synced(lane),
                    None => return,
                };
                for (buf, len) in line.call.buffers() {
                    if let Buf::Map(map, _) = buf
                        && let Some(mapping) = self.map(lane, map)
                        && len > 0
                        && (fixed.is_some() || reaches_file(&mapping, into))
                    {
                        hold(source, mapping.inode, until);
                    }
                }
            }
            Call::ProcessVmReadv { map, gate, len, .. }
            | Call::ProcessVmWritev { map, gate, len, .. }
                if space == 0 =>
            {
                let into = matches!(line.call, Call::ProcessVmWritev { .. });
                let source =
                    if into { PinSource::ProcessVmWrite } else { PinSource::ProcessVmRead };
                let until = if self.is_held(*gate) {
                    Until::Released(*gate)
                } else if line.detached {
                    Until::Synced(lane)
                } else {
                    return;
                };
                if let Some(mapping) = self.map(lane, *map)
                    && *len > 0
                    && reaches_file(&mapping, into)
                {
                    hold(source, mapping.inode, until);
                }
            }
            Call::ProcMemPread { map, .. } | Call::ProcMemPwrite { map, .. } if line.detached => {
                let into = matches!(line.call, Call::ProcMemPwrite { .. });
                let source = if into { PinSource::ProcMemWrite } else { PinSource::ProcMemRead };
                if let Some(mapping) = self.map(lane, *map)
                    && reaches_file(&mapping, into)
                {
                    hold(source, mapping.inode, Until::Synced(lane));
                }
            }
            Call::RegisterBuffers { ring, map, len, .. } => {
                let free = self.space(lane).rings[usize::from(ring.0 % crate::RINGS_MAX)]
                    .is_some_and(|ring| ring.registered.is_none());
                if let Some(mapping) = self.map(lane, *map)
                    && free
                    && *len > 0
                {
                    let until = Until::Unregistered(space, ring.0);
                    hold(registered(mapping.sharing), mapping.inode, until);
                }
            }
            Call::UpdateBuffers { ring, map, len, .. } => {
                let used = self.space(lane).rings[usize::from(ring.0 % crate::RINGS_MAX)]
                    .is_some_and(|ring| ring.registered.is_some());
                let Some(mapping) = self.map(lane, *map).filter(|_| used && *len > 0) else {
                    return;
                };
                // What the ring itself had goes; what its requests use stays, under another name.
                let until = Until::Unregistered(space, ring.0);
                self.drop_holds(|hold| hold.until == until);
                for hold in &mut self.holds {
                    if hold.space == space && hold.fixed == Some(ring.0) {
                        hold.source = PinSource::Replaced;
                    }
                }
                hold(registered(mapping.sharing), mapping.inode, until);
            }
            Call::CloneBuffers { ring, src } => {
                let rings = &self.space(lane).rings;
                let has = |ring: &crate::RingSlot| {
                    rings[usize::from(ring.0 % crate::RINGS_MAX)].map(|ring| ring.registered)
                };
                if let (Some(None), Some(Some(_))) = (has(ring), has(src)) {
                    let shared = Until::Unregistered(space, src.0);
                    for inode in self.holds.iter().filter(|h| h.until == shared).map(|h| h.inode) {
                        hold(PinSource::Cloned, inode, Until::Unregistered(space, ring.0));
                    }
                }
            }
            Call::RegMr { slot, map, len, .. } => {
                if let Some(mapping) = self.map(lane, *map)
                    && *len > 0
                {
                    let source = match mapping.sharing {
                        Sharing::Shared => PinSource::Region,
                        Sharing::Private => PinSource::RegionPrivate,
                    };
                    let until = Until::Deregistered(space, slot.0 % crate::REGIONS_MAX);
                    hold(source, mapping.inode, until);
                }
                self.end_region(lane, slot.0);
            }
            Call::PinLongtermTestStart { buf: Buf::Map(map, _), len, .. } if !self.tested => {
                if let Some(mapping) = self.map(lane, *map)
                    && *len > 0
                {
                    let source = match mapping.sharing {
                        Sharing::Shared => PinSource::LongtermTest,
                        Sharing::Private => PinSource::LongtermTestPrivate,
                    };
                    hold(source, mapping.inode, Until::Stopped);
                }
            }
            _ => {}
        }
        self.holds.extend(holds);
    }

    /// By which means an I/O on that file pins its buffers, if it does.
    fn io_source(&self, line: &Line, open: &super::OpenFile, into: bool) -> Option<PinSource> {
        use PinSource as S;
        let pick = |read, write| Some(if into { read } else { write });
        let inode = &self.inodes[open.inode];
        let held = inode.gate.is_some_and(|gate| self.is_held(gate));
        match line.via {
            _ if inode.is_dax() || !open.flags.has(crate::OpenFlags::DIRECT) => None,
            _ if !held => pick(S::DirectRead, S::DirectWrite),
            Some(via) if via.flags.has(SqeFlags::FIXED) => pick(S::FixedRead, S::FixedWrite),
            Some(_) => pick(S::RingRead, S::RingWrite),
            None if line.aio => pick(S::AioRead, S::AioWrite),
            None => pick(S::GateRead, S::GateWrite),
        }
    }

    pub(super) fn drop_holds(&mut self, over: impl Fn(&Hold) -> bool) {
        self.holds.retain(|hold| !over(hold));
    }

    /// Ends what was in flight on a lane that the line shows to be idle.
    pub(super) fn synced(&mut self, line: &Line) {
        let lane = match line.call {
            Call::Wait { lane } => lane,
            _ if !line.detached => line.lane,
            _ => return,
        };
        self.drop_holds(|hold| hold.until == Until::Synced(lane));
    }

    /// Puts bytes into a pipe.
    pub(super) fn fill_pipe(&mut self, pipe: usize, buffers: u64, piece: Piece) {
        let fill = &mut self.pipes[pipe];
        if piece.bytes > 0 {
            fill.bytes = fill.bytes.saturating_add(piece.bytes);
            fill.buffers = (fill.buffers + buffers).min(super::PIPE_BUFFERS);
            fill.pieces.push_back(piece);
        }
    }

    /// Takes bytes out of a pipe; how many there were.
    pub(super) fn drain_pipe(&mut self, pipe: usize, len: u64) -> u64 {
        let fill = &mut self.pipes[pipe];
        let len = len.min(fill.bytes);
        let mut left = len;
        while left > 0
            && let Some(piece) = fill.pieces.front_mut()
        {
            let part = left.min(piece.bytes);
            piece.bytes -= part;
            left -= part;
            if piece.bytes == 0 {
                fill.pieces.pop_front();
            }
        }
        fill.bytes -= len;
        // A buffer that still holds a byte stays taken.
        fill.buffers =
            fill.buffers.saturating_sub(len / crate::PAGE).max(fill.bytes.div_ceil(crate::PAGE));
        if fill.bytes == 0 {
            fill.buffers = 0;
        }
        len
    }

    /// Empties the pipes that no process has open any more.
    pub(super) fn drop_pipes(&mut self) {
        for index in 0..self.pipes.len() {
            if !self.spaces.iter().any(|space| space.pipes.contains(&Some(index))) {
                self.pipes[index] = super::PipeFill::default();
            }
        }
    }
}

/// Whether a pin in a mapping is one of the file's own pages: a private one has copies of what was written.
fn reaches_file(mapping: &Mapping, into: bool) -> bool {
    mapping.sharing == Sharing::Shared || !into
}

/// What a registered buffer in such a mapping is.
fn registered(sharing: Sharing) -> PinSource {
    match sharing {
        Sharing::Shared => PinSource::Registered,
        Sharing::Private => PinSource::RegisteredPrivate,
    }
}
