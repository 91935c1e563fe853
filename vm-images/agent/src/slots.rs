//! The slots of a process: descriptors, mappings, pipes, rings and memory regions, shared by racing lanes.
//!
//! A look-up takes a share of the handle and lets go of the table at once, so that calls on one slot do race. A descriptor's number
//! is not free for another file while a share is out: a close under way of others closes the file for real, by putting a tombstone (an
//! O_PATH descriptor: every use is EBADF) under its number, which goes when the last share does. Mappings need no such care: no address
//! is used twice in a program.

use crate::descriptors::Sockets;
use crate::rdma::{Region, Verbs};
use crate::ring::{Leaving, Ring};
use crate::sys::{self, arena::Area, verbs::Side};
use history::{CallResult, SkipReason};
use program::{
    CallId, FILES_MAX, FileSlot, GateSlot, MAPS_MAX, MapSlot, Mount, PIPES_MAX, PipeSlot,
    REGIONS_MAX, RINGS_MAX, RegionSlot, RingSlot,
};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard};

/// A descriptor that lanes share.
#[derive(Debug)]
pub struct Handle {
    fd: OwnedFd,
    /// Where its file lives; of no meaning for a pipe or a gate.
    pub mount: Mount,
    /// The gate whose device it is.
    pub gate: Option<GateSlot>,
}

impl Handle {
    /// Of a descriptor.
    pub fn new(fd: OwnedFd, mount: Mount) -> Arc<Handle> {
        Arc::new(Handle { fd, mount, gate: None })
    }

    /// Of the device of a gate.
    pub fn of_gate(fd: OwnedFd, mount: Mount, gate: GateSlot) -> Arc<Handle> {
        Arc::new(Handle { fd, mount, gate: Some(gate) })
    }

    /// Of another descriptor of the same open file.
    pub fn same(&self, fd: OwnedFd) -> Arc<Handle> {
        Arc::new(Handle { fd, ..*self })
    }
}

impl AsFd for Handle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A slot's content and the line that filled it.
#[derive(Clone, Debug)]
pub struct Filled<T> {
    /// The content.
    pub it: T,
    /// The line.
    pub by: CallId,
}

/// A mapping: where it lies and what it shows.
#[derive(Clone, Copy, Debug)]
pub struct Map {
    /// Where.
    pub area: Area,
    /// File offset of its first byte.
    pub offset: u64,
}

/// Both ends of a pipe.
#[derive(Clone, Debug)]
pub struct Pipe {
    /// The end to read from.
    pub read: Arc<Handle>,
    /// The end to write to.
    pub write: Arc<Handle>,
}

/// The slots.
#[derive(Debug, Default)]
pub struct Slots {
    files: [Option<Filled<Arc<Handle>>>; FILES_MAX as usize],
    maps: [Option<Filled<Map>>; MAPS_MAX as usize],
    pipes: [Option<Filled<Pipe>>; PIPES_MAX as usize],
    rings: [Option<Filled<Arc<Ring>>>; RINGS_MAX as usize],
    regions: [Option<Filled<Region>>; REGIONS_MAX as usize],
    /// The RDMA device, once this process has opened it.
    pub verbs: Option<Arc<Verbs>>,
    /// gup_test, if the program uses it and the kernel has it: one open file for all processes, for any close of another would drop the pins
    /// (mm/gup_test.c:gup_test_release, 6.12).
    pub gup_test: Option<Arc<OwnedFd>>,
    /// Memory of lines' own.
    pub areas: Vec<Area>,
    /// Every ring of the program, also those whose slot was filled anew: their requests are awaited at the end.
    pub all_rings: Vec<Arc<Ring>>,
    /// Rings that were closed, until the kernel has done with them.
    pub leaving: Vec<Leaving>,
    /// Through which descriptors are sent, if the program does so.
    pub sockets: Option<Arc<Sockets>>,
}

macro_rules! kinds {
    ($($get:ident $put:ident $($take:ident)? => $field:ident $slot:ty, $of:ty;)*) => {$(
        impl Slots {
            /// What the slot holds.
            pub fn $get(&self, slot: $slot) -> Option<Filled<$of>> {
                self.$field.get(slot.0 as usize)?.clone()
            }
            /// Fills the slot; what it held before comes back.
            pub fn $put(&mut self, slot: $slot, it: $of, by: CallId) -> Option<Filled<$of>> {
                self.$field.get_mut(slot.0 as usize)?.replace(Filled { it, by })
            }
            $(
                /// Empties the slot.
                pub fn $take(&mut self, slot: $slot) -> Option<Filled<$of>> {
                    self.$field.get_mut(slot.0 as usize)?.take()
                }
            )?
        }
    )*};
}

kinds! {
    file put_file take_file => files FileSlot, Arc<Handle>;
    map put_map take_map => maps MapSlot, Map;
    pipe put_pipe take_pipe => pipes PipeSlot, Pipe;
    ring put_ring take_ring => rings RingSlot, Arc<Ring>;
}

impl Slots {
    /// Fills the slot; what it held before comes back.
    pub fn put_region(
        &mut self,
        slot: RegionSlot,
        it: Region,
        by: CallId,
    ) -> Option<Filled<Region>> {
        self.regions.get_mut(slot.0 as usize)?.replace(Filled { it, by })
    }

    /// A part of a region, for the near side of a transfer and for the far one. Whoever ends the region meanwhile ends it for the device as well.
    pub fn region_sides(
        &self,
        slot: RegionSlot,
        offset: u64,
        len: u64,
    ) -> Result<Filled<(Side, Side)>, SkipReason> {
        let region = self.regions.get(slot.0 as usize).and_then(Option::as_ref);
        let region = region.ok_or(SkipReason::EmptySlot)?;
        let sides = region.it.sides(offset, len).ok_or(SkipReason::OutOfRange)?;
        Ok(Filled { it: sides, by: region.by })
    }

    /// Empties the slot.
    pub fn take_region(&mut self, slot: RegionSlot) -> Option<Filled<Region>> {
        self.regions.get_mut(slot.0 as usize)?.take()
    }

    /// Forgets all rings, in a forked child, which has no part in them (see `sys::ring::leave_all`).
    pub fn forget_rings(&mut self) {
        std::mem::forget((std::mem::take(&mut self.rings), std::mem::take(&mut self.all_rings)));
    }

    /// Forgets all memory regions, in a forked child: they are its parent's, and so is the device's open file.
    pub fn forget_regions(&mut self) {
        self.regions = Default::default();
        self.verbs = None;
    }

    /// The pipes that are open.
    pub fn pipes(&self) -> Vec<Pipe> {
        self.pipes.iter().flatten().map(|p| p.it.clone()).collect()
    }
}

/// The slots under their lock, which is held for moments only, and by whoever forks.
#[derive(Debug)]
pub struct Table {
    slots: Mutex<Slots>,
    tombstone: OwnedFd,
}

impl Table {
    /// Empty slots.
    pub fn new() -> rustix::io::Result<Table> {
        use rustix::fs::{Mode, OFlags, open};
        let tombstone = open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Table { slots: Mutex::default(), tombstone })
    }

    /// The slots. A lane that panics takes the process with it, so poison means nothing.
    pub fn lock(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// `close(fd)` — Closes the file of a handle that is in no slot any more. If shares are out, its number stays taken.
    pub fn close(&self, handle: Arc<Handle>) -> CallResult {
        match Arc::try_unwrap(handle) {
            Ok(handle) => sys::close(handle.fd),
            Err(shared) => sys::replace(self.tombstone.as_fd(), shared.as_fd()).map(|_| 0),
        }
    }

    /// Whether a descriptor is a tombstone's: its file was closed between look-up and call, which is EBADF.
    pub fn is_tombstone(&self, fd: BorrowedFd<'_>) -> bool {
        use rustix::fs::{OFlags, fcntl_getfl};
        fcntl_getfl(fd).is_ok_and(|flags| flags.contains(OFlags::PATH))
    }

    /// Removes everything that a program left, when its lanes are idle.
    pub fn clear(&self) {
        let slots = std::mem::take(&mut *self.lock());
        for map in slots.maps.into_iter().flatten() {
            // A range that is already gone is no error of munmap.
            let _ = sys::arena::unmap(map.it.area);
        }
        for area in slots.areas {
            let _ = sys::arena::unmap(area);
        }
        for region in slots.regions.into_iter().flatten() {
            // What stays pinned shows in the count.
            let _ = region.it.deregister();
        }
    }
}
