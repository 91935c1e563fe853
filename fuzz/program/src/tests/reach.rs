//! The generator reaches everything that a program can say, and keeps its promises about what most programs look like.

use super::home;
use crate::{
    Access, Advice, Buf, Call, CallKind, Direction, FallocateMode, Lane, Lease, MapFlags, Mount,
    MsyncFlags, Notice, OpenFlags, OwnerKind, PAGE, PinFlags, Program, Prot, RegionAccess, Settle,
    Sharing, SqeFlags, SyncFileRangeFlags, Whence,
};
use std::collections::BTreeSet;

/// Programs that one test looks at: seeds 0 to this.
const SEEDS: u64 = 40_000;

/// Everything that programs said, as words.
#[derive(Default)]
struct Reached(BTreeSet<String>);

impl Reached {
    fn note(&mut self, what: String) {
        self.0.insert(what);
    }

    /// Notes each flag with its state.
    fn flags<T: Copy>(&mut self, of: &str, names: &[(&'static str, T)], has: impl Fn(T) -> bool) {
        for (name, flag) in names {
            self.note(format!("{of} {name} {}", has(*flag)));
        }
    }

    fn program(&mut self, program: &Program) {
        let mut mounts = BTreeSet::new();
        // Mount of the file that the latest open put into each slot; near enough for coverage.
        let mut files = [None; 8];
        let mut direct = [false; 8];
        let mut maps = [None; 8];
        for line in &program.lines {
            let kind = line.call.kind();
            self.note(format!("{kind:?}"));
            self.note(format!("{kind:?} detached {}", line.detached));
            self.note(format!("{kind:?} aio {}", line.aio));
            self.note(format!("lane {}", line.lane));
            self.note(format!("delay {}", line.delay_us > 0));
            if let Lane::Child(_) = line.lane {
                self.note(format!("{kind:?} in a child"));
                if line.via.is_some() {
                    self.note(format!("in a ring of a child detached {}", line.detached));
                }
            }
            if let Some(via) = line.via {
                self.note(format!("{kind:?} in a ring"));
                self.flags(&format!("{kind:?} in a ring"), SqeFlags::NAMES, |flag| {
                    via.flags.has(flag)
                });
                self.note(format!("{kind:?} in a ring detached {}", line.detached));
            }
            for path in line.call.paths() {
                mounts.insert(path.mount);
                self.note(format!("{path}"));
            }
            for (buf, _) in line.call.buffers() {
                self.note(match buf {
                    Buf::Anon(offset) => format!("{kind:?} anon {}", offset % PAGE as u16 == 0),
                    Buf::Map(_, offset) => format!("{kind:?} map {}", offset % PAGE == 0),
                });
            }
            self.call(&line.call);
            match line.call {
                Call::Open { slot, flags, .. } => {
                    direct[usize::from(slot.0)] = flags.has(OpenFlags::DIRECT);
                }
                Call::Mmap { slot, file, .. } => {
                    maps[usize::from(slot.0)] = files[usize::from(file.0)];
                }
                Call::Pread { file, buf: Buf::Map(map, _), .. }
                | Call::Pwrite { file, buf: Buf::Map(map, _), .. } => {
                    let file = usize::from(file.0);
                    if let Some((of, map)) = files[file].zip(maps[usize::from(map.0)]) {
                        let how = direct[file];
                        self.note(format!("{kind:?} of {of} direct {how} with mapping of {map}"));
                    }
                }
                _ => {}
            }
            let copies = match line.call {
                Call::Open { slot, path, .. } => {
                    files[usize::from(slot.0)] = Some(path.mount);
                    None
                }
                Call::CopyFileRange { src, dst, .. }
                | Call::Sendfile { src, dst, .. }
                | Call::Ficlone { src, dst }
                | Call::Ficlonerange { src, dst, .. }
                | Call::Fideduperange { src, dst, .. } => {
                    files[usize::from(src.0)].zip(files[usize::from(dst.0)])
                }
                _ => None,
            };
            if let Some((from, to)) = copies {
                self.note(format!("{kind:?} {from} to {to}"));
            }
        }
        self.note(format!("{} mounts", mounts.len()));
    }

    fn call(&mut self, call: &Call) {
        match call {
            Call::Open { access, flags, .. } => {
                self.note(format!("open {}", access.name()));
                self.flags("open", OpenFlags::NAMES, |flag| flags.has(flag));
            }
            Call::Mmap { prot, sharing, flags, .. } => {
                self.note(format!("mmap {prot}"));
                self.flags(&format!("mmap {}", sharing.name()), MapFlags::NAMES, |flag| {
                    flags.has(flag)
                });
            }
            Call::Mprotect { prot, .. } => self.note(format!("mprotect {prot}")),
            Call::Msync { flags, .. } => {
                self.flags("msync", MsyncFlags::NAMES, |flag| flags.has(flag))
            }
            Call::SyncFileRange { flags, .. } => {
                self.flags("sync_file_range", SyncFileRangeFlags::NAMES, |flag| flags.has(flag));
            }
            Call::Fallocate { mode, .. } => self.note(format!("fallocate {}", mode.name())),
            Call::Madvise { advice, .. } => self.note(format!("madvise {}", advice.name())),
            Call::Lseek { whence, .. } => self.note(format!("lseek {}", whence.name())),
            Call::OpenGate { gate, access, .. } => {
                self.note(format!("open {gate} {}", access.name()));
            }
            Call::Hold { gate } => self.note(format!("hold {gate}")),
            Call::RegMr { slot, access, .. } => {
                self.note(format!("ibv_reg_mr {slot} {}", access.name()));
            }
            Call::PinLongtermTestStart { buf, flags, .. } => {
                let map = matches!(buf, Buf::Map(..));
                self.note(format!("pin_longterm_test_start of a mapping {map} {}", flags.0));
            }
            Call::PinBasicTest { flags, .. } => self.note(format!("pin_basic_test {}", flags.0)),
            Call::Release { gate, settle } => {
                self.note(format!("release {gate} {}", settle.name()));
            }
            Call::Setlease { lease, .. } => self.note(format!("setlease {}", lease.name())),
            Call::OnBreak { answer } => self.note(format!("on_break {}", answer.name())),
            Call::Setsig { notice, .. } => self.note(format!("setsig {}", notice.name())),
            Call::SetownEx { kind, lane, .. } => {
                let child = matches!(lane, Lane::Child(_));
                self.note(format!("setown_ex {} of a child {child}", kind.name()));
            }
            Call::LeaseBreakTime { seconds } => self.note(format!("lease_break_time {seconds}")),
            Call::Kill { lane } => self.note(format!("kill {lane}")),
            Call::Interrupt { lane } => self.note(format!("interrupt {lane}")),
            Call::Preadv { iov, .. } | Call::Pwritev { iov, .. } => {
                self.note(format!("{} of {}", call.name(), iov.len()));
            }
            _ => {}
        }
    }
}

/// Everything that ought to be said, in the same words.
fn wanted() -> Vec<String> {
    let mut all = Vec::new();
    let both = |all: &mut Vec<String>, what: &str| {
        all.extend([format!("{what} true"), format!("{what} false")]);
    };
    for kind in CallKind::ALL {
        all.push(format!("{kind:?}"));
        all.push(format!("{kind:?} detached false"));
        if kind.can_detach() {
            all.push(format!("{kind:?} detached true"));
        }
        if kind.has_aio_form() {
            all.push(format!("{kind:?} aio true"));
        }
        if kind.has_ring_form() {
            both(&mut all, &format!("{kind:?} in a ring detached"));
            for (name, flag) in SqeFlags::NAMES {
                if *flag != SqeFlags::FIXED || matches!(kind, CallKind::Pread | CallKind::Pwrite) {
                    both(&mut all, &format!("{kind:?} in a ring {name}"));
                }
            }
        }
        if kind.direction().is_some() {
            both(&mut all, &format!("{kind:?} anon"));
            both(&mut all, &format!("{kind:?} map"));
        }
    }
    let in_child = ["Load", "Store", "Pread", "Pwrite", "Mmap", "Ftruncate", "Exit"];
    let rings_in_child =
        ["IoUringSetup", "RegisterBuffers", "UpdateBuffers", "CloneBuffers", "CloseRing"];
    let pins_in_child = ["Vmsplice", "ReadPipe", "ClosePipe", "ProcMemPread", "ProcMemPwrite"];
    let regions_in_child = [
        "RegMr",
        "DeregMr",
        "PinLongtermTestStart",
        "PinLongtermTestRead",
        "PinBasicTest",
        "RdmaRead",
    ];
    let leases_in_child = ["Setlease", "RecvFd", "OnBreak", "Setsig", "SetownEx", "OpenGate"];
    for kind in
        in_child.into_iter().chain(pins_in_child).chain(leases_in_child).chain(regions_in_child)
    {
        all.push(format!("{kind} in a child"));
    }
    for kind in rings_in_child.into_iter().chain(["UnregisterBuffers"]) {
        all.push(format!("{kind} in a child"));
    }
    both(&mut all, "in a ring of a child detached");
    for lane in ["t0", "t1", "t2", "t3", "c0", "c1"] {
        all.push(format!("lane {lane}"));
    }
    both(&mut all, "delay");
    for mount in Mount::ALL {
        for name in ["a", "b", "c", "d"] {
            all.push(format!("\"{mount}:{name}\""));
        }
        for other in Mount::ALL {
            all.push(format!("CopyFileRange {mount} to {other}"));
            all.push(format!("Sendfile {mount} to {other}"));
            for call in ["Pread", "Pwrite"] {
                for how in [true, false] {
                    all.push(format!("{call} of {mount} direct {how} with mapping of {other}"));
                }
            }
        }
    }
    all.extend(["1 mounts", "2 mounts"].map(str::to_owned));
    all.extend(Access::NAMES.iter().map(|(name, _)| format!("open {name}")));
    for (flag, _) in OpenFlags::NAMES {
        both(&mut all, &format!("open {flag}"));
    }
    for prot in [Prot(0), Prot::READ, Prot::WRITE, Prot::READ.with(Prot::WRITE)] {
        all.extend([format!("mmap {prot}"), format!("mprotect {prot}")]);
    }
    for (sharing, _) in Sharing::NAMES {
        for (flag, _) in MapFlags::NAMES {
            both(&mut all, &format!("mmap {sharing} {flag}"));
        }
    }
    for (flag, _) in MsyncFlags::NAMES {
        both(&mut all, &format!("msync {flag}"));
    }
    for (flag, _) in SyncFileRangeFlags::NAMES {
        both(&mut all, &format!("sync_file_range {flag}"));
    }
    all.extend(FallocateMode::NAMES.iter().map(|(name, _)| format!("fallocate {name}")));
    all.extend(Advice::NAMES.iter().map(|(name, _)| format!("madvise {name}")));
    all.extend(Whence::NAMES.iter().map(|(name, _)| format!("lseek {name}")));
    for (access, _) in Access::NAMES.iter().filter(|(name, _)| *name != "WRONLY") {
        all.extend([format!("open g0 {access}"), format!("open g1 {access}")]);
    }
    all.extend(["hold g0", "hold g1", "hold g2", "release g2 COMPLETE"].map(str::to_owned));
    all.extend(["release g0 COMPLETE", "release g0 EIO"].map(str::to_owned));
    all.extend(Settle::NAMES.iter().map(|(name, _)| format!("release g1 {name}")));
    for (access, _) in RegionAccess::NAMES {
        all.extend([0, 1].map(|n| format!("ibv_reg_mr x{n} {access}")));
    }
    for flags in 0..=PinFlags::ALL.0 {
        let map = |map| format!("pin_longterm_test_start of a mapping {map} {flags}");
        all.extend([map(true), map(false), format!("pin_basic_test {flags}")]);
    }
    for (lease, _) in Lease::NAMES {
        all.extend([format!("setlease {lease}"), format!("on_break {lease}")]);
    }
    all.extend(Notice::NAMES.iter().map(|(name, _)| format!("setsig {name}")));
    for (owner, _) in OwnerKind::NAMES {
        both(&mut all, &format!("setown_ex {owner} of a child"));
    }
    all.extend([0, 1, 2, 45].map(|seconds| format!("lease_break_time {seconds}")));
    all.extend(["kill c0", "kill c1", "interrupt t1", "interrupt t2"].map(str::to_owned));
    all.push("interrupt t3".to_owned());
    for count in 1..=4 {
        all.extend([format!("preadv of {count}"), format!("pwritev of {count}")]);
    }
    all
}

#[test]
fn generation_reaches_everything() {
    let mut reached = Reached::default();
    for seed in 0..SEEDS {
        reached.program(&Program::from_seed(seed, home(seed)));
    }
    let missing: Vec<String> =
        wanted().into_iter().filter(|what| !reached.0.contains(what)).collect();
    assert!(missing.is_empty(), "seeds 0 to {SEEDS} never said: {missing:#?}");
}

#[test]
fn about_half_of_all_programs_race() {
    let racing = (0..SEEDS / 4)
        .filter(|seed| {
            Program::from_seed(*seed, home(*seed)).lines.iter().any(|line| line.detached)
        })
        .count() as u64;
    let percent = racing * 100 / (SEEDS / 4);
    assert!((40..=60).contains(&percent), "{percent}% of seeds 0 to {} race", SEEDS / 4);
}

#[test]
fn most_programs_are_short() {
    let mut usual = 0;
    for seed in 0..SEEDS / 4 {
        let lines = Program::from_seed(seed, home(seed)).lines.len() as u64;
        assert!(lines >= 3, "seed {seed}");
        usual += u64::from((8..=48).contains(&lines));
    }
    assert!(usual * 100 / (SEEDS / 4) >= 90, "{usual} of {} programs", SEEDS / 4);
}

#[test]
fn most_io_is_small() {
    let (mut small, mut all) = (0, 0);
    for seed in 0..SEEDS / 4 {
        for line in Program::from_seed(seed, home(seed)).lines {
            for (_, len) in line.call.buffers() {
                (small, all) = (small + u64::from(len <= 64 << 10), all + 1);
            }
        }
    }
    assert!(small * 100 / all >= 85, "{small} of {all} buffers");
}

#[test]
fn few_sequential_programs_wait_for_an_empty_pipe() {
    let (mut waiting, mut all) = (0, 0);
    for seed in 0..SEEDS / 4 {
        let program = Program::from_seed(seed, home(seed));
        let mut outline = crate::outline::Outline::default();
        let mut waits = false;
        for line in &program.lines {
            if let Call::SpliceFromPipe { pipe, len, .. } = line.call {
                let fill = outline.space(line.lane).pipes[usize::from(pipe.0)];
                waits |= len > 0 && fill.is_some_and(|pipe| outline.pipes[pipe].bytes == 0);
            }
            if let Call::SpliceToPipe { pipe, len, .. } = line.call {
                let fill = outline.space(line.lane).pipes[usize::from(pipe.0)];
                waits |= len > 0 && fill.is_some_and(|pipe| outline.pipes[pipe].buffers >= 16);
            }
            if let Call::ReadPipe { pipe, len, .. } | Call::Tee { src: pipe, len, .. } = line.call {
                let fill = outline.space(line.lane).pipes[usize::from(pipe.0)];
                waits |= len > 0 && fill.is_some_and(|pipe| outline.pipes[pipe].bytes == 0);
            }
            if let Call::Vmsplice { pipe, len, .. } = line.call {
                let fill = outline.space(line.lane).pipes[usize::from(pipe.0)];
                waits |= len > 0 && fill.is_some_and(|pipe| outline.pipes[pipe].buffers >= 16);
            }
            outline.apply(line);
        }
        (waiting, all) = (waiting + u64::from(waits), all + 1);
    }
    assert!(waiting * 100 <= all, "{waiting} of {all} programs");
}

#[test]
fn no_entropy_is_enough() {
    for len in 0..200 {
        for byte in [0, 1, 0x7f, 0xff] {
            let bytes = vec![byte; len];
            let program =
                Program::generate(&mut arbitrary::Unstructured::new(&bytes), Mount::XfsDax);
            assert!(!program.lines.is_empty(), "{len} bytes of {byte}");
        }
    }
}

#[test]
fn a_seed_is_a_program() {
    let one = Program::from_seed(7, Mount::Xfs);
    assert_eq!(one, Program::from_seed(7, Mount::Xfs));
    assert_ne!(one, Program::from_seed(8, Mount::Xfs));
    assert!(CallKind::Pread.direction() == Some(Direction::IntoBuffer));
}

#[test]
fn a_good_part_of_all_programs_hold_pages_or_leases() {
    let all = SEEDS / 4;
    let (mut held, mut leased) = (0, 0);
    for seed in 0..all {
        let program = Program::from_seed(seed, home(seed));
        held += u64::from(!program.held_pairs().is_empty());
        leased += u64::from(!program.lease_pairs().is_empty());
    }
    let (held, leased) = (held * 100 / all, leased * 100 / all);
    assert!((25..=55).contains(&held), "{held}% hold pages while they are changed");
    assert!((10..=30).contains(&leased), "{leased}% have leases that something meets");
}

#[test]
fn few_programs_end_with_a_gate_held() {
    let mut ending = 0;
    for seed in 0..SEEDS / 4 {
        let mut outline = crate::outline::Outline::default();
        let program = Program::from_seed(seed, home(seed));
        program.lines.iter().for_each(|line| outline.apply(line));
        ending += u64::from(outline.held.contains(&true));
    }
    assert!(ending * 100 <= 6 * SEEDS / 4, "{ending} of {} programs", SEEDS / 4);
}
