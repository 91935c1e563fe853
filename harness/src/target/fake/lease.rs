//! Leases, and the signals that tell their holders: F_SETLEASE and its kin, breaks by open and truncate, expiry, and the handlers' answers.
//!
//! fs/locks.c and fs/fcntl.c of 6.12. A lease that is past its time goes when somebody looks, and not before.

use super::bug::Bug;
use super::inode::Fs;
use super::sched::{Cx, LaneState, state_of};
use super::world::errno::{EAGAIN, EBADF, EINTR, EINVAL};
use super::world::{Answer, Fd, OpenFile, World, plain, process_of};
use history::{Errno, Event};
use program::{Access, Lane, Notice, OwnerKind, THREADS_MAX};
use std::rc::{Rc, Weak};
use std::sync::Arc;

/// fs.lease-break-time at the start of a program, in seconds.
pub(super) const BREAK_TIME: u8 = 45;
/// F_RDLCK, F_WRLCK, F_UNLCK, and F_LAYOUT of the RFC.
const F_RDLCK: u64 = 0;
const F_WRLCK: u64 = 1;
const F_UNLCK: u64 = 2;
/// POLL_MSG
const POLL_MSG: i32 = 3;
/// SI_KERNEL
const SI_KERNEL: i32 = 128;
/// SIGIO
const SIGIO: i32 = 29;
/// SIGRTMIN of a C library that keeps two for itself.
const SIGRTMIN: i32 = 34;
/// POLLIN | POLLRDNORM | POLLMSG
const BAND: i64 = 0x441;
const SECOND: u64 = 1_000_000_000;

/// Whom F_SETOWN_EX names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// The thread of a lane.
    Thread(usize),
    /// A process, by its index.
    Process(usize),
    /// The process group that all of a program's processes share.
    Group,
}

/// A lease.
#[derive(Clone, Debug)]
pub(super) struct Lease {
    mount: usize,
    ino: u64,
    file: Weak<OpenFile>,
    /// The descriptor by which it was asked for last.
    number: i32,
    kind: Kind,
    /// FL_UNLOCK_PENDING, and when it goes by itself; 0 is never.
    unlock: Option<u64>,
    /// FL_DOWNGRADE_PENDING, likewise.
    downgrade: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Read,
    Write,
    Layout,
}

impl Lease {
    fn is_of(&self, file: &OpenFile) -> bool {
        std::ptr::eq(self.file.as_ptr(), file)
    }

    fn is_on(&self, mount: usize, ino: u64) -> bool {
        (self.mount, self.ino) == (mount, ino)
    }

    /// leases_conflict
    fn conflicts(&self, write: bool) -> bool {
        match self.kind {
            Kind::Read => write,
            Kind::Write => true,
            Kind::Layout => false,
        }
    }

    fn is_past(deadline: Option<u64>, now: u64) -> bool {
        deadline.is_some_and(|at| at != 0 && now >= at)
    }

    /// What is left of it at a time.
    fn kind_at(&self, now: u64) -> Option<Kind> {
        if Lease::is_past(self.unlock, now) {
            None
        } else if Lease::is_past(self.downgrade, now) && self.kind == Kind::Write {
            Some(Kind::Read)
        } else {
            Some(self.kind)
        }
    }
}

/// A signal on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pending {
    to: Owner,
    signo: i32,
    code: i32,
    fd: i32,
    band: i64,
}

const fn signal_number(notice: Notice) -> i32 {
    match notice {
        Notice::Default | Notice::Io => SIGIO,
        Notice::Rt1 => SIGRTMIN + 1,
        Notice::Rt2 => SIGRTMIN + 2,
    }
}

impl World {
    /// Removes leases whose open file is gone.
    pub fn drop_leases(&mut self) {
        if self.leases.is_empty() {
            return;
        }
        let before = self.leases.len();
        let survives = self.has(Bug::LeaseSurvivesClose);
        self.leases.retain(|l| l.file.strong_count() > 0 || survives);
        if self.leases.len() != before {
            self.progress += 1;
        }
    }

    /// Takes the leases of a file away that are past their time.
    fn time_out_leases(&mut self, mount: usize, ino: u64) {
        if self.has(Bug::ExpiredLeaseStays) {
            return;
        }
        let now = self.clock;
        for lease in self.leases.iter_mut().filter(|l| l.is_on(mount, ino)) {
            if Lease::is_past(lease.downgrade, now) {
                lease.kind = if lease.kind == Kind::Write { Kind::Read } else { lease.kind };
                lease.downgrade = None;
            }
            if Lease::is_past(lease.unlock, now)
                && let Some(file) = lease.file.upgrade()
            {
                forget_owner(&file);
            }
        }
        self.leases.retain(|l| !(l.is_on(mount, ino) && Lease::is_past(l.unlock, now)));
    }

    /// Whether somebody's lease stands in the way; leases past their time do not.
    fn is_leased(&self, mount: usize, ino: u64, write: bool) -> bool {
        let now = if self.has(Bug::ExpiredLeaseStays) { 0 } else { self.clock };
        self.leases.iter().filter(|l| l.is_on(mount, ino)).any(|l| match l.kind_at(now) {
            None | Some(Kind::Layout) => false,
            Some(Kind::Read) => write,
            Some(Kind::Write) => true,
        })
    }

    /// Whether anybody has a layout lease on the file.
    pub fn has_layout_lease(&self, mount: usize, ino: u64) -> bool {
        self.leases.iter().any(|l| l.is_on(mount, ino) && l.kind == Kind::Layout)
    }

    /// Whether this open file has one.
    pub fn holds_layout_lease(&self, fd: &Fd) -> bool {
        self.leases.iter().any(|l| l.is_of(fd) && l.kind == Kind::Layout)
    }

    /// Drops the layout lease of an open file that has no descriptor any more.
    pub fn forget_layout_lease_of(&mut self, fd: &Fd) {
        self.leases.retain(|l| !(l.is_of(fd) && l.kind == Kind::Layout));
        self.progress += 1;
    }

    /// Drops the leases of an open file that lives on: a bug.
    pub fn forget_leases_of(&mut self, fd: &Fd) {
        self.leases.retain(|l| !l.is_of(fd));
        self.progress += 1;
    }

    /// Tells whoever has a layout lease on the file that somebody tried to change it.
    pub fn tell_layout_holders(&mut self, mount: usize, ino: u64) {
        let due: Vec<Lease> = self
            .leases
            .iter()
            .filter(|l| l.is_on(mount, ino) && l.kind == Kind::Layout)
            .cloned()
            .collect();
        due.iter().for_each(|lease| self.notify(lease));
    }

    /// send_sigio
    fn notify(&mut self, lease: &Lease) {
        if self.has(Bug::SignalMissing) {
            return;
        }
        let Some(file) = lease.file.upgrade() else { return };
        let (Some(owner), notice) = (file.owner.get(), file.notice.get()) else { return };
        let (mut code, mut fd, band) = match notice {
            Notice::Default => (SI_KERNEL, 0, 0),
            _ => (POLL_MSG, lease.number, BAND),
        };
        if self.has(Bug::SignalFd) && code == POLL_MSG {
            fd += 1;
        }
        if self.has(Bug::SignalCode) && code == POLL_MSG {
            code = 1;
        }
        let mut signo = signal_number(notice);
        if self.has(Bug::SignalNumber) && notice != Notice::Default {
            signo = SIGIO;
        }
        let owner = match owner {
            Owner::Thread(lane)
                if self.has(Bug::SignalWrongThread) && lane < THREADS_MAX.into() =>
            {
                Owner::Thread((lane + 1) % usize::from(THREADS_MAX))
            }
            owner => owner,
        };
        let targets = match owner {
            Owner::Group => {
                let alive = |p: &usize| self.procs[*p].is_some();
                (0..self.procs.len()).filter(alive).map(Owner::Process).collect()
            }
            other => vec![other],
        };
        for to in targets {
            let pending = Pending { to, signo, code, fd, band };
            // A signal that is no real-time signal is pending once at most.
            let merges =
                signo == SIGIO && self.signals.iter().any(|p| p.to == to && p.signo == signo);
            if !merges {
                self.signals.push_back(pending);
            }
            if self.has(Bug::SignalTwice) {
                self.signals.push_back(pending);
            }
        }
        self.progress += 1;
    }

    /// Where a signal can be handled now: a lane, or a thread of the agent's own.
    fn handler_of(&self, to: Owner) -> Option<Vec<Option<usize>>> {
        let awake = |lane: &usize| match self.lanes[*lane] {
            LaneState::Waiting(wchan) => state_of(wchan) == 'S',
            _ => true,
        };
        let lanes = match to {
            Owner::Thread(lane) => vec![lane],
            Owner::Process(0) | Owner::Group => {
                let threads = (0..usize::from(THREADS_MAX)).filter(awake).map(Some);
                return Some([None].into_iter().chain(threads).collect());
            }
            Owner::Process(n) => vec![n - 1 + usize::from(THREADS_MAX)],
        };
        let lane = lanes[0];
        if self.process(lane).is_none() || self.killed[lane] {
            return Some(Vec::new());
        }
        awake(&lane).then(|| vec![Some(lane)])
    }

    /// Whether some signal can be handled.
    pub fn has_signals(&self) -> bool {
        self.signals.iter().any(|p| self.handler_of(p.to).is_some())
    }

    /// Some thread runs its handler for the first signal that can be handled.
    pub fn handle_signal(&mut self) {
        let first = self.signals.iter().position(|p| self.handler_of(p.to).is_some());
        let Some(pending) = first.and_then(|at| self.signals.remove(at)) else { return };
        let handlers = self.handler_of(pending.to).unwrap_or_default();
        // Nobody is left to handle it.
        if handlers.is_empty() {
            return;
        }
        // The main thread comes first, where it does not look away.
        let place = if self.rng.below(4) == 0 { self.rng.below(handlers.len()) } else { 0 };
        let lane = handlers[place];
        let (seq, time_ns) = self.tick();
        let process = lane.map_or(0, process_of);
        let answer = self.procs[process].as_ref().and_then(|p| p.answer);
        let known = pending.code == POLL_MSG;
        let answer = answer.filter(|a| known && *a != program::Lease::Layout).map(|answer| {
            let files = self.procs[process].iter().flat_map(|p| p.files.iter().flatten());
            let found = files.map(|(fd, _)| fd).find(|fd| fd.number == pending.fd).cloned();
            let result = match found {
                Some(fd) => set_lease(self, process, &fd, answer),
                None => Err(EBADF),
            };
            (answer, result)
        });
        if let Some(lane) = lane {
            self.poked[lane] = true;
        }
        let Pending { signo, code, fd, band, .. } = pending;
        let lane = lane.map(lane_of);
        self.events.push(Event::Signal { seq, time_ns, lane, signo, code, fd, band, answer });
        self.progress += 1;
    }
}

/// The lane of an index.
pub(super) const fn lane_of(index: usize) -> Lane {
    if index < THREADS_MAX as usize {
        Lane::Thread(index as u8)
    } else {
        Lane::Child(index as u8 - THREADS_MAX)
    }
}

/// The removal of a lease takes F_SETOWN and F_SETSIG with it.
fn forget_owner(file: &OpenFile) {
    file.owner.set(None);
    file.notice.set(Notice::Default);
}

/// check_conflicting_open
fn is_open_otherwise(fs: &Fs, file: &OpenFile, write: bool) -> bool {
    let inode = fs.ino(file.ino);
    let (writers, readers) =
        (Arc::strong_count(&inode.writers) - 1, Arc::strong_count(&inode.readers) - 1);
    if !write {
        return writers > 0 && !fs.has(Bug::LeaseBesideWriter);
    }
    if fs.has(Bug::WriteLeaseShared) {
        return false;
    }
    let own = if file.access == Access::ReadOnly { (0, 1) } else { (1, 0) };
    (writers, readers) != own
}

/// F_SETLEASE, except for waiting.
fn set_lease(w: &mut World, process: usize, fd: &Fd, lease: program::Lease) -> Result<u64, Errno> {
    let (mount, ino) = (fd.mount, fd.ino);
    let kind = match lease {
        program::Lease::Unlock => return unlock(w, fd),
        program::Lease::Layout if w.has(Bug::LayoutLeaseKnown) => return Ok(0),
        program::Lease::Layout if !w.regime.has_layout_leases() => return Err(EINVAL),
        program::Lease::Layout => Kind::Layout,
        program::Lease::Read => Kind::Read,
        program::Lease::Write => Kind::Write,
    };
    if kind != Kind::Layout && is_open_otherwise(&w.fs[mount], fd, kind == Kind::Write) {
        return Err(EAGAIN);
    }
    w.time_out_leases(mount, ino);
    let same_sort = |l: &Lease| (l.kind == Kind::Layout) == (kind == Kind::Layout);
    let exclusive = match kind {
        Kind::Write => !w.has(Bug::WriteLeaseShared),
        Kind::Layout => {
            w.regime == checker::Regime::LayoutLeaseStrict && !w.has(Bug::LayoutLeaseShared)
        }
        Kind::Read => false,
    };
    let others = || w.leases.iter().filter(|l| l.is_on(mount, ino) && !l.is_of(fd) && same_sort(l));
    if others().any(|l| exclusive || l.unlock.is_some()) {
        return Err(EAGAIN);
    }
    match w.leases.iter_mut().find(|l| l.is_of(fd) && same_sort(l)) {
        Some(mine) => {
            mine.kind = kind;
            mine.number = fd.number;
            if kind == Kind::Read {
                mine.downgrade = None;
            }
        }
        None => w.leases.push(Lease {
            mount,
            ino,
            file: Rc::downgrade(&fd.file),
            number: fd.number,
            kind,
            unlock: None,
            downgrade: None,
        }),
    }
    if fd.owner.get().is_none() {
        fd.owner.set(Some(Owner::Process(process)));
    }
    if w.has(Bug::DowngradeUnlocks) && kind == Kind::Read {
        // Planted: giving way to a reader gives the lease up.
        w.leases.retain(|l| !(l.is_of(fd) && same_sort(l)));
    }
    w.progress += 1;
    Ok(0)
}

/// F_UNLCK
fn unlock(w: &mut World, fd: &Fd) -> Result<u64, Errno> {
    let before = w.leases.len();
    w.leases.retain(|l| !l.is_of(fd));
    if w.leases.len() == before {
        return Err(EAGAIN);
    }
    forget_owner(fd);
    w.progress += 1;
    Ok(0)
}

/// fcntl(F_SETLEASE)
pub(super) async fn setlease(cx: Cx<'_>, fd: &Fd, lease: program::Lease) -> Result<u64, Errno> {
    if lease == program::Lease::Unlock {
        // The strict regime: a layout lease is given back after the pins.
        let strict = {
            let w = cx.look();
            let mine = w.leases.iter().any(|l| l.is_of(fd) && l.kind == Kind::Layout);
            mine && w.regime == checker::Regime::LayoutLeaseStrict
        };
        if strict && !cx.look().has(Bug::StrictUnlockDoesNotWait) {
            let pinned = |w: &World| w.has_long_pins(fd.mount, fd.ino);
            if !cx.wait("layout_lease_wait", |w| !pinned(w)).await {
                return Err(EINTR);
            }
        }
    }
    set_lease(&mut cx.w(), process_of(cx.lane), fd, lease)
}

/// fcntl(F_GETLEASE)
pub(super) fn getlease(w: &mut World, fd: &Fd) -> Result<u64, Errno> {
    w.time_out_leases(fd.mount, fd.ino);
    let wrong = w.has(Bug::GetleaseShowsOld);
    let mine = w.leases.iter().find(|l| l.is_of(fd) && l.kind != Kind::Layout);
    Ok(match mine {
        None => F_UNLCK,
        Some(l) if l.unlock.is_some() && !wrong => F_UNLCK,
        Some(l) if l.downgrade.is_some() && !wrong => F_RDLCK,
        Some(l) if l.kind == Kind::Write => F_WRLCK,
        Some(_) => F_RDLCK,
    })
}

/// fcntl(F_SETOWN_EX)
pub(super) fn setown(fd: &Fd, kind: OwnerKind, lane: usize) -> Answer {
    fd.owner.set(Some(match kind {
        OwnerKind::Tid => Owner::Thread(lane),
        OwnerKind::Pid => Owner::Process(process_of(lane)),
        OwnerKind::Pgrp => Owner::Group,
    }));
    plain(Ok(0))
}

/// __break_lease: what opening a file, or truncating it by name, does to the leases on it.
pub(super) async fn break_lease(
    cx: Cx<'_>,
    (mount, ino): (usize, u64),
    write: bool,
    nonblock: bool,
) -> Result<(), Errno> {
    {
        let mut guard = cx.w();
        let w = &mut *guard;
        w.time_out_leases(mount, ino);
        if !w.is_leased(mount, ino, write) {
            return Ok(());
        }
        let deadline = match w.lease_break_time {
            0 => 0,
            _ if w.has(Bug::BreakTimeIgnored) => w.clock + SECOND / 10,
            seconds => w.clock + u64::from(seconds) * SECOND,
        };
        let mut due = Vec::new();
        let again = w.has(Bug::SignalEachBreaker);
        for lease in w.leases.iter_mut().filter(|l| l.is_on(mount, ino) && l.conflicts(write)) {
            if write {
                if lease.unlock.is_none() || again {
                    due.push(lease.clone());
                }
                lease.unlock = lease.unlock.or(Some(deadline));
            } else {
                let breaking = lease.unlock.is_some() || lease.downgrade.is_some();
                if !breaking || again {
                    due.push(lease.clone());
                }
                if !breaking {
                    lease.downgrade = Some(deadline);
                }
            }
        }
        due.iter().for_each(|lease| w.notify(lease));
    }
    if cx.look().has(Bug::BreakNotWaitedFor) && write {
        return Ok(());
    }
    if nonblock && !cx.look().has(Bug::NonblockWaits) {
        return Err(EAGAIN);
    }
    let numb = cx.look().has(Bug::LeaseWaitIgnoresSignals);
    loop {
        let deadline = {
            let w = cx.look();
            let mine = w.leases.iter().filter(|l| l.is_on(mount, ino) && l.conflicts(write));
            mine.flat_map(|l| [l.unlock, l.downgrade]).flatten().filter(|at| *at > w.clock).min()
        };
        if let Some(at) = deadline {
            cx.w().deadlines.insert(cx.lane, at);
        }
        let free = |w: &World| {
            let now = w.clock;
            !w.is_leased(mount, ino, write) || deadline.is_some_and(|at| now >= at)
        };
        let free = |w: &World| {
            // Planted: whoever waits is not told that the lease was given back.
            free(w) && !(w.has(Bug::BreakerNotWoken) && deadline.is_none_or(|at| w.clock < at))
        };
        let woken = if numb {
            cx.until("__break_lease", free).await;
            true
        } else {
            cx.wait("__break_lease", free).await
        };
        let mut w = cx.w();
        w.deadlines.remove(&cx.lane);
        if !woken {
            return Err(EINTR);
        }
        w.time_out_leases(mount, ino);
        if !w.is_leased(mount, ino, write) {
            return Ok(());
        }
    }
}
