//! A ublk device: its control commands, its requests and their memory.
//!
//! It says when a request came and completes it when told; what a device does with a request is decided elsewhere (`ublk`).

use super::Buffer;
use super::memory::Pool;
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use program::{GATE_SIZE, IO_MAX};
use rustix::fd::{AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags, open};
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

/// Requests that the device holds at once: more than a program can have in flight, so that a held gate never turns anyone away.
const DEPTH: u16 = 128;
/// Longest request, in bytes.
const REQUEST_MAX: u32 = 64 << 10;
/// The device's number.
const ID: u32 = 0;
/// Where it appears.
pub const PATH: &str = "/dev/ublkb0";
const CHARACTER: &str = "/dev/ublkc0";
/// How long the character device may take to appear.
const APPEAR: Duration = Duration::from_secs(2);

/// `struct ublksrv_ctrl_cmd` (include/uapi/linux/ublk_cmd.h, 6.12)
#[repr(C)]
#[derive(Clone, Copy)]
struct ControlCommand {
    dev_id: u32,
    queue_id: u16,
    len: u16,
    addr: u64,
    data: u64,
    dev_path_len: u16,
    pad: u16,
    reserved: u32,
}

/// `struct ublksrv_ctrl_dev_info`
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct DeviceInfo {
    nr_hw_queues: u16,
    queue_depth: u16,
    state: u16,
    pad0: u16,
    max_io_buf_bytes: u32,
    dev_id: u32,
    ublksrv_pid: i32,
    pad1: u32,
    flags: u64,
    ublksrv_flags: u64,
    owner_uid: u32,
    owner_gid: u32,
    reserved: [u64; 2],
}

/// `struct ublk_params` up to its basic part, the only one given.
#[repr(C)]
#[derive(Clone, Copy)]
struct Parameters {
    len: u32,
    types: u32,
    attrs: u32,
    logical_bs_shift: u8,
    physical_bs_shift: u8,
    io_opt_shift: u8,
    io_min_shift: u8,
    max_sectors: u32,
    chunk_sectors: u32,
    dev_sectors: u64,
    virt_boundary_mask: u64,
}

/// `struct ublksrv_io_desc`
#[repr(C)]
#[derive(Clone, Copy)]
struct Descriptor {
    op_flags: u32,
    nr_sectors: u32,
    start_sector: u64,
    addr: u64,
}

/// `struct ublksrv_io_cmd`
#[repr(C)]
struct IoCommand {
    q_id: u16,
    tag: u16,
    result: i32,
    addr: u64,
}

/// _IOWR('u', nr, struct ublksrv_ctrl_cmd)
const fn control(nr: u32) -> u32 {
    0xc000_0000 | ((size_of::<ControlCommand>() as u32) << 16) | ((b'u' as u32) << 8) | nr
}

/// _IOWR('u', nr, struct ublksrv_io_cmd)
const fn io(nr: u32) -> u32 {
    0xc000_0000 | ((size_of::<IoCommand>() as u32) << 16) | ((b'u' as u32) << 8) | nr
}

const ADD_DEV: u32 = control(0x04);
const START_DEV: u32 = control(0x06);
const SET_PARAMS: u32 = control(0x08);
const FETCH_REQ: u32 = io(0x20);
const COMMIT_AND_FETCH_REQ: u32 = io(0x21);
/// UBLK_F_CMD_IOCTL_ENCODE
const IOCTL_ENCODE: u64 = 1 << 6;

/// user_data of what is no request's.
const BELL: u64 = 1 << 32;
const CONTROL: u64 = BELL + 1;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Bytes of the device.
    Read,
    /// To keep these bytes.
    Write,
    /// Anything else: a device of ours announces no more.
    Other,
}

/// A request that waits to be settled.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Its place in the queue.
    pub tag: u16,
    /// What it asks for.
    pub op: Op,
    /// Where, in bytes.
    pub offset: u64,
    /// How much, in bytes.
    pub len: usize,
}

/// Why the server woke.
#[derive(Clone, Copy, Debug)]
pub enum Wake {
    /// A request came.
    Request(Request),
    /// Somebody rang.
    Bell,
    /// The device is there (0), or could not be started (the errno).
    Started(i32),
}

/// The device, for the process and thread that serves it.
pub struct Device {
    control: IoUring<squeue::Entry128, cqueue::Entry>,
    queue: IoUring,
    control_file: OwnedFd,
    character: OwnedFd,
    descriptors: *const Descriptor,
    buffers: Vec<Buffer>,
    bell: OwnedFd,
    rung: Box<u64>,
}

fn ring(entries: u32) -> Result<IoUring, String> {
    IoUring::new(entries).map_err(|e| format!("io_uring_setup: {e}"))
}

impl Device {
    /// Adds the device and offers to serve its requests; whether it started comes as a `Wake`. `bell` is an eventfd.
    pub fn new(bell: OwnedFd) -> Result<Device, String> {
        let file = |path| open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
        let control_file = file("/dev/ublk-control").map_err(|e| format!("ublk-control: {e}"))?;
        let mut control = IoUring::<squeue::Entry128, cqueue::Entry>::builder()
            .build(4)
            .map_err(|e| format!("io_uring_setup: {e}"))?;
        let info = DeviceInfo {
            nr_hw_queues: 1,
            queue_depth: DEPTH,
            max_io_buf_bytes: REQUEST_MAX,
            dev_id: ID,
            flags: IOCTL_ENCODE,
            ..DeviceInfo::default()
        };
        command(&mut control, &control_file, ADD_DEV, &raw const info, 0)?;
        let parameters = Parameters {
            len: size_of::<Parameters>() as u32,
            types: 1,
            attrs: 0,
            logical_bs_shift: 9,
            physical_bs_shift: 9,
            io_opt_shift: 9,
            io_min_shift: 9,
            max_sectors: REQUEST_MAX >> 9,
            chunk_sectors: 0,
            dev_sectors: GATE_SIZE >> 9,
            virt_boundary_mask: 0,
        };
        command(&mut control, &control_file, SET_PARAMS, &raw const parameters, 0)?;
        let until = Instant::now() + APPEAR;
        let character = loop {
            match file(CHARACTER) {
                Ok(file) => break file,
                Err(error) if Instant::now() > until => {
                    return Err(format!("{CHARACTER}: {error}"));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        };
        let len = (usize::from(DEPTH) * size_of::<Descriptor>()).next_multiple_of(4096);
        // SAFETY: a null hint without MAP_FIXED replaces nothing; the driver shares its array of `DEPTH` descriptors.
        let descriptors = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                character.as_raw_fd(),
                0,
            )
        };
        if descriptors == libc::MAP_FAILED {
            return Err(format!("mmap of {CHARACTER}: {}", std::io::Error::last_os_error()));
        }
        let mut pool = Pool::default();
        let mut device = Device {
            control,
            queue: ring(256)?,
            control_file,
            character,
            descriptors: descriptors.cast(),
            buffers: (0..DEPTH)
                .map(|_| pool.take(REQUEST_MAX as usize).map_err(|e| e.to_string()))
                .collect::<Result<_, _>>()?,
            bell,
            rung: Box::new(0),
        };
        for tag in 0..DEPTH {
            device.io(FETCH_REQ, tag, 0)?;
        }
        device.listen()?;
        // It waits for the offers above, and then reads a partition table through them: nobody may wait for it here.
        let pid = u64::from(std::process::id());
        let start = request(&device.control_file, START_DEV, std::ptr::null::<u8>(), 0, pid);
        // SAFETY: the command points to nothing, and lies in the entry itself.
        unsafe { device.control.submission().push(&start) }.map_err(|e| e.to_string())?;
        device.control.submit().map_err(|e| format!("START_DEV: {e}"))?;
        let poll = opcode::PollAdd::new(types::Fd(device.control.as_raw_fd()), libc::POLLIN as u32)
            .build()
            .user_data(CONTROL);
        device.push(&poll)?;
        Ok(device)
    }

    fn push(&mut self, entry: &squeue::Entry) -> Result<(), String> {
        // SAFETY: what the entry points to belongs to `self`, which lives as long as the process.
        unsafe { self.queue.submission().push(entry) }.map_err(|e| e.to_string())
    }

    fn listen(&mut self) -> Result<(), String> {
        let read =
            opcode::Read::new(types::Fd(self.bell.as_raw_fd()), (&raw mut *self.rung).cast(), 8)
                .build()
                .user_data(BELL);
        self.push(&read)
    }

    fn io(&mut self, op: u32, tag: u16, result: i32) -> Result<(), String> {
        let addr = self.buffers[usize::from(tag)].span(0, 0).addr as u64;
        let command = IoCommand { q_id: 0, tag, result, addr };
        // SAFETY: both are sixteen bytes without padding.
        let bytes: [u8; 16] = unsafe { std::mem::transmute(command) };
        let entry = opcode::UringCmd16::new(types::Fd(self.character.as_raw_fd()), op)
            .cmd(bytes)
            .build()
            .user_data(tag.into());
        self.push(&entry)
    }

    /// Memory of a request: what it wants written, or where what it wants read goes.
    pub fn bytes(&mut self, request: &Request) -> &mut [u8] {
        &mut self.buffers[usize::from(request.tag)].bytes_mut()[..request.len]
    }

    /// Completes a request with so many bytes, or a negative errno, at the next `wait`.
    pub fn settle(&mut self, request: &Request, result: i32) -> Result<(), String> {
        self.io(COMMIT_AND_FETCH_REQ, request.tag, result)
    }

    /// Hands over what was settled, and waits for what comes next.
    pub fn wait(&mut self) -> Result<Vec<Wake>, String> {
        match self.queue.submit_and_wait(1) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
            Err(error) => return Err(format!("io_uring_enter: {error}")),
        }
        let arrived: Vec<(u64, i32)> =
            self.queue.completion().map(|c| (c.user_data(), c.result())).collect();
        let mut woken = Vec::new();
        for (data, result) in arrived {
            match data {
                BELL => {
                    woken.push(Wake::Bell);
                    self.listen()?;
                }
                CONTROL => {
                    let result = self.control.completion().next().map_or(0, |c| c.result());
                    woken.push(Wake::Started(-result));
                }
                // UBLK_IO_RES_ABORT: the device goes away.
                _ if result < 0 => return Err(format!("a request was taken back: {result}")),
                tag => {
                    // The driver fills the descriptor before it completes the offer.
                    fence(Ordering::Acquire);
                    // SAFETY: the array has `DEPTH` descriptors, and completions carry the tags that were offered.
                    let it = unsafe { self.descriptors.add(tag as usize).read_volatile() };
                    let op = match it.op_flags & 0xff {
                        0 => Op::Read,
                        1 => Op::Write,
                        _ => Op::Other,
                    };
                    let len = (u64::from(it.nr_sectors) << 9).min(REQUEST_MAX.into()) as usize;
                    woken.push(Wake::Request(Request {
                        tag: tag as u16,
                        op,
                        offset: it.start_sector << 9,
                        len,
                    }));
                }
            }
        }
        Ok(woken)
    }
}

const _: () = assert!(IO_MAX <= DEPTH as u64 * REQUEST_MAX as u64, "the longest I/O fits");

fn request<T>(
    file: &OwnedFd,
    op: u32,
    argument: *const T,
    len: usize,
    data: u64,
) -> squeue::Entry128 {
    let command = ControlCommand {
        dev_id: ID,
        queue_id: u16::MAX,
        len: len as u16,
        addr: argument as u64,
        data,
        dev_path_len: 0,
        pad: 0,
        reserved: 0,
    };
    let mut bytes = [0; 80];
    // SAFETY: the command is plain integers without padding, and shorter than what follows it.
    let raw: [u8; size_of::<ControlCommand>()] = unsafe { std::mem::transmute(command) };
    bytes[..raw.len()].copy_from_slice(&raw);
    opcode::UringCmd80::new(types::Fd(file.as_raw_fd()), op).cmd(bytes).build()
}

/// A control command, to its end.
fn command<T>(
    ring: &mut IoUring<squeue::Entry128, cqueue::Entry>,
    file: &OwnedFd,
    op: u32,
    argument: *const T,
    data: u64,
) -> Result<(), String> {
    let entry = request(file, op, argument, size_of::<T>(), data);
    // SAFETY: the argument outlives the call, which waits for the completion.
    unsafe { ring.submission().push(&entry) }.map_err(|e| e.to_string())?;
    ring.submit_and_wait(1).map_err(|e| format!("io_uring_enter: {e}"))?;
    match ring.completion().next().map(|c| c.result()) {
        Some(0) => Ok(()),
        Some(result) => Err(format!("ublk command {:#x}: errno {}", op & 0xff, -result)),
        None => Err("a ublk command without completion".into()),
    }
}

/// `eventfd(0, EFD_CLOEXEC)` — For the bell, and a copy for whoever rings it.
pub fn bell() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    let bell = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?;
    // SAFETY: the descriptor is open.
    let copy = unsafe { BorrowedFd::borrow_raw(bell.as_raw_fd()) };
    Ok((rustix::io::fcntl_dupfd_cloexec(copy, 0)?, bell))
}
