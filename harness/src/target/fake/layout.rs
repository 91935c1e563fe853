//! What a layout change does about pages that somebody holds: the regimes.
//!
//! Called with the files' locks held and before anything is changed. The page cache knows no regime: nothing waits there.

use super::bug::Bug;
use super::hold::{Hold, Place};
use super::inode::{page_of, pages_up};
use super::sched::Cx;
use super::world::World;
use super::world::errno::{EINTR, ETXTBSY};
use checker::Regime;
use history::Errno;
use program::{FallocateMode, Mount};
use std::rc::Rc;

/// A file whose layout is about to change.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    /// Which mount.
    pub mount: usize,
    /// Which file.
    pub ino: u64,
    /// Pages that it surely loses: from the first to before the last.
    pub taken: (u64, u64),
}

impl Change {
    /// To another size.
    pub fn size(mount: usize, ino: u64, len: u64) -> Change {
        Change { mount, ino, taken: (pages_up(len), u64::MAX) }
    }

    /// A mode of fallocate; none if that file system changes nothing that a reference could mind.
    pub fn fallocate(
        (mount, ino): (usize, u64),
        mode: FallocateMode,
        at: u64,
        len: u64,
    ) -> Option<Change> {
        use FallocateMode as M;
        let plain = matches!(mode, M::Allocate | M::KeepSize);
        if plain && !Mount::ALL[mount].is_xfs() {
            return None;
        }
        let taken = match mode {
            M::CollapseRange | M::InsertRange => (page_of(at), u64::MAX),
            M::PunchHole | M::ZeroRange | M::ZeroRangeKeepSize => {
                (pages_up(at), page_of(at + len).max(pages_up(at)))
            }
            _ => (0, 0),
        };
        Some(Change { mount, ino, taken })
    }

    /// Blocks of another file come into a range.
    pub fn share(mount: usize, ino: u64, at: u64, len: u64) -> Change {
        Change { mount, ino, taken: (page_of(at), pages_up(at + len)) }
    }

    /// Blocks are shared with another file.
    pub fn source(mount: usize, ino: u64) -> Change {
        Change { mount, ino, taken: (0, 0) }
    }

    fn takes(&self, page: u64) -> bool {
        (self.taken.0..self.taken.1).contains(&page)
    }
}

impl World {
    /// Whether somebody waits in vain for the pages of a file to be given back.
    fn is_busy(&self, change: &Change) -> bool {
        let first_only = self.has(Bug::WaitsForFirstPageOnly);
        let pinned_only = self.has(Bug::WaitIgnoresReferences);
        let all = self.regime == Regime::Mainline;
        self.busy_pages(change.mount, change.ino).any(|(page, hold)| {
            let counts = all || !hold.long;
            counts && (page == 0 || !first_only) && (hold.pinned || !pinned_only)
        })
    }

    fn pinned_in(&self, change: &Change) -> Vec<(u64, Rc<Hold>)> {
        let busy = self.busy_pages(change.mount, change.ino);
        busy.filter(|(page, h)| h.long && change.takes(*page))
            .map(|(p, h)| (p, h.clone()))
            .collect()
    }

    /// Takes pinned pages away from whoever holds or maps them, where the regime says so and the change is sure to come. Blocks that stay with the file are replaced, so that what is in flight to the old ones
    /// reaches nobody.
    pub fn revoke(&mut self, change: &Change) {
        if self.regime != Regime::Revoke {
            return;
        }
        for (page, hold) in self.pinned_in(change) {
            hold.revoked.set(true);
            if self.has(Bug::RevokeKeepsBlock)
                && let Place::Block { mount, block, .. } = hold.place
            {
                self.fs[mount].dev.forget_holds(block);
            } else {
                self.fs[change.mount].replace_block(change.ino, page);
            }
            for process in self.procs.iter().flatten() {
                for (vma, _) in process.maps.iter().flatten() {
                    let mut vma = vma.borrow_mut();
                    let (first, end) = (page_of(vma.offset), page_of(vma.offset + vma.len));
                    let same = (vma.file.mount, vma.file.ino) == (change.mount, change.ino);
                    if same && (first..end).contains(&page) {
                        vma.revoked.insert(page);
                    }
                }
            }
        }
    }

    /// Gives a file blocks of its own where it has come to share one that is pinned for writing through another file, or another page of its own.
    pub fn unshare_held(&mut self, mount: usize, ino: u64) {
        let blocks: Vec<(u32, Option<u64>)> = self
            .live_holds()
            .filter_map(|h| match h.place {
                Place::Block { mount: m, ino: i, page, block } if m == mount => {
                    Some((block, (i == ino).then_some(page)))
                }
                _ => None,
            })
            .collect();
        let Some(inode) = self.fs[mount].inodes.get(&ino) else { return };
        let elsewhere = |page: u64, block: u32| {
            blocks.iter().any(|(held, own)| *held == block && *own != Some(page))
        };
        let pages = inode.map.iter().filter(|(page, m)| elsewhere(**page, m.block));
        let pages: Vec<u64> = pages.map(|(page, _)| *page).collect();
        for page in pages {
            self.fs[mount].replace_block(ino, page);
        }
    }
}

/// Brings held pages and changes together, as the regime says: waits, refuses, or takes the pages away.
pub(super) async fn break_layouts(cx: Cx<'_>, changes: &[Change]) -> Result<(), Errno> {
    let dax = changes.iter().all(|c| Mount::ALL[c.mount].is_dax());
    if !dax {
        if cx.look().has(Bug::PageCacheWaits) {
            return wait_for_cache(cx, changes).await;
        }
        return Ok(());
    }
    let regime = cx.look().regime;
    if regime.has_layout_leases() {
        let pinned = changes.iter().find(|c| !cx.look().pinned_in(c).is_empty());
        if let Some(change) = pinned
            && !cx.look().has(Bug::PinnedRangeChanges)
        {
            cx.w().tell_layout_holders(change.mount, change.ino);
            return Err(ETXTBSY);
        }
        if cx.look().has(Bug::UnpinnedRangeRefused) {
            let long = |c: &Change| {
                let w = cx.look();
                w.busy_pages(c.mount, c.ino).any(|(_, h)| h.long)
            };
            if changes.iter().any(|c| c.taken.0 < c.taken.1 && long(c)) {
                return Err(ETXTBSY);
            }
        }
    }
    let xfs = changes.iter().any(|c| Mount::ALL[c.mount].is_xfs());
    let wchan = if xfs { "xfs_break_dax_layouts" } else { "ext4_break_layouts" };
    let waits = {
        let w = cx.look();
        !w.has(Bug::LayoutChangeDoesNotWait) && !w.has(Bug::PinnedBlockReused)
    };
    // Planted: nobody is woken, and only a signal ends it.
    let deaf =
        cx.look().has(Bug::LayoutWaitNotWoken) && changes.iter().any(|c| cx.look().is_busy(c));
    let numb = cx.look().has(Bug::LayoutWaitUnkillable);
    let idle = |w: &World| !deaf && !changes.iter().any(|c| w.is_busy(c));
    if waits && !idle(&cx.look()) {
        if numb {
            cx.until(wchan, idle).await;
        } else if !cx.wait(wchan, idle).await {
            return Err(EINTR);
        }
    }
    if cx.look().has(Bug::PinnedBlockReused) {
        cx.w().forget_holds(changes);
    }
    Ok(())
}

/// Waits for references to pages of the page cache: a bug.
async fn wait_for_cache(cx: Cx<'_>, changes: &[Change]) -> Result<(), Errno> {
    let busy = |w: &World| {
        w.live_holds().any(|h| match h.place {
            Place::Cache { mount, ino, .. } => {
                changes.iter().any(|c| (c.mount, c.ino) == (mount, ino))
            }
            _ => false,
        })
    };
    match cx.wait("truncate_inode_pages_range", |w| !busy(w)).await {
        true => Ok(()),
        false => Err(EINTR),
    }
}

impl World {
    /// Frees what is held as if it were not: a bug.
    fn forget_holds(&mut self, changes: &[Change]) {
        for change in changes {
            let blocks: Vec<u32> = self
                .busy_pages(change.mount, change.ino)
                .filter_map(|(_, h)| match h.place {
                    Place::Block { block, .. } => Some(block),
                    _ => None,
                })
                .collect();
            for block in blocks {
                self.fs[change.mount].dev.forget_holds(block);
            }
        }
    }
}
