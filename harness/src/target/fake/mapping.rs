//! Mappings: which page an access reaches, private copies, and the faults of accesses that reach none.
//!
//! One access never crosses a page. There are no page tables: every access looks the page up anew.

use super::block::{PAGE, Page};
use super::bug::Bug;
use super::inode::{How, page_of, pages_up};
use super::world::{OpenFile, World};
use history::FaultSignal;
use program::Prot;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

/// SIGBUS
const SIGBUS: i32 = 7;
/// SIGSEGV
const SIGSEGV: i32 = 11;
/// BUS_ADRERR: nonexistent physical address, a page past the end of file.
const BUS_ADRERR: i32 = 2;
/// BUS_OBJERR
const BUS_OBJERR: i32 = 3;
/// SEGV_MAPERR: nothing is mapped there.
const SEGV_MAPERR: i32 = 1;
/// SEGV_ACCERR: the mapping does not allow it.
const SEGV_ACCERR: i32 = 2;

/// A page that belongs to one address space only.
pub(super) type Copy = Rc<RefCell<Page>>;
/// Private copies, by file page.
pub(super) type Copies = BTreeMap<u64, Copy>;

/// One mapping.
#[derive(Clone, Debug)]
pub(super) struct Vma {
    /// What is mapped; the mapping keeps it open.
    pub file: Rc<OpenFile>,
    /// File offset of its first byte.
    pub offset: u64,
    /// Length in bytes, a multiple of a page.
    pub len: u64,
    /// Access that is allowed now.
    pub prot: Prot,
    /// MAP_SHARED.
    pub shared: bool,
    /// Private copies, by file page.
    pub copies: Rc<RefCell<Copies>>,
    /// Where it lies: no address is used twice, and there is room behind it to grow.
    pub address: u64,
    /// Unmapped, while a call still means it.
    pub dead: bool,
    /// mremap has made it longer.
    pub grown: bool,
    /// File pages that were taken away under it, until it is mapped anew.
    pub revoked: BTreeSet<u64>,
}

impl Vma {
    /// Takes it away: it keeps its file open no longer.
    pub fn unmap(&mut self) {
        self.dead = true;
        self.file = Rc::new(self.file.left_behind());
    }
}

/// A mapping as a call found it.
#[derive(Clone, Debug)]
pub(super) struct MapRef {
    /// The mapping.
    pub vma: Rc<RefCell<Vma>>,
}

impl MapRef {
    /// That mapping.
    pub fn new(vma: &Rc<RefCell<Vma>>) -> MapRef {
        MapRef { vma: vma.clone() }
    }

    /// Whether `offset` lies in the mapping still.
    pub fn covers(&self, offset: u64) -> bool {
        let vma = self.vma.borrow();
        !vma.dead && offset < vma.len
    }

    fn fault(&self, w: &World, offset: u64, write: bool) -> Option<FaultSignal> {
        self.missing(w, offset, write, false)
    }

    /// Why a page cannot be had. `force` asks past the protection, as debuggers may: but what others share is written to only by right.
    pub fn missing(&self, w: &World, offset: u64, write: bool, force: bool) -> Option<FaultSignal> {
        let signal = |signo, code| Some(FaultSignal { signo, code, addr: offset as i64 });
        if !self.covers(offset) {
            return signal(SIGSEGV, SEGV_MAPERR);
        }
        let vma = self.vma.borrow();
        // x86 has no page that can be written but not read.
        let allowed = if write { vma.prot.has(Prot::WRITE) } else { vma.prot != Prot::default() };
        let forgets = write && w.has(Bug::ProtectionIgnored) && vma.prot.has(Prot::READ);
        let forced = force && (!write || !vma.shared);
        if !(allowed || forgets || forced) {
            return signal(SIGSEGV, SEGV_ACCERR);
        }
        let page = page_of(vma.offset + offset);
        let size = w.fs[vma.file.mount].ino(vma.file.ino).size;
        let revoked = vma.revoked.contains(&page) && !w.has(Bug::RevokeKeepsMapping);
        if vma.copies.borrow().contains_key(&page) || page < pages_up(size) && !revoked {
            return None;
        }
        if w.has(Bug::SigbusMissing) && !write {
            return None;
        }
        let code = if w.has(Bug::SigbusCode) { BUS_OBJERR } else { BUS_ADRERR };
        let ahead = if w.has(Bug::SigbusAddress) { PAGE as i64 } else { 0 };
        Some(FaultSignal { signo: SIGBUS, code, addr: offset as i64 + ahead })
    }

    /// The page that a load at `offset` reads.
    pub fn load(&self, w: &mut World, offset: u64) -> Result<Page, FaultSignal> {
        if let Some(fault) = self.fault(w, offset, false) {
            return Err(fault);
        }
        let vma = self.vma.borrow();
        let page = page_of(vma.offset + offset);
        if let Some(copy) = vma.copies.borrow().get(&page) {
            return Ok(copy.borrow().clone());
        }
        let fs = &mut w.fs[vma.file.mount];
        let found = fs.page(vma.file.ino, page);
        Ok(fs.hole_page(found))
    }

    /// Stores bytes that lie in one page.
    pub fn store(&self, w: &mut World, offset: u64, bytes: &[u8]) -> Result<(), FaultSignal> {
        if let Some(fault) = self.fault(w, offset, true) {
            return Err(fault);
        }
        let vma = self.vma.borrow();
        let (mount, ino) = (vma.file.mount, vma.file.ino);
        let at = vma.offset + offset;
        if vma.shared || w.has(Bug::PrivateReachesFile) {
            let lost = w.has(Bug::MremapLosesStores) && vma.grown;
            if !lost {
                w.fs[mount].lay(ino, at, bytes, How::Store);
            }
            return Ok(());
        }
        let page = page_of(at);
        let from = (at % PAGE) as usize;
        let mut copies = vma.copies.borrow_mut();
        let copy = copies
            .entry(page)
            .or_insert_with(|| Rc::new(RefCell::new(w.fs[mount].page(ino, page))));
        Arc::make_mut(&mut copy.borrow_mut())[from..from + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    /// Faults a page in, for writing if asked; whether it could be.
    pub fn populate(&self, w: &mut World, offset: u64, write: bool) -> Result<(), FaultSignal> {
        if let Some(fault) = self.fault(w, offset, write) {
            return Err(fault);
        }
        let page = self.load(w, offset)?;
        let at = offset / PAGE * PAGE;
        if write {
            // The bytes stay the same; a private page becomes a copy, a shared one dirty.
            self.store(w, at, &page[..8])?;
        }
        Ok(())
    }
}

impl World {
    /// Takes private copies of file pages from `first` on away from every mapping of the file.
    pub fn unmap_copies(&mut self, mount: usize, ino: u64, first: u64, last: u64) {
        for process in self.procs.iter().flatten() {
            for (vma, _) in process.maps.iter().flatten() {
                let vma = vma.borrow();
                if vma.file.mount == mount && vma.file.ino == ino {
                    vma.copies.borrow_mut().retain(|page, _| *page < first || *page >= last);
                }
            }
        }
    }

    /// Whether the file is mapped anywhere.
    pub fn is_mapped(&self, mount: usize, ino: u64) -> bool {
        let maps = self.procs.iter().flatten().flat_map(|p| p.maps.iter().flatten());
        maps.map(|(vma, _)| vma.borrow()).any(|v| v.file.mount == mount && v.file.ino == ino)
    }
}
