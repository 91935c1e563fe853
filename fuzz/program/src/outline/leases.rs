//! Who has a lease, what breaks it, and how that is answered.

use super::{Description, OpenFile, Outline};
use crate::{Access, CallId, Lane, Lease};

/// A lease on an open file description.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeldLease {
    pub kind: Lease,
    pub taken: CallId,
    /// The process that took it.
    pub space: usize,
    pub breaking: Breaking,
}

/// How far the break of a lease has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Breaking {
    No,
    /// To F_RDLCK.
    Downgrade,
    /// To F_UNLCK.
    Unlock,
}

impl Outline {
    /// Makes a description.
    pub(super) fn describe(&mut self, inode: usize, access: Access) -> usize {
        self.descriptions.push(Description { inode, access, lease: None });
        self.descriptions.len() - 1
    }

    /// Whether a descriptor or a mapping keeps the description open.
    fn is_open(&self, description: usize) -> bool {
        let files = self.spaces.iter().flat_map(|space| space.files.iter().flatten());
        let maps = self.spaces.iter().flat_map(|space| space.maps.iter().flatten());
        files.chain(&self.socket).any(|file| file.description == description)
            || maps.into_iter().any(|map| map.description == description)
    }

    /// The leases on a file.
    pub fn leases(&self, inode: usize) -> impl Iterator<Item = (usize, HeldLease)> + '_ {
        self.descriptions.iter().enumerate().filter_map(move |(index, description)| {
            Some((index, description.lease.filter(|_| description.inode == inode)?))
        })
    }

    /// Whether an open or a truncate of the file waits for a lease.
    pub fn conflicts(&self, inode: usize, to_write: bool) -> bool {
        self.leases(inode).any(|(_, lease)| match lease.kind {
            Lease::Write => true,
            Lease::Read => to_write,
            Lease::Unlock | Lease::Layout => false,
        })
    }

    /// Ends the leases of descriptions that nobody has open any more.
    pub(super) fn drop_leases(&mut self) {
        for index in 0..self.descriptions.len() {
            if self.descriptions[index].lease.is_some() && !self.is_open(index) {
                self.descriptions[index].lease = None;
            }
        }
    }

    pub(super) fn setlease(&mut self, id: CallId, lane: Lane, file: OpenFile, wanted: Lease) {
        let space = Outline::space_index(lane);
        self.change_lease(file.description, wanted, id, space);
    }

    fn change_lease(&mut self, description: usize, wanted: Lease, id: CallId, space: usize) {
        let inode = self.descriptions[description].inode;
        if self.inodes[inode].gate.is_some() {
            return;
        }
        let others: Vec<usize> = (0..self.descriptions.len())
            .filter(|other| *other != description && self.descriptions[*other].inode == inode)
            .filter(|other| self.is_open(*other))
            .collect();
        let writes = |at: &usize| self.descriptions[*at].access != Access::ReadOnly;
        let granted = match wanted {
            Lease::Read => !others.iter().any(writes) && !writes(&description),
            Lease::Write => others.is_empty(),
            Lease::Unlock | Lease::Layout => true,
        };
        let breaking = self.leases(inode).any(|(_, lease)| lease.breaking == Breaking::Unlock);
        let lease = &mut self.descriptions[description].lease;
        match wanted {
            _ if !granted => {}
            Lease::Unlock => *lease = None,
            _ => match lease {
                // A break to nothing is not answered by less than that.
                Some(held) if wanted == Lease::Read => {
                    held.kind = wanted;
                    if held.breaking == Breaking::Downgrade {
                        held.breaking = Breaking::No;
                    }
                }
                Some(held) if held.breaking == Breaking::No => held.kind = wanted,
                Some(_) => {}
                None if breaking => {}
                None => {
                    let breaking = Breaking::No;
                    *lease = Some(HeldLease { kind: wanted, taken: id, space, breaking });
                }
            },
        }
    }

    /// Starts the break of the leases on a file, and answers as the handlers of the holders do.
    pub(super) fn break_leases(&mut self, id: CallId, inode: usize, to_write: bool) {
        let met: Vec<(usize, HeldLease)> = self.leases(inode).collect();
        for (index, held) in met {
            let state = match held.kind {
                Lease::Write if !to_write && held.breaking == Breaking::No => Breaking::Downgrade,
                Lease::Write | Lease::Read if to_write => Breaking::Unlock,
                _ => continue,
            };
            if let Some(lease) = &mut self.descriptions[index].lease {
                lease.breaking = state;
            }
            if let Some(answer) = self.spaces[held.space].answer {
                self.change_lease(index, answer, id, held.space);
            }
        }
    }
}
