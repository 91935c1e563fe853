//! What runs reach: steers the search and is shown to people. A side road: no verdict depends on it.
//!
//! A run's coverage comes from two sides. Kernels with KCOV say which of their call sites a run passed (`Done::reached`); every
//! kernel shows how calls ended in which state (`behaviour`). Both become features, and the search knows nothing else.

pub mod behaviour;
pub mod map;
pub mod page;
pub mod sites;
pub mod survey;

use crate::target::Done;
use serde::{Deserialize, Serialize};

/// Marks features of behaviour; the others are kernel addresses.
const BEHAVIOUR: u64 = 1 << 63;

/// Something that a run may show and another may not: a call site that it passed, or a way in which a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Feature(u64);

impl Feature {
    /// The call site with this return address (its low 32 bits, as `Done::reached` has them).
    pub fn site(pc: u32) -> Feature {
        Feature(pc.into())
    }

    /// Behaviour, by a hash of what it is made of.
    pub fn behaviour(hash: u64) -> Feature {
        Feature(hash | BEHAVIOUR)
    }

    /// The call site, if it is one.
    pub fn as_site(self) -> Option<u32> {
        if self.0 & BEHAVIOUR == 0 { u32::try_from(self.0).ok() } else { None }
    }

    /// As a number, for tables of a fixed size.
    pub fn number(self) -> u64 {
        self.0
    }
}

/// The features of a run, ascending, each once.
pub fn features(done: &Done) -> Vec<Feature> {
    let mut all = behaviour::features(&done.program, &done.history);
    all.extend(done.reached.iter().map(|pc| Feature::site(*pc)));
    all.sort_unstable();
    all.dedup();
    all
}
