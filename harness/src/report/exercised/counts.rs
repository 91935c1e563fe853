//! How often a form of a call ended in which way.

use crate::coverage::behaviour::{Ending, Failure};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;

/// How calls ended: each is in one of the first three or in the last, and those that were seen to wait are also in the one before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Returned without an error, though perhaps with less than was asked for.
    #[serde(skip_serializing_if = "is_zero")]
    pub completed: u64,
    /// Returned an error, or a signal ended it, by name.
    #[serde(
        skip_serializing_if = "BTreeMap::is_empty",
        serialize_with = "by_name",
        deserialize_with = "from_names"
    )]
    pub failed: BTreeMap<Failure, u64>,
    /// Never returned.
    #[serde(skip_serializing_if = "is_zero")]
    pub unseen: u64,
    /// Was seen to wait, whatever came after.
    #[serde(skip_serializing_if = "is_zero")]
    pub blocked: u64,
    /// Was left out, for the kernel or the guest does not have it: no call was issued.
    #[serde(skip_serializing_if = "is_zero")]
    pub unsupported: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

fn by_name<S: Serializer>(
    failed: &BTreeMap<Failure, u64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let named: BTreeMap<String, u64> =
        failed.iter().map(|(failure, count)| (failure.name(), *count)).collect();
    named.serialize(serializer)
}

fn from_names<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<Failure, u64>, D::Error> {
    let named: BTreeMap<String, u64> = BTreeMap::deserialize(deserializer)?;
    let failures = named.into_iter().map(|(name, count)| {
        let failure = Failure::from_name(&name);
        failure.map(|f| (f, count)).ok_or_else(|| D::Error::custom(format!("no errno is `{name}`")))
    });
    failures.collect()
}

impl Counts {
    /// Counts one call.
    pub(super) fn count(&mut self, ending: Option<Ending>, blocked: bool) {
        match ending {
            None => self.unseen += 1,
            Some(Ending::Failed(failure)) => *self.failed.entry(failure).or_default() += 1,
            Some(_) => self.completed += 1,
        }
        self.blocked += u64::from(blocked);
    }

    /// Adds others. Counts that a stranger's file makes too large stop at the largest.
    pub fn add(&mut self, other: &Counts) {
        self.completed = self.completed.saturating_add(other.completed);
        self.unseen = self.unseen.saturating_add(other.unseen);
        self.blocked = self.blocked.saturating_add(other.blocked);
        self.unsupported = self.unsupported.saturating_add(other.unsupported);
        for (failure, more) in &other.failed {
            let count = self.failed.entry(*failure).or_default();
            *count = count.saturating_add(*more);
        }
    }

    /// Whether any call came to an end or was seen to wait.
    pub fn exercised(&self) -> bool {
        self.completed > 0 || !self.failed.is_empty() || self.blocked > 0
    }
}
