//! What the calls of a program did to the truth, as far as a history tells.
//!
//! The model never decides whether something is wrong: it answers "what may this have been, at that time". The oracles ask.

pub mod change;
pub mod content;
mod effects;
pub mod file;
pub mod gate;
pub mod lease;
pub mod life;
pub mod lin;
pub mod order;
pub mod pin;
mod revoke;
pub mod value;
pub mod watch;

use crate::Policy;
use content::{Content, ObjId, Src, Version, candidates};
use file::{File, Map, NameOp, NameState, Open, Pipe, SizeOp, Touch};
use history::{CallResult, Event, FileFacts, FileId, History, Payload};
use lin::Lin;
use order::{NEVER, NOBODY, Order, Span};
use program::{
    Buf, Call, CallId, FallocateMode, Lane, Line, Mount, OpenFlags, Path, Program, Prot, Sharing,
};
use smallvec::smallvec;
use std::collections::BTreeMap;
use value::{Cand, Val, Vals};
use watch::Watch;

/// Bytes of a page.
pub const PAGE: u64 = 4096;
/// Most values that a place may have before it counts as anything.
const VALS_MAX: usize = 16;

/// Rounds up to a page.
pub const fn page_up(n: u64) -> u64 {
    n.div_ceil(PAGE).saturating_mul(PAGE)
}

/// Rounds down to a page.
pub const fn page_down(n: u64) -> u64 {
    n / PAGE * PAGE
}

/// What the history says of one line, gathered beforehand.
#[derive(Clone, Debug, Default)]
pub struct Seen<'a> {
    /// Invoke.
    pub inv: Option<u64>,
    /// Return.
    pub ret: Option<u64>,
    /// Result.
    pub result: Option<CallResult>,
    /// Payload.
    pub payload: Option<&'a Payload>,
    /// Calls that filled its slots.
    pub slots: &'a [CallId],
    /// Was seen blocked.
    pub blocked: bool,
    /// Returned only with help.
    pub helped: bool,
    /// Never returned.
    pub stuck: bool,
    /// When it was invoked, in nanoseconds of the run.
    pub inv_ns: u64,
    /// When it returned.
    pub ret_ns: Option<u64>,
}

/// The range of a file that an anonymous read must be compared with, and where its bytes are in the payload.
#[derive(Clone, Copy, Debug)]
pub struct ReadOf {
    /// What was read.
    pub obj: ObjId,
    /// From where.
    pub start: u64,
    /// The mapped file whose pages were looked at, for a load.
    pub mapped: Option<usize>,
    /// How far into the transfer that is: other segments of an iovec come before.
    pub skip: u64,
    /// How much.
    pub len: u64,
}

/// What a call in flight leaves to be done when it returns.
#[derive(Clone, Debug, Default)]
pub struct Pending {
    /// Copies to resolve: destination and range.
    pub copies: Vec<(ObjId, u64, u64)>,
    /// Reads to compare with the payload, in its order.
    pub reads: Vec<ReadOf>,
}

/// The model and what the oracles need to know beside it.
pub struct World<'a> {
    /// What the kernel is expected to do.
    pub policy: &'a Policy,
    /// The program.
    pub program: &'a Program,
    /// The run's number.
    pub run: u32,
    /// Lines as seen.
    pub seen: Vec<Seen<'a>>,
    /// Who was before whom.
    pub order: Order,
    /// All contents.
    pub objects: Vec<Content>,
    /// For each object, the file whose bytes it shows.
    pub owner: Vec<Option<usize>>,
    /// For each object, every value that was ever assigned to it: tells stale bytes from foreign ones.
    pub ever: Vec<Vec<Cand>>,
    /// Files.
    pub files: Vec<File>,
    /// Open files.
    pub opens: Vec<Open>,
    /// Which open file a slot's filler made.
    pub fds: BTreeMap<u16, usize>,
    /// Mappings by process and filler.
    pub maps: BTreeMap<(u8, u16), Map>,
    /// Pipes by filler.
    pub pipes: BTreeMap<u16, Pipe>,
    /// The block device behind each gate that was opened.
    pub gates: BTreeMap<program::GateSlot, usize>,
    /// Open files in the program's socket pair: the calls that sent them.
    pub sent: Vec<(u16, usize)>,
    /// Pages that an I/O in flight or a registered buffer was given: by call, whether each surely is the file's own.
    pub real: BTreeMap<u16, Vec<bool>>,
    /// The layouts that calls changed, as it was known when they returned.
    pub changed: BTreeMap<u16, Vec<change::Changed>>,
    /// Breaks of leases that began, and whom they must tell.
    pub dues: Vec<lease::Due>,
    /// Leases, by file, of files that somebody wanted a lease on.
    pub leases: BTreeMap<usize, lease::Register>,
    /// What was seen from outside of the calls.
    pub watch: Watch,
    /// Names.
    pub names: BTreeMap<Mount, Lin<NameState, NameOp>>,
    /// Work for the Return of each line.
    pub pending: Vec<Pending>,
    /// For each line, when its effect may begin at the earliest, where that is later than its Invoke: it went through a gate that was held.
    pub effect_from: Vec<u64>,
    /// The history contradicts itself or the program.
    pub malformed: bool,
    /// A set of outcomes grew too large.
    pub overflow: bool,
    /// Buffers that are, or may be, registered with rings, by the ring's filler.
    pub registered: BTreeMap<u16, effects::Registered>,
    /// By fixed transfer: the call that pinned the buffer that it surely has.
    pub fixed: BTreeMap<u16, u16>,
    /// What gup_test and memory regions have pinned, by the call that did.
    pub pinned: BTreeMap<u16, effects::Pinned>,
    /// What came into pinned pages past their mapping, by whose pages they are.
    pub arrived: BTreeMap<ObjId, ObjId>,
    /// Objects that show pinned pages.
    pub shown: BTreeMap<ObjId, effects::Shown>,
    /// The kernel complained of a DAX page that is not the one that it expected.
    pub dax_splat: bool,
    /// Files that may have lost a name, and since when.
    pub deleted: Vec<(usize, u64)>,
    /// Known: ranges of clones into which a call under way may still write, through blocks that are shared.
    pub late: Vec<(u16, (usize, u64, u64))>,
    by_id: BTreeMap<FileId, usize>,
    inflight: Vec<(u64, u16)>,
    now: u64,
}

impl<'a> World<'a> {
    /// The world before the first call.
    pub fn new(program: &'a Program, history: &'a History, policy: &'a Policy) -> World<'a> {
        let mut seen = vec![Seen::default(); program.lines.len()];
        let mut malformed = false;
        for event in &history.events {
            match event {
                Event::Invoke { seq, call, slots, time_ns } => {
                    match seen.get_mut(call.0 as usize) {
                        Some(s) if s.inv.is_none() => {
                            s.inv = Some(*seq);
                            s.inv_ns = *time_ns;
                            s.slots = slots;
                        }
                        _ => malformed = true,
                    }
                }
                Event::Return { seq, call, result, payload, time_ns } => {
                    match seen.get_mut(call.0 as usize) {
                        Some(s) if s.ret.is_none() && s.inv.is_some_and(|i| i <= *seq) => {
                            s.ret = Some(*seq);
                            s.ret_ns = Some(*time_ns);
                            s.result = Some(*result);
                            s.payload = Some(payload);
                        }
                        _ => malformed = true,
                    }
                }
                Event::Blocked { call, .. } => match seen.get_mut(call.0 as usize) {
                    Some(s) => s.blocked = true,
                    None => malformed = true,
                },
                Event::End { stuck, helped, .. } => {
                    for call in stuck {
                        match seen.get_mut(call.0 as usize) {
                            Some(s) => s.stuck = true,
                            None => malformed = true,
                        }
                    }
                    for call in helped {
                        match seen.get_mut(call.0 as usize) {
                            Some(s) => s.helped = true,
                            None => malformed = true,
                        }
                    }
                }
                _ => {}
            }
        }
        World {
            policy,
            program,
            run: history.run,
            seen,
            order: Order::of(program, &history.events),
            objects: Vec::new(),
            owner: Vec::new(),
            ever: Vec::new(),
            files: Vec::new(),
            opens: Vec::new(),
            fds: BTreeMap::new(),
            maps: BTreeMap::new(),
            pipes: BTreeMap::new(),
            gates: BTreeMap::new(),
            sent: Vec::new(),
            real: BTreeMap::new(),
            changed: BTreeMap::new(),
            dues: Vec::new(),
            leases: BTreeMap::new(),
            watch: Watch::of(&history.events),
            names: Mount::ALL
                .into_iter()
                .map(|m| (m, Lin::new([None; program::NAMES_MAX as usize])))
                .collect(),
            pending: vec![Pending::default(); program.lines.len()],
            effect_from: vec![0; program.lines.len()],
            deleted: Vec::new(),
            late: Vec::new(),
            malformed,
            overflow: false,
            registered: BTreeMap::new(),
            fixed: BTreeMap::new(),
            pinned: BTreeMap::new(),
            arrived: BTreeMap::new(),
            shown: BTreeMap::new(),
            dax_splat: history
                .events
                .iter()
                .any(|e| matches!(e, Event::Console(splat) if is_dax_splat(splat))),
            by_id: BTreeMap::new(),
            inflight: Vec::new(),
            now: 0,
        }
    }

    /// The line.
    pub fn line(&self, call: u16) -> &'a Line {
        &self.program.lines[call as usize]
    }

    /// The interval of a line.
    pub fn span(&self, call: u16) -> Span {
        let seen = &self.seen[call as usize];
        Span { inv: seen.inv.unwrap_or(NEVER), ret: seen.ret.unwrap_or(NEVER), call }
    }

    /// The process that a lane belongs to: 0 is the program's first.
    pub fn process(lane: Lane) -> u8 {
        match lane {
            Lane::Thread(_) => 0,
            Lane::Child(n) => n.saturating_add(1),
        }
    }

    /// The time before which no call is in flight any more.
    pub fn idle_since(&self) -> u64 {
        self.inflight.iter().map(|(inv, _)| *inv).min().unwrap_or(self.now)
    }

    /// The time before which no content that was replaced can be seen any more.
    pub fn settled(&self) -> u64 {
        let held = self.pipes_hold() || !self.registered.is_empty() || !self.pinned.is_empty();
        if held { 0 } else { self.idle_since() }
    }

    /// Whether a pipe may hold references. They see old versions until whoever takes them out has returned; the oldest is not tracked, so
    /// nothing is forgotten meanwhile.
    fn pipes_hold(&self) -> bool {
        let held = |p: &Pipe| {
            p.tail < p.head || p.confused || p.last_out.is_some_and(|s| s.ret >= self.now)
        };
        self.pipes.values().any(held)
    }

    /// A new object.
    pub fn object(&mut self, src: Src, owner: Option<usize>) -> ObjId {
        self.objects.push(Content::new(src));
        self.owner.push(owner);
        self.ever.push(Vec::new());
        ObjId(self.objects.len() as u32 - 1)
    }

    /// The file with that identity, made on first sight.
    pub fn file_by_id(&mut self, id: FileId, path: Path, facts: Option<FileFacts>) -> usize {
        if let Some(index) = self.by_id.get(&id) {
            return *index;
        }
        let index = self.files.len();
        let obj = self.object(Src::Vals(smallvec![Val::Zero]), Some(index));
        self.files.push(File {
            id,
            gate: None,
            obj,
            size: Lin::new(0),
            path,
            facts,
            touches: Vec::new(),
            incoherent: Vec::new(),
            tail_stored: false,
            shared: false,
            never_written: false,
            late_dma: false,
            unjudged: false,
            behind_mappings: None,
        });
        self.by_id.insert(id, index);
        index
    }

    /// The file with that identity, if it was ever opened.
    pub fn known_file(&self, id: FileId) -> Option<usize> {
        self.by_id.get(&id).copied()
    }

    /// The open file in the call's n-th slot.
    pub fn open_in(&self, call: u16, n: usize) -> Option<usize> {
        self.fds.get(&self.seen[call as usize].slots.get(n)?.0).copied()
    }

    /// The mapping in the call's n-th slot.
    pub fn map_in(&self, call: u16, n: usize) -> Option<&Map> {
        let filler = self.seen[call as usize].slots.get(n)?.0;
        self.maps.get(&(Self::process(self.line(call).lane), filler))
    }

    /// Sizes that the file may have had during `span`, leaving out what `without` did: smallest and largest.
    pub fn sizes(&self, file: usize, span: Span, without: Option<u16>) -> (u64, u64) {
        let all = self.files[file].size.during(span, without, &self.order);
        let min = all.first().copied().unwrap_or(0);
        let max = all.last().copied().unwrap_or(u64::MAX);
        (min, max)
    }

    /// Whether another call that changes the file's size was in flight during `span`: sizes in between may then be seen.
    pub fn size_in_motion(&self, file: usize, span: Span) -> bool {
        self.files[file]
            .touches
            .iter()
            .any(|t| t.span.call != span.call && !self.order.apart(t.span, span))
    }

    /// What a reader in `span` may see. Beyond the end of file a byte may be zero at any time, because writeback and
    /// truncation clear the rest of the last page.
    pub fn cands(&self, obj: ObjId, start: u64, end: u64, span: Span) -> Vec<Cand> {
        self.cands_without(obj, start, end, span, NOBODY)
    }

    /// As `cands`, leaving out what the call `without` assigned.
    fn cands_without(
        &self,
        obj: ObjId,
        start: u64,
        end: u64,
        span: Span,
        without: u16,
    ) -> Vec<Cand> {
        let mut out = candidates(&self.objects, obj, (start, end), span, without, &self.order);
        if let Some(file) = self.owner[obj.0 as usize]
            && self.files[file].unjudged
        {
            out.push(Cand { start, end, val: Val::Any });
        }
        if let Some(file) = self.owner[obj.0 as usize]
            && self.files[file].tail_stored
        {
            let (min, _) = self.sizes(file, span, None);
            let from = min.saturating_sub(self.base(&self.files[file], obj)).max(start);
            if from < end {
                out.push(Cand { start: from, end, val: Val::Zero });
            }
        }
        out.extend(self.zeroed_in_place(obj, start, end, span));
        out
    }

    /// The object whose pages another one shows, or itself.
    pub fn behind(&self, obj: ObjId) -> ObjId {
        self.shown.get(&obj).map_or(obj, |shown| shown.of)
    }

    /// Where in a file an object that shows it begins: the file's own content, or the private pages of a mapping.
    fn base(&self, file: &File, obj: ObjId) -> u64 {
        let obj = self.behind(obj);
        if file.obj == obj {
            return 0;
        }
        self.maps.values().find(|m| m.private == Some(obj)).map_or(0, |m| m.offset)
    }

    /// What a call that has hold of pages of a mapping may see in them beside what the file has: XFS caches in large folios, and dropping a part
    /// of one zeroes that part in place, whoever else refers to it (mm/truncate.c:truncate_inode_partial_folio, 6.12 and 6.1;
    /// fs/xfs/xfs_icache.c:xfs_inode_alloc asks for such folios). What a shift drops begins a block early
    /// (fs/xfs/xfs_bmap_util.c:xfs_prepare_shift, 6.12 and 6.1). An O_DIRECT write drops folios whole.
    pub fn zeroed_in_place(&self, obj: ObjId, start: u64, end: u64, span: Span) -> Vec<Cand> {
        let Some(file) = self.owner[obj.0 as usize].map(|f| &self.files[f]) else {
            return Vec::new();
        };
        // Pinned pages were in hand all the while.
        let shown = self.shown.get(&obj);
        let (obj, span) = match shown {
            Some(shown) => (shown.of, Span { inv: shown.since, ..span }),
            None => (obj, span),
        };
        let copied = file.obj != obj && self.objects[obj.0 as usize].is_opaque(start, end);
        if !file.on(Mount::Xfs) || copied || !self.refers_to_pages(span.call) {
            return Vec::new();
        }
        let base = self.base(file, obj);
        let drops = file.touches.iter().filter(|t| {
            t.drops
                && !t.direct_write
                && t.span.call != span.call
                && !self.order.apart(t.span, span)
        });
        drops
            .map(|t| {
                let (first, _) = t.range;
                let from = match self.call_of(t.span.call) {
                    Call::Truncate { .. } | Call::Ftruncate { .. } | Call::Open { .. } => first,
                    Call::Fallocate {
                        mode: FallocateMode::CollapseRange | FallocateMode::InsertRange,
                        ..
                    } => page_down(first).saturating_sub(PAGE),
                    _ => page_down(first),
                };
                let from = from.saturating_sub(base);
                let upto = page_up(t.range.1).saturating_sub(base);
                Cand { start: from.max(start), end: upto.min(end), val: Val::Zero }
            })
            .filter(|zeroed| zeroed.start < zeroed.end)
            .collect()
    }

    /// Whether a call reads memory of a mapping through references to its pages, which nothing that is done to the file waits for.
    fn refers_to_pages(&self, call: u16) -> bool {
        if call == NOBODY {
            return false;
        }
        match self.call_of(call) {
            Call::ProcessVmReadv { .. } | Call::ProcMemPread { .. } | Call::PinLongtermTestRead => {
                true
            }
            line @ (Call::Pwrite { .. } | Call::Pwritev { .. } | Call::Writev { .. }) => {
                line.buffers().any(|(buf, _)| matches!(buf, Buf::Map(..)))
                    && self.open_in(call, 0).is_some_and(|open| self.is_direct(open))
            }
            _ => false,
        }
    }

    /// Whether an open file's transfers pass the page cache by.
    pub fn is_direct(&self, open: usize) -> bool {
        let open = &self.opens[open];
        open.flags.has(OpenFlags::DIRECT) && !self.files[open.file].is_dax()
    }

    /// Whether two lines are requests of one ring. The slots of two processes have the same names.
    pub fn same_ring(&self, a: u16, b: u16) -> bool {
        let ring = |k: u16| self.line(k).via.and(self.seen[k as usize].slots.last());
        ring(a).is_some() && ring(a) == ring(b)
    }

    /// Assigns a range of an object on behalf of a call.
    pub fn assign(&mut self, call: u16, obj: ObjId, range: (u64, u64), src: Src, sure: bool) {
        let span = self.span(call);
        let span = Span { inv: span.inv.max(self.effect_from[call as usize]), ..span };
        self.assign_in(span, obj, range, src, sure);
    }

    /// Assigns a range of an object in a part of a call's time.
    pub fn assign_in(&mut self, span: Span, obj: ObjId, range: (u64, u64), src: Src, sure: bool) {
        if range.0 >= range.1 {
            return;
        }
        let call = span.call;
        let copy = matches!(src, Src::Copy { .. });
        if let Src::Vals(vals) = &src {
            let all = vals.iter().map(|val| Cand { start: range.0, end: range.1, val: *val });
            self.ever[obj.0 as usize].extend(all);
        }
        let version = Version { span, sure: sure && span.ret != NEVER, src };
        let settled = self.settled();
        self.objects[obj.0 as usize].assign(range.0, range.1, &version, settled, &self.order);
        if copy {
            self.pending[call as usize].copies.push((obj, range.0, range.1));
        }
    }

    /// Resolves the copies of a call that has returned: from now on their values stand by themselves.
    fn resolve(&mut self, call: u16) {
        let copies = std::mem::take(&mut self.pending[call as usize].copies);
        let span = self.span(call);
        let span = Span { inv: span.inv.max(self.effect_from[call as usize]), ..span };
        for (obj, start, end) in copies {
            // Sources of this call's versions in the range, piece by piece.
            let mut pieces = Vec::new();
            for (from, to, version) in self.objects[obj.0 as usize].visible(
                start,
                end,
                Span { call: NOBODY, ..span },
                &self.order,
            ) {
                if version.span.call == call
                    && let Src::Copy { obj: source, delta, before } = version.src
                {
                    pieces.push((from, to, version.span, (source, delta, before)));
                }
            }
            for (from, to, when, (source, delta, before)) in pieces {
                let Some(a) = from.checked_add_signed(delta) else { continue };
                // A clone whose end is in doubt reaches to the end of all offsets; its source ends there first.
                let b = to.saturating_add_signed(delta);
                let without = if before { call } else { NOBODY };
                let cands = self.cands_without(source, a, b, when, without);
                for (x, y, vals) in partition(&cands, a, b) {
                    let vals: Vals = vals.into_iter().map(|v| v.shifted(-delta)).collect();
                    let (x, y) = (x.wrapping_add_signed(-delta), y.wrapping_add_signed(-delta));
                    let all = vals.iter().map(|val| Cand { start: x, end: y, val: *val });
                    self.ever[obj.0 as usize].extend(all);
                    self.objects[obj.0 as usize].amend(x, y, call, |version| {
                        if version.src == (Src::Copy { obj: source, delta, before }) {
                            version.src = Src::Vals(vals.clone());
                        }
                    });
                }
            }
        }
    }

    /// Notes what a call does to a file, and weakens what page cache and device may then disagree about.
    pub fn touch(&mut self, file: usize, touch: Touch) {
        let dax = self.files[file].is_dax();
        let order = &self.order;
        let mut weaken = Vec::new();
        for other in &self.files[file].touches {
            if order.apart(other.span, touch.span) || dax || other.span.call == touch.span.call {
                continue;
            }
            for (a, b) in [(other, &touch), (&touch, other)] {
                // An O_DIRECT write cannot drop a page that is dirtied meanwhile (mm/filemap.c:kiocb_invalidate_post_direct_write, 6.12):
                // the cache keeps the old bytes, the device has the new ones.
                // It goes or stays whole, and with it what came to another part of it, by whoever had looked it up before.
                if a.direct_write && b.dirties {
                    let range = (page_down(a.range.0), page_up(a.range.1));
                    weaken.push((a.span.call, range, true));
                    weaken.push((b.span.call, range, true));
                }
                // A pinned page that is dropped takes with it what is written into it later, the whole folio of it
                // (mm/truncate.c:truncate_inode_partial_folio, 6.12).
                if a.pinned && b.drops {
                    weaken.push((a.span.call, a.range, false));
                }
            }
        }
        let obj = self.files[file].obj;
        for (call, range, incoherent) in weaken {
            self.objects[obj.0 as usize].amend(range.0, range.1, call, |v| v.sure = false);
            if incoherent && !self.files[file].incoherent.contains(&range) {
                self.files[file].incoherent.push(range);
            }
        }
        self.files[file].touches.push(touch);
    }

    /// Makes the touches of a call weak after they were assigned: see `touch`, which comes before the assignment.
    fn weaken_new(&mut self, call: u16) {
        for file in 0..self.files.len() {
            let all = &mut self.files[file].touches;
            let mine: Vec<Touch> = all.extract_if(.., |t| t.span.call == call).collect();
            mine.into_iter().for_each(|touch| self.touch(file, touch));
        }
    }

    /// A line is invoked.
    pub fn invoke(&mut self, call: u16) {
        let span = self.span(call);
        self.now = span.inv;
        self.inflight.push((span.inv, call));
        self.effects(call);
        self.weaken_new(call);
        self.late_dma(call);
        self.note_deleted(call);
        self.lease_effects(call);
    }

    /// A line returned. To be called before the oracles look at it.
    pub fn returned(&mut self, call: u16) {
        self.now = self.span(call).ret;
        self.resolve(call);
        self.after_return(call);
        self.note_deleted(call);
        let changes = self.changes(call);
        self.changed.insert(call, changes);
        if self.watch.first_stand(call).is_none() {
            self.note_dues(call);
        }
    }

    /// A line was seen to stand still.
    pub fn stands(&mut self, call: u16) {
        let changes = self.changes(call);
        self.changed.insert(call, changes);
        self.note_dues(call);
    }

    /// Notes whom the break that a call began must tell, once.
    fn note_dues(&mut self, call: u16) {
        if self.dues.iter().all(|d| d.by != call) {
            let dues = self.dues(call);
            self.dues.extend(dues);
        }
    }

    /// The oracles are done with a line that returned.
    pub fn leave(&mut self, call: u16) {
        self.inflight.retain(|(_, c)| *c != call);
    }

    /// The program is over, and of its calls only these go on. What others never told the end of, since their process was killed, has
    /// done by now whatever it did.
    pub fn end(&mut self, stuck: &[CallId]) {
        let over: Vec<u16> = self
            .inflight
            .iter()
            .map(|(_, call)| *call)
            .filter(|call| !stuck.contains(&CallId(*call)))
            .collect();
        for call in over {
            self.resolve(call);
            self.leave(call);
        }
    }

    /// What a single look settled: no writer raced with it, so the bytes that were seen are the bytes.
    pub fn learn(&mut self, obj: ObjId, start: u64, runs: &[history::Run], span: Span) {
        let mut at = start;
        for run in runs {
            let end = at + run.len();
            let val = match run {
                history::Run::Zero { .. } => Some(Val::Zero),
                history::Run::Signed { run, call, offset, .. } if *run == self.run => {
                    Some(Val::Signed {
                        call: *call,
                        delta: (*offset as i64).wrapping_sub(at as i64),
                    })
                }
                _ => None,
            };
            if let Some(val) = val {
                self.learn_one(obj, (at, end), val, span);
            }
            at = end;
        }
    }

    fn learn_one(&mut self, obj: ObjId, (start, end): (u64, u64), val: Val, span: Span) {
        // Only where there was a doubt, and only where no assignment was under way.
        let mut doubtful = Vec::new();
        for (from, to, version) in
            self.objects[obj.0 as usize].visible(start, end, span, &self.order)
        {
            doubtful.push((from, to, version));
        }
        let mut places: Vec<(u64, u64)> = Vec::new();
        let mut i = 0;
        while i < doubtful.len() {
            let (from, to, _) = doubtful[i];
            let same: Vec<_> = doubtful[i..].iter().take_while(|d| d.0 == from).collect();
            // A call that reads and writes one place may have written after it read.
            let racing = same.iter().any(|(_, _, v)| !self.order.before(v.span, span));
            let plain = same.iter().all(|(_, _, v)| matches!(v.src, Src::Vals(_)));
            let many = same.len() > 1
                || same.iter().any(|(_, _, v)| matches!(&v.src, Src::Vals(vals) if vals.len() > 1));
            if many && plain && !racing {
                places.push((from, to));
            }
            i += same.len();
        }
        if self.owner[obj.0 as usize].is_some_and(|f| !self.files[f].one_look_settles()) {
            return;
        }
        for (from, to) in places {
            // Readers that are still in flight began earlier and may have seen the other value; they keep their candidates only
            // if nothing is forgotten, so learn only when this reader is alone.
            if self.inflight.iter().any(|(_, other)| *other != span.call) {
                continue;
            }
            let version = Version {
                span: Span { call: NOBODY, ..span },
                sure: true,
                src: Src::Vals(smallvec![val]),
            };
            if self.pipes_hold() || !self.pinned.is_empty() {
                // A reference that was taken before may still show what was there then.
                self.objects[obj.0 as usize].assign(from, to, &version, 0, &self.order);
            } else {
                self.objects[obj.0 as usize].settle(from, to, &version);
            }
        }
    }

    /// The mapping's object and the object offset of a mapping offset.
    pub fn view(&self, map: &Map, offset: u64) -> (ObjId, u64) {
        match (map.sharing, map.private) {
            (Sharing::Private, Some(obj)) => (obj, offset),
            _ => (self.files[map.file].obj, map.offset + offset),
        }
    }

    /// From which offset of the mapping on an access may fault, and from which it must. `None` is nowhere in the range.
    pub fn faults(&self, map: &Map, offset: u64, len: u64, write: bool, span: Span) -> Faults {
        let end = offset.saturating_add(len);
        let mut faults = Faults::default();
        if len == 0 {
            return faults;
        }
        let inside = |at: u64| (at < end).then_some(at.max(offset));
        let (min, max) = self.sizes(map.file, span, None);
        faults.bus_may = inside(page_up(min).saturating_sub(map.offset));
        faults.bus_must = inside(page_up(max).saturating_sub(map.offset));
        let (may, must) = self.taken_away(map.filler, map, (offset, end), span);
        faults.bus_may = faults.bus_may.into_iter().chain(may).min();
        faults.bus_must = faults.bus_must.into_iter().chain(must).min();
        let needed = if write { Prot::WRITE.0 } else { Prot::READ.0 | Prot::WRITE.0 };
        let prots = map.prot.during(span, None, &self.order);
        if prots.iter().any(|p| p & needed == 0) {
            faults.segv_may = inside(offset);
        }
        if prots.iter().all(|p| p & needed == 0) {
            faults.segv_must = inside(offset);
        }
        // get_user_pages wants VM_READ even where the hardware would let a write-only page be read (mm/gup.c:check_vma_flags, 6.12).
        faults.gup_may = prots.iter().any(|p| p & Prot::READ.0 == 0).then_some(offset);
        faults
    }

    /// Whether no page of a private mapping's range can be a copy: nothing was ever stored there, nor copied ahead of a store.
    /// What the call `without` did does not count.
    pub fn untouched(&self, obj: ObjId, start: u64, end: u64, without: u16) -> bool {
        let always = Span { inv: 0, ret: NEVER, call: NOBODY };
        self.objects[obj.0 as usize]
            .visible(start, end, always, &self.order)
            .all(|(_, _, v)| v.span.call == without || matches!(v.src, Src::Through { .. }))
    }

    /// States of a directory during a span.
    pub fn name_states(&self, mount: Mount, span: Span, without: Option<u16>) -> Vec<NameState> {
        self.names[&mount].during(span, without, &self.order)
    }

    /// Whether the kernel is known to take a fault for ever in this state: the program made files on XFS DAX share extents, and the kernel
    /// complained as it does when that happens. The first of these faults always warns, unless the zero page was mapped there
    /// (mm/memory.c:insert_pfn, 6.12 and 6.1), for the agent has the kernel forget before each program what it warned of once.
    pub fn reflink_livelock(&self) -> bool {
        self.dax_splat && self.reflink_faults()
    }

    /// Whether the program made files on XFS DAX share extents, and the kernel is known to fault badly then.
    pub fn reflink_faults(&self) -> bool {
        self.policy.knows(crate::Known::XfsDaxReflinkFault)
            && (0..self.program.lines.len() as u16).any(|k| {
                let shares = matches!(
                    self.call_of(k),
                    Call::Ficlone { .. }
                        | Call::Ficlonerange { .. }
                        | Call::Fideduperange { .. }
                        | Call::CopyFileRange { .. }
                );
                shares
                    && self.seen[k as usize].inv.is_some()
                    && self
                        .open_in(k, 0)
                        .is_some_and(|o| self.files[self.opens[o].file].on(Mount::XfsDax))
            })
    }

    /// Notes which files a call may have deleted.
    fn note_deleted(&mut self, call: u16) {
        let path = match self.call_of(call) {
            Call::Unlink { path } => *path,
            Call::Rename { to, .. } => *to,
            _ => return,
        };
        if !matches!(self.seen[call as usize].result, Some(Err(_))) {
            let inv = self.span(call).inv;
            let files: Vec<usize> = self.named(call, path).collect();
            self.deleted.extend(files.into_iter().map(|file| (file, inv)));
        }
    }

    /// Whether the last close of a deleted DAX file may have met pages of it that were held.
    pub fn evicts_held(&self) -> bool {
        let known = self.policy.knows(crate::Known::DaxEvictsHeld);
        known
            && self.holds().iter().any(|hold| {
                let dax = self.files[hold.file].is_dax();
                let meets = |d: &(usize, u64)| d.0 == hold.file && hold.maybe.1 >= d.1;
                dax && self.deleted.iter().any(meets)
            })
    }

    /// Whether a call stands in the kernel, busy, for want of a page that it may only read, of a file on XFS DAX that may share blocks.
    pub fn pin_livelock(&self) -> bool {
        self.watch.stands.iter().any(|stand| {
            let seen = &self.seen[stand.call as usize];
            stand.state == 'R'
                && (seen.helped || seen.ret.is_none())
                && self.pins_shared(stand.call)
        })
    }

    /// As `pin_livelock`, of a guest that went down before anybody saw the call stand: it has the lock of its process's memory, which the agent may
    /// want as well.
    pub fn pin_livelock_unseen(&self) -> bool {
        self.pin_livelock()
            || self
                .inflight
                .iter()
                .any(|(_, call)| self.watch.first_stand(*call).is_none() && self.pins_shared(*call))
    }

    /// Whether a call pins pages to read them through a shared mapping of a file on XFS DAX that may share blocks, see `Known::XfsDaxPin`.
    fn pins_shared(&self, call: u16) -> bool {
        let first = match self.call_of(call) {
            Call::ProcessVmReadv { .. } => 0,
            Call::PinBasicTest { flags, .. } if !flags.has(program::PinFlags::WRITE) => 0,
            Call::Pwrite { .. } | Call::Pwritev { .. } | Call::Writev { .. }
                if self.open_in(call, 0).is_some_and(|open| self.is_direct(open)) =>
            {
                1
            }
            _ => return false,
        };
        let shared = |n: usize| {
            self.map_in(call, n).is_some_and(|m| {
                let file = &self.files[m.file];
                m.sharing == Sharing::Shared && file.on(Mount::XfsDax) && file.shared
            })
        };
        self.policy.knows(crate::Known::XfsDaxPin)
            && (first..self.seen[call as usize].slots.len()).any(shared)
    }

    /// Whether a call is known to run in the kernel for a held page, whatever signals say: it makes two files on XFS DAX share blocks, and the page is
    /// of the one with the greater inode number.
    pub fn clone_spins(&self, call: u16, hold: &pin::Hold) -> bool {
        let clones = matches!(
            self.call_of(call),
            Call::Ficlone { .. }
                | Call::Ficlonerange { .. }
                | Call::Fideduperange { .. }
                | Call::CopyFileRange { .. }
        );
        let ino = |n: usize| self.file_in(call, n).map(|file| self.files[file].id.ino);
        let second = ino(0).max(ino(1)).filter(|_| ino(0) != ino(1));
        let held = &self.files[hold.file];
        self.policy.knows(crate::Known::XfsDaxCloneSpins)
            && clones
            && held.on(Mount::XfsDax)
            && second == Some(held.id.ino)
    }

    /// What the line does.
    pub fn call_of(&self, call: u16) -> &'a Call {
        &self.line(call).call
    }
}

/// Whether it is one of the complaints of `Known::XfsDaxReflinkFault`.
pub fn is_dax_splat(splat: &history::Splat) -> bool {
    ["dax_insert_entry", "dax_disassociate_entry", "insert_pfn"]
        .iter()
        .any(|function| splat.title.contains(function))
}

/// Where an access through a mapping may and must fault, in offsets of the mapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// SIGBUS is possible from here on.
    pub bus_may: Option<u64>,
    /// SIGBUS is certain from here on.
    pub bus_must: Option<u64>,
    /// SIGSEGV is possible from here on.
    pub segv_may: Option<u64>,
    /// SIGSEGV is certain from here on.
    pub segv_must: Option<u64>,
    /// A pin may be refused although a load would not be.
    pub gup_may: Option<u64>,
}

impl Faults {
    /// The first place that may fault.
    pub fn may(&self) -> Option<u64> {
        self.bus_may.into_iter().chain(self.segv_may).min()
    }

    /// The first place that must fault.
    pub fn must(&self) -> Option<u64> {
        self.bus_must.into_iter().chain(self.segv_must).min()
    }
}

/// Cuts a range at every boundary of the candidates; the values of each piece.
pub fn partition(cands: &[Cand], start: u64, end: u64) -> Vec<(u64, u64, Vec<Val>)> {
    let mut cuts: Vec<u64> = vec![start, end];
    for cand in cands {
        cuts.push(cand.start.clamp(start, end));
        cuts.push(cand.end.clamp(start, end));
    }
    cuts.sort_unstable();
    cuts.dedup();
    cuts.windows(2)
        .map(|w| {
            let mut vals: Vec<Val> =
                cands.iter().filter(|c| c.start <= w[0] && w[1] <= c.end).map(|c| c.val).collect();
            vals.sort_unstable();
            vals.dedup();
            if vals.is_empty() || vals.len() > VALS_MAX || vals.contains(&Val::Any) {
                vals = vec![Val::Any];
            }
            (w[0], w[1], vals)
        })
        .collect()
}

/// The size operation of a call whose outcome is unknown.
pub fn maybe(op: SizeOp, sure: bool) -> SizeOp {
    if sure { op } else { SizeOp::Maybe(Box::new(op)) }
}
