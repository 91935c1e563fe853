//! What a kernel is expected to do where kernels differ: data, not code paths.

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
}

impl Known {
    /// The folder under `reports/findings`.
    pub const fn slug(self) -> &'static str {
        match self {
            Known::Ext4DaxFailedWriteSize => "ext4-dax-failed-write-moves-size",
            Known::DaxHoleReadFault => "dax-hole-read-into-bad-buffer-returns-0",
        }
    }
}

/// One table of expectations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Its name, such as `mainline-6.12`.
    pub name: &'static str,
    /// MAP_SYNC works on DAX files: the pmem device is synchronous (e820, NVDIMM; not virtio-pmem, drivers/dax/super.c, 6.12).
    pub map_sync: bool,
    /// What these kernels are known to do wrong.
    pub known: &'static [Known],
}

impl Policy {
    /// The policy for a kernel by its `uname -r`.
    pub fn for_release(release: &str) -> Policy {
        let known: &[Known] = &[Known::Ext4DaxFailedWriteSize, Known::DaxHoleReadFault];
        if release.starts_with("6.1.") {
            Policy { name: "mainline-6.1", map_sync: true, known }
        } else if release.starts_with("6.12.") {
            Policy { name: "mainline-6.12", map_sync: true, known }
        } else {
            Policy { name: "mainline", map_sync: true, known: &[] }
        }
    }

    /// Whether the kernel is known to do that.
    pub fn knows(&self, what: Known) -> bool {
        self.known.contains(&what)
    }
}
