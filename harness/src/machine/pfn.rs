//! The info block that puts a label-less NVDIMM namespace into fsdax mode, so that DAX is on without `ndctl` in the guest.
//!
//! The form is `struct nd_pfn_sb` (drivers/nvdimm/pfn.h, 6.12), checked by `nd_pfn_validate` in pfn_devs.c. Struct pages are kept in
//! guest memory, not on the medium.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Where the block device begins in the namespace: behind the info block, aligned to a PMD.
pub const DATA_OFFSET: u64 = 2 << 20;
/// Where the info block lies, and its size.
const BLOCK_AT: u64 = 4096;
const BLOCK: usize = 4096;
/// Where its checksum lies.
const CHECKSUM: usize = BLOCK - 8;
/// PFN_MODE_RAM.
const MODE_RAM: u32 = 1;
const PAGE: u32 = 4096;
/// MAX_STRUCT_PAGE_SIZE.
const STRUCT_PAGE: u16 = 64;

/// Writes the info block of a namespace of `size` bytes.
pub fn write(file: &File, size: u64, identity: u8) -> io::Result<()> {
    file.write_all_at(&block(size, identity), BLOCK_AT)
}

fn block(size: u64, identity: u8) -> [u8; BLOCK] {
    let mut block = [0u8; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"NVDIMM_PFN_INFO\0");
    put(16, &[b'p', b'i', b'n', b'f', b'u', b'z', 0x4a, 0, 0x80, 0, 0, 0, 0, 0, 1, identity]);
    // parent_uuid stays zero: a namespace without labels has none.
    put(52, &1u16.to_le_bytes());
    put(54, &4u16.to_le_bytes());
    put(56, &DATA_OFFSET.to_le_bytes());
    put(64, &((size - DATA_OFFSET) / u64::from(PAGE)).to_le_bytes());
    put(72, &MODE_RAM.to_le_bytes());
    put(84, &(DATA_OFFSET as u32).to_le_bytes());
    put(88, &PAGE.to_le_bytes());
    put(92, &STRUCT_PAGE.to_le_bytes());
    let sum = fletcher64(&block);
    block[CHECKSUM..].copy_from_slice(&sum.to_le_bytes());
    block
}

/// `nd_fletcher64` (drivers/nvdimm/core.c, 6.12) over little-endian words.
fn fletcher64(bytes: &[u8]) -> u64 {
    let (mut low, mut high) = (0u32, 0u64);
    for word in bytes.as_chunks::<4>().0 {
        low = low.wrapping_add(u32::from_le_bytes(*word));
        high = high.wrapping_add(u64::from(low));
    }
    high << 32 | u64::from(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_over_the_block_without_it() {
        let mut block = block(306 << 20, 3);
        let sum = u64::from_le_bytes(block[CHECKSUM..].try_into().unwrap());
        block[CHECKSUM..].fill(0);
        assert_eq!(sum, fletcher64(&block));
        assert_eq!(u64::from_le_bytes(block[64..72].try_into().unwrap()), 304 << 8);
        assert_eq!(fletcher64(&[1, 0, 0, 0, 2, 0, 0, 0]), 4 << 32 | 3);
    }
}
