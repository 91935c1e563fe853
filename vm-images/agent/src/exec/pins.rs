//! Issuing the calls that hold pages on purpose, and those that let them go.

use super::{Exec, Issue, seen};
use crate::slots::Handle;
use history::{Payload, SkipReason};
use program::{Call, GateSlot};
use std::sync::atomic::Ordering;

impl Exec<'_> {
    pub(super) fn pins(&mut self, call: &Call) -> Issue<()> {
        let run = self.run;
        match *call {
            Call::OpenGate { slot, gate, access, .. } => {
                if !run.gates().has(gate) {
                    return Err(SkipReason::Unsupported);
                }
                let opened = self.issue(|| run.gates().open(gate, access));
                let opened = opened.ok_or(SkipReason::Unsupported)?;
                let home = run.program.home;
                let result =
                    seen(opened, |fd| self.put_file(slot, Handle::of_gate(fd, home, gate)));
                self.returned(self.moment(), result, || Payload::None)
            }
            Call::Hold { gate } => {
                self.usable(gate)?;
                let control = self.recorder.control;
                if control.gates_over.load(Ordering::Acquire) != 0 {
                    // The program is over but for what the gates held.
                    return Err(SkipReason::LaneStuck);
                }
                self.plain(|| run.gates().hold(control, gate))
            }
            Call::Release { gate, settle } => {
                self.usable(gate)?;
                let control = self.recorder.control;
                self.own_wait(|it| it.plain(|| run.gates().release(control, gate, settle)))
            }
            _ => self.leases(call),
        }
    }

    fn usable(&self, gate: GateSlot) -> Issue<()> {
        self.run.gates().has(gate).then_some(()).ok_or(SkipReason::Unsupported)
    }

    /// What is done here may take a while, and nobody is blocked.
    pub(super) fn own_wait(&mut self, what: impl FnOnce(&mut Self) -> Issue<()>) -> Issue<()> {
        let waits = &self.recorder.control.lanes[self.lane.index].own_wait;
        waits.store(1, Ordering::Release);
        let done = what(self);
        waits.store(0, Ordering::Release);
        done
    }
}
