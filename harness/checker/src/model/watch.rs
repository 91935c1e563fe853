//! What the agent saw beside the calls: who stood still, which signals came, when the gates were opened, and what time it was.

use super::order::NEVER;
use history::{CallResult, Event};
use program::{Lane, Lease};

/// A call that was seen to stand still.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stand {
    /// When.
    pub seq: u64,
    /// Which.
    pub call: u16,
    /// State letter.
    pub state: char,
    /// Where in the kernel.
    pub wchan: String,
}

/// A signal that was handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of `Event::Signal`")]
pub struct Notice {
    pub seq: u64,
    pub time_ns: u64,
    pub lane: Option<Lane>,
    pub signo: i32,
    pub code: i32,
    pub fd: i32,
    pub band: i64,
    pub answer: Option<(Lease, CallResult)>,
}

/// Everything of the kind.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    /// In order.
    pub stands: Vec<Stand>,
    /// In order.
    pub notices: Vec<Notice>,
    /// When the agent released all gates, if it did.
    pub released: Option<u64>,
    /// When the program was over.
    pub end: Option<u64>,
    /// Order and time of everything that has both, ascending.
    clock: Vec<(u64, u64)>,
}

impl Watch {
    /// Reads them off a history.
    pub fn of(events: &[Event]) -> Watch {
        let mut watch = Watch::default();
        for event in events {
            match event {
                Event::Invoke { seq, time_ns, .. } | Event::Return { seq, time_ns, .. } => {
                    watch.clock.push((*seq, *time_ns));
                }
                Event::Blocked { seq, call, time_ns, state, wchan } => {
                    watch.clock.push((*seq, *time_ns));
                    let (seq, state, wchan) = (*seq, *state, wchan.clone());
                    watch.stands.push(Stand { seq, call: call.0, state, wchan });
                }
                Event::Signal { seq, time_ns, lane, signo, code, fd, band, answer } => {
                    watch.clock.push((*seq, *time_ns));
                    watch.notices.push(Notice {
                        seq: *seq,
                        time_ns: *time_ns,
                        lane: *lane,
                        signo: *signo,
                        code: *code,
                        fd: *fd,
                        band: *band,
                        answer: *answer,
                    });
                }
                Event::GatesReleased { seq } => watch.released = Some(*seq),
                Event::End { seq, .. } => watch.end = Some(*seq),
                _ => {}
            }
        }
        watch.clock.sort_unstable();
        watch
    }

    /// The time at a place in the order: that of the latest event not after it.
    pub fn time(&self, seq: u64) -> u64 {
        let at = self.clock.partition_point(|(s, _)| *s <= seq);
        at.checked_sub(1).map_or(0, |i| self.clock[i].1)
    }

    /// The last place in the order that is no more than `ns` after `seq`.
    pub fn later(&self, seq: u64, ns: u64) -> u64 {
        if seq == NEVER {
            return NEVER;
        }
        self.at(self.time(seq).saturating_add(ns)).max(seq)
    }

    /// The last place in the order whose time is not after `ns`; `NEVER` where no event is later.
    pub fn at(&self, ns: u64) -> u64 {
        // Times of different threads may be a little out of the order: the first that is later ends the search.
        match self.clock.iter().find(|(_, time)| *time > ns) {
            Some((seq, _)) => seq.saturating_sub(1),
            None => NEVER,
        }
    }

    /// The last event's time.
    pub fn last_ns(&self) -> u64 {
        self.clock.iter().map(|(_, ns)| *ns).max().unwrap_or(0)
    }

    /// When a call was first seen to stand still.
    pub fn first_stand(&self, call: u16) -> Option<&Stand> {
        self.stands.iter().find(|s| s.call == call)
    }

    /// When the program was over for the calls.
    pub fn end(&self) -> u64 {
        self.end.unwrap_or(NEVER)
    }
}
