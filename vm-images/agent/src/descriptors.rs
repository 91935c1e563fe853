//! Descriptors on their way through a socket: each program has one pair, which its children share.

use crate::slots::Handle;
use program::{GateSlot, Mount};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::{Errno, IoSlice, IoSliceMut};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use std::mem::MaybeUninit;
use std::sync::Arc;

/// Both ends.
#[derive(Debug)]
pub struct Sockets {
    send: OwnedFd,
    receive: OwnedFd,
}

impl Sockets {
    /// `socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK)` — A message is one descriptor; an empty socket is EAGAIN.
    pub fn new() -> rustix::io::Result<Sockets> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (send, receive) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok(Sockets { send, receive })
    }

    /// `sendmsg(socket, SCM_RIGHTS)` — Sends the open file of `fd`, and tells what it is.
    pub fn send(&self, handle: &Handle, fd: &OwnedFd) -> rustix::io::Result<()> {
        let mount = Mount::ALL.iter().position(|m| *m == handle.mount).unwrap_or(0) as u8;
        let what = [mount, handle.gate.map_or(0, |gate| gate.0 + 1)];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut rights = SendAncillaryBuffer::new(&mut space);
        let fds = [fd.as_fd()];
        rights.push(SendAncillaryMessage::ScmRights(&fds));
        sendmsg(&self.send, &[IoSlice::new(&what)], &mut rights, SendFlags::NOSIGNAL).map(drop)
    }

    /// `recvmsg(socket, MSG_CMSG_CLOEXEC)` — The oldest open file that was sent.
    pub fn receive(&self) -> rustix::io::Result<Arc<Handle>> {
        let mut what = [0; 2];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut rights = RecvAncillaryBuffer::new(&mut space);
        recvmsg(
            &self.receive,
            &mut [IoSliceMut::new(&mut what)],
            &mut rights,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        let fd = rights.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        // The kernel drops what finds no room in the receiver's table.
        let fd = fd.ok_or(Errno::MFILE)?;
        let mount = Mount::ALL[usize::from(what[0]) % Mount::ALL.len()];
        Ok(match what[1] {
            0 => Handle::new(fd, mount),
            gate => Handle::of_gate(fd, mount, GateSlot(gate - 1)),
        })
    }
}
