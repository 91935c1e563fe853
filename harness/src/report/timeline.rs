//! A History beside its Program, for people: one line an event, in the order in which they happened.
//!
//! Shows everything that was recorded and judges none of it; what a call waited for, the checker says. Sizes are in bytes, with `K` and `M` where they are round.

use checker::Wait;
use history::errno;
use history::{
    Bytes, CallResult, Event, FaultSignal, FileFacts, FileId, History, Payload, Run, SkipReason,
};
use program::{CallId, Program};
use std::collections::BTreeSet;
use std::fmt::Write;

/// Most runs of one `Bytes` that are shown: a page torn into words would fill the screen otherwise.
const RUNS_SHOWN_MAX: usize = 8;
/// Most raw bytes that are shown in hexadecimal.
const RAW_SHOWN_MAX: usize = 24;
/// Most lines of a console or fsck text that are shown; `console.txt` has the rest.
const TEXT_LINES_MAX: usize = 40;
/// Column at which details are indented.
const DETAIL: &str = "                     ";

/// The lines of a program as its text form prints them, one a call, without the header.
pub fn lines(program: &Program) -> Vec<String> {
    program.lines.iter().map(|line| line.display(program.home).to_string()).collect()
}

/// The name of a call, such as `pread`; a lying guest may name one that the program does not have.
pub fn call_name(program: &Program, call: CallId) -> &'static str {
    program.lines.get(usize::from(call.0)).map_or("(no such call)", |line| line.call.name())
}

/// Lines of a program that matter to an anomaly.
#[derive(Clone, Debug, Default)]
pub struct Marks {
    /// Calls that saw something wrong.
    pub seen: BTreeSet<CallId>,
    /// Calls that the anomaly speaks of.
    pub named: BTreeSet<CallId>,
}

impl Marks {
    fn of(&self, call: CallId) -> &'static str {
        if self.seen.contains(&call) {
            "=>"
        } else if self.named.contains(&call) {
            "->"
        } else {
            "  "
        }
    }

    /// What the marks mean, to follow a heading; nothing where there are none.
    pub fn legend(&self) -> &'static str {
        match (self.seen.is_empty(), self.named.is_empty()) {
            (true, true) => "",
            (false, true) => " (=> saw it)",
            (true, false) => " (-> is named above)",
            (false, false) => " (=> saw it, -> is named above)",
        }
    }
}

/// The program with its lines numbered as reports number them, and marked.
pub fn program(program: &Program, marks: &Marks) -> String {
    let mut text = format!("image {}\n", program.home.name());
    for (index, line) in lines(program).iter().enumerate() {
        let mark = marks.of(CallId(index as u16));
        let _ = writeln!(text, "{mark} #{index:<3} {line}");
    }
    text
}

/// The whole history, beside the calls that made it, and what those waited for that were seen to stand still.
pub fn history(program: &Program, history: &History, waits: &[Wait]) -> String {
    let mut view = View { waits, ..View::new(program, history) };
    let mut events = history.events.iter().peekable();
    while let Some(event) = events.next() {
        // A call that nothing overtook is one line; any other shows its start and its end.
        let answer = match (event, events.peek()) {
            (Event::Invoke { call, time_ns, .. }, Some(Event::Return { call: returned, .. }))
                if call == returned =>
            {
                Some(*time_ns)
            }
            _ => None,
        };
        match answer {
            Some(begun) => {
                let returned = events.next().unwrap_or(event);
                view.whole(begun, returned);
            }
            None => view.event(event),
        }
    }
    view.text
}

/// One line for a single event, such as the first that differs between two runs.
pub fn event(program: &Program, history: &History, event: &Event) -> String {
    let mut view = View::new(program, history);
    view.event(event);
    view.text.trim_end().to_string()
}

/// What is being written, and what it is about.
struct View<'a> {
    program: &'a Program,
    lines: Vec<String>,
    history: &'a History,
    waits: &'a [Wait],
    text: String,
}

impl<'a> View<'a> {
    fn new(program: &'a Program, history: &'a History) -> View<'a> {
        View { program, lines: lines(program), history, waits: &[], text: String::new() }
    }

    /// The text of a call; a lying guest may name one that the program does not have.
    fn line(&self, call: CallId) -> &str {
        self.lines.get(usize::from(call.0)).map_or("(no such call)", String::as_str)
    }

    fn lane(&self, call: CallId) -> &str {
        self.line(call).split(':').next().unwrap_or("?")
    }

    fn call(&self, call: CallId) -> &str {
        self.line(call).split_once(": ").map_or("(no such call)", |(_, call)| call)
    }

    fn name(&self, call: CallId) -> String {
        format!("#{} {}", call.0, call_name(self.program, call))
    }

    /// Writes `time #call lane text`.
    fn head(&mut self, time: &str, call: CallId, sign: char, text: &str) {
        let lane = self.lane(call).to_string();
        let _ = writeln!(self.text, "{time:>12} #{:<3}{sign}{lane} {text}", call.0);
    }

    fn detail(&mut self, text: &str) {
        let _ = writeln!(self.text, "{DETAIL}{text}");
    }

    /// A line that belongs to no call.
    fn plain(&mut self, text: &str) {
        let _ = writeln!(self.text, "{:>12} {text}", "");
    }

    /// A call that returned before anything else happened.
    fn whole(&mut self, begun: u64, returned: &Event) {
        if let Event::Return { call, time_ns, result, payload, .. } = returned {
            let took = took(begun, *time_ns);
            let text = format!("{} = {} ({took})", self.call(*call), outcome(*result, payload));
            self.head(&time(begun), *call, ' ', &text);
            self.payload(payload);
        }
    }

    fn event(&mut self, event: &Event) {
        match event {
            Event::Invoke { call, time_ns, .. } => {
                let text = format!("{} starts", self.call(*call));
                self.head(&time(*time_ns), *call, '>', &text);
            }
            Event::Return { call, time_ns, result, payload, .. } => {
                let text =
                    format!("{} = {}", call_name(self.program, *call), outcome(*result, payload));
                self.head(&time(*time_ns), *call, '<', &text);
                self.payload(payload);
            }
            Event::Blocked { seq, call, time_ns, state, wchan } => {
                let place = if wchan.is_empty() || wchan == "0" { "the kernel" } else { wchan };
                let text = format!("is blocked in {place} (state {state})");
                self.head(&time(*time_ns), *call, '~', &text);
                let wait = self.waits.iter().find(|w| w.seq == *seq && w.call == *call);
                if let Some(sentence) = wait.map(|w| printable(&w.sentence)) {
                    self.detail(&sentence);
                }
            }
            Event::Skipped { call, reason, .. } => {
                let text = format!("{} was left out: {}", self.call(*call), skipped(*reason));
                self.head("", *call, '-', &text);
            }
            Event::Signal { time_ns, lane, signo, code, fd, answer, .. } => {
                let whom = lane.map_or_else(|| "the agent".to_owned(), |lane| lane.to_string());
                let mut text = format!(
                    "{} {whom} got signal {signo} (si_code {code}, si_fd {fd})",
                    time(*time_ns)
                );
                if let Some((lease, result)) = answer {
                    let result = outcome(*result, &Payload::None);
                    text += &format!(" and answered F_SETLEASE {} = {result}", lease.name());
                }
                self.plain(&text);
            }
            Event::GatesReleased { .. } => self.plain("the agent released all gates"),
            Event::Pins { before, after } => {
                self.plain(&format!("pinned pages: {before} before, {after} after"));
            }
            Event::End { stuck, helped, .. } => {
                self.plain("the program is over");
                if !helped.is_empty() {
                    let names = self.names(helped);
                    self.plain(&format!("returned only when the agent helped: {names}"));
                }
                if !stuck.is_empty() {
                    let names = self.names(stuck);
                    self.plain(&format!("never returned: {names}"));
                }
            }
            Event::Final { path, by, file, result, data } => {
                let how = match result {
                    Ok(_) => facts(file),
                    Err(errno) => format!("{}; {}", errno::name(*errno), facts(file)),
                };
                let name = format!("{}:{}", path.mount.name(), path.file_name());
                self.plain(&format!("finally {name} by {by:?}: {how}"));
                self.data(data);
            }
            Event::Names { by, mount, names } => {
                let names: Vec<String> = names
                    .iter()
                    .map(|(name, id)| format!("{} ({})", (b'a' + name % 26) as char, identity(id)))
                    .collect();
                let names = if names.is_empty() { "nothing".into() } else { names.join(", ") };
                self.plain(&format!("names on {} by {by:?}: {names}", mount.name()));
            }
            Event::FinalExtents { path, extents, .. } => {
                self.plain(&format!("extents of {}:{}", path.mount.name(), path.file_name()));
                self.extents(extents);
            }
            Event::Fsck { mount, text } => {
                self.plain(&format!("fsck of {}:", mount.name()));
                self.block(text);
            }
            Event::Console(splat) => {
                self.plain(&format!("console: {}", splat.title));
                self.block(&splat.text);
            }
            Event::Down(down) => self.plain(&format!("the guest went down: {down:?}")),
            Event::LogFull => self.plain("the log was full: later events are missing"),
        }
    }

    fn names(&self, calls: &[CallId]) -> String {
        calls.iter().map(|call| self.name(*call)).collect::<Vec<_>>().join(", ")
    }

    fn payload(&mut self, payload: &Payload) {
        match payload {
            Payload::None | Payload::Store { fault: None } => {}
            Payload::File(file) => self.detail(&facts(file)),
            Payload::Read { data, tail_intact, fault } => {
                self.data(data);
                if !tail_intact {
                    self.detail("bytes of the buffer past the returned count were overwritten");
                }
                self.fault(fault.as_ref());
            }
            Payload::Store { fault } => self.fault(fault.as_ref()),
            Payload::Extents(extents) => self.extents(extents),
            Payload::Dedupe { status } => {
                let status = match status {
                    0 => "same".to_string(),
                    1 => "differs".to_string(),
                    other => errno::name(history::Errno(other.saturating_neg())),
                };
                self.detail(&format!("dedupe status: {status}"));
            }
            Payload::Address(address) => self.detail(&format!("at {address:#x}")),
        }
    }

    fn fault(&mut self, fault: Option<&FaultSignal>) {
        let Some(FaultSignal { signo, code, addr }) = fault else { return };
        let signal = match signo {
            7 => "SIGBUS".to_string(),
            11 => "SIGSEGV".to_string(),
            other => format!("signal {other}"),
        };
        let place = if *addr < 0 {
            format!("{} before the mapping", size(addr.unsigned_abs()))
        } else {
            format!("at byte {} of the mapping", size(addr.unsigned_abs()))
        };
        self.detail(&format!("{signal} (si_code {code}) {place}"));
    }

    fn extents(&mut self, extents: &[history::Extent]) {
        for e in extents.iter().take(TEXT_LINES_MAX) {
            let range = format!("at {} len {}", size(e.logical), size(e.length));
            self.detail(&format!("{range}: device byte {:#x}, flags {:#x}", e.physical, e.flags));
        }
        if extents.len() > TEXT_LINES_MAX {
            self.detail(&format!("and {} more", extents.len() - TEXT_LINES_MAX));
        }
    }

    fn data(&mut self, data: &Bytes) {
        let mut at = 0u64;
        for run in data.runs.iter().take(RUNS_SHOWN_MAX) {
            let what = match run {
                Run::Zero { .. } => "zeros".to_string(),
                Run::Signed { run, call, offset, .. } => self.signature(*run, *call, *offset),
                Run::Raw(bytes) => format!("raw {}", hexadecimal(bytes)),
            };
            self.detail(&format!("at {} len {}: {what}", size(at), size(run.len())));
            at = at.saturating_add(run.len());
        }
        if data.runs.len() > RUNS_SHOWN_MAX {
            self.detail(&format!("and {} more pieces", data.runs.len() - RUNS_SHOWN_MAX));
        }
    }

    fn signature(&self, run: u32, call: u16, offset: u64) -> String {
        let whose = if run == self.history.run {
            String::new()
        } else {
            format!(" of another run ({run})")
        };
        if call == history::stamp::CALL_POISON {
            return format!("poison{whose}: the buffer as it was before the call");
        }
        if let Some(gate) = (0..2).find(|n| history::stamp::call_gate(*n) == call) {
            let offset = size(offset);
            return format!("the device of g{gate}{whose} as it was at first, from {offset} on");
        }
        let name =
            if run == self.history.run { self.name(CallId(call)) } else { format!("#{call}") };
        format!("signed by {name}{whose} for offset {}", size(offset))
    }

    fn block(&mut self, text: &str) {
        for line in text.lines().take(TEXT_LINES_MAX) {
            self.detail(&printable(line));
        }
        let count = text.lines().count();
        if count > TEXT_LINES_MAX {
            self.detail(&format!("and {} more lines", count - TEXT_LINES_MAX));
        }
    }
}

/// A guest's text without control characters: it must not reach into the reader's terminal.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// `0`, `512`, `16K`, `2M`; `4K+8` for what is not round but beyond a page.
pub fn size(bytes: u64) -> String {
    const K: u64 = 1 << 10;
    const M: u64 = 1 << 20;
    match bytes {
        0 => "0".into(),
        b if b.is_multiple_of(M) => format!("{}M", b / M),
        b if b.is_multiple_of(K) => format!("{}K", b / K),
        b if b > 4 * K => format!("{}K+{}", b / K, b % K),
        b => b.to_string(),
    }
}

fn time(ns: u64) -> String {
    format!("{}.{:03} ms", ns / 1_000_000, ns / 1000 % 1000)
}

fn took(begun: u64, ended: u64) -> String {
    format!("{} us", ended.saturating_sub(begun) / 1000)
}

/// What the call returned; an address is shown as a detail and not as a huge number.
fn outcome(result: CallResult, payload: &Payload) -> String {
    match (result, payload) {
        (Err(errno), _) => errno::name(errno),
        (Ok(_), Payload::Address(_)) => "ok".into(),
        (Ok(value), _) => size(value),
    }
}

fn facts(file: &FileFacts) -> String {
    let dax = if file.dax { ", DAX" } else { "" };
    format!(
        "{}, {} bytes ({}), {} blocks, {} links{dax}",
        identity(&file.id),
        file.size,
        size(file.size),
        file.blocks,
        file.nlink
    )
}

fn identity(id: &FileId) -> String {
    format!("inode {} generation {:#x} on {}", id.ino, id.generation, id.mount.name())
}

fn skipped(reason: SkipReason) -> &'static str {
    match reason {
        SkipReason::EmptySlot => "a slot that it needs is empty",
        SkipReason::NoLane => "its lane was not forked, or has ended",
        SkipReason::Unsupported => "the kernel does not know the operation",
        SkipReason::LaneStuck => "an earlier call of its lane never returned",
        SkipReason::OutOfRange => "its range leaves the mapping",
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes.iter().take(RAW_SHOWN_MAX) {
        let _ = write!(text, "{byte:02x}");
    }
    if bytes.len() > RAW_SHOWN_MAX {
        text.push_str("...");
    }
    text
}
