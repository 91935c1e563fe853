//! Calls on mappings: mmap and its kin, and the loads and stores through them.
//!
//! Which page an access reaches is in `mapping`.

use super::block::PAGE;
use super::bug::Bug;
use super::inode::{page_of, pages_up};
use super::mapping::{MapRef, Vma};
use super::sched::Cx;
use super::world::errno::{EACCES, EFAULT, EINVAL, ENOMEM, EOPNOTSUPP};
use super::world::{OpenFile, World};
use history::{Errno, FaultSignal, stamp};
use program::{Advice, CallId, FallocateMode, MapFlags, Mount, MsyncFlags, Prot, Sharing};
use std::cell::RefCell;
use std::rc::Rc;

type Outcome = Result<u64, Errno>;

/// Arguments of mmap(2).
pub(super) struct MmapArgs {
    pub offset: u64,
    pub len: u64,
    pub prot: Prot,
    pub sharing: Sharing,
    pub flags: MapFlags,
}

/// mmap(2); the caller fills the slot.
pub(super) fn mmap(
    w: &mut World,
    file: &Rc<OpenFile>,
    args: &MmapArgs,
) -> Result<Rc<RefCell<Vma>>, Errno> {
    if !args.offset.is_multiple_of(PAGE) || args.len == 0 {
        return Err(EINVAL);
    }
    let shared = args.sharing == Sharing::Shared;
    if shared && args.prot.has(Prot::WRITE) && !file.can_write() {
        return Err(EACCES);
    }
    if !file.can_read() {
        return Err(EACCES);
    }
    let synchronous = shared && args.flags.has(MapFlags::SYNC);
    if synchronous && !Mount::ALL[file.mount].is_dax() {
        return Err(EOPNOTSUPP);
    }
    let len = pages_up(args.len) * PAGE;
    let address = w.address();
    let vma = Vma {
        file: file.clone(),
        offset: args.offset,
        len,
        prot: args.prot,
        shared,
        copies: Default::default(),
        address,
        dead: false,
        grown: false,
        revoked: Default::default(),
    };
    let vma = Rc::new(RefCell::new(vma));
    if args.flags.has(MapFlags::POPULATE) {
        let map = MapRef::new(&vma);
        // A private writable mapping is populated with copies; failures are ignored.
        let write = !shared && args.prot.has(Prot::WRITE);
        for page in 0..pages_up(len) {
            if map.populate(w, page * PAGE, write).is_err() {
                break;
            }
        }
    }
    Ok(vma)
}

impl World {
    /// A place for a mapping, with room behind it.
    fn address(&mut self) -> u64 {
        self.next_address += 32 << 20;
        self.next_address
    }
}

/// mremap(2) with MREMAP_MAYMOVE: there is room behind every mapping, so it grows where it is.
pub(super) fn mremap(map: &MapRef, len: u64) -> Result<u64, Errno> {
    if len == 0 {
        return Err(EINVAL);
    }
    if !map.covers(0) {
        return Err(EFAULT);
    }
    let len = pages_up(len) * PAGE;
    let mut vma = map.vma.borrow_mut();
    if len < vma.len {
        let end = page_of(vma.offset + len);
        vma.copies.borrow_mut().retain(|page, _| *page < end);
    } else if len > vma.len {
        vma.grown = true;
    }
    vma.len = len;
    Ok(vma.address)
}

/// munmap(2)
pub(super) fn munmap(map: &MapRef) -> Outcome {
    map.vma.borrow_mut().unmap();
    Ok(0)
}

/// mprotect(2)
pub(super) fn mprotect(map: &MapRef, prot: Prot) -> Outcome {
    if !map.covers(0) {
        return Err(ENOMEM);
    }
    let mut vma = map.vma.borrow_mut();
    if prot.has(Prot::WRITE) && vma.shared && !vma.file.can_write() {
        return Err(EACCES);
    }
    vma.prot = prot;
    Ok(0)
}

/// Loads byte by byte from `offset` on; what came before the first fault.
pub(super) async fn load(
    cx: Cx<'_>,
    map: &MapRef,
    offset: u64,
    len: u64,
) -> (Vec<u8>, Option<FaultSignal>) {
    let mut data = Vec::with_capacity(len as usize);
    while (data.len() as u64) < len {
        let at = offset + data.len() as u64;
        {
            let mut w = cx.w();
            let page = match map.load(&mut w, at) {
                Ok(page) => page,
                Err(fault) => return (data, Some(fault)),
            };
            let from = (at % PAGE) as usize;
            let n = portion(&mut w, at, len - data.len() as u64);
            data.extend_from_slice(&page[from..from + n]);
        }
        cx.step().await;
    }
    (data, None)
}

/// Stores signed bytes from `offset` on; how many before the first fault.
pub(super) async fn store(
    cx: Cx<'_>,
    map: &MapRef,
    call: CallId,
    offset: u64,
    len: u64,
) -> (u64, Option<FaultSignal>) {
    let start = map.vma.borrow().offset;
    let mut bytes = [0; PAGE as usize];
    let mut done = 0;
    while done < len {
        let at = offset + done;
        {
            let mut w = cx.w();
            let n = portion(&mut w, at, len - done);
            stamp::sign(&mut bytes[..n], w.run, call.0, start + at);
            if let Err(fault) = map.store(&mut w, at, &bytes[..n]) {
                return (done, Some(fault));
            }
            done += n as u64;
        }
        cx.step().await;
    }
    (done, None)
}

/// How far an access gets before others may come between: to the end of its page, or to some word in it.
fn portion(w: &mut World, at: u64, left: u64) -> usize {
    let whole = (PAGE - at % PAGE).min(left);
    if w.rng.below(4) != 0 {
        return whole as usize;
    }
    let word = (w.rng.below(PAGE as usize / 8) as u64 + 1) * 8 - at % 8;
    word.min(whole) as usize
}

/// Whether `[offset, offset + len)` lies in the mapping, and how many bytes of it do.
fn inside(map: &MapRef, offset: u64, len: u64) -> (u64, bool) {
    if !map.covers(offset) {
        return (0, false);
    }
    let n = len.min(map.vma.borrow().len - offset);
    (n, n == len)
}

/// msync(2)
pub(super) fn msync(
    w: &mut World,
    map: &MapRef,
    offset: u64,
    len: u64,
    flags: MsyncFlags,
) -> Outcome {
    let both = flags.has(MsyncFlags::ASYNC) && flags.has(MsyncFlags::SYNC);
    if !offset.is_multiple_of(PAGE) || both {
        return Err(EINVAL);
    }
    let len = pages_up(len) * PAGE;
    if len == 0 {
        return Ok(0);
    }
    let (n, whole) = inside(map, offset, len);
    let vma = map.vma.borrow();
    // A shared mapping of a file that is not open for writing has nothing to write.
    if n > 0 && flags.has(MsyncFlags::SYNC) && vma.shared && vma.file.can_write() {
        let first = page_of(vma.offset + offset);
        let last = first + page_of(n);
        let fs = &mut w.fs[vma.file.mount];
        if fs.has(Bug::MsyncDropsDirty) {
            for (_, cached) in fs.ino_mut(vma.file.ino).cache.range_mut(first..last) {
                cached.dirty = false;
            }
        }
        fs.write_back(vma.file.ino, first, last);
    }
    if whole { Ok(0) } else { Err(ENOMEM) }
}

/// madvise(2)
pub(super) async fn madvise(
    cx: Cx<'_>,
    map: &MapRef,
    offset: u64,
    len: u64,
    advice: Advice,
) -> Outcome {
    if !offset.is_multiple_of(PAGE) {
        return Err(EINVAL);
    }
    let len = pages_up(len) * PAGE;
    if len == 0 {
        return Ok(0);
    }
    let (n, whole) = inside(map, offset, len);
    if n > 0 {
        match advice {
            Advice::Remove => {
                let (file, at, allowed) = {
                    let vma = map.vma.borrow();
                    let allowed = vma.shared && vma.file.can_write();
                    (vma.file.clone(), vma.offset + offset, allowed)
                };
                if !allowed {
                    return Err(EACCES);
                }
                super::files::fallocate(cx, &file, FallocateMode::PunchHole, at, n).await?;
            }
            Advice::DontNeed => dont_need(&mut cx.w(), map, offset, n),
            Advice::PopulateRead | Advice::PopulateWrite => {
                populate(&mut cx.w(), map, offset, n, advice == Advice::PopulateWrite)?;
            }
            // The rest are hints.
            _ => {}
        }
    }
    if whole { Ok(0) } else { Err(ENOMEM) }
}

fn dont_need(w: &mut World, map: &MapRef, offset: u64, len: u64) {
    let vma = map.vma.borrow();
    let first = page_of(vma.offset + offset);
    let last = first + page_of(len);
    vma.copies.borrow_mut().retain(|page, _| *page < first || *page >= last);
    if vma.shared && w.has(Bug::DontNeedDropsDirty) {
        w.fs[vma.file.mount].drop_cache(vma.file.ino, first, last);
    }
}

fn populate(w: &mut World, map: &MapRef, offset: u64, len: u64, write: bool) -> Outcome {
    let prot = map.vma.borrow().prot;
    if !prot.has(if write { Prot::WRITE } else { Prot::READ }) {
        return Err(EINVAL);
    }
    for page in 0..page_of(len) {
        map.populate(w, offset + page * PAGE, write).map_err(|_| EFAULT)?;
    }
    Ok(0)
}
