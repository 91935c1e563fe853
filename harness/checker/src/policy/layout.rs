//! Tables: what a change of layout does about a held page, who may pin for long, and what breaks a lease.
//!
//! One row for one statement; where none speaks of a case, nothing special happens. The oracles read these and know no kernel's name.

use super::Regime;
use program::{FallocateMode, Mount, PinFlags, RegionAccess, Sharing};

/// A change of where a file's bytes lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// truncate, ftruncate, O_TRUNC: to any size, be it the same.
    Size,
    /// FALLOC_FL_PUNCH_HOLE, MADV_REMOVE.
    Punch,
    /// FALLOC_FL_ZERO_RANGE.
    Zero,
    /// FALLOC_FL_COLLAPSE_RANGE.
    Collapse,
    /// FALLOC_FL_INSERT_RANGE.
    Insert,
    /// fallocate without a mode, or to keep the size.
    Allocate,
    /// FALLOC_FL_UNSHARE_RANGE.
    Unshare,
    /// FICLONE, FIDEDUPERANGE, copy_file_range by reflink: as source or destination.
    Share,
}

impl Change {
    /// What an fallocate changes.
    pub const fn of(mode: FallocateMode) -> Option<Change> {
        match mode {
            FallocateMode::Allocate | FallocateMode::KeepSize => Some(Change::Allocate),
            FallocateMode::PunchHole => Some(Change::Punch),
            FallocateMode::ZeroRange | FallocateMode::ZeroRangeKeepSize => Some(Change::Zero),
            FallocateMode::CollapseRange => Some(Change::Collapse),
            FallocateMode::InsertRange => Some(Change::Insert),
            FallocateMode::UnshareRange => Some(Change::Unshare),
            FallocateMode::PunchHoleBare => None,
        }
    }
}

/// How long a page is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Term {
    /// Until an I/O, a copy or a reader of a pipe is done with it (no FOLL_LONGTERM).
    Short,
    /// Until user space gives it back (FOLL_LONGTERM).
    Long,
}

/// What the change does when it meets a held page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meets {
    /// Goes ahead.
    Proceeds,
    /// Waits in state S until nothing is held, or for a signal.
    Waits,
    /// Either: nothing is said.
    MayWait,
    /// Fails with that errno, changes nothing, and tells the holder of the lease.
    Refused(i32),
    /// Goes ahead, and takes the page away from whoever holds or maps it.
    TakesAway,
}

/// Which held pages count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Any page of the file, be it elsewhere than the change.
    File,
    /// Pages that the change takes away.
    Range,
}

/// When the change comes to the place where it looks for held pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Always.
    Always,
    /// Only if it begins before the end of file.
    InsideFile,
    /// Only if it spans a whole block.
    WholeBlock,
}

/// One statement about changes and held pages.
#[derive(Clone, Copy, Debug)]
pub struct LayoutRow {
    /// Which changes.
    pub changes: &'static [Change],
    /// Of files on which mounts.
    pub mounts: &'static [Mount],
    /// Held for how long.
    pub terms: &'static [Term],
    /// What happens.
    pub meets: Meets,
    /// Which pages count.
    pub reach: Reach,
    /// When.
    pub when: When,
}

use Change as C;
use Mount::{Ext4, Ext4Dax, Xfs, XfsDax};

const BOTH: &[Term] = &[Term::Short, Term::Long];
const SHORT: &[Term] = &[Term::Short];
const LONG: &[Term] = &[Term::Long];
const DAX: &[Mount] = &[Ext4Dax, XfsDax];
const ALL: &[Change] =
    &[C::Size, C::Punch, C::Zero, C::Collapse, C::Insert, C::Allocate, C::Unshare, C::Share];
/// Those that take blocks away from where they were.
const TAKING: &[Change] =
    &[C::Size, C::Punch, C::Zero, C::Collapse, C::Insert, C::Unshare, C::Share];

const fn waits(changes: &'static [Change], mounts: &'static [Mount], when: When) -> LayoutRow {
    LayoutRow { changes, mounts, terms: BOTH, meets: Meets::Waits, reach: Reach::File, when }
}

/// Files in the page cache: nothing waits for a reference (mm/truncate.c looks at none), under any regime.
const PAGE_CACHE: LayoutRow = LayoutRow {
    changes: ALL,
    mounts: &[Ext4, Xfs],
    terms: BOTH,
    meets: Meets::Proceeds,
    reach: Reach::File,
    when: When::Always,
};
/// fs/ext4/inode.c:ext4_setattr, fs/xfs/xfs_iops.c:xfs_vn_setattr (any ATTR_SIZE).
const SIZE: LayoutRow = waits(&[C::Size], DAX, When::Always);
/// fs/xfs/xfs_file.c:xfs_file_fallocate, every mode.
const XFS_FALLOCATE: LayoutRow = waits(
    &[C::Punch, C::Zero, C::Collapse, C::Insert, C::Allocate, C::Unshare],
    &[XfsDax],
    When::Always,
);
/// fs/xfs/xfs_inode.c:xfs_ilock2_io_mmap, for two DAX files.
const XFS_SHARE: LayoutRow = waits(&[C::Share], &[XfsDax], When::Always);
/// fs/ext4/extents.c:ext4_collapse_range, ext4_insert_range.
const EXT4_SHIFT: LayoutRow = waits(&[C::Collapse, C::Insert], &[Ext4Dax], When::Always);

/// 6.12: fs/ext4/extents.c:ext4_fallocate looks first, in every mode but plain allocation.
const MAINLINE: &[LayoutRow] = &[
    PAGE_CACHE,
    SIZE,
    EXT4_SHIFT,
    waits(&[C::Punch, C::Zero], &[Ext4Dax], When::Always),
    XFS_FALLOCATE,
    XFS_SHARE,
];

/// 6.1: punching past the end of file returns first (fs/ext4/inode.c:ext4_punch_hole), and zeroing looks only where whole blocks go
/// (fs/ext4/extents.c:ext4_zero_range).
const MAINLINE_6_1: &[LayoutRow] = &[
    PAGE_CACHE,
    SIZE,
    EXT4_SHIFT,
    waits(&[C::Punch], &[Ext4Dax], When::InsideFile),
    waits(&[C::Zero], &[Ext4Dax], When::WholeBlock),
    XFS_FALLOCATE,
    XFS_SHARE,
];

const fn short(row: LayoutRow) -> LayoutRow {
    LayoutRow { terms: SHORT, ..row }
}

/// The RFC of June 2019: who pinned for long keeps the page, and the change fails.
const LAYOUT_LEASE: &[LayoutRow] = &[
    PAGE_CACHE,
    LayoutRow {
        changes: TAKING,
        mounts: DAX,
        terms: LONG,
        meets: Meets::Refused(26),
        reach: Reach::Range,
        when: When::Always,
    },
    short(SIZE),
    short(EXT4_SHIFT),
    short(waits(&[C::Punch, C::Zero], &[Ext4Dax], When::Always)),
    short(XFS_FALLOCATE),
    short(XFS_SHARE),
];

/// LSFMM 2019: the change goes ahead, and takes the page away. Of short references nothing is said.
const REVOKE: &[LayoutRow] = &[
    PAGE_CACHE,
    LayoutRow {
        changes: ALL,
        mounts: DAX,
        terms: LONG,
        meets: Meets::TakesAway,
        reach: Reach::Range,
        when: When::Always,
    },
    LayoutRow {
        changes: ALL,
        mounts: DAX,
        terms: SHORT,
        meets: Meets::MayWait,
        reach: Reach::File,
        when: When::Always,
    },
];

/// What becomes of a wish to pin for long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pin {
    /// It is granted.
    Granted,
    /// It fails with that errno.
    Refused(i32),
    /// It fails with that errno, unless every page is a private copy already.
    RefusedUnlessCopied(i32),
    /// It fails with that errno, unless a layout lease is held on the file.
    NeedsLease(i32),
}

/// One statement about long-term pins of mappings of files.
#[derive(Clone, Copy, Debug)]
pub struct PinRow {
    /// DAX or not.
    pub dax: bool,
    /// How it is mapped.
    pub sharing: Sharing,
    /// The answer.
    pub pin: Pin,
}

const EPERM: i32 = 1;
const EFAULT: i32 = 14;
const EOPNOTSUPP: i32 = 95;

const fn row(dax: bool, sharing: Sharing, pin: Pin) -> PinRow {
    PinRow { dax, sharing, pin }
}

/// mm/gup.c:check_vma_flags, writable_file_mapping_allowed (6.12).
const PINS: &[PinRow] = &[
    row(true, Sharing::Shared, Pin::Refused(EOPNOTSUPP)),
    row(true, Sharing::Private, Pin::RefusedUnlessCopied(EOPNOTSUPP)),
    row(false, Sharing::Shared, Pin::Refused(EFAULT)),
    row(false, Sharing::Private, Pin::Granted),
];

/// io_uring of 6.1 takes no mapping of a file at all (io_uring/rsrc.c:io_pin_pages).
const PINS_6_1: &[PinRow] = &[
    row(true, Sharing::Shared, Pin::Refused(EOPNOTSUPP)),
    row(true, Sharing::Private, Pin::Refused(EOPNOTSUPP)),
    row(false, Sharing::Shared, Pin::Refused(EOPNOTSUPP)),
    row(false, Sharing::Private, Pin::Refused(EOPNOTSUPP)),
];

const PINS_LEASED: &[PinRow] = &[
    row(true, Sharing::Shared, Pin::NeedsLease(EPERM)),
    row(true, Sharing::Private, Pin::Granted),
    row(false, Sharing::Shared, Pin::Refused(EFAULT)),
    row(false, Sharing::Private, Pin::Granted),
];

const PINS_REVOKED: &[PinRow] = &[
    row(true, Sharing::Shared, Pin::Granted),
    row(true, Sharing::Private, Pin::Granted),
    row(false, Sharing::Shared, Pin::Refused(EFAULT)),
    row(false, Sharing::Private, Pin::Granted),
];

/// One statement about RDMA memory regions in mappings of files.
#[derive(Clone, Copy, Debug)]
pub struct RegionRow {
    /// DAX or not.
    pub dax: bool,
    /// How it is mapped.
    pub sharing: Sharing,
    /// What the device may do to them.
    pub access: &'static [RegionAccess],
    /// The answer.
    pub pin: Pin,
}

const ANY: &[RegionAccess] = &[RegionAccess::Read, RegionAccess::Write];
const READ: &[RegionAccess] = &[RegionAccess::Read];
const WRITE: &[RegionAccess] = &[RegionAccess::Write];

const fn region(
    dax: bool,
    sharing: Sharing,
    access: &'static [RegionAccess],
    pin: Pin,
) -> RegionRow {
    RegionRow { dax, sharing, access, pin }
}

/// drivers/infiniband/core/umem.c:ib_umem_get pins with FOLL_LONGTERM, and with FOLL_WRITE only what the device may write (6.12): of the page cache a
/// region to be read is granted, one to be written is not (mm/gup.c:writable_file_mapping_allowed).
const REGIONS: &[RegionRow] = &[
    region(true, Sharing::Shared, ANY, Pin::Refused(EOPNOTSUPP)),
    region(true, Sharing::Private, ANY, Pin::RefusedUnlessCopied(EOPNOTSUPP)),
    region(false, Sharing::Shared, READ, Pin::Granted),
    region(false, Sharing::Shared, WRITE, Pin::Refused(EFAULT)),
    region(false, Sharing::Private, ANY, Pin::Granted),
];

/// 6.1 has no writable_file_mapping_allowed: pages of the page cache are pinned to be written for as long as user space likes.
const REGIONS_6_1: &[RegionRow] = &[
    region(true, Sharing::Shared, ANY, Pin::Refused(EOPNOTSUPP)),
    region(true, Sharing::Private, ANY, Pin::RefusedUnlessCopied(EOPNOTSUPP)),
    region(false, Sharing::Shared, ANY, Pin::Granted),
    region(false, Sharing::Private, ANY, Pin::Granted),
];

const REGIONS_LEASED: &[RegionRow] = &[
    region(true, Sharing::Shared, ANY, Pin::NeedsLease(EPERM)),
    region(false, Sharing::Shared, WRITE, Pin::Refused(EFAULT)),
];

const REGIONS_REVOKED: &[RegionRow] =
    &[region(false, Sharing::Shared, WRITE, Pin::Refused(EFAULT))];

/// The tables of a policy.
#[derive(Clone, Copy, Debug)]
pub struct Tables {
    /// Changes of layout against held pages.
    pub layout: &'static [LayoutRow],
    /// Long-term pins.
    pub pins: &'static [PinRow],
    /// RDMA memory regions.
    pub regions: &'static [RegionRow],
    /// Whether a region that the device only reads is pinned as one that it writes, by force: FOLL_WRITE | FOLL_FORCE
    /// (drivers/infiniband/core/umem.c:ib_umem_get, 6.1).
    pub regions_write: bool,
}

impl Tables {
    /// Those of a regime; of mainline, those of 6.12.
    pub const fn of(regime: Regime) -> Tables {
        match regime {
            Regime::Mainline => Tables::with(MAINLINE, PINS, REGIONS),
            Regime::LayoutLease | Regime::LayoutLeaseStrict => {
                Tables::with(LAYOUT_LEASE, PINS_LEASED, REGIONS_LEASED)
            }
            Regime::Revoke => Tables::with(REVOKE, PINS_REVOKED, REGIONS_REVOKED),
        }
    }

    /// Those of 6.1.
    pub const V6_1: Tables =
        Tables { regions_write: true, ..Tables::with(MAINLINE_6_1, PINS_6_1, REGIONS_6_1) };

    const fn with(
        layout: &'static [LayoutRow],
        pins: &'static [PinRow],
        regions: &'static [RegionRow],
    ) -> Tables {
        Tables { layout, pins, regions, regions_write: false }
    }

    /// The row that speaks of a case.
    pub fn layout(&self, change: Change, mount: Mount, term: Term) -> Option<&'static LayoutRow> {
        self.layout.iter().find(|r| {
            r.changes.contains(&change) && r.mounts.contains(&mount) && r.terms.contains(&term)
        })
    }

    /// What becomes of a long-term pin.
    pub fn pin(&self, dax: bool, sharing: Sharing) -> Pin {
        let row = self.pins.iter().find(|r| r.dax == dax && r.sharing == sharing);
        row.map_or(Pin::Granted, |r| r.pin)
    }

    /// What becomes of an RDMA memory region.
    pub fn region(&self, dax: bool, sharing: Sharing, access: RegionAccess) -> Pin {
        let fits =
            |r: &&RegionRow| r.dax == dax && r.sharing == sharing && r.access.contains(&access);
        self.regions.iter().find(fits).map_or(Pin::Granted, |r| r.pin)
    }

    /// What becomes of a test of long-term pins: as of a region, for both pin alike, but that the slow way asks the mapping first, whatever its pages
    /// are (mm/gup.c:check_vma_flags, gup_fast_pte_range, 6.12).
    pub fn longterm_test(&self, dax: bool, sharing: Sharing, flags: PinFlags) -> Pin {
        let access = match flags.has(PinFlags::WRITE) {
            true => RegionAccess::Write,
            false => RegionAccess::Read,
        };
        match self.region(dax, sharing, access) {
            Pin::RefusedUnlessCopied(errno) if !flags.has(PinFlags::FAST) => Pin::Refused(errno),
            pin => pin,
        }
    }

    /// Whether the pages of a region are pinned to be written.
    pub fn region_writes(&self, access: RegionAccess) -> bool {
        self.regions_write || access == RegionAccess::Write
    }
}

impl PartialEq for Tables {
    fn eq(&self, other: &Tables) -> bool {
        std::ptr::eq(self.layout, other.layout)
            && std::ptr::eq(self.pins, other.pins)
            && std::ptr::eq(self.regions, other.regions)
            && self.regions_write == other.regions_write
    }
}

impl Eq for Tables {}

/// What an action does to a lease on the file (fs/locks.c:__break_lease, leases_conflict).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breaks {
    /// Nothing.
    Nothing,
    /// It must become a read lease.
    ToRead,
    /// It must go.
    ToNone,
}

/// Who meets a lease, for writing or not, and what that does: open by its access mode alone (O_TRUNC does not count), truncate(2) as a writer.
pub const BREAKS: &[(bool, bool, Breaks)] = &[
    // (the action writes, the lease is a write lease, what happens)
    (false, false, Breaks::Nothing),
    (false, true, Breaks::ToRead),
    (true, false, Breaks::ToNone),
    (true, true, Breaks::ToNone),
];

/// Looks it up in `BREAKS`.
pub fn breaks(action_writes: bool, write_lease: bool) -> Breaks {
    let row = BREAKS.iter().find(|(a, l, _)| *a == action_writes && *l == write_lease);
    row.map_or(Breaks::Nothing, |(_, _, breaks)| *breaks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_row_speaks_and_every_regime_speaks_of_every_case() {
        for (_, regime) in Regime::NAMES {
            let tables = Tables::of(*regime);
            for mount in [Ext4, Xfs] {
                let row = tables.layout(C::Size, mount, Term::Short).expect("page cache has a row");
                assert_eq!(row.meets, Meets::Proceeds, "{regime:?}");
            }
            let long = tables.layout(C::Punch, XfsDax, Term::Long).expect("DAX has a row").meets;
            let expected = match regime {
                Regime::Mainline => Meets::Waits,
                Regime::LayoutLease | Regime::LayoutLeaseStrict => Meets::Refused(26),
                Regime::Revoke => Meets::TakesAway,
            };
            assert_eq!(long, expected, "{regime:?}");
        }
        assert!(Tables::of(Regime::Mainline).layout(C::Allocate, Ext4Dax, Term::Short).is_none());
        let punch = Tables::V6_1.layout(C::Punch, Ext4Dax, Term::Short).expect("6.1 punches too");
        assert_eq!(punch.when, When::InsideFile);
    }

    #[test]
    fn regions_are_refused_where_each_kernel_looks() {
        let (new, old) = (Tables::of(Regime::Mainline), Tables::V6_1);
        for access in ANY {
            for tables in [new, old] {
                let pin = tables.region(true, Sharing::Shared, *access);
                assert_eq!(pin, Pin::Refused(EOPNOTSUPP));
                assert_eq!(tables.region(false, Sharing::Private, *access), Pin::Granted);
            }
            assert_eq!(old.region(false, Sharing::Shared, *access), Pin::Granted);
        }
        assert_eq!(new.region(false, Sharing::Shared, RegionAccess::Read), Pin::Granted);
        let written = new.region(false, Sharing::Shared, RegionAccess::Write);
        assert_eq!(written, Pin::Refused(EFAULT));
        assert!(old.region_writes(RegionAccess::Read) && !new.region_writes(RegionAccess::Read));
    }

    #[test]
    fn a_reader_breaks_write_leases_only() {
        assert_eq!(breaks(false, false), Breaks::Nothing);
        assert_eq!(breaks(false, true), Breaks::ToRead);
        assert_eq!(breaks(true, false), Breaks::ToNone);
    }
}
