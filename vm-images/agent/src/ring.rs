//! io_uring: requests that wait for the end of their chain, requests in flight, and the reaping of completions.
//!
//! Whoever looks reaps for all: the lane that waits for its own request, the conductor between lines and at the end. A Return takes its
//! place in the order when its completion is reaped, which is after the request was over: the interval is wider than the truth, never
//! narrower. Requests hold shares of their files and own their buffers until then.

use crate::io::Transfer;
use crate::record::Recorder;
use crate::slots::Handle;
use crate::sys::{self, Pool, Queue};
use history::{Errno, Payload, SkipReason};
use io_uring::squeue;
use program::{CallId, SqeFlags};
use rustix::fd::OwnedFd;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// Longest single wait for a completion: another lane may reap ours meanwhile.
const WAIT_NS: i64 = 2_000_000;

/// A request with all that must live until it completes.
pub struct Pending {
    /// The line.
    pub line: usize,
    /// The lane that issued it.
    pub lane: usize,
    /// The calls that had filled its slots.
    pub slots: Vec<CallId>,
    /// The entry.
    pub request: squeue::Entry,
    /// Its memory.
    pub transfer: Option<Transfer>,
    /// Its files.
    #[expect(
        dead_code,
        reason = "held, not read: a share keeps the descriptor's number from other files"
    )]
    pub files: Vec<Arc<Handle>>,
}

#[derive(Default)]
struct Flights {
    /// Chains that are not submitted yet, by lane.
    chains: BTreeMap<usize, Vec<Pending>>,
    /// Requests that the kernel has, by line.
    flying: BTreeMap<usize, Pending>,
}

/// A ring that lanes share.
pub struct Ring {
    inner: Mutex<(Queue, Flights)>,
    wait: OwnedFd,
    ops: Arc<Vec<u8>>,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ring")
    }
}

impl Ring {
    /// `io_uring_setup(entries)` — A ring and its descriptor's number.
    pub fn new(entries: u8, ops: Arc<Vec<u8>>) -> Result<(Ring, u64), Errno> {
        let queue = Queue::new(entries.into())?;
        let number = queue.number() as u64;
        let wait = queue.descriptor().map_err(sys::errno)?;
        Ok((Ring { inner: Mutex::new((queue, Flights::default())), wait, ops }, number))
    }

    fn lock(&self) -> MutexGuard<'_, (Queue, Flights)> {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Whether the kernel has the opcode.
    pub fn supports(&self, op: u8) -> bool {
        self.ops.contains(&op)
    }

    /// Adds a request to its lane's chain, and submits the chain unless the request links to a next one. Every Invoke of the chain is
    /// recorded before. Returns whether it was submitted.
    pub fn add(&self, recorder: &Recorder, mut pending: Pending, flags: SqeFlags) -> bool {
        let mut bits = squeue::Flags::empty();
        for (flag, bit) in [
            (SqeFlags::LINK, squeue::Flags::IO_LINK),
            (SqeFlags::DRAIN, squeue::Flags::IO_DRAIN),
            (SqeFlags::ASYNC, squeue::Flags::ASYNC),
            (SqeFlags::HARDLINK, squeue::Flags::IO_HARDLINK),
        ] {
            if flags.has(flag) {
                bits |= bit;
            }
        }
        pending.request = pending.request.flags(bits).user_data(pending.line as u64);
        let lane = pending.lane;
        let mut guard = self.lock();
        let (queue, flights) = &mut *guard;
        flights.chains.entry(lane).or_default().push(pending);
        if flags.has(SqeFlags::LINK) || flags.has(SqeFlags::HARDLINK) {
            return false;
        }
        let chain = flights.chains.remove(&lane).unwrap_or_default();
        if !queue.has_room(chain.len()) {
            // A chain that the ring cannot hold at once would be cut in two, which is another program.
            chain.iter().for_each(|p| recorder.skipped(p.line, SkipReason::Unsupported));
            return true;
        }
        let requests: Vec<_> = chain.iter().map(|p| p.request.clone()).collect();
        let lines: Vec<_> = chain.iter().map(|p| p.line).collect();
        for mut pending in chain {
            recorder.invoke(pending.line, std::mem::take(&mut pending.slots));
            flights.flying.insert(pending.line, pending);
        }
        let mut taken = queue.submit(&requests);
        while taken.is_ok_and(|n| (n as usize) < requests.len()) || taken == Err(Errno(libc::EBUSY))
        {
            // The kernel stops at a request that it refuses outright (its completion says so) and wants room for completions.
            let Ok(more) = queue.submit(&[]) else { break };
            match (taken, more) {
                (_, 0) => break,
                (Ok(n), more) => taken = Ok(n + more),
                (Err(_), more) => taken = Ok(more),
            }
        }
        if let Err(error) = taken {
            for line in lines {
                if flights.flying.remove(&line).is_some() {
                    recorder.returned(line, recorder.moment(), Err(error), || Payload::None);
                }
            }
        }
        true
    }

    /// Records all completions that have arrived.
    pub fn reap(&self, recorder: &Recorder, pool: &mut Pool) {
        let mut guard = self.lock();
        let (queue, flights) = &mut *guard;
        if flights.flying.is_empty() {
            return;
        }
        loop {
            for (line, result) in queue.completions() {
                let end = recorder.moment();
                let Some(pending) = flights.flying.remove(&(line as usize)) else { continue };
                let transfer = pending.transfer;
                recorder.returned(pending.line, end, result, || match &transfer {
                    Some(transfer) => transfer.payload(result),
                    None => Payload::None,
                });
                if let Some(transfer) = transfer {
                    transfer.give_back(pool);
                }
            }
            if !queue.overflowed() {
                break;
            }
            sys::ring_wait(&self.wait, 0);
        }
    }

    /// Waits a moment for a completion of whatever request, and reaps.
    pub fn wait(&self, recorder: &Recorder, pool: &mut Pool) {
        sys::ring_wait(&self.wait, WAIT_NS);
        self.reap(recorder, pool);
    }

    /// Whether the kernel has requests of `lane`, or of anyone.
    pub fn is_busy(&self, lane: Option<usize>) -> bool {
        self.lock().1.flying.values().any(|p| lane.is_none_or(|l| p.lane == l))
    }

    /// The lines of such requests.
    pub fn flying(&self, lane: Option<usize>) -> Vec<usize> {
        let is = |p: &&Pending| lane.is_none_or(|l| p.lane == l);
        self.lock().1.flying.values().filter(is).map(|p| p.line).collect()
    }

    /// Leaves out the chains that were never submitted.
    pub fn skip_chains(&self, recorder: &Recorder) {
        for pending in std::mem::take(&mut self.lock().1.chains).into_values().flatten() {
            recorder.skipped(pending.line, SkipReason::Unsupported);
        }
    }
}
