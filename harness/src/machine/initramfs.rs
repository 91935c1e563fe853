//! The initramfs of a guest: the agent, the modules, and two lists that tell the agent what to load and to mount.
//!
//! The same inputs give the same bytes, because the snapshot's name depends on them.

use super::cpio::Archive;
use super::image::Image;
use super::kernel::Kernel;
use super::modules::{self, Modules};
use super::{agent, infra};
use crate::target::TargetError;
use std::fmt::Write;

/// A module that failed to load does not stop the agent if its line begins with this.
const OPTIONAL: char = '-';

/// Makes the initramfs of a kernel with an image.
pub fn build(kernel: &Kernel, image: &Image) -> Result<Vec<u8>, TargetError> {
    let mut archive = Archive::default();
    for directory in ["dev", "proc", "sys", "mnt", "tmp", "modules"] {
        archive.directory(directory);
    }
    // PID 1 gets its standard streams from here.
    archive.device("dev/console", 5, 1);
    archive.file("init", 0o755, agent::ELF);

    let index = Modules::open(kernel.modules.as_deref())?;
    let wanted = [modules::BASE, image.pmem.modules(), modules::EXTRA].concat();
    let required =
        index.closure(&wanted.iter().copied().filter(|w| w.required).collect::<Vec<_>>());
    let required = required
        .map_err(|e| TargetError::Boot { kernel: kernel.name.clone(), what: e.to_string() })?;
    let mut list = String::new();
    for path in index.closure(&wanted)? {
        let file =
            path.file_name().and_then(|n| n.to_str()).ok_or_else(|| infra("odd module name"))?;
        // In the guest all are plain, whatever they were packed with.
        let name = file.split_once(".ko").map_or(file, |(stem, _)| stem);
        let name = format!("modules/{name}.ko");
        archive.file(&name, 0o644, &modules::load(&path)?);
        if !required.contains(&path) {
            list.push(OPTIONAL);
        }
        let _ = writeln!(list, "/{name}");
    }
    archive.file("modules.list", 0o644, list.as_bytes());
    archive.file("mounts.list", 0o644, image.mounts_list().as_bytes());
    Ok(archive.finish())
}
