//! What a kernel is expected to do where kernels differ: data, not code paths.

mod layout;
mod regime;

pub use layout::{
    BREAKS, Breaks, Change, LayoutRow, Meets, Pin, PinRow, Reach, RegionRow, Tables, Term, When,
    breaks,
};
pub use regime::Regime;

/// Something that kernels are known to do wrong, kept under `reports/findings` by its slug. A policy that lists it takes the wrong effect as
/// explained by the finding, so that what else is wrong stays visible; a policy that does not calls it an anomaly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Known {
    /// `ext4-dax-failed-write-moves-size`: an extending write to a DAX file that fails adds the negative errno to the offset and makes that the
    /// new size (fs/ext4/file.c:ext4_dax_write_iter gives dax_iomap_rw's error to ext4_handle_inode_extension, 6.12 and 6.1).
    Ext4DaxFailedWriteSize,
    /// `dax-hole-read-into-bad-buffer-returns-0`: reading a hole of a DAX file into a buffer that faults returns 0, as at the end of file, instead of EFAULT
    /// (fs/dax.c:dax_iomap_iter returns iov_iter_zero's 0, 6.12 and 6.1).
    DaxHoleReadFault,
    /// `direct-write-loses-its-fault`: an O_DIRECT write whose buffer faults may return 0 or a short count, zero what it has written of its last block, and on
    /// ext4 leave blocks behind the end of file that were never written (fs/iomap/direct-io.c:iomap_dio_bio_iter overwrites the error when it zeroes
    /// the tail, and zeroes the head again when it comes back, 6.12; not 6.1).
    DirectWriteFault,
    /// `ext4-dax-write-exposes-the-tail`: what was stored through a mapping behind the end of file becomes part of the file when a write past the end
    /// extends it (fs/ext4/file.c:ext4_dax_write_iter zeroes nothing, 6.12 and 6.1).
    Ext4DaxTail,
    /// The same on 6.1 by truncate and fallocate too, and through the page cache as well (fs/ext4/inode.c:ext4_setattr, 6.1).
    Ext4DaxTailTruncate,
    /// `dax-dedupe-compares-unwritten-media`: FIDEDUPERANGE on DAX files takes a hole and written zeros for different, and compares what lies on the media behind
    /// unwritten extents (fs/dax.c:dax_range_compare_iter, 6.12 and 6.1).
    DaxDedupeMedia,
    /// `dax-unwritten-zero-page-stays-mapped`: a page of an unwritten extent that was read through a mapping stays mapped to the zero page when a write
    /// converts the extent (fs/dax.c:dax_iomap_iter unmaps for IOMAP_F_NEW only, ext4 on 6.12 and 6.1).
    DaxUnwrittenZeroPage,
    /// `xfs-dax-cow-write-leaves-the-old-page-mapped`: a copy-on-write of a shared block by write(2) leaves mappings of the old block in place
    /// (fs/dax.c:dax_iomap_iter, 6.12 when the page is faulted meanwhile, 6.1 always).
    XfsDaxStalePage,
    /// `dax-unshare-shows-stale-media`: FALLOC_FL_UNSHARE_RANGE over holes and unwritten extents of a DAX file makes what lies on the media part of the file
    /// (fs/dax.c:dax_unshare_iter, 6.1; zeroes them in 6.12).
    DaxUnshareStale,
    /// `xfs-dax-reflink-loses-writes`: on 6.1 what is written or zeroed in blocks that XFS DAX files share may be lost, or show what lay on the media
    /// (fs/dax.c:dax_zero_iter, dax_iomap_cow_copy, 6.1). The content of files that ever shared blocks is not judged there.
    XfsDaxReflinkContent,
    /// `xfs-failed-write-moves-size`: a write past the end of an XFS file that fails has zeroed up to its offset, and that moved the size
    /// (fs/iomap/buffered-io.c:iomap_write_end, 6.1; zeroing moves no size in 6.12).
    XfsFailedWriteSize,
    /// `dax-pipe-into-its-own-file-deadlocks`: a change of layout that waits for pages in a pipe and a splice between that pipe and the file wait for each other
    /// (fs/splice.c:iter_file_splice_write has the pipe's lock while it waits for the inode's, 6.12 and 6.1).
    DaxPipeDeadlock,
    /// `dax-direct-io-wakes-nobody`: the end of direct I/O gives pages of DAX files back without waking the layout change that waits for them
    /// (block/bio.c:__bio_release_pages, mm/gup.c:gup_put_folio use folio_put_refs, 6.1). A signal makes the waiter look again.
    DaxDirectIoWakesNobody,
    /// `xfs-dax-reflink-fault-livelock`: with shared extents on XFS DAX, a write fault may warn (dax_insert_entry, dax_disassociate_entry, insert_pfn)
    /// and then be taken again for ever: inside a read unkillable and with the file locked, in a store or MADV_POPULATE_WRITE until
    /// the process is killed (fs/dax.c:dax_insert_entry against mm/memory.c:insert_pfn, 6.12 and 6.1). A call that stands still, or a guest that
    /// is given up because of it, is taken for this only if one of the warnings is there.
    XfsDaxReflinkFault,
    /// `xfs-dax-short-cow-write-shows-stale-media`: a write to shared blocks of an XFS DAX file whose buffer faults half-way puts what lay on the media into the
    /// rest of the block in which it stopped (fs/dax.c:dax_iomap_copy_around, 6.12; dax_iomap_cow_copy, 6.1).
    XfsDaxShortCow,
    /// `xfs-growth-exposes-the-unwritten-tail`: what was stored through a mapping behind the end of an XFS file becomes part of it when it grows, if the
    /// last block is unwritten (fs/iomap/buffered-io.c:iomap_zero_iter, 6.1; 6.12 writes such pages back first).
    XfsUnwrittenTail,
    /// `xfs-unshare-drops-dirty-data`: UNSHARE_RANGE that ends the last sharing of an XFS file throws away the reservations under dirty pages elsewhere in it,
    /// which are then never written (fs/xfs/xfs_reflink.c:xfs_reflink_clear_inode_flag, 6.1; 6.12 asks for dirty pages first).
    XfsUnshareDirty,
    /// `xfs-late-dma-changes-the-clone`: what arrives in a held page of an XFS file after the file was cloned is written in place, into the block that the
    /// clone shares (block/bio.c:bio_dirty_fn and mm/gup.c:unpin_user_pages_dirty_lock dirty the page without page_mkwrite, 6.12 and 6.1).
    XfsLateDma,
    /// `dax-eviction-frees-held-pages`: the last close of a deleted DAX file frees its blocks while pages of them are held, with a warning in
    /// dax_disassociate_entry (fs/ext4/inode.c:ext4_evict_inode, fs/inode.c:evict, 6.12 and 6.1). Only the warning is explained; what then shows up in another
    /// file is not.
    DaxEvictsHeld,
    /// `dedupe-reports-a-kernel-errno`: FIDEDUPERANGE that a signal ends while it waits for a held page has the status -512, ERESTARTSYS
    /// (fs/remap_range.c:vfs_dedupe_file_range, 6.12 and 6.1).
    DedupeRestarts,
    /// `xfs-dax-pin-livelock`: a read-only pin of a page of a shared mapping whose block files on XFS DAX share is tried for ever (mm/internal.h:gup_must_unshare
    /// takes the page for an anonymous one, 6.12; in 6.1 only after a copy-on-write and a sync, which is not listed).
    XfsDaxPin,
    /// `xfs-dax-clone-spins-on-a-held-page`: sharing blocks between two XFS DAX files runs in the kernel, and hears no signal, for as long as a page of the one
    /// with the greater inode number is held (fs/xfs/xfs_inode.c:xfs_mmaplock_two_inodes_and_break_dax_layout, 6.12 and 6.1).
    XfsDaxCloneSpins,
    /// `xfs-direct-read-meets-preallocation`: an O_DIRECT read that reaches past the end of an XFS file which shared blocks fails with EIO when writeback has
    /// used copy-on-write blocks for the file's tail and left the preallocation behind it delayed (fs/iomap/direct-io.c:iomap_dio_iter,
    /// fs/xfs/xfs_reflink.c:xfs_reflink_end_cow_extent, 6.12 and 6.1).
    XfsDirectReadDelalloc,
}

impl Known {
    /// The folder under `reports/findings`.
    pub const fn slug(self) -> &'static str {
        match self {
            Known::Ext4DaxFailedWriteSize => "ext4-dax-failed-write-moves-size",
            Known::DaxHoleReadFault => "dax-hole-read-into-bad-buffer-returns-0",
            Known::DirectWriteFault => "direct-write-loses-its-fault",
            Known::Ext4DaxTail | Known::Ext4DaxTailTruncate => "ext4-dax-write-exposes-the-tail",
            Known::DaxDedupeMedia => "dax-dedupe-compares-unwritten-media",
            Known::DaxUnwrittenZeroPage => "dax-unwritten-zero-page-stays-mapped",
            Known::XfsDaxStalePage => "xfs-dax-cow-write-leaves-the-old-page-mapped",
            Known::DaxUnshareStale => "dax-unshare-shows-stale-media",
            Known::XfsDaxReflinkContent => "xfs-dax-reflink-loses-writes",
            Known::XfsFailedWriteSize => "xfs-failed-write-moves-size",
            Known::DaxPipeDeadlock => "dax-pipe-into-its-own-file-deadlocks",
            Known::DaxDirectIoWakesNobody => "dax-direct-io-wakes-nobody",
            Known::XfsDaxReflinkFault => "xfs-dax-reflink-fault-livelock",
            Known::XfsDaxShortCow => "xfs-dax-short-cow-write-shows-stale-media",
            Known::XfsUnwrittenTail => "xfs-growth-exposes-the-unwritten-tail",
            Known::XfsUnshareDirty => "xfs-unshare-drops-dirty-data",
            Known::XfsLateDma => "xfs-late-dma-changes-the-clone",
            Known::DaxEvictsHeld => "dax-eviction-frees-held-pages",
            Known::DedupeRestarts => "dedupe-reports-a-kernel-errno",
            Known::XfsDaxPin => "xfs-dax-pin-livelock",
            Known::XfsDaxCloneSpins => "xfs-dax-clone-spins-on-a-held-page",
            Known::XfsDirectReadDelalloc => "xfs-direct-read-meets-preallocation",
        }
    }
}

/// What the kernels of the regimes, which exist as models only, have from mainline.
const KNOWN_REGIMES: &[Known] = &[Known::DaxPipeDeadlock];

/// What Debian's 6.12 (6.12.117) does wrong.
const KNOWN_6_12: &[Known] = &[
    Known::Ext4DaxFailedWriteSize,
    Known::DaxHoleReadFault,
    Known::DirectWriteFault,
    Known::Ext4DaxTail,
    Known::DaxDedupeMedia,
    Known::DaxUnwrittenZeroPage,
    Known::XfsDaxStalePage,
    Known::XfsDaxReflinkFault,
    Known::DaxPipeDeadlock,
    Known::XfsDaxShortCow,
    Known::XfsLateDma,
    Known::DaxEvictsHeld,
    Known::DedupeRestarts,
    Known::XfsDaxPin,
    Known::XfsDaxCloneSpins,
    Known::XfsDirectReadDelalloc,
];

/// What Debian's 6.1 (6.1.192) does wrong.
const KNOWN_6_1: &[Known] = &[
    Known::Ext4DaxFailedWriteSize,
    Known::DaxHoleReadFault,
    Known::Ext4DaxTail,
    Known::Ext4DaxTailTruncate,
    Known::DaxDedupeMedia,
    Known::DaxUnshareStale,
    Known::XfsDaxReflinkContent,
    Known::DaxUnwrittenZeroPage,
    Known::XfsFailedWriteSize,
    Known::XfsDaxReflinkFault,
    Known::DaxPipeDeadlock,
    Known::XfsUnwrittenTail,
    Known::XfsUnshareDirty,
    Known::DaxDirectIoWakesNobody,
    Known::XfsLateDma,
    Known::DaxEvictsHeld,
    Known::DedupeRestarts,
    Known::XfsDaxCloneSpins,
    Known::XfsDirectReadDelalloc,
];

/// One table of expectations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Its name, such as `mainline-6.12`.
    pub name: &'static str,
    /// MAP_SYNC works on DAX files: the pmem device is synchronous (e820, NVDIMM; not virtio-pmem, drivers/dax/super.c, 6.12).
    pub map_sync: bool,
    /// IORING_REGISTER_CLONE_BUFFERS is there (io_uring/rsrc.c:io_register_clone_buffers, 6.12; 6.1 knows no such opcode, io_uring/io_uring.c:
    /// io_uring_register); none where that is not known.
    pub clones_buffers: Option<bool>,
    /// How a change of layout meets a held page of a DAX file.
    pub regime: Regime,
    /// What that means, case by case.
    pub tables: Tables,
    /// What these kernels are known to do wrong.
    pub known: &'static [Known],
}

impl Policy {
    /// The policy for a kernel by its `uname -r`. A model of a kernel that does not exist calls itself by the name of its regime.
    pub fn for_release(release: &str) -> Policy {
        if release != Regime::Mainline.name()
            && let Some(policy) = Policy::named(release)
        {
            return policy;
        }
        let mainline = |name, known| Policy {
            name,
            map_sync: true,
            clones_buffers: None,
            regime: Regime::Mainline,
            tables: Tables::of(Regime::Mainline),
            known,
        };
        let is = |series: &str| {
            release
                .strip_prefix(series)
                .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
        };
        if is("6.1") {
            Policy {
                tables: Tables::V6_1,
                clones_buffers: Some(false),
                ..mainline("mainline-6.1", KNOWN_6_1)
            }
        } else if is("6.12") {
            Policy { clones_buffers: Some(true), ..mainline("mainline-6.12", KNOWN_6_12) }
        } else {
            mainline("mainline", &[])
        }
    }

    /// The policy of that name: one of the kernels, or one of the regimes, with no defect known.
    pub fn named(name: &str) -> Option<Policy> {
        match name {
            "mainline-6.1" => Some(Policy::for_release("6.1.0")),
            "mainline-6.12" => Some(Policy::for_release("6.12.0")),
            _ => {
                let (name, regime) = Regime::NAMES.iter().find(|(n, _)| *n == name)?;
                let (regime, tables) = (*regime, Tables::of(*regime));
                let (map_sync, clones_buffers) = (true, Some(true));
                Some(Policy {
                    name,
                    map_sync,
                    clones_buffers,
                    regime,
                    tables,
                    known: KNOWN_REGIMES,
                })
            }
        }
    }

    /// Whether the kernel is known to do that.
    pub fn knows(&self, what: Known) -> bool {
        self.known.contains(&what)
    }
}
