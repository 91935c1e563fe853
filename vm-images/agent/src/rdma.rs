//! The soft-RoCE device, and what a process has of it: an open file, a protection domain, memory regions.
//!
//! The device is made once, at boot, on the loopback interface, through which its packets come back to it. A file belongs to the
//! process that opened it (include/rdma/ib.h:ib_safe_file_access, 6.12 and 6.1, asks for the same credentials), so each opens its own.

use crate::sys::verbs::{Connection, Gid, Opcode, Side, loopback_up};
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

/// Its addresses: what the interface's become.
const GIDS: &str = "/sys/class/infiniband/pinfuzz0/ports/1/gids";
/// How many of them are looked at: the loopback interface has one of each family.
const GIDS_MAX: u8 = 8;
/// How long a transfer may take: the device tries eight times, once a second.
const TRANSFER: Duration = Duration::from_secs(15);
/// How often a completion is looked for, once it is late.
const POLL: Duration = Duration::from_micros(50);
/// For how long it is looked for all the time.
const SPIN: Duration = Duration::from_micros(200);

/// Makes the device. An error where the kernel has no soft-RoCE.
pub fn make_device() -> Result<(), Errno> {
    // Without an address the device has regions all the same, and no connections.
    let any = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None);
    let _ = any.map_err(sys::errno).and_then(|socket| loopback_up(&socket));
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

/// The device's address that is the loopback interface's IPv4 one: `::ffff:127.0.0.1`.
fn gid() -> Option<Gid> {
    let wanted: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1];
    let is_it = |index: &u8| {
        let text = std::fs::read_to_string(format!("{GIDS}/{index}")).unwrap_or_default();
        let found = text.trim().split(':').filter_map(|word| u16::from_str_radix(word, 16).ok());
        found.flat_map(u16::to_be_bytes).eq(wanted)
    };
    (0..GIDS_MAX).find(is_it).map(|index| (index, wanted))
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
    gid: Option<Gid>,
}

impl Verbs {
    /// `open(uverbs0)`, and a protection domain.
    pub fn open() -> Result<Verbs, Errno> {
        let file = open(PATH, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(sys::errno)?;
        let domain = rdma::domain(file.as_fd())? as u32;
        Ok(Verbs { file, domain, gid: gid() })
    }

    /// A connection for one transfer. An error where the device cannot be connected with itself.
    pub fn connect(&self) -> Result<Connection<'_>, Errno> {
        let gid = self.gid.ok_or(Errno(libc::EADDRNOTAVAIL))?;
        Connection::new(self.file.as_fd(), self.domain, gid)
    }
}

/// Asks for a transfer and waits for its completion: how many bytes it was, or what its status stands for (`program::Call::RdmaWrite`).
pub fn transfer(
    connection: &Connection<'_>,
    opcode: Opcode,
    near: Side,
    far: Side,
    len: u64,
) -> CallResult {
    connection.post(opcode, near, far, len as u32)?;
    let began = Instant::now();
    loop {
        if let Some(status) = connection.completed() {
            // enum ib_wc_status
            return match status {
                0 => Ok(len),
                4 => Err(Errno(libc::EFAULT)),
                10 => Err(Errno(libc::EACCES)),
                12 => Err(Errno(libc::ETIMEDOUT)),
                _ => Err(Errno(libc::EIO)),
            };
        }
        match began.elapsed() {
            time if time > TRANSFER => return Err(Errno(libc::ETIMEDOUT)),
            time if time > SPIN => std::thread::sleep(POLL),
            _ => std::hint::spin_loop(),
        }
    }
}

/// A memory region.
#[derive(Debug)]
pub struct Region {
    verbs: Arc<Verbs>,
    keys: rdma::Registered,
    start: u64,
    len: u64,
}

impl Region {
    /// IB_USER_VERBS_CMD_REG_MR
    pub fn register(verbs: &Arc<Verbs>, span: Span, access: RegionAccess) -> Result<Region, Errno> {
        let keys = rdma::register(verbs.file.as_fd(), verbs.domain, span, access)?;
        let (start, len) = (span.start(), span.len() as u64);
        Ok(Region { verbs: verbs.clone(), keys, start, len })
    }

    /// A part of it, as the side that asks for a transfer and as the other one; none if it is not inside.
    pub fn sides(&self, offset: u64, len: u64) -> Option<(Side, Side)> {
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.len);
        let side = |key| Side { addr: self.start + offset, key };
        inside.then(|| (side(self.keys.lkey), side(self.keys.rkey)))
    }

    /// IB_USER_VERBS_CMD_DEREG_MR
    pub fn deregister(self) -> CallResult {
        rdma::deregister(self.verbs.file.as_fd(), self.keys.mr_handle)
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
