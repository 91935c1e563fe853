//! io_uring: link chains, drains, and which failures break a chain.
//!
//! Every chain is a task of its own beside the lanes. The requests themselves are the system calls.

use super::bug::Bug;
use super::exec;
use super::sched::Cx;
use super::world::errno::ECANCELED;
use super::world::{Needs, Ring, World, plain};
use history::SkipReason;
use program::{Call, CallId, SqeFlags};
use std::rc::Rc;

/// A request that is queued.
#[derive(Clone)]
pub(super) struct Request {
    /// Its line.
    pub id: CallId,
    /// What it asks.
    pub call: Call,
    /// Its slots.
    pub needs: Needs,
    /// Its ring.
    pub ring: Rc<Ring>,
    /// How it is queued.
    pub flags: SqeFlags,
}

impl Request {
    fn is_linked(&self) -> bool {
        self.flags.has(SqeFlags::LINK) || self.flags.has(SqeFlags::HARDLINK)
    }
}

/// The result that a request must have to leave its chain whole: reads, writes and splices break it when they are short; flushes, sizes and
/// advice complete with their error and let it go on (io_uring/{sync,truncate,advise}.c do not set REQ_F_FAIL).
fn wanted(call: &Call) -> Option<u64> {
    match call {
        Call::Pread { len, .. }
        | Call::Pwrite { len, .. }
        | Call::SpliceToPipe { len, .. }
        | Call::SpliceFromPipe { len, .. } => Some(*len),
        Call::Preadv { iov, .. } | Call::Pwritev { iov, .. } => Some(iov.iter().map(|s| s.1).sum()),
        _ => None,
    }
}

/// A chain on its way: its ring, the number of its first request, and the requests.
pub(super) struct Job {
    ring: Rc<Ring>,
    first: u64,
    chain: Vec<Request>,
    /// It waits for all requests before it.
    drains: bool,
    /// It was held back when it was submitted.
    held: bool,
}

/// Queues a request, and submits its ring's chain if it ends one: all Invokes first, then a task of its own.
pub(super) fn queue(w: &mut World, lane: usize, request: Request) {
    let (linked, ring) = (request.is_linked(), request.ring.clone());
    w.chains[lane].push(request);
    if linked {
        return;
    }
    let queued = std::mem::take(&mut w.chains[lane]);
    let (mut chain, rest): (Vec<Request>, _) =
        queued.into_iter().partition(|r| Rc::ptr_eq(&r.ring, &ring));
    w.chains[lane] = rest;
    if chain.len() > ring.entries {
        // A chain that the ring cannot hold at once would be cut in two, which is another program.
        chain.iter().for_each(|r| w.skip(r.id, SkipReason::Unsupported));
        return;
    }
    for request in &mut chain {
        exec::begin(w, lane, request.id, &request.needs);
        if request.flags.has(SqeFlags::FIXED) {
            let parts = exec::fixed_parts(w, &ring, &request.call, &request.needs);
            request.needs.fixed = Some(parts);
            ring.fixed.set(ring.fixed.get() + 1);
        }
    }
    let first = ring.submitted.get();
    ring.submitted.set(first + chain.len() as u64);
    ring.running.borrow_mut().extend(first..first + chain.len() as u64);
    // A drain anywhere in a chain holds back the whole chain, and one behind its head the next chain as well; what is submitted after a
    // chain that is held back queues up behind it (io_uring/io_uring.c:io_init_req_drain, io_drain_req, 6.12).
    let ignored = w.has(Bug::DrainIgnored);
    let drain = |r: &Request| r.flags.has(SqeFlags::DRAIN);
    let drains = !ignored && (chain.iter().any(drain) || ring.drain_next.get());
    ring.drain_next.set(!ignored && chain.iter().skip(1).any(drain));
    let held = drains || !ring.deferred.borrow().is_empty();
    if held {
        ring.deferred.borrow_mut().push_back(first);
    }
    w.jobs.push(Job { ring, first, chain, drains, held });
}

/// Runs a chain to its end.
pub(super) async fn run(cx: Cx<'_>, job: Job) {
    let Job { ring, first, mut chain, drains, held } = job;
    if held {
        let alone = || !drains || ring.running.borrow().iter().all(|n| *n >= first);
        let next = || ring.deferred.borrow().front() == Some(&first);
        cx.until("io_cqring_wait", |_| next() && alone()).await;
        ring.deferred.borrow_mut().pop_front();
    }
    if chain.len() > 1 && cx.look().has(Bug::LinkStartsEarly) {
        chain.swap(0, 1);
    }
    let mut broken = false;
    for (i, request) in chain.into_iter().enumerate() {
        cx.step().await;
        let fixed = request.needs.fixed.is_some();
        if broken {
            exec::finish(cx, request.id, plain(Err(ECANCELED)));
        } else {
            let mut answer = exec::perform(cx, request.id, &request.call, &request.needs).await;
            let want = wanted(&request.call);
            let failed = want.is_some_and(|n| answer.0 != Ok(n));
            let hard =
                request.flags.has(SqeFlags::HARDLINK) && !cx.look().has(Bug::HardlinkCancelled);
            broken = failed && !hard && !cx.look().has(Bug::LinkSurvivesFailure);
            if let (Some(n), Ok(got)) = (want, &mut answer.0)
                && cx.look().has(Bug::UringFullLength)
            {
                *got = n;
            }
            drop(request.needs);
            exec::finish(cx, request.id, answer);
        }
        ring.running.borrow_mut().retain(|n| *n != first + i as u64);
        if fixed {
            ring.fixed.set(ring.fixed.get() - 1);
        }
        let mut w = cx.w();
        w.progress += 1;
        w.reap();
    }
}
