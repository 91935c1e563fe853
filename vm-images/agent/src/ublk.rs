//! The gate `g1`: a block device of our own, served by a process of its own, so that whatever holds or kills the runner leaves it alone.
//!
//! It keeps what is written in memory, and settles requests at once or, while the gate is held, when it is released: in order, in reverse,
//! in two parts, or not at all. One question at a time comes through a page of atomics and a bell.

use crate::control::Counter;
use crate::sys;
use crate::sys::ublk::{Device, Op, PATH, Request, Wake, bell};
use history::{Errno, stamp};
use program::{GATE_SIZE, GateSlot, Settle};
use rustix::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long the device may take to start, and an answer to come.
const PATIENCE: Duration = Duration::from_secs(5);
/// The server's answer before it has started, and once it has. Any other is an errno.
const STARTING: u32 = 0;
const STARTED: u32 = u32::MAX;

/// What is asked of the server.
mod command {
    pub const HOLD: u32 = 1;
    /// Argument: index in `Settle::NAMES`.
    pub const RELEASE: u32 = 2;
    /// Argument: the run whose signature the device gets.
    pub const RESET: u32 = 3;
}

/// What asker and server share.
#[derive(Debug, Default)]
pub struct Words {
    state: AtomicU32,
    command: AtomicU32,
    argument: AtomicU32,
    answered: Counter,
}

/// The asker's side.
#[derive(Debug)]
pub struct Ublk {
    words: &'static Words,
    bell: OwnedFd,
}

impl Ublk {
    /// Starts the server, and waits for the device. An error where the kernel has no ublk.
    pub fn start() -> Result<Ublk, String> {
        let words: &'static Words = sys::shared().map_err(|e| format!("control page: {e}"))?;
        let (listens, rings) = bell().map_err(|e| format!("eventfd: {e}"))?;
        match sys::fork() {
            Ok(0) => {
                sys::die_with_parent();
                let error = Device::new(listens).and_then(|device| serve(device, words));
                words.state.store(libc::EIO as u32, Ordering::Release);
                words.answered.bump();
                let text = format!("<3>pinfuzz: agent: ublk: {}\n", error.unwrap_err());
                let _ = std::fs::write("/dev/kmsg", text);
                sys::exit(0)
            }
            Ok(_) => {}
            Err(error) => return Err(format!("fork: errno {}", error.0)),
        }
        let ublk = Ublk { words, bell: rings };
        let until = Instant::now() + PATIENCE;
        while words.state.load(Ordering::Acquire) == STARTING && Instant::now() < until {
            words.answered.wait_while(words.answered.get(), Some(Duration::from_millis(10)));
        }
        match words.state.load(Ordering::Acquire) {
            STARTED => Ok(ublk),
            STARTING => Err("the ublk device does not start".into()),
            errno => Err(format!("the ublk device cannot start: errno {errno}")),
        }
    }

    /// The block device.
    pub const PATH: &str = PATH;

    /// Requests that come from now on are held.
    pub fn hold(&self) -> Result<(), Errno> {
        self.ask(command::HOLD, 0)
    }

    /// Settles what is held, and holds nothing any more.
    pub fn release(&self, settle: Settle) -> Result<(), Errno> {
        let index = Settle::NAMES.iter().position(|(_, s)| *s == settle).unwrap_or_default();
        self.ask(command::RELEASE, index as u32)
    }

    /// Fills the device with the signature of a run.
    pub fn reset(&self, run: u32) -> Result<(), Errno> {
        self.ask(command::RESET, run)
    }

    fn ask(&self, command: u32, argument: u32) -> Result<(), Errno> {
        let Words { answered, state, .. } = self.words;
        let seen = answered.get();
        self.words.command.store(command, Ordering::Release);
        self.words.argument.store(argument, Ordering::Release);
        rustix::io::write(&self.bell, &1u64.to_ne_bytes()).map_err(sys::errno)?;
        let until = Instant::now() + PATIENCE;
        while answered.get() == seen && Instant::now() < until {
            answered.wait_while(seen, Some(Duration::from_millis(50)));
        }
        let alive = answered.get() != seen && state.load(Ordering::Acquire) == STARTED;
        // It died: what it was to serve fails as well.
        if alive { Ok(()) } else { Err(Errno(libc::EIO)) }
    }
}

/// Serves the device for ever; an error if that cannot go on.
fn serve(mut device: Device, words: &Words) -> Result<std::convert::Infallible, String> {
    let mut store = vec![0; GATE_SIZE as usize];
    let mut held: Option<Vec<Request>> = None;
    loop {
        for wake in device.wait()? {
            match wake {
                Wake::Started(0) => {
                    words.state.store(STARTED, Ordering::Release);
                    words.answered.bump();
                }
                Wake::Started(errno) => return Err(format!("START_DEV: errno {errno}")),
                Wake::Request(request) => match &mut held {
                    Some(requests) => requests.push(request),
                    None => move_bytes(&mut device, &mut store, &request, request.len)?,
                },
                Wake::Bell => {
                    let argument = words.argument.load(Ordering::Acquire);
                    match words.command.load(Ordering::Acquire) {
                        command::HOLD => drop(held.get_or_insert_default()),
                        command::RELEASE => {
                            let settle = Settle::NAMES.get(argument as usize).map(|(_, s)| *s);
                            let requests = held.take().unwrap_or_default();
                            settle_all(&mut device, &mut store, requests, settle)?;
                        }
                        command::RESET => {
                            let call = stamp::call_gate(GateSlot::UBLK.0);
                            stamp::sign(&mut store, argument, call, 0);
                        }
                        _ => {}
                    }
                    words.answered.bump();
                }
            }
        }
    }
}

fn settle_all(
    device: &mut Device,
    store: &mut [u8],
    mut requests: Vec<Request>,
    settle: Option<Settle>,
) -> Result<(), String> {
    if settle == Some(Settle::Reverse) {
        requests.reverse();
    }
    for request in requests {
        match settle {
            Some(Settle::Fail) => device.settle(&request, -libc::EIO)?,
            // The block layer asks again for the rest, which comes behind all of these.
            Some(Settle::Partial) if request.len > 512 => {
                let half = (request.len / 2).next_multiple_of(512);
                move_bytes(device, store, &request, half)?;
            }
            _ => move_bytes(device, store, &request, request.len)?,
        }
    }
    Ok(())
}

/// Does what the request asks for, with its first `len` bytes.
fn move_bytes(
    device: &mut Device,
    store: &mut [u8],
    request: &Request,
    len: usize,
) -> Result<(), String> {
    let range = usize::try_from(request.offset).ok().and_then(|at| store.get_mut(at..at + len));
    let result = match (request.op, range) {
        (Op::Read, Some(range)) => {
            device.bytes(request)[..len].copy_from_slice(range);
            len as i32
        }
        (Op::Write, Some(range)) => {
            range.copy_from_slice(&device.bytes(request)[..len]);
            len as i32
        }
        _ => -libc::EOPNOTSUPP,
    };
    device.settle(request, result)
}
