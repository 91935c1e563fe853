//! Queue pairs of the soft-RoCE device: the commands that make them, and the queues that they share with the kernel.
//!
//! A request is laid into the send queue, which is memory of the kernel's, and IB_USER_VERBS_CMD_POST_SEND only says that there is one; what became of
//! it is found in the completion queue (include/uapi/rdma/rdma_user_rxe.h, drivers/infiniband/sw/rxe/rxe_verbs.c:rxe_post_send, rxe_queue.h, 6.12 and
//! 6.1).

use super::rdma::{Header, command, header};
use super::result;
use history::{CallResult, Errno};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::sync::atomic::{AtomicU32, Ordering};

/// IB_USER_VERBS_CMD_CREATE_CQ
const CREATE_CQ: u32 = 18;
/// IB_USER_VERBS_CMD_DESTROY_CQ
const DESTROY_CQ: u32 = 20;
/// IB_USER_VERBS_CMD_CREATE_QP
const CREATE_QP: u32 = 24;
/// IB_USER_VERBS_CMD_MODIFY_QP
const MODIFY_QP: u32 = 26;
/// IB_USER_VERBS_CMD_DESTROY_QP
const DESTROY_QP: u32 = 27;
/// IB_USER_VERBS_CMD_POST_SEND
const POST_SEND: u32 = 28;
/// IB_QPT_RC
const RC: u8 = 2;
/// IB_SEND_SIGNALED
const SIGNALED: u32 = 2;
/// IB_ACCESS_LOCAL_WRITE | IB_ACCESS_REMOTE_WRITE | IB_ACCESS_REMOTE_READ
const ALL_ACCESS: u32 = 7;
/// Requests that a queue has room for: each of ours has one.
const DEPTH: u32 = 4;
/// IB_MTU_1024
const MTU: u8 = 3;
/// Offset of `producer_index` in `struct rxe_queue_buf`.
const PRODUCER: usize = 128;
/// Offset of `consumer_index`.
const CONSUMER: usize = 256;
/// Offset of `data`.
const DATA: usize = 384;

/// `struct mminfo`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct MmInfo {
    offset: u64,
    size: u32,
    pad: u32,
}

/// `struct ib_uverbs_create_cq` with its header.
#[repr(C)]
struct CreateCq {
    header: Header,
    user_handle: u64,
    cqe: u32,
    comp_vector: u32,
    comp_channel: i32,
    reserved: u32,
}

/// `struct ib_uverbs_create_cq_resp` and `struct rxe_create_cq_resp`
#[repr(C)]
#[derive(Default)]
struct CreatedCq {
    cq_handle: u32,
    cqe: u32,
    queue: MmInfo,
}

/// `struct ib_uverbs_create_qp` with its header.
#[repr(C)]
struct CreateQp {
    header: Header,
    user_handle: u64,
    pd_handle: u32,
    send_cq_handle: u32,
    recv_cq_handle: u32,
    srq_handle: u32,
    max_send_wr: u32,
    max_recv_wr: u32,
    max_send_sge: u32,
    max_recv_sge: u32,
    max_inline_data: u32,
    sq_sig_all: u8,
    qp_type: u8,
    is_srq: u8,
    reserved: u8,
}

/// `struct ib_uverbs_create_qp_resp` and `struct rxe_create_qp_resp`
#[repr(C)]
#[derive(Default)]
struct CreatedQp {
    qp_handle: u32,
    qpn: u32,
    caps: [u32; 5],
    reserved: u32,
    receive: MmInfo,
    send: MmInfo,
}

/// `struct ib_uverbs_qp_dest`
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Destination {
    dgid: [u8; 16],
    flow_label: u32,
    dlid: u16,
    reserved: u16,
    sgid_index: u8,
    hop_limit: u8,
    traffic_class: u8,
    sl: u8,
    src_path_bits: u8,
    static_rate: u8,
    is_global: u8,
    port_num: u8,
}

/// `struct ib_uverbs_modify_qp` with its header, which has no place for an answer.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct ModifyQp {
    command: u32,
    in_words: u16,
    out_words: u16,
    dest: Destination,
    alt_dest: Destination,
    qp_handle: u32,
    attr_mask: u32,
    qkey: u32,
    rq_psn: u32,
    sq_psn: u32,
    dest_qp_num: u32,
    qp_access_flags: u32,
    pkey_index: u16,
    alt_pkey_index: u16,
    qp_state: u8,
    cur_qp_state: u8,
    path_mtu: u8,
    path_mig_state: u8,
    en_sqd_async_notify: u8,
    max_rd_atomic: u8,
    max_dest_rd_atomic: u8,
    min_rnr_timer: u8,
    port_num: u8,
    timeout: u8,
    retry_cnt: u8,
    rnr_retry: u8,
    alt_port_num: u8,
    alt_timeout: u8,
    reserved: [u8; 2],
}

/// `struct ib_uverbs_destroy_cq` or `_qp` with its header.
#[repr(C)]
struct Destroy {
    header: Header,
    handle: u32,
    reserved: u32,
}

/// `struct ib_uverbs_post_send` with its header and no request.
#[repr(C)]
struct PostSend {
    header: Header,
    qp_handle: u32,
    wr_count: u32,
    sge_count: u32,
    wqe_size: u32,
}

/// `struct rxe_send_wqe` with one `struct rxe_sge`. Its union `wr` is that of RDMA, with room for the largest.
#[repr(C)]
#[derive(Clone, Copy)]
struct SendWqe {
    wr_id: u64,
    reserved: u32,
    opcode: u32,
    send_flags: u32,
    imm_data: u32,
    remote_addr: u64,
    rkey: u32,
    rest: [u32; 27],
    status: u32,
    state: u32,
    iova: u64,
    /// mask, first_psn, last_psn, ack_length, ssn, has_rd_atomic: the kernel's.
    own: [u32; 6],
    length: u32,
    resid: u32,
    cur_sge: u32,
    num_sge: u32,
    sge_offset: u32,
    reserved_dma: u32,
    sge_addr: u64,
    sge_length: u32,
    sge_lkey: u32,
}

/// IBV_WR_RDMA_WRITE and IBV_WR_RDMA_READ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// IB_WR_RDMA_WRITE
    Write = 0,
    /// IB_WR_RDMA_READ
    Read = 4,
}

/// One side of a transfer: an address in a memory region, and the region's key.
#[derive(Clone, Copy, Debug)]
pub struct Side {
    /// The device's address, which is the process's.
    pub addr: u64,
    /// lkey or rkey.
    pub key: u32,
}

/// A queue that the kernel shares: `struct rxe_queue_buf`.
#[derive(Debug)]
struct Queue {
    addr: usize,
    len: usize,
}

impl Queue {
    /// `mmap(uverbs, size, RW, MAP_SHARED, offset)`
    fn new(uverbs: BorrowedFd<'_>, at: MmInfo) -> Result<Queue, Errno> {
        let len = at.size as usize;
        if len < DATA {
            return Err(Errno(libc::EPROTO));
        }
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a null hint without MAP_FIXED replaces nothing.
        let addr =
            unsafe { mmap(std::ptr::null_mut(), len, prot, MapFlags::SHARED, uverbs, at.offset) };
        Ok(Queue { addr: addr.map_err(super::errno)? as usize, len })
    }

    fn word(&self, offset: usize) -> &AtomicU32 {
        assert!(offset + 4 <= self.len && offset.is_multiple_of(4), "inside the queue");
        // SAFETY: mapped for `len` bytes for as long as `self` lives, aligned, and shared with the kernel behind atomics only.
        unsafe { &*((self.addr + offset) as *const AtomicU32) }
    }

    /// Where the element of an index lies.
    fn element(&self, index: u32) -> usize {
        let (log2, mask) = (self.word(0), self.word(4).load(Ordering::Relaxed));
        DATA + (((index & mask) as usize) << log2.load(Ordering::Relaxed).min(16))
    }

    fn next(&self, index: u32) -> u32 {
        (index + 1) & self.word(4).load(Ordering::Relaxed)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and no reference to it outlives `self`.
        let _ = unsafe { munmap(self.addr as *mut _, self.len) };
    }
}

/// A connection of two queue pairs, of which the near one is asked for transfers, and their completion queue. Two, for one that is connected with itself is
/// in error as soon as its far side refuses something, and its near side hears of a flush rather than of the refusal
/// (drivers/infiniband/sw/rxe/rxe_resp.c:rxe_receiver, RESPST_ERROR, 6.12 and 6.1).
#[derive(Debug)]
pub struct Connection<'a> {
    uverbs: BorrowedFd<'a>,
    cq: u32,
    completions: Queue,
    near: Option<Pair>,
    far: Option<Pair>,
}

/// A queue pair. Its handle and number are the device's.
#[derive(Debug)]
struct Pair {
    handle: u32,
    number: u32,
    sends: MmInfo,
}

/// The address of the device itself: its index in the table of port 1, and what is there.
pub type Gid = (u8, [u8; 16]);

impl<'a> Connection<'a> {
    /// IB_USER_VERBS_CMD_CREATE_CQ, _CREATE_QP, and _MODIFY_QP to INIT, RTR and RTS.
    pub fn new(uverbs: BorrowedFd<'a>, domain: u32, gid: Gid) -> Result<Connection<'a>, Errno> {
        let mut created = CreatedCq::default();
        let header_cq = header::<CreateCq, _>(CREATE_CQ, &mut created);
        let request = CreateCq {
            header: header_cq,
            user_handle: 0,
            cqe: DEPTH,
            comp_vector: 0,
            comp_channel: -1,
            reserved: 0,
        };
        command(uverbs, &request)?;
        let completions = match Queue::new(uverbs, created.queue) {
            Ok(queue) => queue,
            Err(error) => {
                destroy::<[u32; 2]>(uverbs, DESTROY_CQ, created.cq_handle);
                return Err(error);
            }
        };
        let cq = created.cq_handle;
        let mut both = Connection { uverbs, cq, completions, near: None, far: None };
        let near = both.near.insert(Pair::new(uverbs, domain, cq)?);
        let far = both.far.insert(Pair::new(uverbs, domain, cq)?);
        for (pair, peer) in [(&*near, &*far), (&*far, &*near)] {
            for step in steps(pair.handle, peer.number, gid) {
                command(uverbs, &step)?;
            }
        }
        Ok(both)
    }

    /// Asks for a transfer.
    pub fn post(&self, opcode: Opcode, near: Side, far: Side, len: u32) -> CallResult {
        let pair = self.near.as_ref().ok_or(Errno(libc::EINVAL))?;
        pair.post(self.uverbs, opcode, near, far, len)
    }

    /// How the request completed (enum ib_wc_status), if it has.
    pub fn completed(&self) -> Option<u32> {
        let consumer = self.completions.word(CONSUMER);
        let index = consumer.load(Ordering::Relaxed);
        if self.completions.word(PRODUCER).load(Ordering::Acquire) == index {
            return None;
        }
        // `status` of `struct ib_uverbs_wc`.
        let status = self.completions.word(self.completions.element(index) + 8);
        let status = status.load(Ordering::Relaxed);
        consumer.store(self.completions.next(index), Ordering::Release);
        Some(status)
    }
}

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        for pair in [self.near.take(), self.far.take()].into_iter().flatten() {
            destroy::<u32>(self.uverbs, DESTROY_QP, pair.handle);
        }
        destroy::<[u32; 2]>(self.uverbs, DESTROY_CQ, self.cq);
    }
}

impl Pair {
    /// IB_USER_VERBS_CMD_CREATE_QP
    fn new(uverbs: BorrowedFd<'_>, domain: u32, cq: u32) -> Result<Pair, Errno> {
        let mut created = CreatedQp::default();
        let header_qp = header::<CreateQp, _>(CREATE_QP, &mut created);
        let request = CreateQp {
            header: header_qp,
            user_handle: 0,
            pd_handle: domain,
            send_cq_handle: cq,
            recv_cq_handle: cq,
            srq_handle: 0,
            max_send_wr: DEPTH,
            max_recv_wr: DEPTH,
            max_send_sge: 1,
            max_recv_sge: 1,
            max_inline_data: 0,
            sq_sig_all: 0,
            qp_type: RC,
            is_srq: 0,
            reserved: 0,
        };
        command(uverbs, &request)?;
        let CreatedQp { qp_handle: handle, qpn: number, send: sends, .. } = created;
        Ok(Pair { handle, number, sends })
    }

    /// Lays the request into the send queue and says so.
    fn post(
        &self,
        uverbs: BorrowedFd<'_>,
        opcode: Opcode,
        near: Side,
        far: Side,
        len: u32,
    ) -> CallResult {
        let queue = Queue::new(uverbs, self.sends)?;
        let wqe = SendWqe {
            wr_id: 1,
            reserved: 0,
            opcode: opcode as u32,
            send_flags: SIGNALED,
            imm_data: 0,
            remote_addr: far.addr,
            rkey: far.key,
            rest: [0; 27],
            status: 0,
            state: 0,
            iova: far.addr,
            own: [0; 6],
            length: len,
            resid: len,
            cur_sge: 0,
            num_sge: 1,
            sge_offset: 0,
            reserved_dma: 0,
            sge_addr: near.addr,
            sge_length: len,
            sge_lkey: near.key,
        };
        let producer = queue.word(PRODUCER).load(Ordering::Relaxed);
        let at = queue.element(producer);
        assert!(at + size_of::<SendWqe>() <= queue.len, "an element is in its queue");
        // SAFETY: inside the queue, aligned to 64 bytes, and the kernel does not look at it before the index below says so.
        unsafe { ((queue.addr + at) as *mut SendWqe).write(wqe) };
        queue.word(PRODUCER).store(queue.next(producer), Ordering::Release);
        let mut bad = 0u32;
        let header = header::<PostSend, _>(POST_SEND, &mut bad);
        // A request in the command itself would have to be this long at least; there is none.
        let wqe_size = 64;
        let request =
            PostSend { header, qp_handle: self.handle, wr_count: 0, sge_count: 0, wqe_size };
        command(uverbs, &request).map(|_| 0)
    }
}

/// Destroys one of the two; `A` is the answer, of which there is nothing to learn.
fn destroy<A: Default>(uverbs: BorrowedFd<'_>, what: u32, handle: u32) {
    let mut answer = A::default();
    let header = header::<Destroy, _>(what, &mut answer);
    let _ = command(uverbs, &Destroy { header, handle, reserved: 0 });
}

/// From RESET to RTS. The masks are those that each step needs (drivers/infiniband/core/verbs.c:qp_state_table, 6.12).
fn steps(qp_handle: u32, peer: u32, (sgid_index, dgid): Gid) -> [ModifyQp; 3] {
    const STATE: u32 = 1;
    const ACCESS_FLAGS: u32 = 1 << 3;
    const PKEY_INDEX: u32 = 1 << 4;
    const PORT: u32 = 1 << 5;
    const AV: u32 = 1 << 7;
    const PATH_MTU: u32 = 1 << 8;
    const TIMEOUT: u32 = 1 << 9;
    const RETRY_CNT: u32 = 1 << 10;
    const RNR_RETRY: u32 = 1 << 11;
    const RQ_PSN: u32 = 1 << 12;
    const MAX_QP_RD_ATOMIC: u32 = 1 << 13;
    const MIN_RNR_TIMER: u32 = 1 << 15;
    const SQ_PSN: u32 = 1 << 16;
    const MAX_DEST_RD_ATOMIC: u32 = 1 << 17;
    const DEST_QPN: u32 = 1 << 20;
    let plain = ModifyQp {
        command: MODIFY_QP,
        in_words: (size_of::<ModifyQp>() / 4) as u16,
        qp_handle,
        ..ModifyQp::default()
    };
    let dest =
        Destination { dgid, sgid_index, hop_limit: 1, is_global: 1, port_num: 1, ..plain.dest };
    let init = ModifyQp {
        attr_mask: STATE | PKEY_INDEX | PORT | ACCESS_FLAGS,
        qp_state: 1,
        port_num: 1,
        qp_access_flags: ALL_ACCESS,
        ..plain
    };
    let rtr = ModifyQp {
        attr_mask: STATE | AV | PATH_MTU | DEST_QPN | RQ_PSN | MAX_DEST_RD_ATOMIC | MIN_RNR_TIMER,
        qp_state: 2,
        dest,
        path_mtu: MTU,
        dest_qp_num: peer,
        max_dest_rd_atomic: 1,
        min_rnr_timer: 12,
        ..plain
    };
    let rts = ModifyQp {
        attr_mask: STATE | TIMEOUT | RETRY_CNT | RNR_RETRY | SQ_PSN | MAX_QP_RD_ATOMIC,
        qp_state: 3,
        // 4.096us << 18: a second until a packet is sent again.
        timeout: 18,
        retry_cnt: 7,
        rnr_retry: 7,
        max_rd_atomic: 1,
        ..plain
    };
    [init, rtr, rts]
}

/// `ioctl(socket, SIOCSIFFLAGS, IFF_UP)` — Switches the loopback interface on, which gives it its address.
pub fn loopback_up(socket: impl AsFd) -> CallResult {
    // SAFETY: all zeros is a value of this plain structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_LOOPBACK | libc::IFF_RUNNING) as i16;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the argument is of the type that the request names, and outlives the call.
    result(unsafe { libc::ioctl(fd, libc::SIOCSIFFLAGS as _, &raw const request) }.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    #[test]
    fn commands_and_requests_have_the_kernels_layout() {
        assert_eq!((size_of::<CreateCq>(), size_of::<CreatedCq>()), (40, 24));
        assert_eq!((size_of::<CreateQp>(), size_of::<CreatedQp>()), (64, 64));
        assert_eq!((size_of::<Destination>(), size_of::<ModifyQp>()), (32, 8 + 112));
        assert_eq!((size_of::<Destroy>(), size_of::<PostSend>()), (24, 32));
        assert_eq!((offset_of!(SendWqe, remote_addr), offset_of!(SendWqe, status)), (24, 144));
        assert_eq!((offset_of!(SendWqe, iova), offset_of!(SendWqe, length)), (152, 184));
        assert_eq!((offset_of!(SendWqe, sge_addr), size_of::<SendWqe>()), (208, 224));
    }
}
