//! Counts by mount, row and column, and their form in `report.json`: an object of objects, in which what never came up is left out.

use super::{Axis, Meets, Outcomes};
use program::Mount;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;

/// Outcomes by mount, row and column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table<R, C>(BTreeMap<(Mount, R, C), Outcomes>);

impl<R, C> Default for Table<R, C> {
    fn default() -> Table<R, C> {
        Table(BTreeMap::new())
    }
}

impl<R: Axis, C: Axis> Table<R, C> {
    /// Adds to one place.
    pub fn add(&mut self, mount: Mount, row: R, column: C, outcomes: Outcomes) {
        self.0.entry((mount, row, column)).or_default().add(outcomes);
    }

    /// Adds another table.
    pub fn extend(&mut self, other: &Table<R, C>) {
        for ((mount, row, column), outcomes) in &other.0 {
            self.add(*mount, *row, *column, *outcomes);
        }
    }

    /// Whether no program had any of its pairs.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Everything that came up.
    pub fn iter(&self) -> impl Iterator<Item = (Mount, R, C, Outcomes)> + '_ {
        self.0.iter().map(|((mount, row, column), outcomes)| (*mount, *row, *column, *outcomes))
    }

    /// The mounts that came up.
    pub fn mounts(&self) -> Vec<Mount> {
        let has = |mount: &Mount| self.0.keys().any(|(there, _, _)| there == mount);
        Mount::ALL.into_iter().filter(has).collect()
    }

    /// The sum over these mounts.
    pub fn at(&self, mounts: &[Mount], row: R, column: C) -> Outcomes {
        let mut sum = Outcomes::default();
        for mount in mounts {
            sum.add(self.0.get(&(*mount, row, column)).copied().unwrap_or_default());
        }
        sum
    }
}

impl<R: Meets<C>, C: Axis> Table<R, C> {
    /// Whether a pair can be met on one of these mounts.
    pub fn possible(mounts: &[Mount], row: R, column: C) -> bool {
        mounts.iter().any(|mount| row.can_meet(column, *mount))
    }

    /// Pairs of a row that were met on one of these mounts, and those that can be.
    pub fn reach(&self, mounts: &[Mount], row: R) -> (u64, u64) {
        let (mut met, mut possible) = (0, 0);
        for column in C::ALL {
            if Table::possible(mounts, row, *column) {
                possible += 1;
                met += u64::from(self.at(mounts, row, *column).met());
            }
        }
        (met, possible)
    }
}

type Nested<M, R, C> = BTreeMap<M, BTreeMap<R, BTreeMap<C, Outcomes>>>;

impl<R: Axis + Serialize, C: Axis + Serialize> Serialize for Table<R, C> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut nested: Nested<&str, R, C> = BTreeMap::new();
        for ((mount, row, column), outcomes) in &self.0 {
            let rows = nested.entry(mount.name()).or_default();
            rows.entry(*row).or_default().insert(*column, *outcomes);
        }
        nested.serialize(serializer)
    }
}

impl<'de, R, C> Deserialize<'de> for Table<R, C>
where
    R: Axis + Deserialize<'de>,
    C: Axis + Deserialize<'de>,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Table<R, C>, D::Error> {
        let nested: Nested<String, R, C> = BTreeMap::deserialize(deserializer)?;
        let mut table = Table::default();
        for (name, rows) in nested {
            let mount = Mount::from_name(&name)
                .ok_or_else(|| D::Error::custom(format!("there is no mount `{name}`")))?;
            for (row, columns) in rows {
                for (column, outcomes) in columns {
                    table.add(mount, row, column, outcomes);
                }
            }
        }
        Ok(table)
    }
}
