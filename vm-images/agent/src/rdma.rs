//! The soft-RoCE device, and what a process has of it: an open file, a protection domain, memory regions.
//!
//! The device is made once, at boot, on the loopback interface: regions pin pages whether anything can be sent or not. A file belongs to the
//! process that opened it (include/rdma/ib.h:ib_safe_file_access, 6.12 and 6.1, asks for the same credentials), so each opens its own.

use crate::sys::{self, Span, rdma};
use history::{CallResult, Errno};
use program::RegionAccess;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags, access, open};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The device's file.
const PATH: &str = "/dev/infiniband/uverbs0";
/// How long it may take to appear once the device is made.
const APPEAR: Duration = Duration::from_secs(2);
/// RDMA_NL_GET_TYPE(RDMA_NL_NLDEV, RDMA_NLDEV_CMD_NEWLINK)
const NEWLINK: u16 = (5 << 10) + 3;
/// NLM_F_REQUEST | NLM_F_ACK
const ASK: u16 = 1 | 4;
/// RDMA_NLDEV_ATTR_DEV_NAME, _NDEV_NAME and _LINK_TYPE with what they are to be.
const ATTRIBUTES: [(u16, &str); 3] = [(2, "pinfuzz0"), (51, "lo"), (65, "rxe")];

/// Makes the device. An error where the kernel has no soft-RoCE.
pub fn make_device() -> Result<(), Errno> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(netlink::RDMA),
    )
    .map_err(sys::errno)?;
    send(&socket, &new_link(), SendFlags::empty()).map_err(sys::errno)?;
    let mut answer = [0; 64];
    let (_, got) = recv(&socket, &mut answer, RecvFlags::empty()).map_err(sys::errno)?;
    // `struct nlmsghdr`, then the error of `struct nlmsgerr`.
    let error = answer[..got.min(answer.len())].get(16..20).and_then(|e| e.try_into().ok());
    match error.map(i32::from_le_bytes) {
        Some(0) => {}
        Some(error) => return Err(Errno(-error)),
        None => return Err(Errno(libc::EPROTO)),
    }
    let until = Instant::now() + APPEAR;
    while !exists() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(1));
    }
    if exists() { Ok(()) } else { Err(Errno(libc::ENODEV)) }
}

/// Whether the guest has the device.
pub fn exists() -> bool {
    access(PATH, rustix::fs::Access::EXISTS).is_ok()
}

/// The message that asks for it.
fn new_link() -> Vec<u8> {
    let mut message = vec![0; 16];
    for (kind, text) in ATTRIBUTES {
        // With the zero at its end.
        let len = 4 + text.len() as u16 + 1;
        message.extend(len.to_le_bytes());
        message.extend(kind.to_le_bytes());
        message.extend(text.as_bytes());
        message.push(0);
        message.resize(message.len().next_multiple_of(4), 0);
    }
    let len = message.len() as u32;
    message[..4].copy_from_slice(&len.to_le_bytes());
    message[4..6].copy_from_slice(&NEWLINK.to_le_bytes());
    message[6..8].copy_from_slice(&ASK.to_le_bytes());
    message
}

/// The device, opened by a process for its regions.
#[derive(Debug)]
pub struct Verbs {
    file: OwnedFd,
    domain: u32,
}

impl Verbs {
    /// `open(uverbs0)`, and a protection domain.
    pub fn open() -> Result<Verbs, Errno> {
        let file = open(PATH, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(sys::errno)?;
        let domain = rdma::domain(file.as_fd())? as u32;
        Ok(Verbs { file, domain })
    }
}

/// A memory region.
#[derive(Debug)]
pub struct Region {
    verbs: Arc<Verbs>,
    handle: u32,
}

impl Region {
    /// IB_USER_VERBS_CMD_REG_MR
    pub fn register(verbs: &Arc<Verbs>, span: Span, access: RegionAccess) -> Result<Region, Errno> {
        let handle = rdma::register(verbs.file.as_fd(), verbs.domain, span, access)?;
        Ok(Region { verbs: verbs.clone(), handle })
    }

    /// IB_USER_VERBS_CMD_DEREG_MR
    pub fn deregister(self) -> CallResult {
        rdma::deregister(self.verbs.file.as_fd(), self.handle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_is_aligned_and_says_how_long_it_is() {
        let message = new_link();
        assert_eq!(message.len() % 4, 0);
        assert_eq!(message[..4], (message.len() as u32).to_le_bytes());
        assert_eq!(message[16..20], [13, 0, 2, 0]);
        assert_eq!(&message[20..29], b"pinfuzz0\0");
        assert_eq!(message[32..36], [7, 0, 51, 0]);
    }
}
