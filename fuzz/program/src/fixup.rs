//! Turns any value of the program type into a program that the agent can run and most of whose lines mean something.
//!
//! It wraps rather than rejects, so that every mutation lands somewhere. It never aligns the offsets or lengths of I/O, and it
//! does not know whether a call will succeed: calls that the kernel must refuse are part of the search.

use crate::args::Arg;
use crate::{
    Buf, CHILDREN_MAX, Call, DELAY_US_MAX, FILE_MAX, FILES_MAX, FileSlot, GATE_MEMORY, GateSlot,
    IO_MAX, IOV_MAX, LEASE_BREAK_TIME_MAX, LINES_MAX, Lane, Line, MAPS_MAX, MapFlags, MapSlot,
    MsyncFlags, NAMES_MAX, OpenFlags, PAGE, PIPES_MAX, PinFlags, PipeSlot, Program, Prot,
    REGIONS_MAX, RING_ENTRIES_MAX, RINGS_MAX, RegionSlot, RingSlot, Settle, SqeFlags,
    SyncFileRangeFlags, THREADS_MAX,
};

/// Where the range of an fallocate ends at the latest, in bytes: where the longest write at the last offset ends as well, so that
/// no single call makes a file larger than another could.
const END_MAX: u64 = FILE_MAX + IO_MAX;
/// Address spaces: that of the threads, then one for each child.
pub(crate) const SPACES: usize = 1 + CHILDREN_MAX as usize;

impl Program {
    /// Makes the program fit to run. Total, and idempotent: a fixed program is left as it is.
    ///
    /// - Slots, names, lanes, flags, offsets and lengths are wrapped into their bounds; mappings are made of whole pages.
    /// - A line on a child lane that was not forked yet, or that has exited, moves to `t0`; so does a `fork` on a child lane. A `fork`
    ///   takes another child if its own was forked before, and is dropped when none is left. An `exit` elsewhere than on a living
    ///   child lane, and a `wait` for the own lane or for a child that was never forked, are dropped.
    /// - A use of a slot that no earlier line could have filled goes to one that was filled, if there is any. A buffer in a mapping
    ///   becomes anonymous memory, and a ring attribute goes away, where there is none at all. A child has no rings but those it
    ///   sets up itself: parent and child would share the queue behind each other's back. Nor has it memory regions but its own.
    /// - Ranges in a mapping are wrapped into its length, as far as it is known from the lines before.
    /// - A chain of linked requests ends at the last line that can belong to it.
    pub fn fixup(&mut self) {
        self.lines.truncate(LINES_MAX);
        self.lines.iter_mut().for_each(bound_line);
        fix_lanes(&mut self.lines);
        fix_slots(&mut self.lines);
        end_chains(&mut self.lines);
    }
}

/// Wraps everything that needs no look at other lines.
pub(crate) fn bound_line(line: &mut Line) {
    line.lane = bound_lane(line.lane);
    line.delay_us %= DELAY_US_MAX + 1;
    line.detached &= line.call.kind().can_detach();
    if !line.call.kind().has_ring_form() {
        line.via = None;
    }
    line.aio &= line.call.kind().has_aio_form() && line.via.is_none();
    if let Some(via) = &mut line.via {
        via.ring.0 %= RINGS_MAX;
        via.flags.0 &= SqeFlags::ALL.0;
    }
    line.call.visit(&mut bound_arg);
    match &mut line.call {
        Call::Mmap { offset, len, .. } => *len = (*len).min(FILE_MAX - *offset),
        Call::Fallocate { offset, len, .. } => *len = (*len).min(END_MAX - *offset),
        // A gate's device is for direct I/O: pages of its own cache would hide the device from the program.
        Call::OpenGate { flags, .. } => *flags = OpenFlags::DIRECT,
        Call::ProcessVmReadv { len, .. } | Call::ProcessVmWritev { len, .. } => {
            *len = (*len).min(GATE_MEMORY);
        }
        // The others leave the order to the device, or to memory.
        Call::Release { gate: GateSlot::MEMORY, settle }
        | Call::Release {
            gate: GateSlot::DM,
            settle: settle @ (Settle::Reverse | Settle::Partial),
        } => {
            *settle = Settle::Complete;
        }
        // A part of a page at the end is a request for no page, which gup_fast does not expect (mm/gup.c:gup_fast_pte_range, 6.12).
        Call::PinBasicTest { offset, len, .. } => {
            *offset = *offset / PAGE * PAGE;
            *len = len.next_multiple_of(PAGE).max(PAGE);
        }
        // A request for no bytes is a barrier, and no use of a region.
        Call::RdmaWrite { len, .. } | Call::RdmaRead { len, .. } => *len = (*len).max(1),
        Call::Kill { lane } => {
            let (Lane::Thread(n) | Lane::Child(n)) = *lane;
            *lane = Lane::Child(n % CHILDREN_MAX);
        }
        _ => {}
    }
    bound_fixed(line);
}

/// READ_FIXED and WRITE_FIXED take one buffer, which is a part of a mapping that can be registered.
fn bound_fixed(line: &mut Line) {
    let has_form = matches!(
        line.call,
        Call::Pread { buf: Buf::Map(..), .. } | Call::Pwrite { buf: Buf::Map(..), .. }
    );
    if let Some(via) = &mut line.via
        && !has_form
    {
        via.flags = via.flags.without(SqeFlags::FIXED);
    }
}

fn bound_lane(lane: Lane) -> Lane {
    match lane {
        Lane::Thread(n) => Lane::Thread(n % THREADS_MAX),
        Lane::Child(n) => Lane::Child(n % CHILDREN_MAX),
    }
}

fn bound_arg(arg: Arg<'_>) {
    match arg {
        Arg::NewFile(FileSlot(n)) | Arg::File(FileSlot(n)) => *n %= FILES_MAX,
        Arg::NewMap(MapSlot(n)) | Arg::Map(MapSlot(n)) => *n %= MAPS_MAX,
        Arg::MapAt(MapSlot(n), offset) => {
            *n %= MAPS_MAX;
            *offset %= IO_MAX + 1;
        }
        Arg::NewPipe(PipeSlot(n)) | Arg::Pipe(PipeSlot(n)) => *n %= PIPES_MAX,
        Arg::NewRing(RingSlot(n)) | Arg::Ring(RingSlot(n)) => *n %= RINGS_MAX,
        Arg::NewRegion(RegionSlot(n)) | Arg::Region(RegionSlot(n)) => *n %= REGIONS_MAX,
        Arg::RegionAt(RegionSlot(n), offset) => {
            *n %= REGIONS_MAX;
            *offset %= IO_MAX + 1;
        }
        Arg::Gate(GateSlot(n)) => *n %= GateSlot::MAX,
        Arg::DeviceGate(GateSlot(n)) => *n %= GateSlot::MEMORY.0,
        Arg::MemoryGate(gate) => *gate = GateSlot::MEMORY,
        Arg::Seconds(n) => *n %= LEASE_BREAK_TIME_MAX + 1,
        Arg::NewChild(n) => *n %= CHILDREN_MAX,
        Arg::Path(path) => path.name %= NAMES_MAX,
        Arg::Offset(n) | Arg::Size(n) | Arg::RangeLen(n) => *n %= FILE_MAX + 1,
        Arg::IoLen(n) => *n %= IO_MAX + 1,
        Arg::MapOffset(n) => *n = (*n % FILE_MAX) / PAGE * PAGE,
        Arg::MapLen(n) => *n = (*n % (IO_MAX + 1)).next_multiple_of(PAGE).max(PAGE),
        Arg::Buf(buf) => bound_buf(buf),
        Arg::Iov(iov) => {
            iov.truncate(IOV_MAX);
            if iov.is_empty() {
                iov.push((Buf::Anon(0), PAGE));
            }
            let mut left = IO_MAX;
            for (buf, len) in iov {
                bound_buf(buf);
                *len = (*len % (IO_MAX + 1)).min(left);
                left -= *len;
            }
        }
        Arg::Open(_, flags) => flags.0 &= OpenFlags::ALL.0,
        Arg::Prot(prot) => prot.0 &= Prot::ALL.0,
        Arg::Sharing(_, flags) => flags.0 &= MapFlags::ALL.0,
        Arg::Msync(flags) => flags.0 &= MsyncFlags::ALL.0,
        Arg::SyncFileRange(flags) => flags.0 &= SyncFileRangeFlags::ALL.0,
        Arg::Pin(flags) => flags.0 &= PinFlags::ALL.0,
        Arg::Entries(n) => *n = (n.wrapping_sub(1)) % RING_ENTRIES_MAX + 1,
        Arg::Lane(lane) => *lane = bound_lane(*lane),
        Arg::Mode(_)
        | Arg::Advice(_)
        | Arg::Whence(_)
        | Arg::Lease(_)
        | Arg::Notice(_)
        | Arg::Owner(_)
        | Arg::Settle(_)
        | Arg::RegionAccess(_) => {}
    }
}

fn bound_buf(buf: &mut Buf) {
    match buf {
        Buf::Anon(offset) => *offset %= PAGE as u16,
        Buf::Map(map, offset) => {
            map.0 %= MAPS_MAX;
            *offset %= IO_MAX + 1;
        }
    }
}

/// Puts every line on a lane that exists when it runs.
fn fix_lanes(lines: &mut Vec<Line>) {
    let mut forked = [false; CHILDREN_MAX as usize];
    let mut alive = [false; CHILDREN_MAX as usize];
    lines.retain_mut(|line| {
        if let Lane::Child(child) = line.lane
            && (!alive[usize::from(child)] || line.call.kind() == crate::CallKind::Fork)
        {
            line.lane = Lane::Thread(0);
        }
        match (&mut line.call, line.lane) {
            (Call::Fork { child }, _) => {
                let own = usize::from(*child);
                let free =
                    if forked[own] { forked.iter().position(|used| !used) } else { Some(own) };
                let Some(free) = free else { return false };
                *child = free as u8;
                (forked[free], alive[free]) = (true, true);
                true
            }
            (Call::Exit, Lane::Child(child)) => {
                alive[usize::from(child)] = false;
                true
            }
            (Call::Exit, Lane::Thread(_)) => false,
            (Call::Wait { lane: Lane::Child(child) }, _) if !forked[usize::from(*child)] => false,
            (Call::Wait { lane }, own) => *lane != own,
            (Call::Kill { lane: Lane::Child(child) }, own) => {
                let was_alive = std::mem::take(&mut alive[usize::from(*child)]);
                was_alive && own != Lane::Child(*child)
            }
            (Call::Interrupt { lane }, own) => *lane != own && matches!(lane, Lane::Thread(_)),
            (Call::SetownEx { lane, .. }, _) => {
                if let Lane::Child(child) = *lane
                    && !forked[usize::from(child)]
                {
                    *lane = Lane::Thread(child % THREADS_MAX);
                }
                true
            }
            _ => true,
        }
    });
}

/// What one address space could have in its slots, whoever filled them.
#[derive(Clone, Default)]
struct Space {
    files: [bool; FILES_MAX as usize],
    /// The length that the last mmap or mremap asked for.
    maps: [Option<u64>; MAPS_MAX as usize],
    pipes: [bool; PIPES_MAX as usize],
    rings: [bool; RINGS_MAX as usize],
    /// The length that the last registration asked for.
    regions: [Option<u64>; REGIONS_MAX as usize],
}

/// Which of the spaces the lane runs in.
pub(crate) fn space_of(lane: Lane) -> usize {
    match lane {
        Lane::Thread(_) => 0,
        Lane::Child(n) => 1 + usize::from(n % CHILDREN_MAX),
    }
}

/// The slot itself if it was filled; another one that was, if any; or itself.
fn redirect(slot: &mut u8, filled: impl Iterator<Item = bool>) -> bool {
    let filled: Vec<u8> =
        (0..).zip(filled).filter(|(_, full)| *full).map(|(index, _)| index).collect();
    if !filled.is_empty() && !filled.contains(slot) {
        *slot = filled[usize::from(*slot) % filled.len()];
    }
    !filled.is_empty()
}

/// Directs uses of slots to slots that were filled, and ranges into their mappings.
fn fix_slots(lines: &mut [Line]) {
    let mut spaces: [Space; SPACES] = Default::default();
    for line in lines {
        let space = &mut spaces[space_of(line.lane)];
        line.call.visit(&mut |arg| match arg {
            Arg::File(slot) => {
                redirect(&mut slot.0, space.files.into_iter());
            }
            Arg::Map(slot) | Arg::MapAt(slot, _) => {
                redirect(&mut slot.0, space.maps.iter().map(Option::is_some));
            }
            Arg::Pipe(slot) => {
                redirect(&mut slot.0, space.pipes.into_iter());
            }
            Arg::Ring(slot) => {
                redirect(&mut slot.0, space.rings.into_iter());
            }
            Arg::Region(slot) | Arg::RegionAt(slot, _) => {
                redirect(&mut slot.0, space.regions.iter().map(Option::is_some));
            }
            Arg::Buf(buf) => redirect_buf(buf, space),
            Arg::Iov(iov) => iov.iter_mut().for_each(|(buf, _)| redirect_buf(buf, space)),
            _ => {}
        });
        bound_fixed(line);
        fit_ranges(&mut line.call, space);
        if let Some(via) = &mut line.via
            && !redirect(&mut via.ring.0, space.rings.into_iter())
        {
            line.via = None;
        }
        match &line.call {
            Call::Open { slot, .. }
            | Call::Dup { slot, .. }
            | Call::OpenGate { slot, .. }
            | Call::RecvFd { slot } => space.files[usize::from(slot.0)] = true,
            Call::Mmap { slot, len, .. } => space.maps[usize::from(slot.0)] = Some(*len),
            Call::Mremap { map, len } => {
                // Of a slot that was never filled it makes nothing.
                let known = &mut space.maps[usize::from(map.0)];
                *known = known.map(|_| *len);
            }
            Call::Pipe { slot } => space.pipes[usize::from(slot.0)] = true,
            Call::IoUringSetup { slot, .. } => space.rings[usize::from(slot.0)] = true,
            Call::RegMr { slot, len, .. } => space.regions[usize::from(slot.0)] = Some(*len),
            Call::Fork { child } => {
                let parent = Space {
                    rings: Default::default(),
                    regions: Default::default(),
                    ..space.clone()
                };
                spaces[space_of(Lane::Child(*child))] = parent;
            }
            _ => {}
        }
    }
}

fn redirect_buf(buf: &mut Buf, space: &Space) {
    if let Buf::Map(map, offset) = buf
        && !redirect(&mut map.0, space.maps.iter().map(Option::is_some))
    {
        *buf = Buf::Anon((*offset % PAGE) as u16);
    }
}

/// Wraps ranges into the mappings they lie in.
fn fit_ranges(call: &mut Call, space: &Space) {
    let fit = |map: MapSlot, offset: &mut u64, len: &mut u64| {
        if let Some(known) = space.maps[usize::from(map.0)]
            && *offset + *len > known
        {
            *offset %= known;
            *len = (*len).min(known - *offset);
        }
    };
    match call {
        Call::RdmaWrite { local, from: near, remote, to: far, len }
        | Call::RdmaRead { local, to: near, remote, from: far, len } => {
            for (region, offset) in [(local, near), (remote, far)] {
                if let Some(known @ 1..) = space.regions[usize::from(region.0)] {
                    *offset %= known;
                    *len = (*len).min(known - *offset);
                }
            }
        }
        Call::Load { map, offset, len }
        | Call::Store { map, offset, len }
        | Call::Msync { map, offset, len, .. }
        | Call::Madvise { map, offset, len, .. }
        | Call::Vmsplice { map, offset, len, .. }
        | Call::ProcessVmReadv { map, offset, len, .. }
        | Call::ProcessVmWritev { map, offset, len, .. }
        | Call::ProcMemPread { map, offset, len }
        | Call::ProcMemPwrite { map, offset, len }
        | Call::RegisterBuffers { map, offset, len, .. }
        | Call::RegMr { map, offset, len, .. }
        | Call::PinBasicTest { map, offset, len, .. }
        | Call::UpdateBuffers { map, offset, len, .. } => fit(*map, offset, len),
        Call::Pread { buf: Buf::Map(map, offset), len, .. }
        | Call::PinLongtermTestStart { buf: Buf::Map(map, offset), len, .. }
        | Call::Pwrite { buf: Buf::Map(map, offset), len, .. }
        | Call::ReadPipe { buf: Buf::Map(map, offset), len, .. } => fit(*map, offset, len),
        Call::Preadv { iov, .. }
        | Call::Pwritev { iov, .. }
        | Call::Readv { iov, .. }
        | Call::Writev { iov, .. } => {
            for (buf, len) in iov {
                if let Buf::Map(map, offset) = buf {
                    fit(*map, offset, len);
                }
            }
        }
        _ => {}
    }
}

/// Clears the link flags of lines that nothing can be linked to: those not directly followed, on their lane, by a request of the
/// same ring. A chain also ends when the submission queue is full, since its lines are submitted together.
fn end_chains(lines: &mut [Line]) {
    let mut entries = [[usize::from(RING_ENTRIES_MAX); RINGS_MAX as usize]; SPACES];
    let mut chained = [0; THREADS_MAX as usize + CHILDREN_MAX as usize];
    for index in 0..lines.len() {
        let (lane, via) = (lines[index].lane, lines[index].via);
        if let Call::IoUringSetup { slot, entries: asked } = lines[index].call {
            // The kernel rounds up to a power of two.
            entries[space_of(lane)][usize::from(slot.0)] = usize::from(asked).next_power_of_two();
        }
        let length = match lane {
            Lane::Thread(n) => &mut chained[usize::from(n)],
            Lane::Child(n) => &mut chained[usize::from(THREADS_MAX + n)],
        };
        let Some(via) = via.filter(|via| via.is_linked()) else {
            *length = 0;
            continue;
        };
        *length += 1;
        let next = lines[index + 1..].iter().find(|line| line.lane == lane);
        let goes_on = next.and_then(|line| line.via).is_some_and(|next| next.ring == via.ring);
        if !goes_on || *length >= entries[space_of(lane)][usize::from(via.ring.0)] {
            *length = 0;
            let flags = via.flags.without(SqeFlags::LINK).without(SqeFlags::HARDLINK);
            lines[index].via = Some(crate::Via { flags, ..via });
        }
    }
}

impl crate::Via {
    /// Whether the request waits in the queue for the next one of its ring.
    pub const fn is_linked(self) -> bool {
        self.flags.has(SqeFlags::LINK) || self.flags.has(SqeFlags::HARDLINK)
    }
}
