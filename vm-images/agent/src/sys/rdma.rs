//! Memory regions of an RDMA device: the commands of /dev/infiniband/uverbs0 that take addresses.
//!
//! A command is written to the file, and the kernel writes the answer where the command says (include/uapi/rdma/ib_user_verbs.h, the same in
//! 6.1 and 6.12). Which process asks when is decided elsewhere (`rdma`).

use super::{Span, result};
use history::{CallResult, Errno};
use program::RegionAccess;
use rustix::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// IB_USER_VERBS_CMD_GET_CONTEXT
const GET_CONTEXT: u32 = 0;
/// IB_USER_VERBS_CMD_ALLOC_PD
const ALLOC_PD: u32 = 3;
/// IB_USER_VERBS_CMD_REG_MR
const REG_MR: u32 = 9;
/// IB_USER_VERBS_CMD_DEREG_MR
const DEREG_MR: u32 = 13;

/// `struct ib_uverbs_cmd_hdr`, and where the answer goes.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Header {
    command: u32,
    /// Length of the whole command, in words of four bytes.
    in_words: u16,
    /// Length of the answer, in the same.
    out_words: u16,
    response: u64,
}

/// `struct ib_uverbs_get_context_resp`
#[repr(C)]
#[derive(Default)]
struct Context {
    async_fd: u32,
    num_comp_vectors: u32,
}

/// `struct ib_uverbs_reg_mr` with its header.
#[repr(C)]
struct Register {
    header: Header,
    start: u64,
    length: u64,
    hca_va: u64,
    pd_handle: u32,
    access_flags: u32,
}

/// `struct ib_uverbs_reg_mr_resp`: a region's handle and its keys, for the near side of a transfer and the far one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Registered {
    /// What deregisters it.
    pub mr_handle: u32,
    /// For the side that asks.
    pub lkey: u32,
    /// For the other one.
    pub rkey: u32,
}

/// `struct ib_uverbs_dereg_mr` with its header.
#[repr(C)]
struct Deregister {
    command: u32,
    in_words: u16,
    out_words: u16,
    mr_handle: u32,
}

/// The header of a command of type `C` whose answer is an `A`.
pub(super) fn header<C, A>(command: u32, answer: &mut A) -> Header {
    Header {
        command,
        in_words: (size_of::<C>() / 4) as u16,
        out_words: (size_of::<A>() / 4) as u16,
        response: (&raw mut *answer) as u64,
    }
}

/// `write(uverbs, &command, sizeof(command))`
pub(super) fn command<C>(uverbs: BorrowedFd<'_>, command: &C) -> CallResult {
    // SAFETY: the command lives until the call is over, and so does its answer, which is as long as the header says and which the callers own.
    result(unsafe {
        libc::write(uverbs.as_raw_fd(), (&raw const *command).cast(), size_of::<C>()) as i64
    })
}

/// IB_USER_VERBS_CMD_GET_CONTEXT, IB_USER_VERBS_CMD_ALLOC_PD — Makes the open device ready for regions of this process. Returns the protection
/// domain.
pub fn domain(uverbs: BorrowedFd<'_>) -> CallResult {
    let mut context = Context::default();
    command(uverbs, &header::<Header, _>(GET_CONTEXT, &mut context))?;
    // SAFETY: the kernel has just opened this descriptor for us, and nobody else knows of it. Of its events there are none to see.
    drop(unsafe { OwnedFd::from_raw_fd(context.async_fd as i32) });
    let mut domain = 0u32;
    command(uverbs, &header::<Header, _>(ALLOC_PD, &mut domain))?;
    Ok(domain.into())
}

/// IB_USER_VERBS_CMD_REG_MR — Pins a range for the device.
pub fn register(
    uverbs: BorrowedFd<'_>,
    domain: u32,
    span: Span,
    access: RegionAccess,
) -> Result<Registered, Errno> {
    let mut registered = Registered::default();
    let header = header::<Register, _>(REG_MR, &mut registered);
    let (start, length) = (span.start(), span.len() as u64);
    // The device's addresses are the process's own.
    let (hca_va, access_flags) = (start, flags(access));
    command(uverbs, &Register { header, start, length, hca_va, pd_handle: domain, access_flags })?;
    Ok(registered)
}

/// IB_USER_VERBS_CMD_DEREG_MR — Unpins it.
pub fn deregister(uverbs: BorrowedFd<'_>, handle: u32) -> CallResult {
    let in_words = (size_of::<Deregister>() / 4) as u16;
    let request = Deregister { command: DEREG_MR, in_words, out_words: 0, mr_handle: handle };
    command(uverbs, &request).map(|_| 0)
}

/// IB_ACCESS_ flags: LOCAL_WRITE is 1, REMOTE_WRITE 2, REMOTE_READ 4. Reading on the near side needs none.
const fn flags(access: RegionAccess) -> u32 {
    match access {
        RegionAccess::Read => 4,
        RegionAccess::Write => 1 | 2 | 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_have_the_kernels_layout() {
        assert_eq!((size_of::<Header>(), size_of::<Register>()), (16, 48));
        assert_eq!((size_of::<Deregister>(), size_of::<Registered>()), (12, 12));
        assert_eq!(std::mem::offset_of!(Register, pd_handle), 40);
    }
}
