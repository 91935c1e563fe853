//! Could a read, a write, a seek or a sync fail so: by its descriptor, its alignment, its buffers, or by what races with it?

use super::memory::buffer_faults;
use super::{Allowed, EAGAIN, EBADF, EFAULT, EINVAL, EIO, ENOSPC, ENXIO, Holds};
use crate::model::World;
use program::{Buf, Call, OpenFlags, Whence};

/// What the calls of this family may return.
pub(super) fn rules(world: &World, call: u16, allowed: &mut Allowed) {
    let span = world.span(call);
    match world.call_of(call) {
        Call::Pread { offset, buf, len, .. } => {
            read_rules(world, call, Some(*offset), &[(*buf, *len)], allowed);
        }
        Call::Preadv { offset, iov, .. } => {
            read_rules(world, call, Some(*offset), iov, allowed);
        }
        Call::Readv { iov, .. } => read_rules(world, call, None, iov, allowed),
        Call::Pwrite { offset, buf, len, .. } => {
            write_rules(world, call, Some(*offset), &[(*buf, *len)], allowed);
        }
        Call::Pwritev { offset, iov, .. } => {
            write_rules(world, call, Some(*offset), iov, allowed);
        }
        Call::Writev { iov, .. } => write_rules(world, call, None, iov, allowed),
        Call::Lseek { offset, whence, .. } => {
            let Some(open) = world.open_in(call, 0) else { return };
            if world.gate_of(open).is_some() {
                // fs/read_write.c:fixed_size_llseek, of block/fops.c:blkdev_llseek, 6.12
                let known = *whence == Whence::Set && *offset <= program::GATE_SIZE;
                allowed.on(Holds::when(!known), EINVAL);
            } else if *whence != Whence::Set {
                let (min, max) = world.sizes(world.opens[open].file, span, None);
                allowed.on(Holds::of(*offset >= min, *offset >= max), ENXIO);
                // No data behind the offset: what is there is judged by the seeks oracle.
                allowed.maybe(*whence == Whence::Data, ENXIO);
            }
        }
        Call::Fsync { .. } | Call::Fdatasync { .. } | Call::SyncFileRange { .. } => {
            let Some(open) = world.open_in(call, 0) else { return };
            allowed.maybe(may_report_eio(world, world.opens[open].file), EIO);
        }
        Call::Syncfs { .. } => {
            allowed.maybe((0..world.files.len()).any(|f| may_report_eio(world, f)), EIO);
        }
        _ => {}
    }
}

/// Whether an O_DIRECT transfer may be refused for its alignment.
pub(super) fn misaligned(
    world: &World,
    open: usize,
    offset: Option<u64>,
    iov: &[(Buf, u64)],
) -> bool {
    if !world.is_direct(open) {
        return false;
    }
    let open = &world.opens[open];
    let file = &world.files[open.file];
    // The device of a gate has sectors of 512 bytes.
    let unknown = if file.gate.is_some() { (512, 512) } else { (0, 0) };
    let (mem, off) = file.facts.map_or(unknown, |f| (f.dio_mem_align, f.dio_offset_align));
    // Unknown alignment counts as the strictest that a 4 KiB block device may have.
    let (mem, off) = (u64::from(mem.max(1)), if off == 0 { 4096 } else { u64::from(off) });
    let total: u64 = iov.iter().map(|(_, l)| *l).sum();
    offset.is_none_or(|o| !o.is_multiple_of(off))
        || !total.is_multiple_of(off)
        || iov.iter().any(|(buf, len)| {
            let at = match buf {
                Buf::Anon(at) => u64::from(*at),
                Buf::Map(_, at) => *at,
            };
            !at.is_multiple_of(mem.max(512)) || !len.is_multiple_of(off)
        })
}

/// Whether the file's page cache and its device were in a race that the kernel reports as EIO (see KERNEL rule in `model::World::touch`).
pub(super) fn may_report_eio(world: &World, file: usize) -> bool {
    !world.files[file].incoherent.is_empty()
}

/// Whether an O_DIRECT transfer raced with something that dirties pages of its file: XFS then refuses a delayed extent with EIO
/// (fs/iomap/direct-io.c:iomap_dio_iter, 6.12).
pub(super) fn direct_race(world: &World, call: u16, open: usize) -> bool {
    if !world.is_direct(open) {
        return false;
    }
    let span = world.span(call);
    world.files[world.opens[open].file]
        .touches
        .iter()
        .any(|t| t.dirties && t.span.call != call && !world.order.apart(t.span, span))
}

/// What goes for reads and for writes, which put bytes into their buffers (`fills`) or take them from there: the open file, and whether a buffer
/// may fault.
fn either_way(
    world: &World,
    call: u16,
    offset: Option<u64>,
    iov: &[(Buf, u64)],
    fills: bool,
    allowed: &mut Allowed,
) -> Option<(usize, bool)> {
    let open = world.open_in(call, 0)?;
    let file = &world.opens[open];
    let permitted = if fills { file.readable() } else { file.writable() };
    allowed.must(!permitted, EBADF);
    // With O_APPEND the place of a write is the end of file, which may have any alignment.
    let offset = offset.filter(|_| fills || !file.flags.has(OpenFlags::APPEND));
    allowed.maybe(misaligned(world, open, offset, iov), EINVAL);
    let (may, gup) = buffer_faults(world, call, iov, fills);
    allowed.maybe(may || gup, EFAULT);
    Some((open, may))
}

fn read_rules(
    world: &World,
    call: u16,
    offset: Option<u64>,
    iov: &[(Buf, u64)],
    allowed: &mut Allowed,
) {
    let Some((open, _)) = either_way(world, call, offset, iov, true, allowed) else { return };
    allowed.maybe(direct_race(world, call, open) || into_itself(world, call, open, iov), EIO);
    let len = iov.iter().map(|(_, len)| len).fold(0, |sum: u64, len| sum.saturating_add(*len));
    allowed.maybe(meets_preallocation(world, call, open, offset, len), EIO);
}

/// Known: whether an O_DIRECT read that reaches past the end of file may meet a delayed extent there, see `Known::XfsDirectReadDelalloc`.
pub(super) fn meets_preallocation(
    world: &World,
    call: u16,
    open: usize,
    offset: Option<u64>,
    len: u64,
) -> bool {
    let file = world.opens[open].file;
    let (min, _) = world.sizes(file, world.span(call), Some(call));
    // Only what goes through the page cache is delayed.
    let delayed = world.files[file].touches.iter().any(|t| t.dirties && !t.drops);
    world.policy.knows(crate::Known::XfsDirectReadDelalloc)
        && delayed
        && world.files[file].on(program::Mount::Xfs)
        && world.files[file].shared
        && world.is_direct(open)
        && offset.is_none_or(|offset| offset.saturating_add(len) > min)
}

/// Whether an O_DIRECT read has a mapping of its own file for a buffer: faulting it in may delay an extent of the very range that is read
/// (fs/iomap/direct-io.c:iomap_dio_iter, IOMAP_DELALLOC, 6.12).
fn into_itself(world: &World, call: u16, open: usize, iov: &[(Buf, u64)]) -> bool {
    let mapped = iov.iter().filter(|(buf, _)| matches!(buf, Buf::Map(..))).count();
    world.is_direct(open)
        && (1..=mapped)
            .any(|slot| world.map_in(call, slot).is_some_and(|m| m.file == world.opens[open].file))
}

fn write_rules(
    world: &World,
    call: u16,
    offset: Option<u64>,
    iov: &[(Buf, u64)],
    allowed: &mut Allowed,
) {
    let Some((open, may)) = either_way(world, call, offset, iov, false, allowed) else { return };
    allowed.maybe(true, ENOSPC);
    allowed.maybe(direct_race(world, call, open), EIO);
    // Known: the retry of an unaligned O_DIRECT write that met a fault comes back as EAGAIN through a ring's worker.
    let known =
        world.policy.knows(crate::Known::DirectWriteFault) && world.line(call).via.is_some();
    allowed.maybe(may && known && world.is_direct(open), EAGAIN);
}
