//! The call sites that a program has passed so far, in memory that the runner and its children share and that outlives both.
//!
//! One bit for each byte of the kernel's text, and a list of the words that are not zero, so that neither reading nor clearing looks at
//! the rest. Sites outside of the text (in modules) are not kept: kernels with KCOV are built without modules.

use crate::sys::kcov::Trace;
use history::reached;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Where the kernel's text begins without address space randomisation (arch/x86/include/asm/page_types.h: __START_KERNEL, 6.12).
const TEXT: u64 = 0xffff_ffff_8100_0000;
/// Most bytes of text: twice what a kernel with KASAN and everything built in has. Only pages with sites take memory.
const TEXT_MAX: usize = 128 << 20;
/// Words of bits.
const WORDS: usize = TEXT_MAX / 64;
/// Most words that are not zero. The longest programs reach some 10,000.
const TOUCHED_MAX: usize = 64 << 10;

/// The set.
#[derive(Debug)]
pub struct Reached {
    /// Whether the program at hand is to be covered.
    on: AtomicU32,
    /// Words that are not zero, in no order.
    touched: [AtomicU32; TOUCHED_MAX],
    count: AtomicU32,
    bits: [AtomicU64; WORDS],
}

impl Reached {
    /// Empties the set, for a program that is to be covered or not.
    pub fn begin(&self, on: bool) {
        let count = self.count.swap(0, Ordering::AcqRel) as usize;
        for word in self.touched.iter().take(count) {
            self.bits[word.load(Ordering::Relaxed) as usize % WORDS].store(0, Ordering::Relaxed);
        }
        self.on.store(on.into(), Ordering::Release);
    }

    /// Whether the program at hand is to be covered.
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Acquire) != 0
    }

    /// Takes in what a thread has passed.
    pub fn take(&self, trace: &Trace) {
        trace.drain(|pc| self.add(pc));
    }

    fn add(&self, pc: u64) {
        let offset = pc.wrapping_sub(TEXT) as usize;
        let (index, bit) = (offset / 64, 1 << (offset % 64));
        let Some(word) = self.bits.get(index) else { return };
        let old = word.load(Ordering::Relaxed);
        if old & bit != 0 {
            return;
        }
        if old == 0 && self.count.load(Ordering::Relaxed) as usize >= TOUCHED_MAX - LATE {
            return;
        }
        if word.fetch_or(bit, Ordering::Relaxed) == 0 {
            let place = self.count.fetch_add(1, Ordering::AcqRel) as usize;
            self.touched[place].store(index as u32, Ordering::Release);
        }
    }

    /// The set as it travels.
    pub fn encoded(&self) -> Vec<u8> {
        let count = self.count.load(Ordering::Acquire) as usize;
        let words = self.touched.iter().take(count);
        let mut words: Vec<usize> =
            words.map(|word| word.load(Ordering::Acquire) as usize % WORDS).collect();
        words.sort_unstable();
        words.dedup();
        let mut sites = Vec::with_capacity(words.len() * 2);
        for index in words {
            let mut bits = self.bits[index].load(Ordering::Relaxed);
            while bits != 0 {
                let offset = index * 64 + bits.trailing_zeros() as usize;
                sites.push((TEXT as u32).wrapping_add(offset as u32));
                bits &= bits - 1;
            }
        }
        reached::encode(&sites)
    }
}

/// Room at the end of the list for lanes that looked at the count at the same time.
const LATE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn list(set: &Reached) -> Vec<u32> {
        reached::decode(&set.encoded()).expect("ascending, each once")
    }

    #[test]
    fn sites_are_kept_once_in_order_and_forgotten() {
        let set: &Reached = crate::sys::shared().unwrap();
        set.begin(true);
        assert!(set.is_on() && list(set).is_empty());
        for pc in [TEXT + 200, TEXT + 5, TEXT + 200, TEXT, TEXT + TEXT_MAX as u64 - 1] {
            set.add(pc);
        }
        // Outside: a module, user space, the last address.
        for pc in [0xffff_ffff_c000_1234, 0x40_0000, u64::MAX, TEXT - 1] {
            set.add(pc);
        }
        assert_eq!(
            list(set),
            [0x8100_0000, 0x8100_0005, 0x8100_00c8, 0x8100_0000 + (TEXT_MAX as u32 - 1)]
        );
        set.begin(false);
        assert!(!set.is_on() && list(set).is_empty());
    }

    #[test]
    fn too_many_sites_are_left_out_and_leave_nothing_behind() {
        let set: &Reached = crate::sys::shared().unwrap();
        set.begin(true);
        (0..2 * TOUCHED_MAX as u64).for_each(|n| set.add(TEXT + 64 * n));
        assert_eq!(list(set).len(), TOUCHED_MAX - LATE);
        set.begin(true);
        set.add(TEXT + 64 * 2 * TOUCHED_MAX as u64);
        assert_eq!(list(set).len(), 1);
    }
}
