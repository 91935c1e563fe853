//! Which slots a call uses, in the order of its text form.
//!
//! It does not resolve them: that needs a process.

use program::{Buf, Call, FileSlot, MapSlot, PipeSlot};

/// A slot that a call needs filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Used {
    /// An open file.
    File(FileSlot),
    /// A mapping.
    Map(MapSlot),
    /// A pipe.
    Pipe(PipeSlot),
}

/// The slots that `call` uses (not the one it fills).
pub(super) fn used(call: &Call) -> Vec<Used> {
    let mut slots = Vec::with_capacity(2);
    let file = |slots: &mut Vec<Used>, f: &FileSlot| slots.push(Used::File(*f));
    match call {
        Call::Open { .. }
        | Call::Unlink { .. }
        | Call::Rename { .. }
        | Call::Link { .. }
        | Call::Truncate { .. }
        | Call::Pipe { .. }
        | Call::Fork { .. }
        | Call::Exit
        | Call::DropCaches
        | Call::IoUringSetup { .. }
        | Call::Wait { .. } => {}
        Call::Close { file: f }
        | Call::Dup { file: f, .. }
        | Call::Lseek { file: f, .. }
        | Call::Mmap { file: f, .. }
        | Call::Ftruncate { file: f, .. }
        | Call::Fallocate { file: f, .. }
        | Call::Fsync { file: f }
        | Call::Fdatasync { file: f }
        | Call::SyncFileRange { file: f, .. }
        | Call::Syncfs { file: f }
        | Call::Statx { file: f }
        | Call::Fiemap { file: f } => file(&mut slots, f),
        Call::Pread { file: f, buf, .. } | Call::Pwrite { file: f, buf, .. } => {
            file(&mut slots, f);
            slots.extend(map_of(*buf));
        }
        Call::Preadv { file: f, iov, .. }
        | Call::Pwritev { file: f, iov, .. }
        | Call::Readv { file: f, iov }
        | Call::Writev { file: f, iov } => {
            file(&mut slots, f);
            slots.extend(iov.iter().filter_map(|(buf, _)| map_of(*buf)));
        }
        Call::Munmap { map }
        | Call::Mremap { map, .. }
        | Call::Mprotect { map, .. }
        | Call::Load { map, .. }
        | Call::Store { map, .. }
        | Call::Msync { map, .. }
        | Call::Madvise { map, .. } => slots.push(Used::Map(*map)),
        Call::Ficlone { dst, src }
        | Call::Ficlonerange { dst, src, .. }
        | Call::Sendfile { dst, src, .. } => {
            file(&mut slots, dst);
            file(&mut slots, src);
        }
        Call::Fideduperange { src, dst, .. } | Call::CopyFileRange { src, dst, .. } => {
            file(&mut slots, src);
            file(&mut slots, dst);
        }
        Call::SpliceToPipe { file: f, pipe, .. } => {
            file(&mut slots, f);
            slots.push(Used::Pipe(*pipe));
        }
        Call::SpliceFromPipe { pipe, file: f, .. } => {
            slots.push(Used::Pipe(*pipe));
            file(&mut slots, f);
        }
        _ => {}
    }
    slots
}

fn map_of(buf: Buf) -> Option<Used> {
    match buf {
        Buf::Anon(_) => None,
        Buf::Map(map, _) => Some(Used::Map(map)),
    }
}
