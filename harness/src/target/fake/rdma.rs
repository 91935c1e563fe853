//! RDMA between two memory regions of a process: bytes go from the pages of the one to those of the other.

use super::bug::Bug;
use super::hold::{Part, cut};
use super::mapping::MapRef;
use super::world::errno::{EACCES, EFAULT, EIO};
use super::world::{Region, World};
use history::Errno;
use program::{PAGE, RegionAccess};

/// A place in a region.
type At<'a> = (&'a Region, u64);

/// IBV_WR_RDMA_WRITE
pub(super) fn write(w: &mut World, near: At, far: At, len: u64) -> Result<u64, Errno> {
    if far.0.access == RegionAccess::Read && !w.has(Bug::RdmaIgnoresAccess) {
        return Err(EACCES);
    }
    transfer(w, near, far, len)
}

/// IBV_WR_RDMA_READ
pub(super) fn read(w: &mut World, near: At, far: At, len: u64) -> Result<u64, Errno> {
    if near.0.access == RegionAccess::Read {
        return Err(EFAULT);
    }
    transfer(w, far, near, len)
}

fn transfer(w: &mut World, (src, from): At, (dst, to): At, len: u64) -> Result<u64, Errno> {
    let source = cut(&src.parts, from as usize, len as usize);
    let target = cut(&dst.parts, to as usize, len as usize);
    let revoked = |part: &Part| part.hold.revoked.get();
    if source.iter().chain(&target).any(revoked) {
        return Err(EIO);
    }
    let mut bytes = Vec::with_capacity(len as usize);
    for part in &source {
        bytes.extend_from_slice(&part.page(w)[part.from..part.from + part.len]);
    }
    if let Some(map) = src.map.as_ref().filter(|_| w.has(Bug::RdmaReadsMapping)) {
        by_mapping(w, map, src.offset + from, &mut bytes);
    }
    let mut at = 0;
    for part in &target {
        let piece = &bytes[at..at + part.len];
        match &dst.map {
            // A page that is not mapped any more is nobody's loss here.
            Some(map) if w.has(Bug::RdmaFollowsMapping) => {
                let _ = map.store(w, dst.offset + to + at as u64, piece);
            }
            _ => part.write(w, 0, piece),
        }
        at += part.len;
    }
    Ok(len)
}

/// Puts in the place of each byte what the mapping shows there, where it shows anything: a bug.
fn by_mapping(w: &mut World, map: &MapRef, start: u64, bytes: &mut [u8]) {
    for (at, byte) in (start..).zip(bytes) {
        if let Ok(page) = map.load(w, at) {
            *byte = page[(at % PAGE) as usize];
        }
    }
}
