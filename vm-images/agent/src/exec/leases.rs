//! Issuing the calls about leases, their signals, and other processes.

use super::{Exec, Issue, done, seen};
use crate::control::{LaneControl, lane_index};
use crate::record::now;
use crate::sys::{self, fault::INTERRUPT, lease, notice};
use history::{Payload, SkipReason};
use program::{Call, Lane, OwnerKind};
use rustix::fd::{AsFd, AsRawFd};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, getpgid, kill_process};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long a child that was killed may take to end before it counts as stuck.
const DEATH_MAX: Duration = Duration::from_millis(200);
/// How often it is looked at.
const POLL: Duration = Duration::from_millis(1);

impl Exec<'_> {
    pub(super) fn leases(&mut self, call: &Call) -> Issue<()> {
        let run = self.run;
        match *call {
            Call::Setlease { file, lease } => {
                let file = self.file(file)?;
                self.plain(|| lease::set(file.as_fd().as_raw_fd(), lease))
            }
            Call::Getlease { file } => {
                let file = self.file(file)?;
                self.plain(|| lease::get(file.as_fd()))
            }
            Call::Setsig { file, notice } => {
                let file = self.file(file)?;
                self.plain(|| lease::set_signal(file.as_fd(), notice))
            }
            Call::SetownEx { file, kind, lane } => {
                let file = self.file(file)?;
                let (pid, tid) = self.served(lane)?;
                let id = match kind {
                    OwnerKind::Tid => tid,
                    OwnerKind::Pid => pid,
                    OwnerKind::Pgrp => getpgid(Some(pid)).map_err(|_| SkipReason::NoLane)?,
                };
                self.plain(|| lease::set_owner(file.as_fd(), kind, id.as_raw_nonzero().get()))
            }
            Call::OnBreak { answer } => self.plain(|| {
                notice::answer_with(answer);
                Ok(0)
            }),
            Call::LeaseBreakTime { seconds } => {
                let control = self.recorder.control;
                control.break_time_set.store(1, Ordering::Release);
                let written = self.issue(|| run.set_lease_break_time(seconds));
                let written = written.ok_or(SkipReason::Unsupported)?;
                self.returned(self.moment(), done(written), || Payload::None)
            }
            Call::Kill { lane } => self.kill(lane),
            Call::Interrupt { lane } => {
                let (pid, tid) = self.served(lane)?;
                self.plain(|| sys::signal_thread(pid, tid, INTERRUPT))
            }
            Call::SendFd { file } => {
                let file = self.any_file(file)?;
                let sockets = self.table().lock().sockets.clone();
                let sockets = sockets.ok_or(SkipReason::Unsupported)?;
                let result = self.issue(|| {
                    // A descriptor of its own, so that a close under way leaves either the file or nothing to send.
                    let fd = rustix::io::fcntl_dupfd_cloexec(&file, 0)?;
                    match run.table.is_tombstone(fd.as_fd()) {
                        true => Err(Errno::BADF),
                        false => sockets.send(&file, &fd),
                    }
                });
                self.returned(self.moment(), done(result), || Payload::None)
            }
            Call::RecvFd { slot } => {
                let sockets = self.table().lock().sockets.clone();
                let sockets = sockets.ok_or(SkipReason::Unsupported)?;
                let result = self.issue(|| sockets.receive());
                let value = seen(result, |handle| self.put_file(slot, handle));
                self.returned(self.moment(), value, || Payload::None)
            }
            _ => Err(SkipReason::Unsupported),
        }
    }

    fn lane_control(&self, lane: Lane) -> Issue<&'static LaneControl> {
        let index = lane_index(lane).ok_or(SkipReason::NoLane)?;
        Ok(&self.recorder.control.lanes[index])
    }

    /// Process and thread that serve a lane.
    fn served(&self, lane: Lane) -> Issue<(Pid, Pid)> {
        self.lane_control(lane)?.server().ok_or(SkipReason::NoLane)
    }

    /// Kills a child and waits for its end: 0 if it came, 1 if the child stands where no signal reaches.
    fn kill(&mut self, lane: Lane) -> Issue<()> {
        let (child, _) = self.served(lane)?;
        if lane_index(lane).is_none_or(|index| index < program::THREADS_MAX.into()) {
            return Err(SkipReason::Unsupported);
        }
        self.lane_control(lane)?.killed.store(1, Ordering::Release);
        self.own_wait(|it| {
            let result = it.issue(|| {
                kill_process(child, Signal::KILL)?;
                let until = now() + DEATH_MAX.as_nanos() as u64;
                // Who reaps it is the conductor, which may do so at any moment.
                while !crate::look::is_dead(child) {
                    if now() > until {
                        return Ok(1);
                    }
                    std::thread::sleep(POLL);
                }
                Ok(0)
            });
            it.returned(it.moment(), seen(result, |left| left), || Payload::None)
        })
    }
}
