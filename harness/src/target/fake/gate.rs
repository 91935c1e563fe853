//! Gates: block devices whose I/O is held and released, and memory whose page faults are.
//!
//! A transfer pins the pages of its buffers, queues at its device and sleeps until the device is done with it. Devices are served by a task of
//! their own, which does one request, or one part of one, at a time. Page faults in the third gate's memory simply wait for it.

use super::buf::{Memory, Seg};
use super::bug::Bug;
use super::hold::{Ask, Part};
use super::rw::SECTOR;
use super::sched::Cx;
use super::world::errno::{EBADF, EFAULT, EINVAL, EIO, ENOSPC};
use super::world::{OpenFile, World};
use history::{Errno, stamp};
use program::{GATE_SIZE, GATES_MAX, GateSlot, Settle};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

/// Gates that are block devices.
const DEVICES: usize = GateSlot::MEMORY.0 as usize;

/// Memory of a transfer.
#[derive(Debug)]
enum Buffer {
    /// The call's own.
    Own(Vec<u8>),
    /// A pinned page.
    Page(Part),
}

impl Buffer {
    fn len(&self) -> usize {
        match self {
            Buffer::Own(data) => data.len(),
            Buffer::Page(part) => part.len,
        }
    }
}

/// A transfer to or from a device.
#[derive(Debug)]
struct Io {
    write: bool,
    at: u64,
    buffers: RefCell<Vec<Buffer>>,
    result: Cell<Option<Result<u64, Errno>>>,
    len: u64,
}

/// A piece of a transfer that its device is to do.
struct Piece {
    device: usize,
    io: Rc<Io>,
    from: u64,
    to: u64,
    fails: bool,
    last: bool,
}

/// All gates of one run.
pub(super) struct Gates {
    run: u32,
    held: [bool; GATES_MAX as usize],
    media: [Option<Vec<u8>>; DEVICES],
    queues: [Vec<Rc<Io>>; DEVICES],
    released: VecDeque<Piece>,
    over: bool,
}

impl Gates {
    /// Open, and full of what signs each device.
    pub fn new(run: u32) -> Gates {
        Gates {
            run,
            held: Default::default(),
            media: Default::default(),
            queues: Default::default(),
            released: VecDeque::new(),
            over: false,
        }
    }

    /// Whether it holds what goes through it.
    pub fn is_held(&self, gate: GateSlot) -> bool {
        self.held[usize::from(gate.0)]
    }

    /// Whether any does.
    pub fn any_held(&self) -> bool {
        self.held.contains(&true)
    }

    /// Settles everything, for good.
    pub fn end(&mut self) {
        self.over = true;
        for gate in 0..GATES_MAX {
            self.release(GateSlot(gate), Settle::Complete);
        }
    }

    /// Whether nothing can be held any more, because the program is over.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Holds from now on.
    pub fn hold(&mut self, gate: GateSlot) {
        self.held[usize::from(gate.0)] = true;
    }

    /// Settles what is held, and holds nothing any more.
    pub fn release(&mut self, gate: GateSlot, settle: Settle) {
        let device = usize::from(gate.0);
        self.held[device] = false;
        if device >= DEVICES {
            return;
        }
        let mut ios = std::mem::take(&mut self.queues[device]);
        if settle == Settle::Reverse {
            ios.reverse();
        }
        let piece = |io: &Rc<Io>, from, to| Piece {
            device,
            io: io.clone(),
            from,
            to,
            fails: settle == Settle::Fail,
            last: to == io.len,
        };
        if settle == Settle::Partial {
            let half = |io: &Rc<Io>| (io.len / 2).next_multiple_of(SECTOR);
            self.released.extend(ios.iter().map(|io| piece(io, 0, half(io))));
            let rest = ios.iter().filter(|io| half(io) < io.len);
            self.released.extend(rest.map(|io| piece(io, half(io), io.len)));
        } else {
            self.released.extend(ios.iter().map(|io| piece(io, 0, io.len)));
        }
    }

    fn media(&mut self, device: usize) -> &mut Vec<u8> {
        let run = self.run;
        self.media[device].get_or_insert_with(|| {
            let mut bytes = vec![0; GATE_SIZE as usize];
            stamp::sign(&mut bytes, run, stamp::call_gate(device as u8), 0);
            bytes
        })
    }

    /// Whether a device has something to do.
    pub fn has_work(&self) -> bool {
        let ready = |d: usize| !self.held[d] && !self.queues[d].is_empty();
        !self.released.is_empty() || (0..DEVICES).any(ready)
    }
}

impl World {
    /// Some device does its next piece.
    pub fn serve_devices(&mut self) {
        let ready: Vec<usize> = (0..DEVICES)
            .filter(|d| !self.gates.held[*d] && !self.gates.queues[*d].is_empty())
            .collect();
        let released = usize::from(!self.gates.released.is_empty());
        let choices = ready.len() + released;
        if choices == 0 {
            return;
        }
        let choice = self.rng.below(choices);
        let piece = match ready.get(choice) {
            None => self.gates.released.pop_front(),
            Some(&device) => {
                // Requests of different submitters overtake each other.
                let queue = &mut self.gates.queues[device];
                let io = queue.remove(self.rng.below(queue.len()));
                let len = io.len;
                Some(Piece { device, io, from: 0, to: len, fails: false, last: true })
            }
        };
        if let Some(piece) = piece {
            self.transfer(&piece);
        }
    }

    fn transfer(&mut self, piece: &Piece) {
        let Piece { device, io, from, to, fails, last } = piece;
        if *fails {
            let lost = self.has(Bug::GateErrorLost);
            io.result.set(Some(if lost { Ok(io.len) } else { Err(EIO) }));
            if self.has(Bug::PinLeakedOnError) {
                let parts = io.parts();
                self.leak(&parts);
            }
            return;
        }
        let mut begin = 0;
        for buffer in io.buffers.borrow_mut().iter_mut() {
            let end = begin + buffer.len() as u64;
            let (lo, hi) = (begin.max(*from), end.min(*to));
            if lo < hi {
                let skip = (lo - begin) as usize;
                let n = (hi - lo) as usize;
                let at = (io.at + lo) as usize;
                match (buffer, io.write) {
                    (Buffer::Own(data), false) => {
                        data[skip..skip + n]
                            .copy_from_slice(&self.gates.media(*device)[at..at + n]);
                    }
                    (Buffer::Own(data), true) => {
                        self.gates.media(*device)[at..at + n]
                            .copy_from_slice(&data[skip..skip + n]);
                    }
                    (Buffer::Page(part), false) => {
                        let bytes = self.gates.media(*device)[at..at + n].to_vec();
                        part.write(self, skip, &bytes);
                    }
                    (Buffer::Page(part), true) => {
                        let page = part.page(self);
                        let from = part.from + skip;
                        self.gates.media(*device)[at..at + n]
                            .copy_from_slice(&page[from..from + n]);
                    }
                }
            }
            begin = end;
        }
        if *last {
            let twice = self.has(Bug::PartialCountsTwice) && *from > 0;
            io.result.set(Some(Ok(if twice { io.len + from } else { io.len })));
        }
    }
}

impl Io {
    fn parts(&self) -> Vec<Part> {
        let buffers = self.buffers.borrow();
        let page = |b: &Buffer| match b {
            Buffer::Page(part) => Some(part.clone()),
            Buffer::Own(_) => None,
        };
        buffers.iter().filter_map(page).collect()
    }
}

/// O_DIRECT between a device and memory: how many bytes went.
pub(super) async fn transfer(
    cx: Cx<'_>,
    f: &OpenFile,
    gate: GateSlot,
    pos: u64,
    memory: &mut Memory,
    write: bool,
) -> Result<u64, Errno> {
    if !(if write { f.can_write() } else { f.can_read() }) {
        return Err(EBADF);
    }
    let asked = memory.len();
    if asked == 0 {
        return Ok(0);
    }
    if pos >= GATE_SIZE {
        return if write { Err(ENOSPC) } else { Ok(0) };
    }
    let len = asked.min(GATE_SIZE - pos);
    if !pos.is_multiple_of(SECTOR) || memory.is_misaligned_up_to(len) {
        return Err(EINVAL);
    }
    let (buffers, got) = pin(&mut cx.w(), memory, len, write);
    if got == 0 {
        return Err(EFAULT);
    }
    let io = Rc::new(Io {
        write,
        at: pos,
        buffers: RefCell::new(buffers),
        result: Cell::new(None),
        len: got,
    });
    {
        let mut w = cx.w();
        w.gates.queues[usize::from(gate.0)].push(io.clone());
        w.progress += 1;
    }
    cx.until("submit_bio_wait", |_| io.result.get().is_some()).await;
    let result = io.result.get().unwrap_or(Err(EIO));
    if got < len && cx.look().has(Bug::PinLeakedOnShort) {
        let parts = io.parts();
        cx.w().leak(&parts);
    }
    give_back(memory, &io, result.unwrap_or(0));
    result
}

/// Pins the pages of a transfer, up to the first that cannot be had; own memory is moved into the transfer.
fn pin(w: &mut World, memory: &mut Memory, len: u64, write: bool) -> (Vec<Buffer>, u64) {
    let (mut buffers, mut got) = (Vec::new(), 0);
    for seg in &mut memory.segs {
        let left = len - got;
        if left == 0 {
            break;
        }
        match seg {
            Seg::Anon { data, .. } => {
                let mut own = std::mem::take(data);
                got += left.min(own.len() as u64);
                // What lies past the end of the device stays the call's.
                own.truncate(left as usize);
                data.resize(own.len(), 0);
                buffers.push(Buffer::Own(own));
            }
            Seg::Map { map, offset, len } => {
                let ask = Ask { write: !write, pinned: true, ..Ask::default() };
                let wanted = left.min(*len as u64);
                let (parts, _) = w.grab(map, *offset, wanted, ask);
                let here: u64 = parts.iter().map(|p| p.len as u64).sum();
                buffers.extend(parts.into_iter().map(Buffer::Page));
                got += here;
                if here < wanted {
                    break;
                }
            }
            Seg::Page(part) => {
                got += left.min(part.len as u64);
                buffers.push(Buffer::Page(part.slice(0, part.len.min(left as usize))));
            }
            Seg::Piece(_) => break,
        }
    }
    (buffers, got)
}

/// Own memory goes back to the call.
fn give_back(memory: &mut Memory, io: &Io, count: u64) {
    let mut own = io.buffers.borrow_mut().drain(..).collect::<Vec<_>>().into_iter();
    let mut left = count as usize;
    for seg in &mut memory.segs {
        match seg {
            Seg::Anon { data, touched, .. } => {
                let Some(Buffer::Own(mut bytes)) = own.find(|b| matches!(b, Buffer::Own(_))) else {
                    return;
                };
                let len = data.len();
                bytes.resize(len, 0);
                *data = bytes;
                *touched = left.min(len);
                left -= left.min(len);
            }
            Seg::Map { len, .. } => left = left.saturating_sub(*len),
            Seg::Page(part) => left = left.saturating_sub(part.len),
            Seg::Piece(_) => {}
        }
    }
}

/// The task that serves devices and lets threads handle their signals.
pub(super) async fn serve(cx: Cx<'_>) {
    loop {
        cx.until("worker_thread", |w| w.gates.has_work() || w.has_signals()).await;
        {
            let mut w = cx.w();
            let (work, signals) = (w.gates.has_work(), w.has_signals());
            if signals && (!work || w.rng.below(2) == 0) {
                w.handle_signal();
            } else {
                w.serve_devices();
            }
        }
        cx.step().await;
    }
}
