//! How one meeting ended, as its history tells it.
//!
//! Asks when calls ran and what they returned, and nothing of what they did.

use history::{Event, History, Payload};
use program::CallId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How meetings ended: each is in one of the first four counts, and those that were seen to wait are also in the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Outcomes {
    /// The call returned without an error.
    #[serde(skip_serializing_if = "is_zero")]
    pub completed: u64,
    /// The call returned an error.
    #[serde(skip_serializing_if = "is_zero")]
    pub refused: u64,
    /// The line never ran, or never returned.
    #[serde(skip_serializing_if = "is_zero")]
    pub unseen: u64,
    /// The line ran, but there was nothing to meet: what should have taken the page or the lease did not run, was refused, came later
    /// or was over.
    #[serde(skip_serializing_if = "is_zero")]
    pub missed: u64,
    /// The call was seen to wait, for whatever reason and whatever came after.
    #[serde(skip_serializing_if = "is_zero")]
    pub blocked: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Outcomes {
    /// Adds others. Counts that a stranger's file makes too large stop at the largest.
    pub fn add(&mut self, other: Outcomes) {
        for (count, more) in [
            (&mut self.completed, other.completed),
            (&mut self.refused, other.refused),
            (&mut self.unseen, other.unseen),
            (&mut self.missed, other.missed),
            (&mut self.blocked, other.blocked),
        ] {
            *count = count.saturating_add(more);
        }
    }

    /// Whether any meeting really came about: it ended, or it was seen to wait.
    pub fn met(&self) -> bool {
        self.completed > 0 || self.refused > 0 || self.blocked > 0
    }
}

/// When a line ran and what it returned.
#[derive(Clone, Copy, Debug, Default)]
struct Life {
    begun: Option<u64>,
    /// When, and whether without an error.
    ended: Option<(u64, bool)>,
    blocked: bool,
}

impl Life {
    /// Whether it had returned when the other began.
    fn over_before(&self, other: &Life) -> bool {
        matches!((self.ended, other.begun), (Some((ended, _)), Some(begun)) if ended < begun)
    }
}

/// The lives of all lines of a run.
pub(super) struct Lives(BTreeMap<CallId, Life>);

impl Lives {
    pub(super) fn new(history: &History) -> Lives {
        let mut lives: BTreeMap<CallId, Life> = BTreeMap::new();
        for event in &history.events {
            match event {
                Event::Invoke { seq, call, .. } => {
                    lives.entry(*call).or_default().begun = Some(*seq);
                }
                Event::Return { seq, call, result, payload, .. } => {
                    // FIDEDUPERANGE succeeds even where its one destination was refused: fs/remap_range.c:vfs_dedupe_file_range, 6.12.
                    let refused = result.is_err()
                        || matches!(payload, Payload::Dedupe { status } if *status < 0);
                    lives.entry(*call).or_default().ended = Some((*seq, !refused));
                }
                Event::Blocked { call, .. } => lives.entry(*call).or_default().blocked = true,
                _ => {}
            }
        }
        Lives(lives)
    }

    fn of(&self, call: CallId) -> Life {
        self.0.get(&call).copied().unwrap_or_default()
    }

    /// How the line `issued` met what the line `taken` took. If that ends with its call, its error says nothing: the page may have been
    /// held until a gate was released with EIO.
    pub(super) fn outcomes(
        &self,
        taken: CallId,
        issued: CallId,
        ends_with_its_call: bool,
    ) -> Outcomes {
        let (taker, issuer) = (self.of(taken), self.of(issued));
        let mut outcomes = Outcomes::default();
        let nothing_there = taker.begun.is_none()
            || issuer.over_before(&taker)
            || if ends_with_its_call {
                taker.over_before(&issuer)
            } else {
                matches!(taker.ended, Some((_, false)))
            };
        let count = if issuer.begun.is_none() {
            &mut outcomes.unseen
        } else if nothing_there {
            &mut outcomes.missed
        } else {
            outcomes.blocked = u64::from(issuer.blocked);
            match issuer.ended {
                None => &mut outcomes.unseen,
                Some((_, true)) => &mut outcomes.completed,
                Some((_, false)) => &mut outcomes.refused,
            }
        };
        *count = 1;
        outcomes
    }
}
