//! A block device: an array of blocks that keep their bytes when they are freed, with reference counts and a free list.
//!
//! Blocks are never cleaned by themselves: whoever allocates one finds what its former owner left. It knows no files.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::LazyLock;

/// Bytes of a page and of a block: the kernels under test have 4 KiB of both.
pub(super) const PAGE: u64 = 4096;
/// The first block that files may own; before it lies what a file system keeps for itself.
const FIRST_BLOCK: u64 = 1024;

/// One page of bytes, copied only when it is changed.
pub(super) type Page = Arc<[u8; PAGE as usize]>;

static ZERO: LazyLock<Page> = LazyLock::new(|| Arc::new([0; PAGE as usize]));

/// The page of zeros.
pub(super) fn zero_page() -> Page {
    ZERO.clone()
}

/// Whether it is the page of zeros itself (another page may hold zeros as well).
pub(super) fn is_zero_page(page: &Page) -> bool {
    Arc::ptr_eq(page, &ZERO)
}

/// The media under one mount.
#[derive(Clone, Debug, Default)]
pub(super) struct Device {
    blocks: Vec<Page>,
    refs: Vec<u32>,
    free: Vec<u32>,
    /// References to the pages of blocks: a block that nobody owns is not free before they are gone.
    held: BTreeMap<u32, u32>,
}

impl Device {
    /// Takes a block: the one freed last comes first, so that stale bytes surface soon.
    pub fn alloc(&mut self) -> u32 {
        let block = self.free.pop().unwrap_or_else(|| {
            self.blocks.push(zero_page());
            self.refs.push(0);
            self.blocks.len() as u32 - 1
        });
        self.refs[block as usize] = 1;
        block
    }

    /// Gives one more owner to a block.
    pub fn share(&mut self, block: u32) {
        self.refs[block as usize] += 1;
    }

    /// Takes one owner from a block, and frees it with the last one.
    pub fn release(&mut self, block: u32) {
        match &mut self.refs[block as usize] {
            // Freed twice: only a planted bug comes here, and the check tells.
            0 => {}
            refs @ 1 => {
                *refs = 0;
                if !self.held.contains_key(&block) {
                    self.free.push(block);
                }
            }
            refs => *refs -= 1,
        }
    }

    /// One more reference to the page of a block.
    pub fn hold(&mut self, block: u32) {
        *self.held.entry(block).or_default() += 1;
    }

    /// One reference less.
    pub fn let_go(&mut self, block: u32) {
        let Some(count) = self.held.get_mut(&block) else { return };
        *count -= 1;
        if *count == 0 {
            self.held.remove(&block);
            if self.refs[block as usize] == 0 && !self.free.contains(&block) {
                self.free.push(block);
            }
        }
    }

    /// Forgets that the block is held: a bug.
    pub fn forget_holds(&mut self, block: u32) {
        if self.held.remove(&block).is_some()
            && self.refs[block as usize] == 0
            && !self.free.contains(&block)
        {
            self.free.push(block);
        }
    }

    /// Whether the block has more than one owner.
    pub fn is_shared(&self, block: u32) -> bool {
        self.refs[block as usize] > 1
    }

    /// The bytes of a block.
    pub fn read(&self, block: u32) -> Page {
        self.blocks[block as usize].clone()
    }

    /// Replaces the bytes of a block.
    pub fn write(&mut self, block: u32, page: Page) {
        self.blocks[block as usize] = page;
    }

    /// The bytes of a block, to be changed in place.
    pub fn bytes_mut(&mut self, block: u32) -> &mut [u8; PAGE as usize] {
        Arc::make_mut(&mut self.blocks[block as usize])
    }

    /// The block that would be allocated next, if a former owner left one.
    pub fn next_free(&self) -> Option<u32> {
        self.free.last().copied()
    }

    /// Byte offset of a block on the device, as FIEMAP names it.
    pub fn physical(block: u32) -> u64 {
        (FIRST_BLOCK + u64::from(block)) * PAGE
    }

    /// Compares the reference counts with the owners that the caller has counted, says what is wrong, and puts it right, so that a
    /// planted bug does not show again in later runs.
    pub fn check(&mut self, owners: &[u32]) -> Vec<String> {
        let mut complaints = Vec::new();
        let mut is_free = vec![false; self.blocks.len()];
        for &block in &self.free {
            is_free[block as usize] = true;
        }
        let mut repair = false;
        for (block, free) in is_free.iter().enumerate() {
            let owned = owners.get(block).copied().unwrap_or(0);
            if owned > 0 && *free {
                complaints.push(format!("block {block} is in use and free"));
            } else if owned == 0 && !free {
                complaints.push(format!("block {block} is marked in use, but nobody owns it"));
            } else if owned > self.refs[block] {
                complaints.push(format!("block {block} has {owned} owners"));
            } else if owned != self.refs[block] {
                complaints.push(format!("block {block} has {owned} owners, not as counted"));
            } else {
                continue;
            }
            repair = true;
        }
        if repair {
            self.refs =
                (0..self.blocks.len()).map(|b| owners.get(b).copied().unwrap_or(0)).collect();
            self.free.retain(|&b| self.refs[b as usize] == 0);
            for (block, free) in is_free.iter().enumerate() {
                if self.refs[block] == 0 && !free {
                    self.free.push(block as u32);
                }
            }
        }
        complaints
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_block_comes_back_with_its_bytes() {
        let mut device = Device::default();
        let block = device.alloc();
        device.bytes_mut(block)[7] = 9;
        device.release(block);
        assert_eq!(device.alloc(), block);
        assert_eq!(device.read(block)[7], 9);
    }

    #[test]
    fn a_check_names_leaks_and_double_use() {
        let mut device = Device::default();
        let (a, b) = (device.alloc(), device.alloc());
        assert_eq!(device.check(&[1, 1]), Vec::<String>::new());
        assert_eq!(device.check(&[2, 0]).len(), 2);
        assert_eq!(device.check(&[2, 0]), Vec::<String>::new());
        assert!(device.is_shared(a));
        assert_eq!(device.alloc(), b);
    }
}
