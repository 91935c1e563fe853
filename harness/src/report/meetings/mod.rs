//! Counts meetings: changes of a file one of whose pages was held, and calls that might break a lease, each with how it ended.
//!
//! Which lines of a program meet is read off its text (`program::pairs`); the history says whether they did, and what came of it. A
//! drained pipe or a lease that went meanwhile is not followed, so the counts are for reach. No verdict rests on them.

mod outcome;
mod table;
mod text;

pub use outcome::Outcomes;
pub use table::Table;

use history::History;
use program::{Breaker, LayoutChange, LeaseState, Mount, PinSource, Program};
use serde::{Deserialize, Serialize};

/// All meetings of a run, or of many.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meetings {
    /// Changes of files one of whose pages was held, by how it was held.
    pub held: Table<PinSource, LayoutChange>,
    /// Calls that might break a lease, by what leases there were.
    pub leases: Table<LeaseState, Breaker>,
}

impl Meetings {
    /// The meetings of one run.
    pub fn of(program: &Program, history: &History) -> Meetings {
        let lives = outcome::Lives::new(history);
        let mut meetings = Meetings::default();
        for pair in program.held_pairs() {
            let outcomes =
                lives.outcomes(pair.taken, pair.issued, pair.source.ends_with_its_call());
            meetings.held.add(pair.mount, pair.source, pair.change, outcomes);
        }
        for pair in program.lease_pairs() {
            let outcomes = lives.outcomes(pair.taken, pair.issued, false);
            meetings.leases.add(pair.mount, pair.state, pair.breaker, outcomes);
        }
        meetings
    }

    /// Whether there were none.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty() && self.leases.is_empty()
    }

    /// Adds those of another run.
    pub fn extend(&mut self, other: &Meetings) {
        self.held.extend(&other.held);
        self.leases.extend(&other.leases);
    }
}

/// What tables have rows or columns for.
pub trait Axis: Copy + Ord + 'static {
    /// Everything, in the order of the table.
    const ALL: &'static [Self];
    /// The name in reports.
    fn name(self) -> &'static str;
}

/// Implements `Axis` for the kinds of `program::pairs`, which have all of it.
macro_rules! axes {
    ($($kind:ident)*) => {$(
        impl Axis for $kind {
            const ALL: &'static [$kind] = $kind::ALL;
            fn name(self) -> &'static str { $kind::name(self) }
        }
    )*};
}
axes! { PinSource LayoutChange LeaseState Breaker }

/// What can meet a `C` at all.
pub trait Meets<C>: Axis {
    /// Whether it can on a file there.
    fn can_meet(self, other: C, mount: Mount) -> bool;
}

impl Meets<LayoutChange> for PinSource {
    fn can_meet(self, change: LayoutChange, mount: Mount) -> bool {
        PinSource::can_meet(self, change, mount)
    }
}

impl Meets<Breaker> for LeaseState {
    fn can_meet(self, breaker: Breaker, _: Mount) -> bool {
        LeaseState::can_meet(self, breaker)
    }
}
