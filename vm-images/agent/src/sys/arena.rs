//! Where programs' mappings live: every line that maps has a place of its own, at a fixed address.
//!
//! `PLACE(line) = ARENA + line * STRIDE`, plus the file offset modulo 2 MiB, so that virtual and file offsets agree in colour and huge
//! DAX mappings are possible. No address is used twice in a program: a load through a mapping that another lane removed meets nothing
//! instead of a stranger. The kernel places its own choices at the top of the address space, tebibytes away. A place has room to grow, so
//! mremap grows a mapping where it stands.

use super::{Span, result};
use history::CallResult;
use program::{Advice, LINES_MAX, MapFlags, MsyncFlags, Prot, Sharing};
use rustix::fd::{AsRawFd, BorrowedFd};

/// Begin of the arena.
const ARENA: usize = 0x10_0000_0000;
/// Distance of two places: 2 MiB of colour, the longest mapping, and room behind it that nothing is mapped in.
const STRIDE: usize = 32 << 20;
/// Size of a huge page.
const HUGE: u64 = 2 << 20;
/// The place that reads files back after a program.
pub const READBACK: usize = LINES_MAX;
/// Longest range that an access may name, from the start of its mapping.
pub const REACH: u64 = 8 << 20;

/// A mapping in the arena, as long as `len` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    addr: usize,
    /// Length in bytes as it was asked for.
    pub len: u64,
}

impl Area {
    /// The address.
    pub fn addr(self) -> usize {
        self.addr
    }

    /// All of it.
    pub fn whole(self) -> Span {
        Span { addr: self.addr, len: self.len as usize }
    }

    /// The part that begins at `offset`, or nothing if it leaves the place. It may lie past the end of the mapping.
    pub fn span(self, offset: u64, len: u64) -> Option<Span> {
        let end = offset.checked_add(len)?;
        (end <= REACH).then(|| Span { addr: self.addr + offset as usize, len: len as usize })
    }
}

/// How a file is mapped.
#[derive(Clone, Copy, Debug)]
pub struct Mapping {
    /// PROT_ bits.
    pub prot: Prot,
    /// MAP_SHARED or MAP_PRIVATE.
    pub sharing: Sharing,
    /// More flags.
    pub flags: MapFlags,
}

fn prot_bits(prot: Prot) -> i32 {
    let mut bits = libc::PROT_NONE;
    if prot.has(Prot::READ) {
        bits |= libc::PROT_READ;
    }
    if prot.has(Prot::WRITE) {
        bits |= libc::PROT_WRITE;
    }
    bits
}

/// `mmap(PLACE(place), len, prot, flags | MAP_FIXED, fd, offset)` — Maps a file at the place of a line.
pub fn map(
    place: usize,
    fd: BorrowedFd<'_>,
    offset: u64,
    len: u64,
    how: Mapping,
) -> (CallResult, Option<Area>) {
    assert!(place <= READBACK, "a place for each line");
    let max = if place == READBACK { STRIDE as u64 - HUGE } else { REACH };
    if len > max {
        return (Err(history::Errno(libc::ENOMEM)), None);
    }
    let addr = ARENA + place * STRIDE + (offset % HUGE) as usize / 4096 * 4096;
    let mut flags = libc::MAP_FIXED;
    flags |= match how.sharing {
        Sharing::Shared if how.flags.has(MapFlags::SYNC) => {
            libc::MAP_SHARED_VALIDATE | libc::MAP_SYNC
        }
        Sharing::Shared => libc::MAP_SHARED,
        Sharing::Private => libc::MAP_PRIVATE,
    };
    if how.flags.has(MapFlags::POPULATE) {
        flags |= libc::MAP_POPULATE;
    }
    // SAFETY: the place lies in the arena, where nothing of Rust's lives.
    let value = unsafe {
        libc::mmap(
            addr as *mut _,
            len as usize,
            prot_bits(how.prot),
            flags,
            fd.as_raw_fd(),
            offset as i64,
        )
    };
    let value = result(value as i64);
    (value, value.is_ok().then_some(Area { addr, len }))
}

/// `mmap(PLACE(place), len, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0)` — Fresh memory at the place of a line.
pub fn anonymous(place: usize, len: u64) -> Result<Area, history::Errno> {
    assert!(place < READBACK, "a place for each line");
    if len > REACH {
        return Err(history::Errno(libc::ENOMEM));
    }
    let addr = ARENA + place * STRIDE;
    let flags = libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the place lies in the arena, where nothing of Rust's lives.
    let value = unsafe { libc::mmap(addr as *mut _, len.max(1) as usize, prot, flags, -1, 0) };
    result(value as i64).map(|_| Area { addr, len })
}

/// `munmap(area)` — Removes a mapping.
pub fn unmap(area: Area) -> CallResult {
    // SAFETY: an area lies in the arena.
    result(unsafe { libc::munmap(area.addr as *mut _, area.len as usize) }.into())
}

/// `mremap(area, len, MREMAP_MAYMOVE)` — Grows or shrinks a mapping; a place has room, so it does not move.
pub fn remap(area: Area, len: u64) -> CallResult {
    if len > REACH {
        return Err(history::Errno(libc::ENOMEM));
    }
    // SAFETY: an area lies in the arena; should the kernel move it, then to where nothing is mapped.
    let value = unsafe {
        libc::mremap(area.addr as *mut _, area.len as usize, len as usize, libc::MREMAP_MAYMOVE)
    };
    result(value as i64)
}

/// The mapping after `remap` returned `addr`.
pub fn remapped(addr: u64, len: u64) -> Area {
    Area { addr: addr as usize, len }
}

/// `mprotect(area, prot)` — Changes what may be done through a mapping.
pub fn protect(area: Area, prot: Prot) -> CallResult {
    // SAFETY: an area lies in the arena, and holds nothing of Rust's.
    result(
        unsafe { libc::mprotect(area.addr as *mut _, area.len as usize, prot_bits(prot)) }.into(),
    )
}

/// `msync(span, flags)` — Writes back what was stored through a mapping.
pub fn sync(span: Span, flags: MsyncFlags) -> CallResult {
    let mut bits = 0;
    for (flag, bit) in [
        (MsyncFlags::ASYNC, libc::MS_ASYNC),
        (MsyncFlags::SYNC, libc::MS_SYNC),
        (MsyncFlags::INVALIDATE, libc::MS_INVALIDATE),
    ] {
        if flags.has(flag) {
            bits |= bit;
        }
    }
    // SAFETY: a span never lies in memory that Rust owns.
    result(unsafe { libc::msync(span.addr as *mut _, span.len, bits) }.into())
}

/// The kernel's number of an advice.
pub fn advice(advice: Advice) -> i32 {
    match advice {
        Advice::Normal => libc::MADV_NORMAL,
        Advice::Random => libc::MADV_RANDOM,
        Advice::Sequential => libc::MADV_SEQUENTIAL,
        Advice::WillNeed => libc::MADV_WILLNEED,
        Advice::DontNeed => libc::MADV_DONTNEED,
        Advice::Cold => libc::MADV_COLD,
        Advice::PageOut => libc::MADV_PAGEOUT,
        Advice::PopulateRead => libc::MADV_POPULATE_READ,
        Advice::PopulateWrite => libc::MADV_POPULATE_WRITE,
        Advice::HugePage => libc::MADV_HUGEPAGE,
        Advice::NoHugePage => libc::MADV_NOHUGEPAGE,
        Advice::Remove => libc::MADV_REMOVE,
    }
}

/// `madvise(span, advice)` — Advises on a part of a mapping.
pub fn advise(span: Span, how: Advice) -> CallResult {
    // SAFETY: a span of a mapping lies in the arena; losing its contents harms nothing of Rust's.
    result(unsafe { libc::madvise(span.addr as *mut _, span.len, advice(how)) }.into())
}
