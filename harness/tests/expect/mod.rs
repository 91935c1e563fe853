//! What the comments of a corpus program promise: which policies and places they speak of, and what each line is to come to.
//!
//! A promise is a whole comment line:
//!
//! ```text
//! # expect mainline on dax: #8 blocked, ok after #10
//! # expect mainline layout-lease: #4 ok=4K; signals 1, RT1 to t1 after #6
//! # homes: dax
//! ```
//!
//! Policies come first: `mainline`, `mainline-6.1`, `mainline-6.12`, `layout-lease`, `layout-lease-strict`, `revoke`, or `all`; then `with gup_test` or `without
//! gup_test`, where it is only said of kernels that have that, or have it not. Places, if any, follow `on`:
//! mounts, `dax`, `cached` (the page cache), `ext4-any`, `xfs-any`; the program's home must be one of them. Then facts of a line `#N`, counted from 0 as in reports;
//! `;` starts the facts of another line, or of signals. `# finding NAME on PLACES` says that stock kernels do something wrong there, which the verdict must
//! name: once they do not, or the checker knows it, the comment is to go. `# homes:` says to which homes the program can be moved; without it, to all.
//!
//! It does not judge the bytes: the checker does that for every history.

#![allow(dead_code, reason = "each test file uses its part of it")]

use history::{Errno, Event, FaultSignal, History, Payload};
use program::{CallId, Lane, Mount, Program};
use std::path::{Path, PathBuf};

/// Policies that a promise may name, beside `all`.
const POLICIES: &[&str] =
    &["mainline", "mainline-6.1", "mainline-6.12", "layout-lease", "layout-lease-strict", "revoke"];

/// A program of the corpus.
pub struct Seed {
    /// Relative to the corpus.
    pub name: String,
    pub text: String,
    pub program: Program,
    pub homes: Vec<Mount>,
    pub promises: Vec<Promise>,
    /// Where stock kernels do something wrong.
    pub findings: Vec<Mount>,
}

/// What the comments of a program say.
#[derive(Debug)]
pub struct Comments {
    pub homes: Vec<Mount>,
    pub promises: Vec<Promise>,
    pub findings: Vec<Mount>,
}

/// One `# expect` line.
#[derive(Clone, Debug)]
pub struct Promise {
    /// Line of the file, counted from 1.
    pub at: usize,
    pub policies: Vec<String>,
    /// Only of kernels that have gup_test, or that have it not.
    pub gup_test: Option<bool>,
    pub homes: Vec<Mount>,
    pub facts: Vec<Fact>,
}

/// Something to be true of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// It was seen to stand still, or never.
    Blocked(CallId, bool),
    /// It ended only with the agent's help, or without.
    Helped(CallId, bool),
    /// It was not issued.
    Skipped(CallId),
    /// It did not return.
    Lost(CallId),
    /// It returned one of these.
    Returned(CallId, Vec<Outcome>),
    /// It returned before the other was issued, or after.
    Before(CallId, CallId),
    After(CallId, CallId),
    /// So many signals were handled.
    Signals(usize),
    /// One signal of that number was handled: by whom, and between which lines.
    Signal {
        signo: i32,
        lane: Option<Lane>,
        after: Option<CallId>,
        before: Option<CallId>,
    },
}

/// How a call may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Ok,
    Value(u64),
    Error(Errno),
    /// A load or store ended at a fault with that signal.
    Fault(i32),
}

/// The corpus.
pub fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpora/seeds")
}

/// Every program of the corpus, in order of names.
pub fn seeds() -> Vec<Seed> {
    let mut found = Vec::new();
    below(&corpus(), &mut found);
    found.sort();
    found.into_iter().map(|path| seed(&path)).collect()
}

fn below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("the entry can be read").path();
        if path.is_dir() {
            below(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "prog") {
            found.push(path);
        }
    }
}

fn seed(path: &Path) -> Seed {
    let text = std::fs::read_to_string(path).expect("the program can be read");
    let name = path.strip_prefix(corpus()).unwrap_or(path).display().to_string();
    let program = Program::parse(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
    let Comments { homes, promises, findings } =
        comments(&text).unwrap_or_else(|(line, error)| panic!("{name}:{line}: {error}"));
    Seed { name, text, program, homes, promises, findings }
}

impl Seed {
    /// The program at another home.
    pub fn at(&self, home: Mount) -> Program {
        let image = |line: &str| line.starts_with("image ").then(|| format!("image {home}"));
        let lines: Vec<String> =
            self.text.lines().map(|line| image(line).unwrap_or_else(|| line.to_owned())).collect();
        Program::parse(&lines.join("\n")).unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    /// What is promised of that policy at that home, of a kernel that has gup_test or not. The policy of a kernel goes by its own name and by that of its
    /// regime.
    pub fn facts(&self, policy: &str, home: Mount, gup_test: bool) -> Vec<(usize, &Fact)> {
        let of_kernel = |name: &str| policy.starts_with("mainline-") && name == "mainline";
        let named = |name: &String| name == "all" || name == policy || of_kernel(name);
        let promises = self.promises.iter().filter(|promise| {
            promise.policies.iter().any(named)
                && promise.homes.contains(&home)
                && promise.gup_test.is_none_or(|has| has == gup_test)
        });
        promises.flat_map(|promise| promise.facts.iter().map(|fact| (promise.at, fact))).collect()
    }
}

/// What the comments of a text say, or what is wrong with which line.
pub fn comments(text: &str) -> Result<Comments, (usize, String)> {
    let mut said =
        Comments { homes: Mount::ALL.to_vec(), promises: Vec::new(), findings: Vec::new() };
    for (index, line) in text.lines().enumerate() {
        let at = index + 1;
        let here = |error| (at, error);
        if let Some(words) = line.strip_prefix("# homes:") {
            said.homes = places(words.split_whitespace()).map_err(here)?;
        }
        if let Some(rest) = line.strip_prefix("# finding ") {
            let (_, homes) = rest.split_once(" on ").ok_or((at, "no place".to_owned()))?;
            said.findings.extend(places(homes.split_whitespace()).map_err(here)?);
        }
        if let Some(rest) = line.strip_prefix("# expect ") {
            said.promises.push(promise(at, rest).map_err(here)?);
        }
    }
    Ok(said)
}

fn promise(at: usize, text: &str) -> Result<Promise, String> {
    let (scope, facts) = text.split_once(':').ok_or("no `:` after the policies")?;
    let (policies, homes) = match scope.split_once(" on ") {
        Some((policies, homes)) => (policies, places(homes.split_whitespace())?),
        None => (scope, Mount::ALL.to_vec()),
    };
    let (policies, gup_test) = match policies.split_once(" with") {
        Some((policies, " gup_test")) => (policies, Some(true)),
        Some((policies, "out gup_test")) => (policies, Some(false)),
        Some((_, what)) => return Err(format!("`with{what}` is nothing to ask of a kernel")),
        None => (policies, None),
    };
    let policies: Vec<String> = policies.split_whitespace().map(str::to_owned).collect();
    let known = |name: &String| name == "all" || POLICIES.contains(&name.as_str());
    if let Some(unknown) = policies.iter().find(|name| !known(name)) {
        return Err(format!("`{unknown}` is no policy"));
    }
    if policies.is_empty() {
        return Err("no policy".to_owned());
    }
    let mut all = Vec::new();
    for group in facts.split(';') {
        all.extend(facts_of(group.trim())?);
    }
    Ok(Promise { at, policies, gup_test, homes, facts: all })
}

fn places<'a>(words: impl Iterator<Item = &'a str>) -> Result<Vec<Mount>, String> {
    let mut homes = Vec::new();
    for word in words {
        let all = Mount::ALL.into_iter();
        homes.extend(match word {
            "all" => all.collect(),
            "dax" => all.filter(|mount| mount.is_dax()).collect(),
            "cached" => all.filter(|mount| !mount.is_dax()).collect(),
            "xfs-any" => all.filter(|mount| mount.is_xfs()).collect(),
            "ext4-any" => all.filter(|mount| !mount.is_xfs()).collect::<Vec<_>>(),
            name => vec![Mount::from_name(name).ok_or(format!("`{name}` is no place"))?],
        });
    }
    if homes.is_empty() { Err("no place".to_owned()) } else { Ok(homes) }
}

/// The facts of one line, or of signals.
fn facts_of(group: &str) -> Result<Vec<Fact>, String> {
    let mut facts = Vec::new();
    if let Some(rest) = group.strip_prefix("signals ") {
        let mut parts = rest.split(',').map(str::trim);
        let count = parts.next().and_then(|n| n.parse().ok()).ok_or("no number of signals")?;
        facts.push(Fact::Signals(count));
        for part in parts {
            facts.push(signal(part)?);
        }
        return Ok(facts);
    }
    let (call, rest) = group.split_once(' ').ok_or(format!("nothing is said of `{group}`"))?;
    let call = call_id(call)?;
    for part in rest.split(',').map(str::trim) {
        let words: Vec<&str> = part.split_whitespace().collect();
        match words.as_slice() {
            ["blocked"] => facts.push(Fact::Blocked(call, true)),
            ["not", "blocked"] => facts.push(Fact::Blocked(call, false)),
            ["helped"] => facts.push(Fact::Helped(call, true)),
            ["not", "helped"] => facts.push(Fact::Helped(call, false)),
            ["skipped"] => facts.push(Fact::Skipped(call)),
            ["lost"] => facts.push(Fact::Lost(call)),
            [outcomes, rest @ ..] => {
                let outcomes: Result<Vec<Outcome>, String> =
                    outcomes.split('|').map(outcome).collect();
                facts.push(Fact::Returned(call, outcomes?));
                for order in rest.chunks(2) {
                    facts.push(match order {
                        ["after", other] => Fact::After(call, call_id(other)?),
                        ["before", other] => Fact::Before(call, call_id(other)?),
                        _ => return Err(format!("`{part}` is no fact")),
                    });
                }
            }
            [] => return Err("an empty fact".to_owned()),
        }
    }
    Ok(facts)
}

/// `RT1 to t1 after #6 before #8`
fn signal(text: &str) -> Result<Fact, String> {
    let mut words = text.split_whitespace();
    let signo = match words.next() {
        Some("SIGIO") => 29,
        Some("RT1") => 35,
        Some("RT2") => 36,
        _ => return Err(format!("`{text}` names no signal")),
    };
    let (mut lane, mut after, mut before) = (None, None, None);
    while let Some(word) = words.next() {
        let what = words.next().ok_or(format!("nothing follows `{word}`"))?;
        match word {
            "to" => lane = Some(lane_of(what)?),
            "after" => after = Some(call_id(what)?),
            "before" => before = Some(call_id(what)?),
            _ => return Err(format!("`{word}` says nothing of a signal")),
        }
    }
    Ok(Fact::Signal { signo, lane, after, before })
}

fn lane_of(word: &str) -> Result<Lane, String> {
    let lanes = (0..program::THREADS_MAX).map(Lane::Thread);
    let lanes = lanes.chain((0..program::CHILDREN_MAX).map(Lane::Child));
    lanes.into_iter().find(|lane| lane.to_string() == word).ok_or(format!("`{word}` is no lane"))
}

fn call_id(word: &str) -> Result<CallId, String> {
    let number = word.strip_prefix('#').and_then(|number| number.parse().ok());
    number.map(CallId).ok_or(format!("`{word}` is no line"))
}

fn outcome(word: &str) -> Result<Outcome, String> {
    if word == "ok" {
        return Ok(Outcome::Ok);
    }
    if let Some(value) = word.strip_prefix("ok=") {
        let (digits, unit) = match value.strip_suffix('K') {
            Some(digits) => (digits, 1 << 10),
            None => (value, 1),
        };
        let number: u64 = digits.parse().map_err(|_| format!("`{value}` is no number"))?;
        return Ok(Outcome::Value(number * unit));
    }
    match word {
        "SIGBUS" => return Ok(Outcome::Fault(7)),
        "SIGSEGV" => return Ok(Outcome::Fault(11)),
        _ => {}
    }
    (1..134)
        .map(Errno)
        .find(|errno| history::errno::name(*errno) == word)
        .map(Outcome::Error)
        .ok_or(format!("`{word}` is no outcome"))
}

impl Fact {
    /// The lines that it speaks of.
    pub fn calls(&self) -> Vec<CallId> {
        match self {
            Fact::Blocked(call, _) | Fact::Helped(call, _) => vec![*call],
            Fact::Skipped(call) | Fact::Lost(call) | Fact::Returned(call, _) => vec![*call],
            Fact::Before(call, other) | Fact::After(call, other) => vec![*call, *other],
            Fact::Signals(_) => vec![],
            Fact::Signal { after, before, .. } => after.iter().chain(before).copied().collect(),
        }
    }

    /// What speaks against it in the history, if anything does.
    pub fn broken(&self, history: &History) -> Option<String> {
        let events = &history.events;
        let invoked = |id: CallId| {
            events.iter().find_map(|event| match event {
                Event::Invoke { seq, call, .. } if *call == id => Some(*seq),
                _ => None,
            })
        };
        let returned = |id: CallId| {
            events.iter().find_map(|event| match event {
                Event::Return { seq, call, result, payload, .. } if *call == id => {
                    Some((*seq, result, payload))
                }
                _ => None,
            })
        };
        let blocked = |id: CallId| {
            events.iter().any(|e| matches!(e, Event::Blocked { call, .. } if *call == id))
        };
        let skipped = |id: CallId| {
            events.iter().any(|e| matches!(e, Event::Skipped { call, .. } if *call == id))
        };
        let helped = |id: CallId| {
            events.iter().any(|e| matches!(e, Event::End { helped, .. } if helped.contains(&id)))
        };
        let says = |right: bool, text: String| (!right).then_some(text);
        match self {
            Fact::Blocked(id, wanted) => {
                let not = if *wanted { "not " } else { "" };
                says(blocked(*id) == *wanted, format!("#{} was {not}seen to wait", id.0))
            }
            Fact::Helped(id, wanted) => {
                let not = if *wanted { "not " } else { "" };
                says(helped(*id) == *wanted, format!("#{} was {not}helped", id.0))
            }
            Fact::Skipped(id) => says(skipped(*id), format!("#{} was issued", id.0)),
            Fact::Lost(id) => says(returned(*id).is_none(), format!("#{} returned", id.0)),
            Fact::Returned(id, wanted) => match returned(*id) {
                None if skipped(*id) => Some(format!("#{} was skipped", id.0)),
                None => Some(format!("#{} never returned", id.0)),
                Some((_, result, payload)) => {
                    let fault = fault_of(payload).map(|fault| fault.signo);
                    let fits = |outcome: &Outcome| match outcome {
                        Outcome::Ok => result.is_ok() && fault.is_none(),
                        Outcome::Value(value) => *result == Ok(*value) && fault.is_none(),
                        Outcome::Error(errno) => *result == Err(*errno),
                        Outcome::Fault(signo) => fault == Some(*signo),
                    };
                    let seen = match (fault, result) {
                        (Some(signo), _) => format!("signal {signo}"),
                        (None, Ok(value)) => value.to_string(),
                        (None, Err(errno)) => history::errno::name(*errno),
                    };
                    says(wanted.iter().any(fits), format!("#{} returned {seen}", id.0))
                }
            },
            Fact::Before(id, other) | Fact::After(id, other) => {
                let early = matches!(self, Fact::Before(..));
                match (returned(*id), invoked(*other)) {
                    (Some((seq, ..)), Some(from)) => says(
                        (seq < from) == early,
                        format!(
                            "#{} returned {} #{}",
                            id.0,
                            if early { "after" } else { "before" },
                            other.0
                        ),
                    ),
                    _ => Some(format!("#{} or #{} was never there", id.0, other.0)),
                }
            }
            Fact::Signals(count) => {
                let signals = events.iter().filter(|e| matches!(e, Event::Signal { .. })).count();
                says(signals == *count, format!("{signals} signals came"))
            }
            Fact::Signal { signo, lane, after, before } => {
                let fits = events.iter().any(|event| match event {
                    Event::Signal { seq, lane: by, signo: number, .. } => {
                        number == signo
                            && lane.is_none_or(|lane| *by == Some(lane))
                            && after.is_none_or(|id| invoked(id).is_some_and(|from| from < *seq))
                            && before.is_none_or(|id| invoked(id).is_some_and(|from| *seq < from))
                    }
                    _ => false,
                });
                says(fits, format!("no such signal: {self:?}"))
            }
        }
    }
}

fn fault_of(payload: &Payload) -> Option<FaultSignal> {
    match payload {
        Payload::Read { fault, .. } | Payload::Store { fault } => *fault,
        _ => None,
    }
}
