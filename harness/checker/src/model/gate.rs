//! When each gate was held, and what that says of the calls that go through it.

use super::World;
use super::order::{NEVER, Span};
use program::{Call, GateSlot, Settle};

/// One hold or release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// When.
    pub span: Span,
    /// How it settled what was held; a hold has none.
    pub settle: Option<Settle>,
}

impl World<'_> {
    /// Holds and releases of a gate by the program, and the agent's own release at the end.
    pub fn turns(&self, gate: GateSlot) -> Vec<Turn> {
        let mut all: Vec<Turn> = (0..self.program.lines.len() as u16)
            .filter(|k| self.seen[*k as usize].inv.is_some())
            .filter_map(|k| match self.call_of(k) {
                Call::Hold { gate: g } if *g == gate => Some((k, None)),
                Call::Release { gate: g, settle } if *g == gate => Some((k, Some(*settle))),
                _ => None,
            })
            .map(|(k, settle)| Turn { span: self.span(k), settle })
            .collect();
        all.extend(self.watch.released.map(|seq| Turn {
            span: Span { inv: seq, ret: NEVER, call: super::order::NOBODY },
            settle: Some(Settle::Complete),
        }));
        all.sort_by_key(|turn| turn.span.inv);
        all
    }

    /// If the gate was surely held at a moment: when it was released at the earliest.
    pub fn held_until(&self, gate: GateSlot, at: u64) -> Option<u64> {
        let turns = self.turns(gate);
        let ok = |turn: &Turn| {
            self.seen.get(turn.span.call as usize).is_some_and(|s| s.result == Some(Ok(0)))
        };
        let hold = turns.iter().rfind(|t| t.settle.is_none() && t.span.ret < at && ok(t))?;
        // A release that overlaps the hold, or comes after it, may have undone it.
        let open = turns.iter().filter(|t| t.settle.is_some() && t.span.ret > hold.span.inv);
        let first = open.map(|t| t.span.inv).min().unwrap_or(NEVER);
        (first > at).then_some(first)
    }

    /// Whether the gate may have been held at some moment of a span.
    pub fn may_be_held(&self, gate: GateSlot, span: Span) -> bool {
        let turns = self.turns(gate);
        turns.iter().any(|hold| {
            let undone = turns
                .iter()
                .any(|t| t.settle.is_some() && t.span.inv > hold.span.ret && t.span.ret < span.inv);
            hold.settle.is_none() && hold.span.inv <= span.ret && !undone
        })
    }

    /// Whether what a call sends through the gate may be failed by a release, and whether it must: it was seen to stand there until that.
    pub fn gate_fails(&self, gate: GateSlot, call: u16) -> (bool, bool) {
        let span = self.span(call);
        let turns = self.turns(gate);
        let overlaps = |t: &&Turn| t.span.inv <= span.ret && t.span.ret >= span.inv;
        let fails = |t: &Turn| t.settle == Some(Settle::Fail);
        let may = turns.iter().filter(overlaps).any(fails);
        let must = self.held_until(gate, span.inv).is_some_and(|from| {
            let stood = self.watch.first_stand(call).is_some_and(|s| s.seq < from);
            stood && turns.iter().find(|t| t.span.inv == from).is_some_and(fails)
        });
        (may, must)
    }

    /// The gate whose device an open file is.
    pub fn gate_of(&self, open: usize) -> Option<GateSlot> {
        self.files[self.opens[open].file].gate
    }

    /// The gate that a call goes through: its device, or the memory that it copies to or from.
    pub fn gate_used(&self, call: u16) -> Option<GateSlot> {
        match self.call_of(call) {
            Call::ProcessVmReadv { gate, .. } | Call::ProcessVmWritev { gate, .. } => Some(*gate),
            Call::OpenGate { gate, .. } => Some(*gate),
            Call::Pread { .. }
            | Call::Pwrite { .. }
            | Call::Preadv { .. }
            | Call::Pwritev { .. }
            | Call::Readv { .. }
            | Call::Writev { .. }
            | Call::Fsync { .. }
            | Call::Fdatasync { .. }
            | Call::Close { .. } => self.gate_of(self.open_in(call, 0)?),
            _ => None,
        }
    }
}
