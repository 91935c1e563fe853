//! Memory that is shared with other processes, with the host, or with the kernel's I/O.

use super::Span;
use rustix::fd::AsFd;
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous};
use std::sync::atomic::AtomicU32;

/// Types that may be shared between processes: all their fields are atomics, and all zeros is a value.
///
/// # Safety
/// The implementor consists of atomic integers and arrays of such only.
pub unsafe trait Shared: Sync {}

// SAFETY: counters are atomic integers; the page holds nothing else.
unsafe impl Shared for crate::control::Control {}

// SAFETY: as above.
unsafe impl Shared for crate::ublk::Words {}

// SAFETY: as above.
unsafe impl Shared for crate::cover::Reached {}

/// `mmap(len, RW, flags | MAP_ANONYMOUS)` — The address of zeroed memory that is never unmapped.
pub(super) fn fresh(len: usize, flags: MapFlags) -> rustix::io::Result<usize> {
    let prot = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a null hint without MAP_FIXED replaces nothing.
    unsafe { mmap_anonymous(std::ptr::null_mut(), len, prot, flags) }.map(|addr| addr as usize)
}

/// `mmap(len, RW, MAP_SHARED | MAP_ANONYMOUS)` — Memory that forked processes share, zeroed, for ever.
pub fn shared<T: Shared>() -> std::io::Result<&'static T> {
    let addr = fresh(size_of::<T>(), MapFlags::SHARED)?;
    // SAFETY: fresh, page-aligned, zeroed and never unmapped; `Shared` says that zeros are a value and that access is atomic.
    Ok(unsafe { &*(addr as *const T) })
}

/// `mmap(len, RW, MAP_SHARED, fd, 0)` — The host's memory as atomic words, for ever.
pub fn map_words(fd: impl AsFd, len: usize) -> std::io::Result<&'static [AtomicU32]> {
    let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
    // SAFETY: a null hint without MAP_FIXED replaces nothing.
    let addr = unsafe { mmap(std::ptr::null_mut(), len, prot, flags, fd, 0) }?;
    // SAFETY: mapped for `len` bytes, page-aligned and never unmapped; whoever else writes there does so behind atomics.
    Ok(unsafe { std::slice::from_raw_parts(addr.cast::<AtomicU32>(), len / 4) })
}

/// Smallest buffer: most I/O of a program fits.
const BUFFER_MIN: usize = 64 << 10;

/// Most bytes of poison that a new run computes before it needs them.
const POISON_KEPT: usize = 8 << 10;

/// Anonymous pages for I/O, never unmapped: a request that completes too late writes into nothing of value.
#[derive(Debug)]
pub struct Buffer {
    addr: usize,
    len: usize,
}

impl Buffer {
    /// The part that begins at `offset`.
    pub fn span(&self, offset: usize, len: usize) -> Span {
        assert!(offset + len <= self.len, "inside the buffer");
        Span { addr: self.addr + offset, len }
    }

    /// Its bytes, while no request is in flight on them.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: mapped for `len` bytes for ever. The kernel does not write once the request that was given a span has completed.
        unsafe { std::slice::from_raw_parts(self.addr as *const u8, self.len) }
    }

    /// Its bytes, while no request is in flight on them.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; `self` is borrowed for writing.
        unsafe { std::slice::from_raw_parts_mut(self.addr as *mut u8, self.len) }
    }
}

/// The buffers of one lane that are free.
#[derive(Debug, Default)]
pub struct Pool {
    free: Vec<Buffer>,
    poison: Vec<u8>,
    poisoner: u32,
}

impl Pool {
    /// A page-aligned buffer of at least `len` bytes, with whatever was in it.
    pub fn take(&mut self, len: usize) -> Result<Buffer, rustix::io::Errno> {
        let fits =
            self.free.iter().enumerate().filter(|(_, b)| b.len >= len).min_by_key(|(_, b)| b.len);
        if let Some((i, _)) = fits {
            return Ok(self.free.swap_remove(i));
        }
        let len = len.max(BUFFER_MIN).next_power_of_two();
        let addr = fresh(len, MapFlags::PRIVATE)?;
        Ok(Buffer { addr, len })
    }

    /// The first `len` bytes of what is laid into a buffer before `run` reads into it; computed once a run, copied for each read.
    pub fn poison(&mut self, run: u32, len: usize) -> &[u8] {
        if self.poisoner != run || self.poison.len() < len {
            self.poison.resize(len.max(self.poison.len().min(POISON_KEPT)), 0);
            history::stamp::sign(&mut self.poison, run, history::stamp::CALL_POISON, 0);
            self.poisoner = run;
        }
        &self.poison[..len]
    }

    /// Gives a buffer back.
    pub fn put(&mut self, buffer: Buffer) {
        self.free.push(buffer);
    }
}
