//! What a kernel is expected to do where kernels differ: data, not code paths.

/// One table of expectations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Its name, such as `mainline-6.12`.
    pub name: &'static str,
    /// MAP_SYNC works on DAX files: the pmem device is synchronous (e820, NVDIMM; not virtio-pmem, drivers/dax/super.c, 6.12).
    pub map_sync: bool,
}

impl Policy {
    /// The policy for a kernel by its `uname -r`.
    pub fn for_release(release: &str) -> Policy {
        let name = if release.starts_with("6.1.") { "mainline-6.1" } else { "mainline-6.12" };
        Policy { name, map_sync: true }
    }
}
