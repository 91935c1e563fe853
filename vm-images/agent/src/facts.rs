//! What a descriptor refers to.

use crate::sys;
use history::{FileFacts, FileId};
use program::Mount;
use rustix::fd::AsFd;
use rustix::fs::{AtFlags, StatxAttributes, StatxFlags, statx};

/// `statx(fd, "", AT_EMPTY_PATH)` and FS_IOC_GETVERSION — Facts about a file.
pub fn facts(fd: impl AsFd, mount: Mount) -> rustix::io::Result<FileFacts> {
    let fd = fd.as_fd();
    let stat = statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS | StatxFlags::DIOALIGN)?;
    Ok(FileFacts {
        id: FileId { mount, ino: stat.stx_ino, generation: sys::generation(fd) },
        size: stat.stx_size,
        blocks: stat.stx_blocks,
        nlink: stat.stx_nlink,
        dax: stat.stx_attributes.contains(StatxAttributes::DAX),
        dio_mem_align: stat.stx_dio_mem_align,
        dio_offset_align: stat.stx_dio_offset_align,
    })
}
