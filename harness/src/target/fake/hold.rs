//! References to pages that outlive the look-up: pins and plain references, what they see, and who counts as busy by them.
//!
//! A reference keeps its page what it is: a cached page that leaves its file lives on, and a block that nobody owns any more is not given to
//! anybody else. What layout changes do about it is in `layout`.

use super::block::{PAGE, Page, zero_page};
use super::bug::Bug;
use super::inode::page_of;
use super::mapping::{Copies, Copy, MapRef, Vma};
use super::world::World;
use super::world::errno::{EFAULT, EOPNOTSUPP, EPERM};
use checker::Regime;
use history::Errno;
use program::{Mount, Prot};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

/// Where a held page lies.
#[derive(Debug)]
pub(super) enum Place {
    /// The page of zeros: it may be held by anybody and counts nowhere.
    Zero,
    /// A block of a DAX device.
    Block {
        /// Which mount.
        mount: usize,
        /// The file that it was found in.
        ino: u64,
        /// Which page of it.
        page: u64,
        /// Which block.
        block: u32,
    },
    /// A page of the page cache.
    Cache {
        /// Which mount.
        mount: usize,
        /// The file that it was found in.
        ino: u64,
        /// Which page of it.
        page: u64,
        /// Identity of the cached page.
        id: u64,
    },
    /// A private copy.
    Anon(Copy),
}

/// A reference to a page. It lasts for as long as somebody besides the world's list has it.
#[derive(Debug)]
pub(super) struct Hold {
    /// The page.
    pub place: Place,
    /// FOLL_PIN: the kernel counts it.
    pub pinned: bool,
    /// FOLL_LONGTERM
    pub long: bool,
    /// The page was taken away from its file under the pin.
    pub revoked: Cell<bool>,
}

/// A part of a held page.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// The page.
    pub hold: Rc<Hold>,
    /// First byte in it.
    pub from: usize,
    /// Bytes.
    pub len: usize,
}

/// How pages are asked for (FOLL_ flags).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ask {
    /// They will be written to.
    pub write: bool,
    /// FOLL_PIN rather than FOLL_GET.
    pub pinned: bool,
    /// FOLL_LONGTERM
    pub long: bool,
    /// FOLL_FORCE: whatever mprotect says, where a private copy or the right to ask for it allows that.
    pub force: bool,
    /// For an RDMA memory region.
    pub region: bool,
    /// By way of the mapping, which is looked at first, also where the page table has the page (pin_user_pages).
    pub slow: bool,
}

impl Part {
    /// The page as it is now.
    pub fn page(&self, w: &World) -> Page {
        match &self.hold.place {
            Place::Zero => zero_page(),
            Place::Block { mount, block, .. } => w.fs[*mount].dev.read(*block),
            Place::Cache { mount, ino, page, id } => w.fs[*mount].held_page(*ino, *page, *id),
            Place::Anon(copy) => copy.borrow().clone(),
        }
    }

    /// Copies `bytes` to the part's byte `at` and on.
    pub fn write(&self, w: &mut World, at: usize, bytes: &[u8]) {
        let from = self.from + at;
        match &self.hold.place {
            Place::Zero => {}
            Place::Block { mount, block, .. } => {
                let page = w.fs[*mount].dev.bytes_mut(*block);
                page[from..from + bytes.len()].copy_from_slice(bytes);
            }
            Place::Cache { mount, ino, page, id } => {
                w.fs[*mount].lay_held(*ino, *page, *id, from, bytes);
            }
            Place::Anon(copy) => {
                let mut copy = copy.borrow_mut();
                Arc::make_mut(&mut copy)[from..from + bytes.len()].copy_from_slice(bytes);
            }
        }
    }

    /// Part of the part.
    pub fn slice(&self, from: usize, len: usize) -> Part {
        Part { hold: self.hold.clone(), from: self.from + from, len }
    }

    /// Whether it shows a page of that file.
    pub fn is_of(&self, mount: usize, ino: u64) -> bool {
        match self.hold.place {
            Place::Block { mount: m, ino: i, .. } | Place::Cache { mount: m, ino: i, .. } => {
                (m, i) == (mount, ino)
            }
            Place::Zero | Place::Anon(_) => false,
        }
    }
}

/// Cuts `len` bytes from byte `from` on out of parts that follow each other.
pub(super) fn cut(parts: &[Part], mut from: usize, mut len: usize) -> Vec<Part> {
    let mut out = Vec::new();
    for part in parts {
        if from >= part.len {
            from -= part.len;
            continue;
        }
        let n = (part.len - from).min(len);
        if n == 0 {
            break;
        }
        out.push(part.slice(from, n));
        len -= n;
        from = 0;
    }
    out
}

impl World {
    /// Takes references to the pages of a range of a mapping, up to the first one that cannot be had, and says why it could not.
    pub fn grab(
        &mut self,
        map: &MapRef,
        offset: u64,
        len: u64,
        ask: Ask,
    ) -> (Vec<Part>, Result<(), Errno>) {
        let (mut parts, mut done) = (Vec::new(), 0);
        while done < len {
            let at = offset + done;
            let from = at % PAGE;
            let n = (PAGE - from).min(len - done);
            match self.grab_page(map, at, ask) {
                Ok(hold) => parts.push(Part { hold, from: from as usize, len: n as usize }),
                // Whoever has some pages does not hear why there are not more.
                Err(_) if ask.long && done > 0 => return (parts, Err(EFAULT)),
                Err(e) => return (parts, Err(e)),
            }
            done += n;
        }
        (parts, Ok(()))
    }

    fn grab_page(&mut self, map: &MapRef, at: u64, ask: Ask) -> Result<Rc<Hold>, Errno> {
        if ask.long {
            self.may_pin_for_long(map, at, ask)?;
        }
        if map.missing(self, at, ask.write, ask.force).is_some() {
            return Err(EFAULT);
        }
        let vma = map.vma.borrow();
        let (mount, ino) = (vma.file.mount, vma.file.ino);
        let page = page_of(vma.offset + at);
        // Who keeps a page of a private mapping for long gets a copy, be it only to read.
        if (ask.write || ask.long) && !vma.shared {
            let fs = &mut self.fs[mount];
            let mut copies = vma.copies.borrow_mut();
            copies.entry(page).or_insert_with(|| Rc::new(RefCell::new(fs.page(ino, page))));
        }
        let copy = vma.copies.borrow().get(&page).cloned();
        let place = match copy {
            Some(copy) => Place::Anon(copy),
            None if Mount::ALL[mount].is_dax() => {
                let fs = &mut self.fs[mount];
                let found = fs.ino(ino).map.get(&page).filter(|m| m.written).map(|m| m.block);
                let block = if ask.write { Some(fs.block_to_store(ino, page)) } else { found };
                match block {
                    Some(block) => Place::Block { mount, ino, page, block },
                    None => Place::Zero,
                }
            }
            None => {
                let id = self.fs[mount].hold_cached(ino, page, ask.write);
                Place::Cache { mount, ino, page, id }
            }
        };
        if let Place::Block { mount, block, .. } = place {
            self.fs[mount].dev.hold(block);
        }
        let hold = Hold { place, pinned: ask.pinned, long: ask.long, revoked: Cell::new(false) };
        let hold = Rc::new(hold);
        self.holds.push(hold.clone());
        Ok(hold)
    }

    /// Whether a page may be pinned for as long as user space likes: the table of the regime.
    fn may_pin_for_long(&self, map: &MapRef, at: u64, ask: Ask) -> Result<(), Errno> {
        if !map.covers(at) {
            return Err(EFAULT);
        }
        let vma = map.vma.borrow();
        if !Mount::ALL[vma.file.mount].is_dax() {
            // Whoever writes to a shared page of a file must tell the file system each time.
            let tells =
                !vma.shared || !ask.write || ask.region && self.has(Bug::RegionWritesPageCache);
            return if tells { Ok(()) } else { Err(EFAULT) };
        }
        let page = page_of(vma.offset + at);
        let allowed = if ask.write { vma.prot.has(Prot::WRITE) } else { vma.prot != Prot(0) };
        let copied = vma.copies.borrow().contains_key(&page) && allowed && !ask.slow;
        let region = ask.region && self.has(Bug::RegionOnDax);
        if copied || region || self.has(Bug::LongTermPinAllowed) {
            return Ok(());
        }
        match self.regime {
            Regime::Mainline if self.has(Bug::LongTermPinErrno) => Err(EFAULT),
            Regime::Mainline => Err(EOPNOTSUPP),
            Regime::LayoutLease | Regime::LayoutLeaseStrict => {
                let leased = self.has_layout_lease(vma.file.mount, vma.file.ino);
                if !vma.shared || leased || self.has(Bug::PinWithoutLease) {
                    Ok(())
                } else {
                    Err(EPERM)
                }
            }
            Regime::Revoke => Ok(()),
        }
    }

    /// The references that are alive.
    pub fn live_holds(&self) -> impl Iterator<Item = &Rc<Hold>> {
        self.holds.iter().filter(|h| Rc::strong_count(h) > 1)
    }

    /// Forgets references that are gone, and frees blocks that waited for that.
    pub fn let_go(&mut self) {
        let fs = &mut self.fs;
        self.holds.retain(|hold| {
            let alive = Rc::strong_count(hold) > 1;
            if let Place::Block { mount, block, .. } = hold.place
                && !alive
            {
                fs[mount].dev.let_go(block);
            }
            alive
        });
    }

    /// Whether pages of a file are pinned for as long as user space likes.
    pub fn has_long_pins(&self, mount: usize, ino: u64) -> bool {
        self.busy_pages(mount, ino).any(|(_, hold)| hold.long)
    }

    /// nr_foll_pin_acquired - nr_foll_pin_released
    pub fn pins(&self) -> i64 {
        let counts = |h: &&Rc<Hold>| h.pinned && !matches!(h.place, Place::Zero);
        self.live_holds().filter(counts).count() as i64 + self.leaked
    }

    /// Forgets to give a page back, for good: a bug.
    pub fn leak(&mut self, parts: &[Part]) {
        let counts = |p: &&Part| p.hold.pinned && !matches!(p.hold.place, Place::Zero);
        if parts.iter().any(|p| counts(&p)) {
            self.leaked += 1;
        }
    }

    /// Gives a page back once more than it was taken: a bug.
    pub fn give_back_again(&mut self, parts: &[Part]) {
        let counts = |p: &&Part| p.hold.pinned && !matches!(p.hold.place, Place::Zero);
        if parts.iter().any(|p| counts(&p)) {
            self.leaked -= 1;
        }
    }

    /// Live references to DAX pages that are the file's own still, with the page.
    pub fn busy_pages(&self, mount: usize, ino: u64) -> impl Iterator<Item = (u64, &Rc<Hold>)> {
        self.live_holds().filter_map(move |hold| {
            let Place::Block { mount: m, ino: i, page, block } = hold.place else { return None };
            let inode = self.fs[m].inodes.get(&i)?;
            let own = inode.map.get(&page).is_some_and(|mapped| mapped.block == block);
            ((m, i) == (mount, ino) && own).then_some((page, hold))
        })
    }

    /// The private copies that a child gets of a mapping. Whoever holds one of the parent's by a plain reference keeps it, and the parent goes
    /// on with another; a pinned one stays the parent's.
    pub fn split_copies(&self, vma: &Vma) -> Copies {
        let mut mine = vma.copies.borrow_mut();
        let fresh = |copy: &Copy| -> Copy { Rc::new(RefCell::new(copy.borrow().clone())) };
        for copy in mine.values_mut() {
            let is_it = |h: &&Rc<Hold>| matches!(&h.place, Place::Anon(c) if Rc::ptr_eq(c, copy));
            let pinned = self.live_holds().filter(is_it).any(|h| h.pinned);
            let referenced = self.live_holds().any(|h| is_it(&h));
            if referenced && !pinned {
                *copy = fresh(copy);
            }
        }
        mine.iter().map(|(page, copy)| (*page, fresh(copy))).collect()
    }
}
