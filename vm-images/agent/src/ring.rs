//! io_uring: requests that wait for the end of their chain, requests in flight, and the reaping of completions.
//!
//! Whoever looks reaps for all: the lane that waits for its own request, the conductor between lines and at the end. A Return takes its
//! place in the order when its completion is reaped, which is after the request was over: the interval is wider than the truth, never
//! narrower. The rings of a child only the child itself can reap, between its lines (`exec::serve`). Requests hold shares of their files and own their buffers until then.

use crate::io::Transfer;
use crate::record::Recorder;
use crate::slots::{Handle, Table};
use crate::sys::{self, Pool, Queue, ring as requests};
use history::{CallResult, Errno, Payload, SkipReason};
use io_uring::squeue;
use program::{CallId, SqeFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::pipe::PipeFlags;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

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
    /// Nothing, once it is closed.
    inner: Mutex<Option<Open>>,
    ops: Arc<Vec<u8>>,
}

/// What an open ring has.
struct Open {
    queue: Queue,
    flights: Flights,
    /// Another descriptor of it, to use without the lock.
    share: Arc<Handle>,
}

/// A ring that was closed: the end of a pipe whose other end the ring alone has. The kernel lets go of a ring's files last.
#[derive(Debug)]
pub struct Leaving(OwnedFd);

impl Leaving {
    /// Whether the kernel has done with all requests of the ring, and with what was registered.
    pub fn is_gone(&self) -> bool {
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::default())).is_ok() && !fds[0].revents().is_empty()
    }
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
        let share = queue.descriptor().map_err(sys::errno)?;
        // Which mount is of no meaning for a ring.
        let share = Handle::new(share, program::Mount::Ext4);
        let open = Open { queue, flights: Flights::default(), share };
        Ok((Ring { inner: Mutex::new(Some(open)), ops }, number))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Open>> {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Whether the kernel has the opcode.
    pub fn supports(&self, op: u8) -> bool {
        self.ops.contains(&op)
    }

    /// Adds a request to its lane's chain, and submits the chain unless the request links to a next one. Every Invoke of the chain is
    /// recorded before.
    pub fn add(&self, recorder: &Recorder, mut pending: Pending, flags: SqeFlags) {
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
        let Some(Open { queue, flights, .. }) = &mut *guard else {
            return recorder.skipped(pending.line, SkipReason::EmptySlot);
        };
        flights.chains.entry(lane).or_default().push(pending);
        if flags.has(SqeFlags::LINK) || flags.has(SqeFlags::HARDLINK) {
            return;
        }
        let chain = flights.chains.remove(&lane).unwrap_or_default();
        if !queue.has_room(chain.len()) {
            // A chain that the ring cannot hold at once would be cut in two, which is another program.
            return chain.iter().for_each(|p| recorder.skipped(p.line, SkipReason::Unsupported));
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
    }

    /// Records all completions that have arrived.
    pub fn reap(&self, recorder: &Recorder, pool: &mut Pool) {
        Self::reap_open(&mut self.lock(), recorder, pool);
    }

    /// As `reap`, unless somebody is at the ring: a submission may stand still in the kernel, for a lock of a file (io_uring/rw.c:io_rw_should_retry
    /// gives up IOCB_NOWAIT, 6.12), and has the ring meanwhile.
    pub fn try_reap(&self, recorder: &Recorder, pool: &mut Pool) {
        match self.inner.try_lock() {
            Ok(mut guard) => Self::reap_open(&mut guard, recorder, pool),
            Err(TryLockError::Poisoned(guard)) => {
                Self::reap_open(&mut guard.into_inner(), recorder, pool);
            }
            Err(TryLockError::WouldBlock) => {}
        }
    }

    fn reap_open(open: &mut Option<Open>, recorder: &Recorder, pool: &mut Pool) {
        let Some(Open { queue, flights, share }) = open else { return };
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
            sys::ring_wait(share.as_fd(), 0);
        }
    }

    /// Waits a moment for a completion of whatever request, and reaps.
    pub fn wait(&self, recorder: &Recorder, pool: &mut Pool) {
        if let Some(share) = self.descriptor() {
            sys::ring_wait(share.as_fd(), WAIT_NS);
        }
        self.reap(recorder, pool);
    }

    /// Whether the kernel has requests.
    pub fn is_busy(&self) -> bool {
        self.lock().as_ref().is_some_and(|open| !open.flights.flying.is_empty())
    }

    /// Leaves out the chains that were never submitted.
    pub fn skip_chains(&self, recorder: &Recorder) {
        let chains = self.lock().as_mut().map(|open| std::mem::take(&mut open.flights.chains));
        for pending in chains.into_iter().flat_map(BTreeMap::into_values).flatten() {
            recorder.skipped(pending.line, SkipReason::Unsupported);
        }
    }

    /// A share of the descriptor, if the ring is open.
    pub fn descriptor(&self) -> Option<Arc<Handle>> {
        self.lock().as_ref().map(|open| open.share.clone())
    }

    /// `close(ring)` — Ends the ring. Requests that the kernel has never complete for anyone to see: their lines are cut off.
    /// Nothing if it was closed before.
    pub fn close(
        &self,
        recorder: &Recorder,
        table: &Table,
    ) -> Option<(CallResult, Option<Leaving>)> {
        self.skip_chains(recorder);
        let Open { queue, flights, share } = self.lock().take()?;
        for (line, pending) in flights.flying {
            recorder.control.cut_off.fetch_or(1 << line, Ordering::AcqRel);
            // The kernel may still write there.
            std::mem::forget(pending.transfer);
        }
        let leaving = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).ok().and_then(|(ours, its)| {
            requests::register_file(share.as_fd(), its.as_fd()).ok().map(|_| Leaving(ours))
        });
        drop(queue);
        Some((table.close(share), leaving))
    }
}
