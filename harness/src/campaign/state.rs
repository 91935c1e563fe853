//! `state.json`: what a run needs to go on where it was, besides its report: what it was told, and which numbers it has used up.
//!
//! Numbers are set aside in blocks, and a block is on disk before the first of it is drawn: whatever kills the process, no number is
//! drawn twice. What is left of a block then stays unused.

use crate::campaign::Config;
use crate::fuzz_target::FuzzTarget;
use crate::report::{Provenance, ReportError, write_atomically};
use program::Mount;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The file's name in the run's folder.
pub(super) const FILE: &str = "state.json";
/// Version of the file.
pub(super) const VERSION: u32 = 1;
/// Numbers in a block: a minute of a fast guest, so that writing them down costs nothing.
const BLOCK: u64 = 4096;

/// The file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Version of this structure.
    pub version: u32,
    /// The first number that was surely never drawn.
    pub next: u64,
    /// The campaign's seed.
    pub seed: u64,
    /// Home mounts, by name.
    pub images: Vec<String>,
    /// How long it was to run in all.
    pub time_ms: Option<u64>,
    /// How many programs it was to draw in all.
    pub programs: Option<u64>,
    /// Whether the search was guided.
    pub guided: bool,
    /// The fuzz target.
    pub fuzz_target: String,
    /// The folder of its corpus.
    pub corpus: Option<PathBuf>,
    /// How each worker's target is made.
    pub workers: Vec<Provenance>,
}

impl State {
    /// What a campaign was told.
    pub fn new(config: &Config, next: u64) -> State {
        State {
            version: VERSION,
            next,
            seed: config.seed,
            images: config.homes.iter().map(|home| home.name().into()).collect(),
            time_ms: config.time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
            programs: config.programs,
            guided: config.guided,
            fuzz_target: config.fuzz_target.name.into(),
            corpus: config.corpus.clone(),
            workers: config.workers.clone(),
        }
    }

    /// What the campaign that goes on is told, if all of it still exists.
    pub fn config(&self) -> Result<Config, String> {
        let none = |name: &str| format!("there is no image `{name}`");
        let home = |name: &String| Mount::from_name(name).ok_or_else(|| none(name));
        let fuzz_target = FuzzTarget::named(&self.fuzz_target)
            .ok_or_else(|| format!("there is no fuzz target `{}`", self.fuzz_target))?;
        if self.images.is_empty() || self.workers.is_empty() {
            return Err("it names no image, or no worker".into());
        }
        Ok(Config {
            seed: self.seed,
            homes: self.images.iter().map(home).collect::<Result<_, _>>()?,
            time: self.time_ms.map(Duration::from_millis),
            programs: self.programs,
            guided: self.guided,
            fuzz_target,
            seeds: Vec::new(),
            corpus: self.corpus.clone(),
            workers: self.workers.clone(),
        })
    }
}

/// The numbers of a run.
#[derive(Debug)]
pub(super) struct Numbers {
    file: PathBuf,
    state: State,
    next: u64,
}

impl Numbers {
    /// Numbers from `next` on, for a run in this folder.
    pub fn new(dir: &Path, config: &Config, next: u64) -> Result<Numbers, ReportError> {
        let numbers = Numbers { file: dir.join(FILE), state: State::new(config, next), next };
        numbers.write()?;
        Ok(numbers)
    }

    /// Draws a number.
    pub fn draw(&mut self) -> Result<u64, ReportError> {
        if self.next >= self.state.next {
            self.state.next = self.next.saturating_add(BLOCK);
            self.write()?;
        }
        let number = self.next;
        self.next += 1;
        Ok(number)
    }

    /// Gives back what is left of the block: nothing is drawn any more.
    pub fn close(&mut self) -> Result<(), ReportError> {
        self.state.next = self.next;
        self.write()
    }

    fn write(&self) -> Result<(), ReportError> {
        let mut text = serde_json::to_string_pretty(&self.state).expect("plain data serializes");
        text.push('\n');
        write_atomically(&self.file, text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_on_disk_before_it_is_drawn() {
        let dir = tempfile::tempdir().unwrap();
        let on_disk = || {
            let text = std::fs::read_to_string(dir.path().join(FILE)).unwrap();
            serde_json::from_str::<State>(&text).unwrap()
        };
        let config = State {
            version: VERSION,
            next: 0,
            seed: 7,
            images: vec!["xfs".into()],
            time_ms: Some(1500),
            programs: None,
            guided: true,
            fuzz_target: "mixed".into(),
            corpus: None,
            workers: vec![Provenance::default()],
        }
        .config()
        .unwrap();
        let mut numbers = Numbers::new(dir.path(), &config, 10).unwrap();
        for expected in 10..10 + 2 * BLOCK {
            assert_eq!(numbers.draw().unwrap(), expected);
            if expected % 1000 == 0 {
                assert!(on_disk().next > expected);
            }
        }
        numbers.close().unwrap();
        assert_eq!(on_disk(), State::new(&config, 10 + 2 * BLOCK));
        assert_eq!(on_disk().config().unwrap().time, Some(Duration::from_millis(1500)));
    }
}
