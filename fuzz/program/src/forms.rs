//! The forms of calls: each kind in each of its modes, by each way of issuing it, from each sort of buffer. What a program can say, as a list
//! that is short enough to be counted and read.
//!
//! Not combinations: an open with two flags has both forms. Numbers (offsets, lengths, seconds) make no form.

use crate::{
    Access, Advice, Buf, Call, CallKind, FallocateMode, GateSlot, Lease, Line, MapFlags,
    MsyncFlags, Notice, OpenFlags, OwnerKind, PinFlags, RegionAccess, Settle, Sharing, SqeFlags,
    SyncFileRangeFlags, Whence,
};
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// A kind of call in one of its modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Form {
    kind: CallKind,
    mode: u8,
}

/// What a kind has modes of.
#[derive(Clone, Copy)]
enum Aspect {
    Access,
    OpenFlags,
    Prot,
    Sharing,
    MapFlags,
    Msync,
    SyncFileRange,
    Mode,
    Advice,
    Whence,
    Lease,
    Notice,
    Owner,
    Gate,
    Settle,
    Region,
    Pin,
    Buffers,
    Way,
}

/// The protections as numbers, as in the text form.
const PROTS: [&str; 4] = ["NONE", "R", "W", "RW"];
const GATES: [&str; 3] = ["g0", "g1", "g2"];
const BUFFERS: [&str; 2] = ["anon", "mapping"];
const WAYS: [&str; 4] = ["(plain)", "(ring)", "(aio)", "(ring, fixed)"];

/// The names of a table of names.
fn names<T>(table: &'static [(&'static str, T)]) -> Vec<&'static str> {
    table.iter().map(|(name, _)| *name).collect()
}

/// With a name for no flag at all, where the kind has no other modes.
fn or_none(mut names: Vec<&'static str>) -> Vec<&'static str> {
    names.push("0");
    names
}

impl Aspect {
    /// The modes of that kind, by name.
    fn names(self, kind: CallKind) -> Vec<&'static str> {
        match self {
            Aspect::Access => names(Access::NAMES),
            Aspect::OpenFlags => names(OpenFlags::NAMES),
            Aspect::Prot => PROTS.to_vec(),
            Aspect::Sharing => names(Sharing::NAMES),
            Aspect::MapFlags => names(MapFlags::NAMES),
            Aspect::Msync => or_none(names(MsyncFlags::NAMES)),
            Aspect::SyncFileRange => or_none(names(SyncFileRangeFlags::NAMES)),
            Aspect::Mode => names(FallocateMode::NAMES),
            Aspect::Advice => names(Advice::NAMES),
            Aspect::Whence => names(Whence::NAMES),
            Aspect::Lease => names(Lease::NAMES),
            Aspect::Notice => names(Notice::NAMES),
            Aspect::Owner => names(OwnerKind::NAMES),
            Aspect::Gate if kind == CallKind::OpenGate => GATES[..2].to_vec(),
            Aspect::Gate => GATES.to_vec(),
            Aspect::Settle => names(Settle::NAMES),
            Aspect::Region => names(RegionAccess::NAMES),
            Aspect::Pin => or_none(names(PinFlags::NAMES)),
            Aspect::Buffers => BUFFERS.to_vec(),
            Aspect::Way => match kind {
                CallKind::Pread | CallKind::Pwrite => WAYS.to_vec(),
                _ if kind.has_aio_form() => WAYS[..3].to_vec(),
                _ => WAYS[..2].to_vec(),
            },
        }
    }

    /// Which of the modes the line has, as bits.
    fn of(self, line: &Line) -> u32 {
        let one = |index: usize| 1_u32.checked_shl(index as u32).unwrap_or(0);
        match (self, &line.call) {
            (Aspect::Access, Call::Open { access, .. } | Call::OpenGate { access, .. }) => {
                one(*access as usize)
            }
            (Aspect::OpenFlags, Call::Open { flags, .. }) => {
                set(OpenFlags::NAMES, |f| flags.has(f))
            }
            (Aspect::Prot, Call::Mmap { prot, .. } | Call::Mprotect { prot, .. }) => {
                one(usize::from(prot.0))
            }
            (Aspect::Sharing, Call::Mmap { sharing, .. }) => one(*sharing as usize),
            (Aspect::MapFlags, Call::Mmap { flags, .. }) => set(MapFlags::NAMES, |f| flags.has(f)),
            (Aspect::Msync, Call::Msync { flags: MsyncFlags(0), .. }) => {
                one(MsyncFlags::NAMES.len())
            }
            (Aspect::Msync, Call::Msync { flags, .. }) => set(MsyncFlags::NAMES, |f| flags.has(f)),
            (Aspect::SyncFileRange, Call::SyncFileRange { flags: SyncFileRangeFlags(0), .. }) => {
                one(SyncFileRangeFlags::NAMES.len())
            }
            (Aspect::SyncFileRange, Call::SyncFileRange { flags, .. }) => {
                set(SyncFileRangeFlags::NAMES, |f| flags.has(f))
            }
            (Aspect::Mode, Call::Fallocate { mode, .. }) => one(*mode as usize),
            (Aspect::Advice, Call::Madvise { advice, .. }) => one(*advice as usize),
            (Aspect::Whence, Call::Lseek { whence, .. }) => one(*whence as usize),
            (Aspect::Lease, Call::Setlease { lease, .. } | Call::OnBreak { answer: lease }) => {
                one(*lease as usize)
            }
            (Aspect::Notice, Call::Setsig { notice, .. }) => one(*notice as usize),
            (Aspect::Owner, Call::SetownEx { kind, .. }) => one(*kind as usize),
            (
                Aspect::Gate,
                Call::Hold { gate: GateSlot(n) }
                | Call::Release { gate: GateSlot(n), .. }
                | Call::OpenGate { gate: GateSlot(n), .. },
            ) => one(usize::from(*n)),
            (Aspect::Settle, Call::Release { settle, .. }) => one(*settle as usize),
            (Aspect::Region, Call::RegMr { access, .. }) => one(*access as usize),
            (
                Aspect::Pin,
                Call::PinLongtermTestStart { flags, .. } | Call::PinBasicTest { flags, .. },
            ) => match *flags {
                PinFlags(0) => one(PinFlags::NAMES.len()),
                flags => set(PinFlags::NAMES, |f| flags.has(f)),
            },
            (Aspect::Buffers, Call::PinLongtermTestStart { buf, .. }) => {
                one(usize::from(matches!(buf, Buf::Map(..))))
            }
            (Aspect::Buffers, call) => call
                .buffers()
                .fold(0, |bits, (buf, _)| bits | one(usize::from(matches!(buf, Buf::Map(..))))),
            (Aspect::Way, _) => one(match line.via {
                Some(via) if via.flags.has(SqeFlags::FIXED) => 3,
                Some(_) => 1,
                None if line.aio => 2,
                None => 0,
            }),
            _ => 0,
        }
    }
}

/// Which flags of a table are set, as bits in its order.
fn set<F: Copy>(table: &[(&str, F)], has: impl Fn(F) -> bool) -> u32 {
    let bits = table.iter().enumerate().filter(|(_, (_, flag))| has(*flag));
    bits.fold(0, |bits, (index, _)| bits | 1 << index)
}

/// What a kind has modes of.
fn aspects(kind: CallKind) -> Vec<Aspect> {
    use Aspect as A;
    use CallKind as K;
    let mut all: Vec<Aspect> = match kind {
        K::Open => vec![A::Access, A::OpenFlags],
        K::Mmap => vec![A::Prot, A::Sharing, A::MapFlags],
        K::Mprotect => vec![A::Prot],
        K::Msync => vec![A::Msync],
        K::SyncFileRange => vec![A::SyncFileRange],
        K::Fallocate => vec![A::Mode],
        K::Madvise => vec![A::Advice],
        K::Lseek => vec![A::Whence],
        K::Setlease | K::OnBreak => vec![A::Lease],
        K::Setsig => vec![A::Notice],
        K::SetownEx => vec![A::Owner],
        K::OpenGate => vec![A::Gate, A::Access],
        K::Hold => vec![A::Gate],
        K::Release => vec![A::Gate, A::Settle],
        K::RegMr => vec![A::Region],
        K::PinLongtermTestStart => vec![A::Pin, A::Buffers],
        K::PinBasicTest => vec![A::Pin],
        _ => Vec::new(),
    };
    if kind.direction().is_some() {
        all.push(A::Buffers);
    }
    if kind.has_ring_form() {
        all.push(A::Way);
    }
    all
}

/// The aspects of every kind, with how many modes each has, indexed as [`CallKind::ALL`].
static ASPECTS: LazyLock<Vec<Vec<(Aspect, u8)>>> = LazyLock::new(|| {
    let counted = |kind: &CallKind| {
        let aspects = aspects(*kind).into_iter();
        aspects.map(|aspect| (aspect, aspect.names(*kind).len() as u8)).collect()
    };
    CallKind::ALL.iter().map(counted).collect()
});

/// Every form with its name, in the order of the kinds.
static ALL: LazyLock<Vec<(Form, String)>> = LazyLock::new(|| {
    let mut all = Vec::new();
    for kind in CallKind::ALL {
        let modes = aspects(*kind).into_iter().flat_map(|aspect| aspect.names(*kind));
        let mut mode = 0;
        for name in modes {
            all.push((Form { kind: *kind, mode }, format!("{} {name}", kind.label())));
            mode += 1;
        }
        if mode == 0 {
            all.push((Form { kind: *kind, mode }, kind.label().to_string()));
        }
    }
    all
});

static BY_NAME: LazyLock<BTreeMap<&'static str, Form>> =
    LazyLock::new(|| ALL.iter().map(|(form, name)| (name.as_str(), *form)).collect());

impl Form {
    /// Every form, in the order of the kinds.
    pub fn all() -> impl Iterator<Item = Form> {
        ALL.iter().map(|(form, _)| *form)
    }

    /// The forms that the line has: at least one.
    pub fn of(line: &Line) -> Vec<Form> {
        let kind = line.call.kind();
        let mut forms = Vec::new();
        let mut first = 0;
        for (aspect, count) in &ASPECTS[kind as usize] {
            let said = aspect.of(line);
            let modes = (0..*count).filter(|mode| said & (1 << *mode) != 0);
            forms.extend(modes.map(|mode| Form { kind, mode: first + mode }));
            first += count;
        }
        if forms.is_empty() && first == 0 {
            forms.push(Form { kind, mode: 0 });
        }
        forms
    }

    /// The kind of the call.
    pub fn kind(self) -> CallKind {
        self.kind
    }

    /// As a number, the same for one version of this crate.
    pub fn number(self) -> u64 {
        (self.kind as u64) << 8 | u64::from(self.mode)
    }

    /// The name for reports: the call and its mode.
    pub fn name(self) -> &'static str {
        let found = ALL.binary_search_by_key(&self, |(form, _)| *form);
        found.map_or("", |at| ALL[at].1.as_str())
    }

    /// The mode alone; empty where the kind has none.
    pub fn mode_name(self) -> &'static str {
        self.name().strip_prefix(self.kind.label()).unwrap_or_default().trim_start()
    }

    /// The form of that name.
    pub fn from_name(name: &str) -> Option<Form> {
        BY_NAME.get(name).copied()
    }
}

impl CallKind {
    /// The name where kinds that share one in the text form must be told apart.
    pub const fn label(self) -> &'static str {
        match self {
            CallKind::OpenGate => "open gate",
            CallKind::ClosePipe => "close pipe",
            CallKind::CloseRing => "close ring",
            CallKind::SpliceToPipe => "splice to pipe",
            CallKind::SpliceFromPipe => "splice from pipe",
            CallKind::ReadPipe => "read pipe",
            kind => kind.name(),
        }
    }

    /// Whether the call is about a file of a mount, by a descriptor, a mapping or a name.
    pub fn has_file(self) -> bool {
        let call = self.template();
        let of_file =
            |slot: &crate::Slot| matches!(slot, crate::Slot::File(_) | crate::Slot::Map(_));
        call.paths().next().is_some() || call.uses().iter().any(of_file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Mount, Program};
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_lead_back() {
        let names: BTreeSet<&str> = Form::all().map(Form::name).collect();
        assert_eq!(names.len(), Form::all().count());
        for form in Form::all() {
            assert_eq!(Form::from_name(form.name()), Some(form), "{}", form.name());
        }
        assert_eq!(
            Form::from_name("fallocate PUNCH_HOLE").map(Form::mode_name),
            Some("PUNCH_HOLE")
        );
        assert_eq!(Form::from_name("fallocate"), None);
        assert!(Form::all().is_sorted());
    }

    #[test]
    fn a_line_has_the_forms_that_it_says() {
        let program = Program::parse(
            "pinfuzz 1\nimage ext4\nt0: r0 = io_uring_setup(8)\n\
             t0: f0 = open(\"a\", RDWR|CREAT|TRUNC)\n\
             t0: m0 = mmap(f0, 0, 4K, R, PRIVATE)\n\
             t0: preadv(f0, 0, [anon 4K, m0+0 512]) (r0)\n\
             t0: msync(m0+0, 4K, 0)\nt0: exit()\nt0: close(f0)\n",
        );
        let program = program.expect("it parses");
        let said: Vec<Vec<&str>> = program
            .lines
            .iter()
            .map(|l| Form::of(l).into_iter().map(Form::name).collect())
            .collect();
        assert_eq!(said[1], ["open RDWR", "open CREAT", "open TRUNC"]);
        assert_eq!(said[2], ["mmap R", "mmap PRIVATE"]);
        assert_eq!(said[3], ["preadv anon", "preadv mapping", "preadv (ring)"]);
        assert_eq!(said.last().unwrap(), &["close"]);
    }

    /// What only mutation says: of a gate's device two accesses are drawn, and msync is always told something.
    const NEVER_SAID: &[&str] = &["open gate WRONLY", "msync 0"];

    #[test]
    fn programs_say_all_forms() {
        let mut said = BTreeSet::new();
        for seed in 0..20_000 {
            let program = Program::from_seed(seed, Mount::ALL[seed as usize % 4]);
            for line in &program.lines {
                let forms = Form::of(line);
                assert!(!forms.is_empty(), "{:?}", line.call);
                said.extend(forms);
            }
        }
        let missing: Vec<&str> =
            Form::all().filter(|form| !said.contains(form)).map(Form::name).collect();
        assert!(missing.iter().all(|name| NEVER_SAID.contains(name)), "{missing:?}");
    }
}
