//! Counts what was exercised: how often each form of a call was issued on which mount, and how it ended; and so what never was.
//!
//! A form that was only ever refused is told apart from one that did its work. No verdict rests on these counts, but trust in a campaign does.

mod counts;
mod text;

pub use counts::Counts;

use crate::coverage::behaviour::{self, Place};
use history::{Event, History, SkipReason};
use program::{Form, Program};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;

/// What runs issued, by place and form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exercised(BTreeMap<(Place, Form), Counts>);

impl Exercised {
    /// What one run issued.
    pub fn of(program: &Program, history: &History) -> Exercised {
        let mut exercised = Exercised::default();
        for it in behaviour::trace(program, history) {
            let mut counts = Counts::default();
            counts.count(it.ended.map(|(_, ending)| ending), it.blocked.is_some());
            for form in Form::of(&program.lines[usize::from(it.id.0)]) {
                exercised.0.entry((it.place, form)).or_default().add(&counts);
            }
        }
        // Where it would have been is not known: nobody looked its slots up.
        let mut left_out = vec![false; program.lines.len()];
        for event in &history.events {
            let Event::Skipped { call, reason: SkipReason::Unsupported, .. } = event else {
                continue;
            };
            let at = usize::from(call.0);
            let Some(line) = program.lines.get(at) else { continue };
            if std::mem::replace(&mut left_out[at], true) {
                continue;
            }
            let counts = Counts { unsupported: 1, ..Counts::default() };
            for form in Form::of(line) {
                exercised.0.entry((Place::Elsewhere, form)).or_default().add(&counts);
            }
        }
        exercised
    }

    /// Whether nothing was.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds what another run issued.
    pub fn extend(&mut self, other: &Exercised) {
        for (key, counts) in &other.0 {
            self.0.entry(*key).or_default().add(counts);
        }
    }

    /// The counts of a form in a place, if it was issued there.
    pub fn at(&self, place: Place, form: Form) -> Option<&Counts> {
        self.0.get(&(place, form))
    }

    /// The places that came up, in their order.
    pub fn places(&self) -> Vec<Place> {
        let has = |place: &Place| self.0.keys().any(|(there, _)| there == place);
        Place::ALL.into_iter().filter(has).collect()
    }

    /// The forms that can be issued in a place.
    pub fn possible(place: Place) -> impl Iterator<Item = Form> {
        Form::all().filter(move |form| match place {
            Place::On(_) => form.kind().has_file(),
            // Where there is no file yet, or that of a gate, calls about files come by as well; they are counted, not asked for.
            Place::Elsewhere => !form.kind().has_file(),
        })
    }

    /// How many forms were exercised in a place, of those that can be issued there.
    pub fn reach(&self, place: Place) -> (usize, usize) {
        let exercised = |form: &Form| self.at(place, *form).is_some_and(Counts::exercised);
        (Exercised::possible(place).filter(exercised).count(), Exercised::possible(place).count())
    }
}

type Nested<P, F> = BTreeMap<P, BTreeMap<F, Counts>>;

impl Serialize for Exercised {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut nested: Nested<&str, &str> = BTreeMap::new();
        for ((place, form), counts) in &self.0 {
            nested.entry(place.name()).or_default().insert(form.name(), counts.clone());
        }
        nested.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Exercised {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Exercised, D::Error> {
        let nested: Nested<String, String> = BTreeMap::deserialize(deserializer)?;
        let mut exercised = Exercised::default();
        for (name, forms) in nested {
            let place = Place::ALL.into_iter().find(|place| place.name() == name);
            let place = place.ok_or_else(|| D::Error::custom(format!("no mount is `{name}`")))?;
            for (name, counts) in forms {
                let form = Form::from_name(&name)
                    .ok_or_else(|| D::Error::custom(format!("no form of a call is `{name}`")))?;
                exercised.0.insert((place, form), counts);
            }
        }
        Ok(exercised)
    }
}
